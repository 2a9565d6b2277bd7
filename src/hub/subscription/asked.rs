//! What a reader wants that the rings have let go of: asking for it, and taking what was found.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use smallvec::SmallVec;

use super::{Chunk, Next, Picked, Read, Subscription, Wires, join};
use crate::{
    hub::{
        GapReason, Hub, Replay,
        gap::Gap,
        stored::{Series, Stored},
        wire::{Held, Wire},
    },
    topic::Topic,
};

/// Events that a reader wants and the rings have let go of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Of these topics.
    pub topics: Box<[Topic]>,
    /// With numbers above this one.
    pub after: u64,
    /// And up to this one.
    pub through: u64,
    /// About so many bytes of them, but at least one.
    pub max_bytes: usize,
}

/// What was found for an [`Ask`]. Until it is taken it counts as unread.
#[derive(Debug)]
pub struct Found {
    events: Vec<FoundEvent>,
    through: u64,
    _held: Held,
}

impl Found {
    /// The events of the asked topics after what was asked, in their order, with none left out up to `through`: which
    /// need not be as far as was asked.
    #[must_use]
    pub fn new(hub: &Hub, events: Vec<FoundEvent>, through: u64) -> Self {
        let bytes = events.iter().map(|found| found.event.cost()).sum();
        Self {
            events,
            through,
            _held: hub.ledger.hold(bytes),
        }
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &[FoundEvent] {
        &self.events
    }
}

/// An event that was found for an [`Ask`].
#[derive(Debug)]
pub struct FoundEvent {
    /// The event; one that was taken back or deleted is [`retracted`](Stored::retracted).
    pub event: Arc<Stored>,
    /// By which of the asked topics it came, by their places.
    pub topics: SmallVec<[usize; 1]>,
    /// It went with the history of its topic.
    pub is_deleted: bool,
}

impl Subscription {
    /// Asks for what the rings have let go of: up to where a topic was deleted, as that is told, and not across what
    /// is lost.
    pub(super) fn ask(&mut self, watermark: u64, max_bytes: usize) -> Next {
        let deleted = self.reads.iter().enumerate().filter_map(|(place, read)| {
            let at = read.cell.ring().deleted_at()?;
            (at > self.cursor.max(read.told_through)).then_some((at, place))
        });
        let deleted: SmallVec<[(u64, usize); 1]> = deleted.collect();
        let first = deleted.iter().map(|(at, _)| *at).min();
        if first == Some(self.cursor + 1) {
            let next = deleted.iter().filter(|(at, _)| Some(*at) == first);
            return self.tell_deletion(next.map(|(_, place)| *place).collect());
        }
        let mut through = first.map_or(watermark, |at| watermark.min(at - 1));
        if let Some(damage) = self.hub.lost.damage_after(self.cursor) {
            if damage.from <= self.cursor + 1 {
                return self.tell_missing(GapReason::Lost, Some(self.cursor), damage.through);
            }
            through = through.min(damage.from - 1);
        }
        if through <= self.cursor {
            return self.tell_gap();
        }
        Next::Ask(Ask {
            topics: self.topics().cloned().collect(),
            after: self.cursor,
            through,
            max_bytes,
        })
    }

    /// Takes what was found for what [`next`](Self::next) asked. `None` says that it is kept no
    /// more, which makes it a gap.
    pub fn answer(&mut self, found: Option<Found>) -> Next {
        let Some(Found {
            events,
            through,
            _held,
        }) = found
        else {
            // What of it is kept by now is asked for again, unless it is kept and cannot be read.
            return if self.is_kept() {
                self.tell_gap()
            } else {
                Next::Nothing
            };
        };
        if self.is_ended() {
            return Next::Ended;
        }
        let asked = self.cursor + 1..=through;
        let asked = |found: &&FoundEvent| asked.contains(&found.event.sequence);
        let mut meant: Vec<(&FoundEvent, bool)> = events
            .iter()
            .filter(asked)
            .filter_map(|found| Some((found, self.is_found_for_it(found)?)))
            .collect();
        self.skip_outdone(&mut meant);
        let wires = meant.iter();
        let mut wires: Wires = wires
            .map(|(found, is_skipped)| Picked::of(&found.event, *is_skipped))
            .collect();
        self.add_live_only(&mut wires, through);
        let deleted = meant.iter().filter(|(found, _)| found.is_deleted);
        let deleted: Vec<&FoundEvent> = deleted.map(|(found, _)| *found).collect();
        self.settle(&wires);
        let deleted = self.deleted_notice(&deleted, through);
        self.cursor = through;
        let chunk = self.join(wires, |number| {
            let at = events.binary_search_by_key(&number, |found| found.event.sequence);
            at.map_or_else(
                |_| self.bringing(number),
                |at| self.named_of(&events[at].topics),
            )
        });
        let Some((notice, missed)) = deleted else {
            return chunk.map_or(Next::Nothing, Next::Chunk);
        };
        let ledger = &self.hub.ledger;
        let (events, wire) = match chunk {
            None => (0, notice),
            Some(chunk) => {
                let both = [notice, chunk.wire].map(|wire| Picked {
                    sequence: 0,
                    wire,
                    is_counted: false,
                });
                let both = join(both.into_iter().collect(), ledger).expect("neither is empty");
                (chunk.events, both.wire)
            }
        };
        Next::Chunk(Chunk {
            wire,
            events,
            missed: Some(missed),
        })
    }

