//! Events that a reader should have and that are not there any more: how many, and why.
//!
//! No clock, no lock, no task: rings and a position in, a measure out.

use std::{collections::HashSet, time::Instant};

use super::{evicted::Missing, ring::Ring, stored::Stored};

/// How many missing events are counted before their number is said to be unknown: anyone may ask
/// with an old id.
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
    /// A crash or a damaged log took what the reader has seen, or would have been given.
    Lost,
    /// It was for those who belonged to an audience then, which the reader did not.
    Audience,
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
            Self::Lost => "lost",
            Self::Audience => "audience",
        }
    }
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// Every event up to this number was taken, or told of as missing.
    pub(super) cursor: u64,
    /// The last entry before the reader began: what comes after was addressed to it.
    pub(super) joined: u64,
    /// The last entry that is looked at.
    pub(super) through: u64,
    /// How many events were addressed to it and neither taken nor told of.
    pub(super) outstanding: u64,
    /// Whether the gap may end at the next event that is held, with what is missing after it left to
    /// be told when the reader gets there.
    pub(super) in_parts: bool,
}

impl Position {
    /// Why events are missing, if no topic was deleted.
    fn reason(&self) -> GapReason {
        if self.cursor < self.joined {
            GapReason::Trimmed
        } else {
            GapReason::Slow
        }
    }
}

/// What is missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) reason: GapReason,
    /// How many events, if that is known.
    pub(super) missed: Option<u64>,
    /// How many of them were addressed to the reader since it began.
    pub(super) missed_live: u64,
    /// The rings that they are missing from, by their place among the looks.
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

/// One of the rings that a reader reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) ring: &'a Ring,
    /// What left the ring up to this number needs no telling, or was told.
    pub(super) told_through: u64,
    /// The last entry before the reader began.
    pub(super) joined: u64,
    /// Asked for when it matters.
    pub(super) now: fn() -> Instant,
}

/// What a ring shows of a gap: all that is looked at while it is locked.
#[derive(Debug)]
pub(super) struct Look {
    /// Events have left it untold up to this number, if it is above that which was told.
    pub(super) evicted_through: u64,
    /// From what number on they are untold.
    after: u64,
    /// The numbers of those that have left untold, if it remembers them.
    evicted: Option<Vec<u64>>,
    /// It was emptied, at this number.
    deleted_at: Option<u64>,
    /// For whom all those were that have left is not remembered.
    limited: bool,
    /// What it holds after the cursor, and whether that is for the reader.
    held: Vec<(u64, bool)>,
}

impl View<'_> {
    /// Whether the ring has let go of something that a reader at `cursor` did not take yet.
    fn is_past(&self, cursor: u64) -> bool {
        self.ring.evicted_through() > cursor.max(self.told_through)
    }

    /// Up to where a reader at `cursor` can read without passing what is missing.
    pub(super) fn whole_through(&self, cursor: u64) -> u64 {
        if !self.is_past(cursor) {
            return u64::MAX;
        }
        let after = cursor.max(self.told_through);
        match self.ring.missing(self.missing(after, u64::MAX)) {
            // That a topic was deleted is told whether anything is missing or not.
            Some(mut numbers) if !self.ring.was_deleted() => {
                numbers.next().map_or(u64::MAX, |number| number - 1)
            }
            _ => after,
        }
    }

    fn missing(&self, after: u64, through: u64) -> Missing {
        Missing {
            after,
            through,
            joined: self.joined,
            now: self.now,
        }
    }

    /// Looks for what is missing to a reader. `is_meant` says whether an event is for it and counts.
    pub(super) fn look(&self, position: Position, is_meant: impl Fn(&Stored) -> bool) -> Look {
        let Position {
            cursor, through, ..
        } = position;
        let after = cursor.max(self.told_through);
        let ring = self.ring;
        let held = ring.after(cursor);
        let held = held.take_while(|event| event.sequence <= through);
        Look {
            evicted_through: ring.evicted_through().min(through),
            after,
            evicted: ring
                .missing(self.missing(after, through))
                .map(Iterator::collect),
            deleted_at: ring.was_deleted().then(|| ring.evicted_through()),
            limited: ring.limited_after(after),
            held: held
                .map(|event| (event.sequence, is_meant(event)))
                .collect(),
        }
    }
}

