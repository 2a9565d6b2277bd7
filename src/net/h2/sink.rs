//! The sending half of an HTTP/2 stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;

use crate::{
    hub::Wire,
    net::sink::{Gone, Sink},
};

/// What is handed to h2 at a time: it holds no more than this over the window, and each is progress
/// that can be seen.
const SLICE: usize = 16 << 10;

/// Writes a body as DATA frames.
pub(super) struct Http2Sink {
    stream: SendStream<Bytes>,
    progress: bool,
}

impl Http2Sink {
    pub(super) fn new(stream: SendStream<Bytes>) -> Self {
        Self {
            stream,
            progress: false,
        }
    }
}

impl Sink for Http2Sink {
    // h2 wakes streams when it reads frames and when capacity is reserved.
    const OWN_WAKES: bool = true;

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        // h2 itself sends what it was handed.
        Poll::Ready(Ok(()))
    }

    fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Gone>> {
        if self.stream.capacity() < want {
            // One byte is enough to know that there is a window. More is kept from others until it is
            // sent, or given back in `poll_gone`.
            self.stream.reserve_capacity(want);
        }
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                _ => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(self.stream.capacity()))
    }

    fn begin(&mut self, wire: Wire) -> Bytes {
        wire.payload()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
        last: bool,
    ) -> Poll<Result<(), Gone>> {
        // Only the end of a stream may be an empty frame: clients count them.
        if chunk.is_empty() && last {
            let sent = self.stream.send_data(Bytes::new(), true);
            return Poll::Ready(sent.map_err(|_| Gone));
        }
        while !chunk.is_empty() {
            ready!(self.poll_room(cx, 1))?;
            let slice = chunk.split_to(chunk.len().min(SLICE));
            self.progress = true;
            let end = last && chunk.is_empty();
            self.stream.send_data(slice, end).map_err(|_| Gone)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Asked for now, the byte is there when the next event comes.
        self.stream.reserve_capacity(1);
        self.stream.poll_reset(cx).map(|_| ())
    }

    fn abort(&mut self) {
        self.stream.send_reset(h2::Reason::CANCEL);
    }
}
