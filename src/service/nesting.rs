//! Which groups are nested in which by the word of all edges of a cluster.

use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

/// Whether somebody is in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Membership {
    pub(super) group: String,
    pub(super) member: String,
    pub(super) is_in: bool,
}

impl Membership {
    /// Whether it is about the same member and group.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (&self.group, &self.member) == (&other.group, &other.member)
    }
}

/// What was changed, in its order, and which of all facts says so.
#[derive(Debug, Default)]
pub(crate) struct Nesting(Mutex<(Vec<Membership>, u64)>);

impl Nesting {
    pub(super) fn lock(&self) -> MutexGuard<'_, (Vec<Membership>, u64)> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
