//! So many at once, and so many more a second.

use std::time::Instant;

/// A bucket of tokens. Pure: the clock is the caller's.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    burst: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub(crate) fn new(burst: usize, per_second: usize, now: Instant) -> Self {
        let (burst, per_second) = (burst as f64, per_second as f64);
        Self {
            burst,
            per_second,
            left: burst,
            at: now,
        }
    }

    /// Takes `tokens`. `false` when there are not so many.
    pub(crate) fn take(&mut self, tokens: usize, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.burst);
        self.at = self.at.max(now);
        let tokens = tokens as f64;
        let enough = self.left >= tokens;
        if enough {
            self.left -= tokens;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_a_pace() {
        let now = crate::clock::now();
        let mut bucket = Bucket::new(3, 2, now);
        let mut at = |seconds: u64| bucket.take(1, now + Duration::from_secs(seconds));
        assert_eq!([at(0), at(0), at(0), at(0)], [true, true, true, false]);
        assert_eq!([at(1), at(1), at(1)], [true, true, false]);
        // No more than the burst, and time does not go back.
        assert_eq!([at(99), at(99), at(99), at(98)], [true, true, true, false]);
    }
}
