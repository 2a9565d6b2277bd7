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
}

/// Why an entry has no place in the order. Memory takes every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotStored {}
