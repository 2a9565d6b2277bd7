//! What an edge of a cluster counts.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use crate::metrics::Registry;

/// What an edge of a cluster counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterMetrics {
    pub(super) connected: Gauge<i64, AtomicI64>,
    pub(super) behind: Gauge<i64, AtomicI64>,
    pub(super) nodes: Gauge<i64, AtomicI64>,
    pub(super) applied: Counter,
    pub(super) frames: Counter,
    pub(super) retries: Counter,
    pub(super) consumers: Counter,
    pub(super) forks: Counter,
}

impl ClusterMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "cluster_connected",
            "Whether the order is there: 0 while no NATS server answers for it",
            self.connected.clone(),
        );
        registry.register(
            "cluster_frames_behind",
            "How many frames of the order this edge has not applied, when it was last asked",
            self.behind.clone(),
        );
        registry.register(
            "cluster_nodes",
            "How many edges are there, with this one",
            self.nodes.clone(),
        );
        registry.register(
            "cluster_frames_applied",
            "Frames of the order that this edge has applied, its own too",
            self.applied.clone(),
        );
        registry.register(
            "cluster_frames",
            "Frames that this edge has put into the order",
            self.frames.clone(),
        );
        registry.register(
            "cluster_frames_retried",
            "How often a frame was sent again, as nobody had answered",
            self.retries.clone(),
        );
        registry.register(
            "cluster_consumers",
            "How often this edge began to read the order: once, and once more after each interruption",
            self.consumers.clone(),
        );
        registry.register(
            "cluster_forks",
            "How often the order was found to be another than before: its ids are of no history then",
            self.forks.clone(),
        );
    }
}
