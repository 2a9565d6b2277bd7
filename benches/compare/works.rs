//! What is measured.

use seventh::load::{Report, Stage};

use crate::peers::Peer;

/// A load, and the figures that are taken from it.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    /// The version of HTTP.
    pub(crate) http: &'static str,
    /// The options of `seventh bench`.
    pub(crate) args: &'static [&'static str],
    /// Whether server and harness have cores of their own.
    pub(crate) pinned: bool,
    pub(crate) kind: Kind,
    pub(crate) figures: &'static [Figure],
    /// How long it lasts, if not as long as others.
    pub(crate) seconds: Option<u32>,
}

/// Who can do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whoever has event streams.
    Streams,
    /// Whoever keeps events for those who come back with an id.
    Replay,
    /// Whoever takes events himself.
    Publish,
    /// Whoever stands before an app.
    Proxy,
}

/// What is taken from a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// How many for a second of the server's CPU time, in this stage.
    PerCpuSecond(&'static str),
    /// The 99th percentile of this stage, in milliseconds.
    P99(&'static str),
    /// KiB for each connection, its streams included.
    PerConnection,
    /// Bytes for each stream, its share of the connection included.
    PerStream,
    /// The share of a core, in percent.
    Core(&'static str),
}

impl Figure {
    /// Whether less is better.
    pub(crate) fn is_cost(self) -> bool {
        !matches!(self, Self::PerCpuSecond(_))
    }

    pub(crate) fn unit(self) -> String {
        match self {
            Self::PerCpuSecond("deliver" | "replay") => "events a CPU second".into(),
            Self::PerCpuSecond("publish") => "publishes a CPU second".into(),
            Self::PerCpuSecond("request") => "requests a CPU second".into(),
            Self::PerCpuSecond(_) => "connections a CPU second".into(),
            Self::P99(_) => "p99 in ms".into(),
            Self::PerConnection => "KiB a connection".into(),
            Self::PerStream => "bytes a stream".into(),
            Self::Core(_) => "% of a core".into(),
        }
    }

    pub(crate) fn of(self, report: &Report) -> Option<f64> {
        let stage = |name: &str| report.stages.iter().find(|stage| stage.name == name);
        match self {
            Self::PerCpuSecond(name) => stage(name).and_then(Stage::per_cpu_second),
            Self::P99(name) => Some(stage(name)?.latency.as_ref()?.p99 as f64 / 1e3),
            Self::PerConnection => Some(report.memory?.per_connection() / 1024.0),
            Self::PerStream => Some(report.memory?.per_stream()),
            Self::Core(name) => {
                let stage = stage(name)?;
                Some(100.0 * stage.cpu?.total() / stage.elapsed)
            }
        }
    }
}

const DELIVER: &[Figure] = &[Figure::PerCpuSecond("deliver"), Figure::P99("deliver")];

const fn streams(
    name: &'static str,
    http: &'static str,
    pinned: bool,
    args: &'static [&'static str],
) -> Work {
    Work {
        name,
        http,
        args,
        pinned,
        kind: Kind::Streams,
        figures: DELIVER,
        seconds: None,
    }
}

const fn idle(
    name: &'static str,
    http: &'static str,
    args: &'static [&'static str],
    figures: &'static [Figure],
) -> Work {
    Work {
        name,
        http,
        args,
        pinned: false,
        kind: Kind::Streams,
        figures,
        seconds: Some(1),
    }
}

