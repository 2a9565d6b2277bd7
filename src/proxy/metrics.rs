//! What the proxy counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What came of asking an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Outcome {
    Answered,
    Unreachable,
    Late,
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
}

/// The proxy's metrics.
#[derive(Debug)]
pub struct ProxyMetrics {
    asked: Family<ByOutcome, Counter>,
    pub(super) retries: Counter,
    pub(super) underscores: Counter,
    pub(super) cut: Counter,
    pub(super) tunnels: Counter,
}

impl ProxyMetrics {
    /// Makes them, and has them printed.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let asked: Family<ByOutcome, Counter> = Family::default();
        for outcome in [
            Outcome::Answered,
            Outcome::Unreachable,
            Outcome::Late,
            Outcome::Broken,
        ] {
            drop(asked.get_or_create(&ByOutcome { outcome }));
        }
        registry.register(
            "upstream_requests",
            "Requests that were sent to apps, by what came of it",
            asked.clone(),
        );
        let mut counter = |name, help| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        Self {
            asked,
            retries: counter("upstream_retries", "Requests that were sent again"),
            underscores: counter(
                "upstream_dropped_fields",
                "Header fields of clients that were dropped because of an underscore",
            ),
            cut: counter("upstream_cut_answers", "Answers of apps that ended early"),
            tunnels: counter("upstream_tunnels", "WebSockets that were opened"),
        }
    }

    pub(super) fn asked(&self, outcome: Outcome) {
        self.asked.get_or_create(&ByOutcome { outcome }).inc();
    }
}
