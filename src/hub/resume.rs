//! Where a reader begins.
//!
//! No clock, no task: rings and what the client asks for in, a cursor out.

use std::collections::BTreeSet;

use super::{GapReason, ahead::end_of_frame, lost::Lost, ring::Ring, stored::Stored};
use crate::sse::{Epoch, EventId};

/// The most events that a first visit is given, whatever it asks for.
const MAX_LAST: usize = 10_000;

/// Where a reader wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume<'a> {
    /// With the next event.
    Live,
    /// After the event with this id, as its `Last-Event-ID` says.
    After(&'a str),
    /// With the last events of its topics, at most so many, as history holds them.
    Last(usize),
}

/// The number of the oldest event up to `joined` whose publisher gave it this id.
///
/// Publishers' ids may repeat, in one topic and over several that each count on their own: it is the
/// oldest match that is resumed after, as an event that comes twice beats one that never comes.
pub(super) fn own(id: &str, ring: &Ring, joined: u64) -> Option<u64> {
    let first = ring.find(id).first().copied();
    first.filter(|number| *number <= joined)
}

/// The number that the edge's own id stands for, if that is no later than `joined`; of an order that `is_shared` it may
/// be, as another edge is ahead.
pub(super) fn place(
    id: &str,
    epoch: Epoch,
    joined: u64,
    lost: &Lost,
    is_shared: bool,
) -> Result<u64, GapReason> {
    match EventId::parse(id) {
        Some(id) if id.epoch != epoch => Err(GapReason::Restart),
        Some(id) if lost.end_of(id.sequence).is_some() => Err(GapReason::Lost),
        // What is another edge's own is no place here.
        Some(id) if is_shared => Ok(id.sequence.min(end_of_frame(id.sequence))),
        Some(id) if id.sequence <= joined => Ok(id.sequence),
        _ => Err(GapReason::Unknown),
    }
}

/// The newest events of some rings together: one in several of them counts once.
#[derive(Debug)]
pub(super) struct Newest {
    most: usize,
    numbers: BTreeSet<u64>,
}

impl Newest {
    /// At most so many.
    pub(super) fn new(events: usize) -> Self {
        Self {
            most: events.min(MAX_LAST),
            numbers: BTreeSet::new(),
        }
    }

    /// Looks at what a ring holds up to `joined`.
    pub(super) fn look(&mut self, ring: &Ring, joined: u64, is_meant: impl Fn(&Stored) -> bool) {
        let there = ring.after(0).rev();
        let there = there.filter(|event| event.sequence <= joined && !event.is_retracted());
        for event in there.filter(|event| is_meant(event)) {
            let full = self.numbers.len() == self.most;
            if full
                && self
                    .numbers
                    .first()
                    .is_none_or(|oldest| event.sequence < *oldest)
            {
                return;
            }
            self.numbers.insert(event.sequence);
            if self.numbers.len() > self.most {
                self.numbers.pop_first();
            }
        }
    }

    /// The cursor before them.
    pub(super) fn before(&self) -> Option<u64> {
        self.numbers.first().map(|oldest| oldest - 1)
    }
}
