//! `seventh serve`

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{memory, open_files};
use crate::{
    config::{Config, ControlAt, Log, LogFormat, Raw},
    edge::{Drained, Edge},
    net::Inherited,
    proxy,
    tls::CertificateSource,
};

/// The target of what the client of NATS logs.
const NATS: &str = "async_nats";

/// Run the edge.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The configuration file [default: seventh.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "SEVENTH_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Where browsers connect, over TCP and UDP; may be given several times
    #[arg(long, value_name = "ADDR")]
    https: Vec<String>,
    /// Where publishers and operators connect
    #[arg(long, value_name = "ADDR")]
    control: Option<String>,
    /// The app that gets whatever is not the hub's; may be given several times, for apps that are alike
    #[arg(long, value_name = "URL")]
    upstream: Vec<String>,
    /// The directory whose files answer whatever is not the hub's
    #[arg(long, value_name = "DIR", conflicts_with = "upstream")]
    files: Option<String>,
    /// How log lines are written
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let inherited = Inherited::from_environment()?;
        let mut config = self.load()?;
        start_log(&config.log);
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let asked = config.limits.connections.value;
        memory::fit(&mut config)?;
        open_files::fit(asked, &mut config.limits.connections.value);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(serve(&config, inherited))
    }

    /// The configuration, with the flags over it.
    fn load(self) -> anyhow::Result<Config> {
        let mut flags = BTreeMap::new();
        if !self.https.is_empty() {
            flags.insert("https.listen".to_owned(), Raw::Many(self.https));
        }
        if let Some(control) = self.control {
            flags.insert("control.listen".to_owned(), Raw::One(control));
        }
        if !self.upstream.is_empty() {
            flags.insert("proxy.upstream".to_owned(), Raw::Many(self.upstream));
        }
        if let Some(files) = self.files {
            flags.insert("proxy.files".to_owned(), Raw::One(files));
        }
        if let Some(format) = self.log_format {
            let name = match format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            };
            flags.insert("log.format".to_owned(), Raw::One(name.into()));
        }
        load(self.config.as_deref(), flags)
    }
}

/// The configuration as the environment and the file have it.
pub(super) fn load(
    file: Option<&std::path::Path>,
    flags: BTreeMap<String, Raw>,
) -> anyhow::Result<Config> {
    // What is not UTF-8 is not the edge's.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        // Those of the commands are none of the configuration.
        .filter(|(name, _)| {
            !["SEVENTH_CONFIG", "SEVENTH_CONTROL", "SEVENTH_TOKEN"].contains(&&**name)
        });
    Ok(Config::load(file, environment, flags)?)
}

fn start_log(log: &Log) {
    let mut filter: EnvFilter = log
        .filter
        .parse()
        .expect("it was checked with the configuration");
    // What the client of NATS says of each connection is said by the edge, unless it is asked for.
    let is_loud = filter
        .max_level_hint()
        .is_none_or(|level| level > LevelFilter::WARN);
    if is_loud && !log.filter.contains(NATS) {
        let quiet = format!("{NATS}=warn");
        filter = filter.add_directive(quiet.parse().expect("it is one"));
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match log.format {
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

async fn serve(config: &Config, inherited: Inherited) -> anyhow::Result<()> {
    // Before anything is bound: from then on a signal must find its handler.
    let mut signals = Signals::new().context("cannot handle signals")?;
    // To find its history may take long: that of a cluster, or a large one.
    let mut early = Signals::new().context("cannot handle signals")?;
    let waiting = tokio::spawn(async move {
        let name = early.next().await;
        tracing::info!("{name} before it was started: ended");
        std::process::exit(0);
    });
    let mut edge = Edge::start_with(config, inherited, || waiting.abort())?;
    announce(&edge, config);
    let name = tokio::select! {
        name = signals.next() => name,
        () = edge.broken() => bail!("a listener or the sweeper has ended, which is a bug; the process ends"),
    };
    tracing::info!("{name}: ending in good order; once more ends at once");
    tokio::select! {
        drained = edge.drain() => match drained {
            Drained::Clean => tracing::info!("ended in good order"),
            Drained::Cut(connections) => {
                let seconds = config.drain.grace.as_secs_f64();
                tracing::warn!("cut {connections} connections after {seconds} s (drain.grace)");
            }
        },
        name = signals.next() => tracing::warn!("{name} again: ended at once"),
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The name of the next signal. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                // A terminal that closes, or a habit of reloading: neither ends the edge.
                _ = self.hangup.recv() => tracing::info!("SIGHUP: nothing is reloaded"),
            }
        }
    }
}

/// Where it listens, which certificate it uses, which page to open, and how to publish. Whether
/// anybody reads it does not matter.
fn announce(edge: &Edge, config: &Config) {
    let _: io::Result<()> = write_announcement(&mut io::stdout().lock(), edge, config);
}

fn write_announcement(out: &mut impl Write, edge: &Edge, config: &Config) -> io::Result<()> {
    let control = edge.control();
    for address in edge.https() {
        let http3 = if config.http3.enabled { ", HTTP/3" } else { "" };
        writeln!(
            out,
            "listening on   https://{address} (HTTP/1.1, HTTP/2{http3})"
        )?;
    }
    for address in edge.http() {
        writeln!(out, "redirecting    http://{address} to HTTPS")?;
    }
    let (shown, curl) = match control {
        ControlAt::Tcp(address) => (format!("http://{address}"), format!("http://{address}")),
        ControlAt::Unix(path) => (
            control.to_string(),
            format!("--unix-socket {} http://localhost", path.display()),
        ),
    };
    writeln!(out, "control on     {shown} (HTTP/1.1, HTTP/2)")?;
    match &edge.certificate().source {
        CertificateSource::File(path) => writeln!(out, "certificate    {}", path.display())?,
        CertificateSource::Development(cert) => writeln!(
            out,
            "certificate    for development, its CA is {}; `seventh cert` says how to trust it",
            cert.ca.display()
        )?,
    }
    if let Some(cluster) = &config.cluster {
        let (name, node) = (&cluster.name, &cluster.node);
        writeln!(out, "cluster        {name}, as {node}")?;
    }
    let log = config
        .cluster
        .as_ref()
        .map_or(&config.history_log, |cluster| &cluster.cache);
    if let Some(log) = log {
        writeln!(out, "history        {}", log.directory.display())?;
    }
    let port = edge.https().first().map_or(0, SocketAddr::port);
    let path = &config.events.path;
    for route in &config.routes {
        writeln!(out, "route          {route}")?;
    }
    if config.demo || proxy::covers(&config.routes, "/") {
        writeln!(out, "open           https://localhost:{port}/")?;
    }
    if !config.demo && config.events.enabled {
        writeln!(
            out,
            "event streams  https://localhost:{port}{path}?topic=NAME"
        )?;
    }
    for stream in &config.events.streams {
        let path = &stream.path;
        writeln!(out, "event stream   https://localhost:{port}{path}")?;
    }
    let token = match config.control.token {
        Some(_) => " -H 'Authorization: Bearer TOKEN'",
        None => "",
    };
    writeln!(
        out,
        "publish        curl{token} -d hello {curl}/topics/demo/0"
    )?;
    out.flush()
}
