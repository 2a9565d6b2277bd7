//! What the service counts.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::turned_away::TurnedAway;
use crate::metrics::{Opened, Registry};

/// The service's metrics.
#[derive(Debug)]
pub struct ServiceMetrics {
    pub(super) requests: Opened,
    pub(super) event_streams: Opened,
    pub(super) keepalives: Counter,
    pub(super) aged: Counter,
    pub(super) panics: Counter,
    pub(super) http1_crowds: Counter,
    pub(super) turned_away: TurnedAway,
    /// In seconds.
    pub(crate) lag: Gauge<f64, AtomicU64>,
    pub(crate) stalls: Counter,
    /// In bytes.
    pub(crate) memory: Gauge,
    /// In seconds.
    pub(in crate::service) jwks_age: Gauge<f64, AtomicU64>,
}

impl ServiceMetrics {
    /// Makes them, and has them printed.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let keepalives = Counter::default();
        let panics = Counter::default();
        let aged = Counter::default();
        registry.register(
            "event_streams_aged",
            "Event streams that were ended because of their age",
            aged.clone(),
        );
        registry.register(
            "panics",
            "Requests whose handler panicked, each a bug",
            panics.clone(),
        );
        let http1_crowds = Counter::default();
        registry.register(
            "http1_crowds",
            "How often a browser came to five event streams over HTTP/1.1, of six connections that it has",
            http1_crowds.clone(),
        );
        let lag = Gauge::default();
        registry.register(
            "lag_seconds",
            "How late the edge is with what it has to do, by and large",
            lag.clone(),
        );
        let stalls = Counter::default();
        registry.register(
            "stalls",
            "How often the edge did nothing at all for two seconds",
            stalls.clone(),
        );
        let memory = Gauge::default();
        registry.register(
            "memory_bytes",
            "The memory of the process that counts against limits.memory",
            memory.clone(),
        );
        let jwks_age = Gauge::default();
        registry.register(
            "jwks_age_seconds",
            "How old the key set of access.jwks is, -1 while there is none",
            jwks_age.clone(),
        );
        registry.register("keepalives", "Keepalives sent", keepalives.clone());
        Self {
            requests: Opened::register(
                registry,
                [
                    "requests_in_progress",
                    "Requests of the public listeners whose answers are being made",
                ],
                ["requests", "Requests on the public listeners"],
            ),
            event_streams: Opened::register(
                registry,
                ["event_streams", "Open event streams"],
                ["event_streams_opened", "Event streams that were opened"],
            ),
            keepalives,
            aged,
            panics,
            http1_crowds,
            turned_away: TurnedAway::register(registry),
            lag,
            stalls,
            memory,
            jwks_age,
        }
    }
}
