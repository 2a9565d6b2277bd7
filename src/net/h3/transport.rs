//! QUIC streams as the h3 crate wants them, with the [`Guard`] on everything that comes in.
//!
//! h3-quinn is not used on this side: it panics when a stream is stopped while a read is pending,
//! and its sending half cannot be shared. Here the connection's task holds every sending half too,
//! and writes the bodies itself; h3 reads requests and writes the heads of replies.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt as _, stream};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use quinn::{ReadError, VarInt, WriteError};

use super::{
    guard::{Guard, Violation},
    load::Load,
};
use crate::{
    clock,
    limits::{Hits, Limit},
};

/// A sending half that h3 and the connection's task share.
#[derive(Clone, Debug)]
pub(super) struct SharedSend(Arc<Mutex<quinn::SendStream>>);

impl SharedSend {
    /// The stream itself, for the few lines that write to it.
    pub(super) fn lock(&self) -> MutexGuard<'_, quinn::SendStream> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// What the streams of a connection share.
#[derive(Clone, Debug)]
struct Link {
    connection: quinn::Connection,
    hits: Arc<Hits>,
    load: Arc<Mutex<Load>>,
}

impl Link {
    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().expect("no holder of this lock panics")
    }

    /// Closes the connection because of what its peer does.
    fn close(&self, violation: Violation, limit: Limit) -> ConnectionErrorIncoming {
        // Several streams may find it at once.
        if self.connection.close_reason().is_none() {
            self.hits.count(limit);
        }
        let error_code = Code::H3_EXCESSIVE_LOAD.value();
        self.connection
            .close(var_int(error_code), violation.to_string().as_bytes());
        ConnectionErrorIncoming::ApplicationClose { error_code }
    }
}

type Arriving<T> = Pin<Box<dyn Stream<Item = Result<T, quinn::ConnectionError>> + Send + Sync>>;
type BidiHalves = (quinn::SendStream, quinn::RecvStream);

/// A QUIC connection.
pub(super) struct Transport {
    link: Link,
    bidirectional: Arriving<BidiHalves>,
    unidirectional: Arriving<quinn::RecvStream>,
    opener: Opener,
}

impl Transport {
    pub(super) fn new(connection: quinn::Connection, hits: Arc<Hits>) -> Self {
        let load = Arc::new(Mutex::new(Load::new(clock::now())));
        let link = Link {
            connection,
            hits,
            load,
        };
        let connection = &link.connection;
        Self {
            bidirectional: Box::pin(stream::unfold(connection.clone(), |connection| async {
                Some((connection.accept_bi().await, connection))
            })),
            unidirectional: Box::pin(stream::unfold(connection.clone(), |connection| async {
                Some((connection.accept_uni().await, connection))
            })),
            opener: Opener::new(link.clone()),
            link,
        }
    }
}

impl<B: Buf> quic::Connection<B> for Transport {
    type RecvStream = RecvHalf;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        let stream = ready!(self.unidirectional.poll_next_unpin(cx)).expect("it never ends");
        let stream = stream.map_err(connection_error)?;
        let opened = self.link.load().unidirectional_stream(clock::now());
        if let Err(limit) = opened {
            return Poll::Ready(Err(self.link.close(Violation::Passed(limit), limit)));
        }
        let link = self.link.clone();
        Poll::Ready(Ok(RecvHalf::new(
            stream,
            link,
            Guard::unidirectional(),
            None,
        )))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        let halves = ready!(self.bidirectional.poll_next_unpin(cx)).expect("it never ends");
        let (send, recv) = halves.map_err(connection_error)?;
        Poll::Ready(Ok(Bidi::new(send, recv, self.link.clone())))
    }

    fn opener(&self) -> Opener {
        Opener::new(self.link.clone())
    }
}

impl<B: Buf> quic::OpenStreams<B> for Transport {
    type BidiStream = Bidi<B>;
    type SendStream = SendHalf<B>;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bidi<B>, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendHalf<B>, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.link.connection.close(var_int(code.value()), reason);
    }
}

/// Opens streams: the server's own control and QPACK streams.
pub(super) struct Opener {
    link: Link,
    unidirectional: Arriving<quinn::SendStream>,
    bidirectional: Arriving<BidiHalves>,
}

impl Opener {
    fn new(link: Link) -> Self {
        let connection = &link.connection;
        Self {
            unidirectional: Box::pin(stream::unfold(connection.clone(), |connection| async {
                Some((connection.open_uni().await, connection))
            })),
            bidirectional: Box::pin(stream::unfold(connection.clone(), |connection| async {
                Some((connection.open_bi().await, connection))
            })),
            link,
        }
    }
}

impl<B: Buf> quic::OpenStreams<B> for Opener {
    type BidiStream = Bidi<B>;
    type SendStream = SendHalf<B>;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bidi<B>, StreamErrorIncoming>> {
        let halves = ready!(self.bidirectional.poll_next_unpin(cx)).expect("it never ends");
        let (send, recv) = halves.map_err(lost)?;
        Poll::Ready(Ok(Bidi::new(send, recv, self.link.clone())))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendHalf<B>, StreamErrorIncoming>> {
        let stream = ready!(self.unidirectional.poll_next_unpin(cx)).expect("it never ends");
        Poll::Ready(Ok(SendHalf::new(SharedSend(Arc::new(Mutex::new(
            stream.map_err(lost)?,
        ))))))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.link.connection.close(var_int(code.value()), reason);
    }
}

/// A request's stream.
pub(super) struct Bidi<B: Buf> {
    send: SendHalf<B>,
    recv: RecvHalf,
}

impl<B: Buf> Bidi<B> {
    fn new(send: quinn::SendStream, recv: quinn::RecvStream, link: Link) -> Self {
        let shared = SharedSend(Arc::new(Mutex::new(send)));
        Self {
            recv: RecvHalf::new(recv, link, Guard::request(), Some(shared.clone())),
            send: SendHalf::new(shared),
        }
    }

