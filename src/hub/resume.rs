//! Where a reader begins.
//!
//! No clock, no lock, no task: rings and what the client asks for in, a cursor out.

use std::collections::BinaryHeap;

use super::{
    GapReason,
    ring::{Ring, Stored},
};
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

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// After the event with this number.
    pub(super) cursor: u64,
    /// What of the losses before needs no telling.
    pub(super) told: Told,
    /// The gap to tell first.
    pub(super) gap: Option<GapReason>,
}

/// Which events that left the rings need no telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Those up to this number.
    Through(u64),
    /// Those that have left by now: they were not asked for.
    Evicted,
}

/// Finds where a reader begins that wants `resume` of `rings`, when the last entry is `joined`.
pub(super) fn start(
    resume: Resume<'_>,
    rings: &[&Ring],
    epoch: Epoch,
    joined: u64,
    is_meant: impl Fn(&Stored) -> bool,
) -> Start {
    match resume {
        Resume::Live => Start {
            cursor: joined,
            told: Told::Through(joined),
            gap: None,
        },
        Resume::Last(events) => Start {
            cursor: before_last(events.min(MAX_LAST), rings, joined, is_meant),
            told: Told::Evicted,
            gap: None,
        },
        Resume::After(id) => match find(id, rings, epoch, joined) {
            Ok(cursor) => Start {
                cursor,
                told: Told::Through(cursor),
                gap: None,
            },
            // What is held follows the gap, all of it. What has left by now is the gap; what leaves
            // from now on will be told.
            Err(reason) => Start {
                cursor: before_oldest(rings).unwrap_or(joined),
                told: Told::Evicted,
                gap: Some(reason),
            },
        },
    }
}

/// The number of the event with this id: a publisher's own, as the rings know it, or the edge's.
///
/// Publishers' ids may repeat, in one topic and over several that each count on their own: it is the
/// oldest match that is resumed after, as an event that comes twice beats one that never comes.
fn find(id: &str, rings: &[&Ring], epoch: Epoch, joined: u64) -> Result<u64, GapReason> {
    let own = rings.iter().filter_map(|ring| ring.find(id).first()).min();
    match (own, EventId::parse(id)) {
        (Some(sequence), _) => Ok(*sequence),
        (None, Some(id)) if id.epoch != epoch => Err(GapReason::Restart),
        (None, Some(id)) if id.sequence <= joined => Ok(id.sequence),
        (None, _) => Err(GapReason::Unknown),
    }
}

fn before_oldest(rings: &[&Ring]) -> Option<u64> {
    let oldest = rings.iter().filter_map(|ring| ring.oldest());
    oldest.map(|event| event.sequence - 1).min()
}

/// The cursor before the last `events` of all rings together: a merge of the rings from their ends,
/// as an event in several of them counts once.
fn before_last(
    events: usize,
    rings: &[&Ring],
    joined: u64,
    is_meant: impl Fn(&Stored) -> bool,
) -> u64 {
    let mut rest: Vec<_> = rings
        .iter()
        .map(|ring| {
            let there = ring.after(0).rev().filter(|event| !event.is_retracted());
            let meant = there.filter(|event| is_meant(event));
            meant.map(|event| event.sequence)
        })
        .collect();
    // The newest of each ring that was not counted yet.
    let mut newest: BinaryHeap<(u64, usize)> = BinaryHeap::new();
    for (ring, rest) in rest.iter_mut().enumerate() {
        newest.extend(rest.next().map(|sequence| (sequence, ring)));
    }
    let (mut cursor, mut left) = (joined, events);
    while let Some((sequence, ring)) = newest.pop() {
        // Above the cursor it was counted already, in another ring.
        if sequence <= cursor {
            if left == 0 {
                break;
            }
            left -= 1;
            cursor = sequence - 1;
        }
        newest.extend(rest[ring].next().map(|sequence| (sequence, ring)));
    }
    cursor
}
