//! Whether an upstream is fit to be asked. Pure.

use std::time::{Duration, Instant};

use crate::backoff;

/// How long an upstream is left alone after it has failed for the first time, and at most.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// How many failures in a row it takes, where one may be the request's fault.
const FAILURES: u32 = 3;

/// What is known of one upstream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    /// Failures since it has last answered.
    failures: u32,
    /// How often it was left alone since.
    rests: u32,
    /// Until when it is left alone.
    until: Option<Instant>,
    /// Someone asks it whether it is back.
    probing: bool,
    /// What it last answered to its health path.
    unwell: bool,
}

/// Whether an upstream may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitness {
    Up,
    /// It has rested: one request is to find out.
    Probe,
    Out,
}

impl Health {
    pub(super) fn fitness(&self, now: Instant) -> Fitness {
        match self.until {
            _ if self.unwell => Fitness::Out,
            None => Fitness::Up,
            Some(until) if until <= now && !self.probing => Fitness::Probe,
            Some(_) => Fitness::Out,
        }
    }

    /// A request goes to it, to find out whether it is back.
    pub(super) fn probed(&mut self) {
        self.probing = true;
    }

    /// The one who asked has left before there was an answer.
    pub(super) fn abandoned(&mut self) {
        self.probing = false;
    }

    pub(super) fn answered(&mut self) {
        *self = Self {
            unwell: self.unwell,
            ..Self::default()
        };
    }

    /// It could not be reached, or it has not answered as it should.
    pub(super) fn failed(&mut self, now: Instant, unreachable: bool) {
        self.failures += 1;
        if unreachable || self.failures >= FAILURES || self.until.is_some() {
            self.rests = self.rests.saturating_add(1);
            let rest = backoff::exponential(FIRST_REST, LONGEST_REST, self.rests, 0.0);
            self.until = Some(now + rest);
        }
        self.probing = false;
    }

    /// What it has answered to its health path. Whether that is another answer than before.
    pub(super) fn checked(&mut self, well: bool) -> bool {
        let changed = std::mem::replace(&mut self.unwell, !well) == well;
        if well {
            self.answered();
        }
        changed
    }

    /// When it may be asked again; the sooner, the better a choice where all are out.
    pub(super) fn back(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn out_after_failures_and_back_after_a_probe() {
        let now = clock::now();
        let mut health = Health::default();
        health.failed(now, false);
        health.failed(now, false);
        assert_eq!(health.fitness(now), Fitness::Up);
        health.failed(now, false);
        assert_eq!(health.fitness(now), Fitness::Out);
        let later = now + FIRST_REST;
        assert_eq!(health.fitness(later), Fitness::Probe);
        health.probed();
        assert_eq!(health.fitness(later), Fitness::Out);
        health.abandoned();
        assert_eq!(health.fitness(later), Fitness::Probe);
        health.failed(later, false);
        assert_eq!(health.fitness(later + FIRST_REST), Fitness::Out);
        assert_eq!(health.fitness(later + 2 * FIRST_REST), Fitness::Probe);
        health.answered();
        assert_eq!(health.fitness(later), Fitness::Up);
    }

    #[test]
    fn one_that_cannot_be_reached_is_out_at_once_and_never_for_long() {
        let mut now = clock::now();
        let mut health = Health::default();
        for _ in 0..20 {
            health.failed(now, true);
            assert_eq!(health.fitness(now), Fitness::Out);
            now += LONGEST_REST;
            assert_eq!(health.fitness(now), Fitness::Probe);
        }
    }

    #[test]
    fn an_unwell_one_is_out_until_it_says_otherwise() {
        let now = clock::now();
        let mut health = Health::default();
        assert!(health.checked(false));
        health.answered();
        assert_eq!(health.fitness(now), Fitness::Out);
        assert!(health.checked(true) && !health.checked(true));
        assert_eq!(health.fitness(now), Fitness::Up);
    }
}
