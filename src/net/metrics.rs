//! What the sockets count.

use prometheus_client::metrics::counter::Counter;

use crate::metrics::{Counters, Opened, Registry};

/// The metrics of connections.
#[derive(Debug)]
pub(crate) struct NetMetrics {
    pub(super) connections: Opened,
    pub(super) delivered: Counters,
    pub(super) accept_errors: Counter,
    pub(super) accept_pauses: Counter,
}

impl NetMetrics {
    /// Makes them, and has them printed.
    #[must_use]
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let accept_errors = Counter::default();
        registry.register("accept_errors", "Failures of accept", accept_errors.clone());
        let accept_pauses = Counter::default();
        registry.register(
            "accept_pauses",
            "How often accepting paused because the edge was late",
            accept_pauses.clone(),
        );
        Self {
            connections: Opened::register(
                registry,
                ["connections", "Open connections of the public listeners"],
                [
                    "connections_accepted",
                    "Connections that finished their handshake",
                ],
            ),
            delivered: Counters::register(
                registry,
                "events_delivered",
                "Events written to event streams",
            ),
            accept_errors,
            accept_pauses,
        }
    }

    /// How many connections of the public listeners are open.
    #[must_use]
    pub(crate) fn open_connections(&self) -> u64 {
        self.connections.total()
    }
}
