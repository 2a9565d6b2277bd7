//! What whoever put in an entry is told.

use serde::Serialize;
use thiserror::Error;

use crate::hub::{Applied, Hub, Repeat};

/// What an entry that is stored survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Nothing: it goes with the process.
    Memory,
    /// The end of the process, and not that of the machine.
    Written,
    /// Both: it is on disk.
    Disk,
    /// The end of any one machine: several NATS servers have it.
    Replicated,
}

/// What whoever put in an entry is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The id under which it can be resumed after: the publisher's own, or its place.
    pub id: String,
    /// The number of its entry, or of the one that it repeats.
    pub sequence: u64,
    /// The event streams of this edge that it went to, told, or ended, each counted once; `None` if it is not applied here.
    pub receivers: Option<usize>,
    /// The events that it took out of history; `None` when what it names is not there.
    pub removed: Option<usize>,
    /// An event that was published before under `id`; it was not published again.
    pub duplicate: bool,
    /// It waits for its turn, in topics with an interval, and has gone to nobody yet.
    pub deferred: bool,
    /// What it survives.
    pub durability: Durability,
}

impl Receipt {
    /// That of an entry that was applied under a number, and has an id of its publisher's or not.
    pub(super) fn of(
        hub: &Hub,
        sequence: u64,
        own_id: Option<Box<str>>,
        applied: &Applied,
        durability: Durability,
    ) -> Result<Self, NotStored> {
        let (sequence, duplicate) = match applied.repeat {
            None => (sequence, false),
            Some(Repeat::Of(first)) => (first, true),
            Some(Repeat::OfKey) => return Err(NotStored::KeyReused),
        };
        Ok(Self {
            id: own_id.map_or_else(|| hub.id(sequence).to_string(), Into::into),
            sequence,
            receivers: Some(applied.receivers),
            removed: applied.removed,
            duplicate,
            deferred: applied.deferred,
            durability,
        })
    }
}

/// Why an entry is not in the order.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotStored {
    /// Its key is that of another request.
    #[error(
        "the Idempotency-Key was given for another request of late; make a new one for each event"
    )]
    KeyReused,
    /// More is handed over than the disk takes.
    #[error("more is published than can be stored; wait and send it again")]
    Busy,
    /// There is no room for it.
    #[error(
        "there is no room for more history: make room on the disk (history.directory), or lower history.disk.bytes; in a \
         cluster, on the NATS servers"
    )]
    Full,
    /// The disk fails.
    #[error(
        "history cannot be written, so nothing is taken: {0}; the operator has to look after it"
    )]
    Failed(String),
    /// It may be stored, or not.
    #[error(
        "what keeps history failed in the middle: it may be stored, or not; send it again with the same Idempotency-Key \
         or id, after a failed disk once the edge was started again"
    )]
    Unknown,
    /// No server has the order just now.
    #[error(
        "no NATS server has the order of the cluster just now, so nothing is taken (cluster.nats); send it again in a moment"
    )]
    Away,
    /// It does not fit into a message.
    #[error(
        "with its topics it is {bytes} bytes long, and a cluster takes {limit}; publish it to fewer topics or users at a \
         time, or put less into it"
    )]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// What would be taken.
        limit: usize,
    },
    /// The edge ends.
    #[error("the edge is ending; send it again")]
    Ending,
}
