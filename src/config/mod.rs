//! What may be written in `seventh.toml`, the environment and on the command line.
//!
//! A module owns the type of its own settings; this one fills them in, each with the line that the
//! reference shows, and reports every mistake at once.

#[path = "access.rs"]
mod access_section;
mod reader;
pub mod units;

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

pub use reader::{Entry, Mistake, Mistakes, Reader, Sources, variable};
use units::{Bytes, Raw, Setting};

use crate::{
    access::{self, Token},
    hub::Retention,
    limits::{Limits, Row, Source},
    service::EventSettings,
    tls::CertificateFiles,
};

/// The file that is read when it is there and no other is named.
pub const FILE: &str = "seventh.toml";

/// The longest time that a setting may be.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

/// Everything that is configured, checked whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https.listen`
    pub https: Vec<SocketAddr>,
    /// `[control]`
    pub control: Control,
    /// `[tls]`
    pub tls: CertificateFiles,
    /// `[events]`
    pub events: EventSettings,
    /// `[access]` and `[groups]`
    pub access: access::Settings,
    /// `[history]`
    pub history: Retention,
    /// `[limits]`
    pub limits: Limits,
    /// `[drain]`
    pub drain: Drain,
    /// `[log]`
    pub log: Log,
    /// `demo.enabled`, or whether nothing else is configured.
    pub demo: bool,
}

/// The private listener.
#[derive(Clone, Debug)]
pub struct Control {
    /// `control.listen`
    pub listen: SocketAddr,
    /// `control.allow_remote`
    pub allow_remote: bool,
    /// `control.token`
    pub token: Option<Token>,
}

/// How the edge ends.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// `drain.spread`
    pub spread: Duration,
    /// `drain.grace`
    pub grace: Duration,
}

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

impl Setting for Token {
    const KIND: &'static str = "text";

    fn read(raw: &Raw) -> Result<Self, String> {
        Self::parse(&String::read(raw)?)
    }

    fn show(&self) -> String {
        "(secret)".into()
    }
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

impl Config {
    /// Reads the file, if there is one, and the environment, and takes `flags` over both.
    ///
    /// # Errors
    ///
    /// All [`Mistakes`] at once.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: BTreeMap<String, Raw>,
    ) -> Result<Self, Mistakes> {
        let mut sources = Sources {
            flags,
            ..Sources::default()
        };
        let (path, named) = match file {
            Some(path) => (path, true),
            None => (Path::new(FILE), false),
        };
        match std::fs::read_to_string(path) {
            Ok(text) => read_file(&path.display().to_string(), &text, &mut sources),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {}
            Err(error) => sources.mistakes.push(Mistake {
                key: path.display().to_string(),
                what: format!("cannot be read: {error}"),
            }),
        }
        sources.environment = environment
            .filter(|(name, _)| name.starts_with("SEVENTH_"))
            .map(|(name, value)| (name, Raw::One(value)))
            .collect();
        Self::from_sources(sources)
    }

    /// Reads one configuration file's text alone.
    ///
    /// # Errors
    ///
    /// All [`Mistakes`] at once.
    pub fn from_text(text: &str) -> Result<Self, Mistakes> {
        let mut sources = Sources::default();
        read_file("the text", text, &mut sources);
        Self::from_sources(sources)
    }

    /// Takes every setting from `sources`.
    ///
    /// # Errors
    ///
    /// All [`Mistakes`] at once.
    pub fn from_sources(sources: Sources) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(sources);
        let config = take(&mut reader);
        reader.finish().map(|()| config)
    }

    /// Every setting there is.
    #[must_use]
    pub fn reference() -> Vec<Entry> {
        let mut reader = Reader::new(Sources::default());
        take(&mut reader);
        let mut entries = reader.entries().to_vec();
        // Each section in one piece, wherever its settings were taken; the first stays first.
        let mut sections: Vec<&str> = entries.iter().map(Entry::section).collect();
        let mut seen = HashSet::new();
        sections.retain(|section| seen.insert(*section));
        entries.sort_by_key(|entry| {
            sections
                .iter()
                .position(|section| *section == entry.section())
        });
        entries
    }
}

