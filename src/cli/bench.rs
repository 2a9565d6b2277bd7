//! `seventh bench`

use std::{num::NonZeroUsize, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use http::Uri;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::listen::Version;
use crate::{
    client::{Protocol, Trust},
    config::variable,
    limits::Limits,
    load::{self, LoadPlan, Process, Report},
};

/// Streams that ordinary requests of the harness need beside the event streams.
const SPARE_STREAMS: usize = 64;

/// How many events a second: any number but one that is none.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if rate.is_finite() && rate >= 0.0 {
        Ok(rate)
    } else {
        Err("write a number of events a second, or 0 for none".into())
    }
}

/// Put an edge under load and measure what it delivers.
///
/// Without --url an edge of its own is started, measured and ended.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The event stream endpoint of a running edge, such as https://localhost:8443/events
    #[arg(long, requires = "control")]
    url: Option<Uri>,
    /// The control listener of that edge
    #[arg(long, requires = "url")]
    control: Option<Uri>,
    /// The process of that edge, to measure its CPU time and memory
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// A CA to trust, in PEM [default: any certificate]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The version of HTTP
    #[arg(long, value_enum, default_value = "2")]
    http: Version,
    /// Connections
    #[arg(long, short, default_value = "10")]
    connections: NonZeroUsize,
    /// Event streams on each connection
    #[arg(long, short, default_value = "100")]
    streams: NonZeroUsize,
    /// Give each stream a topic of its own; events go to them in turn
    #[arg(long)]
    own_topics: bool,
    /// Events published a second; 0 leaves the streams idle
    #[arg(long, short, value_parser = rate, default_value = "100")]
    rate: f64,
    /// Data of an event, in bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// How long
    #[arg(long, short, value_parser = humantime::parse_duration, default_value = "10s")]
    duration: Duration,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<()> {
        super::runtime::block_on(self.bench())
    }

    async fn bench(self) -> anyhow::Result<()> {
        let protocol = Protocol::from(self.http);
        if protocol == Protocol::Http1 && self.streams.get() != 1 {
            bail!(
                "HTTP/1.1 carries one stream a connection; say --streams 1 and more --connections"
            );
        }
        let (server, url, control, pid) = match (&self.url, &self.control) {
            (Some(url), Some(control)) => (None, url.clone(), control.clone(), self.pid),
            _ => {
                let server = Server::start(self.streams.get(), self.size).await?;
                let (url, control, pid) = (
                    server.url.clone(),
                    server.control.clone(),
                    server.child.id(),
                );
                (Some(server), url, control, pid)
            }
        };
        let plan = LoadPlan {
            url,
            control,
            trust: self.ca.clone().map_or(Trust::Anyone, Trust::Ca),
            protocol,
            connections: self.connections.get(),
            streams: self.streams.get(),
            own_topics: self.own_topics,
            rate: self.rate,
            size: self.size,
            duration: self.duration,
            process: pid.map(Process::new),
        };
        let bar = ProgressBar::new((plan.connections * plan.streams) as u64);
        bar.set_style(ProgressStyle::with_template(
            "opening streams {wide_bar} {pos}/{len}",
        )?);
        let report = load::run(&plan, &Bar(bar.clone())).await;
        bar.finish_and_clear();
        let report = report?;
        if self.json {
            println!("{}", as_json(&plan, &report));
        } else {
            print(&plan, &report);
        }
        drop(server);
        Ok(())
    }
}

struct Bar(ProgressBar);

impl load::Progress for Bar {
    fn opened(&self, streams: usize) {
        self.0.inc(streams as u64);
    }
}

/// An edge of the bench's own, in a process of its own.
struct Server {
    child: Child,
    url: Uri,
    control: Uri,
    _folder: Folder,
}

