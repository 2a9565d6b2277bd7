//! How much history is kept.

use std::time::Duration;

/// `[history]`: the bounds of the rings, all of them on by default.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// `history.events`: the most events a topic keeps.
    pub events: usize,
    /// `history.age`: how long an event is kept.
    pub age: Duration,
    /// `history.topic_bytes`: the most bytes a topic keeps.
    pub topic_bytes: usize,
    /// `history.total_bytes`: the most bytes all topics keep together; the least recently
    /// published topics give way first.
    pub total_bytes: usize,
    /// `history.duplicates_age`: how long a publish is known again when it comes once more.
    pub duplicates_age: Duration,
    /// `history.duplicates`: the most keys and ids that are known again, about 120 bytes each.
    pub duplicates: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events: 1000,
            age: Duration::from_secs(3600),
            topic_bytes: 1 << 20,
            total_bytes: 256 << 20,
            duplicates_age: Duration::from_secs(120),
            duplicates: 100_000,
        }
    }
}
