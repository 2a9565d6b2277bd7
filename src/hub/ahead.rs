//! Readers that come with the id of an event which this hub has not applied yet: an edge that is a moment ahead gave
//! it to them. They wait for it, and are told so if it is of nothing that is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::mailbox::{Mailbox, StreamHandle};
use crate::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// How long an id may be ahead of all that there is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Numbers have this many bits for a place within a frame that all hubs of the order apply; the upper half of the
/// places is each hub's own, for what is of the moment.
pub const PLACE_BITS: u32 = 10;
/// The first place within a frame that is each hub's own.
pub const OWN_PLACES: u64 = 1 << (PLACE_BITS - 1);

/// The last number of the frame that a number is of, but for those that are each hub's own.
#[must_use]
pub fn end_of_frame(number: u64) -> u64 {
    (number >> PLACE_BITS << PLACE_BITS) | (OWN_PLACES - 1)
}

/// The last number of the frame before the one that a number is of, but for those that are each hub's own.
#[must_use]
pub fn floor_before(number: u64) -> u64 {
    end_of_frame((number >> PLACE_BITS << PLACE_BITS).saturating_sub(1))
}

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<Vec<Waiting>>);

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// The number that it came with.
    number: u64,
    mailbox: Arc<Mailbox>,
    key: u32,
    is_unknown: Arc<AtomicBool>,
}

/// What is held by one who waits.
#[derive(Debug)]
pub(super) struct Awaited(Arc<AtomicBool>);

impl Awaited {
    /// Whether there is nothing of the number that it came with.
    pub(super) fn is_unknown(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Ahead {
    /// A stream came with a number that is ahead.
    pub(super) fn wait(&self, number: u64, stream: &StreamHandle, now: Instant) -> Awaited {
        let is_unknown = Arc::new(AtomicBool::new(false));
        let waiting = Waiting {
            since: now,
            number,
            mailbox: stream.mailbox().clone(),
            key: stream.key(),
            is_unknown: is_unknown.clone(),
        };
        self.0
            .lock()
            .expect("no holder of this lock panics")
            .push(waiting);
        Awaited(is_unknown)
    }

    /// There is nothing behind this number: who has waited long enough for something that is, is told; and all up to another
    /// is there, which who waited for it has to look at.
    pub(super) fn settle(&self, end: u64, reached: u64, now: Instant) {
        let mut told = Vec::new();
        let mut all = self.0.lock().expect("no holder of this lock panics");
        all.retain(|waiting| {
            // The stream has ended, or has what it waited for.
            if Arc::strong_count(&waiting.is_unknown) == 1 {
                return false;
            }
            let is_over = now.saturating_duration_since(waiting.since) >= PATIENCE;
            let is_unknown = is_over && waiting.number > end;
            // What it waited for may have come without anything for it.
            if is_unknown || waiting.number <= reached {
                waiting.is_unknown.store(is_unknown, Ordering::Release);
                told.push((waiting.mailbox.clone(), waiting.key));
            }
            !is_unknown
        });
        drop(all);
        for (mailbox, key) in told {
            mailbox.nudge(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_before_what_is_each_hubs_own() {
        assert_eq!(end_of_frame(0), 511);
        assert_eq!(end_of_frame(5 << 10 | 3), 5 << 10 | 511);
        assert_eq!(end_of_frame(5 << 10 | 511), 5 << 10 | 511);
        assert_eq!(end_of_frame(5 << 10 | 900), 5 << 10 | 511);
        assert_eq!(floor_before(5 << 10), 4 << 10 | 511);
        assert_eq!(floor_before(5 << 10 | 511), 4 << 10 | 511);
        assert_eq!(floor_before(1 << 10), 511);
        assert_eq!(floor_before(0), 511);
    }
}
