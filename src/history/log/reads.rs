//! Reading for readers what the rings have let go of: a bound for all of them, on threads that may wait for the disk.

use std::sync::{Arc, RwLock};

use tokio::{sync::Semaphore, task::JoinSet};

use super::{metrics::LogMetrics, segments::Segments};
use crate::hub::{Ask, Found};

/// How many slices are read at once for all readers.
const READERS: usize = 4;

/// What reads for readers.
#[derive(Debug)]
pub(in crate::history) struct Reads {
    /// None while nothing is kept.
    segments: RwLock<Option<Arc<Segments>>>,
    turns: Arc<Semaphore>,
    metrics: LogMetrics,
}

impl Reads {
    pub(super) fn new(segments: Option<Arc<Segments>>, metrics: LogMetrics) -> Self {
        Self {
            segments: RwLock::new(segments),
            turns: Arc::new(Semaphore::new(READERS)),
            metrics,
        }
    }

    /// From now on these are read, or none.
    pub(super) fn turn_to(&self, segments: Option<Arc<Segments>>) {
        let mut read = self.segments.write();
        *read.as_deref_mut().expect("no holder of this lock panics") = segments;
    }

    /// Those that are read.
    pub(super) fn segments(&self) -> Option<Arc<Segments>> {
        let segments = self.segments.read();
        segments.expect("no holder of this lock panics").clone()
    }

    /// Finds what the rings do not hold any more.
    pub(in crate::history) async fn read(&self, ask: Ask) -> Option<Found> {
        let (turn, metrics) = (self.turns.clone().acquire_owned(), self.metrics.clone());
        let segments = self.segments()?;
        // A reader that is given its turn, or what was found, and does not take it keeps nobody waiting: a task of its
        // own does, which ends if nobody asks any more.
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            let turn = turn.await.ok()?;
            metrics.deep_reads.inc();
            let read = tokio::task::spawn_blocking(move || {
                let found = segments.read(&ask);
                drop(turn);
                found
            });
            read.await.ok()?
        });
        reading.join_next().await?.ok()?
    }
}
