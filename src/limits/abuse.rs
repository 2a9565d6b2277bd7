//! Whether a peer only keeps the edge busy.

use super::Limit;

/// How many of the last requests are looked at.
const WINDOW: u32 = 200;
/// How many of them may be cancelled before they were answered, if that is half of them.
const CANCELLED: u32 = 100;
/// What a peer may send beside its requests and what it takes, as nginx has it: an eighth of all
/// it sends must not pass what is useful by more than this.
const USELESS_BYTES: u64 = 1 << 20;

/// What is known of a peer's manners: h2 limits none of this (resets after accept, PING, SETTINGS,
/// WINDOW_UPDATE, PRIORITY).
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    requests: u32,
    cancelled: u32,
    answered: u64,
}

impl Conduct {
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
    pub(crate) fn judge(&self, received: u64, useful: u64) -> Option<Limit> {
        // A request may be up to 16 KiB of header; its answer counts as worth that.
        let worth = useful + self.answered * (16 << 10);
        if self.cancelled >= CANCELLED && self.cancelled * 2 >= self.requests {
            Some(Limit::CancelledRequests)
        } else if received / 8 > worth + USELESS_BYTES {
            Some(Limit::UselessBytes)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_cancelled_in_a_row_are_too_many_and_a_page_left_often_is_not() {
        let mut rude = Conduct::default();
        for _ in 0..99 {
            rude.request(true);
            assert_eq!(rude.judge(0, 0), None);
        }
        rude.request(true);
        assert_eq!(rude.judge(0, 0), Some(Limit::CancelledRequests));

        let mut polite = Conduct::default();
        for n in 0..10_000 {
            polite.request(n % 3 == 0);
            assert_eq!(polite.judge(0, 0), None);
        }
    }

    #[test]
    fn bytes_that_lead_to_nothing_are_bounded() {
        let noisy = Conduct::default();
        assert_eq!(noisy.judge(8 << 20, 0), None);
        assert_eq!(noisy.judge(9 << 20, 0), Some(Limit::UselessBytes));
        assert_eq!(noisy.judge(9 << 20, 1 << 20), None);
    }
}
