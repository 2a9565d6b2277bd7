//! Who was turned away, and why: counted, and said in the log now and then.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use crate::{clock, exchange::Named, metrics::Registry};

/// How often the log says of each reason how many were turned away for it.
const TELL: Duration = Duration::from_secs(10);

/// Who was turned away, and why.
#[derive(Debug)]
pub(super) struct TurnedAway {
    counted: Family<ByReason, Counter>,
    told: Mutex<HashMap<Named, Told>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// When the log was told of a reason, and how many there have been since.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    since: u64,
}

impl TurnedAway {
    /// Has it printed.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let counted = Family::default();
        registry.register(
            "refused",
            "Requests that were refused for who or what sent them, by the code of the problem (docs/problems.md)",
            counted.clone(),
        );
        Self {
            counted,
            told: Mutex::default(),
        }
    }

    /// Counts one. What it sent stays out of the log: it may be a secret.
    pub(super) fn count(&self, why: Named) {
        let reason = why.as_str();
        self.counted.get_or_create(&ByReason { reason }).inc();
        let now = clock::now();
        let mut told = self.told.lock().expect("no holder of this lock panics");
        let Some(before) = told.get_mut(&why) else {
            told.insert(why, Told { at: now, since: 0 });
            drop(told);
            return tracing::info!(reason, "refused");
        };
        before.since += 1;
        if now.saturating_duration_since(before.at) < TELL {
            return;
        }
        let times = std::mem::take(&mut before.since);
        before.at = now;
        drop(told);
        tracing::info!(reason, times, "refused");
    }
}
