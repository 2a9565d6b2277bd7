//! How late the edge is with what it has to do: who is asked for more than there is time for sees it in
//! how long a task waits for its turn.
//!
//! Pure but for atomics.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How often it is looked.
pub(crate) const BEAT: Duration = Duration::from_millis(100);

/// More than that is remembered as that.
const LONGEST: Duration = Duration::from_secs(5);

/// How late it is, and that it is not stuck.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// In microseconds: what was seen, less an eighth each beat.
    smoothed: AtomicU64,
    beats: AtomicU64,
}

impl Lag {
    /// A beat came so late.
    pub(crate) fn beat(&self, late: Duration) {
        // Who was stopped for an hour is not late for as long.
        let late = late.min(LONGEST).as_micros() as u64;
        let before = self.smoothed.load(Ordering::Relaxed);
        let smoothed = late.max(before - before.div_ceil(8));
        self.smoothed.store(smoothed, Ordering::Relaxed);
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// How late it is by and large.
    #[must_use]
    pub(crate) fn now(&self) -> Duration {
        Duration::from_micros(self.smoothed.load(Ordering::Relaxed))
    }

    /// How many beats there were: as long as they go on it is not stuck.
    #[must_use]
    fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}

/// Whoever looks whether there are beats.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    beats: u64,
    told: bool,
}

impl Watchdog {
    /// Looks; whether it is to be said that there were none since it looked last. That is said once.
    pub(crate) fn look(&mut self, lag: &Lag) -> bool {
        let beats = lag.beats();
        let stalled = beats == std::mem::replace(&mut self.beats, beats);
        let told = std::mem::replace(&mut self.told, stalled);
        stalled && !told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_nothing_is_done_is_said_once() {
        let (lag, mut watchdog) = (Lag::default(), Watchdog::default());
        lag.beat(Duration::ZERO);
        let looks = [true, false, false, true, false].map(|beats| {
            if beats {
                lag.beat(Duration::ZERO);
            }
            watchdog.look(&lag)
        });
        assert_eq!(looks, [false, true, false, false, true]);
    }

    #[test]
    fn what_was_late_is_remembered_for_a_while() {
        let lag = Lag::default();
        let second = Duration::from_secs(1);
        lag.beat(2 * second);
        assert_eq!(lag.now(), 2 * second);
        let beats = (0..).take_while(|_| {
            lag.beat(Duration::ZERO);
            lag.now() > second / 2
        });
        assert_eq!(beats.count(), 10);
        while !lag.now().is_zero() {
            lag.beat(Duration::ZERO);
        }
        lag.beat(Duration::from_millis(3));
        assert_eq!(lag.now(), Duration::from_millis(3));
    }
}
