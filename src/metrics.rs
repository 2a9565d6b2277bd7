//! The registry of what is counted, and guards that count what is open.
//!
//! Every module owns its own set of metrics and registers it; `edge` gathers them.

use std::{
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Unit,
};

pub(crate) use prometheus_client::registry::Registry;

use crate::protocol::Protocol;

/// The label of what is counted by protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByProtocol {
    pub protocol: Protocol,
}

impl EncodeLabelValue for Protocol {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// A counter for each protocol, in the order of [`Protocol::ALL`]: none is looked up where it counts.
#[derive(Clone, Debug)]
pub(crate) struct Counters([Counter<u64, AtomicU64>; Protocol::ALL.len()]);

impl Counters {
    /// Counters that are there from the start, at zero.
    pub(crate) fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family: Family<ByProtocol, Counter<u64, AtomicU64>> = Family::default();
        let of = |protocol| family.get_or_create_owned(&ByProtocol { protocol });
        let counters = Protocol::ALL.map(of);
        registry.register(name, help, family);
        Self(counters)
    }

    /// Counts `n` more.
    pub(crate) fn add(&self, protocol: Protocol, n: u64) {
        if n > 0 {
            self.0[protocol as usize].inc_by(n);
        }
    }
}

/// What is open of a kind, and what was opened, by protocol.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    open: Family<ByProtocol, Gauge>,
    opened: Counters,
}

impl Opened {
    /// A gauge of what is open and a counter of what was opened, each a name and its help.
    pub(crate) fn register(registry: &mut Registry, open: [&str; 2], opened: [&str; 2]) -> Self {
        let gauges: Family<ByProtocol, Gauge> = Family::default();
        for protocol in Protocol::ALL {
            drop(gauges.get_or_create(&ByProtocol { protocol }));
        }
        registry.register(open[0], open[1], gauges.clone());
        Self {
            open: gauges,
            opened: Counters::register(registry, opened[0], opened[1]),
        }
    }

    /// Counts one as open while the guard lives.
    #[must_use]
    pub(crate) fn guard(&self, protocol: Protocol) -> OpenGuard {
        self.opened.add(protocol, 1);
        let gauge = self.open.get_or_create_owned(&ByProtocol { protocol });
        gauge.inc();
        OpenGuard(gauge)
    }

    /// How many were opened.
    #[must_use]
    pub(crate) fn opened(&self) -> u64 {
        self.opened.0.iter().map(Counter::get).sum()
    }

    /// How many are open.
    #[must_use]
    pub(crate) fn total(&self) -> u64 {
        let open = Protocol::ALL.map(|protocol| {
            let gauge = self.open.get_or_create(&ByProtocol { protocol });
            gauge.get()
        });
        open.iter().sum::<i64>().try_into().unwrap_or_default()
    }
}

/// Counts something as open; dropping it counts it as closed, so that cannot be forgotten.
#[derive(Debug)]
pub(crate) struct OpenGuard(Gauge);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A registry that holds when the edge started and nothing else yet.
#[must_use]
pub(crate) fn registry(started: SystemTime) -> Registry {
    let mut registry = Registry::with_prefix("seventh");
    let since = started.duration_since(UNIX_EPOCH);
    registry.register_with_unit(
        "start_time",
        "When the edge started, since the epoch",
        Unit::Seconds,
        ConstGauge::new(since.map_or(0.0, |since| since.as_secs_f64())),
    );
    registry
}

/// The Prometheus text exposition.
#[must_use]
pub(crate) fn render(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).expect("writing to a String cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_counts_while_it_lives() {
        let mut registry = registry(UNIX_EPOCH);
        let streams = Opened::register(&mut registry, ["open", "Open"], ["opened", "Opened"]);
        let guard = streams.guard(Protocol::Http2);
        assert_eq!(streams.total(), 1);
        assert!(render(&registry).contains("seventh_open{protocol=\"h2\"} 1\n"));
        drop(guard);
        assert!(render(&registry).contains("seventh_open{protocol=\"h2\"} 0\n"));
        assert!(render(&registry).contains("seventh_opened_total{protocol=\"h2\"} 1\n"));
    }
}
