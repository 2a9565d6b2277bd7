//! How often each limit bit.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{Bound, Limit};

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

    /// Waits for `future` no longer than a limit says.
    ///
    /// # Errors
    ///
    /// The limit, which has bitten and is counted.
    pub async fn within<T>(
        &self,
        bound: Bound<Duration>,
        future: impl Future<Output = T>,
    ) -> Result<T, Limit> {
        let result = tokio::time::timeout(bound.value, future).await;
        result.map_err(|_| {
            self.count(bound.limit);
            bound.limit
        })
    }

    /// Counts a limit that bit.
    pub fn count(&self, limit: Limit) {
        self.0.get_or_create(&ByLimit { limit }).inc();
    }
}
