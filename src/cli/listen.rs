//! `seventh listen`

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use serde_json::json;

use super::{
    exit::Refused,
    operator::{json_line, printable},
};
use crate::client::{EventSource, Protocol, Signal, Trust};

/// Read an event stream, as a browser's EventSource does.
#[derive(Debug, Args)]
pub(super) struct Listen {
    /// The URL of the stream, such as https://localhost:8443/events?topic=news
    url: Uri,
    /// Resume after the event with this id
    #[arg(long, value_name = "ID")]
    last_event_id: Option<String>,
    /// The version of HTTP
    #[arg(long, value_enum, default_value = "2")]
    http: Version,
    /// A CA to trust, in PEM: the edge's development CA is certs/ca.pem
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long)]
    insecure: bool,
    /// A token, sent as `Authorization: Bearer`
    #[arg(long, env = "SEVENTH_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A field to send, such as 'Cookie: sid=1'; may be given several times
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
    /// End after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Version {
    #[value(name = "1.1")]
    Http1,
    #[value(name = "2")]
    Http2,
    #[value(name = "3")]
    Http3,
}

impl From<Version> for Protocol {
    fn from(version: Version) -> Self {
        match version {
            Version::Http1 => Self::Http1,
            Version::Http2 => Self::Http2,
            Version::Http3 => Self::Http3,
        }
    }
}

impl Listen {
    pub(super) fn run(self) -> anyhow::Result<()> {
        super::runtime::block_on(self.listen())
    }

    async fn listen(self) -> anyhow::Result<()> {
        let trust = match (self.ca, self.insecure) {
            (Some(ca), _) => Trust::Ca(ca),
            (None, true) => Trust::Anyone,
            (None, false) => Trust::System,
        };
        let last_event_id = self.last_event_id.unwrap_or_default();
        let fields = fields(self.token.as_deref(), &self.header)?;
        let source = EventSource::new(self.url, self.http.into(), trust, last_event_id);
        let mut source = source.with_fields(fields);
        let printer = Printer {
            json: self.json,
            color: std::io::stdout().is_terminal(),
        };
        let mut left = self.count;
        while left != Some(0) {
            let signal = tokio::select! {
                signal = source.next() => signal,
                _ = tokio::signal::ctrl_c() => return Ok(()),
            };
            let Some(signal) = signal else { return Ok(()) };
            let closed = matches!(signal, Signal::Closed { .. });
            if matches!(signal, Signal::Message(_)) {
                left = left.map(|left| left - 1);
            }
            let printed = printer.print(&signal);
            if closed {
                return Err(Refused("the server closed the stream for good".into()).into());
            }
            // Whoever read this has left.
            if printed.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

struct Printer {
    json: bool,
    color: bool,
}

impl Printer {
    fn print(&self, signal: &Signal) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", json_line(&as_json(signal)))?;
        } else {
            match signal {
                Signal::Open => self.note("open"),
                Signal::Reconnecting { after, why } => {
                    self.note(&format!("{why}; trying again in {} ms", after.as_millis()));
                }
                Signal::Closed { why } => self.note(&format!("closed: {why}")),
                Signal::Message(message) => {
                    let (dim, bold, plain) = self.colors();
                    writeln!(
                        out,
                        "{bold}{}{plain} {dim}{}{plain}",
                        printable(&message.event),
                        printable(&message.id)
                    )?;
                    for line in message.data.split('\n') {
                        writeln!(out, "  {}", printable(line))?;
                    }
                }
            }
        }
        out.flush()
    }

    fn note(&self, text: &str) {
        eprintln!("-- {}", printable(text));
    }

    fn colors(&self) -> (&'static str, &'static str, &'static str) {
        if self.color {
            ("\x1b[2m", "\x1b[1;36m", "\x1b[0m")
        } else {
            ("", "", "")
        }
    }
}

/// What is sent beside an `EventSource`'s own fields.
fn fields(token: Option<&str>, headers: &[String]) -> anyhow::Result<HeaderMap> {
    let mut fields = HeaderMap::new();
    for field in headers {
        // What it holds may be a secret.
        let (name, value) = field
            .split_once(':')
            .context("--header takes NAME: VALUE")?;
        let name: HeaderName = name
            .trim()
            .parse()
            .context("--header: the name is not one")?;
        let value = HeaderValue::try_from(value.trim());
        fields.append(
            name,
            value.context("--header: the value cannot stand in a header")?,
        );
    }
    // One that is in the environment gives way to what is said here.
    if let Some(token) = token
        && !fields.contains_key(header::AUTHORIZATION)
    {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .context("--token cannot stand in a header")?;
        value.set_sensitive(true);
        fields.insert(header::AUTHORIZATION, value);
    }
    Ok(fields)
}

fn as_json(signal: &Signal) -> serde_json::Value {
    match signal {
        Signal::Open => json!({ "signal": "open" }),
        Signal::Message(message) => {
            json!({ "signal": "message", "event": message.event, "data": message.data, "id": message.id })
        }
        Signal::Reconnecting { after, why } => {
            let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            json!({ "signal": "reconnecting", "after_ms": after, "why": why })
        }
        Signal::Closed { why } => json!({ "signal": "closed", "why": why }),
    }
}
