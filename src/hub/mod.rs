//! Topics, their history, and who reads them. No sockets.
//!
//! - [`Hub`] numbers events in one sequence and applies each under one short lock.
//! - [`ring`] holds the recent events of a topic; it is also the only queue there is.
//! - [`Subscription`] is a set of topics and a cursor.
//! - [`mailbox`] wakes a connection once per publish, however many of its streams it is for.
//!
//! Readers take only events at or below the watermark, which is stored once an event has been
//! applied everywhere, so one number is a sound cursor over any number of topics.

mod gap;
pub mod mailbox;
mod metrics;
pub mod ring;
mod subscription;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indexmap::IndexMap;

use crate::{
    sse::{Draft, Epoch, EventId},
    topic::Topic,
};
use mailbox::Mailbox;
use ring::{Bounds, Ring, Stored};

pub use gap::GapReason;
pub use mailbox::StreamHandle;
pub use metrics::Metrics;
pub use subscription::{Chunk, Opening, Resume, Subscription};

/// What a topic costs beside its events and its name, in bytes.
const TOPIC_OVERHEAD: usize = 512;
/// How many forgotten topics are remembered with where their history ended.
const TOMBSTONES: usize = 16_384;

/// The bounds of history, all of them on by default.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// `history.events`: the most events a topic keeps.
    pub events: usize,
    /// `history.age`: how long an event is kept.
    pub age: Duration,
    /// `history.topic_bytes`: the most bytes a topic keeps.
    pub topic_bytes: usize,
    /// `history.total_bytes`: the most bytes all topics keep together; the least recently
    /// published topics give way first.
    pub total_bytes: usize,
}

impl Default for History {
    fn default() -> Self {
        Self {
            events: 1000,
            age: Duration::from_secs(3600),
            topic_bytes: 1 << 20,
            total_bytes: 256 << 20,
        }
    }
}

/// What a publisher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The id under which the event can be resumed after.
    pub id: String,
    /// The event streams it went to, each counted once.
    pub receivers: usize,
}

/// What is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub topic: Topic,
    /// The event streams that read it.
    pub subscribers: usize,
    /// The events its history holds.
    pub events: usize,
    /// What they cost, in bytes.
    pub bytes: usize,
    /// The id of the oldest event held.
    pub oldest: Option<String>,
    /// The id of the newest event held.
    pub newest: Option<String>,
}

/// The hub: one order of events, and a ring for each topic.
#[derive(Debug)]
pub struct Hub {
    epoch: Epoch,
    history: History,
    metrics: Metrics,
    state: Mutex<State>,
    /// Every event up to this number has been applied to all its rings.
    watermark: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last event.
    sequence: u64,
    /// When it was published. Publishers read the clock before they have the lock, so theirs may
    /// be earlier; in the rings time does not go back.
    at: Option<Instant>,
    topics: BTreeMap<Topic, Entry>,
    /// Topics with history, by the number of their last event.
    recency: BTreeSet<(u64, Topic)>,
    /// Invariant: the sum of `cost()` over all rings, and of `topic_cost()` over all topics.
    bytes: usize,
    /// Where the history of forgotten topics ended.
    tombstones: BTreeMap<Topic, u64>,
    /// Where the history of topics ended that are not even in `tombstones` any more.
    floor: u64,
}

#[derive(Debug)]
struct Entry {
    cell: Arc<Cell>,
    /// By the address of the mailbox, which lives as long as its entry here.
    readers: IndexMap<usize, Readers>,
    /// The number of the last event, 0 when none is held. Invariant: in `recency` unless 0.
    last: u64,
}

/// The streams of one connection that read a topic.
#[derive(Debug)]
struct Readers {
    mailbox: Arc<Mailbox>,
    streams: Vec<u32>,
}

/// What readers see of a topic without the hub's lock.
#[derive(Debug)]
struct Cell {
    topic: Topic,
    /// The number of the last event or deletion: readers at or past it need not take the lock.
    changed: AtomicU64,
    ring: Mutex<Ring>,
}

impl Cell {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("no holder of this lock panics")
    }
}

impl Entry {
    fn subscribers(&self) -> usize {
        self.readers
            .values()
            .map(|readers| readers.streams.len())
            .sum()
    }
}

