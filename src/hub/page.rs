//! History as a list: what programs read that want no stream.

use std::sync::Arc;

use super::{
    GapReason, Hub, Replay, Wire,
    evicted::Missing,
    resume,
    ring::Ring,
    stored::{Release, Stored},
    topics::Cell,
};
use crate::{clock, sse::EventId, topic::Topic};

/// How many bytes of events a page has at most, unless its first event is larger.
const PAGE: usize = 1 << 20;

/// An event that history holds.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Under what it can be resumed after, or taken back.
    pub id: String,
    /// When it was published: RFC 3339, in UTC.
    pub at: String,
    /// The event as it went out.
    pub wire: Wire,
}

/// Some of a topic's history, oldest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// The events.
    pub events: Vec<Kept>,
    /// After what the next page begins, if there is more.
    pub next: Option<EventId>,
    /// Why the page does not begin where it was asked to.
    pub gap: Option<GapReason>,
}

impl Hub {
    /// The number of the event with this id, the edge's or its publisher's own in one of these topics.
    #[must_use]
    pub fn place_of(&self, id: &str, topics: &[Topic]) -> Option<u64> {
        let watermark = self.watermark();
        if let Ok(place) = self.place(id, watermark) {
            return Some(place);
        }
        let cells: Vec<_> = {
            let known = self.lock();
            let cells = topics.iter().filter_map(|topic| known.get(topic));
            cells.map(|known| known.cell().clone()).collect()
        };
        let places = cells
            .iter()
            .filter_map(|cell| cell.ring().find(id).last().copied());
        places.max()
    }

    /// The events of a topic after the one with an id, at most so many, of those of which `is_for` says so; and of
    /// those, if `is_again` says so, what is given again to who comes back.
    pub fn page(
        &self,
        topic: &Topic,
        after: Option<&str>,
        most: usize,
        is_again: bool,
        is_for: impl Fn(&Stored) -> bool,
    ) -> Page {
        let mut page = Page {
            events: Vec::new(),
            next: None,
            gap: None,
        };
        let watermark = self.watermark();
        let cell = {
            let topics = self.lock();
            let known = topics.get(topic);
            known
                .map(|known| known.cell().clone())
                .ok_or_else(|| topics.ended(topic))
        };
        let cell = match cell {
            Ok(cell) => cell,
            // Nothing of it is left.
            Err((through, deleted)) => {
                page.gap = after.and_then(|id| match self.place(id, watermark) {
                    Ok(number) => (through > number).then(|| left(deleted)),
                    Err(reason) => Some(reason),
                });
                return page;
            }
        };
        let ring = cell.ring();
        let cursor = after.map_or(Ok(0), |id| {
            let own = resume::own(id, &ring, watermark);
            own.map_or_else(|| self.place(id, watermark), Ok)
        });
        page.gap = match cursor {
            Ok(cursor) if after.is_some() => gap_after(cursor, &cell, &ring, is_again, watermark),
            Ok(_) => None,
            Err(reason) => Some(reason),
        };
        let cursor = cursor.unwrap_or_default();
        let replay = cell.treatment.replay;
        let is_there = |event: &&Arc<Stored>| {
            event.sequence <= watermark
                && !event.is_retracted()
                && !event.is_live_only()
                && event.release() != Release::Waiting
                && !event.is_over(clock::now)
                && (!is_again || replay.gives_again(|| ring.is_newest(event)))
                && is_for(event)
        };
        // Those who publish to it wait for the ring: what they are is said when it is free again.
        let (mut bytes, mut taken) = (0, Vec::<Arc<Stored>>::new());
        for event in ring.after(cursor).filter(is_there) {
            bytes += event.wire.len();
            if taken.len() == most || (bytes > PAGE && !taken.is_empty()) {
                page.next = taken.last().map(|last| self.id(last.sequence));
                break;
            }
            taken.push(event.clone());
        }
        drop(ring);
        let kept = taken.iter().map(|event| Kept {
            id: self.id_of(event),
            at: self.told(event.at),
            wire: event.wire.clone(),
        });
        page.events = kept.collect();
        page
    }
}

/// Why events after a number are missing, if any are: to one who comes back, or to one who asks for all.
fn gap_after(
    cursor: u64,
    cell: &Cell,
    ring: &Ring,
    is_again: bool,
    watermark: u64,
) -> Option<GapReason> {
    let is_nothing_again = is_again && cell.treatment.replay == Replay::None;
    if ring.evicted_through() <= cursor || is_nothing_again {
        return None;
    }
    let missing = Missing {
        after: cursor,
        through: u64::MAX,
        joined: watermark,
        now: clock::now,
    };
    let gone = ring.missing(missing);
    let is_missing = ring.was_deleted() || gone.is_none_or(|mut gone| gone.next().is_some());
    is_missing.then(|| left(ring.was_deleted()))
}

/// Why events have left a topic.
fn left(deleted: bool) -> GapReason {
    if deleted {
        GapReason::Deleted
    } else {
        GapReason::Trimmed
    }
}
