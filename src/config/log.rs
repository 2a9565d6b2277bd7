//! `[log]`

use super::{
    reader::Reader,
    value::{Raw, Setting},
};

/// How it logs.
#[derive(Clone, Debug)]
pub struct Log {
    /// `log.format`
    pub format: LogFormat,
    /// `log.filter`
    pub filter: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: a JSON object a line.
    Json,
}

impl Setting for LogFormat {
    const KIND: &'static str = "\"text\" or \"json\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match String::read(raw)?.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is neither text nor json")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Text => "\"text\"".into(),
            Self::Json => "\"json\"".into(),
        }
    }
}

pub(super) fn take(reader: &mut Reader) -> Log {
    Log {
        format: reader.take("log.format", LogFormat::Text, "How log lines are written."),
        filter: reader.take_if(
            "log.filter",
            "info".to_owned(),
            "Which log lines are written: a level, or `module=level` pairs.",
            |filter| match filter.parse::<tracing_subscriber::EnvFilter>() {
                Ok(_) => Ok(()),
                Err(error) => Err(format!(
                    "`{filter}` is not a filter ({error}); try info or debug"
                )),
            },
        ),
    }
}
