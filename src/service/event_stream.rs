//! One EventSource response: what it says, and when. The drivers only pump it.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::json;

use super::{
    Context,
    streams::{Ended, Registration},
};
use crate::{
    exchange::{Beat, CHUNK, EventBody, Output, Seat},
    hub::{Chunk, Found, Next, StreamHandle, Subscription},
    metrics::OpenGuard,
    sse::{self, Draft},
};

/// An open event stream.
pub(super) struct EventStream {
    // Before `subscription`: whoever finds the stream registered finds its place in the mailbox.
    counted: Counted,
    subscription: Subscription,
    opening: Option<Bytes>,
    /// What the client is told to wait when its stream is ended before its time.
    retry: Duration,
    /// When a keepalive is due.
    beat: Beat,
    /// When to end, and what to tell the client to wait before it comes back.
    ending: Option<(Instant, Duration)>,
    /// The end of the token that it was opened with.
    token_end: Option<Instant>,
    /// What it was asked for that few are.
    extras: Option<Box<Extras>>,
    /// What the rings do not hold any more is being found.
    reading: Option<Reading>,
    context: Arc<Context>,
    /// The client was told of its token's end.
    token_told: bool,
    /// A client that polls was given events.
    answered: bool,
    /// The last events were taken.
    parting: bool,
    /// Its user was disconnected ([`Next::Ended`]).
    disconnected: bool,
}

// There are a hundred thousand of them: one more byte is a larger class of the allocator.
const _: () = assert!(size_of::<EventStream>() <= 320);

/// What few streams are asked for: kept apart, so that it costs the others nothing.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// For a client that polls: when it is answered even if there is nothing.
    pub(super) poll_until: Option<Instant>,
    /// Its keepalives are events.
    pub(super) heartbeat: bool,
    /// What was replayed so far, which is told at its end.
    pub(super) replay: Option<Replay>,
    /// When to end because of its age, if nothing is replayed then.
    pub(super) age_end: Option<Instant>,
}

/// What was replayed.
#[derive(Debug)]
pub(super) struct Replay {
    events: u64,
    /// How many were told of as missing, if that is known.
    missed: Option<u64>,
}

impl Default for Replay {
    fn default() -> Self {
        let missed = Some(0);
        Self { events: 0, missed }
    }
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was told to ([`EventBody::end_at`]), and what its client is to wait.
    Told(Duration),
    /// It is not its client's to read any more.
    Revoked,
    /// Nothing more is to come on any of its topics.
    Finished,
    /// It is old enough.
    Aged,
    /// The poll is answered.
    Answered,
}

type Reading = Pin<Box<dyn Future<Output = Option<Found>> + Send>>;

/// What holds a stream's place among the open ones.
pub(super) struct Counted {
    pub(super) _open: OpenGuard,
    pub(super) _place: Option<Seat>,
    pub(super) registration: Registration,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

impl EventStream {
    /// A stream that begins with `opening` and tells its client to wait `retry` when it is ended.
    pub(super) fn new(
        subscription: Subscription,
        opening: Bytes,
        retry: Duration,
        token_end: Option<Instant>,
        now: Instant,
        context: Arc<Context>,
        counted: Counted,
    ) -> Self {
        Self {
            beat: Beat::of(subscription.handle(), context.events.keepalive, now),
            counted,
            subscription,
            opening: Some(opening),
            retry,
            ending: None,
            token_end,
            extras: None,
            reading: None,
            context,
            token_told: false,
            answered: false,
            parting: false,
            disconnected: false,
        }
    }

    /// Has it do what few streams do.
    pub(super) fn with(mut self, extras: Extras) -> Self {
        self.extras = Some(Box::new(extras));
        self
    }

    /// The next events; whoever asks how far the stream is behind sees how far it has come.
    fn take_settled(&mut self, room: usize) -> Option<Chunk> {
        let replays = !self.subscription.has_caught_up();
        let chunk = self.take(room);
        if replays
            && let Some(chunk) = &chunk
            && let Some(replay) = self.extras.as_mut().and_then(|e| e.replay.as_mut())
        {
            replay.events += chunk.events;
            let both = replay.missed.zip(chunk.missed);
            replay.missed = both.map(|(before, now)| before + now);
        }
        self.counted
            .registration
            .settled(self.subscription.settled());
        chunk
    }

    /// The next events. Those that the rings have let go of are found meanwhile: the stream's waker
    /// tells when they are there.
    fn take(&mut self, room: usize) -> Option<Chunk> {
        loop {
            let next = match &mut self.reading {
                None => self.subscription.next(room.min(CHUNK)),
                Some(_) if self.subscription.is_ended() => Next::Ended,
                Some(reading) => {
                    let waker = self.subscription.handle().waker_from_outside();
                    let mut cx = task::Context::from_waker(&waker);
                    let Poll::Ready(found) = reading.as_mut().poll(&mut cx) else {
                        return None;
                    };
                    self.reading = None;
                    self.subscription.answer(found)
                }
            };
            match next {
                Next::Chunk(chunk) => return Some(chunk),
                Next::Ask(ask) => {
                    let order = self.context.order.clone();
                    self.reading = Some(Box::pin(async move { order.read(ask).await }));
                }
                Next::Ended => {
                    self.disconnected = true;
                    return None;
                }
                Next::Nothing if self.subscription.is_current() => return None,
                // None of what was looked at was for it: on to what is left.
                Next::Nothing => {}
            }
        }
    }

