//! Moves the bodies of a connection's replies into its streams, for HTTP/2 and HTTP/3 alike.
//!
//! All of it happens in the connection's one task. A stream is visited when the mailbox names it:
//! because an event was published to it, its flow control found room, its client left, or the
//! body's producer has more. Nothing here waits: what cannot go on leaves its stream's waker.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use super::{
    deadline::Deadline,
    listening::Listening,
    sink::{Gone, Sink},
};
use crate::{
    backoff, clock,
    exchange::{Body, BodyError, EventBody, Output},
    hub::{StreamHandle, mailbox::Mailbox},
    limits::Limit,
    protocol::Protocol,
};
use bytes::Bytes;

/// The most one stream writes before the others get their turn.
const TURN: usize = 64 << 10;

/// The replies of one connection that are being sent.
pub(super) struct Outbox<S> {
    listening: Arc<Listening>,
    protocol: Protocol,
    mailbox: Arc<Mailbox>,
    /// By the key of the stream in the mailbox.
    slots: Vec<Option<Box<Outgoing<S>>>>,
    open: usize,
    ready: VecDeque<u32>,
    taken: Vec<u32>,
    /// The next moment at which a stream has something to say without being told.
    deadline: Option<Instant>,
    timer: Deadline,
    /// The deadline has come: comments that are nearly due may go along.
    due: bool,
    draining: bool,
    wrote: u64,
}

struct Outgoing<S> {
    sink: S,
    body: Body,
    /// The place in the mailbox of a body that is not an event stream, which has its own.
    _handle: Option<StreamHandle>,
    waker: Waker,
    /// What was taken from the body and not sent yet.
    pending: Bytes,
    /// `pending` is the end of the body.
    last: bool,
    /// Since when flow control has no room for it.
    blocked: Option<Instant>,
    /// Invariant: the key is in `ready`.
    queued: bool,
}

/// What became of a visit.
enum Visited {
    /// The stream waits for its waker.
    Waits,
    /// It used up its turn.
    TurnOver,
    /// It is finished, or its client is gone.
    Done,
    /// Its client has made no room for it for too long.
    Stalled,
    /// The rest of its body is not to be had.
    CutShort,
}

impl<S: Sink> Outbox<S> {
    pub(super) fn new(
        listening: Arc<Listening>,
        protocol: Protocol,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        Self {
            listening,
            protocol,
            mailbox,
            slots: Vec::new(),
            open: 0,
            ready: VecDeque::new(),
            taken: Vec::new(),
            deadline: None,
            timer: Deadline::new(),
            due: false,
            draining: false,
            wrote: 0,
        }
    }

    /// Whether nothing is being sent.
    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// How many bytes of bodies were sent.
    pub(super) fn wrote(&self) -> u64 {
        self.wrote
    }

