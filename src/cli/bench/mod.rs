//! `seventh bench`

mod app;
mod chart;
mod compare;
mod cores;
mod files;
mod page;
mod plot;
mod server;
mod show;
mod signals;

use {
    cores::Cores,
    files::{STDOUT, write},
    server::Server,
    show::Bar,
    signals::Signals,
};

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{anyhow, bail, ensure};
use clap::{Args, Subcommand, ValueEnum, builder::PossibleValue};
use http::Method;
use tokio::sync::watch;

use super::listen::Version;
use crate::{
    client::{Protocol, Trust},
    load::{self, Field, Opening, Plan, Preset, Publish, Rate, Report, Scenario, Target},
};

/// Put a server of event streams under load, and measure what it delivers.
///
/// Without --url an edge of its own is started, measured and ended. SCENARIO is one of
///
/// fanout   events go to all streams (the default);
/// hold     streams are opened and kept idle;
/// connect  connections come and go, with full handshakes and with resumed ones;
/// replay   all come with a cursor and have missed events;
/// herd     all are cut off at once and come back at once, while events go on;
/// mixed    many topics, few of which have most events, and ordinary requests beside;
/// publish  publishers publish as fast as they are answered, to one reader;
/// proxy    ordinary requests, as fast as they are answered.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    verbatim_doc_comment
)]
pub(super) struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    /// What is done
    #[arg(value_enum, default_value = "fanout", hide_possible_values = true)]
    scenario: Scenario,
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    what: What,
    /// Keep the edge that it starts and itself on cores of their own
    #[arg(long, conflicts_with = "url")]
    pin: bool,
    /// Write the report as JSON, for `seventh bench compare`; `-` is standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as a page for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare reports, the first of which is the base
    Compare(compare::Compare),
    /// Draw how a figure changes with the load, from many reports
    Plot(plot::Plot),
    /// Run an app to stand behind proxies: any path is answered, /events/TOPIC is an event stream and
    /// POST /publish/TOPIC publishes
    App(app::App),
}

/// The server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
struct Whom {
    /// The URL of an event stream with {topic} for the topic; with --preset, the server without a path
    #[arg(long)]
    url: Option<String>,
    /// A server whose URLs and requests are known
    #[arg(long, requires = "url", value_enum)]
    preset: Option<Preset>,
    /// Where events are published, with {topic} for the topic; with --preset, the server without a path: of
    /// Seventh it is the control listener
    #[arg(long, requires = "url", value_name = "URL")]
    publish_url: Option<String>,
    /// A header field of that request, such as 'authorization: Bearer ...'
    #[arg(long, requires = "url", value_name = "FIELD")]
    publish_header: Vec<Field>,
    /// Its body, with {topic} and {data} [default: {data}]
    #[arg(long, requires = "publish_url", value_name = "TEXT")]
    publish_body: Option<String>,
    /// The path of ordinary requests
    #[arg(long, value_name = "PATH", default_value = "/")]
    request_path: String,
    /// The server's process, to measure its CPU time and memory; its children are counted in
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// A CA to trust, in PEM [default: any certificate]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// The load.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct What {
    /// The version of HTTP
    #[arg(long, value_enum, default_value = "2")]
    http: Version,
    /// Connections [default: 10; 100 over HTTP/1.1; 1 to publish; 16 at a time to connect]
    #[arg(long, short)]
    connections: Option<NonZeroUsize>,
    /// Event streams on each, or ordinary requests at a time [default: 100; 1 over HTTP/1.1, to publish and to
    /// connect; 10 requests]
    #[arg(long, short)]
    streams: Option<NonZeroUsize>,
    /// Topics: streams and events are dealt to them in turn [default: 1; 100 for mixed]
    #[arg(long)]
    topics: Option<NonZeroUsize>,
    /// Give each stream a topic of its own
    #[arg(long, conflicts_with = "topics")]
    own_topics: bool,
    /// How the streams of a connection are asked for
    #[arg(long, value_enum, default_value = "together")]
    open: Opening,
    /// Events published a second, whatever the server does; 0 for none, `max` for as fast as they are answered
    /// [default: 100; max to publish; 0 to hold]
    #[arg(long, short, value_parser = rate)]
    rate: Option<Rate>,
    /// Connections that publish [default: 1, or one for each 2,000 events a second; 8 for `publish`]
    #[arg(long)]
    publishers: Option<NonZeroUsize>,
    /// Ordinary requests a second beside the streams of `mixed`
    #[arg(long, value_parser = per_second, default_value = "100")]
    requests: f64,
    /// Data of an event, in bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Events that each has missed who comes back in `replay`
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), default_value = "1000")]
    missed: u64,
    /// How long
    #[arg(long, short, value_parser = humantime::parse_duration, default_value = "10s")]
    duration: Duration,
    /// How long the server may take to get on with anything
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    timeout: Duration,
}