impl Hub {
    /// An empty hub. `random` makes its event ids unlike those of any other.
    #[must_use]
    pub fn new(history: History, random: u64) -> Arc<Self> {
        Arc::new(Self {
            epoch: Epoch::from_random(random),
            history,
            metrics: Metrics::default(),
            state: Mutex::default(),
            watermark: AtomicU64::new(0),
        })
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Publishes one event to `topics`; see [`publish_to`](Self::publish_to).
    pub fn publish(
        &self,
        topics: &[Topic],
        draft: Draft,
        id: Option<&str>,
        now: Instant,
    ) -> Receipt {
        self.publish_to(topics, None, draft, id, now)
    }

    /// Publishes one event to `topics`, which a stream that reads several of them gets once. With
    /// `to`, only streams get it that read one of these as well.
    ///
    /// `id` is the publisher's own, checked by the caller with [`crate::sse::validate_id`].
    pub fn publish_to(
        &self,
        topics: &[Topic],
        to: Option<Vec<Topic>>,
        draft: Draft,
        id: Option<&str>,
        now: Instant,
    ) -> Receipt {
        let bounds = self.bounds();
        let mut guard = self.lock();
        let state = &mut *guard;
        state.sequence += 1;
        let at = state.at.map_or(now, |last| last.max(now));
        state.at = Some(at);
        let sequence = state.sequence;
        let own = self.id(sequence);
        let event = Arc::new(Stored {
            sequence,
            at,
            id: id.map(Into::into),
            wire: match id {
                Some(id) => draft.finish(id),
                None => draft.finish(own),
            },
            to: to.map(|mut to| {
                to.sort_unstable();
                to.dedup();
                to.into()
            }),
        });
        for topic in topics {
            let entry = state.entry(topic);
            if entry.last == sequence {
                continue; // named twice
            }
            let before = std::mem::replace(&mut entry.last, sequence);
            let (freed, held) = {
                let mut ring = entry.cell.ring();
                let freed = ring.cost();
                ring.push(event.clone(), &bounds);
                (freed, ring.cost())
            };
            entry.cell.changed.store(sequence, Ordering::Release);
            state.bytes = state.bytes - freed + held;
            state.recency.remove(&(before, topic.clone()));
            state.recency.insert((sequence, topic.clone()));
        }
        state.evict_to(self.history.total_bytes);
        // Before the marks: a connection that finds its mark must find the event too, or it would
        // take the mark and sleep on.
        self.watermark.store(sequence, Ordering::Release);
        let (receivers, wakes) = state.mark(topics, &event);
        drop(guard);

        self.metrics.published.inc();
        for mailbox in wakes {
            mailbox.wake();
        }
        Receipt {
            id: id.map_or_else(|| own.to_string(), Into::into),
            receivers,
        }
    }

    /// Drops the history of `topic` and tells its streams. `None` when there is no such topic.
    pub fn delete(&self, topic: &Topic) -> Option<usize> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let entry = state.topics.get_mut(topic)?;
        state.sequence += 1;
        let events = {
            let mut ring = entry.cell.ring();
            let (events, before) = (ring.len(), ring.cost());
            ring.delete(state.sequence);
            state.bytes = state.bytes - before + ring.cost();
            events
        };
        entry.cell.changed.store(state.sequence, Ordering::Release);
        let told: Vec<_> = entry
            .readers
            .values()
            .map(|readers| (readers.mailbox.clone(), readers.streams.clone()))
            .collect();
        let last = std::mem::take(&mut entry.last);
        state.recency.remove(&(last, topic.clone()));
        state.forget_if_idle(topic);
        self.watermark.store(state.sequence, Ordering::Release);
        drop(guard);

        for (mailbox, streams) in told {
            mailbox.nudge(&streams);
        }
        Some(events)
    }

    /// Drops the history of topics that were last published to longer than `history.age` ago, and
    /// forgets those that nobody reads. To be called now and then.
    pub fn sweep(&self, now: Instant) {
        let mut guard = self.lock();
        let state = &mut *guard;
        while let Some((_, topic)) = state.recency.first() {
            let topic = topic.clone();
            if !state.evict_older(&topic, now, self.history.age) {
                return;
            }
        }
    }

    /// What is known of the publishers' topics after `after`, in the order of their names, at most `limit`.
    #[must_use]
    pub fn topics(&self, after: Option<&str>, limit: usize) -> Vec<TopicInfo> {
        let state = self.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = state
            .topics
            .range::<str, _>((from, Bound::Unbounded))
            .filter(|(topic, _)| !topic.is_reserved())
            .take(limit);
        page.map(|(topic, entry)| self.info(topic, entry)).collect()
    }

    /// What is known of one topic.
    #[must_use]
    pub fn topic(&self, topic: &Topic) -> Option<TopicInfo> {
        let state = self.lock();
        state.topics.get(topic).map(|entry| self.info(topic, entry))
    }

    fn info(&self, topic: &Topic, entry: &Entry) -> TopicInfo {
        let ring = entry.cell.ring();
        let id = |event: &Arc<Stored>| match &event.id {
            Some(id) => id.to_string(),
            None => self.id(event.sequence).to_string(),
        };
        TopicInfo {
            topic: topic.clone(),
            subscribers: entry.subscribers(),
            events: ring.len(),
            bytes: ring.bytes(),
            oldest: ring.oldest().map(id),
            newest: ring.newest().map(id),
        }
    }

    fn id(&self, sequence: u64) -> EventId {
        EventId {
            epoch: self.epoch,
            sequence,
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            events: self.history.events,
            bytes: self.history.topic_bytes,
            age: self.history.age,
        }
    }

