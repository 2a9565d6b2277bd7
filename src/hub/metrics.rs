//! What the hub counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::GapReason;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: GapReason,
}

impl EncodeLabelValue for GapReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// The hub's metrics.
#[derive(Debug, Default)]
pub struct HubMetrics {
    pub(super) published: Counter,
    pub(super) duplicates: Counter,
    pub(super) passed_over: Counter,
    pub(super) replays: Counter,
    pub(super) skipped: Counter,
    pub(super) disconnected: Counter,
    gaps: Family<ByReason, Counter>,
}

impl HubMetrics {
    /// Has them printed.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "events_published",
            "Events taken from publishers",
            self.published.clone(),
        );
        registry.register(
            "duplicates",
            "Events that came again, by key or id, and were not published again",
            self.duplicates.clone(),
        );
        registry.register(
            "events_passed_over",
            "Events of topics with an interval whose place a newer one took before they went out",
            self.passed_over.clone(),
        );
        registry.register(
            "replays",
            "Event streams that began behind the newest event",
            self.replays.clone(),
        );
        registry.register(
            "overflows_skipped",
            "Event streams too slow for a topic that went on with its newest events (`overflow = \"latest\"`)",
            self.skipped.clone(),
        );
        registry.register(
            "overflows_disconnected",
            "Event streams too slow for a topic that were ended for it (`overflow = \"disconnect\"`)",
            self.disconnected.clone(),
        );
        registry.register(
            "gaps",
            "Event streams told that events are missing, by reason",
            self.gaps.clone(),
        );
    }

    /// A stream is told of a gap.
    pub(crate) fn gap(&self, reason: GapReason) {
        self.gaps.get_or_create(&ByReason { reason }).inc();
    }
}
