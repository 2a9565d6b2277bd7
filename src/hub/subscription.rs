//! What one event stream reads: a set of topics and a cursor.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use serde_json::json;
use smallvec::SmallVec;

use super::{
    Cell, Hub, Readers, State,
    mailbox::{Mailbox, StreamHandle},
    ring::{Ring, Stored},
};
use crate::{
    metrics::GapReason,
    sse::{Draft, EventId},
    topic::Topic,
};

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume<'a> {
    /// With the next event.
    Live,
    /// After the event with this id, as its `Last-Event-ID` says.
    After(&'a str),
    /// With the last events of its topics, at most so many, as history holds them.
    Last(usize),
}

/// What a subscription says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The id that stands for where the reader is: a client cut before its first event resumes here.
    pub id: EventId,
    /// The reader begins behind the newest event.
    pub behind: bool,
}

/// Events to write, already encoded.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// One or more whole events.
    pub wire: Bytes,
    /// How many of them publishers sent; the edge's own do not count.
    pub events: u64,
}

/// What one event stream reads. Dropping it ends it.
///
/// There is no queue: a slow reader costs a cursor, and one that falls off the ring is told so.
pub struct Subscription {
    hub: Arc<Hub>,
    handle: StreamHandle,
    cells: Box<[Arc<Cell>]>,
    /// Every event of the topics up to this number was taken, or told of as missing.
    cursor: u64,
    /// The last event before the subscription began: what comes after was addressed to it.
    joined: u64,
    /// What left the rings up to this number needs no telling (any more).
    told_through: u64,
    /// How many events after `joined` were taken or told of as missing.
    settled: u64,
    /// A gap found when the subscription began.
    gap: Option<GapReason>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field(
                "topics",
                &self.cells.iter().map(|c| &c.topic).collect::<Vec<_>>(),
            )
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// Begins to read `topics` for a stream of the connection that owns `mailbox`.
    ///
    /// Nothing is lost or doubled between what is replayed and what comes live: both are read from
    /// the same rings by the same cursor.
    pub fn subscribe(
        self: &Arc<Self>,
        topics: &[Topic],
        resume: Resume<'_>,
        mailbox: &Arc<Mailbox>,
        now: Instant,
    ) -> (Subscription, Opening) {
        let handle = mailbox.open();
        let mut guard = self.lock();
        let state = &mut *guard;
        let joined = state.sequence;
        let mut cells: Vec<Arc<Cell>> = Vec::with_capacity(topics.len());
        for topic in topics {
            let entry = state.entry(topic);
            let cell = entry.cell.clone();
            if cells.iter().any(|known| Arc::ptr_eq(known, &cell)) {
                continue; // named twice
            }
            let readers = entry
                .readers
                .entry(address(mailbox))
                .or_insert_with(|| Readers {
                    mailbox: mailbox.clone(),
                    streams: Vec::new(),
                });
            readers.streams.push(handle.key());
            let mut ring = cell.ring();
            let before = ring.bytes();
            ring.evict_older(now, self.history.age);
            state.bytes -= before - ring.bytes();
            let emptied = ring.is_empty() && before > 0;
            drop(ring);
            cells.push(cell);
            if emptied {
                state.retire(topic);
            }
        }
        let mut subscription = Subscription {
            hub: self.clone(),
            handle,
            cells: cells.into(),
            cursor: joined,
            joined,
            told_through: joined,
            settled: 0,
            gap: None,
        };
        match resume {
            Resume::Live => {}
            Resume::Last(events) => subscription.begin_with_last(events),
            Resume::After(id) => subscription.begin_after(id),
        }
        drop(guard);

        let behind = subscription.cursor < joined || subscription.gap.is_some();
        if behind {
            self.metrics.replays.inc();
        }
        let id = self.id(subscription.cursor);
        (subscription, Opening { id, behind })
    }
}

