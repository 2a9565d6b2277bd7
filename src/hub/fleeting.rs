//! The events of a ring that have terms: those that are not kept, those that end, and which is the
//! newest of its series.
//!
//! Pure: no clock, no lock, no task. Callers pass `now` in.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Instant,
};

use super::stored::{Series, Stored};

/// What a ring knows of its events that have terms. It has most of them by their numbers.
#[derive(Debug, Default)]
pub(super) struct Fleeting {
    /// Those that are not kept, oldest first.
    live_only: VecDeque<u64>,
    /// What they cost, in bytes.
    live_only_bytes: usize,
    /// When those need not be held any more that end, and their numbers.
    ends: BTreeSet<(Instant, u64)>,
    /// The newest of each series, in topics where that is to be known.
    newest: HashMap<Series, Newest>,
}

/// The newest event of a series.
#[derive(Clone, Copy, Debug)]
struct Newest {
    number: u64,
    /// How many of the series are held.
    held: u32,
}

impl Fleeting {
    /// An event has come, the newest of all. `knows_newest`: of each series that is to be known.
    pub(super) fn push(&mut self, event: &Stored, knows_newest: bool) {
        if let Some(end) = event.end() {
            self.ends.insert((end, event.sequence));
        }
        if event.is_live_only() {
            self.live_only.push_back(event.sequence);
            self.live_only_bytes += event.cost();
        } else if knows_newest && event.is_counted() {
            let number = event.sequence;
            let newest = self.newest.entry(event.series().clone());
            let newest = newest.or_insert(Newest { number, held: 0 });
            newest.number = number;
            newest.held += 1;
        }
    }

    /// An event has left, or was taken back. Whether another has to be found that is the newest of its
    /// series.
    pub(super) fn remove(&mut self, event: &Stored) -> bool {
        if let Some(end) = event.end() {
            self.ends.remove(&(end, event.sequence));
        }
        if event.is_live_only()
            && let Ok(at) = self.live_only.binary_search(&event.sequence)
        {
            self.live_only.remove(at);
            self.live_only_bytes -= event.cost();
        }
        let counts = event.is_counted() && !event.is_retracted();
        let Some(newest) = self.newest.get_mut(event.series()).filter(|_| counts) else {
            return false;
        };
        newest.held -= 1;
        if newest.held == 0 {
            self.newest.remove(event.series());
            return false;
        }
        newest.number == event.sequence
    }

    /// Of the series of an event that was taken back, another is the newest.
    pub(super) fn set_newest(&mut self, series: &Series, number: u64) {
        if let Some(newest) = self.newest.get_mut(series) {
            newest.number = number;
        }
    }

    /// Whether an event is the newest of its series, in topics where that is known.
    pub(super) fn is_newest(&self, event: &Stored) -> bool {
        let newest = self.newest.get(event.series());
        newest.is_some_and(|newest| newest.number == event.sequence)
    }

    /// Whether a newer one of the series of an event is held, in topics where that is known.
    pub(super) fn has_newer(&self, event: &Stored) -> bool {
        let newest = self.newest.get(event.series());
        newest.is_some_and(|newest| newest.number > event.sequence)
    }

    /// The oldest of those that are not kept, how many they are, and what they cost in bytes.
    pub(super) fn live_only(&self) -> Option<(u64, usize, usize)> {
        let oldest = self.live_only.front()?;
        Some((*oldest, self.live_only.len(), self.live_only_bytes))
    }

    /// When the first ends, and its number.
    pub(super) fn first_end(&self) -> Option<(Instant, u64)> {
        self.ends.first().copied()
    }
}
