//! What access counts.

use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::Registry;

/// The bounds of the times that the app takes, in seconds.
const SECONDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The metrics of access.
#[derive(Clone, Debug)]
pub struct AccessMetrics {
    /// How long the app took to say who someone is, or failed to.
    pub(super) session: Histogram,
}

impl AccessMetrics {
    /// Makes them, and has them printed.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let session = Histogram::new(SECONDS);
        registry.register(
            "session_seconds",
            "How long the app of access.session took to say who someone is, those times counted that it did not",
            session.clone(),
        );
        Self { session }
    }
}