/// So many a second: any number but one that is none.
fn per_second(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if rate.is_finite() && rate >= 0.0 {
        Ok(rate)
    } else {
        Err("write a number of events a second, or 0 for none".into())
    }
}

fn rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" => Ok(Rate::Max),
        number => per_second(number).map(Rate::PerSecond),
    }
}

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Some(Command::Compare(compare)) => compare.run(),
            Some(Command::Plot(plot)) => plot.run(),
            Some(Command::App(app)) => super::runtime::block_on(app.serve()),
            None => {
                let cores = self.pin.then(Cores::split).transpose()?;
                // All threads of the runtime begin where this one is.
                cores.as_ref().map(Cores::enter_own).transpose()?;
                super::runtime::block_on(self.bench(cores))
            }
        }
    }

    async fn bench(self, cores: Option<Cores>) -> anyhow::Result<()> {
        let (stop, stopped) = watch::channel(false);
        let mut plan = self.plan(stopped)?;
        let mut signals = Signals::listen()?;
        let server = match self.whom.url {
            Some(_) => None,
            None => Some(Server::start(&plan, cores.as_ref()).await?),
        };
        if let Some(server) = &server {
            let url = server.url.as_str();
            plan.target = Preset::Seventh.target(url, Some(&server.control), plan.target.trust);
            plan.process = server.id();
        }
        let report = tokio::select! {
            report = load::run(&plan, Arc::new(Bar::new())) => report.map_err(Into::into),
            () = async {
                signals.next().await;
                stop.send_replace(true);
                signals.next().await;
            } => Err(anyhow!("interrupted twice: nothing is shown")),
        };
        if let Some(server) = server {
            server.end().await;
        }
        let report = report?;
        let is_piped = self.json.as_deref() == Some(Path::new(STDOUT));
        if !is_piped {
            show::print(&report);
        }
        if let Some(path) = &self.json {
            write(path, &serde_json::to_string_pretty(&report)?)?;
        }
        if let Some(path) = &self.html {
            write(path, &page::of(&report)?)?;
        }
        judge(&report)
    }

    fn plan(&self, stop: watch::Receiver<bool>) -> anyhow::Result<Plan> {
        let What {
            http,
            connections,
            streams,
            topics,
            own_topics,
            open,
            rate,
            publishers,
            requests,
            size,
            missed,
            duration,
            timeout,
        } = self.what;
        let (scenario, protocol) = (self.scenario, Protocol::from(http));
        let usual = usual(scenario, protocol);
        let connections = connections.map_or(usual.connections, usize::from);
        let streams = streams.map_or(usual.streams, usize::from);
        ensure!(
            protocol != Protocol::Http1 || streams == 1,
            "HTTP/1.1 carries one stream a connection; say --streams 1 and more --connections"
        );
        let topics = if own_topics {
            connections * streams
        } else {
            topics.map_or(usual.topics, usize::from)
        };
        ensure!(
            scenario != Scenario::Replay || topics == 1,
            "the readers of `replay` have one topic"
        );
        let rate = rate.unwrap_or(usual.rate);
        let for_rate = match rate {
            Rate::PerSecond(rate) => {
                (rate / PER_PUBLISHER).ceil().clamp(1.0, MAX_PUBLISHERS) as usize
            }
            Rate::Max => usual.publishers,
        };
        Ok(Plan {
            scenario,
            target: self.whom.target(topics)?,
            protocol,
            connections,
            streams,
            topics,
            opening: open,
            rate,
            publishers: publishers.map_or(for_rate, usize::from),
            request_path: self.whom.request_path.clone(),
            requests,
            size,
            missed,
            duration,
            patience: timeout,
            process: self.whom.pid,
            pinned: self.pin,
            stop,
        })
    }
}

