//! What the edge counts, and its Prometheus text.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::protocol::Protocol;

impl EncodeLabelValue for Protocol {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// Why a stream was told of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// History no longer holds all that came after the id.
    Trimmed,
    /// The id is from another life of the edge.
    Restart,
    /// The reader fell off the ring.
    Slow,
    /// History never knew the id, or no longer does.
    Unknown,
    /// The topic was deleted.
    Deleted,
}

impl GapReason {
    /// The word that stands in the `edge-gap` event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Restart => "restart",
            Self::Slow => "slow",
            Self::Unknown => "unknown",
            Self::Deleted => "deleted",
        }
    }
}

impl EncodeLabelValue for GapReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// The label of what is counted by protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByProtocol {
    /// The protocol.
    pub protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: GapReason,
}

/// The label of what bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLimit {
    limit: &'static str,
}

type ByProtocolGauge = Family<ByProtocol, Gauge>;
type ByProtocolCounter = Family<ByProtocol, Counter<u64, AtomicU64>>;

/// Every counter of the edge, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: ByProtocolGauge,
    connections_accepted: ByProtocolCounter,
    event_streams: ByProtocolGauge,
    event_streams_opened: ByProtocolCounter,
    requests: ByProtocolCounter,
    in_progress: ByProtocolGauge,
    delivered: ByProtocolCounter,
    /// Events that publishers handed in and the hub took.
    pub published: Counter,
    /// Event streams that began behind the newest event, to be replayed to.
    pub replays: Counter,
    /// Keepalive comments sent.
    pub keepalives: Counter,
    /// Failures of accept(2), each followed by a pause.
    pub accept_errors: Counter,
    gaps: Family<ByReason, Counter>,
    limits: Family<ByLimit, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("seventh");
        macro_rules! register {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        let connections: ByProtocolGauge =
            register!("connections", "Open connections of the public listeners");
        let connections_accepted: ByProtocolCounter = register!(
            "connections_accepted",
            "Connections that finished their handshake"
        );
        let event_streams: ByProtocolGauge = register!("event_streams", "Open event streams");
        let event_streams_opened: ByProtocolCounter =
            register!("event_streams_opened", "Event streams that were opened");
        let requests: ByProtocolCounter = register!("requests", "Requests on the public listeners");
        let in_progress: ByProtocolGauge = register!(
            "requests_in_progress",
            "Requests of the public listeners whose answers are being made"
        );
        let delivered: ByProtocolCounter =
            register!("events_delivered", "Events written to event streams");
        let published: Counter = register!("events_published", "Events taken from publishers");
        let replays: Counter = register!(
            "replays",
            "Event streams that began behind the newest event"
        );
        let keepalives: Counter = register!("keepalives", "Keepalive comments sent");
        let accept_errors: Counter = register!("accept_errors", "Failures of accept");
        let gaps: Family<ByReason, Counter> = register!(
            "gaps",
            "Event streams told that events are missing, by reason"
        );
        let limits: Family<ByLimit, Counter> = register!(
            "limit_hits",
            "How often a limit bit, by its configuration key"
        );
        registry.register_with_unit(
            "start_time",
            "When the edge started, since the epoch",
            Unit::Seconds,
            prometheus_client::metrics::gauge::ConstGauge::new(
                crate::clock::wall()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0.0, |since| since.as_secs_f64()),
            ),
        );
        for protocol in Protocol::ALL {
            let label = ByProtocol { protocol };
            drop(connections.get_or_create(&label));
            drop(event_streams.get_or_create(&label));
            drop(delivered.get_or_create(&label));
        }
        Self {
            registry,
            connections,
            connections_accepted,
            event_streams,
            event_streams_opened,
            requests,
            in_progress,
            delivered,
            published,
            replays,
            keepalives,
            accept_errors,
            gaps,
            limits,
        }
    }
}

impl Metrics {
    /// Counts a connection while the guard lives.
    #[must_use]
    pub fn connection(&self, protocol: Protocol) -> OpenGuard {
        let label = ByProtocol { protocol };
        self.connections_accepted.get_or_create(&label).inc();
        OpenGuard::new(self.connections.get_or_create_owned(&label))
    }

    /// Counts an event stream while the guard lives.
    #[must_use]
    pub fn event_stream(&self, protocol: Protocol) -> OpenGuard {
        let label = ByProtocol { protocol };
        self.event_streams_opened.get_or_create(&label).inc();
        OpenGuard::new(self.event_streams.get_or_create_owned(&label))
    }

    /// Counts a request, and as in progress while the guard lives.
    #[must_use]
    pub fn request(&self, protocol: Protocol) -> OpenGuard {
        let label = ByProtocol { protocol };
        self.requests.get_or_create(&label).inc();
        OpenGuard::new(self.in_progress.get_or_create_owned(&label))
    }

    /// Counts events written to event streams.
    pub fn delivered(&self, protocol: Protocol, events: u64) {
        if events > 0 {
            self.delivered
                .get_or_create(&ByProtocol { protocol })
                .inc_by(events);
        }
    }

    /// Counts a stream that was told of a gap.
    pub fn gap(&self, reason: GapReason) {
        self.gaps.get_or_create(&ByReason { reason }).inc();
    }

    /// Counts a limit that bit, by its configuration key.
    pub fn limit(&self, key: &'static str) {
        self.limits.get_or_create(&ByLimit { limit: key }).inc();
    }

    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        let open = Protocol::ALL.map(|protocol| {
            self.connections
                .get_or_create(&ByProtocol { protocol })
                .get()
        });
        open.iter().sum::<i64>().try_into().unwrap_or_default()
    }

    /// The Prometheus text exposition.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}

/// Counts something as open; dropping it counts it as closed, so that cannot be forgotten.
#[derive(Debug)]
pub struct OpenGuard(Gauge);

impl OpenGuard {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_counts_while_it_lives() {
        let metrics = Metrics::default();
        let line = "seventh_event_streams{protocol=\"h2\"}";
        let guard = metrics.event_stream(Protocol::Http2);
        assert!(metrics.render().contains(&format!("{line} 1\n")));
        drop(guard);
        assert!(metrics.render().contains(&format!("{line} 0\n")));
    }
}
