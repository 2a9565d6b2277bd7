//! What is put into the one order, and what came of it.

use std::time::{Duration, Instant};

use super::{
    Identity, Repeat,
    mailbox::Wakes,
    pace::Released,
    stored::{Series, Terms},
};
use crate::{sse::Draft, topic::Topic};

/// How many entries are applied, or topics prepared, under one hold of the lock.
pub(super) const UNDER_ONE_LOCK: usize = 64;

/// What is put into the one order. Everything that must look alike to all readers is one.
#[derive(Debug)]
pub enum Entry {
    /// An event.
    Event {
        /// All of it but its id line, which is written when its number is known.
        draft: Draft,
        /// For whom it is.
        target: Target,
    },
    /// The history of a topic goes, and its readers are told.
    Delete(Topic),
    /// One event is taken back: who comes to it from now on does not get it.
    Retract {
        /// Where it is looked for: it is taken out of all topics that hold it.
        topics: Box<[Topic]>,
        /// Its id, the edge's or its publisher's own.
        id: Box<str>,
    },
    /// An event that waited for its turn in topics with an interval goes out, if it still does wait.
    Release {
        /// The topics that it waits in.
        topics: Box<[Topic]>,
        /// The event as it waits.
        waiting: Released,
    },
    /// This topic is finished until something is published to it: streams end that read no other.
    Close(Topic),
    /// The streams end that read this topic and began before: a user's, by their reserved topic.
    Disconnect(Topic),
}

/// For whom an event is, and under which id.
#[derive(Debug, Default)]
pub struct Target {
    /// The topics that it is published to. A stream that reads several of them gets it once.
    pub topics: Vec<Topic>,
    /// If given, only streams get it that read one of these as well.
    pub to: Option<Vec<Topic>>,
    /// The publisher's own id, checked with [`crate::sse::validate_id`].
    pub id: Option<Box<str>>,
    /// By what it is known if it comes again.
    pub identity: Identity,
    /// Of what it is the newest state, in each of its topics.
    pub key: Option<Box<str>>,
    /// How long it is given to anyone.
    pub ttl: Option<Duration>,
    /// Only those are given it who read already: it is not kept.
    pub is_live_only: bool,
}

impl Entry {
    /// The topics that are made known ahead of its turn ([`Hub::prepare`](super::Hub::prepare)): of an event that goes
    /// to many.
    #[must_use]
    pub fn prepared(&self) -> &[Topic] {
        match self {
            Self::Event { target, .. } if target.topics.len() > UNDER_ONE_LOCK => &target.topics,
            _ => &[],
        }
    }

    /// The id that its publisher gave it.
    #[must_use]
    pub fn own_id(&self) -> Option<Box<str>> {
        match self {
            Self::Event { target, .. } => target.id.clone(),
            _ => None,
        }
    }
}

impl Target {
    /// Of what it is the newest state.
    pub(super) fn series(&self) -> Series {
        let to = self.to.clone().map(|mut to| {
            to.sort_unstable();
            to.dedup();
            to.into()
        });
        Series {
            key: self.key.clone(),
            to,
            is_live_only: self.is_live_only,
        }
    }

    /// On what terms it is kept that is published now.
    pub(super) fn terms(&self, now: Instant) -> Terms {
        Terms {
            series: self.series(),
            until: self.ttl.and_then(|ttl| now.checked_add(ttl)),
            published: None,
        }
    }

    /// Whether what is published now is given to anyone then.
    pub(super) fn is_there_at(&self, now: Instant, then: Instant) -> bool {
        let until = self.ttl.and_then(|ttl| now.checked_add(ttl));
        until.is_none_or(|until| until > then)
    }
}

/// An entry with its place in the order.
#[derive(Debug)]
pub struct Placed {
    /// Its number, above that of every entry before it.
    pub sequence: u64,
    /// When it was placed, not before any entry before it.
    pub at: Instant,
    /// The entry.
    pub entry: Entry,
    /// What of it is settled.
    pub judged: Judged,
}

impl Placed {
    /// An entry with its place, of which all is settled when it is applied.
    #[must_use]
    pub fn new(sequence: u64, at: Instant, entry: Entry) -> Self {
        Self {
            sequence,
            at,
            entry,
            judged: Judged::NotYet,
        }
    }
}

/// Whether it is settled what becomes of an entry that depends on those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Judged {
    /// That is settled when it is applied.
    #[default]
    NotYet,
    /// It was ([`Hub::judge`](super::Hub::judge)), by all entries before it.
    Before(Verdict),
    /// It was applied before, and is read again; whether it waits, and until when.
    Again(Option<Instant>),
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What it repeats.
    pub repeat: Option<Repeat>,
    /// When it goes out, if topics with an interval put it off.
    pub turn: Option<Instant>,
}

/// What came of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The event streams that it went to, told, or ended, each counted once.
    pub receivers: usize,
    /// The events that it took out of history; `None` when what it names is not there.
    pub removed: Option<usize>,
    /// What it repeats: then nothing was done.
    pub repeat: Option<Repeat>,
    /// It waits for its turn, in topics with an interval, and has gone to nobody yet.
    pub deferred: bool,
    /// The number of the event that it took back.
    pub retracted: Option<u64>,
}

/// What came of a batch, entry by entry.
///
/// The connections that it concerns are woken when `wakes` is dropped: by then no lock may be held.
#[derive(Debug)]
pub struct Outcome {
    /// In the order of the batch.
    pub applied: smallvec::SmallVec<[Applied; 1]>,
    /// The connections to wake.
    pub wakes: Wakes,
}