/// How many events a second one connection publishes with ease.
const PER_PUBLISHER: f64 = 2000.0;
const MAX_PUBLISHERS: f64 = 16.0;

/// What a scenario is like unless something else is said.
struct Usual {
    connections: usize,
    streams: usize,
    topics: usize,
    rate: Rate,
    publishers: usize,
}

fn usual(scenario: Scenario, protocol: Protocol) -> Usual {
    let (connections, streams) = match protocol {
        Protocol::Http1 => (100, 1),
        Protocol::Http2 | Protocol::Http3 => (10, 100),
    };
    let usual = Usual {
        connections,
        streams,
        topics: 1,
        rate: Rate::PerSecond(100.0),
        publishers: 1,
    };
    match scenario {
        Scenario::Fanout | Scenario::Replay | Scenario::Herd => usual,
        Scenario::Hold => Usual {
            rate: Rate::PerSecond(0.0),
            ..usual
        },
        Scenario::Connect => Usual {
            connections: 16,
            streams: 1,
            ..usual
        },
        Scenario::Mixed => Usual {
            topics: 100,
            ..usual
        },
        Scenario::Publish => Usual {
            connections: 1,
            streams: 1,
            rate: Rate::Max,
            publishers: 8,
            ..usual
        },
        Scenario::Proxy => Usual {
            streams: streams.min(10),
            ..usual
        },
    }
}

impl Whom {
    /// The server; one that is to be started has its URLs later.
    fn target(&self, topics: usize) -> anyhow::Result<Target> {
        let trust = self.ca.clone().map_or(Trust::Anyone, Trust::Ca);
        let Some(url) = &self.url else {
            return Ok(Preset::Seventh.target("", None, trust));
        };
        let mut target = match self.preset {
            Some(preset) => preset.target(url, self.publish_url.as_deref(), trust),
            None => Target {
                name: url.split(['?', '#']).next().unwrap_or(url).to_owned(),
                subscribe: url.clone(),
                publish: self.publish_url.as_ref().map(|url| Publish {
                    method: Method::POST,
                    url: url.clone(),
                    headers: Vec::new(),
                    body: "{data}".into(),
                }),
                trust,
            },
        };
        if let Some(publish) = &mut target.publish {
            publish.headers.extend(self.publish_header.iter().cloned());
            if let Some(body) = &self.publish_body {
                publish.body.clone_from(body);
            }
            let text = format!("{}{}", publish.url, publish.body);
            if !publish.body.contains("{data}") {
                bail!("--publish-body has no {{data}}: no event could be told from another");
            }
            ensure!(
                topics == 1 || text.contains("{topic}"),
                "neither --publish-url nor --publish-body has {{topic}}, so there is no more than one"
            );
        }
        ensure!(
            topics == 1 || target.subscribe.contains("{topic}"),
            "--url has no {{topic}}, so there is no more than one"
        );
        Ok(target)
    }
}

/// A run that proves nothing is a failure, after all it has shown.
fn judge(report: &Report) -> anyhow::Result<()> {
    if let Some(void) = &report.void {
        bail!("these figures count for nothing: {void}");
    }
    ensure!(
        !report.interrupted,
        "interrupted: these figures are of a part of the run"
    );
    Ok(())
}

impl ValueEnum for Scenario {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.as_str().into())
    }
}

impl ValueEnum for Preset {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.as_str().into())
    }
}

impl ValueEnum for Opening {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Together, Self::Paced]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Together => "together".into(),
            Self::Paced => "paced".into(),
        })
    }
}
