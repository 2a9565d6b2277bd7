//! What one browser gets of a feed. The drivers only pump it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;

use super::feed::Reader;
use crate::{
    exchange::{Beat, CHUNK, EventBody, Output, Seat},
    hub::{Next, StreamHandle, Subscription},
    metrics::OpenGuard,
    sse,
};

/// An open event stream of an app.
pub(super) struct RelayStream {
    pub(super) reader: Reader,
    pub(super) subscription: Subscription,
    pub(super) opening: Option<Bytes>,
    /// How long it may be quiet.
    pub(super) keepalive: Duration,
    /// When a comment is due.
    pub(super) beat: Beat,
    /// When to end, and what to tell the client to wait before it comes back.
    pub(super) ending: Option<(Instant, Duration)>,
    pub(super) keepalives: Counter,
    pub(super) _place: Seat,
    pub(super) _open: OpenGuard,
}

impl RelayStream {
    /// The last bytes, if it is time for them: what is left of a feed that is over goes before.
    fn end(&self, now: Instant) -> Option<Bytes> {
        let over = self.reader.feed.is_over() && self.subscription.is_current();
        let retry = match self.ending {
            Some((at, retry)) if at <= now => retry,
            _ if over => self.reader.feed.retry(),
            _ => return None,
        };
        Some(sse::retry(retry).into())
    }
}

impl EventBody for RelayStream {
    fn handle(&self) -> &StreamHandle {
        self.subscription.handle()
    }

    fn end_at(&mut self, at: Instant, retry: Duration) {
        self.ending.get_or_insert((at, retry));
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.opening.is_none() && self.subscription.is_current() && self.end(now).is_none()
    }

    fn deadline(&self) -> Instant {
        let due = self.beat.due();
        self.ending.map_or(due, |(at, _)| due.min(at))
    }

    fn keepalive(&self) -> Duration {
        self.keepalive
    }

    fn next(&mut self, now: Instant, slack: Duration, room: usize) -> Output {
        if let Some(opening) = self.opening.take() {
            return Output::Chunk(opening);
        }
        if let Some(last) = self.end(now) {
            return Output::Last(last);
        }
        let next = match self.subscription.next(room.min(CHUNK)) {
            // Nothing of a relay is kept elsewhere.
            Next::Ask(_) => self.subscription.answer(None),
            next => next,
        };
        if let Next::Chunk(chunk) = next {
            self.beat.pass(self.keepalive, now);
            return Output::Events(chunk.wire, chunk.events);
        }
        if let Some(last) = self.end(now) {
            return Output::Last(last);
        }
        if self.beat.due() <= now + slack {
            self.beat.keep(self.keepalive, now);
            self.keepalives.inc();
            return Output::Chunk(sse::comment());
        }
        Output::Wait(self.deadline())
    }
}
