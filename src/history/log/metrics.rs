//! What a log counts.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::segments::State;
use crate::metrics::Registry;

/// What a log counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogMetrics {
    pub(super) commits: Counter,
    pub(super) sync_seconds: Counter<f64, AtomicU64>,
    pub(super) failed: Gauge<i64, AtomicI64>,
    pub(super) deep_reads: Counter,
    bytes: Gauge<i64, AtomicI64>,
    segments: Gauge<i64, AtomicI64>,
}

impl LogMetrics {
    pub(super) fn see(&self, state: &State) {
        let (segments, bytes) = state.size();
        self.segments
            .set(i64::try_from(segments).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Nothing is kept.
    pub(super) fn see_nothing(&self) {
        self.segments.set(0);
        self.bytes.set(0);
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "history_commits",
            "Commits that were written to the log; an fsync each where history.sync is always",
            self.commits.clone(),
        );
        registry.register(
            "history_sync_seconds",
            "How long was waited for what was written to be on disk",
            self.sync_seconds.clone(),
        );
        registry.register(
            "history_failed",
            "1 once nothing more is taken because the disk failed: the edge is to be started again; in a cluster while it \
             keeps nothing on disk",
            self.failed.clone(),
        );
        registry.register(
            "history_deep_reads",
            "Slices of history that were read from the log for readers",
            self.deep_reads.clone(),
        );
        registry.register(
            "history_disk_bytes",
            "How long the segments of the log are",
            self.bytes.clone(),
        );
        registry.register(
            "history_segments",
            "How many segments the log has",
            self.segments.clone(),
        );
    }
}