    /// Begins to send `body`.
    pub(super) fn insert(&mut self, sink: S, mut body: Body) {
        let handle = match &body {
            Body::Events(_) => None,
            _ => Some(self.mailbox.open()),
        };
        if self.draining
            && let Body::Events(stream) = &mut body
        {
            stream.end_at(clock::now(), self.listening.context().drain_retry());
        }
        let (key, waker) = match (&handle, &body) {
            (Some(handle), _) => (handle.key(), handle.waker()),
            (None, Body::Events(stream)) => (stream.handle().key(), stream.handle().waker()),
            (None, _) => unreachable!("every other body was given a handle"),
        };
        let index = key as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Box::new(Outgoing {
            sink,
            body,
            _handle: handle,
            waker,
            pending: Bytes::new(),
            last: false,
            blocked: None,
            queued: false,
        }));
        self.open += 1;
        self.enqueue(key);
    }

    /// Has every event stream end within the spread, each at a moment of its own.
    pub(super) fn drain(&mut self, now: Instant) {
        self.draining = true;
        for slot in self.slots.iter_mut().flatten() {
            if let Body::Events(stream) = &mut slot.body {
                let at =
                    now + backoff::within(self.listening.context().drain_spread, fastrand::f64());
                stream.end_at(at, self.listening.context().drain_retry());
                self.deadline = sooner(self.deadline, at);
            }
        }
    }

    fn enqueue(&mut self, key: u32) {
        if let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut)
            && !std::mem::replace(&mut slot.queued, true)
        {
            self.ready.push_back(key);
        }
    }

    fn take_marks(&mut self, cx: &mut Context<'_>) {
        let mut taken = std::mem::take(&mut self.taken);
        self.mailbox.take_ready(cx.waker(), &mut taken);
        for key in taken.drain(..) {
            self.enqueue(key);
        }
        self.taken = taken;
    }

    fn remove(&mut self, key: u32) {
        self.slots[key as usize] = None;
        self.open -= 1;
    }

    /// Lets go of streams whose clients have left: their places are for those who come. To be
    /// called before new requests are answered.
    pub(super) fn reap(&mut self, cx: &mut Context<'_>) {
        self.take_marks(cx);
        for at in 0..self.ready.len() {
            let key = self.ready[at];
            let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut) else {
                continue;
            };
            let mut cx = Context::from_waker(&slot.waker);
            if slot.sink.poll_gone(&mut cx).is_ready() {
                self.remove(key);
            }
        }
    }

    /// Lets streams write, about `budget` bytes. Returns how many were written.
    pub(super) fn run(&mut self, cx: &mut Context<'_>, budget: usize) -> usize {
        self.take_marks(cx);
        if self.ready.is_empty() {
            return 0;
        }
        let now = clock::now();
        let (mut wrote, mut delivered) = (0, 0);
        while wrote < budget
            && let Some(key) = self.ready.pop_front()
        {
            let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut) else {
                continue;
            };
            slot.queued = false;
            let mut visit = Visit {
                now,
                due: self.due,
                stall: self.listening.context().limits.stall.value,
                wrote: 0,
                delivered: 0,
                deadline: None,
            };
            // Other bodies may be woken from anywhere.
            if S::OWN_WAKES && matches!(slot.body, Body::Events(_)) {
                self.mailbox.mute(key);
            }
            let visited = visit.stream(slot);
            self.mailbox.unmute();
            wrote += visit.wrote;
            delivered += visit.delivered;
            if let Some(at) = visit.deadline {
                self.deadline = sooner(self.deadline, at);
            }
            match visited {
                Visited::Waits => {}
                Visited::TurnOver => self.enqueue(key),
                Visited::Done => self.remove(key),
                Visited::CutShort => {
                    slot.sink.abort();
                    self.remove(key);
                }
                Visited::Stalled => {
                    self.listening.context().hits.count(Limit::Stall);
                    slot.sink.abort();
                    self.remove(key);
                }
            }
        }
        self.listening.delivered(self.protocol, delivered);
        self.wrote += wrote as u64;
        wrote
    }

    /// Whether streams are ready that [`run`](Self::run) had no budget for.
    pub(super) fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Waits for the deadline of the streams, or `also` if that is earlier. Ready means that it
    /// has come, and that streams may have become ready.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>, also: Option<Instant>) -> Poll<()> {
        let at = [self.deadline, also].into_iter().flatten().min();
        let Some(at) = at else { return Poll::Pending };
        ready!(self.timer.poll(cx, at));
        if self
            .deadline
            .is_some_and(|deadline| deadline <= clock::now())
        {
            // Every stream says anew when it wants to be asked next.
            self.deadline = None;
            self.due = true;
            for key in 0..self.slots.len() {
                self.enqueue(key as u32);
            }
        }
        Poll::Ready(())
    }

    /// To be called once [`run`](Self::run) has visited all that the deadline made ready.
    pub(super) fn deadline_handled(&mut self) {
        self.due = false;
    }
}

fn sooner(deadline: Option<Instant>, at: Instant) -> Option<Instant> {
    Some(deadline.map_or(at, |deadline| deadline.min(at)))
}

struct Visit {
    now: Instant,
    due: bool,
    stall: Duration,
    wrote: usize,
    delivered: u64,
    deadline: Option<Instant>,
}