impl Look {
    /// Whether the ring was emptied after what is told of just now.
    pub(super) fn was_deleted_after(&self, through: u64) -> bool {
        self.deleted_at.is_some_and(|at| at > through)
    }

    fn is_past(&self) -> bool {
        self.evicted_through > self.after
    }
}

/// Measures what is missing between the reader and the rings. `known` is the reason if it is known
/// before: then nothing can be counted.
///
/// Two counts make up the number, because no ring remembers for whom its evicted events were. What
/// came since the reader began was counted when it was addressed: what is outstanding of that and
/// is not held is missing, exactly. What came before is found among the numbers that the rings
/// remember, as long as none of them was for some readers only.
pub(super) fn measure(looks: &[Look], position: Position, known: Option<GapReason>) -> Gap {
    if position.in_parts
        && known.is_none()
        && let Some(part) = measure_part(looks, position)
    {
        return part;
    }
    let Position { joined, .. } = position;
    let all = |look: &Look| known.is_some() || look.is_past();
    let past = looks.iter().enumerate().filter(|(_, look)| all(look));
    let rings: Vec<usize> = past.map(|(index, _)| index).collect();
    let deleted = rings.iter().all(|ring| looks[*ring].deleted_at.is_some());
    let held = looks.iter().flat_map(|look| &look.held);
    let live = held.filter(|(number, meant)| *meant && *number > joined);
    // One in several of the rings was addressed once.
    let live: HashSet<u64> = live.map(|(number, _)| *number).collect();
    let missed_live = position.outstanding.saturating_sub(live.len() as u64);
    let reason = known.unwrap_or(if deleted {
        GapReason::Deleted
    } else {
        position.reason()
    });
    let missed = match known {
        Some(_) => None,
        None => missed_before(looks, position).map(|before| before + missed_live),
    };
    Gap {
        reason,
        missed,
        missed_live,
        rings,
        first: first_held(looks),
        through: u64::MAX,
    }
}

/// The first event that is held in any of the rings.
fn first_held(looks: &[Look]) -> Option<u64> {
    let firsts = looks.iter().filter_map(|look| look.held.first());
    firsts.map(|(number, _)| *number).min()
}

/// Measures what is missing up to the next event that is held. A client that is cut after it comes
/// back with the number before that event, and must not be told twice what is missing later on.
///
/// `None` when nothing is missing later, or when it cannot be told apart.
fn measure_part(looks: &[Look], position: Position) -> Option<Gap> {
    let first = first_held(looks)?;
    let later = |look: &Look| look.evicted_through > look.after.max(first);
    if !looks.iter().any(later) {
        return None;
    }
    let mut missing: HashSet<u64> = HashSet::new();
    let mut rings = Vec::new();
    for (index, look) in looks.iter().enumerate() {
        if look.limited || look.is_past() && look.deleted_at.is_some() {
            return None;
        }
        let evicted = look.evicted.as_ref()?;
        let before = &evicted[..evicted.partition_point(|number| *number < first)];
        if !before.is_empty() {
            rings.push(index);
        }
        missing.extend(before);
        if missing.len() > COUNTED {
            return None;
        }
    }
    let live = missing.iter().filter(|number| **number > position.joined);
    Some(Gap {
        reason: position.reason(),
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
fn missed_before(looks: &[Look], position: Position) -> Option<u64> {
    let Position { cursor, joined, .. } = position;
    if cursor >= joined {
        return Some(0);
    }
    let mut missed: HashSet<u64> = HashSet::new();
    for look in looks {
        // For whom those were that have left is not remembered.
        if look.limited {
            return None;
        }
        if look.after < joined {
            let evicted = look.evicted.as_ref()?;
            missed.extend(evicted.iter().take_while(|number| **number <= joined));
        }
        if missed.len() > COUNTED {
            return None;
        }
    }
    // What left one topic may still be held in another.
    let held = looks.iter().flat_map(|look| &look.held);
    for (number, _) in held.filter(|(_, meant)| *meant) {
        missed.remove(number);
    }
    Some(missed.len() as u64)
}
