//! What every request of an edge shares.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http::HeaderValue;

use super::{ServiceMetrics, nesting::Nesting, stream_request::NamedStream, streams::Streams};
use crate::{
    access::{Access, Name},
    backoff, clock,
    drain::Watch,
    history::Order,
    hub::Hub,
    limits::{Bound, Hits, Lag, Limit, Limits, Memory, Places, Rates, Refusals},
    metrics::Registry,
    proxy::Proxy,
};

/// The shortest time that any client is told to wait: it sticks, and libraries then come back that
/// often to an edge that is gone. Streams are spread by the moments of their ends.
pub(super) const MIN_RETRY: Duration = Duration::from_millis(500);
/// How many times as long as usual a client waits that cannot be let in.
const REFUSED_RETRY: u32 = 6;

/// `[events]`
#[derive(Clone, Debug)]
pub struct EventSettings {
    /// `events.enabled`
    pub enabled: bool,
    /// `events.path`
    pub path: String,
    /// `events.retry`
    pub retry: Duration,
    /// `events.keepalive`
    pub keepalive: Duration,
    /// `events.max_age`
    pub max_age: Option<Duration>,
    /// `[[events.stream]]`
    pub streams: Vec<NamedStream>,
}

impl EventSettings {
    /// Whether event streams are at `path`. A final `/` says nothing.
    pub(super) fn are_at(&self, path: &str) -> bool {
        let plain = without_slash(path);
        self.enabled
            && (plain == without_slash(&self.path) || self.streams.iter().any(|s| s.path == plain))
    }

    /// What is at `path`, if it is a path of the operator's own.
    pub(super) fn named(&self, path: &str) -> Option<&NamedStream> {
        let plain = without_slash(path);
        self.streams.iter().find(|stream| stream.path == plain)
    }
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

impl Default for EventSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/events".into(),
            retry: Duration::from_secs(3),
            keepalive: Duration::from_secs(15),
            max_age: None,
            streams: Vec::new(),
        }
    }
}

/// One who asks for event streams: an address, and a user if it is known who.
pub(super) type Visitor = (IpAddr, Option<Name>);

/// What every request of an edge shares.
#[derive(Debug)]
pub struct Context {
    /// The hub, for those who read.
    pub hub: Arc<Hub>,
    /// The one order, the only way to publish.
    pub order: Arc<Order>,
    /// Who may do what.
    pub access: Access,
    /// How groups are nested by the word of all edges.
    pub(crate) nesting: Nesting,
    /// The open event streams.
    pub streams: Arc<Streams>,
    /// What the service counts.
    pub metrics: ServiceMetrics,
    /// Everything that is counted, for `/metrics`.
    pub registry: Registry,
    pub limits: Limits,
    /// How late it is.
    pub(crate) lag: Lag,
    /// How much memory is left.
    pub(crate) memory: Arc<Memory>,
    /// The event streams that there may be.
    pub(crate) places: Places,
    /// Who found no room of late.
    pub(crate) refusals: Mutex<Refusals<Visitor>>,
    /// How often each publishes from outside.
    pub(crate) publish_rates: Mutex<Rates<u64>>,
    /// How often each bit.
    pub hits: Arc<Hits>,
    /// `[events]`
    pub events: EventSettings,
    /// What stands behind the edge.
    pub proxy: Proxy,
    /// Below what the hub's public paths are; mostly nothing.
    pub prefix: String,
    /// `access.prefix` without its last slash: below it the edge's own are.
    pub own: String,
    /// `https.hsts`, as its field has it.
    pub hsts: Option<HeaderValue>,
    /// `drain.spread`
    pub drain_spread: Duration,
    /// Whether `/` is the demo page.
    pub demo: bool,
    /// Whether the edge is ending.
    pub drain: Watch,
}

impl Context {
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
        self.hits.within(bound, future).await
    }

    /// Whether a path is below the hub's prefix, if it has one.
    pub(super) fn is_below_prefix(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&*self.prefix);
        !self.prefix.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether there is the time and the memory to take on more.
    ///
    /// # Errors
    ///
    /// The limit that says that there is not.
    pub(super) fn for_more(&self) -> Result<(), Limit> {
        if self.lag.now() > self.limits.lag.value {
            return Err(self.limits.lag.limit);
        }
        self.memory.for_more()
    }

    /// A time to come back after, as a client is told on an ordinary stream.
    pub(super) fn retry(&self) -> Duration {
        backoff::jittered_by_half(self.events.retry, fastrand::f64()).max(MIN_RETRY)
    }

    /// A time to come back after for those who cannot be let in just now.
    pub(super) fn long_retry(&self) -> Duration {
        self.retry() * REFUSED_RETRY
    }

    /// The same for one who finds no room, longer each time that it comes back in vain.
    pub(super) fn refused_retry(&self, who: Visitor) -> Duration {
        let usual = self.events.retry * REFUSED_RETRY / 2;
        let mut refusals = self.refusals();
        refusals.refuse(who, usual, clock::now(), fastrand::f64())
    }

    /// One was let in that may have been refused before.
    pub(super) fn let_in(&self, who: &Visitor) {
        self.refusals().forget(who);
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals<Visitor>> {
        self.refusals.lock().expect("no holder of this lock panics")
    }

    /// A time to come back after for clients of an edge that ends.
    #[must_use]
    pub fn drain_retry(&self) -> Duration {
        MIN_RETRY + backoff::within(self.drain_spread, fastrand::f64())
    }
}
