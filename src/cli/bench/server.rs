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
    limits::Limits,
    load::{Plan, Scenario},
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

/// What an edge needs for the plan beyond its defaults.
fn settings(plan: &Plan) -> Vec<(&'static str, String)> {
    let grant = (plan.streams + SPARE_STREAMS).to_string();
    let event = plan.size.max(Limits::default().event_bytes.value);
    let kept = plan.missed as usize * (plan.size + EVENT_OVERHEAD);
    let size = |bytes: usize| format!("{} KiB", bytes.div_ceil(1 << 10));
    let mut settings = vec![
        ("limits.http2_streams", grant.clone()),
        ("limits.event_streams_http2", grant.clone()),
        ("limits.event_streams_http3", grant),
        ("limits.event_bytes", size(event)),
    ];
    if plan.scenario == Scenario::Replay {
        settings.push(("history.topic_bytes", size(kept.max(1 << 20))));
    }
    settings
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
