//! From a request to a reply, the same for every protocol. It does no socket work and does not
//! fail: failures have become replies in `failure`.

mod audience;
mod control;
mod demo;
mod event_stream;
mod failure;
mod metrics;
mod publish;
mod streams;
mod subscribe;
pub mod validate;

use std::{fmt, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts,
};
use http_body_util::combinators::UnsyncBoxBody;

use crate::{
    access::Access,
    backoff,
    drain::Watch,
    history::Order,
    hub::{Hub, mailbox::Mailbox},
    limits::{Bound, Hits, Limit, Limits, Slots},
    metrics::Registry,
    protocol::Protocol,
};
pub use control::Gate;
pub use event_stream::{EventStream, Output};
pub use failure::Problem;
pub use metrics::Metrics;
pub use streams::{Filter, StreamInfo, Streams};
use validate::HeaderBounds;

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
pub struct Shared {
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
    Public(Arc<Shared>),
    /// What publishers and operators see.
    Control(Arc<Shared>, Arc<Gate>),
}

/// Who asks, and over what.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The protocol.
    pub protocol: Protocol,
    /// Its address.
    pub remote: SocketAddr,
    /// The mailbox of its connection.
    pub mailbox: Arc<Mailbox>,
    /// The event streams of its connection.
    pub places: Slots,
    /// What tells it that HTTP/3 is there, if it is and the peer does not use it.
    pub alt_svc: Option<HeaderValue>,
}

/// A request's body.
pub type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// Why a request's body ended early: the peer, its connection, or its pace.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request whose head came in.
#[derive(Debug)]
pub struct Request {
    /// Its head.
    pub parts: Parts,
    /// Its body, if it may have one.
    pub body: Option<RequestBody>,
    /// Who asks.
    pub peer: Peer,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// The limit that it comes from, which is counted when it goes out.
    pub bitten: Option<Limit>,
}

/// The body of an answer.
pub enum Body {
    /// All of it.
    Full(Bytes),
    /// An event stream.
    Events(Box<EventStream>),
    /// Parts as they come.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Events(_) => "Events",
            Self::Stream(_) => "Stream",
        })
    }
}

impl Body {
    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }
}

impl Reply {
    fn new(status: StatusCode, body: Body) -> Self {
        let mut headers = HeaderMap::new();
        if let Body::Full(bytes) = &body {
            headers.insert(header::CONTENT_LENGTH, bytes.len().into());
        }
        Self {
            status,
            headers,
            body,
            bitten: None,
        }
    }

    fn text(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Self {
        Self::new(status, Body::Full(text.into())).with(header::CONTENT_TYPE, content_type)
    }

    fn json(value: &impl serde::Serialize) -> Self {
        let mut text = serde_json::to_string(value).expect("strings and numbers only");
        text.push('\n');
        Self::text(StatusCode::OK, "application/json", text).with(header::CACHE_CONTROL, "no-store")
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// An event stream that is over at once but for the time to come back after: the only refusal
    /// that an `EventSource` survives.
    fn gentle_refusal(retry: Duration) -> Self {
        Self::short_stream(crate::sse::retry(retry).into())
    }

    /// An event stream that is over once it has said this.
    fn short_stream(bytes: Bytes) -> Self {
        Self::new(StatusCode::OK, Body::Full(bytes)).into_event_stream()
    }

    /// The limit that it comes from.
    fn bitten_by(self, limit: Limit) -> Self {
        Self {
            bitten: Some(limit),
            ..self
        }
    }

    fn into_event_stream(self) -> Self {
        self.with(header::CONTENT_TYPE, "text/event-stream")
            .with(header::CACHE_CONTROL, "no-cache, no-transform")
            .with(HeaderName::from_static("x-accel-buffering"), "no")
    }

    /// The head, for the driver to send, and the body.
    #[must_use]
    pub fn into_response(self) -> (Response<()>, Body) {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        (response, self.body)
    }
}

impl Service {
    /// Answers `request`.
    pub async fn call(&self, request: Request) -> Reply {
        let protocol = request.peer.protocol;
        let _in_progress = match self {
            Self::Public(shared) => Some(shared.metrics.requests.guard(protocol)),
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
            self.shared().hits.count(limit);
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
        let shared = self.shared();
        let bounds = HeaderBounds {
            bytes: shared.limits.header_bytes.value,
            count: shared.limits.header_count.value,
        };
        validate::validate(&request.parts, bounds)?;
        match self {
            Self::Public(shared) => public(shared, request).await,
            Self::Control(shared, gate) => control::answer(shared, gate, request).await,
        }
    }

    /// What its requests share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        match self {
            Self::Public(shared) | Self::Control(shared, _) => shared,
        }
    }
}

async fn public(shared: &Arc<Shared>, request: Request) -> Result<Reply, Problem> {
    let path = request.parts.uri.path();
    if path == shared.events.path && shared.events.enabled {
        return Ok(subscribe::answer(shared, &request.parts, &request.peer).await);
    }
    match path {
        "/" if shared.demo => demo::page(shared, &request),
        demo::PUBLISH if shared.demo => demo::publish(shared, request).await,
        _ if shared.access.publishes() && publish::is_path(path) => {
            publish::from_outside(shared, request).await
        }
        _ => Err(Problem::not_found(match shared.events.enabled {
            true => format!(
                "there is nothing at this path; event streams are at {}",
                shared.events.path
            ),
            false => "there is nothing at this path".into(),
        })),
    }
}

impl Shared {
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