    /// The sending half, for the connection's task.
    pub(super) fn sending(&self) -> SharedSend {
        self.send.stream.clone()
    }
}

impl<B: Buf> quic::BidiStream<B> for Bidi<B> {
    type SendStream = SendHalf<B>;
    type RecvStream = RecvHalf;

    fn split(self) -> (SendHalf<B>, RecvHalf) {
        (self.send, self.recv)
    }
}

impl<B: Buf> quic::SendStream<B> for Bidi<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl<B: Buf> quic::RecvStream for Bidi<B> {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

/// The sending half as h3 uses it: for the heads of replies and the control stream.
pub(super) struct SendHalf<B: Buf> {
    stream: SharedSend,
    writing: Option<WriteBuf<B>>,
}

impl<B: Buf> SendHalf<B> {
    fn new(stream: SharedSend) -> Self {
        Self {
            stream,
            writing: None,
        }
    }
}

impl<B: Buf> quic::SendStream<B> for SendHalf<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = self.writing.as_mut().filter(Buf::has_remaining) {
            let written = Pin::new(&mut *self.stream.lock()).poll_write(cx, data.chunk());
            data.advance(ready!(written).map_err(write_error)?);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let reason = "a frame was begun before the last was written".to_owned();
            return Err(StreamErrorIncoming::ConnectionErrorIncoming {
                connection_error: ConnectionErrorIncoming::InternalError(reason),
            });
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = self.stream.lock().finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, reset_code: u64) {
        // An error means that the stream has ended already.
        let _: Result<_, _> = self.stream.lock().reset(var_int(reset_code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.lock().id())
    }
}

/// The receiving half, with its guard.
pub(super) struct RecvHalf {
    stream: quinn::RecvStream,
    link: Link,
    guard: Guard,
    /// The other half of a request's stream, which is reset when the request is malformed.
    send: Option<SharedSend>,
    ended: bool,
    /// How much of a field section is held that has come in part.
    held: usize,
}

impl RecvHalf {
    fn new(stream: quinn::RecvStream, link: Link, guard: Guard, send: Option<SharedSend>) -> Self {
        Self {
            stream,
            link,
            guard,
            send,
            ended: false,
            held: 0,
        }
    }

    /// Has the next bytes looked at, and what they cost beside.
    fn look_at(&mut self, bytes: Bytes) -> Result<Bytes, Violation> {
        let bytes = self.guard.feed(bytes)?;
        let (held, others) = (self.guard.held(), self.guard.take_others());
        if held != self.held || others > 0 {
            let before = std::mem::replace(&mut self.held, held);
            let mut load = self.link.load();
            let counted = load.half_sent(before, held);
            counted
                .and_then(|()| load.frames(others, clock::now()))
                .map_err(Violation::Passed)?;
        }
        Ok(bytes)
    }

    fn refuse(&mut self, violation: Violation) -> StreamErrorIncoming {
        tracing::debug!("HTTP/3 peer refused: {violation}");
        self.ended = true;
        match violation {
            Violation::ExcessiveLoad { .. } => StreamErrorIncoming::ConnectionErrorIncoming {
                connection_error: self.link.close(violation, Limit::Http3FrameBytes),
            },
            Violation::Passed(limit) => StreamErrorIncoming::ConnectionErrorIncoming {
                connection_error: self.link.close(violation, limit),
            },
            Violation::Malformed(_) => {
                let code = Code::H3_MESSAGE_ERROR.value();
                // Errors mean that the halves have ended already.
                let _: Result<_, _> = self.stream.stop(var_int(code));
                if let Some(send) = &self.send {
                    let _: Result<_, _> = send.lock().reset(var_int(code));
                }
                StreamErrorIncoming::StreamTerminated { error_code: code }
            }
        }
    }
}

impl quic::RecvStream for RecvHalf {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            let chunk = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx));
            let Some(chunk) = chunk.map_err(read_error)? else {
                self.ended = true;
                if self.guard.may_end() {
                    return Poll::Ready(Ok(None));
                }
                // RFC 9114 7.1; h3 would take a body that is cut for a whole one.
                let error_code = Code::H3_FRAME_ERROR.value();
                return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
            };
            match self.look_at(chunk.bytes) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Ok(Some(bytes))),
                Err(violation) => return Poll::Ready(Err(self.refuse(violation))),
            }
        }
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.ended = true;
        // An error means that the stream has ended already.
        let _: Result<_, _> = self.stream.stop(var_int(error_code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        // RFC 9114 4.1: a server that needs no more of a request says so with H3_NO_ERROR, which
        // clients must not take for a failure of the response.
        if !self.ended {
            quic::RecvStream::stop_sending(self, Code::H3_NO_ERROR.value());
        }
        if self.held > 0 {
            // Less is never too much.
            let _: Result<_, _> = self.link.load().half_sent(self.held, 0);
        }
    }
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("quinn numbers streams as QUIC does")
}

pub(in crate::net) fn var_int(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose {
                error_code: close.error_code.into(),
            }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn lost(error: quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: connection_error(error),
    }
}

fn read_error(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        ReadError::ConnectionLost(error) => lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        WriteError::ConnectionLost(error) => lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
