//! The load harness: it sees only the wire and `/proc`, never the server's code.
//!
//! Latency counts from the moment an event was due, so that a stalled publisher cannot hide.

mod process;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use http::{Request, Uri};
use thiserror::Error;
use tokio::{
    sync::{Barrier, watch},
    task::JoinSet,
};

use crate::{
    client::{ClientError, Connection, Origin, Protocol, Response, Trust, full},
    clock,
    sse::{Item, Overlong, Parser},
};

pub use process::{Process, ProcessError};

/// The largest event it takes.
const MAX_EVENT: usize = 16 << 20;
/// How many streams of a connection are being opened at a time.
const OPENING: usize = 64;
/// How long the last events may take to arrive.
const SETTLE: Duration = Duration::from_secs(5);
/// The topic of all streams, or what their own topics begin with.
const TOPIC: &str = "bench";

/// What to do to a server.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Its event stream endpoint, without a query.
    pub url: Uri,
    /// Its control listener.
    pub control: Uri,
    /// Who may vouch for it.
    pub trust: Trust,
    /// The protocol to read over.
    pub protocol: Protocol,
    /// How many connections.
    pub connections: usize,
    /// How many streams on each.
    pub streams: usize,
    /// Whether each stream reads a topic of its own, rather than all the same.
    pub own_topics: bool,
    /// How many events a second are published; 0 for idle streams.
    pub rate: f64,
    /// The data of an event, in bytes.
    pub size: usize,
    /// How long events are published.
    pub duration: Duration,
    /// The server's process, to measure.
    pub process: Option<Process>,
}

