//! How often each limit bit.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The label of what bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLimit {
    limit: &'static str,
}

/// How often each limit bit.
#[derive(Debug, Default)]
pub struct Hits(Family<ByLimit, Counter>);

impl Hits {
    /// Has them printed.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "limit_hits",
            "How often a limit bit, by its configuration key",
            self.0.clone(),
        );
    }

    /// Counts a limit that bit.
    pub fn count(&self, limit: &'static str) {
        self.0.get_or_create(&ByLimit { limit }).inc();
    }
}
