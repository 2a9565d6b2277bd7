//! What a run measured, as it is written and read again.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::process::CpuTime;

/// What was done and what was measured. Times are in seconds, latencies in microseconds, memory in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What was done.
    pub setup: Setup,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// What was measured, part by part.
    pub stages: Vec<Stage>,
    /// Whether everything arrived.
    pub check: Check,
    /// The server's memory.
    pub memory: Option<Memory>,
    /// What went on while it went on.
    pub timeline: Vec<Sample>,
    /// Why the figures count for nothing, if so.
    pub void: Option<String>,
    /// Whether it was ended before its time.
    pub interrupted: bool,
}

/// What was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are the options of `seventh bench`")]
pub struct Setup {
    pub server: String,
    pub scenario: String,
    pub protocol: String,
    pub connections: usize,
    pub streams: usize,
    pub topics: usize,
    /// Events a second; 0 for none.
    pub rate: Option<f64>,
    pub size: usize,
    pub publishers: usize,
    pub missed: u64,
    pub duration: f64,
    /// Cores that the harness had, and whether they were its own.
    pub cores: usize,
    pub pinned: bool,
}

/// A part of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stage {
    /// What was done, such as `deliver`.
    pub name: String,
    /// What is counted, such as `events`.
    pub unit: String,
    /// How many.
    pub count: u64,
    /// In what time.
    pub elapsed: f64,
    /// The server's CPU time meanwhile, if it could be seen.
    pub cpu: Option<Cpu>,
    /// The harness's own.
    pub client_cpu: Cpu,
    /// How long each took.
    pub latency: Option<Latency>,
}

impl Stage {
    /// How many a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.elapsed.max(f64::MIN_POSITIVE)
    }

    /// How many for a second of the server's CPU time; `None` if it could not be seen, or was too short for the
    /// clock of the system.
    #[must_use]
    pub fn per_cpu_second(&self) -> Option<f64> {
        let cpu = self.cpu.as_ref()?.total();
        (cpu > 0.0).then(|| self.count as f64 / cpu)
    }
}

/// CPU time, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they say it")]
pub struct Cpu {
    pub user: f64,
    pub kernel: f64,
}

impl Cpu {
    /// Both together.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.user + self.kernel
    }
}

impl From<CpuTime> for Cpu {
    fn from(time: CpuTime) -> Self {
        Self {
            user: time.user.as_secs_f64(),
            kernel: time.kernel.as_secs_f64(),
        }
    }
}

/// How long things took, in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they say it")]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    pub mean: f64,
    /// Quantiles in 0..1 and their values.
    pub curve: Vec<(f64, u64)>,
}

impl Latency {
    /// `None` of nothing.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        // Two points for each halving of what is above.
        let curve = histogram
            .iter_quantiles(2)
            .map(|point| (point.quantile(), point.value_iterated_to()))
            .collect();
        Some(Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
            curve,
        })
    }
}

/// Whether everything arrived, over all subscribers.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Check {
    /// Events that were published.
    pub published: u64,
    /// Deliveries that had to follow.
    pub expected: u64,
    /// Deliveries that came, each once.
    pub delivered: u64,
    /// Deliveries that did not come.
    pub lost: u64,
    /// Deliveries that came again.
    pub repeated: u64,
    /// Deliveries that came after later ones.
    pub disordered: u64,
    /// Streams that ended though nobody wanted it.
    pub streams_ended: usize,
    /// Comments that kept streams alive.
    pub keepalives: u64,
    /// Ordinary requests, and how many of them were answered with an error.
    pub requests: u64,
    #[allow(missing_docs, reason = "as above")]
    pub requests_failed: u64,
}

/// The server's resident memory, in bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Before anybody came.
    pub before: u64,
    /// With the connections.
    pub connected: u64,
    /// With the streams, before the first event.
    pub streaming: u64,
    /// The most that was seen.
    pub peak: u64,
    /// Streams there were.
    pub streams: usize,
    /// Connections there were.
    pub connections: usize,
}

impl Memory {
    /// What a connection takes with its streams, in bytes.
    #[must_use]
    pub fn per_connection(&self) -> f64 {
        self.streaming.saturating_sub(self.before) as f64 / self.connections.max(1) as f64
    }

    /// What a stream takes, its share of the connection included, in bytes.
    #[must_use]
    pub fn per_stream(&self) -> f64 {
        self.streaming.saturating_sub(self.before) as f64 / self.streams.max(1) as f64
    }
}

/// A moment of a run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since it began.
    pub at: f64,
    /// Connections that have been made.
    pub connections: usize,
    /// Streams that are open.
    pub streams: usize,
    /// Deliveries and ordinary answers since the sample before it, a second.
    pub per_second: f64,
    /// The server's CPU time since the sample before it, as a share of one core.
    pub cpu: Option<Cpu>,
    /// The server's resident memory, in bytes.
    pub memory: Option<u64>,
}