    fn watermark(&self) -> u64 {
        self.watermark.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    /// Marks the streams that `event` is for. How many they are, and the connections to wake once
    /// the lock is released.
    fn mark(&self, topics: &[Topic], event: &Stored) -> (usize, Vec<Arc<Mailbox>>) {
        let (mut receivers, mut wakes) = (0, Vec::new());
        let meant = event.to.as_deref().map(|to| self.streams_of(to));
        let entries = topics.iter().filter_map(|topic| self.topics.get(topic));
        for (address, readers) in entries.flat_map(|entry| &entry.readers) {
            let marked = match &meant {
                None => readers.mailbox.mark(&readers.streams, event.sequence),
                Some(meant) => {
                    let is_meant = |key: &&u32| meant.contains(&(*address, **key));
                    let keys: Vec<u32> = readers.streams.iter().filter(is_meant).copied().collect();
                    readers.mailbox.mark(&keys, event.sequence)
                }
            };
            receivers += marked.fresh;
            if marked.wake {
                wakes.push(readers.mailbox.clone());
            }
        }
        (receivers, wakes)
    }

    /// The streams that read any of `topics`, by the address of their mailbox and their key.
    fn streams_of(&self, topics: &[Topic]) -> HashSet<(usize, u32)> {
        let entries = topics.iter().filter_map(|topic| self.topics.get(topic));
        let readers = entries.flat_map(|entry| &entry.readers);
        readers
            .flat_map(|(address, readers)| readers.streams.iter().map(|key| (*address, *key)))
            .collect()
    }

    fn entry(&mut self, topic: &Topic) -> &mut Entry {
        if !self.topics.contains_key(topic) {
            let floor = self.tombstones.remove(topic).unwrap_or(self.floor);
            let cell = Arc::new(Cell {
                topic: topic.clone(),
                changed: AtomicU64::new(floor),
                ring: Mutex::new(Ring::starting_after(floor)),
            });
            let entry = Entry {
                cell,
                readers: IndexMap::new(),
                last: 0,
            };
            self.bytes += topic_cost(topic);
            self.topics.insert(topic.clone(), entry);
        }
        self.topics
            .get_mut(topic)
            .expect("it was inserted if it was not there")
    }

    /// Evicts what is older than `age` from one topic. `false` when it still holds events.
    fn evict_older(&mut self, topic: &Topic, now: Instant, age: Duration) -> bool {
        let Some(entry) = self.topics.get(topic) else {
            return true;
        };
        let mut ring = entry.cell.ring();
        let before = ring.cost();
        ring.evict_older(now, age);
        let (emptied, after) = (ring.is_empty(), ring.cost());
        drop(ring);
        self.bytes = self.bytes - before + after;
        if emptied {
            self.retire(topic);
        }
        emptied
    }

    /// Evicts from the least recently published topics until all cost at most `limit` bytes. The
    /// newest event of all stays: readers take it from its rings.
    fn evict_to(&mut self, limit: usize) {
        let mut last = None;
        while self.bytes > limit {
            let from = last.take().map_or(Bound::Unbounded, Bound::Excluded);
            let Some((number, topic)) =
                self.recency.range((from, Bound::Unbounded)).next().cloned()
            else {
                return;
            };
            let entry = self.topics.get(&topic).expect("recency names known topics");
            let mut ring = entry.cell.ring();
            let keep = usize::from(number == self.sequence);
            while self.bytes > limit && ring.len() > keep {
                let before = ring.cost();
                ring.evict();
                self.bytes = self.bytes - before + ring.cost();
            }
            let emptied = ring.is_empty();
            drop(ring);
            if emptied {
                self.retire(&topic);
            }
            last = Some((number, topic));
        }
    }

    /// Takes a topic whose ring has become empty out of `recency`.
    fn retire(&mut self, topic: &Topic) {
        if let Some(entry) = self.topics.get_mut(topic) {
            let last = std::mem::take(&mut entry.last);
            self.recency.remove(&(last, topic.clone()));
        }
        self.forget_if_idle(topic);
    }

    /// Forgets a topic without history and readers, all but where its history ended.
    fn forget_if_idle(&mut self, topic: &Topic) {
        let Some(entry) = self.topics.get(topic) else {
            return;
        };
        if entry.last != 0 || !entry.readers.is_empty() {
            return;
        }
        let (ended, cost) = {
            let ring = entry.cell.ring();
            (ring.evicted_through(), ring.cost())
        };
        self.topics.remove(topic);
        self.bytes -= cost + topic_cost(topic);
        if ended > self.floor {
            if self.tombstones.len() == TOMBSTONES {
                let newest = self.tombstones.values().max().copied();
                self.floor = newest.unwrap_or_default().max(self.floor);
                self.tombstones.clear();
            }
            self.tombstones.insert(topic.clone(), ended);
        }
    }
}

fn topic_cost(topic: &Topic) -> usize {
    TOPIC_OVERHEAD + topic.as_str().len()
}

#[cfg(test)]
mod tests;
