//! A reply, and the kinds of body it may have.

use std::{
    fmt,
    pin::Pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, future::BoxFuture};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use hyper::upgrade::Upgraded;

use super::BodyError;
use crate::{
    hub::{StreamHandle, Wire},
    limits::Limit,
};

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    pub body: Body,
    /// The limit that it comes from, which is counted when it goes out.
    pub bitten: Option<Limit>,
}

/// The parts of a body, as they come: data, and trailers at its end if there are any.
pub(crate) type BodyStream = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, BodyError>> + Send>>;

/// What becomes of a connection whose protocol was changed (RFC 9110 7.8): it is handed over.
pub(crate) type Tunnel = Box<dyn FnOnce(Upgraded) -> BoxFuture<'static, ()> + Send>;

/// The most bytes of events that an event stream says at once: a TLS record.
pub(crate) const CHUNK: usize = 16 << 10;

/// An event stream as the drivers see it: they ask what it has to say, and when to ask again.
pub(crate) trait EventBody: Send {
    /// Its place in the connection's mailbox.
    fn handle(&self) -> &StreamHandle;

    /// Has it end at `at`, telling its client to come back after `retry`.
    fn end_at(&mut self, at: Instant, retry: Duration);

    /// Whether there is nothing to write but what comes with time.
    fn is_quiet(&self, now: Instant) -> bool;

    /// The next moment at which it has something to say without being told.
    fn deadline(&self) -> Instant;

    /// How long it may be quiet.
    fn keepalive(&self) -> Duration;

    /// Until when there is nothing to write, if there is nothing now: a cheap look before room
    /// is asked for.
    fn quiet_until(&self, now: Instant, slack: Duration) -> Option<Instant> {
        let at = self.deadline();
        (self.is_quiet(now) && at > now + slack).then_some(at)
    }

    /// What to write now, about `room` bytes of it, but never less than an event. What would be due
    /// within `slack` is said at once.
    fn next(&mut self, now: Instant, slack: Duration, room: usize) -> Output;

    /// How long before its time a comment may be sent, so that the streams of a connection share
    /// their wake-ups.
    fn slack(&self) -> Duration {
        self.keepalive() / 8
    }
}

/// What an event stream has to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Events to write, and how many of them are publishers'.
    Events(Wire, u64),
    /// Bytes to write that are no publisher's.
    Chunk(Bytes),
    /// The last bytes of the stream.
    Last(Bytes),
    /// Nothing until the mailbox says so, or this moment comes.
    Wait(Instant),
}

/// The body of an answer.
pub(crate) enum Body {
    Full(Bytes),
    /// An event stream.
    Events(Box<dyn EventBody>),
    /// Parts as they come. An error cuts the reply short, so that nobody takes it for whole: a
    /// reset, or no last chunk over HTTP/1.1.
    Stream(BodyStream),
    /// Another protocol, after 101. Only HTTP/1.1 has it.
    Tunnel(Tunnel),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Events(_) => "Events",
            Self::Stream(_) => "Stream",
            Self::Tunnel(_) => "Tunnel",
        })
    }
}

impl Body {
    /// Whether there is nothing to send.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }
}

impl Reply {
    /// With a body, whose length is said if it is known.
    #[must_use]
    pub(crate) fn new(status: StatusCode, body: Body) -> Self {
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

    #[must_use]
    pub(crate) fn text(
        status: StatusCode,
        content_type: &'static str,
        text: impl Into<Bytes>,
    ) -> Self {
        Self::new(status, Body::Full(text.into())).with(header::CONTENT_TYPE, content_type)
    }

    /// With a line of JSON that is not to be stored.
    #[must_use]
    pub(crate) fn json(value: &impl serde::Serialize) -> Self {
        let mut text = serde_json::to_string(value).expect("strings and numbers only");
        text.push('\n');
        Self::text(StatusCode::OK, "application/json", text).with(header::CACHE_CONTROL, "no-store")
    }

    /// With one more field.
    #[must_use]
    pub(crate) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// An event stream that is over at once but for the time to come back after: the only refusal
    /// that an `EventSource` survives.
    #[must_use]
    pub(crate) fn gentle_refusal(retry: Duration) -> Self {
        Self::short_stream(crate::sse::retry(retry).into())
    }

    /// The same for which a limit is to blame, as a comment says.
    #[must_use]
    pub(crate) fn no_room(retry: Duration, limit: Limit) -> Self {
        let mut bytes = crate::sse::retry(retry);
        bytes.push_str(&format!(": {} is reached\n", limit.key()));
        Self::short_stream(bytes.into()).bitten_by(limit)
    }

    /// An event stream that is over once it has said this.
    #[must_use]
    pub(crate) fn short_stream(bytes: Bytes) -> Self {
        Self::new(StatusCode::OK, Body::Full(bytes)).into_event_stream()
    }

    /// The limit that it comes from.
    #[must_use]
    pub(crate) fn bitten_by(self, limit: Limit) -> Self {
        Self {
            bitten: Some(limit),
            ..self
        }
    }

    /// As an event stream: neither stored nor changed nor held back on its way.
    #[must_use]
    pub(crate) fn into_event_stream(self) -> Self {
        self.with(header::CONTENT_TYPE, "text/event-stream")
            .with(header::CACHE_CONTROL, "no-cache, no-transform")
            .with(HeaderName::from_static("x-accel-buffering"), "no")
            .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// The head, for the driver to send, and the body.
    #[must_use]
    pub(crate) fn into_response(self) -> (Response<()>, Body) {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        (response, self.body)
    }
}
