//! Whether a peer only keeps the edge busy.

use std::time::Instant;

use super::{Bucket, Limit};

/// How many of the last requests are looked at.
const WINDOW: u32 = 200;
/// How many of them may be cancelled before they were answered, if that is half of them.
const CANCELLED: u32 = 100;
/// What a peer may send beside its requests and what it takes, as nginx has it: an eighth of all
/// it sends must not pass what is useful by more than this.
const USELESS_BYTES: u64 = 1 << 20;
/// What it may send of that more a second: an idle connection is asked whether it is there, and says
/// so.
const USELESS_BYTES_A_SECOND: u64 = 256;
/// How many times the event streams that it may have a peer may open at once: a page that is left and
/// comes back opens all of them anew.
const PAGES: usize = 4;

/// What is known of a peer's manners: h2 limits none of this (resets after accept, PING, SETTINGS,
/// WINDOW_UPDATE, PRIORITY).
#[derive(Debug)]
pub(crate) struct Conduct {
    begun: Instant,
    opens: Bucket,
    /// What its opens have passed.
    passed: Option<Limit>,
    requests: u32,
    cancelled: u32,
    answered: u64,
}

impl Conduct {
    /// That of a peer which may have so many event streams at a time.
    #[must_use]
    pub(crate) fn new(streams: usize, now: Instant) -> Self {
        Self {
            begun: now,
            opens: Bucket::new(
                Limit::StreamOpens,
                PAGES * streams,
                streams.div_ceil(PAGES),
                now,
            ),
            passed: None,
            requests: 0,
            cancelled: 0,
            answered: 0,
        }
    }

    /// Notes that an event stream was opened.
    pub(crate) fn opened(&mut self, now: Instant) {
        self.passed = self.passed.or(self.opens.take(1, now).err());
    }

    /// Notes that a request was answered, and whether its client had left before.
    pub(crate) fn request(&mut self, cancelled: bool) {
        if self.requests >= WINDOW {
            // Halved, so that the past fades.
            self.requests /= 2;
            self.cancelled /= 2;
        }
        self.requests += 1;
        self.cancelled += u32::from(cancelled);
        self.answered += u64::from(!cancelled);
    }

    /// The limit that the peer has passed, which has sent `received` bytes and taken `useful`.
    #[must_use]
    pub(crate) fn judge(&self, received: u64, useful: u64, now: Instant) -> Option<Limit> {
        // A request may be up to 16 KiB of header; its answer counts as worth that.
        let worth = useful + self.answered * (16 << 10);
        let seconds = now.saturating_duration_since(self.begun).as_secs();
        let allowed = USELESS_BYTES + seconds * USELESS_BYTES_A_SECOND;
        if self.passed.is_some() {
            self.passed
        } else if self.cancelled >= CANCELLED && self.cancelled * 2 >= self.requests {
            Some(Limit::CancelledRequests)
        } else if received / 8 > worth + allowed {
            Some(Limit::UselessBytes)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_hundred_cancelled_in_a_row_are_too_many_and_a_page_left_often_is_not() {
        let now = crate::clock::now();
        let mut rude = Conduct::new(10, now);
        for _ in 0..99 {
            rude.request(true);
            assert_eq!(rude.judge(0, 0, now), None);
        }
        rude.request(true);
        assert_eq!(rude.judge(0, 0, now), Some(Limit::CancelledRequests));

        let mut polite = Conduct::new(10, now);
        for n in 0..10_000 {
            polite.request(n % 3 == 0);
            assert_eq!(polite.judge(0, 0, now), None);
        }
    }

    #[test]
    fn bytes_that_lead_to_nothing_are_bounded() {
        let now = crate::clock::now();
        let noisy = Conduct::new(10, now);
        let judge = |received, useful| noisy.judge(received, useful, now);
        assert_eq!(judge(8 << 20, 0), None);
        assert_eq!(judge(9 << 20, 0), Some(Limit::UselessBytes));
        assert_eq!(judge(9 << 20, 1 << 20), None);
        let later = now + Duration::from_secs(3600);
        assert_eq!(noisy.judge(9 << 20, 0, later), None);
    }

    #[test]
    fn a_page_may_come_back_with_all_its_streams_but_not_for_ever() {
        let now = crate::clock::now();
        let mut conduct = Conduct::new(1000, now);
        for _ in 0..4000 {
            conduct.opened(now);
        }
        assert_eq!(conduct.judge(0, 0, now), None);
        let later = now + Duration::from_secs(4);
        for _ in 0..1000 {
            conduct.opened(later);
        }
        assert_eq!(conduct.judge(0, 0, later), None);
        conduct.opened(later);
        assert_eq!(conduct.judge(0, 0, later), Some(Limit::StreamOpens));
    }
}
