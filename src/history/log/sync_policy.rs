//! When what is written is synced, and what may be said of it then.
//!
//! Pure: no clock, no lock, no task.

use std::time::Duration;

use crate::history::Durability;

/// When what is written is synced (`history.sync`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before anyone sees it or is told so.
    #[default]
    Always,
    /// So often.
    Every(Duration),
    /// When the system likes.
    Never,
}

impl SyncPolicy {
    /// What may be said of what is stored.
    pub(super) fn durability(self) -> Durability {
        match self {
            Self::Always => Durability::Disk,
            Self::Every(_) | Self::Never => Durability::Written,
        }
    }
}
