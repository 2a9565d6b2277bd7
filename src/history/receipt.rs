//! What whoever put in an entry is told.

use thiserror::Error;

/// What whoever put in an entry is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The id under which it can be resumed after: the publisher's own, or its place.
    pub id: String,
    /// The event streams that it went to, told, or ended, each counted once.
    pub receivers: usize,
    /// The events that it took out of history; `None` when what it names is not there.
    pub removed: Option<usize>,
    /// An event that was published before under `id`; it was not published again.
    pub duplicate: bool,
    /// It waits for its turn, in topics with an interval, and has gone to nobody yet.
    pub deferred: bool,
}

/// Why an entry is not in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotStored {
    /// Its key is that of another request.
    #[error(
        "the Idempotency-Key was given for another request of late; make a new one for each event"
    )]
    KeyReused,
}
