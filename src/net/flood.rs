//! Whether a peer only keeps the edge busy. Pure.

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
pub(super) struct Flood {
    requests: u32,
    cancelled: u32,
    answered: u64,
}

impl Flood {
    /// Notes that a request was answered, and whether its client had left before.
    pub(super) fn request(&mut self, cancelled: bool) {
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
    pub(super) fn check(&self, received: u64, useful: u64) -> Option<&'static str> {
        // A request may be up to 16 KiB of header; its answer counts as worth that.
        let worth = useful + self.answered * (16 << 10);
        if self.cancelled >= CANCELLED && self.cancelled * 2 >= self.requests {
            Some("cancelled_requests")
        } else if received / 8 > worth + USELESS_BYTES {
            Some("useless_bytes")
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
        let mut flood = Flood::default();
        for _ in 0..99 {
            flood.request(true);
            assert_eq!(flood.check(0, 0), None);
        }
        flood.request(true);
        assert_eq!(flood.check(0, 0), Some("cancelled_requests"));

        let mut polite = Flood::default();
        for n in 0..10_000 {
            polite.request(n % 3 == 0);
            assert_eq!(polite.check(0, 0), None);
        }
    }

    #[test]
    fn bytes_that_lead_to_nothing_are_bounded() {
        let flood = Flood::default();
        assert_eq!(flood.check(8 << 20, 0), None);
        assert_eq!(flood.check(9 << 20, 0), Some("useless_bytes"));
        assert_eq!(flood.check(9 << 20, 1 << 20), None);
    }
}