    /// Why it ends, if it is time for that.
    fn end(&self, now: Instant) -> Option<End> {
        if let Some((at, retry)) = self.ending
            && at <= now
        {
            return Some(End::Told(retry));
        }
        if self.is_revoked(now) {
            return Some(End::Revoked);
        }
        if self.age_end().is_some_and(|end| end <= now) {
            return Some(End::Aged);
        }
        if self.subscription.is_finished() {
            return Some(End::Finished);
        }
        let until = self.poll_until()?;
        let over = until <= now || (self.answered && self.subscription.is_current());
        over.then_some(End::Answered)
    }

    /// The last bytes.
    fn last(&self, end: End) -> Bytes {
        match end {
            End::Told(retry) => sse::retry(retry).into(),
            End::Revoked if self.counted.registration.ended() == Some(Ended::Login) => {
                let data = json!({ "reason": "changed" }).to_string();
                Draft::new(Some("edge-auth"), &data, Some(self.retry)).finish_without_id()
            }
            End::Revoked | End::Finished => sse::retry(self.retry).into(),
            End::Aged => {
                self.context.metrics.aged.inc();
                sse::retry(self.retry).into()
            }
            End::Answered => sse::comment(),
        }
    }

    fn poll_until(&self) -> Option<Instant> {
        self.extras.as_ref()?.poll_until
    }

    /// When it ends because of its age: not while something is replayed.
    fn age_end(&self) -> Option<Instant> {
        let end = self.extras.as_ref()?.age_end;
        end.filter(|_| self.subscription.has_caught_up())
    }

    /// Whether it is still to be told that the replay is over.
    fn owes_sync(&self) -> bool {
        self.extras.as_ref().is_some_and(|e| e.replay.is_some())
    }

    fn sync_notice(&mut self) -> Option<Bytes> {
        if !self.owes_sync() || !self.subscription.has_caught_up() {
            return None;
        }
        let Replay { events, missed } = self.extras.as_mut()?.replay.take()?;
        let data = json!({ "replayed": events, "missed": missed });
        Some(Draft::new(Some("edge-sync"), &data.to_string(), None).finish_without_id())
    }

    fn sends_heartbeats(&self) -> bool {
        self.extras.as_ref().is_some_and(|e| e.heartbeat)
    }

    fn is_revoked(&self, now: Instant) -> bool {
        self.disconnected
            || self.token_end.is_some_and(|end| end <= now)
            || self.counted.registration.ended().is_some()
    }

    fn token_notice(&mut self, now: Instant) -> Option<Bytes> {
        let end = self.token_end.filter(|_| !self.token_told)?;
        let left = end.saturating_duration_since(now);
        if left > self.context.access.expiry_notice() || left.is_zero() {
            return None;
        }
        self.token_told = true;
        let data = json!({ "reason": "expiring", "seconds": left.as_secs() });
        Some(Draft::new(Some("edge-auth"), &data.to_string(), None).finish_without_id())
    }
}

impl EventBody for EventStream {
    fn handle(&self) -> &StreamHandle {
        self.subscription.handle()
    }

    fn end_at(&mut self, at: Instant, retry: Duration) {
        self.ending.get_or_insert((at, retry));
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.opening.is_none()
            && self.subscription.is_current()
            && !self.owes_sync()
            && self.end(now).is_none()
    }

    fn deadline(&self) -> Instant {
        let ending = self.ending.map(|(at, _)| at);
        let token = self.token_end.map(|end| {
            let notice = self.context.access.expiry_notice();
            let told = end.checked_sub(notice).filter(|_| !self.token_told);
            told.unwrap_or(end)
        });
        let all = [ending, token, self.poll_until(), self.age_end()];
        let all = all.into_iter().flatten();
        all.fold(self.beat.due(), Instant::min)
    }

    fn keepalive(&self) -> Duration {
        self.context.events.keepalive
    }

    fn next(&mut self, now: Instant, slack: Duration, room: usize) -> Output {
        if let Some(opening) = self.opening.take() {
            return Output::Chunk(opening);
        }
        if let Some(notice) = self.token_notice(now) {
            self.beat.pass(self.keepalive(), now);
            return Output::Chunk(notice);
        }
        if let Some(notice) = self.sync_notice() {
            self.beat.pass(self.keepalive(), now);
            return Output::Chunk(notice);
        }
        let ends = self.end(now);
        // At its end a stream takes along what is there, but a backlog does not keep it open; and
        // what comes after its token's end, or an operator's word, is not for it.
        let parted = std::mem::replace(&mut self.parting, ends.is_some());
        if !parted
            && !self.is_revoked(now)
            && let Some(chunk) = self.take_settled(room)
        {
            self.beat.pass(self.keepalive(), now);
            self.answered = true;
            return Output::Events(chunk.wire, chunk.events);
        }
        // Looking for events may have shown that there are no more: a poll is over then.
        if let Some(end) = ends.or_else(|| self.end(now)) {
            return Output::Last(self.last(end));
        }
        if self.beat.due() <= now + slack {
            self.beat.keep(self.keepalive(), now);
            self.context.metrics.keepalives.inc();
            return Output::Chunk(if self.sends_heartbeats() {
                sse::ping()
            } else {
                sse::comment()
            });
        }
        Output::Wait(self.deadline())
    }
}
