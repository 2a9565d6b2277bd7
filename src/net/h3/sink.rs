//! The sending half of an HTTP/3 stream.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use h3::error::Code;
use http::HeaderMap;

use super::{
    field_section,
    transport::{SharedSend, var_int},
};
use crate::{
    hub::Wire,
    net::sink::{Ended, Gone, Sink},
};

/// Payloads up to this are copied behind their frame's head; events come with theirs.
const SMALL: usize = 2 << 10;
/// The most that is put together for a stream that takes it all.
const ROOM: usize = 16 << 10;
/// The type of a DATA frame (RFC 9114 7.2.1).
const DATA: u8 = 0x0;
/// The type of a HEADERS frame (RFC 9114 7.2.2), of trailers too.
const HEADERS: u8 = 0x1;

/// Writes a body as DATA frames.
pub(super) struct QuicSink {
    stream: SharedSend,
    /// The rest of a frame that was begun. It is always finished before anything else is written,
    /// or the stream is reset: half a frame would end the whole connection.
    unsent: Bytes,
    /// What follows `unsent` in the frame: a large chunk, which other streams share.
    payload: Bytes,
    /// Resolves once the client has left, or has acknowledged the end of the stream.
    stopped: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    finished: bool,
    progress: bool,
    /// How much is worth taking: more each time that all was written, little once it was not.
    room: usize,
}

impl QuicSink {
    pub(super) fn new(stream: SharedSend) -> Self {
        let stopped = stream.lock().stopped();
        Self {
            stream,
            unsent: Bytes::new(),
            payload: Bytes::new(),
            stopped: Box::pin(stopped.map(|_| ())),
            finished: false,
            progress: false,
            room: 1,
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut stream = self.stream.lock();
        while !self.unsent.is_empty() {
            // quinn shares what it takes, and takes from the front.
            let mut parts = [
                std::mem::take(&mut self.unsent),
                std::mem::take(&mut self.payload),
            ];
            let written = pin!(stream.write_chunks(&mut parts)).poll(cx);
            [self.unsent, self.payload] = parts;
            if self.unsent.is_empty() {
                self.unsent = std::mem::take(&mut self.payload);
            }
            match written {
                Poll::Ready(Ok(_)) => self.progress = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                Poll::Pending => {
                    self.room = 1;
                    return Poll::Pending;
                }
            }
        }
        self.room = (2 * self.room).clamp(SMALL, ROOM);
        Poll::Ready(Ok(()))
    }
}

impl Sink for QuicSink {
    // quinn wakes them from its own tasks.
    const OWN_WAKES: bool = false;

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.poll_write(cx)
    }

    fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, _: usize) -> Poll<Result<usize, Gone>> {
        // QUIC tells of no window but by a write; so at most one chunk waits here, the rest in
        // the ring.
        ready!(self.poll_write(cx))?;
        Poll::Ready(Ok(self.room))
    }

    fn begin(&mut self, wire: Wire) -> Bytes {
        // What was begun before is written: there was room.
        self.unsent = wire.framed();
        Bytes::new()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
        last: bool,
    ) -> Poll<Result<(), Gone>> {
        ready!(self.poll_write(cx))?;
        if !chunk.is_empty() {
            (self.unsent, self.payload) = frame(DATA, std::mem::take(chunk));
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

    fn trailers(&mut self, fields: HeaderMap) -> Result<Ended, Gone> {
        // What was begun before is written: trailers are taken when nothing is left to send.
        (self.unsent, self.payload) = frame(HEADERS, field_section::encode(&fields));
        Ok(Ended::NotYet)
    }

    fn rest(&mut self) {
        // It reserves nothing.
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stopped.as_mut().poll(cx)
    }

    fn abort(&mut self) {
        // An error means that the stream has ended already.
        let code = var_int(Code::H3_REQUEST_CANCELLED.value());
        let _: Result<_, _> = self.stream.lock().reset(code);
        self.unsent = Bytes::new();
    }
}

impl Drop for QuicSink {
    fn drop(&mut self) {
        if !self.unsent.is_empty() {
            self.abort();
        }
    }
}

/// A frame (RFC 9114 7.1) in two parts: small payloads go along with the head, large ones stay shared.
fn frame(kind: u8, payload: Bytes) -> (Bytes, Bytes) {
    let along = payload.len() <= SMALL;
    let mut head = BytesMut::with_capacity(9 + if along { payload.len() } else { 0 });
    head.put_u8(kind);
    let len = payload.len() as u64;
    match len {
        0..0x40 => head.put_u8(len as u8),
        0x40..0x4000 => head.put_u16(len as u16 | 0x4000),
        0x4000..0x4000_0000 => head.put_u32(len as u32 | 0x8000_0000),
        _ => head.put_u64(len | 0xc000_0000_0000_0000),
    }
    if along {
        head.extend_from_slice(&payload);
        return (head.freeze(), Bytes::new());
    }
    (head.freeze(), payload)
}