impl Subscription {
    /// The topics it reads, each once.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.cells.iter().map(|cell| &cell.topic)
    }

    /// The key of the stream in its connection's mailbox.
    #[must_use]
    pub fn handle(&self) -> &StreamHandle {
        &self.handle
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.gap.is_none() && self.cursor >= self.hub.watermark()
    }

    /// How far the reader is behind the newest event of all, in events.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.hub.watermark().saturating_sub(self.cursor)
    }

    /// Takes the next events, at most `max_bytes` of them but at least one when there is one.
    ///
    /// `None` when there is nothing: the connection's mailbox tells when to ask again.
    pub fn next(&mut self, max_bytes: usize) -> Option<Chunk> {
        // Loaded before the rings are looked at, so that all of them hold what is at or below it.
        let watermark = self.hub.watermark();
        if self.gap.is_none() && self.cursor >= watermark {
            return None;
        }
        let chunk = match &*self.cells {
            _ if self.gap.is_some() => Err(Fallen),
            [cell] => self.take_of_one(cell, watermark, max_bytes),
            _ => self.take_of_many(watermark, max_bytes),
        };
        match chunk {
            Err(Fallen) => Some(self.tell_gap()),
            Ok((wires, cursor)) => {
                self.settled += wires
                    .iter()
                    .filter(|(sequence, _)| *sequence > self.joined)
                    .count() as u64;
                self.cursor = cursor;
                join(wires)
            }
        }
    }

    fn take_of_one(&self, cell: &Cell, watermark: u64, max_bytes: usize) -> Result<Taken, Fallen> {
        if cell.changed.load(Ordering::Acquire) <= self.cursor {
            return Ok((Wires::new(), watermark));
        }
        let ring = cell.ring();
        self.check(&ring)?;
        Ok(take(&ring, self.cursor, watermark, max_bytes))
    }

    fn take_of_many(&self, watermark: u64, max_bytes: usize) -> Result<Taken, Fallen> {
        let mut all = Wires::new();
        // Where the first of the rings was cut short: beyond it the order is not known yet.
        let mut through = watermark;
        for cell in &self.cells {
            if cell.changed.load(Ordering::Acquire) <= self.cursor {
                continue;
            }
            let ring = cell.ring();
            self.check(&ring)?;
            let (wires, end) = take(&ring, self.cursor, through, max_bytes);
            drop(ring);
            through = through.min(end);
            all.extend(wires);
        }
        all.sort_unstable_by_key(|(sequence, _)| *sequence);
        all.dedup_by_key(|(sequence, _)| *sequence);
        let mut bytes = 0;
        let mut fits = 0;
        for (sequence, wire) in &all {
            bytes += wire.len();
            if *sequence > through || (fits > 0 && bytes > max_bytes) {
                break;
            }
            fits += 1;
        }
        if fits < all.len() {
            all.truncate(fits);
            through = all.last().map_or(through, |(sequence, _)| *sequence);
        }
        Ok((all, through))
    }

    fn check(&self, ring: &Ring) -> Result<(), Fallen> {
        match ring.evicted_through() > self.cursor.max(self.told_through) {
            true => Err(Fallen),
            false => Ok(()),
        }
    }

    /// Tells what is missing, and goes on with the first event that is held.
    fn tell_gap(&mut self) -> Chunk {
        let hub = self.hub.clone();
        // Under the hub's lock nothing is published, so all counts are of one moment.
        let guard = hub.lock();
        let state: &State = &guard;
        let rings: Vec<_> = self.cells.iter().map(|cell| (cell, cell.ring())).collect();

        let passed = self.cursor.max(self.told_through);
        let known = self.gap.take();
        let fallen: Vec<_> = rings
            .iter()
            .filter(|(_, ring)| known.is_some() || ring.evicted_through() > passed)
            .collect();
        let reason = known.unwrap_or_else(|| {
            if fallen.iter().all(|(_, ring)| ring.was_deleted()) {
                GapReason::Deleted
            } else if self.cursor < self.joined {
                GapReason::Trimmed
            } else {
                GapReason::Slow
            }
        });
        let held: HashSet<u64> = rings
            .iter()
            .flat_map(|(_, ring)| ring.after(self.cursor).map(|event| event.sequence))
            .collect();
        let live = self.handle.addressed() - self.settled;
        let live_held = held
            .iter()
            .filter(|&&sequence| sequence > self.joined)
            .count() as u64;
        // What was addressed to the stream since it began, was not taken, and is not there.
        let live_missed = live.saturating_sub(live_held);
        let missed = match known {
            Some(_) => None,
            // Part of what is missing was told of before: it cannot be told apart now.
            None if self.cursor < self.told_through && self.cursor < self.joined => None,
            None => missed_before(self.joined, self.cursor, &rings, &held)
                .map(|before| before + live_missed),
        };
        let topics: Vec<_> = fallen.iter().map(|(cell, _)| cell.topic.as_str()).collect();
        let data = json!({ "reason": reason.as_str(), "missed": missed, "topics": topics });

        self.settled += live_missed;
        self.told_through = rings
            .iter()
            .map(|(_, ring)| ring.evicted_through())
            .fold(self.told_through, u64::max);
        self.cursor = held.iter().min().map_or(state.sequence, |first| first - 1);
        hub.metrics.gap(reason);
        let draft = Draft::new(Some("edge-gap"), &data.to_string(), None);
        Chunk {
            wire: draft.finish(hub.id(self.cursor)),
            events: 0,
        }
    }

    fn begin_with_last(&mut self, events: usize) {
        let mut held: Vec<u64> = Vec::new();
        for cell in &self.cells {
            held.extend(
                cell.ring()
                    .after(0)
                    .rev()
                    .take(events)
                    .map(|event| event.sequence),
            );
        }
        held.sort_unstable();
        held.dedup();
        let from = held.len().saturating_sub(events);
        if let Some(first) = held.get(from) {
            self.cursor = first - 1;
        }
        // What had left before was not asked for; what leaves from now on will be told.
        let left = self.cells.iter().map(|cell| cell.ring().evicted_through());
        self.told_through = left.max().unwrap_or_default();
    }

    fn begin_after(&mut self, id: &str) {
        let own = self
            .cells
            .iter()
            .filter_map(|cell| cell.ring().find(id))
            .max();
        let found = match (own, EventId::parse(id)) {
            (Some(sequence), _) => Ok(sequence),
            (None, Some(id)) if id.epoch != self.hub.epoch => Err(GapReason::Restart),
            (None, Some(id)) if id.sequence <= self.joined => Ok(id.sequence),
            (None, _) => Err(GapReason::Unknown),
        };
        match found {
            Ok(sequence) => {
                self.cursor = sequence;
                self.told_through = sequence;
            }
            Err(reason) => {
                self.gap = Some(reason);
                let firsts = self
                    .cells
                    .iter()
                    .filter_map(|cell| Some(cell.ring().oldest()?.sequence));
                self.cursor = firsts.min().map_or(self.joined, |first| first - 1);
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mailbox = address(self.handle.mailbox());
        let mut guard = self.hub.lock();
        let state = &mut *guard;
        for cell in &self.cells {
            let entry = state
                .topics
                .get_mut(&cell.topic)
                .expect("a topic with readers is known");
            let readers = entry
                .readers
                .get_mut(&mailbox)
                .expect("the stream is among its readers");
            readers.streams.retain(|&key| key != self.handle.key());
            if readers.streams.is_empty() {
                entry.readers.swap_remove(&mailbox);
                if entry.readers.is_empty() {
                    entry.readers = indexmap::IndexMap::new();
                }
            }
            state.forget_if_idle(&cell.topic);
        }
    }
}

/// A ring has evicted what the reader did not take yet.
struct Fallen;

/// Nearly always one: the newest.
type Wires = SmallVec<[(u64, Bytes); 1]>;
/// Events, and the cursor once they are written.
type Taken = (Wires, u64);

/// The events in `(cursor, through]`, until they are `max_bytes` or more.
fn take(ring: &Ring, cursor: u64, through: u64, max_bytes: usize) -> Taken {
    let mut wires = Wires::new();
    let mut bytes = 0;
    for event in ring
        .after(cursor)
        .take_while(|event| event.sequence <= through)
    {
        bytes += event.wire.len();
        if !wires.is_empty() && bytes > max_bytes {
            let last = wires.last().map_or(cursor, |(sequence, _)| *sequence);
            return (wires, last);
        }
        wires.push((event.sequence, event.wire.clone()));
    }
    (wires, through)
}

fn join(mut wires: Wires) -> Option<Chunk> {
    let events = wires.len() as u64;
    let wire = match wires.len() {
        0 => return None,
        1 => wires.pop()?.1,
        _ => {
            let mut whole = Vec::with_capacity(wires.iter().map(|(_, wire)| wire.len()).sum());
            wires
                .iter()
                .for_each(|(_, wire)| whole.extend_from_slice(wire));
            whole.into()
        }
    };
    Some(Chunk { wire, events })
}

/// How many events in `(cursor, joined]` left the rings, if they are remembered that far back.
fn missed_before(
    joined: u64,
    cursor: u64,
    rings: &[(&Arc<Cell>, std::sync::MutexGuard<'_, Ring>)],
    held: &HashSet<u64>,
) -> Option<u64> {
    if cursor >= joined {
        return Some(0);
    }
    let mut missed = HashSet::new();
    for (_, ring) in rings {
        missed.extend(ring.evicted_between(cursor, joined)?);
    }
    Some(missed.difference(held).count() as u64)
}

fn address(mailbox: &Arc<Mailbox>) -> usize {
    Arc::as_ptr(mailbox) as usize
}

// A stored event is shared by every reader; a reader costs a cursor.
const _: () = assert!(size_of::<Subscription>() <= 128 && size_of::<Stored>() <= 96);
