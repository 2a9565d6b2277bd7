//! The sending half of an HTTP/2 stream.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use crate::{
    hub::Wire,
    net::sink::{Ended, Gone, Sink},
};

/// What is handed to h2 at a time: it holds no more than this over the window, and each is progress
/// that can be seen.
const SLICE: usize = 16 << 10;

/// How much of the connection's window an event stream keeps while it has nothing to say, if it may:
/// enough for a few events, so that h2 is not asked for each.
const RESERVE: usize = 2 << 10;
/// It is topped up when less than this is left of it.
const LOW: usize = RESERVE / 4;

/// The event streams of a connection that may keep a reserve. Together they keep an eighth of the
/// connection's window at most, for what one stream keeps no other can send.
pub(super) struct Reserves(Arc<()>);

/// May keep a reserve.
pub(super) struct Reserve(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Reserves {
    pub(super) fn new() -> Self {
        Self(Arc::new(()))
    }

    /// A reserve for one more stream, if the `window` is large enough.
    pub(super) fn take(&self, window: u64) -> Option<Reserve> {
        // This one is a holder of the count too.
        let reserves = Arc::strong_count(&self.0);
        ((reserves * RESERVE) as u64 <= window / 8).then(|| Reserve(self.0.clone()))
    }
}

/// Writes a body as DATA frames.
pub(super) struct Http2Sink {
    stream: SendStream<Bytes>,
    progress: bool,
    reserve: Option<Reserve>,
    /// How much h2 was seen to have room for, less what was sent since.
    room: u32,
}

impl Http2Sink {
    pub(super) fn new(stream: SendStream<Bytes>, reserve: Option<Reserve>) -> Self {
        Self {
            stream,
            progress: false,
            reserve,
            room: 0,
        }
    }

    fn ask(&mut self, bytes: usize) {
        self.stream.reserve_capacity(bytes);
        self.look();
    }

    /// Sees how much h2 has room for.
    fn look(&mut self) {
        self.room = u32::try_from(self.stream.capacity()).unwrap_or(u32::MAX);
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
        if (self.room as usize) < want {
            // What is not sent after all is given back in `rest`.
            self.ask(want);
        }
        while self.room == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => self.look(),
                _ => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(self.room as usize))
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
            self.room = self.room.saturating_sub(slice.len() as u32);
            let end = last && chunk.is_empty();
            self.stream.send_data(slice, end).map_err(|_| Gone)?;
        }
        Poll::Ready(Ok(()))
    }

    fn trailers(&mut self, fields: HeaderMap) -> Result<Ended, Gone> {
        let sent = self.stream.send_trailers(fields);
        sent.map(|()| Ended::Yes).map_err(|_| Gone)
    }

    fn rest(&mut self) {
        // One byte is enough to know that there is a window. Asked for now, it is there when the next
        // event comes.
        let (low, reserve) = match self.reserve {
            Some(_) => (LOW, RESERVE),
            None => (1, 1),
        };
        if !(low..=reserve).contains(&(self.room as usize)) {
            self.ask(reserve);
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }

    fn abort(&mut self) {
        self.stream.send_reset(h2::Reason::CANCEL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserves_take_an_eighth_of_the_window() {
        let reserves = Reserves::new();
        let window = 8 * 3 * RESERVE as u64;
        assert!(reserves.take(8 * RESERVE as u64 - 1).is_none());
        let mut taken: Vec<_> = (0..3).map(|_| reserves.take(window)).collect();
        assert!(taken.iter().all(Option::is_some));
        assert!(reserves.take(window).is_none());
        taken.pop();
        assert!(reserves.take(window).is_some());
    }
}
