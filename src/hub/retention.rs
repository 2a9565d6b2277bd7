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
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events: 1000,
            age: Duration::from_secs(3600),
            topic_bytes: 1 << 20,
            total_bytes: 256 << 20,
        }
    }
}