impl Server {
    async fn start(streams: usize, size: usize) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let grant = (streams + SPARE_STREAMS).to_string();
        let event_bytes = size.max(Limits::default().event_bytes.value);
        let event_bytes = format!("{} KiB", event_bytes.div_ceil(1 << 10));
        let mut child = Command::new(std::env::current_exe()?)
            .args([
                "serve",
                "--https",
                "127.0.0.1:0",
                "--control",
                "127.0.0.1:0",
            ])
            .env(variable("tls.directory"), &folder.0)
            .env(variable("limits.http2_streams"), &grant)
            .env(variable("limits.event_bytes"), event_bytes)
            .env(variable("limits.event_streams_http3"), &grant)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start an edge")?;
        let output = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(output).lines();
        let (mut url, mut control) = (None, None);
        while let (None, _) | (_, None) = (&url, &control) {
            let Some(line) = lines.next_line().await? else {
                bail!("the edge did not start")
            };
            let word = line
                .split_whitespace()
                .find(|word| word.starts_with("http"));
            match (line.split_whitespace().next(), word) {
                (Some("listening"), Some(word)) => url = Some(format!("{word}/events").parse()?),
                (Some("control"), Some(word)) => control = Some(word.parse()?),
                _ => {}
            }
        }
        // What else it says nobody reads; it must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            child,
            url: url.context("the edge said nothing")?,
            control: control.context("the edge said nothing")?,
            _folder: folder,
        })
    }
}

/// A folder for the edge's certificate, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("seventh-bench-{:x}", fastrand::u64(..)));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of its temporary files.
        let _: std::io::Result<()> = std::fs::remove_dir_all(&self.0);
    }
}

fn per_second(n: u64, time: Duration) -> f64 {
    n as f64 / time.as_secs_f64()
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn print(plan: &LoadPlan, report: &Report) {
    let LoadPlan {
        connections,
        streams,
        protocol,
        ..
    } = plan;
    println!("{connections} connections x {streams} streams over {protocol}");
    if report.published > 0 {
        let rate = per_second(report.delivered, report.elapsed);
        println!(
            "published   {} events of {} bytes in {:.1} s",
            report.published,
            plan.size,
            report.elapsed.as_secs_f64()
        );
        println!(
            "delivered   {} events ({rate:.0}/s), lost {}",
            report.delivered, report.lost
        );
        let at = |quantile| Duration::from_micros(report.latency.value_at_quantile(quantile));
        println!(
            "latency     p50 {:?}  p90 {:?}  p99 {:?}  max {:?}",
            at(0.5),
            at(0.9),
            at(0.99),
            Duration::from_micros(report.latency.max())
        );
    }
    if let Some(cpu) = report.cpu {
        print!("server CPU  {:.2} s", cpu.as_secs_f64());
        if report.delivered > 0 && !cpu.is_zero() {
            println!(
                ": {:.0} events per CPU-second",
                per_second(report.delivered, cpu)
            );
        } else {
            println!();
        }
    }
    if let Some([before, connected, streaming]) = report.memory {
        let connection = kib(connected.saturating_sub(before)) / *connections as f64;
        let stream = kib(streaming.saturating_sub(connected)) / report.streams as f64;
        println!(
            "memory      {:.1} MiB: {connection:.1} KiB a connection, {stream:.2} KiB a stream",
            kib(streaming) / 1024.0
        );
    }
}

fn as_json(plan: &LoadPlan, report: &Report) -> serde_json::Value {
    let at = |quantile| report.latency.value_at_quantile(quantile);
    json!({
        "protocol": plan.protocol.as_str(),
        "connections": plan.connections,
        "streams": report.streams,
        "published": report.published,
        "delivered": report.delivered,
        "lost": report.lost,
        "elapsed_s": report.elapsed.as_secs_f64(),
        "latency_us": { "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": report.latency.max() },
        "cpu_s": report.cpu.map(|cpu| cpu.as_secs_f64()),
        "memory_bytes": report.memory.map(|[before, connected, streaming]| {
            json!({ "before": before, "connected": connected, "streaming": streaming })
        }),
    })
}
