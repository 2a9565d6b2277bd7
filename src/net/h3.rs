//! HTTP/3 by h3 over quinn: one task a connection.
//!
//! h3 reads requests and writes the heads of replies; bodies are written by the connection's task
//! itself, all ready streams in one pass.
//!
//! Invariant: every pass goes on accepting, answering and sending; nothing in it awaits one thing
//! alone.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use h3::{
    error::Code,
    frame::FrameStream,
    server::{Connection, RequestResolver, RequestStream},
    stream::BufRecvStream,
};
use http::Method;
use http_body::Frame;
use http_body_util::BodyExt as _;

use super::{
    flood::Flood,
    h3_guard::MAX_HEADERS,
    h3_transport::{Bidi, RecvHalf, SharedSend, Transport, var_int},
    pump::{Gone, Pump, Sink},
};
use crate::{
    clock,
    drain::Watch,
    metrics::Protocol,
    service::{Body, Peer, Request, Service, Shared},
};

/// How much is handed to quinn in one pass.
const BATCH: usize = 256 << 10;
/// How long the last frames of a connection may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// The type of a DATA frame (RFC 9114 7.2.1).
const DATA: u8 = 0x0;

type Setup = Pin<Box<dyn Future<Output = Option<(SharedSend, Body)>> + Send>>;

/// Serves a connection to its end.
pub(super) async fn serve(
    connection: quinn::Connection,
    service: Service,
    peer: Peer,
    drain: Watch,
) {
    let shared = service.shared().clone();
    let _open = service.connection(Protocol::Http3);
    let mut builder = h3::server::builder();
    builder
        .max_field_section_size(MAX_HEADERS)
        .send_grease(false);
    let begun = builder.build(Transport::new(connection.clone()));
    let http = match tokio::time::timeout(shared.limits.handshake, begun).await {
        Ok(Ok(http)) => http,
        Ok(Err(error)) => return tracing::debug!("HTTP/3 handshake failed: {error}"),
        Err(_) => return shared.metrics.limit("limits.handshake"),
    };
    let driver = Driver {
        pump: Pump::new(shared.clone(), Protocol::Http3, peer.mailbox.clone()),
        connection,
        http,
        service,
        peer,
        setups: FuturesUnordered::new(),
        idle_since: Some(clock::now()),
        draining: Some(Box::pin(drain.draining())),
        goodbye: Goodbye::No,
        flood: Flood::default(),
        shared,
    };
    driver.run().await;
}

struct Driver {
    connection: quinn::Connection,
    http: Connection<Transport, Bytes>,
    service: Service,
    shared: Arc<Shared>,
    peer: Peer,
    setups: FuturesUnordered<Setup>,
    pump: Pump<QuicSink>,
    idle_since: Option<Instant>,
    draining: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    goodbye: Goodbye,
    flood: Flood,
}

/// How far the end has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    No,
    /// GOAWAY is to be sent.
    Due,
    /// It was sent: the connection closes once nothing is in flight.
    Said,
}

