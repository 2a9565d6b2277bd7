//! Moves the bodies of a connection's replies into its streams, for HTTP/2 and HTTP/3 alike.
//!
//! All of it happens in the connection's one task. A stream is visited when the mailbox names it:
//! because an event was published to it, its flow control found room, its client left, or the
//! body's producer has more. Nothing here waits: what cannot go on leaves its stream's waker.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::Bytes;

use super::{
    backlog::Backlog,
    deadline::Deadline,
    listening::Listening,
    sink::Sink,
    turns::Turns,
    visit::{Outgoing, Visit, Visited, sooner},
};
use crate::{
    backoff, clock, exchange::Body, hub::mailbox::Mailbox, limits::Limit, protocol::Protocol,
};

/// How many moments the streams of a connection end at when the edge drains.
const DRAIN_MOMENTS: usize = 8;

/// The replies of one connection that are being sent.
pub(super) struct Outbox<S> {
    listening: Arc<Listening>,
    protocol: Protocol,
    mailbox: Arc<Mailbox>,
    /// By the key of the stream in the mailbox.
    slots: Vec<Option<Box<Outgoing<S>>>>,
    open: usize,
    ready: Turns,
    taken: Vec<u32>,
    /// The next moment at which a stream has something to say without being told.
    deadline: Option<Instant>,
    timer: Deadline,
    /// The deadline has come: comments that are nearly due may go along.
    due: bool,
    draining: bool,
    wrote: u64,
    /// Whether the peer takes anything, where its socket does not tell.
    backlog: Option<Backlog>,
}

impl<S: Sink> Outbox<S> {
    pub(super) fn new(
        listening: Arc<Listening>,
        protocol: Protocol,
        mailbox: Arc<Mailbox>,
        backlog: Option<Backlog>,
    ) -> Self {
        Self {
            listening,
            protocol,
            mailbox,
            slots: Vec::new(),
            open: 0,
            ready: Turns::default(),
            taken: Vec::new(),
            deadline: None,
            timer: Deadline::new(),
            due: false,
            draining: false,
            wrote: 0,
            backlog,
        }
    }

    /// Whether nothing is being sent.
    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// How many replies are being sent.
    pub(super) fn len(&self) -> usize {
        self.open
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
        let place = match (&handle, &body) {
            (Some(handle), _) => handle,
            (None, Body::Events(stream)) => stream.handle(),
            (None, _) => unreachable!("every other body was given a handle"),
        };
        let (key, waker) = (place.key(), place.waker());
        let index = key as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Box::new(Outgoing {
            sink,
            body,
            waker,
            _handle: handle,
            pending: Bytes::new(),
            last: false,
            blocked: None,
            queued: false,
        }));
        self.open += 1;
        self.enqueue(key);
    }

    /// Has every event stream end within the spread, at one of a few moments: at each of them all
    /// streams are looked at, so that a moment of its own for each would make the drain of a
    /// connection quadratic.
    pub(super) fn drain(&mut self, now: Instant) {
        self.draining = true;
        let context = self.listening.context();
        let spread = context.drain_spread;
        let moments: [Instant; DRAIN_MOMENTS] =
            std::array::from_fn(|_| now + backoff::within(spread, fastrand::f64()));
        for slot in self.slots.iter_mut().flatten() {
            if let Body::Events(stream) = &mut slot.body {
                let at = moments[fastrand::usize(..DRAIN_MOMENTS)];
                stream.end_at(at, context.drain_retry());
                self.deadline = sooner(self.deadline, at);
            }
        }
    }

    fn enqueue(&mut self, key: u32) {
        if let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut)
            && !std::mem::replace(&mut slot.queued, true)
        {
            let is_events = matches!(slot.body, Body::Events(_));
            self.ready.push(key, is_events);
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
        let removed = self.slots[key as usize].take();
        if let (Some(backlog), Some(slot)) = (&mut self.backlog, removed) {
            backlog.ended(slot.blocked);
        }
        self.open -= 1;
    }

    /// Lets go of streams whose clients have left: their places are for those who come. To be
    /// called before new requests are answered.
    pub(super) fn reap(&mut self, cx: &mut Context<'_>) {
        self.take_marks(cx);
        for at in 0..self.ready.len() {
            let Some(key) = self.ready.get(at) else {
                break;
            };
            let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut) else {
                continue;
            };
            let waker = Waker::from(slot.waker.clone());
            let mut cx = Context::from_waker(&waker);
            if slot.waker.take_spent() && slot.sink.poll_gone(&mut cx).is_ready() {
                self.remove(key);
            }
        }
    }

    /// Lets at most `streams` of them write, about `budget` bytes. Returns how many were written.
    pub(super) fn run(&mut self, cx: &mut Context<'_>, budget: usize, streams: usize) -> usize {
        self.take_marks(cx);
        if self.ready.is_empty() {
            return 0;
        }
        let now = clock::now();
        let context = self.listening.context();
        let pressed = context.hub.is_pressed() || context.memory.is_short();
        let mut stall = context.limits.stall.value;
        if pressed {
            stall /= 4;
        }
        let (mut wrote, mut delivered, mut visits) = (0, 0, 0);
        while wrote < budget
            && visits < streams
            && let Some(key) = self.ready.pop()
        {
            let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut) else {
                continue;
            };
            slot.queued = false;
            visits += 1;
            let mut visit = Visit {
                now,
                due: self.due,
                stall,
                pressed,
                wrote: 0,
                delivered: 0,
                deadline: None,
            };
            // Other bodies may be woken from anywhere.
            if S::OWN_WAKES && matches!(slot.body, Body::Events(_)) {
                self.mailbox.mute(key);
            }
            let before = slot.blocked;
            let visited = visit.stream(slot);
            self.mailbox.unmute();
            if let Some(backlog) = &mut self.backlog {
                backlog.visited(before, slot.blocked, visit.wrote);
            }
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
        if let Some(backlog) = &mut self.backlog {
            backlog.tell(now);
        }
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
