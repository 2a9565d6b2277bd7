//! What the outbox needs of a stream of HTTP/2 or HTTP/3.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use crate::hub::Wire;

/// The sending half of one stream of the protocol.
pub(super) trait Sink {
    /// Whether the stream's waker is called by this connection's task alone. Then what a visit
    /// itself sets off is no reason for another.
    const OWN_WAKES: bool;

    /// Writes out what was begun. Until it is ready nothing else may be looked at: the stream's
    /// waker is spent when flow control opens, and would not come again for what is left.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// Whether bytes of the body were taken since this was last asked, begun parts counted as far as
    /// they went.
    fn take_progress(&mut self) -> bool;

    /// Ready when flow control has room for anything at all. How much is worth taking then: `want`
    /// bytes if there is room for so much.
    fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Gone>>;

    /// Begins to send events. Returns what is left to [`send`](Self::poll_send).
    fn begin(&mut self, wire: Wire) -> Bytes;

    /// Sends `chunk` as far as flow control lets it, and takes what was sent from its front. Ready
    /// once all of it is sent; with `last`, once the stream is ended too.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
        last: bool,
    ) -> Poll<Result<(), Gone>>;

    /// Ends the body with these fields. All of it is sent before.
    fn trailers(&mut self, fields: HeaderMap) -> Result<Ended, Gone>;

    /// There is nothing to send just now: how much of the connection's window it may keep from others
    /// until there is.
    fn rest(&mut self);

    /// Ready once the client has left the stream. Else the waker is left behind, until it is called.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Resets the stream.
    fn abort(&mut self);
}

/// Whether a stream is ended once its trailers were begun.
#[derive(Debug)]
pub(super) enum Ended {
    Yes,
    /// [`Sink::poll_send`] ends it.
    NotYet,
}

/// The stream or its connection is no more.
#[derive(Debug)]
pub(super) struct Gone;
