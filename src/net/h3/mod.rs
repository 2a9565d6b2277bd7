//! HTTP/3 by h3 over quinn: one task a connection.
//!
//! h3 reads requests and writes the heads of replies; bodies are written by the connection's task
//! itself, all ready streams in one pass.
//!
//! Invariant: every pass goes on accepting, answering and sending; nothing in it awaits one thing
//! alone.

mod body;
mod field_section;
mod guard;
mod load;
mod sink;
mod transport;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use h3::{
    error::{Code, StreamError},
    frame::FrameStream,
    server::{Connection, RequestResolver},
    stream::BufRecvStream,
};
use http::{Method, header};

use body::Http3Body;
use sink::QuicSink;
pub(super) use transport::var_int;
use transport::{Bidi, SharedSend, Transport};

use super::{
    backlog::Backlog,
    lifecycle::{Lifecycle, Step},
    linger::{Beyond, Rest, lingering},
    listening::Listening,
    outbox::Outbox,
};
use crate::{
    clock,
    drain::Watch,
    exchange::{Body, Peer, Request},
    limits::{Conduct, Limit, Limits, quic_grant},
    protocol::Protocol,
};

/// The priority of event streams; others have 0.
const EVENTS_FIRST: i32 = 1;
/// How much is handed to quinn in one pass.
const BATCH: usize = 256 << 10;
/// How many batches are handed to quinn before other tasks get their turn.
const PASSES: usize = 16;
/// How many passes there are to each that looks at all that was received.
const PASSES_JUDGED: u32 = 16;
/// How long the last frames of a connection may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// The streams granted at first: quinn makes room for each at once, and most visitors open one. It is
/// raised as they are used.
pub(super) const FIRST_GRANT: usize = 32;

type Setup = Pin<Box<dyn Future<Output = Option<(SharedSend, Body)>> + Send>>;

/// What h3 counts as the size of a field section (RFC 9114 4.2.2) when the service's own bounds,
/// which answer with a problem, are just passed: 32 bytes a field are added to names and values.
fn field_section(limits: &Limits) -> u64 {
    (limits.header_bytes.value + 32 * limits.header_count.value + (2 << 10)) as u64
}

/// Serves a connection to its end. Its first request must come before `by`.
pub(super) async fn serve(
    connection: quinn::Connection,
    by: Instant,
    listening: Arc<Listening>,
    peer: Peer,
    drain: Watch,
) {
    let _open = listening.open(Protocol::Http3);
    // Boxed: what beginning takes is let go of then.
    let begun = Box::pin(begin(connection, by, listening, peer, drain)).await;
    if let Some(driver) = begun {
        driver.run().await;
    }
}

/// What drives a connection, once it has begun.
async fn begin(
    connection: quinn::Connection,
    by: Instant,
    listening: Arc<Listening>,
    peer: Peer,
    drain: Watch,
) -> Option<Box<Http3Driver>> {
    let limits = listening.context().limits;
    let mut builder = h3::server::builder();
    builder
        .max_field_section_size(field_section(&limits))
        .send_grease(false);
    let hits = listening.context().hits.clone();
    let (places, occupant) = (peer.places.bound(), peer.occupant.clone());
    let transport = Transport::new(connection.clone(), hits.clone());
    let handshake = Box::pin(builder.build(transport));
    let begun = listening.in_time(by, "HTTP/3 handshake", handshake);
    let http = begun.await?;
    Some(Box::new(Http3Driver {
        outbox: Outbox::new(
            listening.clone(),
            Protocol::Http3,
            peer.mailbox.clone(),
            Some(Backlog::new(peer.occupant.clone())),
        ),
        connection,
        http,
        listening,
        peer,
        setups: FuturesUnordered::new(),
        granted: FIRST_GRANT,
        // Nothing is in flight then: a stream counts until its end is acknowledged.
        lifecycle: Lifecycle::new(hits, occupant, drain, by, limits.idle.value, Duration::ZERO),
        conduct: Conduct::new(places, clock::now()),
        received: Arc::default(),
        passes: 0,
    }))
}

