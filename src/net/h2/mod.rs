//! HTTP/2 by the h2 crate: one task a connection.
//!
//! Invariant: every pass of the task goes on reading, answering, sending and flushing; nothing in
//! it awaits one thing alone. It is woken once per publish through the mailbox, drains all its
//! ready streams, and flushes once.

mod body;
mod cork;
mod frames;
mod sink;

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use h2::{
    RecvStream,
    server::{Connection, SendResponse},
};
use tokio::io::{AsyncRead, AsyncWrite};

use body::Http2Body;
use cork::{Cork, Corked};
use sink::{Http2Sink, Reserves};

use super::{
    lifecycle::{Lifecycle, Step},
    linger::{Beyond, Rest, lingering},
    listening::Listening,
    outbox::Outbox,
};
use crate::{
    clock,
    drain::Watch,
    exchange::{Body, Peer, Reply, Request},
    limits::{Conduct, Limit},
    protocol::Protocol,
};

/// How much of a stream h2 may hold for a slow reader: the rest stays in the ring.
const SEND_BUFFER: usize = 64 << 10;
/// How much a request's body may run ahead of its reader, a stream and a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How much is handed to h2 before it is flushed.
const BATCH: usize = 256 << 10;
/// How many requests are answered, and how many streams visited, before h2 writes: its queues grow with
/// what waits in them, and keep what they have grown to.
const ANSWERS: usize = 32;
const VISITS: usize = 128;
/// How long the last frames of a connection may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// An answer that is being made; `None` when its client left before.
type Answering = Pin<Box<dyn Future<Output = (SendResponse<Bytes>, Option<Reply>)> + Send>>;

/// Serves a connection to its end. Its first request must come before `by`.
pub(super) async fn serve<T>(
    io: T,
    by: Instant,
    listening: Arc<Listening>,
    peer: Peer,
    drain: Watch,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _open = listening.open(Protocol::Http2);
    // Boxed: what beginning takes is let go of then.
    let begun = Box::pin(begin(io, by, listening, peer, drain)).await;
    if let Some(driver) = begun {
        driver.run().await;
    }
}

/// What drives a connection, once it has begun.
async fn begin<T>(
    io: T,
    by: Instant,
    listening: Arc<Listening>,
    peer: Peer,
    drain: Watch,
) -> Option<Box<Http2Driver<T>>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = listening.context().limits;
    let (cork, corked) = Cork::new(io);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(u32::try_from(limits.http2_streams.value).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(limits.header_bytes.value * 2).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        // A page may be left while it opens its streams; `Conduct` judges who does so all the time.
        .max_pending_accept_reset_streams(limits.http2_streams.value);
    let handshake = builder.handshake(corked);
    let begun = listening.in_time(by, "HTTP/2 handshake", handshake);
    let connection = begun.await?;
    let hits = listening.context().hits.clone();
    let (places, occupant) = (peer.places.bound(), peer.occupant.clone());
    Some(Box::new(Http2Driver {
        outbox: Outbox::new(
            listening.clone(),
            Protocol::Http2,
            peer.mailbox.clone(),
            None,
        ),
        connection,
        cork,
        listening,
        peer,
        answering: FuturesUnordered::new(),
        lifecycle: Lifecycle::new(
            hits,
            occupant,
            drain,
            by,
            limits.idle.value,
            limits.stall.value,
        ),
        conduct: Conduct::new(places, clock::now()),
        reserves: Reserves::new(),
        received: Arc::default(),
    }))
}

struct Http2Driver<T> {
    connection: Connection<Corked<T>, Bytes>,
    cork: Cork<T>,
    listening: Arc<Listening>,
    peer: Peer,
    answering: FuturesUnordered<Answering>,
    outbox: Outbox<Http2Sink>,
    lifecycle: Lifecycle,
    conduct: Conduct,
    reserves: Reserves,
    /// The bytes of bodies that requests have brought.
    received: Arc<AtomicU64>,
}

/// Why a connection ends.
enum End {
    Peer,
    Protocol(h2::Error),
    Io(io::Error),
    Limit(Limit),
    Idle,
}