fn take(reader: &mut Reader) -> Config {
    let config = Config {
        https: reader.take(
            "https.listen",
            loopback(8443),
            "Where browsers connect, over TCP (HTTP/1.1, HTTP/2) and UDP (HTTP/3) on the same port.",
        ),
        control: take_control(reader),
        tls: take_tls(reader),
        events: take_events(reader),
        access: access_section::take(reader),
        history: take_history(reader),
        limits: Limits::take(reader),
        drain: take_drain(reader),
        log: Log {
            format: reader.take("log.format", LogFormat::Text, "How log lines are written."),
            filter: reader.take_if(
                "log.filter",
                "info".to_owned(),
                "Which log lines are written: a level, or `module=level` pairs.",
                |filter| match filter.parse::<tracing_subscriber::EnvFilter>() {
                    Ok(_) => Ok(()),
                    Err(error) => Err(format!("`{filter}` is not a filter ({error}); try info or debug")),
                },
            ),
        },
        demo: false,
    };
    let demo = reader.take(
        "demo.enabled",
        None,
        "Whether `/` is the demo page, with an endpoint that lets visitors publish to topics below \
         `demo/`. Unset: while the development certificate is in use.",
    );
    Config {
        demo: demo.unwrap_or(config.tls.pair.is_none() && config.events.enabled),
        ..config
    }
}

fn take_control(reader: &mut Reader) -> Control {
    let control = Control {
        listen: reader.take(
            "control.listen",
            SocketAddr::from((Ipv4Addr::LOCALHOST, 7070)),
            "Where publishers and operators connect: plain HTTP/1.1 and HTTP/2, private.",
        ),
        allow_remote: reader.take(
            "control.allow_remote",
            false,
            "Whether `control.listen` may be beyond loopback; takes a `control.token` too.",
        ),
        token: reader.take(
            "control.token",
            None,
            "When set, requests to the control listener need `Authorization: Bearer` with it.",
        ),
    };
    let remote = !control.listen.ip().is_loopback();
    if remote && !(control.allow_remote && control.token.is_some()) {
        reader.mistake(
            "control.listen",
            format!(
                "{} is beyond loopback, where anyone could publish; bind 127.0.0.1, or set \
                 control.allow_remote = true and a control.token",
                control.listen
            ),
        );
    }
    control
}

fn take_tls(reader: &mut Reader) -> CertificateFiles {
    let cert: Option<PathBuf> = reader.take("tls.cert", None, "The certificate chain, PEM.");
    let key: Option<PathBuf> = reader.take("tls.key", None, "Its private key, PEM.");
    let directory = reader.take(
        "tls.directory",
        PathBuf::from("certs"),
        "Where the development certificate is made when `tls.cert` is not set.",
    );
    match (&cert, &key) {
        (Some(_), None) => reader.mistake("tls.key", "is missing; tls.cert needs it"),
        (None, Some(_)) => reader.mistake("tls.cert", "is missing; tls.key needs it"),
        _ => {}
    }
    CertificateFiles {
        pair: cert.zip(key),
        directory,
    }
}

fn take_events(reader: &mut Reader) -> EventSettings {
    let default = EventSettings::default();
    EventSettings {
        enabled: reader.take("events.enabled", default.enabled, "Whether there are event streams at all."),
        path: reader.take_if(
            "events.path",
            default.path,
            "The path of the event stream.",
            |path| match path.starts_with('/') && !path.contains(['?', '#', '%']) && !path.starts_with("//") {
                true => Ok(()),
                false => Err(format!("`{path}` is not a path; begin it with one / and leave out ?, # and %")),
            },
        ),
        retry: reader.take_if(
            "events.retry",
            default.retry,
            "How long a client waits before it reconnects, give or take half.",
            |retry| between(*retry, Duration::from_millis(500), Duration::from_secs(3600)),
        ),
        keepalive: reader.take_if(
            "events.keepalive",
            default.keepalive,
            "How long a stream may be quiet before a comment is sent; a client that vanished is gone within it.",
            |keepalive| between(*keepalive, Duration::from_millis(100), Duration::from_secs(240)),
        ),
    }
}

