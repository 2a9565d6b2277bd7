//! The sending half of an HTTP/2 stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;

use crate::net::sink::{Gone, Sink};

impl Sink for SendStream<Bytes> {
    // h2 wakes streams when it reads frames and when capacity is reserved.
    const OWN_WAKES: bool = true;

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while self.capacity() == 0 {
            // One byte is enough to know that there is a window, and keeps none from others.
            self.reserve_capacity(1);
            if self.capacity() > 0 {
                break;
            }
            match ready!(self.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                _ => return Poll::Ready(Err(Gone)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        chunk: &mut Bytes,
        last: bool,
    ) -> Poll<Result<(), Gone>> {
        // h2 holds what is over the window: no more than this chunk, as there is no room then.
        // Only the end of a stream may be an empty frame: clients count them.
        let sent = if chunk.is_empty() && !last {
            Ok(())
        } else {
            self.send_data(std::mem::take(chunk), last)
        };
        Poll::Ready(sent.map_err(|_| Gone))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Asked for now, the byte is there when the next event comes.
        self.reserve_capacity(1);
        self.poll_reset(cx).map(|_| ())
    }

    fn abort(&mut self) {
        self.send_reset(h2::Reason::CANCEL);
    }
}
