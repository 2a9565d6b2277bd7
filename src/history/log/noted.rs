//! What an index is told of an entry.
//!
//! Pure: no clock, no lock, no task.

use smallvec::SmallVec;

use super::index::Index;
use crate::{history::record::Kind, hub::Entry, topic::Topic};

/// What is remembered of an entry while the hub applies it.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) sequence: u64,
    /// Where it stands.
    pub(super) offset: u64,
    /// The topic that it deletes.
    pub(super) deletion: Option<Topic>,
    /// The number of the event that it takes back.
    pub(super) taken: Option<u64>,
    /// Readers find it, by these topics: none that waits, as it goes out under another number.
    topics: SmallVec<[u64; 1]>,
    /// When its turn is, in unix ms, if it waits for it.
    turn: Option<u64>,
    /// It is known if it comes again.
    is_identified: bool,
}

impl Noted {
    /// An entry with its number and offset.
    pub(super) fn new(sequence: u64, offset: u64) -> Self {
        Self {
            sequence,
            offset,
            deletion: None,
            taken: None,
            topics: SmallVec::new(),
            turn: None,
            is_identified: false,
        }
    }

    /// What the entry is.
    pub(super) fn of(self, entry: &Entry, taken: Option<u64>) -> Self {
        let deletion = match entry {
            Entry::Delete(topic) => Some(topic.clone()),
            _ => None,
        };
        Self {
            deletion,
            taken,
            ..self
        }
    }

    /// An event, which is found by topics with these hashes once it goes out.
    pub(super) fn found_by(self, kind: Kind, topics: SmallVec<[u64; 1]>) -> Self {
        match kind {
            Kind::Event | Kind::Release => Self { topics, ..self },
            _ => self,
        }
    }

    /// When its turn is, if it waits.
    pub(super) fn with_turn(self, turn: Option<u64>) -> Self {
        Self { turn, ..self }
    }

    /// Whether it is known if it comes again.
    pub(super) fn identified(self, is_identified: bool) -> Self {
        Self {
            is_identified,
            ..self
        }
    }

    /// Has an index know it.
    pub(super) fn put_into(&self, index: &mut Index) {
        let front = &mut index.front;
        front.next = self.sequence + 1;
        front.identified += u64::from(self.is_identified);
        front.last_turn = front.last_turn.max(self.turn.unwrap_or(0));
        let deletion = self.deletion.clone();
        front
            .deletes
            .extend(deletion.map(|topic| (topic, self.sequence)));
        front.retracts.extend(self.taken);
        for topic in &self.topics {
            index.add(*topic, self.sequence, self.offset);
        }
    }
}
