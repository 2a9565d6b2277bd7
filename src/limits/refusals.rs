//! How long those are asked to stay away who cannot be let in: twice as long each time that they come
//! back in vain.
//!
//! Pure: the clock and chance are the caller's.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

use crate::backoff;

/// The longest that anyone is asked to wait.
const LONGEST: Duration = Duration::from_secs(300);
/// How long a refusal is remembered of one who was to come back, and does not.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many are remembered; of more the oldest are forgotten, who then wait less.
const MOST: usize = 100_000;

/// Who was refused of late.
#[derive(Debug)]
pub(crate) struct Refusals<K> {
    rounds: HashMap<K, Round>,
    /// In the order of their rounds; one that came back since is in it more than once.
    order: VecDeque<(Instant, K)>,
}

/// The requests that come together, as those of a page with many streams do: they are one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    began: Instant,
    /// The range that times are drawn from, of which the upper half is used.
    range: Duration,
}

impl<K> Default for Refusals<K> {
    fn default() -> Self {
        Self {
            rounds: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Refusals<K> {
    /// How long one waits who is refused now, for whom `usual` is the usual time; `random` is in 0..1.
    pub(crate) fn refuse(
        &mut self,
        who: K,
        usual: Duration,
        now: Instant,
        random: f64,
    ) -> Duration {
        self.forget_older(now);
        let range = match self.rounds.get(&who) {
            // Nobody was told to come back before half of the range: it is the same round.
            Some(round) if now < round.began + round.range / 2 => round.range,
            last => {
                let range = last.map_or(2 * usual, |last| 2 * last.range);
                let range = range.min(LONGEST.max(usual));
                let round = Round { began: now, range };
                self.rounds.insert(who.clone(), round);
                self.order.push_back((now, who));
                range
            }
        };
        range / 2 + backoff::within(range / 2, random)
    }

    /// One was let in.
    pub(crate) fn forget(&mut self, who: &K) {
        if !self.rounds.is_empty() {
            self.rounds.remove(who);
        }
    }

    fn forget_older(&mut self, now: Instant) {
        while let Some((began, who)) = self.order.front()
            && (now.saturating_duration_since(*began) > REMEMBERED || self.order.len() >= MOST)
        {
            let is_last = self
                .rounds
                .get(who)
                .is_some_and(|round| round.began == *began);
            if is_last {
                self.rounds.remove(who);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_secs(18);

    #[test]
    fn each_round_in_vain_doubles_the_range_up_to_five_minutes() {
        let mut now = crate::clock::now();
        let mut refusals = Refusals::default();
        let mut ranges = Vec::new();
        for _ in 0..7 {
            // A page with many streams is refused once.
            let (least, most) = (
                refusals.refuse("a", USUAL, now, 0.0),
                refusals.refuse("a", USUAL, now + Duration::from_secs(1), 1.0),
            );
            ranges.push((least.as_secs(), most.as_secs()));
            now += least;
        }
        let expected = [(18, 36), (36, 72), (72, 144), (144, 288), (150, 300)];
        assert_eq!(ranges[..5], expected);
        assert_eq!(ranges[6], (150, 300));
        assert_eq!(refusals.refuse("b", USUAL, now, 0.0), USUAL);
        refusals.forget(&"a");
        assert_eq!(refusals.refuse("a", USUAL, now, 0.0), USUAL);
    }

    #[test]
    fn no_more_are_remembered_than_may_be() {
        let now = crate::clock::now();
        let mut refusals = Refusals::default();
        for who in 0..MOST + 5 {
            refusals.refuse(who, USUAL, now, 0.5);
        }
        assert!(refusals.rounds.len() <= MOST && refusals.order.len() <= MOST);
        refusals.refuse(MOST + 9, USUAL, now + REMEMBERED + USUAL, 0.5);
        assert_eq!((refusals.rounds.len(), refusals.order.len()), (1, 1));
    }
}