/// What was measured.
#[derive(Debug)]
pub struct Report {
    /// Streams that were open.
    pub streams: usize,
    /// Events that were published.
    pub published: u64,
    /// Events that arrived.
    pub delivered: u64,
    /// Events that should have arrived and did not.
    pub lost: u64,
    /// How long publishing took.
    pub elapsed: Duration,
    /// From when an event was due to when it was read, in microseconds.
    pub latency: Histogram<u64>,
    /// The server's CPU time meanwhile.
    pub cpu: Option<Duration>,
    /// The server's resident memory in bytes: before, with the connections, with the streams.
    pub memory: Option<[u64; 3]>,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The server could not be reached, or cut a stream.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server's answer is not what was asked for.
    #[error("{what}: the server answered {status}: {detail}")]
    Answer {
        /// What was asked for.
        what: &'static str,
        /// The status.
        status: http::StatusCode,
        /// What it said.
        detail: String,
    },
    /// A stream ended though nobody asked for it.
    #[error("a stream ended before its time")]
    Ended,
    /// An event was over the harness's own limit.
    #[error(transparent)]
    Overlong(#[from] Overlong),
    /// The server's process could not be measured.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// What a run shows while it runs.
pub trait Progress: Send + Sync {
    /// So many more streams are open.
    fn opened(&self, streams: usize);
}

/// Carries out a plan.
///
/// # Errors
///
/// [`LoadError`] when the server does not hold what the plan asks for.
pub async fn run(plan: &LoadPlan, progress: &dyn Progress) -> Result<Report, LoadError> {
    let target = Origin::of(&plan.url, plan.trust.clone())?;
    let before = memory(plan)?;
    let mut connections = Vec::new();
    for _ in 0..plan.connections {
        let mut connection = Connection::open(&target, plan.protocol).await?;
        // A request of its own, so that the server holds what a connection costs.
        connection.get("/").await?.bytes().await?;
        connections.push(connection);
    }
    let connected = memory(plan)?;

    let shared = Arc::new(Shared {
        base: clock::now(),
        delivered: AtomicU64::new(0),
    });
    let (stop, stopped) = watch::channel(false);
    let mut readers = JoinSet::new();
    let mut held = Vec::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        for first in (0..plan.streams).step_by(OPENING) {
            let last = plan.streams.min(first + OPENING);
            let opened = Arc::new(Barrier::new(last - first + 1));
            for stream in first..last {
                let response = open(plan, &mut connection, number * plan.streams + stream).await?;
                let reader = StreamReader::new(shared.clone(), stopped.clone());
                readers.spawn(reader.run(response, opened.clone()));
            }
            opened.wait().await;
            progress.opened(last - first);
        }
        held.push(connection);
    }
    let streaming = memory(plan)?;

    let cpu = plan.process.as_ref().map(Process::cpu).transpose()?;
    let begun = clock::now();
    let published = publish(plan, shared.base).await?;
    let elapsed = begun.elapsed();
    let streams = plan.connections * plan.streams;
    let receivers = if plan.own_topics { 1 } else { streams as u64 };
    let expected = published * receivers;
    settle(&shared, expected).await;
    let cpu = plan
        .process
        .as_ref()
        .map(Process::cpu)
        .transpose()?
        .zip(cpu);

    stop.send_replace(true);
    let mut latency = new_histogram();
    while let Some(read) = readers.join_next().await {
        latency
            .add(read.expect("a reader does not panic")?)
            .expect("the same bounds");
    }
    let delivered = shared.delivered.load(Ordering::Relaxed);
    Ok(Report {
        streams,
        published,
        delivered,
        lost: expected.saturating_sub(delivered),
        elapsed,
        latency,
        cpu: cpu.map(|(after, before)| after.saturating_sub(before)),
        memory: before
            .zip(connected)
            .zip(streaming)
            .map(|((a, b), c)| [a, b, c]),
    })
}

fn memory(plan: &LoadPlan) -> Result<Option<u64>, ProcessError> {
    plan.process.as_ref().map(Process::memory).transpose()
}

async fn open(
    plan: &LoadPlan,
    connection: &mut Connection,
    stream: usize,
) -> Result<Response, LoadError> {
    let topic = if plan.own_topics {
        format!("{TOPIC}/{stream}")
    } else {
        TOPIC.into()
    };
    let mut response = connection
        .get(&format!("{}?topic={topic}", plan.url.path()))
        .await?;
    let content_type = response.headers.get(http::header::CONTENT_TYPE);
    if content_type.is_none_or(|value| value != "text/event-stream") {
        return Err(refused("an event stream", &mut response).await);
    }
    Ok(response)
}

async fn refused(what: &'static str, response: &mut Response) -> LoadError {
    let detail = response.bytes().await.unwrap_or_default();
    LoadError::Answer {
        what,
        status: response.status,
        detail: String::from_utf8_lossy(&detail).trim().to_owned(),
    }
}

/// Publishes at the planned rate. The data is when the event was due, padded to its size.
async fn publish(plan: &LoadPlan, base: Instant) -> Result<u64, LoadError> {
    if plan.rate <= 0.0 {
        tokio::time::sleep(plan.duration).await;
        return Ok(0);
    }
    let target = Origin::of(&plan.control, Trust::System)?;
    let mut connection = Connection::open(&target, Protocol::Http1).await?;
    let events = (plan.rate * plan.duration.as_secs_f64()) as u64;
    let streams = plan.connections * plan.streams;
    let begun = clock::now();
    for n in 0..events {
        let due = begun + Duration::from_secs_f64(n as f64 / plan.rate);
        tokio::time::sleep_until(due.into()).await;
        let micros = due.saturating_duration_since(base).as_micros();
        let mut data = micros.to_string();
        // No formatter pads beyond 65,535.
        data.extend(std::iter::repeat_n(
            ' ',
            plan.size.saturating_sub(data.len()),
        ));
        let path = if plan.own_topics {
            format!("/topics/{TOPIC}/{}", n as usize % streams)
        } else {
            format!("/topics/{TOPIC}")
        };
        let request = Request::post(path)
            .body(full(data))
            .expect("a path and a body");
        let mut response = connection.send(request).await?;
        if !response.status.is_success() {
            return Err(refused("publishing", &mut response).await);
        }
        response.bytes().await?;
    }
    Ok(events)
}

/// Waits for the last events, as long as any arrive.
async fn settle(shared: &Shared, expected: u64) {
    let mut seen = 0;
    let mut quiet_since = clock::now();
    while quiet_since.elapsed() < SETTLE {
        let delivered = shared.delivered.load(Ordering::Relaxed);
        if delivered >= expected {
            return;
        }
        if delivered > seen {
            (seen, quiet_since) = (delivered, clock::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("an hour in microseconds")
}

struct Shared {
    /// What the times in events count from.
    base: Instant,
    delivered: AtomicU64,
}

/// Reads one stream.
struct StreamReader {
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
    parser: Parser,
    latency: Option<Histogram<u64>>,
}

impl StreamReader {
    fn new(shared: Arc<Shared>, stopped: watch::Receiver<bool>) -> Self {
        Self {
            shared,
            stopped,
            parser: Parser::new(MAX_EVENT),
            latency: None,
        }
    }

    async fn run(
        mut self,
        mut response: Response,
        opened: Arc<Barrier>,
    ) -> Result<Histogram<u64>, LoadError> {
        let first = response.chunk().await;
        opened.wait().await;
        drop(opened);
        let mut items = Vec::new();
        let mut chunk = first?.ok_or(LoadError::Ended)?;
        loop {
            self.parser.push(&chunk, &mut items)?;
            for item in items.drain(..) {
                self.take(&item);
            }
            chunk = tokio::select! {
                chunk = response.chunk() => chunk?.ok_or(LoadError::Ended)?,
                _ = self.stopped.wait_for(|stopped| *stopped) => {
                    return Ok(self.latency.unwrap_or_else(new_histogram));
                }
            };
        }
    }

    fn take(&mut self, item: &Item) {
        let Item::Message(message) = item else { return };
        let Ok(due) = message.data.trim_end().parse::<u64>() else {
            return;
        };
        let now = self.shared.base.elapsed().as_micros() as u64;
        let latency = self.latency.get_or_insert_with(new_histogram);
        latency.saturating_record(now.saturating_sub(due).max(1));
        self.shared.delivered.fetch_add(1, Ordering::Relaxed);
    }
}