struct Http3Driver {
    connection: quinn::Connection,
    http: Connection<Transport, Bytes>,
    listening: Arc<Listening>,
    peer: Peer,
    setups: FuturesUnordered<Setup>,
    /// The streams that the peer may have open at a time.
    granted: usize,
    outbox: Outbox<QuicSink>,
    lifecycle: Lifecycle,
    conduct: Conduct,
    /// The bytes of bodies that requests have brought.
    received: Arc<AtomicU64>,
    passes: u32,
}

/// Why the driver stops for a moment or for good.
enum Pause {
    Leave,
    Finished,
    Lost(String),
    Limit(Limit),
}

impl Http3Driver {
    async fn run(mut self: Box<Self>) {
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Pause::Leave => {
                    self.lifecycle.leaving(clock::now());
                    // Not shutdown(0): it would disown the request that came last. A peer that
                    // takes nothing cannot keep this waiting.
                    let goodbye = Box::pin(self.http.shutdown(1));
                    let said = tokio::time::timeout(GOODBYE, goodbye).await;
                    if !matches!(said, Ok(Ok(()))) {
                        return self.close(Code::H3_INTERNAL_ERROR, "GOAWAY could not be sent");
                    }
                }
                Pause::Finished => return self.close(Code::H3_NO_ERROR, ""),
                Pause::Lost(why) => return tracing::debug!("HTTP/3 connection ended: {why}"),
                Pause::Limit(limit) => {
                    tracing::info!("HTTP/3 connection closed: the peer passed {}", limit.key());
                    self.listening.context().hits.count(limit);
                    return self.close(Code::H3_EXCESSIVE_LOAD, limit.key());
                }
            }
        }
    }

    fn close(&self, code: Code, reason: &str) {
        self.connection
            .close(var_int(code.value()), reason.as_bytes());
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        if self.lifecycle.poll_drain(cx).is_ready() {
            self.outbox.drain(clock::now());
            return Poll::Ready(Pause::Leave);
        }
        for pass in 0.. {
            if pass == PASSES {
                // Others have a right to this thread: quinn's writes do not count against it.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.outbox.run(cx, BATCH, usize::MAX);
            let accepted = match self.poll_requests(cx) {
                Ok(accepted) => accepted,
                Err(pause) => return Poll::Ready(pause),
            };
            if accepted {
                self.outbox.reap(cx);
            }
            let answered = self.poll_setups(cx);
            if accepted || answered || self.outbox.has_more() {
                continue;
            }
            self.outbox.deadline_handled();
            match self.poll_timers(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(pause)) => return Poll::Ready(pause),
                Poll::Ready(Ok(())) => {}
            }
        }
        match self.judge() {
            Some(limit) => Poll::Ready(Pause::Limit(limit)),
            None => Poll::Pending,
        }
    }

    fn judge(&mut self) -> Option<Limit> {
        self.passes = self.passes.wrapping_add(1);
        // What QUIC has received is asked for now and then: it takes the connection's lock.
        let received = match self.passes % PASSES_JUDGED {
            0 => self.connection.stats().udp_rx.bytes,
            _ => 0,
        };
        let useful = self.outbox.wrote() + self.received.load(Ordering::Relaxed);
        self.conduct.judge(received, useful, clock::now())
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, Pause> {
        let mut accepted = false;
        loop {
            match self.http.poll_accept_request_stream(cx) {
                Poll::Pending => return Ok(accepted),
                Poll::Ready(Ok(Some(stream))) => {
                    accepted = true;
                    self.lifecycle.asked(clock::now());
                    self.begin(stream);
                    self.raise_grant();
                }
                // The peer said GOAWAY and h3 has no request left; bodies may still be going out,
                // which h3 knows nothing of.
                Poll::Ready(Ok(None)) => {
                    self.lifecycle.leaving(clock::now());
                    return Ok(accepted);
                }
                Poll::Ready(Err(error)) => return Err(Pause::Lost(error.to_string())),
            }
        }
    }

    /// Grants more streams before those that are granted run out.
    fn raise_grant(&mut self) {
        let open = self.outbox.len() + self.setups.len();
        let most = quic_grant(self.listening.context().limits.event_streams_http3.value);
        if quic_grant(open) > self.granted && self.granted < most {
            self.granted = (2 * self.granted).max(quic_grant(open)).min(most);
            let granted = var_int(self.granted as u64);
            self.connection.set_max_concurrent_bi_streams(granted);
        }
    }

    fn begin(&mut self, stream: Bidi<Bytes>) {
        let send = stream.sending();
        let resolver = self
            .http
            .create_resolver(FrameStream::new(BufRecvStream::new(stream)));
        let (listening, peer) = (self.listening.clone(), self.peer.clone());
        let received = self.received.clone();
        self.setups.push(Box::pin(async move {
            let body = answer(resolver, &listening, peer, received).await;
            match body {
                Some(body) => Some((send, body)),
                None => {
                    // Whatever went wrong, no half reply stays behind: errors mean it ended already.
                    let _: Result<_, _> = send
                        .lock()
                        .reset(var_int(Code::H3_REQUEST_CANCELLED.value()));
                    None
                }
            }
        }));
    }

    fn poll_setups(&mut self, cx: &mut Context<'_>) -> bool {
        let mut answered = false;
        while let Poll::Ready(Some(setup)) = self.setups.poll_next_unpin(cx) {
            answered = true;
            self.conduct.request(setup.is_none());
            let Some((send, body)) = setup else { continue };
            if matches!(body, Body::Events(_)) {
                self.conduct.opened(clock::now());
                // Before what other streams have to send; an error means that it is gone already.
                let _: Result<_, _> = send.lock().set_priority(EVENTS_FIRST);
            }
            self.outbox.insert(QuicSink::new(send), body);
        }
        answered
    }

    /// Ready when a deadline has come and there may be something to write.
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Pause>> {
        let busy = !self.outbox.is_empty() || !self.setups.is_empty();
        match self.lifecycle.step(busy, clock::now()) {
            Step::Stay(until) => self.outbox.poll_timer(cx, until).map(Ok),
            Step::Leave => Poll::Ready(Err(Pause::Leave)),
            Step::Close => Poll::Ready(Err(Pause::Finished)),
        }
    }
}

