//! From a request to a reply, the same for every protocol. It does no socket work and does not
//! fail: failures have become replies in `failure`.

mod audience;
mod control;
mod demo;
mod event_stream;
mod metrics;
mod publish;
mod streams;
mod subscribe;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, header};

use crate::{
    access::Access,
    backoff,
    drain::Watch,
    exchange::{Body, HeaderBounds, Problem, Reply, Request, validate},
    history::Order,
    hub::Hub,
    limits::{Bound, Hits, Limit, Limits},
    metrics::Registry,
};
pub use control::Gate;
pub use event_stream::EventStream;
pub use metrics::Metrics;
pub use streams::{Filter, StreamInfo, Streams};

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
}

impl Default for EventSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/events".into(),
            retry: Duration::from_secs(3),
            keepalive: Duration::from_secs(15),
        }
    }
}

/// What every request of an edge shares.
#[derive(Debug)]
pub struct Context {
    /// The hub, for those who read.
    pub hub: Arc<Hub>,
    /// The one order, the only way to publish.
    pub order: Arc<Order>,
    /// Who may do what.
    pub access: Access,
    /// The open event streams.
    pub streams: Arc<Streams>,
    /// What the service counts.
    pub metrics: Metrics,
    /// Everything that is counted, for `/metrics`.
    pub registry: Registry,
    /// The limits.
    pub limits: Limits,
    /// How often each bit.
    pub hits: Arc<Hits>,
    /// `[events]`
    pub events: EventSettings,
    /// `drain.spread`
    pub drain_spread: Duration,
    /// Whether `/` is the demo page.
    pub demo: bool,
    /// Whether the edge is ending.
    pub drain: Watch,
}

/// One of the two faces of the edge.
#[derive(Clone, Debug)]
pub enum Service {
    /// What browsers see.
    Public(Arc<Context>),
    /// What publishers and operators see.
    Control(Arc<Context>, Arc<Gate>),
}

impl Service {
    /// Answers `request`.
    pub async fn call(&self, request: Request) -> Reply {
        let protocol = request.peer.protocol;
        let _in_progress = match self {
            Self::Public(context) => Some(context.metrics.requests.guard(protocol)),
            Self::Control(..) => None,
        };
        let head = request.parts.method == Method::HEAD;
        let alt_svc = request.peer.alt_svc.clone();
        let mut reply = match self.answer(request).await {
            Ok(reply) => reply,
            Err(problem) => {
                // What the client sent stays out of the log: it may be a secret in the wrong place.
                let (status, field) = (problem.status(), problem.of_field().unwrap_or("none"));
                tracing::debug!(field, "refused: {status}");
                problem.into()
            }
        };
        if let Some(limit) = reply.bitten {
            self.context().hits.count(limit);
        }
        if let Some(alt_svc) = alt_svc {
            reply.headers.insert(header::ALT_SVC, alt_svc);
        }
        if head {
            reply.body = Body::Full(Bytes::new());
        }
        reply
    }

    async fn answer(&self, request: Request) -> Result<Reply, Problem> {
        let context = self.context();
        let bounds = HeaderBounds {
            bytes: context.limits.header_bytes.value,
            count: context.limits.header_count.value,
        };
        validate(&request.parts, bounds)?;
        match self {
            Self::Public(context) => public(context, request).await,
            Self::Control(context, gate) => control::answer(context, gate, request).await,
        }
    }

    /// What its requests share.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        match self {
            Self::Public(context) | Self::Control(context, _) => context,
        }
    }
}

async fn public(context: &Arc<Context>, request: Request) -> Result<Reply, Problem> {
    let path = request.parts.uri.path();
    if path == context.events.path && context.events.enabled {
        return Ok(subscribe::answer(context, &request.parts, &request.peer).await);
    }
    match path {
        "/" if context.demo => demo::page(context, &request),
        demo::PUBLISH if context.demo => demo::publish(context, request).await,
        _ if context.access.publishes() && publish::is_path(path) => {
            publish::from_outside(context, request).await
        }
        _ => Err(Problem::not_found(match context.events.enabled {
            true => format!(
                "there is nothing at this path; event streams are at {}",
                context.events.path
            ),
            false => "there is nothing at this path".into(),
        })),
    }
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
        let result = tokio::time::timeout(bound.value, future).await;
        result.map_err(|_| {
            self.hits.count(bound.limit);
            bound.limit
        })
    }

    /// A time to come back after, as a client is told on an ordinary stream.
    fn retry(&self) -> Duration {
        backoff::jittered_by_half(self.events.retry, fastrand::f64())
    }

    /// A time to come back after for those who cannot be let in just now.
    fn long_retry(&self) -> Duration {
        self.retry() * REFUSED_RETRY
    }

    /// A time to come back after for clients of an edge that ends.
    #[must_use]
    pub fn drain_retry(&self) -> Duration {
        // Chromium spins on zero.
        backoff::within(self.drain_spread, fastrand::f64()).max(Duration::from_millis(100))
    }
}
