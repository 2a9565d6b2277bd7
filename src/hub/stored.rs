//! An event as the hub keeps it, and on what terms.
//!
//! Pure: no clock, no lock, no task. Callers pass `now` in.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::wire::{Ledger, Wire};
use crate::{
    sync::atomic::{AtomicU8, Ordering},
    topic::Topic,
};

/// What an event costs beside its bytes: its entry in the ring, the allocation's header.
pub(super) const OVERHEAD: usize = 96;
/// What the terms of an event cost beside their texts, and so does each topic that it is limited to.
const TERMS_OVERHEAD: usize = 48;
/// How long an event that is not kept waits for readers that are slow to take it.
pub(super) const LIVE: Duration = Duration::from_secs(10);

/// An event as the hub keeps it. Every topic and every reader shares one.
#[derive(Debug)]
pub struct Stored {
    /// Its number in the hub's one order, from 1.
    pub sequence: u64,
    /// When it was published.
    pub at: Instant,
    /// The id its publisher gave it, if any.
    pub id: Option<Box<str>>,
    /// The whole event; none when it was taken back.
    pub wire: Wire,
    /// Without any it is for everyone, for as long as it is held.
    pub terms: Option<Box<Terms>>,
    /// A [`Release`].
    pub(super) release: AtomicU8,
    /// Where its bytes are counted from the moment that it has left history.
    pub(super) ledger: Arc<Ledger>,
}

/// Whether an event of a topic with an interval has gone out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Release {
    /// It has, as all others do at once.
    Out,
    /// It waits for its turn: nobody is given it.
    Waiting,
    /// Another took its place: it is part of history and no more.
    PassedOver,
}

/// For whom an event is, and how long: few have any of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Of which it is the newest.
    pub series: Series,
    /// From this moment on nobody is given it.
    pub until: Option<Instant>,
    /// The number under which it was published, if it had to wait for another.
    pub published: Option<u64>,
}

/// Events of one topic of which each takes the place of the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Series {
    /// What its publisher calls it.
    pub key: Option<Box<str>>,
    /// For readers of one of these topics too, and no others, if given. Invariant: sorted.
    pub to: Option<Box<[Topic]>>,
    /// Only those are given it who read already: it takes no place of what is kept.
    pub is_live_only: bool,
}

/// The series of events that come without terms.
static PLAIN: Series = Series {
    key: None,
    to: None,
    is_live_only: false,
};

impl Terms {
    /// These, unless they say nothing.
    pub(super) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.ledger.add(&self.wire);
    }
}

impl Stored {
    /// Whether it was taken back: its number stays, so that all counts stay right.
    #[must_use]
    pub fn is_retracted(&self) -> bool {
        self.wire.is_empty()
    }

    /// The same event taken back.
    #[must_use]
    pub fn retracted(&self) -> Self {
        let mut retracted = self.taken_out();
        retracted.id.clone_from(&self.id);
        retracted
    }

    /// What stands in its place when it goes out under another number: its id is there then.
    pub(super) fn taken_out(&self) -> Self {
        Self {
            sequence: self.sequence,
            at: self.at,
            id: None,
            wire: Wire::none(),
            terms: self.terms.clone(),
            release: AtomicU8::new(self.release.load(Ordering::Relaxed)),
            ledger: self.ledger.clone(),
        }
    }

    /// Whether it has gone out, waits, or was passed over.
    pub(super) fn release(&self) -> Release {
        match self.release.load(Ordering::Acquire) {
            0 => Release::Out,
            1 => Release::Waiting,
            _ => Release::PassedOver,
        }
    }

    /// It has its turn later.
    pub(super) fn wait(&self) {
        self.release
            .store(Release::Waiting as u8, Ordering::Release);
    }

    /// Nobody waits for it any more.
    pub(super) fn pass_over(&self) {
        self.release
            .store(Release::PassedOver as u8, Ordering::Release);
    }

    /// The series that it belongs to.
    #[must_use]
    pub fn series(&self) -> &Series {
        self.terms.as_ref().map_or(&PLAIN, |terms| &terms.series)
    }

    /// For readers of one of these topics too, and no others, if given.
    #[must_use]
    pub fn to(&self) -> Option<&[Topic]> {
        self.series().to.as_deref()
    }

    /// Whether only those are given it who read already.
    #[must_use]
    pub fn is_live_only(&self) -> bool {
        self.series().is_live_only
    }

    /// Whether whoever loses it is told so.
    pub(super) fn is_counted(&self) -> bool {
        !self.is_live_only() && self.release() == Release::Out
    }

    /// From when on nobody is given it.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.terms.as_ref()?.until
    }

    /// Whether its time is over. `now` is asked for only if that depends on it.
    #[must_use]
    pub fn is_over(&self, now: impl FnOnce() -> Instant) -> bool {
        self.until().is_some_and(|until| until <= now())
    }

    /// From when on it need not be held.
    pub(super) fn end(&self) -> Option<Instant> {
        let live = self.is_live_only().then(|| self.at + LIVE);
        live.into_iter().chain(self.until()).min()
    }

    /// What it counts against the bounds, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        let id = self.id.as_ref().map_or(0, |id| 2 * id.len());
        let terms = self.terms.as_ref().map_or(0, |terms| {
            let Series { key, to, .. } = &terms.series;
            let to = to.iter().flatten();
            let to: usize = to.map(|topic| topic.as_str().len() + TERMS_OVERHEAD).sum();
            to + key.as_ref().map_or(0, |key| key.len()) + TERMS_OVERHEAD
        });
        self.wire.len() + id + terms + OVERHEAD
    }
}

// It is shared by every reader.
const _: () = assert!(size_of::<Stored>() <= 96);
