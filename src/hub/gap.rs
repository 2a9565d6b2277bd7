//! Events that a reader should have and that are not there any more: how many, and why.
//!
//! No clock, no lock, no task: rings and a position in, a measure out.

use std::collections::HashSet;

use super::ring::{Ring, Stored};

/// How many missing events are counted under the hub's lock before their number is said to be
/// unknown: anyone may ask with an old id.
const COUNTED: usize = 16_384;

/// Why a stream was told of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// History no longer holds all that came after the id.
    Trimmed,
    /// The id is from another life of the edge.
    Restart,
    /// The reader fell off the ring.
    Slow,
    /// History never knew the id, or no longer does.
    Unknown,
    /// The topic was deleted.
    Deleted,
}

impl GapReason {
    /// The word that stands in the `edge-gap` event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Restart => "restart",
            Self::Slow => "slow",
            Self::Unknown => "unknown",
            Self::Deleted => "deleted",
        }
    }
}

/// One of the rings that a reader reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) ring: &'a Ring,
    /// What left the ring up to this number needs no telling, or was told.
    pub(super) told_through: u64,
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// Every event up to this number was taken, or told of as missing.
    pub(super) cursor: u64,
    /// The last entry before the reader began: what comes after was addressed to it.
    pub(super) joined: u64,
    /// How many events were addressed to it and neither taken nor told of.
    pub(super) outstanding: u64,
    /// Whether the gap may end at the next event that is held, with what is missing after it left to
    /// be told when the reader gets there.
    pub(super) in_parts: bool,
}

/// What is missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) reason: GapReason,
    /// How many events, if that is known.
    pub(super) missed: Option<u64>,
    /// How many of them were addressed to the reader since it began.
    pub(super) missed_live: u64,
    /// The rings that they are missing from, by their place among the views.
    pub(super) rings: Vec<usize>,
    /// The first event that is held after the gap.
    pub(super) first: Option<u64>,
    /// Nothing that left the rings after this number is told of.
    pub(super) through: u64,
}

impl Gap {
    /// Whether nothing that was for the reader is missing: what left the rings was for others. A
    /// deletion is told all the same.
    pub(super) fn is_of_nothing(&self) -> bool {
        self.missed == Some(0) && self.reason != GapReason::Deleted
    }
}

impl View<'_> {
    /// Whether the ring has let go of something that a reader at `cursor` did not take yet.
    pub(super) fn is_past(&self, cursor: u64) -> bool {
        self.ring.evicted_through() > cursor.max(self.told_through)
    }

    /// Up to where a reader at `cursor` can read without passing what is missing.
    pub(super) fn whole_through(&self, cursor: u64) -> u64 {
        if !self.is_past(cursor) {
            return u64::MAX;
        }
        let after = cursor.max(self.told_through);
        match self.ring.evicted_between(after, u64::MAX) {
            // That a topic was deleted is told whether anything is missing or not.
            Some(mut numbers) if !self.ring.was_deleted() => {
                numbers.next().map_or(u64::MAX, |number| number - 1)
            }
            _ => after,
        }
    }
}

/// Measures what is missing between the reader and the rings. `known` is the reason if it is known
/// before: then nothing can be counted. `is_meant` says whether an event is for the reader.
///
/// Two counts make up the number, because no ring remembers for whom its evicted events were. What
/// came since the reader began was counted when it was addressed: what is outstanding of that and
/// is not held is missing, exactly. What came before is found among the numbers that the rings
/// remember, as long as none of them was for some readers only.
pub(super) fn measure(
    views: &[View<'_>],
    position: Position,
    known: Option<GapReason>,
    is_meant: impl Fn(&Stored) -> bool,
) -> Gap {
    if position.in_parts
        && known.is_none()
        && let Some(part) = measure_part(views, position)
    {
        return part;
    }
    let Position { cursor, joined, .. } = position;
    let mut rings = Vec::new();
    let mut deleted = true;
    let mut first: Option<u64> = None;
    let mut held = Vec::new();
    for (index, view) in views.iter().enumerate() {
        if known.is_some() || view.is_past(cursor) {
            rings.push(index);
            deleted &= view.ring.was_deleted();
        }
        let next = view.ring.after(cursor).next().map(|event| event.sequence);
        first = first.into_iter().chain(next).min();
        let live = view.ring.after(cursor.max(joined));
        held.extend(live.filter(|event| is_meant(event)).map(|e| e.sequence));
    }
    // One in several of the rings was addressed once.
    held.sort_unstable();
    held.dedup();
    let missed_live = position.outstanding.saturating_sub(held.len() as u64);
    let reason = known.unwrap_or(if deleted {
        GapReason::Deleted
    } else if cursor < joined {
        GapReason::Trimmed
    } else {
        GapReason::Slow
    });
    let missed = match known {
        Some(_) => None,
        None => missed_before(views, position).map(|before| before + missed_live),
    };
    Gap {
        reason,
        missed,
        missed_live,
        rings,
        first,
        through: u64::MAX,
    }
}

/// Measures what is missing up to the next event that is held. A client that is cut after it comes
/// back with the number before that event, and must not be told twice what is missing later on.
///
/// `None` when nothing is missing later, or when it cannot be told apart.
fn measure_part(views: &[View<'_>], position: Position) -> Option<Gap> {
    let Position { cursor, joined, .. } = position;
    let next = |view: &View<'_>| view.ring.after(cursor).next().map(|event| event.sequence);
    let first = views.iter().filter_map(next).min()?;
    if !views.iter().any(|view| view.is_past(first)) {
        return None;
    }
    let mut missing = Vec::new();
    let mut rings = Vec::new();
    for (index, view) in views.iter().enumerate() {
        let after = cursor.max(view.told_through);
        if view.ring.limited_after(after) || view.is_past(cursor) && view.ring.was_deleted() {
            return None;
        }
        let before = missing.len();
        missing.extend(view.ring.evicted_between(after, first - 1)?);
        if missing.len() > before {
            rings.push(index);
        }
        if missing.len() > COUNTED {
            return None;
        }
    }
    missing.sort_unstable();
    missing.dedup();
    let live = missing.iter().filter(|number| **number > joined);
    Some(Gap {
        reason: if cursor < joined {
            GapReason::Trimmed
        } else {
            GapReason::Slow
        },
        missed: Some(missing.len() as u64),
        missed_live: live.count() as u64,
        rings,
        first: Some(first),
        // What left one ring under the number of the first is still held in another.
        through: first,
    })
}

/// How many events up to where the reader began left the rings untold, if they are remembered that
/// far back, and few enough to be counted.
fn missed_before(views: &[View<'_>], position: Position) -> Option<u64> {
    let Position { cursor, joined, .. } = position;
    if cursor >= joined {
        return Some(0);
    }
    let mut missed = HashSet::new();
    for view in views {
        let after = cursor.max(view.told_through);
        // For whom those were that have left is not remembered.
        if view.ring.limited_after(after) {
            return None;
        }
        if after < joined {
            missed.extend(view.ring.evicted_between(after, joined)?);
        }
        if missed.len() > COUNTED {
            return None;
        }
    }
    if views.len() < 2 {
        return Some(missed.len() as u64);
    }
    // What left one topic may still be held in another.
    let last = missed.iter().max().copied().unwrap_or_default();
    let mut looked_at = 0;
    for view in views {
        for event in view.ring.after(cursor) {
            if event.sequence > last {
                break;
            }
            missed.remove(&event.sequence);
            looked_at += 1;
            if looked_at > COUNTED {
                return None;
            }
        }
    }
    Some(missed.len() as u64)
}
