//! How often clients of one address may do what costs much.
//!
//! Pure: the clock is the caller's.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash},
    time::Instant,
};

use super::{Bound, Bucket, Limit};

/// How many are known before it is looked whose time is over.
const FEW: usize = 1024;

/// A bucket for each who comes.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    per_second: Bound<usize>,
    /// How many seconds' worth may come at once.
    burst: usize,
    buckets: HashMap<K, Bucket>,
    /// At so many it is looked whose time is over.
    clean_at: usize,
}

impl<K: Eq + Hash> Rates<K> {
    /// So often a second for each, `burst` seconds' worth of it at once.
    pub(crate) fn new(per_second: Bound<usize>, burst: usize) -> Self {
        Self {
            per_second,
            burst,
            buckets: HashMap::new(),
            clean_at: FEW,
        }
    }

    /// Whether one may do it once more.
    ///
    /// # Errors
    ///
    /// The limit, when it does so too often.
    pub(crate) fn check(&self, who: &K, now: Instant) -> Result<(), Limit> {
        let bucket = self.buckets.get(who);
        bucket.map_or(Ok(()), |bucket| bucket.clone().take(1, now))
    }

    /// One does it once more.
    ///
    /// # Errors
    ///
    /// The limit, when it does so too often.
    pub(crate) fn take(&mut self, who: K, now: Instant) -> Result<(), Limit> {
        self.take_many(who, 1, now)
    }

    /// One does it so many times more: all of them, or none.
    ///
    /// # Errors
    ///
    /// The limit, when that is too often.
    pub(crate) fn take_many(&mut self, who: K, times: usize, now: Instant) -> Result<(), Limit> {
        if self.buckets.len() >= self.clean_at {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            self.buckets.shrink_to(2 * self.buckets.len());
            self.clean_at = FEW.max(2 * self.buckets.len());
        }
        let Bound { limit, value } = self.per_second;
        let burst = value.saturating_mul(self.burst);
        let bucket = self.buckets.entry(who);
        let bucket = bucket.or_insert_with(|| Bucket::new(limit, burst, value, now));
        bucket.take(times, now)
    }
}

/// What stands for one who is told from others by a text that is long, or a secret.
pub(crate) fn digest(text: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_has_its_own_and_those_of_the_past_are_forgotten() {
        let now = crate::clock::now();
        let bound = Bound {
            limit: Limit::ConnectionRate,
            value: 2,
        };
        let mut rates = Rates::new(bound, 3);
        for n in 0..6 {
            assert!(rates.take(1, now).is_ok(), "{n}");
        }
        assert_eq!(rates.take(1, now), Err(Limit::ConnectionRate));
        for who in 2..5000 {
            assert!(rates.take(who, now).is_ok());
        }
        let later = now + Duration::from_secs(3);
        for who in 5000..20_000 {
            assert!(rates.take(who, later).is_ok());
        }
        assert!(!rates.buckets.contains_key(&3), "{}", rates.buckets.len());
        assert!(rates.take(1, later).is_ok());
    }
}
