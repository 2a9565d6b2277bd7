//! How often each limit bit.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::Limit;

/// The label of what bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLimit {
    limit: Limit,
}

impl EncodeLabelValue for Limit {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        EncodeLabelValue::encode(&self.key(), encoder)
    }
}

/// How often each limit bit.
#[derive(Debug)]
pub struct Hits(Family<ByLimit, Counter>);

impl Default for Hits {
    fn default() -> Self {
        let hits = Family::default();
        for &limit in Limit::ALL {
            // Each is there from the start, at zero.
            drop(hits.get_or_create(&ByLimit { limit }));
        }
        Self(hits)
    }
}

impl Hits {
    /// Has them printed.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "limit_hits",
            "How often a limit bit, by its configuration key if it has one",
            self.0.clone(),
        );
    }

    /// Counts a limit that bit.
    pub fn count(&self, limit: Limit) {
        self.0.get_or_create(&ByLimit { limit }).inc();
    }
}
