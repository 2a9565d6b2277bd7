//! The numbers of the events that have left a ring, so that a gap can be counted.
//!
//! Pure: no clock, no lock, no task. Callers pass `now` in.

use std::{collections::VecDeque, ops::RangeInclusive, time::Instant};

/// How many are remembered: at least and at most.
const REMEMBERED: RangeInclusive<usize> = 8..=1024;

/// The numbers of the last events that left a ring.
#[derive(Debug)]
pub(super) struct Evicted {
    /// Oldest first.
    numbers: VecDeque<u64>,
    /// The most of them.
    most: usize,
    /// They are complete above this one.
    known_after: u64,
    /// Above this one they are, but for those that nobody is given who comes back.
    lost_through: u64,
    /// Those of them that whoever comes back would not have been given, or no more from some moment on.
    forgiven: VecDeque<(u64, Option<Instant>)>,
}

impl Default for Evicted {
    fn default() -> Self {
        Self::after(0)
    }
}

/// What a reader would have been given of the events that have left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    /// Those after this number.
    pub(super) after: u64,
    /// And up to this one.
    pub(super) through: u64,
    /// The reader came back when this was the last entry.
    pub(super) joined: u64,
    /// When it asks.
    pub(super) now: fn() -> Instant,
}

impl Evicted {
    /// Of what left up to `floor` nothing is known.
    pub(super) fn after(floor: u64) -> Self {
        Self {
            numbers: VecDeque::new(),
            most: *REMEMBERED.end(),
            known_after: floor,
            lost_through: floor,
            forgiven: VecDeque::new(),
        }
    }

    /// How many are remembered from now on, if that is between 8 and 1,024.
    pub(super) fn remember(&mut self, most: usize) {
        self.most = most.clamp(*REMEMBERED.start(), *REMEMBERED.end());
    }

    /// The event with this number has left, after all others.
    pub(super) fn push(&mut self, number: u64) {
        self.numbers.push_back(number);
        while self.numbers.len() > self.most {
            let oldest = self.numbers.pop_front().expect("it has some");
            let forgiven = self.forgiven.pop_front_if(|(number, _)| *number == oldest);
            self.known_after = oldest;
            if forgiven.is_none_or(|(_, until)| until.is_some()) {
                self.lost_through = oldest;
            }
        }
        if self.numbers.capacity() > 4 * self.most {
            self.numbers.shrink_to(self.most);
        }
    }

    /// The same of one that whoever comes back would not have been given: at all, or from `until` on.
    pub(super) fn push_forgiven(&mut self, number: u64, until: Option<Instant>) {
        self.forgiven.push_back((number, until));
        self.push(number);
    }

    /// The numbers of those that are missing to a reader, or `None` when they are not remembered that
    /// far back.
    pub(super) fn missing(&self, missing: Missing) -> Option<impl Iterator<Item = u64> + '_> {
        let Missing {
            after,
            through,
            joined,
            ..
        } = missing;
        let known =
            self.known_after <= after || self.lost_through <= after && self.known_after <= joined;
        if !known {
            return None;
        }
        let from = self.numbers.partition_point(|&s| s <= after);
        let numbers = self.numbers.range(from..).copied();
        let numbers = numbers.take_while(move |&s| s <= through);
        Some(numbers.filter(move |number| !self.is_forgiven(*number, &missing)))
    }

    /// Whether a reader would not have been given the event, as it came back after it.
    fn is_forgiven(&self, number: u64, missing: &Missing) -> bool {
        if self.forgiven.is_empty() || number > missing.joined {
            return false;
        }
        let found = self.forgiven.binary_search_by_key(&number, |(n, _)| *n);
        let until = found.ok().map(|at| self.forgiven[at].1);
        until.is_some_and(|until| until.is_none_or(|until| until <= (missing.now)()))
    }

    /// How many are remembered, and how many there is room for.
    #[cfg(test)]
    pub(super) fn len_and_room(&self) -> (usize, usize) {
        (self.numbers.len(), self.numbers.capacity())
    }
}
