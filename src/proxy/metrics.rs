//! What the proxy counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::metrics::Opened;

/// What came of asking an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Answered,
    Unreachable,
    Late,
    Broken,
    /// The client's own body has ended early.
    Abandoned,
}

impl Outcome {
    const ALL: [Self; 5] = [
        Self::Answered,
        Self::Unreachable,
        Self::Late,
        Self::Broken,
        Self::Abandoned,
    ];
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Answered => "answered",
            Self::Unreachable => "unreachable",
            Self::Late => "late",
            Self::Broken => "broken",
            Self::Abandoned => "abandoned",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
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
    pub(super) relayed: Opened,
    pub(super) keepalives: Counter,
    /// Event streams of apps that went on after a break.
    pub(super) resumed: Counter,
    /// Event streams that were passed on as they came: they are compressed.
    pub(super) compressed: Counter,
}

impl ProxyMetrics {
    /// Makes them, and has them printed.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let asked: Family<ByOutcome, Counter> = Family::default();
        for outcome in Outcome::ALL {
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
        let retries = counter("upstream_retries", "Requests that were sent again");
        let underscores = counter(
            "upstream_dropped_fields",
            "Header fields of clients that were dropped because of an underscore",
        );
        let cut = counter("upstream_cut_answers", "Answers of apps that ended early");
        let tunnels = counter("upstream_tunnels", "WebSockets that were opened");
        let keepalives = counter(
            "relay_keepalives",
            "Keepalive comments sent on streams of apps",
        );
        let resumed = counter(
            "relay_resumed",
            "Event streams of apps that went on after a break",
        );
        let compressed = counter(
            "relay_compressed",
            "Event streams of apps that were compressed, and so passed on as they came",
        );
        Self {
            relayed: Opened::register(
                registry,
                ["relay_streams", "Open event streams of apps"],
                [
                    "relay_streams_opened",
                    "Event streams of apps that were opened",
                ],
            ),
            keepalives,
            resumed,
            compressed,
            asked,
            retries,
            underscores,
            cut,
            tunnels,
        }
    }

    pub(super) fn asked(&self, outcome: Outcome) {
        self.asked.get_or_create(&ByOutcome { outcome }).inc();
    }
}
