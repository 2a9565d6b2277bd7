//! Numbers that were given, or may have been, to entries that nobody has any more: what a crash took, and what
//! was cut out of a damaged log.

use crate::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};
use std::ops::RangeInclusive;

/// Numbers in a row whose entries are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// The first that is lost.
    pub from: u64,
    /// Up to where: this number was given to nothing, or what had it is lost too.
    pub through: u64,
    /// Whether there certainly were entries, so that whoever reads across is told. Else only those are told who had
    /// seen some of them.
    pub is_damage: bool,
}

/// What is lost.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Invariant: sorted, and none touches another.
    ranges: Mutex<Vec<LostRange>>,
    any_damage: AtomicBool,
}

impl Lost {
    pub(super) fn new(ranges: &[LostRange]) -> Self {
        let lost = Self::default();
        for range in ranges {
            lost.add(*range);
        }
        lost
    }

    /// Something more is known to be lost.
    pub(super) fn add(&self, range: LostRange) {
        let mut ranges = self.ranges();
        if ranges.iter().any(|known| known.contains(&range)) {
            return;
        }
        ranges.push(range);
        ranges.sort_unstable_by_key(|range| range.from);
        drop(ranges);
        if range.is_damage {
            self.any_damage.store(true, Ordering::Release);
        }
    }

    /// Nothing is: another history begins.
    pub(super) fn clear(&self) {
        self.ranges().clear();
        self.any_damage.store(false, Ordering::Release);
    }

    /// Where a reader goes on that came to know this number, which is lost.
    pub(super) fn end_of(&self, number: u64) -> Option<u64> {
        let ranges = self.ranges();
        let range = ranges
            .iter()
            .find(|range| range.has_seen().contains(&number));
        range.map(|range| range.through)
    }

    /// The first damage that a reader at `cursor` has not passed.
    pub(super) fn damage_after(&self, cursor: u64) -> Option<LostRange> {
        if !self.any_damage.load(Ordering::Acquire) {
            return None;
        }
        let ranges = self.ranges();
        let mut damage = ranges.iter().filter(|range| range.is_damage);
        damage.find(|range| range.through > cursor).copied()
    }

    fn ranges(&self) -> MutexGuard<'_, Vec<LostRange>> {
        self.ranges.lock().expect("no holder of this lock panics")
    }
}

impl LostRange {
    /// The numbers of which some reader may have come to know one. One that came after all was lost begins with the
    /// last.
    fn has_seen(&self) -> RangeInclusive<u64> {
        self.from..=self.through.saturating_sub(1)
    }

    fn contains(&self, other: &Self) -> bool {
        self.from <= other.from
            && other.through <= self.through
            && self.is_damage >= other.is_damage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_seen_what_is_lost_is_known_and_who_came_after_is_not() {
        let jump = LostRange {
            from: 11,
            through: 100,
            is_damage: false,
        };
        let damage = LostRange {
            from: 3,
            through: 5,
            is_damage: true,
        };
        let lost = Lost::new(&[jump]);
        assert_eq!(lost.damage_after(0), None);
        assert_eq!(
            [10, 11, 99, 100].map(|n| lost.end_of(n)),
            [None, Some(100), Some(100), None]
        );
        lost.add(damage);
        lost.add(LostRange {
            is_damage: false,
            ..damage
        });
        lost.add(LostRange { from: 4, ..damage });
        assert_eq!(
            [0, 4, 5].map(|n| lost.damage_after(n)),
            [Some(damage), Some(damage), None]
        );
        assert_eq!(lost.end_of(4), Some(5));
    }
}