/// Reads a request, answers it, and sends the head of the reply. `None` when the stream is of no
/// more use.
async fn answer(
    resolver: RequestResolver<Transport, Bytes>,
    listening: &Listening,
    peer: Peer,
    received: Arc<AtomicU64>,
) -> Option<Body> {
    let limits = listening.context().limits;
    let resolved = listening
        .context()
        .within(limits.handshake, resolver.resolve_request())
        .await;
    let (request, stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        // h3 has answered 431 itself: the stream only has to be ended.
        Ok(Err(StreamError::HeaderTooBig { .. })) => {
            listening.context().hits.count(Limit::HeaderBytes);
            return Some(Body::Full(Bytes::new()));
        }
        Ok(Err(error)) => {
            tracing::debug!("HTTP/3 request refused: {error}");
            return None;
        }
        Err(_) => return None,
    };
    let (parts, ()) = request.into_parts();
    let (mut send, mut recv) = stream.split();
    // The end of the stream is nearly always there already; then there is no body.
    let first = recv.recv_data().now_or_never();
    let reads = !matches!(parts.method, Method::GET | Method::HEAD)
        || parts.headers.contains_key(header::CONTENT_LENGTH);
    let body = match first {
        Some(Ok(None)) => None,
        first => {
            let is_late = first.is_none();
            let first = first.and_then(Result::ok).flatten();
            let first = first.map(|mut data| data.copy_to_bytes(data.remaining()));
            let body = Http3Body::new(recv, first, &parts.headers, received);
            let body = lingering(body, Rest::new(&limits, Beyond::GiveUp));
            // The end alone is late: it is waited for aside, as a client that is stopped while it sends
            // it may take that for a failure.
            (reads || !is_late).then_some(body)
        }
    };
    let reply = listening.service.call(Request { parts, body, peer }).await;
    let (head, body) = reply.into_response();
    let sent = listening
        .context()
        .within(limits.stall, send.send_response(head));
    match sent.await {
        Ok(Ok(())) => Some(body),
        Ok(Err(error)) => {
            tracing::debug!("HTTP/3 reply not sent: {error}");
            None
        }
        Err(_) => None,
    }
}