fn take_history(reader: &mut Reader) -> Retention {
    let default = Retention::default();
    Retention {
        events: reader.take_if(
            "history.events",
            default.events,
            "The most events a topic keeps; also how far a reader may fall behind.",
            at_least_one,
        ),
        age: reader.take("history.age", default.age, "How long an event is kept."),
        topic_bytes: reader
            .take("history.topic_bytes", Bytes(default.topic_bytes), "The most bytes a topic keeps.")
            .0,
        total_bytes: reader
            .take(
                "history.total_bytes",
                Bytes(default.total_bytes),
                "The most bytes all topics keep together; the least recently published give way first.",
            )
            .0,
    }
}

impl Source for Reader {
    fn count(&mut self, row: Row<usize>) -> usize {
        let Row {
            key,
            doc,
            default,
            range,
        } = row;
        self.take_if(key, default, doc, |n| {
            in_range(*n, *range.start(), *range.end())
        })
    }

    fn bytes(&mut self, row: Row<usize>) -> usize {
        let Row {
            key,
            doc,
            default,
            range,
        } = row;
        self.take_if(key, Bytes(default), doc, |bytes| {
            in_range(bytes.0, *range.start(), *range.end())
        })
        .0
    }

    fn time(&mut self, row: Row<Duration>) -> Duration {
        let Row {
            key,
            doc,
            default,
            range,
        } = row;
        self.take_if(key, default, doc, |time| {
            between(*time, *range.start(), *range.end())
        })
    }
}

fn take_drain(reader: &mut Reader) -> Drain {
    let drain = Drain {
        spread: reader.take_if(
            "drain.spread",
            Duration::from_secs(5),
            "Over how long event streams are ended when the edge is told to stop, and then reconnect.", |time| between(*time, Duration::ZERO, MAX_TIME)),
        grace: reader.take_if(
            "drain.grace",
            Duration::from_secs(30),
            "How long ending may take before what is left is cut.", |time| between(*time, Duration::ZERO, 2 * MAX_TIME)),
    };
    if drain.grace < drain.spread {
        reader.mistake(
            "drain.grace",
            "is shorter than drain.spread, so streams would be cut before their turn; make it longer",
        );
    }
    drain
}

fn loopback(port: u16) -> Vec<SocketAddr> {
    let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    hosts.into_iter().map(|host| (host, port).into()).collect()
}

fn at_least_one(n: &usize) -> Result<(), String> {
    in_range(*n, 1, usize::MAX)
}

fn in_range(n: usize, least: usize, most: usize) -> Result<(), String> {
    match n {
        n if n < least => Err(format!("{n} is too small, the least is {least}")),
        n if n > most => Err(format!("{n} is too large, the most is {most}")),
        _ => Ok(()),
    }
}

fn between(duration: Duration, least: Duration, most: Duration) -> Result<(), String> {
    if duration < least || duration > most {
        return Err(format!(
            "{} is not between {} and {}",
            duration.show(),
            least.show(),
            most.show()
        ));
    }
    Ok(())
}

fn read_file(name: &str, text: &str, sources: &mut Sources) {
    match text.parse::<toml::Table>() {
        Ok(table) => flatten("", toml::Value::Table(table), sources),
        Err(error) => {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].lines().count().max(1));
            sources.mistakes.push(Mistake {
                key: format!("{name}, line {line}"),
                what: error.message().to_owned(),
            });
        }
    }
}

