//! Waits that do not march in step. Pure: the random number is an argument.

use std::time::{Duration, Instant};

/// `base` give or take half of it; `random` is in 0..1.
#[must_use]
pub(crate) fn jittered_by_half(base: Duration, random: f64) -> Duration {
    base.mul_f64(0.5 + random.clamp(0.0, 1.0))
}

/// A part of `span`; `random` is in 0..1.
#[must_use]
pub(crate) fn within(span: Duration, random: f64) -> Duration {
    span.mul_f64(random.clamp(0.0, 1.0))
}

/// The first moment after `now` of a beat: one each `interval` from `origin` on, moved by a `phase` in
/// 0..1 of it.
#[must_use]
pub(crate) fn next_beat(origin: Instant, now: Instant, interval: Duration, phase: f64) -> Instant {
    let first = origin + within(interval, phase);
    let passed = now.saturating_duration_since(first);
    if now < first && first - now <= interval {
        return first;
    }
    let beats = passed.as_nanos() / interval.as_nanos().max(1) + 1;
    let since = Duration::from_nanos_u128(beats * interval.as_nanos());
    first + since
}

/// Anywhere in the last fifth of `span`; `random` is in 0..1.
#[must_use]
pub(crate) fn last_fifth(span: Duration, random: f64) -> Duration {
    span.mul_f64(0.8 + random.clamp(0.0, 1.0) / 5.0)
}

/// The wait after the `failures`-th failure in a row: doubled each time from `first`, at most
/// `most`, jittered downwards by up to half.
#[must_use]
pub(crate) fn exponential(first: Duration, most: Duration, failures: u32, random: f64) -> Duration {
    let doubled = first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    doubled
        .min(most)
        .mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stays_within_its_bounds(ms in 0u64..100_000, failures in 0u32..100, random in 0f64..1.0) {
            let base = Duration::from_millis(ms);
            let jittered = jittered_by_half(base, random);
            prop_assert!(jittered >= base / 2 && jittered <= base * 3 / 2);
            prop_assert!(within(base, random) <= base);
            let origin = crate::clock::origin();
            let beat = base + Duration::from_millis(1);
            let now = origin + Duration::from_millis(ms * u64::from(failures));
            let next = next_beat(origin, now, beat, random);
            prop_assert!(next > now && next <= now + beat);
            // It stays on the beat.
            prop_assert_eq!(next_beat(origin, next, beat, random), next + beat);
            let last = last_fifth(base, random);
            prop_assert!(last >= base.mul_f64(0.8) && last <= base);
            let most = Duration::from_secs(30);
            prop_assert!(exponential(base, most, failures, random) <= most);
        }
    }

    #[test]
    fn doubles_up_to_the_most() {
        let waits: Vec<_> = (1..=4)
            .map(|n| exponential(Duration::from_secs(1), Duration::from_secs(5), n, 0.0).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 5]);
    }
}
