//! Moments of this process, and the same as they are written: milliseconds since 1970.
//!
//! Pure: no clock, no lock, no task.

use std::time::{Duration, Instant, SystemTime};

/// Nothing is further away than that: a hundred years, in milliseconds.
const FAR: u64 = 100 * 365 * 24 * 3_600_000;

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wall {
    at: Instant,
    millis: u64,
    /// What was before this process was not after that.
    latest: u64,
}

impl Wall {
    pub(super) fn new(at: Instant, wall: SystemTime) -> Self {
        let since = wall.duration_since(SystemTime::UNIX_EPOCH);
        let millis = u64::try_from(since.unwrap_or_default().as_millis());
        let millis = millis.unwrap_or(u64::MAX / 2);
        Self {
            at,
            millis,
            latest: millis,
        }
    }

    /// The same where others say when something was, whose clocks may be ahead.
    pub(super) fn of_others(self) -> Self {
        Self {
            latest: u64::MAX,
            ..self
        }
    }

    /// When it was made.
    pub(super) fn began(&self) -> (Instant, u64) {
        (self.at, self.millis)
    }

    /// A moment, as it is written.
    pub(super) fn millis(&self, at: Instant) -> u64 {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
        match at.checked_duration_since(self.at) {
            Some(later) => self.millis.saturating_add(millis(later)),
            None => self
                .millis
                .saturating_sub(millis(self.at.duration_since(at))),
        }
    }

    /// What was written, as a moment: the first of all if this process knows none so long ago, and the last it knows
    /// if none so late.
    pub(super) fn moment(&self, millis: u64) -> Instant {
        let away = Duration::from_millis(millis.abs_diff(self.millis).min(FAR));
        let moment = if millis >= self.millis {
            self.at.checked_add(away)
        } else {
            self.at.checked_sub(away)
        };
        moment.unwrap_or(self.at)
    }

    /// The same of what was before this process: a clock that was set back does not make it come.
    pub(super) fn past(&self, millis: u64) -> Instant {
        self.moment(millis.min(self.latest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_moment_comes_back_to_the_millisecond() {
        let wall = Wall::new(clock::now(), clock::wall());
        let (at, millis) = wall.began();
        for seconds in [0, 1, 3600] {
            let away = Duration::from_secs(seconds);
            assert_eq!(wall.moment(wall.millis(at + away)), at + away);
            let before = wall.millis(at) - seconds * 1000;
            assert_eq!(wall.millis(wall.moment(before)), before);
        }
        assert_eq!(wall.past(millis + 5), at);
        assert!(wall.moment(u64::MAX) > at);
        assert!(wall.of_others().past(millis + 5) > at);
    }
}
