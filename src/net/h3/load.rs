//! What the streams of a QUIC connection cost beside what is answered, all of them together: quinn and
//! h3 count none of it.
//!
//! Pure: no clock, no lock, no task.

use std::time::Instant;

use crate::limits::{Bucket, Limit};

/// How much of field sections that have come in part may be held.
const HALF_SENT: usize = 256 << 10;

/// What a connection has cost.
#[derive(Debug)]
pub(super) struct Load {
    half_sent: usize,
    frames: Bucket,
    unidirectional: Bucket,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            half_sent: 0,
            // Browsers send a PRIORITY_UPDATE with each request.
            frames: Bucket::new(Limit::Http3Frames, 8192, 256, now),
            // A browser has three, and perhaps one of a type that nobody knows.
            unidirectional: Bucket::new(Limit::Http3UniStreams, 32, 1, now),
        }
    }

    /// Of a field section `held` bytes are there, where `before` were.
    ///
    /// # Errors
    ///
    /// When there is too much with those of other streams.
    pub(super) fn half_sent(&mut self, before: usize, held: usize) -> Result<(), Limit> {
        self.half_sent = self.half_sent - before + held;
        if held > before && self.half_sent > HALF_SENT {
            return Err(Limit::Http3HalfSent);
        }
        Ok(())
    }

    /// Frames came that are no part of a request.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub(super) fn frames(&mut self, count: usize, now: Instant) -> Result<(), Limit> {
        self.frames.take(count, now)
    }

    /// The peer opened a unidirectional stream.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub(super) fn unidirectional_stream(&mut self, now: Instant) -> Result<(), Limit> {
        self.unidirectional.take(1, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_in_part_is_bounded_over_all_streams() {
        let mut load = Load::new(crate::clock::now());
        for _ in 0..16 {
            assert_eq!(load.half_sent(0, 16 << 10), Ok(()));
        }
        assert_eq!(load.half_sent(0, 1), Err(Limit::Http3HalfSent));
        assert_eq!(load.half_sent(1, 0), Ok(()));
        assert_eq!(load.half_sent(16 << 10, 0), Ok(()));
        assert_eq!(load.half_sent(0, 16 << 10), Ok(()));
    }

    #[test]
    fn frames_and_streams_have_their_pace() {
        let now = crate::clock::now();
        let mut load = Load::new(now);
        assert_eq!(load.frames(8192, now), Ok(()));
        assert_eq!(load.frames(0, now), Ok(()));
        assert_eq!(load.frames(1, now), Err(Limit::Http3Frames));
        for _ in 0..32 {
            assert_eq!(load.unidirectional_stream(now), Ok(()));
        }
        assert_eq!(load.unidirectional_stream(now), Err(Limit::Http3UniStreams));
    }
}
