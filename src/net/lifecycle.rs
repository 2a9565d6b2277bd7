//! How a connection of HTTP/2 or HTTP/3 comes to its end: by a drain, or for want of anything to
//! do.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use crate::{
    drain::Watch,
    limits::{Hits, Limit, Occupant},
};

/// How far a connection has come on its way to its end.
pub(super) struct Lifecycle {
    hits: Arc<Hits>,
    occupant: Arc<Occupant>,
    draining: Option<Draining>,
    /// Until when the first request must come, as long as none has.
    first: Option<Instant>,
    /// How long it is kept with nothing to do.
    idle: Duration,
    /// How long the peer may take to leave, once it was told and nothing is under way.
    patience: Duration,
    /// Since when there is nothing to do.
    idle_since: Option<Instant>,
    /// When the peer was told that the connection is to end.
    told: Option<Instant>,
}

/// The wait for a drain.
struct Draining {
    watch: Watch,
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether it will wake the task of the connection, which is always the same.
    is_waited_for: bool,
}

/// What is to be done about a connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, until this moment if there is one.
    Stay(Option<Instant>),
    /// It was idle for too long: the peer is to be told, with GOAWAY.
    Leave,
    /// The peer was told and has had its time, or has asked for nothing in time.
    Close,
}

impl Lifecycle {
    /// Of a connection that begins, whose first request must come before `first`. The limits that
    /// end it are counted.
    pub(super) fn new(
        hits: Arc<Hits>,
        occupant: Arc<Occupant>,
        drain: Watch,
        first: Instant,
        idle: Duration,
        patience: Duration,
    ) -> Self {
        Self {
            hits,
            occupant,
            draining: Some(Draining {
                watch: drain.clone(),
                // Pending is to mean that it will wake, not that the task has had its share.
                wait: Box::pin(tokio::task::unconstrained(drain.draining())),
                is_waited_for: false,
            }),
            first: Some(first),
            idle,
            patience,
            idle_since: None,
            told: None,
        }
    }

    /// Ready once, when the edge begins to drain.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(draining) = &mut self.draining else {
            return Poll::Pending;
        };
        // It is asked at each wake of the connection.
        if draining.is_waited_for && !draining.watch.is_draining() {
            return Poll::Pending;
        }
        draining.is_waited_for = true;
        ready!(draining.wait.as_mut().poll(cx));
        self.draining = None;
        Poll::Ready(())
    }

    /// The peer has asked for something.
    pub(super) fn asked(&mut self, now: Instant) {
        self.occupant.set_busy(true, now);
        (self.first, self.idle_since) = (None, None);
    }

    /// The peer was told that the connection is to end, or has said so itself.
    pub(super) fn leaving(&mut self, now: Instant) {
        self.told.get_or_insert(now);
    }

    /// What is to be done, while there is something under way or not.
    pub(super) fn step(&mut self, busy: bool, now: Instant) -> Step {
        self.occupant.set_busy(busy, now);
        if busy {
            self.idle_since = None;
            return Step::Stay(None);
        }
        let since = *self.idle_since.get_or_insert(now);
        let (end, due, limit) = match (self.told, self.first) {
            (Some(told), _) => (told.max(since) + self.patience, Step::Close, None),
            (None, Some(first)) => (first, Step::Close, Some(Limit::Handshake)),
            (None, None) => (since + self.idle, Step::Leave, Some(Limit::Idle)),
        };
        if end > now {
            return Step::Stay(Some(end));
        }
        if let Some(limit) = limit {
            self.hits.count(limit);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_secs(20);

    fn lifecycle(now: Instant) -> (crate::drain::Trigger, Lifecycle) {
        let (signal, watch) = crate::drain::channel();
        (
            signal,
            Lifecycle::new(
                Arc::default(),
                Occupant::of_nobody([127, 0, 0, 1].into(), now),
                watch,
                now + FIRST,
                IDLE,
                PATIENCE,
            ),
        )
    }

    #[test]
    fn an_idle_connection_is_told_and_then_closed() {
        let now = crate::clock::now();
        let (_signal, mut life) = lifecycle(now);
        life.asked(now);
        assert_eq!(life.step(false, now), Step::Stay(Some(now + IDLE)));
        assert_eq!(life.step(true, now + IDLE), Step::Stay(None));
        let idle = now + IDLE;
        assert_eq!(life.step(false, idle), Step::Stay(Some(idle + IDLE)));
        let told = idle + IDLE;
        assert_eq!(life.step(false, told), Step::Leave);
        life.leaving(told);
        assert_eq!(life.step(false, told), Step::Stay(Some(told + PATIENCE)));
        assert_eq!(life.step(false, told + PATIENCE), Step::Close);
    }

    #[test]
    fn one_that_never_asked_has_less_time() {
        let now = crate::clock::now();
        let (_signal, mut life) = lifecycle(now);
        assert_eq!(life.step(false, now), Step::Stay(Some(now + FIRST)));
        assert_eq!(life.step(false, now + FIRST), Step::Close);
    }

    #[test]
    fn what_is_under_way_is_finished_before_the_end() {
        let now = crate::clock::now();
        let (_signal, mut life) = lifecycle(now);
        life.leaving(now);
        assert_eq!(life.step(true, now + IDLE), Step::Stay(None));
        let done = now + IDLE;
        assert_eq!(life.step(false, done), Step::Stay(Some(done + PATIENCE)));
        assert_eq!(life.step(false, done + PATIENCE), Step::Close);
    }

    #[test]
    fn the_drain_is_told_once() {
        let now = crate::clock::now();
        let (signal, mut life) = lifecycle(now);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(life.poll_drain(&mut cx).is_pending());
        signal.start();
        assert!(life.poll_drain(&mut cx).is_ready());
        assert!(life.poll_drain(&mut cx).is_pending());
    }
}