impl<T> Http2Driver<T>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    async fn run(mut self: Box<Self>) {
        match poll_fn(|cx| self.poll(cx)).await {
            End::Peer => {}
            End::Protocol(error) => {
                // The bounds that h2 itself has; it does not tell which.
                if error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) {
                    self.listening.context().hits.count(Limit::Http2Frames);
                }
                tracing::debug!("HTTP/2 connection ended: {error}");
            }
            End::Io(error) => return tracing::debug!("HTTP/2 connection cut: {error}"),
            End::Limit(limit) => {
                tracing::info!("HTTP/2 connection closed: the peer passed {}", limit.key());
                self.listening.context().hits.count(limit);
                self.connection
                    .abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            }
            End::Idle => self.connection.abrupt_shutdown(h2::Reason::NO_ERROR),
        }
        // The GOAWAY that h2 has queued, and what else it gathered.
        let goodbye = poll_fn(|cx| {
            let closed = self.connection.poll_closed(cx);
            ready!(self.cork.poll_flush(cx))?;
            closed.map(|_| io::Result::Ok(()))
        });
        // The peer may be gone: then there is nobody to say it to.
        let _: Result<_, _> = tokio::time::timeout(GOODBYE, goodbye).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(limit) = self.cork.begin_pass() {
            return Poll::Ready(End::Limit(limit));
        }
        if self.lifecycle.poll_drain(cx).is_ready() {
            self.leave();
            self.outbox.drain(clock::now());
        }
        loop {
            // A peer that is slow is left alone: what comes stays in the rings until it has taken what
            // is here.
            let passed_over = self.cork.is_blocked();
            if !passed_over {
                self.outbox.run(cx, BATCH, VISITS);
            }
            // This also writes what was handed to h2.
            let accepted = match self.poll_requests(cx) {
                Ok(accepted) => accepted,
                Err(end) => return Poll::Ready(end),
            };
            if accepted {
                self.outbox.reap(cx);
            }
            let answered = self.poll_answers(cx);
            // What was published meanwhile has not been looked at, nor would anyone be woken for it again.
            let more = passed_over || accepted || answered || self.outbox.has_more();
            if more && !self.cork.is_blocked() {
                continue;
            }
            match self.cork.poll_flush(cx) {
                Poll::Ready(Ok(())) if more => continue,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(End::Io(error)),
                Poll::Pending => break,
            }
            self.outbox.deadline_handled();
            match self.poll_timers(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Ready(Ok(())) => {}
            }
        }
        let useful = self.outbox.wrote() + self.received.load(Ordering::Relaxed);
        match self
            .conduct
            .judge(self.cork.bytes_read(), useful, clock::now())
        {
            Some(limit) => Poll::Ready(End::Limit(limit)),
            None => Poll::Pending,
        }
    }

    /// Reads and writes frames, and begins to answer what comes in.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut accepted = false;
        loop {
            if self.answering.len() >= self.listening.context().limits.http2_streams.value {
                // Some of them were reset, and are to be let go of before others are begun.
                return match self.connection.poll_closed(cx) {
                    Poll::Pending => Ok(accepted),
                    Poll::Ready(Ok(())) => Err(End::Peer),
                    Poll::Ready(Err(error)) => Err(Self::end_of(error)),
                };
            }
            match self.connection.poll_accept(cx) {
                Poll::Pending => return Ok(accepted),
                Poll::Ready(None) => return Err(End::Peer),
                Poll::Ready(Some(Err(error))) => return Err(Self::end_of(error)),
                Poll::Ready(Some(Ok((request, respond)))) => {
                    accepted = true;
                    self.lifecycle.asked(clock::now());
                    self.begin(request, respond);
                }
            }
        }
    }

    fn end_of(error: h2::Error) -> End {
        if error.is_io() {
            End::Io(error.into_io().expect("it is one"))
        } else {
            End::Protocol(error)
        }
    }

    fn begin(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let received = self.received.clone();
        let rest = Rest::new(&self.listening.context().limits, Beyond::Hold);
        let body = (!body.is_end_stream()).then(|| lingering(Http2Body { body, received }, rest));
        let request = Request {
            parts,
            body,
            peer: self.peer.clone(),
        };
        let listening = self.listening.clone();
        self.answering.push(Box::pin(async move {
            let mut respond = respond;
            let mut answer = pin!(listening.service.call(request));
            // Nobody waits for an answer to a stream that was reset, and its place is another's.
            let answer = poll_fn(|cx| match respond.poll_reset(cx) {
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => answer.as_mut().poll(cx).map(Some),
            });
            let answer = answer.await;
            (respond, answer)
        }));
    }

    fn poll_answers(&mut self, cx: &mut Context<'_>) -> bool {
        let mut answered = false;
        if self.answering.is_empty() {
            return answered;
        }
        for _ in 0..ANSWERS {
            let Poll::Ready(Some((mut respond, reply))) = self.answering.poll_next_unpin(cx) else {
                break;
            };
            answered = true;
            let gone = matches!(respond.poll_reset(cx), Poll::Ready(_));
            self.conduct.request(gone);
            let Some(reply) = reply.filter(|_| !gone) else {
                continue;
            };
            let (head, body) = reply.into_response();
            let end = body.is_empty();
            // An error means that the client has left the stream, or the connection: both are
            // seen elsewhere.
            if let Ok(stream) = respond.send_response(head, end)
                && !end
            {
                let mut reserve = None;
                if matches!(body, Body::Events(_)) {
                    self.conduct.opened(clock::now());
                    let window = self.cork.granted().saturating_sub(self.outbox.wrote());
                    reserve = self.reserves.take(window);
                }
                self.outbox.insert(Http2Sink::new(stream, reserve), body);
            }
        }
        answered
    }

    /// Tells the peer that the connection is to end. h2 waits for the peer to answer a PING; the
    /// lifecycle does not wait for ever.
    fn leave(&mut self) {
        self.connection.graceful_shutdown();
        self.lifecycle.leaving(clock::now());
    }

    /// Ready when a deadline has come and there may be something to write.
    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let busy = !self.outbox.is_empty() || !self.answering.is_empty();
        match self.lifecycle.step(busy, clock::now()) {
            Step::Stay(until) => self.outbox.poll_timer(cx, until).map(Ok),
            Step::Leave => {
                self.leave();
                Poll::Ready(Ok(()))
            }
            Step::Close => Poll::Ready(Err(End::Idle)),
        }
    }
}
