//! An edge of the bench's own, in a process of its own, and an app behind it where one is needed.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::cores::Cores;
use crate::{
    config::variable,
    hub::Retention,
    limits::Limits,
    load::{Plan, Rate, Scenario},
};

/// Streams that ordinary requests of the harness need beside the event streams.
const SPARE_STREAMS: usize = 64;
/// What an event takes in history beside its data, at most.
const EVENT_OVERHEAD: usize = 256;
/// How long an edge may take to start.
const START: Duration = Duration::from_secs(20);

/// An edge.
pub(super) struct Server {
    edge: Child,
    /// Where it listens, without a path.
    pub(super) url: String,
    /// Where its control listener is.
    pub(super) control: String,
    app: Option<Child>,
    _folder: Folder,
}

impl Server {
    /// Starts one that takes what the plan asks for, and is like any other else.
    pub(super) async fn start(plan: &Plan, cores: Option<&Cores>) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let mut edge = program()?;
        // A configuration that lies where the bench is started is not for this edge.
        edge.current_dir(&folder.0)
            .args(["serve", "--https", "127.0.0.1:0"])
            .args(["--control", "127.0.0.1:0"])
            .env(variable("tls.directory"), &folder.0);
        for (key, value) in settings(plan) {
            edge.env(variable(key), value);
        }
        let mut app = None;
        if plan.scenario == Scenario::Proxy {
            let mut command = program()?;
            command.args(["bench", "app", "--listen", "127.0.0.1:0"]);
            command.args(["--size", &plan.size.to_string()]);
            let (child, [url]) = start(command, cores, ["listening"]).await?;
            edge.args(["--upstream", &url]);
            app = Some(child);
        }
        let (edge, [url, control]) = start(edge, cores, ["listening", "control"]).await?;
        Ok(Self {
            edge,
            url,
            control,
            app,
            _folder: folder,
        })
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.edge.id()
    }

    /// Ends it.
    pub(super) async fn end(mut self) {
        for child in [Some(&mut self.edge), self.app.as_mut()]
            .into_iter()
            .flatten()
        {
            // It may be gone already.
            let _: std::io::Result<()> = child.kill().await;
        }
    }
}

fn program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    // What a terminal sends to whoever is in front is for the bench, which ends its edge itself.
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    Ok(command)
}

/// What an edge needs for the plan where that is beyond its defaults.
fn settings(plan: &Plan) -> Vec<(&'static str, String)> {
    let (limits, kept) = (Limits::default(), Retention::default());
    let streams = plan.streams + SPARE_STREAMS;
    // Who was away for a moment is to find all that was published meanwhile.
    let events = match (plan.scenario, plan.rate) {
        (Scenario::Replay, _) => usize::try_from(plan.missed).unwrap_or(usize::MAX),
        (Scenario::Herd, Rate::PerSecond(rate)) => (rate * plan.duration.as_secs_f64()) as usize,
        _ => 0,
    };
    let events = events.saturating_add(1);
    let bytes = events.saturating_mul(plan.size + EVENT_OVERHEAD);
    let size = |bytes: usize| format!("{} KiB", bytes.div_ceil(1 << 10));
    let rows = [
        (
            "limits.http2_streams",
            streams,
            limits.http2_streams.value,
            false,
        ),
        (
            "limits.event_streams_http2",
            streams,
            limits.event_streams_http2.value,
            false,
        ),
        (
            "limits.event_streams_http3",
            streams,
            limits.event_streams_http3.value,
            false,
        ),
        (
            "limits.event_bytes",
            plan.size,
            limits.event_bytes.value,
            true,
        ),
        ("history.events", events, kept.events, false),
        ("history.topic_bytes", bytes, kept.topic_bytes, true),
        (
            "history.total_bytes",
            bytes.saturating_mul(2),
            kept.total_bytes,
            true,
        ),
    ];
    rows.into_iter()
        .filter(|(_, needed, usual, _)| needed > usual)
        .map(|(key, needed, _, is_size)| {
            let value = if is_size {
                size(needed)
            } else {
                needed.to_string()
            };
            (key, value)
        })
        .collect()
}

/// Starts a process, and waits until it has said in lines that begin with these words where it listens.
async fn start<const N: usize>(
    mut command: Command,
    cores: Option<&Cores>,
    words: [&str; N],
) -> anyhow::Result<(Child, [String; N])> {
    let mut child = match cores {
        Some(cores) => cores.start(|| command.spawn())?,
        None => command.spawn(),
    }
    .context("cannot start an edge")?;
    let output = child.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(output).lines();
    let mut found = [const { String::new() }; N];
    let reading = async {
        while found.iter().any(String::is_empty) {
            let Some(line) = lines.next_line().await? else {
                bail!("the edge did not start")
            };
            let mut of_line = line.split_whitespace();
            let first = of_line.next();
            let at = words.iter().position(|word| first == Some(word));
            let url = of_line.find(|word| word.starts_with("http"));
            if let (Some(at), Some(url)) = (at, url) {
                url.clone_into(&mut found[at]);
            }
        }
        Ok(())
    };
    tokio::time::timeout(START, reading)
        .await
        .context("the edge did not start in time")??;
    // What else it says nobody reads; it must not fill the pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, found))
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