impl Visit {
    fn stream<S: Sink>(&mut self, slot: &mut Outgoing<S>) -> Visited {
        let Outgoing {
            sink,
            body,
            waker,
            pending,
            last,
            blocked,
            ..
        } = slot;
        let mut cx = Context::from_waker(waker);
        loop {
            if self.wrote >= TURN {
                return Visited::TurnOver;
            }
            if pending.is_empty() && !*last {
                if let Some(at) = self.quiet_until(body) {
                    self.wait_until(at);
                    return match sink.poll_gone(&mut cx) {
                        Poll::Ready(()) => Visited::Done,
                        Poll::Pending => Visited::Waits,
                    };
                }
                // Nothing is taken from the ring before there is room for it.
                match sink.poll_room(&mut cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(Gone)) => return Visited::Done,
                    Poll::Pending => return self.blocked(blocked),
                }
                match self.take(body, &mut cx) {
                    Poll::Ready(Ok((chunk, end))) => (*pending, *last) = (chunk, end),
                    Poll::Ready(Err(error)) => {
                        tracing::debug!("a reply is cut short: {error}");
                        return Visited::CutShort;
                    }
                    Poll::Pending => {
                        return match sink.poll_gone(&mut cx) {
                            Poll::Ready(()) => Visited::Done,
                            Poll::Pending => Visited::Waits,
                        };
                    }
                }
            }
            let before = pending.len();
            let sent = sink.poll_send(&mut cx, pending, *last);
            self.wrote += before - pending.len();
            match sent {
                Poll::Ready(Ok(())) if *last => return Visited::Done,
                Poll::Ready(Ok(())) => *blocked = None,
                Poll::Ready(Err(Gone)) => return Visited::Done,
                Poll::Pending => {
                    if pending.len() < before {
                        *blocked = None;
                    }
                    return self.blocked(blocked);
                }
            }
        }
    }

    /// Waits for room, but not for ever.
    fn blocked(&mut self, since: &mut Option<Instant>) -> Visited {
        let until = *since.get_or_insert(self.now) + self.stall;
        if until <= self.now {
            return Visited::Stalled;
        }
        self.wait_until(until);
        Visited::Waits
    }

    fn wait_until(&mut self, at: Instant) {
        self.deadline = sooner(self.deadline, at);
    }

    fn slack(&self, stream: &dyn EventBody) -> Duration {
        if self.due {
            stream.slack()
        } else {
            Duration::ZERO
        }
    }

    fn quiet_until(&self, body: &Body) -> Option<Instant> {
        match body {
            Body::Events(stream) => stream.quiet_until(self.now, self.slack(&**stream)),
            Body::Full(_) | Body::Stream(_) => None,
        }
    }

    /// The next bytes of a body, and whether they are its last.
    fn take(
        &mut self,
        body: &mut Body,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Bytes, bool), BodyError>> {
        match body {
            Body::Full(bytes) => Poll::Ready(Ok((std::mem::take(bytes), true))),
            Body::Stream(stream) => match ready!(stream.as_mut().poll_next(cx)) {
                Some(Ok(bytes)) => Poll::Ready(Ok((bytes, false))),
                Some(Err(error)) => Poll::Ready(Err(error)),
                None => Poll::Ready(Ok((Bytes::new(), true))),
            },
            Body::Events(stream) => match stream.next(self.now, self.slack(&**stream)) {
                Output::Chunk(bytes, events) => {
                    self.delivered += events;
                    Poll::Ready(Ok((bytes, false)))
                }
                Output::Last(bytes) => Poll::Ready(Ok((bytes, true))),
                Output::Wait(at) => {
                    self.wait_until(at);
                    Poll::Pending
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// Takes everything.
    #[derive(Default)]
    struct Taken(Vec<u8>);

    impl Sink for Taken {
        const OWN_WAKES: bool = false;

        fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
            Poll::Ready(Ok(()))
        }

        fn poll_send(
            &mut self,
            _: &mut Context<'_>,
            chunk: &mut Bytes,
            _: bool,
        ) -> Poll<Result<(), Gone>> {
            self.0.extend_from_slice(&std::mem::take(chunk));
            Poll::Ready(Ok(()))
        }

        fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn abort(&mut self) {}
    }

    fn visit(parts: Vec<Result<Bytes, BodyError>>) -> (Visited, Vec<u8>) {
        let mut slot = Outgoing {
            sink: Taken::default(),
            body: Body::Stream(Box::pin(stream::iter(parts))),
            _handle: None,
            waker: Waker::noop().clone(),
            pending: Bytes::new(),
            last: false,
            blocked: None,
            queued: false,
        };
        let mut visit = Visit {
            now: clock::now(),
            due: false,
            stall: Duration::MAX,
            wrote: 0,
            delivered: 0,
            deadline: None,
        };
        (visit.stream(&mut slot), slot.sink.0)
    }

    #[test]
    fn a_body_that_breaks_never_ends_as_a_whole_one() {
        let part = || Ok(Bytes::from("part"));
        let (visited, sent) = visit(vec![part(), Err("upstream is gone".into())]);
        assert!(matches!(visited, Visited::CutShort));
        assert_eq!(sent, b"part");
        let (visited, sent) = visit(vec![part(), part()]);
        assert!(matches!(visited, Visited::Done));
        assert_eq!(sent, b"partpart");
    }
}