    /// Adds what is kept nowhere but in the rings, which hold it yet.
    fn add_live_only(&self, wires: &mut Wires, through: u64) {
        if through <= self.joined {
            return;
        }
        let found = wires.len();
        for read in &self.reads {
            let ring = read.cell.ring();
            let held = ring.after(self.cursor);
            let held = held.take_while(|event| event.sequence <= through);
            let live =
                held.filter(|event| event.is_live_only() && self.is_for_it(read, &ring, event));
            wires.extend(live.map(|event| Picked::of(event, false)));
        }
        if wires.len() > found {
            wires.sort_unstable_by_key(|event| event.sequence);
            wires.dedup_by_key(|event| event.sequence);
        }
    }

    /// Skips those that come again of which only the newest of each series does, and another of which was found.
    fn skip_outdone(&self, meant: &mut [(&FoundEvent, bool)]) {
        let is_latest = |read: &Read| read.cell.treatment.replay == Replay::Latest;
        if !self.reads.iter().any(is_latest) {
            return;
        }
        let series = meant.iter().map(|(found, _)| &found.event);
        let series = series.map(|event| (event.series(), event.sequence));
        let newest: HashMap<&Series, u64> = series.collect();
        for (found, is_skipped) in meant {
            let event = &found.event;
            let again = event.sequence <= self.joined;
            let all = found
                .topics
                .iter()
                .all(|place| is_latest(&self.reads[*place]));
            *is_skipped |= again && all && newest[event.series()] != event.sequence;
        }
    }

    /// What a reader is told of events that were deleted, and how many they are, before it is given what is left up
    /// to a number.
    fn deleted_notice(&mut self, deleted: &[&FoundEvent], through: u64) -> Option<(Wire, u64)> {
        if deleted.is_empty() {
            return None;
        }
        let rings = deleted.iter().flat_map(|found| &found.topics).copied();
        let rings: BTreeSet<usize> = rings.collect();
        for place in &rings {
            let read = &mut self.reads[*place];
            let at = read.cell.ring().deleted_at();
            // That was all of it: it need not be told again.
            if let Some(at) = at.filter(|at| *at == through + 1) {
                read.told_through = at;
            }
        }
        let missed = deleted.len() as u64;
        let gap = Gap {
            reason: GapReason::Deleted,
            missed: Some(missed),
            missed_live: 0,
            rings: rings.into_iter().collect(),
            first: None,
            through,
        };
        self.hub.metrics.gap(gap.reason);
        // Whoever is cut behind it comes back for what is given next.
        let wire = self.gap_notice(&gap, Some(self.cursor), through);
        self.hub.ledger.add(&wire);
        Some((wire, missed))
    }

    /// Whether an event that was found is for the reader, by any of its topics, and then whether it is skipped, as
    /// a newer one of its series is held.
    fn is_found_for_it(&self, found: &FoundEvent) -> Option<bool> {
        let event = &found.event;
        if !self.is_meant(event) {
            return None;
        }
        let mut skipped = None;
        for place in &found.topics {
            let read = &self.reads[*place];
            let replay = read.cell.treatment.replay;
            let is_outdone = || read.cell.ring().has_newer(event);
            let comes = event.sequence > read.from()
                && (event.sequence > self.joined || replay.gives_again(|| !is_outdone()));
            if comes {
                let is_skipped = event.sequence <= read.newest_through() && is_outdone();
                skipped = Some(skipped.unwrap_or(true) && is_skipped);
            }
        }
        skipped
    }
}
