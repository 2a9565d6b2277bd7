//! What one event stream reads: a set of topics and a cursor.

use std::{
    collections::{BinaryHeap, HashSet},
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use serde_json::json;
use smallvec::SmallVec;

use super::{
    Cell, GapReason, Hub, Readers,
    mailbox::{Mailbox, StreamHandle},
    ring::{Ring, Stored},
};
use crate::{
    sse::{Draft, EventId},
    topic::Topic,
};

/// How many missing events are counted under the hub's lock before their number is said to be
/// unknown: anyone may ask with an old id.
const COUNTED: usize = 16_384;

/// The most events that a first visit is given, whatever it asks for.
const MAX_LAST: usize = 10_000;

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
    /// The id that stands for where the reader is: a client cut before its first event resumes
    /// here. `None` while a gap is to be told first.
    pub id: Option<EventId>,
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

/// One topic that a subscription reads.
struct Read {
    cell: Arc<Cell>,
    /// What left its ring up to this number needs no telling, or was told.
    told_through: u64,
}

/// What one event stream reads. Dropping it ends it.
///
/// There is no queue: a slow reader costs a cursor, and one that falls off the ring is told so.
pub struct Subscription {
    hub: Arc<Hub>,
    handle: StreamHandle,
    reads: Box<[Read]>,
    /// Every event of the topics up to this number was taken, or told of as missing.
    cursor: u64,
    /// The last event before the subscription began: what comes after was addressed to it.
    joined: u64,
    /// How many events after `joined` were taken or told of as missing.
    settled: u64,
    /// A gap found when the subscription began.
    gap: Option<GapReason>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topics", &self.topics().collect::<Vec<_>>())
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
        let mut reads: Vec<Read> = Vec::with_capacity(topics.len());
        for topic in topics {
            let entry = state.entry(topic);
            let cell = entry.cell.clone();
            if reads.iter().any(|known| Arc::ptr_eq(&known.cell, &cell)) {
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
            reads.push(Read {
                cell,
                told_through: joined,
            });
            state.evict_older(topic, now, self.history.age);
        }
        let mut subscription = Subscription {
            hub: self.clone(),
            handle,
            reads: reads.into(),
            cursor: joined,
            joined,
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
        // While a gap is untold, a client that is cut must come back with the id it came with.
        let id = subscription
            .gap
            .is_none()
            .then(|| self.id(subscription.cursor));
        (subscription, Opening { id, behind })
    }
}

impl Subscription {
    /// The topics it reads, each once.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.reads.iter().map(|read| &read.cell.topic)
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

    /// How many events the stream was given or told of as missing since it began.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled
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
        let mut changed = self
            .reads
            .iter()
            .filter(|read| read.cell.changed.load(Ordering::Acquire) > self.cursor);
        let chunk = match (changed.next(), changed.next()) {
            _ if self.gap.is_some() => Err(Fallen),
            (None, _) => Ok((Wires::new(), watermark)),
            (Some(read), None) => self.take_of_one(read, watermark, max_bytes),
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

    fn take_of_one(&self, read: &Read, watermark: u64, max_bytes: usize) -> Result<Taken, Fallen> {
        let ring = read.cell.ring();
        self.check(read, &ring)?;
        Ok(self.take(&ring, watermark, max_bytes))
    }

    fn take_of_many(&self, watermark: u64, max_bytes: usize) -> Result<Taken, Fallen> {
        let mut all = Wires::new();
        // Where the first of the rings was cut short: beyond it the order is not known yet.
        let mut through = watermark;
        for read in &self.reads {
            if read.cell.changed.load(Ordering::Acquire) <= self.cursor {
                continue;
            }
            let ring = read.cell.ring();
            self.check(read, &ring)?;
            let (wires, end) = self.take(&ring, through, max_bytes);
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

    /// The events in `(cursor, through]` that are for this reader, until they are `max_bytes` or
    /// more.
    fn take(&self, ring: &Ring, through: u64, max_bytes: usize) -> Taken {
        let mut wires = Wires::new();
        let mut bytes = 0;
        let events = ring.after(self.cursor);
        for event in events.take_while(|event| event.sequence <= through) {
            if !self.is_meant(event) {
                continue;
            }
            bytes += event.wire.len();
            if !wires.is_empty() && bytes > max_bytes {
                let last = wires.last().map_or(self.cursor, |(sequence, _)| *sequence);
                return (wires, last);
            }
            wires.push((event.sequence, event.wire.clone()));
        }
        (wires, through)
    }

    fn is_meant(&self, event: &Stored) -> bool {
        event.to.as_deref().is_none_or(|to| {
            self.reads
                .iter()
                .any(|read| to.binary_search(&read.cell.topic).is_ok())
        })
    }

    fn check(&self, read: &Read, ring: &Ring) -> Result<(), Fallen> {
        match ring.evicted_through() > self.cursor.max(read.told_through) {
            true => Err(Fallen),
            false => Ok(()),
        }
    }

    /// Tells what is missing, and goes on with the first event that is held.
    fn tell_gap(&mut self) -> Chunk {
        let hub = self.hub.clone();
        // Under the hub's lock nothing is published, so all counts are of one moment.
        let guard = hub.lock();
        let known = self.gap.take();
        let mut topics = Vec::new();
        let mut deleted = true;
        let mut first = None;
        let mut live_held = Vec::new();
        for read in &self.reads {
            let ring = read.cell.ring();
            if known.is_some() || self.check(read, &ring).is_err() {
                topics.push(read.cell.topic.as_str());
                deleted &= ring.was_deleted();
            }
            let next = ring.after(self.cursor).next().map(|event| event.sequence);
            first = first.into_iter().chain(next).min();
            let live = ring.after(self.cursor.max(self.joined));
            let live = live.filter(|event| self.is_meant(event));
            live_held.extend(live.map(|event| event.sequence));
        }
        live_held.sort_unstable();
        live_held.dedup();
        let reason = known.unwrap_or(match deleted {
            true => GapReason::Deleted,
            false if self.cursor < self.joined => GapReason::Trimmed,
            false => GapReason::Slow,
        });
        // What was addressed to the stream since it began, was not taken, and is not there.
        let live = self.handle.addressed() - self.settled;
        let live_missed = live.saturating_sub(live_held.len() as u64);
        let missed = match known {
            Some(_) => None,
            None => self.missed_before().map(|before| before + live_missed),
        };
        let data = json!({ "reason": reason.as_str(), "missed": missed, "topics": topics });

        self.settled += live_missed;
        self.cursor = first.map_or(guard.sequence, |first| first - 1);
        for read in &mut self.reads {
            read.told_through = read.told_through.max(read.cell.ring().evicted_through());
        }
        hub.metrics.gap(reason);
        let draft = Draft::new(Some("edge-gap"), &data.to_string(), None);
        Chunk {
            wire: draft.finish(hub.id(self.cursor)),
            events: 0,
        }
    }

    /// How many events up to `joined` left the rings untold, if they are remembered that far
    /// back, and few enough to be counted under the hub's lock.
    fn missed_before(&self) -> Option<u64> {
        if self.cursor >= self.joined {
            return Some(0);
        }
        let mut missed = HashSet::new();
        for read in &self.reads {
            let after = self.cursor.max(read.told_through);
            let ring = read.cell.ring();
            // For whom those were that have left is not remembered.
            if ring.limited_after(after) {
                return None;
            }
            if after < self.joined {
                missed.extend(ring.evicted_between(after, self.joined)?);
            }
            if missed.len() > COUNTED {
                return None;
            }
        }
        let [_, _, ..] = &*self.reads else {
            return Some(missed.len() as u64);
        };
        // What left one topic may still be held in another.
        let last = missed.iter().max().copied().unwrap_or_default();
        let mut looked_at = 0;
        for read in &self.reads {
            for event in read.cell.ring().after(self.cursor) {
                if event.sequence > last {
                    break;
                }
                missed.remove(&event.sequence);
                looked_at += 1;
                if looked_at > COUNTED {
                    return None;
                }
            }
        }
        Some(missed.len() as u64)
    }

    fn begin_with_last(&mut self, events: usize) {
        let rings: Vec<_> = self.reads.iter().map(|read| read.cell.ring()).collect();
        let mut rest: Vec<_> = rings
            .iter()
            .map(|ring| {
                let meant = ring.after(0).rev().filter(|event| self.is_meant(event));
                meant.map(|event| event.sequence)
            })
            .collect();
        let mut cursor = self.cursor;
        // The newest of each ring that was not counted yet.
        let mut newest: BinaryHeap<(u64, usize)> = BinaryHeap::new();
        for (ring, rest) in rest.iter_mut().enumerate() {
            newest.extend(rest.next().map(|sequence| (sequence, ring)));
        }
        let mut left = events.min(MAX_LAST);
        while let Some((sequence, ring)) = newest.pop() {
            // One in several topics counts once.
            if sequence <= cursor {
                if left == 0 {
                    break;
                }
                left -= 1;
                cursor = sequence - 1;
            }
            newest.extend(rest[ring].next().map(|sequence| (sequence, ring)));
        }
        drop(rest);
        // What had left before was not asked for; what leaves from now on will be told.
        let left: Vec<u64> = rings.iter().map(|ring| ring.evicted_through()).collect();
        drop(rings);
        self.cursor = cursor;
        for (read, left) in self.reads.iter_mut().zip(left) {
            read.told_through = left;
        }
    }

    fn begin_after(&mut self, id: &str) {
        let rings = || self.reads.iter().map(|read| read.cell.ring());
        let own = rings().filter_map(|ring| ring.find(id)).max();
        let found = match (own, EventId::parse(id)) {
            (Some(sequence), _) => Ok(sequence),
            (None, Some(id)) if id.epoch != self.hub.epoch => Err(GapReason::Restart),
            (None, Some(id)) if id.sequence <= self.joined => Ok(id.sequence),
            (None, _) => Err(GapReason::Unknown),
        };
        match found {
            Ok(sequence) => {
                self.cursor = sequence;
                for read in &mut self.reads {
                    read.told_through = sequence;
                }
            }
            Err(reason) => {
                let first = rings()
                    .filter_map(|ring| Some(ring.oldest()?.sequence))
                    .min();
                self.cursor = first.map_or(self.joined, |first| first - 1);
                self.gap = Some(reason);
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mailbox = address(self.handle.mailbox());
        let mut guard = self.hub.lock();
        let state = &mut *guard;
        for Read { cell, .. } in &self.reads {
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

fn address(mailbox: &Arc<Mailbox>) -> usize {
    Arc::as_ptr(mailbox) as usize
}

// A stored event is shared by every reader; a reader costs a cursor.
const _: () = assert!(size_of::<Subscription>() <= 128 && size_of::<Stored>() <= 96);
