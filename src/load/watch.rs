//! Looks at a run while it goes on: for the progress line, and for the curves of the report.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::{
    ledger::Ledger,
    report::{Cpu, Sample, Stage},
};
use crate::{
    clock,
    process::{CpuTime, Process, ProcessError},
};

/// How often it looks.
const BEAT: Duration = Duration::from_millis(250);

/// What a run shows while it runs.
pub trait Progress: Send + Sync {
    /// A part of it begins; `of` is how many it counts to, or `None` if nobody knows.
    fn begin(&self, what: &str, of: Option<u64>);
    /// How it stands.
    fn at(&self, done: u64, sample: &Sample);
}

/// The server and the harness, as the system sees them.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    server: Option<u32>,
    own: Process,
}

/// A moment, and the CPU time that was used until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) at: Instant,
    server: Option<CpuTime>,
    own: CpuTime,
}

impl Meter {
    pub(super) fn new(server: Option<u32>) -> Self {
        Self {
            server,
            own: Process::new(std::process::id()),
        }
    }

    fn server(&self) -> Option<Process> {
        // Children may have come since.
        self.server.map(Process::with_children)
    }

    pub(super) fn read(&self) -> Reading {
        Reading {
            at: clock::now(),
            server: self.server_cpu(),
            own: self.own_cpu(),
        }
    }

    fn server_cpu(&self) -> Option<CpuTime> {
        self.server()?.cpu().ok()
    }

    fn own_cpu(&self) -> CpuTime {
        self.own.cpu().unwrap_or_default()
    }

    /// The server's memory, in bytes, before anything is done to it.
    pub(super) fn first_memory(&self) -> Result<Option<u64>, ProcessError> {
        self.server().map(|server| server.memory()).transpose()
    }

    /// The server's memory, in bytes; `None` also of one that is gone, which its streams will say.
    pub(super) fn memory(&self) -> Option<u64> {
        self.server()?.memory().ok()
    }

    /// What was done since `before` until `end`.
    pub(super) fn stage(
        &self,
        name: &str,
        unit: &str,
        count: u64,
        before: &Reading,
        end: Instant,
    ) -> Stage {
        Stage {
            name: name.into(),
            unit: unit.into(),
            count,
            elapsed: end.saturating_duration_since(before.at).as_secs_f64(),
            cpu: self.server_cpu().zip(before.server).map(since),
            client_cpu: since((self.own_cpu(), before.own)),
            latency: None,
        }
    }
}

fn since((now, before): (CpuTime, CpuTime)) -> Cpu {
    now.since(before).into()
}

/// A task that looks.
#[derive(Debug)]
pub(super) struct Watcher {
    task: JoinHandle<()>,
    timeline: Arc<Mutex<Vec<Sample>>>,
}

impl Watcher {
    pub(super) fn start(ledger: Arc<Ledger>, meter: &Meter, progress: Arc<dyn Progress>) -> Self {
        let timeline = Arc::new(Mutex::new(Vec::new()));
        let (kept, server) = (timeline.clone(), meter.server());
        let task = tokio::spawn(async move {
            let mut beat = tokio::time::interval(BEAT);
            let begun = clock::now();
            let mut before = (begun, 0, cpu(&server));
            // The first tick comes at once.
            beat.tick().await;
            loop {
                beat.tick().await;
                let now = (clock::now(), done(&ledger), cpu(&server));
                let seconds = (now.0 - before.0).as_secs_f64().max(f64::MIN_POSITIVE);
                let (connections, streams) = ledger.present();
                let sample = Sample {
                    at: (now.0 - begun).as_secs_f64(),
                    connections,
                    streams,
                    per_second: (now.1 - before.1) as f64 / seconds,
                    cpu: now.2.zip(before.2).map(since).map(|cpu| Cpu {
                        user: cpu.user / seconds,
                        kernel: cpu.kernel / seconds,
                    }),
                    memory: server.as_ref().and_then(|server| server.resident().ok()),
                };
                progress.at(now.1, &sample);
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(sample);
                before = now;
            }
        });
        Self { task, timeline }
    }

    /// Ends it: what was seen.
    pub(super) fn stop(self) -> Vec<Sample> {
        self.task.abort();
        std::mem::take(&mut *self.timeline.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn done(ledger: &Ledger) -> u64 {
    ledger.delivered() + ledger.requests_answered().0
}

fn cpu(server: &Option<Process>) -> Option<CpuTime> {
    server.as_ref()?.cpu().ok()
}
