//! One EventSource response: what it says, and when. The drivers only pump it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    hub::{StreamHandle, Subscription},
    metrics::{Metrics, OpenGuard},
    sse,
};

/// The most bytes of events in one chunk: a TLS record.
const CHUNK: usize = 16 << 10;

/// An open event stream.
pub struct EventStream {
    subscription: Subscription,
    opening: Option<Bytes>,
    keepalive: Duration,
    /// When a comment is due if nothing else is sent.
    due: Instant,
    /// The last events were taken.
    parting: bool,
    /// When to end, and what to tell the client to wait before it comes back.
    ending: Option<(Instant, Duration)>,
    metrics: Arc<Metrics>,
    _counted: Counted,
}

/// What holds a stream's place among the open ones.
pub(super) struct Counted {
    pub(super) _open: OpenGuard,
    pub(super) _place: super::Place,
}

/// What a stream has to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Bytes to write, and how many publishers' events they hold.
    Chunk(Bytes, u64),
    /// The last bytes of the stream.
    Last(Bytes),
    /// Nothing until the mailbox says so, or this moment comes.
    Wait(Instant),
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

impl EventStream {
    /// `random` (0..1) spreads the keepalives of streams that began together.
    pub(super) fn new(
        subscription: Subscription,
        opening: Bytes,
        keepalive: Duration,
        now: Instant,
        random: f64,
        metrics: Arc<Metrics>,
        counted: Counted,
    ) -> Self {
        Self {
            subscription,
            opening: Some(opening),
            keepalive,
            due: now + keepalive.mul_f64(0.5 + random / 2.0),
            parting: false,
            ending: None,
            metrics,
            _counted: counted,
        }
    }

    /// Its place in the connection's mailbox.
    #[must_use]
    pub fn handle(&self) -> &StreamHandle {
        self.subscription.handle()
    }

    /// Has the stream end at `at`, telling its client to come back after `retry`.
    pub fn end_at(&mut self, at: Instant, retry: Duration) {
        self.ending.get_or_insert((at, retry));
    }

    /// Until when there is nothing to write, if there is nothing now: a cheap look before room
    /// is asked for.
    #[must_use]
    pub fn quiet_until(&self, now: Instant, slack: Duration) -> Option<Instant> {
        let at = self.ending.map_or(self.due, |(at, _)| at.min(self.due));
        let quiet = self.opening.is_none() && self.subscription.is_current() && at > now + slack;
        quiet.then_some(at)
    }

    /// What to write now.
    ///
    /// A comment that would be due within an eighth of the interval is sent at once when `now` is
    /// a deadline that the connection waited for, so that its streams share their wake-ups: the
    /// caller passes `slack`.
    pub fn next(&mut self, now: Instant, slack: Duration) -> Next {
        if let Some(opening) = self.opening.take() {
            return Next::Chunk(opening, 0);
        }
        let ends = self.ending.is_some_and(|(at, _)| at <= now);
        // At its end a stream takes along what is there, but a backlog does not keep it open.
        if !std::mem::replace(&mut self.parting, ends)
            && let Some(chunk) = self.subscription.next(CHUNK)
        {
            self.due = now + self.keepalive;
            return Next::Chunk(chunk.wire, chunk.events);
        }
        if let Some((at, retry)) = self.ending
            && at <= now
        {
            return Next::Last(sse::retry(retry).into());
        }
        if self.due <= now + slack {
            self.due = now + self.keepalive;
            self.metrics.keepalives.inc();
            return Next::Chunk(sse::comment(), 0);
        }
        Next::Wait(self.ending.map_or(self.due, |(at, _)| at.min(self.due)))
    }

    /// How long before its time a comment may be sent.
    #[must_use]
    pub fn slack(&self) -> Duration {
        self.keepalive / 8
    }
}
