//! When the keepalives of a stream are due.

use std::time::{Duration, Instant};

use crate::{backoff, clock, hub::StreamHandle};

/// When the next keepalive of a stream is due: at the beat of its connection, each keepalive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat(Instant);

impl Beat {
    /// The first after `now`.
    pub(crate) fn of(stream: &StreamHandle, keepalive: Duration, now: Instant) -> Self {
        let phase = stream.mailbox().phase();
        Self(backoff::next_beat(clock::origin(), now, keepalive, phase))
    }

    /// The moment.
    pub(crate) fn due(self) -> Instant {
        self.0
    }

    /// Something was sent, which does for a keepalive that was due by `now`.
    pub(crate) fn pass(&mut self, keepalive: Duration, now: Instant) {
        if self.0 <= now {
            self.0 = backoff::next_beat(self.0, now, keepalive, 0.0);
        }
    }

    /// The keepalive goes out, perhaps a little before its time: not for the same beat twice.
    pub(crate) fn keep(&mut self, keepalive: Duration, now: Instant) {
        self.pass(keepalive, now.max(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::mailbox::Mailbox;

    #[test]
    fn each_beat_has_one_keepalive() {
        let stream = Mailbox::new([127, 0, 0, 1].into()).open();
        let (keepalive, now) = (Duration::from_secs(15), clock::now());
        let mut beat = Beat::of(&stream, keepalive, now);
        let first = beat.due();
        assert!(now < first && first <= now + keepalive);
        // What is sent before it is due changes nothing.
        beat.pass(keepalive, now);
        assert_eq!(beat.due(), first);
        // It goes out early, and something is sent before its time.
        let early = first - Duration::from_millis(1);
        beat.keep(keepalive, early);
        beat.pass(keepalive, early);
        assert_eq!(beat.due(), first + keepalive);
        // Long after, it is on the beat still.
        beat.pass(keepalive, first + keepalive * 7);
        assert_eq!(beat.due(), first + keepalive * 8);
    }
}
