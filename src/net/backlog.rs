//! Whether a connection's peer takes what it is sent, where that is not seen at the socket: over QUIC.

use std::{sync::Arc, time::Instant};

use crate::limits::Occupant;

/// The streams of a connection that wait for its peer to take something.
pub(super) struct Backlog {
    occupant: Arc<Occupant>,
    blocked: usize,
    /// The peer has taken something since it was last told.
    moves: bool,
}

impl Backlog {
    /// Of a connection on which nothing is sent yet.
    pub(super) fn new(occupant: Arc<Occupant>) -> Self {
        Self {
            occupant,
            blocked: 0,
            moves: false,
        }
    }

    /// A stream that waited since `before`, if it did, has written so much and waits since `after`.
    pub(super) fn visited(
        &mut self,
        before: Option<Instant>,
        after: Option<Instant>,
        wrote: usize,
    ) {
        self.blocked += usize::from(after.is_some());
        self.blocked -= usize::from(before.is_some());
        // What is written counts only where there is room for more: quinn takes some for anybody.
        self.moves |= match after {
            None => wrote > 0,
            since => before.is_some() && before != since,
        };
    }

    /// A stream has ended that waited since then, if it did.
    pub(super) fn ended(&mut self, since: Option<Instant>) {
        self.blocked -= usize::from(since.is_some());
    }

    /// Tells the connection how it is.
    pub(super) fn tell(&mut self, now: Instant) {
        let moves = std::mem::take(&mut self.moves);
        if moves && self.blocked > 0 {
            self.occupant.stuck_from(now);
        } else {
            self.occupant.set_stuck(self.blocked > 0, || now);
        }
    }
}