fn flatten(prefix: &str, value: toml::Value, sources: &mut Sources) {
    let raw = match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, sources);
            }
            return;
        }
        toml::Value::Array(values) => {
            let is_table = |value: &toml::Value| value.is_table();
            if !values.is_empty() && values.iter().all(is_table) {
                let tables = values.into_iter().filter_map(|value| match value {
                    toml::Value::Table(table) => Some(table),
                    _ => None,
                });
                sources
                    .file
                    .insert(prefix.to_owned(), Raw::Tables(tables.collect()));
                return;
            }
            if values
                .iter()
                .any(|value| value.is_array() || value.is_table())
            {
                return sources.mistakes.push(Mistake {
                    key: prefix.into(),
                    what: "mixes lists or tables with values; give a list of values".into(),
                });
            }
            Raw::Many(values.into_iter().map(scalar).collect())
        }
        value => Raw::One(scalar(value)),
    };
    sources.file.insert(prefix.to_owned(), raw);
}

fn scalar(value: toml::Value) -> String {
    match value {
        toml::Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        let Err(Mistakes(mistakes)) = Config::from_text(text) else {
            panic!("there is a mistake");
        };
        mistakes
            .into_iter()
            .map(|m| format!("{}: {}", m.key, m.what))
            .collect()
    }

    #[test]
    fn nothing_written_is_the_defaults() {
        let config = Config::from_text("").expect("no mistake");
        assert_eq!(config.https, loopback(8443));
        assert_eq!(config.history.events, 1000);
        assert!(config.demo);
    }

    #[test]
    fn every_mistake_is_reported_at_once_by_its_key() {
        let text = "
            [history]
            evnts = 5
            age = 60
            [control]
            listen = \"0.0.0.0:7070\"
            [tls]
            cert = \"a.pem\"
            [limits]
            http2_streams = 7
            [log]
            format = \"xml\"
        ";
        assert_eq!(
            mistakes(text),
            [
                "control.listen: 0.0.0.0:7070 is beyond loopback, where anyone could publish; bind 127.0.0.1, \
                 or set control.allow_remote = true and a control.token",
                "tls.key: is missing; tls.cert needs it",
                "history.age: `60` is not a duration; write a number and a unit, such as 15s, 500ms or 1h",
                "limits.http2_streams: 7 is too small, the least is 32",
                "log.format: `xml` is neither text nor json",
                "history.evnts: unknown key; remove it, or did you mean `history.events`?",
            ]
        );
    }

    #[test]
    fn a_file_that_is_not_toml_is_reported_with_its_line() {
        let [mistake] = &mistakes("[history]\nevents = \n")[..] else {
            panic!("one mistake");
        };
        assert!(mistake.starts_with("the text, line 2: "), "{mistake}");
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file() {
        let one = |text: &str| Raw::One(text.into());
        let mut sources = Sources::default();
        for key in [
            "history.events",
            "limits.http2_streams",
            "limits.http3_streams",
        ] {
            sources.file.insert(key.into(), one("100"));
        }
        sources
            .environment
            .insert("SEVENTH_HISTORY_EVENTS".into(), one("200"));
        sources
            .environment
            .insert("SEVENTH_LIMITS_HTTP2_STREAMS".into(), one("200"));
        sources.flags.insert("history.events".into(), one("300"));
        let config = Config::from_sources(sources).expect("no mistake");
        assert_eq!(
            (
                config.history.events,
                config.limits.http2_streams.value,
                config.limits.http3_streams.value
            ),
            (300, 200, 100)
        );
    }

    #[test]
    fn a_remote_control_listener_takes_a_token_and_never_shows_it() {
        let text = "control.listen = \"0.0.0.0:0\"\ncontrol.allow_remote = true\ncontrol.token = \"0123456789abcdef\"";
        let config = Config::from_text(text).expect("no mistake");
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
        assert_eq!(mistakes("control.token = \"short\"").len(), 1);
    }

    #[test]
    fn an_unknown_environment_variable_is_a_mistake() {
        let mut sources = Sources::default();
        sources
            .environment
            .insert("SEVENTH_HISTORY_EVENT".into(), Raw::One("1".into()));
        let Err(Mistakes(mistakes)) = Config::from_sources(sources) else {
            panic!("there is a mistake");
        };
        assert!(
            mistakes[0]
                .what
                .ends_with("did you mean `SEVENTH_HISTORY_EVENTS`?")
        );
    }
}