/// Everything that is measured.
pub(crate) const ALL: &[Work] = &[
    streams("h2, 10 x 100, 100 B", "2", false, &["fanout"]),
    streams(
        "h2, 10 x 100, 300 B",
        "2",
        false,
        &["fanout", "--size", "300"],
    ),
    streams(
        "h2, 10 x 100, 1,000 B",
        "2",
        false,
        &["fanout", "--size", "1000"],
    ),
    streams(
        "h2, 200 x 1, 100 B",
        "2",
        true,
        &["fanout", "-c", "200", "-s", "1", "-r", "200"],
    ),
    streams(
        "h1, 500 x 1, 100 B",
        "1.1",
        true,
        &["fanout", "-c", "500", "-s", "1", "-r", "50"],
    ),
    streams("h3, 10 x 100, 100 B", "3", false, &["fanout"]),
    streams(
        "h3, 10 x 100, 300 B",
        "3",
        false,
        &["fanout", "--size", "300"],
    ),
    streams(
        "h3, 10 x 100, 1,000 B",
        "3",
        false,
        &["fanout", "--size", "1000"],
    ),
    streams(
        "h3, 200 x 1, 100 B",
        "3",
        true,
        &["fanout", "-c", "200", "-s", "1", "-r", "200"],
    ),
    idle(
        "idle h2, 1,000 x 1",
        "2",
        &["hold", "-c", "1000", "-s", "1"],
        &[Figure::PerConnection],
    ),
    idle(
        "idle h1, 1,000 x 1",
        "1.1",
        &["hold", "-c", "1000", "-s", "1"],
        &[Figure::PerConnection],
    ),
    idle(
        "idle h3, 1,000 x 1",
        "3",
        &["hold", "-c", "1000", "-s", "1"],
        &[Figure::PerConnection],
    ),
    idle(
        "idle h2, 50 x 100",
        "2",
        &["hold", "-c", "50", "-s", "100"],
        &[Figure::PerStream],
    ),
    idle(
        "idle h3, 50 x 100",
        "3",
        &["hold", "-c", "50", "-s", "100"],
        &[Figure::PerStream],
    ),
    Work {
        name: "keepalives h2, 1,000 x 10",
        http: "2",
        args: &["hold", "-c", "1000", "-s", "10"],
        pinned: false,
        kind: Kind::Streams,
        figures: &[Figure::Core("hold")],
        seconds: Some(30),
    },
    Work {
        name: "replay h2, 10 x 100, 1,000 missed",
        http: "2",
        args: &["replay"],
        pinned: false,
        kind: Kind::Replay,
        figures: &[Figure::PerCpuSecond("replay")],
        seconds: None,
    },
    Work {
        name: "publish, 8 at a time",
        http: "2",
        args: &["publish"],
        pinned: false,
        kind: Kind::Publish,
        figures: &[Figure::PerCpuSecond("publish"), Figure::P99("publish")],
        seconds: None,
    },
    Work {
        name: "connect h2, full handshakes",
        http: "2",
        args: &["connect"],
        pinned: false,
        kind: Kind::Streams,
        figures: &[Figure::PerCpuSecond("connect, full")],
        seconds: None,
    },
    Work {
        name: "proxy h2, 1 KiB",
        http: "2",
        args: &["proxy", "-r", "0"],
        pinned: false,
        kind: Kind::Proxy,
        figures: &[Figure::PerCpuSecond("request"), Figure::P99("request")],
        seconds: None,
    },
];

impl Work {
    /// Why a peer cannot do it, if it cannot.
    pub(crate) fn unfit(&self, peer: Peer) -> Option<String> {
        let why = match (self.kind, peer) {
            (Kind::Streams | Kind::Publish | Kind::Replay, Peer::Nginx) => "no event streams",
            (Kind::Replay | Kind::Publish, Peer::Caddy) => "only a proxy",
            (Kind::Replay, Peer::Centrifugo) => "no Last-Event-ID",
            (Kind::Replay, Peer::Pushpin) => "no history",
            (Kind::Proxy, Peer::Nchan) => "see nginx",
            (Kind::Proxy, Peer::Mercure | Peer::Centrifugo | Peer::Pushpin) => {
                "not measured as a proxy"
            }
            (Kind::Streams, Peer::Pushpin) if self.http != "1.1" => "HTTP/1.1 only",
            (Kind::Publish, Peer::Pushpin) => "closes the connection after each",
            _ => return None,
        };
        Some(why.into())
    }

    /// The figures of a report, to be read while it goes on.
    pub(crate) fn told(&self, report: &Report) -> String {
        let figures = self.figures.iter().map(|figure| match figure.of(report) {
            Some(value) => format!("{value:.2} {}", figure.unit()),
            None => "too little to be measured".into(),
        });
        figures.collect::<Vec<_>>().join(", ")
    }
}