/// Why the driver stops for a moment or for good.
enum Pause {
    SayGoodbye,
    Finished,
    Lost(String),
    Flood(&'static str),
}

impl Driver {
    async fn run(mut self) {
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Pause::SayGoodbye => {
                    self.goodbye = Goodbye::Said;
                    // Not shutdown(0): it would disown the request that came last. A peer that
                    // takes nothing cannot keep this waiting.
                    let said = tokio::time::timeout(GOODBYE, self.http.shutdown(1)).await;
                    if !matches!(said, Ok(Ok(()))) {
                        return self.close(Code::H3_INTERNAL_ERROR, "GOAWAY could not be sent");
                    }
                }
                // Nothing is in flight: a stream counts until its end is acknowledged.
                Pause::Finished => return self.close(Code::H3_NO_ERROR, ""),
                Pause::Lost(why) => return tracing::debug!("HTTP/3 connection ended: {why}"),
                Pause::Flood(limit) => {
                    tracing::info!("HTTP/3 connection closed: the peer passed {limit}");
                    self.shared.metrics.limit(limit);
                    return self.close(Code::H3_EXCESSIVE_LOAD, limit);
                }
            }
        }
    }

    fn close(&self, code: Code, reason: &str) {
        self.connection
            .close(var_int(code.value()), reason.as_bytes());
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        if let Some(draining) = &mut self.draining
            && draining.as_mut().poll(cx).is_ready()
        {
            self.draining = None;
            self.pump.drain(clock::now());
            self.goodbye = Goodbye::Due;
        }
        if self.goodbye == Goodbye::Due {
            return Poll::Ready(Pause::SayGoodbye);
        }
        loop {
            let accepted = match self.poll_requests(cx) {
                Ok(accepted) => accepted,
                Err(pause) => return Poll::Ready(pause),
            };
            let answered = self.poll_setups(cx);
            let wrote = self.pump.run(cx, BATCH);
            if wrote > 0 || accepted || answered || self.pump.has_more() {
                continue;
            }
            self.pump.deadline_handled();
            let busy = !self.pump.is_empty() || !self.setups.is_empty();
            if !busy && self.goodbye == Goodbye::Said {
                return Poll::Ready(Pause::Finished);
            }
            if self.poll_timers(cx, busy).is_pending() {
                break;
            }
            if self.goodbye == Goodbye::Due {
                return Poll::Ready(Pause::SayGoodbye);
            }
        }
        match self.flood.check(0, self.pump.wrote()) {
            Some(limit) => Poll::Ready(Pause::Flood(limit)),
            None => Poll::Pending,
        }
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, Pause> {
        let mut accepted = false;
        loop {
            match self.http.poll_accept_request_stream(cx) {
                Poll::Pending => return Ok(accepted),
                Poll::Ready(Ok(Some(stream))) => {
                    accepted = true;
                    self.begin(stream);
                }
                // The peer said GOAWAY and h3 has no request left; bodies may still be going out,
                // which h3 knows nothing of.
                Poll::Ready(Ok(None)) => {
                    if self.goodbye == Goodbye::No {
                        self.goodbye = Goodbye::Said;
                    }
                    return Ok(accepted);
                }
                Poll::Ready(Err(error)) => return Err(Pause::Lost(error.to_string())),
            }
        }
    }

    fn begin(&mut self, stream: Bidi<Bytes>) {
        let send = stream.shared();
        let resolver = self
            .http
            .create_resolver(FrameStream::new(BufRecvStream::new(stream)));
        let (service, peer) = (self.service.clone(), self.peer.clone());
        self.setups.push(Box::pin(async move {
            let body = answer(resolver, &service, peer).await;
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
            self.flood.request(setup.is_none());
            let Some((send, body)) = setup else { continue };
            self.pump.insert(QuicSink::new(send), body);
        }
        answered
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>, busy: bool) -> Poll<()> {
        if busy && self.idle_since.is_some() {
            self.idle_since = Some(clock::now());
        }
        let idle_at = self
            .idle_since
            .filter(|_| !busy)
            .map(|since| since + self.shared.limits.idle);
        ready!(self.pump.poll_timer(cx, idle_at));
        if idle_at.is_some_and(|at| at <= clock::now()) && self.goodbye == Goodbye::No {
            self.idle_since = None;
            self.goodbye = Goodbye::Due;
        }
        Poll::Ready(())
    }
}

/// Reads a request, answers it, and sends the head of the reply. `None` when the stream is of no
/// more use.
async fn answer(
    resolver: RequestResolver<Transport, Bytes>,
    service: &Service,
    peer: Peer,
) -> Option<Body> {
    let limits = service.shared().limits;
    let resolved = tokio::time::timeout(limits.handshake, resolver.resolve_request()).await;
    let (request, stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => {
            tracing::debug!("HTTP/3 request refused: {error}");
            return None;
        }
        Err(_) => {
            service.shared().metrics.limit("limits.handshake");
            return None;
        }
    };
    let (parts, ()) = request.into_parts();
    let (mut send, mut recv) = stream.split();
    let reads = !matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE);
    let body = if reads {
        Some(RequestBody(recv).boxed_unsync())
    } else {
        // The end of the stream is nearly always there already; if so, there is nothing to stop.
        let _: Option<_> = recv.recv_data().now_or_never();
        drop(recv);
        None
    };
    let reply = service.call(Request { parts, body, peer }).await;
    let (head, body) = reply.into_response();
    match tokio::time::timeout(limits.stall, send.send_response(head)).await {
        Ok(Ok(())) => Some(body),
        Ok(Err(error)) => {
            tracing::debug!("HTTP/3 reply not sent: {error}");
            None
        }
        Err(_) => {
            service.shared().metrics.limit("limits.stall");
            None
        }
    }
}

/// Writes a body as DATA frames.
struct QuicSink {
    stream: SharedSend,
    /// The rest of a frame that was begun. It is always finished before anything else is written,
    /// or the stream is reset: half a frame would end the whole connection.
    unsent: Bytes,
    /// Resolves once the client has left, or has acknowledged the end of the stream.
    stopped: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    finished: bool,
}

impl QuicSink {
    fn new(stream: SharedSend) -> Self {
        let stopped = stream.lock().stopped();
        Self {
            stream,
            unsent: Bytes::new(),
            stopped: Box::pin(stopped.map(|_| ())),
            finished: false,
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut stream = self.stream.lock();
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &self.unsent));
            self.unsent.advance(written.map_err(|_| Gone)?);
        }
        Poll::Ready(Ok(()))
    }
}

impl Sink for QuicSink {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        // QUIC tells of no window but by a write; so at most one chunk waits here, the rest in
        // the ring.
        self.poll_write(cx)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
        last: bool,
    ) -> Poll<Result<(), Gone>> {
        ready!(self.poll_write(cx))?;
        if !chunk.is_empty() {
            self.unsent = frame(&std::mem::take(chunk));
            ready!(self.poll_write(cx))?;
        }
        if !last {
            return Poll::Ready(Ok(()));
        }
        if !std::mem::replace(&mut self.finished, true) {
            self.stream.lock().finish().map_err(|_| Gone)?;
        }
        self.stopped.as_mut().poll(cx).map(Ok)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stopped.as_mut().poll(cx)
    }
}

impl Drop for QuicSink {
    fn drop(&mut self) {
        if !self.unsent.is_empty() {
            // An error means that the stream has ended already.
            let _: Result<_, _> = self
                .stream
                .lock()
                .reset(var_int(Code::H3_REQUEST_CANCELLED.value()));
        }
    }
}

/// A DATA frame (RFC 9114 7.2.1).
fn frame(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 9);
    frame.put_u8(DATA);
    let len = payload.len() as u64;
    match len {
        0..0x40 => frame.put_u8(len as u8),
        0x40..0x4000 => frame.put_u16(len as u16 | 0x4000),
        0x4000..0x4000_0000 => frame.put_u32(len as u32 | 0x8000_0000),
        _ => frame.put_u64(len | 0xc000_0000_0000_0000),
    }
    frame.extend_from_slice(payload);
    frame.freeze()
}

/// A request's body.
struct RequestBody(RequestStream<RecvHalf, Bytes>);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = crate::service::BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match ready!(self.0.poll_recv_data(cx)) {
            Ok(Some(mut data)) => {
                let data = data.copy_to_bytes(data.remaining());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }
}
