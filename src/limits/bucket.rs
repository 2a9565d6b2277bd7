//! So many at once, and so many more a second.

use std::time::Instant;

use super::Limit;

/// A bucket of tokens that knows the limit behind it. Pure: the clock is the caller's.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    limit: Limit,
    burst: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub(crate) fn new(limit: Limit, burst: usize, per_second: usize, now: Instant) -> Self {
        let (burst, per_second) = (burst as f64, per_second as f64);
        Self {
            limit,
            burst,
            per_second,
            left: burst,
            at: now,
        }
    }

    /// Whether nothing was taken of late that is not there again.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left + passed * self.per_second >= self.burst
    }

    /// Takes `tokens`.
    ///
    /// # Errors
    ///
    /// The limit, when there are not so many.
    pub(crate) fn take(&mut self, tokens: usize, now: Instant) -> Result<(), Limit> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.burst);
        self.at = self.at.max(now);
        let tokens = tokens as f64;
        if self.left < tokens {
            return Err(self.limit);
        }
        self.left -= tokens;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_a_pace() {
        let now = crate::clock::now();
        let mut bucket = Bucket::new(Limit::Http2Pings, 3, 2, now);
        let mut at = |seconds: u64| {
            let taken = bucket.take(1, now + Duration::from_secs(seconds));
            taken
                .map_err(|limit| assert_eq!(limit, Limit::Http2Pings))
                .is_ok()
        };
        assert_eq!([at(0), at(0), at(0), at(0)], [true, true, true, false]);
        assert_eq!([at(1), at(1), at(1)], [true, true, false]);
        // No more than the burst, and time does not go back.
        assert_eq!([at(99), at(99), at(99), at(98)], [true, true, true, false]);
    }
}
