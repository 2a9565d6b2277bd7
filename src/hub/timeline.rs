//! When the entries of the one order were placed, to the second: for people who ask when something is
//! missing.
//!
//! Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How far apart moments are remembered, and how many: an hour of it where something is always placed.
const APART: Duration = Duration::from_secs(1);
const MOMENTS: usize = 3600;

/// Some of the entries, and when they were placed.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Oldest first, each at least [`APART`] after the one before.
    moments: VecDeque<(u64, Instant)>,
    newest: Option<(u64, Instant)>,
    /// Some have been forgotten.
    is_cut: bool,
}

impl Timeline {
    /// An entry is placed, after all others.
    pub(super) fn advance(&mut self, sequence: u64, at: Instant) {
        self.newest = Some((sequence, at));
        let last = self.moments.back();
        if last.is_some_and(|(_, last)| at.saturating_duration_since(*last) < APART) {
            return;
        }
        if self.moments.len() == MOMENTS {
            self.moments.pop_front();
            self.is_cut = true;
        }
        self.moments.push_back((sequence, at));
    }

    /// Nobody remembers what was before the first moment.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// A moment no later than that of the entry with this number, and close to it.
    pub(super) fn not_after(&self, sequence: u64) -> Option<Instant> {
        let later = self
            .moments
            .partition_point(|(known, _)| *known <= sequence);
        let known = self.moments.get(later.checked_sub(1)?)?;
        Some(known.1)
    }

    /// The number of the last entry that was placed by a moment, or of one a little later; 0 when that was before
    /// all that ever was, `None` when it is after all.
    pub(super) fn placed_by(&self, moment: Instant) -> Option<u64> {
        let later = self.moments.partition_point(|(_, at)| *at <= moment);
        match self.moments.get(later) {
            // Before all that is remembered: from the beginning, or nobody knows better.
            Some(_) if later == 0 && !self.is_cut => Some(0),
            Some((sequence, _)) => Some(sequence - 1),
            None => None,
        }
    }

    /// A moment no earlier than that of the entry with this number, and close to it.
    pub(super) fn not_before(&self, sequence: u64) -> Option<Instant> {
        let earlier = self.moments.partition_point(|(known, _)| *known < sequence);
        let known = self.moments.get(earlier).or(self.newest.as_ref());
        known
            .filter(|(known, _)| *known >= sequence)
            .map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    proptest! {
        #[test]
        fn each_entry_is_between_its_moments(steps in proptest::collection::vec((1..5u64, 0..3000u64), 1..300)) {
            let start = clock::now();
            let (mut timeline, mut placed) = (Timeline::default(), Vec::new());
            let (mut sequence, mut at) = (0, start);
            for (skipped, millis) in steps {
                sequence += skipped;
                at += Duration::from_millis(millis);
                timeline.advance(sequence, at);
                placed.push((sequence, at));
            }
            for (sequence, at) in placed {
                let from = timeline.not_after(sequence).expect("all are remembered");
                let to = timeline.not_before(sequence).expect("it was placed");
                prop_assert!(from <= at && at <= to);
                prop_assert!(at - from < APART);
                let by = timeline.placed_by(at).unwrap_or(sequence.max(timeline.newest.expect("some").0));
                prop_assert!(by >= sequence);
            }
            prop_assert_eq!(timeline.placed_by(start - APART), Some(0));
            prop_assert_eq!(timeline.not_after(0), None);
            prop_assert_eq!(timeline.not_before(sequence + 1), None);
        }
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let (mut timeline, start) = (Timeline::default(), clock::now());
        for n in 0..=MOMENTS as u64 {
            timeline.advance(n + 1, start + APART * n as u32);
        }
        assert_eq!(timeline.not_after(1), None);
        assert_eq!(timeline.not_after(2), Some(start + APART));
        assert_eq!(timeline.moments.len(), MOMENTS);
        // It was the first, which nobody knows any more.
        assert_eq!(timeline.placed_by(start), Some(1));
    }
}
