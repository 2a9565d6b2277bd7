//! What is to be done, and why it could not.

use std::{fmt, time::Duration};

use thiserror::Error;
use tokio::sync::watch;

use super::{seat::Opening, target::Target};
use crate::{
    client::{ClientError, Protocol},
    process::ProcessError,
};

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Events go to all streams.
    Fanout,
    /// Streams are opened and kept idle.
    Hold,
    /// Connections come and go: with full handshakes, then with resumed ones.
    Connect,
    /// All come with a cursor and have missed events.
    Replay,
    /// All are cut off at once, and all come back at once, while events go on.
    Herd,
    /// Many topics, a few of which have most events, and ordinary requests beside the streams.
    Mixed,
    /// Publishers publish as fast as they are answered, to one reader.
    Publish,
    /// Ordinary requests, as fast as they are answered.
    Proxy,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 8] = [
        Self::Fanout,
        Self::Hold,
        Self::Connect,
        Self::Replay,
        Self::Herd,
        Self::Mixed,
        Self::Publish,
        Self::Proxy,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Hold => "hold",
            Self::Connect => "connect",
            Self::Replay => "replay",
            Self::Herd => "herd",
            Self::Mixed => "mixed",
            Self::Publish => "publish",
            Self::Proxy => "proxy",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many, however long the server takes; 0 for none.
    PerSecond(f64),
    /// As fast as they are answered.
    Max,
}

/// What to do to a server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is done.
    pub scenario: Scenario,
    /// The server.
    pub target: Target,
    /// The protocol of streams and of ordinary requests.
    pub protocol: Protocol,
    /// How many connections.
    pub connections: usize,
    /// How many streams on each, or ordinary requests at a time.
    pub streams: usize,
    /// How many topics; streams and events are dealt to them in turn.
    pub topics: usize,
    /// How the streams of a connection are asked for.
    pub opening: Opening,
    /// How many events a second.
    pub rate: Rate,
    /// How many connections publish.
    pub publishers: usize,
    /// The path of ordinary requests.
    pub request_path: String,
    /// How many ordinary requests a second beside the streams.
    pub requests: f64,
    /// The data of an event, in bytes.
    pub size: usize,
    /// How many events each one has missed that comes back.
    pub missed: u64,
    /// How long.
    pub duration: Duration,
    /// How long the server may take to get on with anything.
    pub patience: Duration,
    /// The server's process, to measure, with its children.
    pub process: Option<u32>,
    /// Whether server and harness have cores of their own.
    pub pinned: bool,
    /// Ends the run before its time when it turns true.
    pub stop: watch::Receiver<bool>,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The server could not be reached, or cut a stream.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server does not hold what the plan asks for.
    #[error("{what} ({opened} of {wanted} streams were open)")]
    Streams {
        /// What is wrong.
        what: String,
        /// Streams that were open.
        opened: usize,
        /// Streams that should be.
        wanted: usize,
    },
    /// The server does not do what it was asked to.
    #[error("{0}")]
    Trouble(String),
    /// Nobody said how an event is published.
    #[error("nothing says how an event is published; give --publish-url, or a --preset that knows")]
    NoPublisher,
    /// The server's process could not be measured.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The run was ended before it could measure anything.
    #[error("interrupted before anything was measured")]
    Interrupted,
}

/// An error and its causes: the outermost says least.
pub(super) fn explain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

/// What a server said instead of what it was asked for.
pub(super) fn refusal(status: u16, text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().find(|line| !line.trim().is_empty());
    match (status, line) {
        (200, _) => "the server's answer is no event stream".into(),
        (_, Some(line)) => {
            let line: String = line.trim().chars().take(200).collect();
            format!("the server answered {status}: {line}")
        }
        (_, None) => format!("the server answered {status}"),
    }
}
