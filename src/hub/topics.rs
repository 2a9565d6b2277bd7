//! Every topic that is known, under the hub's one lock: who reads it, what it holds, and which give
//! way when all of them hold too much. `turns` is about those that have an interval.

mod turns;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use indexmap::{IndexMap, IndexSet};
use slab::Slab;
use smallvec::SmallVec;

use super::{
    Applied, Identity, NameBounds, NoRoom, Repeat, Replay, Retention, TopicRules, Treatment,
    duplicates::Duplicates,
    mailbox::{Mailbox, Mark, StreamHandle, Wakes},
    names::{Account, Names},
    pace::Pace,
    ring::{Bounds, Ring},
    stored::Stored,
    timeline::Timeline,
};
use crate::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    topic::Topic,
};

/// How many topics may be closed.
const CLOSED: usize = 16_384;
/// What the names of the edge's own topics begin with, and the first names past them.
const RESERVED: &str = "$";
const PAST_RESERVED: &str = "%";
/// Of fewer topics than that no room is given back.
const ROOM: usize = 4096;
/// How many topics are swept under one hold of the lock.
const SWEPT_AT_ONCE: usize = 64;
/// What a topic costs beside its events and its name, in bytes.
const TOPIC_OVERHEAD: usize = 512;
/// How many numbers of evicted events all topics with history remember together, 8 MiB, so that gaps
/// can be counted; each its share.
const REMEMBERED: usize = 1 << 20;
/// How many forgotten topics are remembered with where their history ended.
const TOMBSTONES: usize = 16_384;

/// Every topic that is known.
#[derive(Debug)]
pub(super) struct Topics {
    retention: Retention,
    rules: TopicRules,
    /// The number of the last entry.
    sequence: u64,
    /// By their ids, which are used again.
    known: Slab<Known>,
    /// The most there were since room was given back.
    most_known: usize,
    ids: HashMap<Topic, Id>,
    /// The same in the order of their names.
    by_name: BTreeMap<Topic, Id>,
    /// Topics with history, by the number of their last event.
    recency: BTreeSet<(u64, Id)>,
    /// Topics with events that end, by the moment that the first of them does.
    ends: BTreeSet<(Instant, Id)>,
    /// Topics with an interval of which something is known, by the moment of their first turn.
    turns: BTreeSet<(Instant, Id)>,
    /// Invariant: how many series they know.
    series: usize,
    /// What all events that wait cost, in bytes.
    waiting_bytes: Arc<AtomicUsize>,
    /// Some moment of the grid that turns are on.
    origin: Instant,
    /// When the last of what has come was placed, if others settle by that too what waits.
    settled: Option<Instant>,
    /// Invariant: the sum of `cost()` and `topic_cost()` over all topics with history.
    bytes: usize,
    /// Where the history of forgotten topics ended, and whether by their deletion.
    tombstones: BTreeMap<Topic, Ended>,
    /// Where the history of topics ended that are not even in `tombstones` any more.
    floor: u64,
    /// Topics that are closed, oldest first, whether known or forgotten.
    closed: IndexSet<Topic>,
    timeline: Timeline,
    duplicates: Duplicates,
    names: Names,
}

/// What a topic goes by where its name would cost a search: each publish.
pub(super) type Id = usize;

/// The topics of an event.
pub(super) type Ids = SmallVec<[Id; 1]>;

/// Where the history of a topic ended that is forgotten.
#[derive(Clone, Copy, Debug)]
struct Ended {
    through: u64,
    deleted: bool,
}

/// What is known of one topic.
#[derive(Debug)]
pub(super) struct Known {
    cell: Arc<Cell>,
    /// How many streams read it. Invariant: the sum of those in `readers`.
    streams: usize,
    /// By the address of the mailbox, which lives as long as its entry here.
    readers: IndexMap<usize, Readers>,
    /// The number of the last event, 0 when none is held. Invariant: in `recency` unless 0.
    last: u64,
    /// When events of it end, so that it is looked at. Invariant: in `ends` if given.
    ends: Option<Instant>,
    /// When its events go out, while that is not at once.
    pace: Option<Box<Pace>>,
    /// When its first turn is. Invariant: in `turns` if given.
    turn: Option<Instant>,
    /// On whose behalf it is known while it is merely read. Invariant: `None` while `last` is not 0,
    /// and while nobody reads it.
    account: Option<Arc<Account>>,
}

/// The streams of one connection that read a topic.
#[derive(Debug)]
struct Readers {
    mailbox: Arc<Mailbox>,
    streams: Vec<u32>,
}

/// What readers see of a topic without the hub's lock.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) topic: Topic,
    pub(super) treatment: Treatment,
    id: Id,
    /// The number of the last entry that concerns it: readers at or past it need not take the lock.
    changed: AtomicU64,
    /// The number of the last entry that ended the streams that read it.
    ended: AtomicU64,
    /// Nothing more is to come.
    closed: AtomicBool,
    ring: Mutex<Ring>,
}

impl Cell {
    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("no holder of this lock panics")
    }

    pub(super) fn has_changed_after(&self, cursor: u64) -> bool {
        self.changed.load(Ordering::Acquire) > cursor
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether the streams were ended that read it and began with `joined` as the last entry.
    pub(super) fn was_ended_after(&self, joined: u64) -> bool {
        self.ended.load(Ordering::Acquire) > joined
    }
}

impl Known {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.cell.ring()
    }

    pub(super) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    pub(super) fn subscribers(&self) -> usize {
        self.streams
    }

    /// Has its readers look, for what is not an event; how many there are.
    fn tell(&self, wakes: &mut Wakes) -> usize {
        for readers in self.readers.values() {
            if readers.mailbox.mark_all(&readers.streams) {
                wakes.add(&readers.mailbox);
            }
        }
        self.subscribers()
    }
}

impl Topics {
    /// None are known, and history up to `floor` is gone.
    pub(super) fn new(
        retention: Retention,
        rules: TopicRules,
        names: NameBounds,
        floor: u64,
        origin: Instant,
    ) -> Self {
        Self {
            retention,
            rules,
            sequence: floor,
            known: Slab::new(),
            most_known: 0,
            ids: HashMap::new(),
            by_name: BTreeMap::new(),
            recency: BTreeSet::new(),
            ends: BTreeSet::new(),
            turns: BTreeSet::new(),
            series: 0,
            waiting_bytes: Arc::default(),
            origin,
            settled: None,
            bytes: 0,
            tombstones: BTreeMap::new(),
            floor,
            closed: IndexSet::new(),
            timeline: Timeline::default(),
            duplicates: Duplicates::new(retention.duplicates_age, retention.duplicates),
            names: Names::new(names),
        }
    }

    /// The number of the last entry.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next entry begins.
    pub(super) fn advance(&mut self, sequence: u64, at: Instant) {
        debug_assert!(sequence > self.sequence, "entries come in their order");
        self.sequence = sequence;
        self.timeline.advance(sequence, at);
    }

    /// When entries were placed.
    pub(super) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Whether the entry that begins repeats one before it.
    pub(super) fn repeats(&mut self, identity: &Identity, at: Instant) -> Option<Repeat> {
        self.duplicates.judge(identity, self.sequence, at)
    }

    /// An event with this number was judged before, and is known if it comes once more; or one that repeated it.
    pub(super) fn remember(
        &mut self,
        identity: &Identity,
        sequence: u64,
        repeats: bool,
        at: Instant,
    ) {
        if repeats {
            self.duplicates.repeats(identity, sequence, at);
        } else {
            self.duplicates.judge(identity, sequence, at);
        }
    }

    /// The entries from a number on were judged and are not in the order after all.
    pub(super) fn unjudge(&mut self, from: u64) {
        self.duplicates.undo(from);
    }

    /// When an entry was placed that is not applied: nobody remembers more of it.
    pub(super) fn remember_moment(&mut self, sequence: u64, at: Instant) {
        self.timeline.advance(sequence, at);
        self.timeline.cut();
    }

    /// Nobody remembers when what was before was placed.
    pub(super) fn forget_moments(&mut self) {
        self.timeline.cut();
    }

    /// The topics that are closed.
    pub(super) fn closed(&self) -> Vec<Topic> {
        self.closed.iter().cloned().collect()
    }

    /// What is known of a topic.
    pub(super) fn get(&self, topic: &Topic) -> Option<&Known> {
        self.id(topic).map(|id| &self.known[id])
    }

    /// Up to where the history of a topic is gone that is not known, and whether by its deletion.
    pub(super) fn ended(&self, topic: &Topic) -> (u64, bool) {
        let ended = self.tombstones.get(topic);
        ended.map_or((self.floor, false), |ended| (ended.through, ended.deleted))
    }

    fn id(&self, topic: &Topic) -> Option<Id> {
        self.ids.get(topic).copied()
    }

    /// The publishers' topics after `after`, in the order of their names.
    pub(super) fn after(&self, after: Option<&str>) -> impl Iterator<Item = &Known> {
        let from = |least| after.filter(|after| *after >= least).map(Bound::Excluded);
        let before = after.is_none_or(|after| after < RESERVED).then(|| {
            let from = from("").unwrap_or(Bound::Unbounded);
            self.by_name
                .range::<str, _>((from, Bound::Excluded(RESERVED)))
        });
        let from = from(PAST_RESERVED).unwrap_or(Bound::Included(PAST_RESERVED));
        let past = self.by_name.range::<str, _>((from, Bound::Unbounded));
        let all = before.into_iter().flatten().chain(past);
        all.map(|(_, id)| &self.known[*id])
    }

    /// Makes topics known.
    pub(super) fn prepare(&mut self, topics: &[Topic]) {
        for topic in topics {
            self.know(topic);
        }
    }

    /// Forgets those topics that were prepared for nothing.
    pub(super) fn forget_idle(&mut self, topics: &[Topic]) {
        for topic in topics {
            if let Some(id) = self.id(topic) {
                self.forget_if_idle(id);
            }
        }
    }

    /// Puts an event, the newest of all, into the rings of its topics, whose ids it returns.
    pub(super) fn push(&mut self, topics: &[Topic], event: &Arc<Stored>) -> Ids {
        let bounds = Bounds {
            events: self.retention.events,
            bytes: self.retention.topic_bytes,
            age: self.retention.age,
            remembered: REMEMBERED / self.recency.len().max(1),
            is_compact: false,
            knows_newest: false,
        };
        let mut ids = Ids::with_capacity(topics.len());
        for topic in topics {
            let id = self.know(topic);
            let known = &self.known[id];
            if known.last == event.sequence {
                continue; // named twice
            }
            ids.push(id);
            let (freed, held) = {
                let bounds = Bounds {
                    is_compact: known.cell.treatment.replay == Replay::Latest,
                    knows_newest: known.cell.treatment.knows_newest(),
                    ..bounds
                };
                let mut ring = known.ring();
                let freed = ring.bytes();
                ring.push(event.clone(), &bounds);
                (freed, ring.bytes())
            };
            known.cell.changed.store(event.sequence, Ordering::Release);
            if known.cell.is_closed() {
                known.cell.closed.store(false, Ordering::Release);
                self.closed.shift_remove(topic);
            }
            self.bytes = self.bytes - freed + held;
            self.used(id, event.sequence);
            if let Some(end) = event.end() {
                self.ends_at(id, end);
            }
        }
        self.evict_to(self.retention.total_bytes);
        ids
    }

    /// Marks the streams that an event is for, which was put into the rings of these topics; how many
    /// they are.
    pub(super) fn mark(&self, ids: &[Id], event: &Stored, wakes: &mut Wakes) -> usize {
        let mut receivers = 0;
        let meant = event.to().map(|to| self.streams_of(to));
        let event = Mark {
            sequence: event.sequence,
            is_counted: event.is_counted(),
        };
        // One that was forgotten since, or whose id is another's by now, has no readers: they come
        // under the lock that is held.
        let known = ids.iter().filter_map(|id| self.known.get(*id));
        for (address, readers) in known.flat_map(|known| &known.readers) {
            let marked = match &meant {
                None => readers.mailbox.mark(&readers.streams, event),
                Some(meant) => {
                    let is_meant = |key: &&u32| meant.contains(&(*address, **key));
                    let keys: Vec<u32> = readers.streams.iter().filter(is_meant).copied().collect();
                    readers.mailbox.mark(&keys, event)
                }
            };
            receivers += marked.fresh;
            if marked.wake {
                wakes.add(&readers.mailbox);
            }
        }
        receivers
    }

    /// The streams that read any of `topics`, by the address of their mailbox and their key.
    fn streams_of(&self, topics: &[Topic]) -> HashSet<(usize, u32)> {
        let known = topics.iter().filter_map(|topic| self.get(topic));
        let readers = known.flat_map(|known| &known.readers);
        readers
            .flat_map(|(address, readers)| readers.streams.iter().map(|key| (*address, *key)))
            .collect()
    }

    /// Forgets all that was, of every topic, and has all readers look. History up to `floor` is gone.
    pub(super) fn begin_anew(&mut self, floor: u64, wakes: &mut Wakes) {
        let ids: Vec<Id> = self.known.iter().map(|(id, _)| id).collect();
        (self.sequence, self.floor) = (floor, floor);
        self.tombstones.clear();
        self.closed.clear();
        self.timeline = Timeline::default();
        self.timeline.cut();
        let Retention {
            duplicates_age,
            duplicates,
            ..
        } = self.retention;
        self.duplicates = Duplicates::new(duplicates_age, duplicates);
        for id in ids {
            self.paced(id, Pace::clear);
            let known = &mut self.known[id];
            if let Some(end) = known.ends.take() {
                self.ends.remove(&(end, id));
            }
            let known = &self.known[id];
            let bytes = {
                let mut ring = known.ring();
                let bytes = ring.bytes();
                *ring = Ring::starting_after(floor, false);
                bytes
            };
            known.cell.changed.store(floor, Ordering::Release);
            known.cell.ended.store(0, Ordering::Release);
            known.cell.closed.store(false, Ordering::Release);
            known.tell(wakes);
            self.bytes -= bytes;
            self.used(id, 0);
            self.forget_if_idle(id);
        }
    }

    /// Drops the history of a topic.
    pub(super) fn delete(&mut self, topic: &Topic) -> Applied {
        let Some(id) = self.id(topic) else {
            return Applied::default();
        };
        let known = &self.known[id];
        let removed = {
            let mut ring = known.ring();
            let (events, bytes) = (ring.len(), ring.bytes());
            ring.delete(self.sequence);
            self.bytes -= bytes;
            events
        };
        known.cell.changed.store(self.sequence, Ordering::Release);
        self.paced(id, Pace::clear);
        self.used(id, 0);
        Applied {
            removed: Some(removed),
            ..Applied::default()
        }
    }

    /// Takes back the event that `find` finds in the rings of `topics`, in all that hold it.
    pub(super) fn retract(
        &mut self,
        topics: &[Topic],
        find: impl Fn(&Ring) -> Option<Arc<Stored>>,
    ) -> Applied {
        let known = |topic| self.get(topic);
        let found = topics.iter().filter_map(known);
        let Some(event) = found
            .filter_map(|known| find(&known.ring()))
            .max_by_key(|e| e.sequence)
        else {
            return Applied::default();
        };
        let retracted = Arc::new(event.retracted());
        // Those that hold it: an event does not know its topics.
        let later = self.recency.range((event.sequence, 0)..);
        let holding = later.filter(|(_, id)| self.known[*id].ring().get(event.sequence).is_some());
        let mut ids: Vec<Id> = holding.map(|(_, id)| *id).collect();
        ids.extend(topics.iter().filter_map(|topic| self.id(topic)));
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            self.paced(id, |pace| pace.take(event.series(), event.sequence));
            self.shrink(id, |ring| ring.retract(&retracted));
            if self.known.contains(id) {
                self.forget_if_idle(id);
            }
        }
        Applied {
            removed: Some(1),
            retracted: Some(event.sequence),
            ..Applied::default()
        }
    }

    /// Ends the streams that read a topic and began before now.
    pub(super) fn end_streams(&mut self, topic: &Topic) {
        if let Some(known) = self.get(topic) {
            known.cell.ended.store(self.sequence, Ordering::Release);
            known.cell.changed.store(self.sequence, Ordering::Release);
        }
    }

    /// Closes a topic. Of too many the one that was closed first is open again.
    pub(super) fn close(&mut self, topic: &Topic) {
        if self.closed.len() == CLOSED
            && !self.closed.contains(topic)
            && let Some(oldest) = self.closed.shift_remove_index(0)
            && let Some(known) = self.get(&oldest)
        {
            known.cell.closed.store(false, Ordering::Release);
        }
        self.closed.insert(topic.clone());
        let id = self.know(topic);
        // There is nothing to take: it does not count as a change.
        self.known[id].cell.closed.store(true, Ordering::Release);
    }

    /// Whether any topic is closed.
    pub(super) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Has the readers of a topic look, which was deleted, closed or whose streams were ended, and forgets
    /// it if nobody reads it. How many readers there are.
    pub(super) fn tell(&mut self, topic: &Topic, wakes: &mut Wakes) -> usize {
        let Some(id) = self.id(topic) else {
            return 0;
        };
        let told = self.known[id].tell(wakes);
        self.forget_if_idle(id);
        told
    }

    /// Whether a stream of this connection may read these topics, those that nobody knows included.
    pub(super) fn check_names(&self, topics: &[&Topic], mailbox: &Mailbox) -> Result<(), NoRoom> {
        let mut new = 0;
        for topic in topics {
            match self.get(topic) {
                None => new += 1,
                // What is for everyone is read by everyone.
                Some(known) if topic.is_named() && known.streams >= self.names.readers() => {
                    return Err(NoRoom::Topic);
                }
                Some(_) => {}
            }
        }
        self.names.check(mailbox.account(), new)
    }

    /// Has a stream read a topic. Its events that are too old go first.
    pub(super) fn join(
        &mut self,
        topic: &Topic,
        treatment: Treatment,
        stream: &StreamHandle,
        now: Instant,
    ) -> Arc<Cell> {
        let id = self.know_as(topic, |_| treatment);
        let known = &mut self.known[id];
        let cell = known.cell.clone();
        let mailbox = stream.mailbox();
        let readers = known.readers.entry(address(mailbox));
        let readers = readers.or_insert_with(|| Readers {
            mailbox: mailbox.clone(),
            streams: Vec::new(),
        });
        readers.streams.push(stream.key());
        known.streams += 1;
        self.account_for(id);
        self.evict_older(id, now);
        cell
    }

    /// Has a stream read a topic no more.
    pub(super) fn leave(&mut self, cell: &Cell, stream: &StreamHandle) {
        let mailbox = address(stream.mailbox());
        // It has a reader, so it is known, and the id is its own.
        let known = &mut self.known[cell.id];
        let readers = known.readers.get_mut(&mailbox);
        let readers = readers.expect("the stream is among its readers");
        let place = readers.streams.iter().position(|&key| key == stream.key());
        readers.streams.swap_remove(place.expect("it is there"));
        known.streams -= 1;
        if readers.streams.is_empty() {
            known.readers.swap_remove(&mailbox);
            if known.readers.is_empty() {
                known.readers = IndexMap::new();
                if let Some(account) = known.account.take() {
                    self.names.remove(&account);
                }
            }
        }
        self.forget_if_idle(cell.id);
    }

    /// What waits is settled by when entries were placed, and on a grid with this moment. Before the first entry.
    pub(super) fn share(&mut self, origin: Instant) {
        (self.origin, self.settled) = (origin, Some(origin));
    }

    /// All has come that was placed by a moment.
    pub(super) fn settle(&mut self, through: Instant) {
        let through = |before: Instant| before.max(through);
        self.settled = self.settled.map(through);
    }

    /// Forgets what is known if it comes again and is too old for that by now.
    pub(super) fn forget_repeats(&mut self, now: Instant) {
        self.duplicates.forget_older(now);
    }

    /// Drops the history of topics that were last published to too long ago, and forgets those that
    /// nobody reads; a slice of them at a time. Whether that is all.
    pub(super) fn sweep(&mut self, now: Instant) -> bool {
        self.give_back_room();
        for _ in 0..SWEPT_AT_ONCE {
            let Some(&(_, id)) = self.ends.first().filter(|(end, _)| *end <= now) else {
                break;
            };
            self.end(id, now);
        }
        if self.ends.first().is_some_and(|(end, _)| *end <= now) {
            return false;
        }
        for _ in 0..SWEPT_AT_ONCE {
            let Some((_, id)) = self.recency.first() else {
                return true;
            };
            if !self.evict_older(*id, now) {
                return true;
            }
        }
        false
    }

    /// Gives back the room of a crowd of topics that are forgotten.
    fn give_back_room(&mut self) {
        let known = self.known.len();
        self.most_known = self.most_known.max(known);
        if self.most_known > ROOM && known < self.most_known / 4 {
            self.known.shrink_to_fit();
            self.ids.shrink_to_fit();
            self.most_known = known;
        }
    }

    /// The id of a topic, which is known from now on at the latest.
    fn know(&mut self, topic: &Topic) -> Id {
        self.know_as(topic, |rules| rules.of(topic))
    }

    fn know_as(&mut self, topic: &Topic, treatment: impl FnOnce(&TopicRules) -> Treatment) -> Id {
        if let Some(id) = self.id(topic) {
            return id;
        }
        let treatment = treatment(&self.rules);
        let ended = self.tombstones.remove(topic);
        let Ended { through, deleted } = ended.unwrap_or(Ended {
            through: self.floor,
            deleted: false,
        });
        let place = self.known.vacant_entry();
        let id = place.key();
        place.insert(Known {
            cell: Arc::new(Cell {
                topic: topic.clone(),
                treatment,
                id,
                changed: AtomicU64::new(through),
                ended: AtomicU64::new(0),
                closed: AtomicBool::new(self.closed.contains(topic)),
                ring: Mutex::new(Ring::starting_after(through, deleted)),
            }),
            streams: 0,
            readers: IndexMap::new(),
            last: 0,
            ends: None,
            pace: None,
            turn: None,
            account: None,
        });
        self.ids.insert(topic.clone(), id);
        self.by_name.insert(topic.clone(), id);
        id
    }

    /// Evicts what is too old from one topic. `false` when it still holds events.
    fn evict_older(&mut self, id: Id, now: Instant) -> bool {
        let age = self.retention.age;
        self.shrink(id, |ring| ring.evict_older(now, age)).1
    }

    /// Takes out of one topic what has ended.
    fn end(&mut self, id: Id, now: Instant) {
        if let Some(end) = self.known[id].ends.take() {
            self.ends.remove(&(end, id));
        }
        let (next, emptied) = self.shrink(id, |ring| ring.end(now));
        if !emptied && let Some(next) = next {
            self.ends_at(id, next);
        }
    }

    /// The first event of a topic that ends does so at this moment, unless another does before.
    fn ends_at(&mut self, id: Id, end: Instant) {
        let known = &mut self.known[id];
        if known.ends.is_some_and(|first| first <= end) {
            return;
        }
        if let Some(before) = known.ends.replace(end) {
            self.ends.remove(&(before, id));
        }
        self.ends.insert((end, id));
    }

    /// Has a ring let go of events, and says what came of it and whether the ring is empty now.
    fn shrink<T>(&mut self, id: Id, change: impl FnOnce(&mut Ring) -> T) -> (T, bool) {
        let mut ring = self.known[id].ring();
        let before = ring.bytes();
        let done = change(&mut ring);
        let (emptied, after) = (ring.is_empty(), ring.bytes());
        drop(ring);
        self.bytes = self.bytes - before + after;
        if emptied {
            self.retire(id);
        }
        (done, emptied)
    }

    /// Evicts until so many bytes are free, or nothing is left; how many are.
    pub(super) fn let_go(&mut self, bytes: usize) -> usize {
        let before = self.bytes;
        self.evict_to(before.saturating_sub(bytes));
        before - self.bytes
    }

    /// Evicts from the least recently published topics until all cost at most `limit` bytes. The
    /// newest event of all stays: readers take it from its rings.
    fn evict_to(&mut self, limit: usize) {
        let mut last = None;
        while self.bytes > limit {
            let from = last.take().map_or(Bound::Unbounded, Bound::Excluded);
            let Some(&(number, id)) = self.recency.range((from, Bound::Unbounded)).next() else {
                return;
            };
            let mut ring = self.known[id].ring();
            let keep = usize::from(number == self.sequence);
            while self.bytes > limit && ring.evictable() > keep {
                let before = ring.bytes();
                ring.evict();
                self.bytes = self.bytes - before + ring.bytes();
            }
            let emptied = ring.is_empty();
            drop(ring);
            if emptied {
                self.retire(id);
            }
            last = Some((number, id));
        }
    }

    /// A topic whose ring has become empty has no history any more.
    fn retire(&mut self, id: Id) {
        self.used(id, 0);
        self.forget_if_idle(id);
    }

    /// The last event of a topic is the one with this number, or there is none, with 0: between the
    /// ledger of history and that of names it goes over.
    fn used(&mut self, id: Id, last: u64) {
        let known = &mut self.known[id];
        let before = std::mem::replace(&mut known.last, last);
        let cost = topic_cost(&known.cell.topic);
        if before != 0 {
            self.recency.remove(&(before, id));
        }
        if last != 0 {
            self.recency.insert((last, id));
        }
        match (before, last) {
            (0, 1..) => {
                self.bytes += cost;
                if let Some(account) = known.account.take() {
                    self.names.remove(&account);
                }
            }
            (1.., 0) => {
                self.bytes -= cost;
                self.account_for(id);
            }
            _ => {}
        }
    }

    /// Counts a topic among the names if it is merely read, on behalf of its first reader.
    fn account_for(&mut self, id: Id) {
        let known = &mut self.known[id];
        if known.last != 0 || known.account.is_some() {
            return;
        }
        if let Some(readers) = known.readers.values().next() {
            let account = readers.mailbox.account().clone();
            self.names.add(&account);
            known.account = Some(account);
        }
    }

    /// Forgets a topic without history and readers, all but where its history ended.
    fn forget_if_idle(&mut self, id: Id) {
        let known = &self.known[id];
        if known.last != 0 || !known.readers.is_empty() {
            return;
        }
        // Where others settle it too, it is known as long what has gone out.
        let is_shared = self.settled.is_some();
        let waits = known.pace.as_ref();
        if waits.is_some_and(|pace| is_shared || pace.waiting().next().is_some()) {
            return;
        }
        self.paced(id, Pace::clear);
        let known = &self.known[id];
        let ended = {
            let ring = known.ring();
            Ended {
                through: ring.evicted_through(),
                deleted: ring.was_deleted(),
            }
        };
        let Known { cell, ends, .. } = self.known.remove(id);
        let topic = cell.topic.clone();
        if let Some(end) = ends {
            self.ends.remove(&(end, id));
        }
        self.ids.remove(&topic);
        self.by_name.remove(&topic);
        if ended.through > self.floor {
            if self.tombstones.len() == TOMBSTONES {
                let newest = self.tombstones.values().map(|ended| ended.through).max();
                self.floor = newest.unwrap_or_default().max(self.floor);
                self.tombstones.clear();
            }
            self.tombstones.insert(topic, ended);
        }
    }

    /// Panics if what is kept beside the topics does not fit them.
    #[cfg(test)]
    pub(super) fn audit(&self) {
        let known = || self.known.iter().map(|(_, known)| known);
        let with_history = || known().filter(|known| known.last != 0);
        let cost = |known: &Known| known.ring().bytes() + topic_cost(&known.cell.topic);
        assert_eq!(self.bytes, with_history().map(cost).sum::<usize>());
        assert_eq!(self.recency.len(), with_history().count());
        let merely_read = known().filter(|known| known.last == 0);
        let merely_read = merely_read.inspect(|known| assert!(known.account.is_some()));
        assert_eq!(self.names.total(), merely_read.count());
        for known in known() {
            let streams = known.readers.values();
            let streams = streams.map(|readers| readers.streams.len());
            assert_eq!(known.streams, streams.sum::<usize>());
        }
        assert_eq!(
            self.turns.len(),
            known().filter(|known| known.turn.is_some()).count()
        );
        assert_eq!(
            self.ends.len(),
            known().filter(|known| known.ends.is_some()).count()
        );
        let series = known().filter_map(|known| known.pace.as_ref());
        assert_eq!(self.series, series.map(|pace| pace.len()).sum::<usize>());
        assert_eq!(self.by_name.len(), self.known.len());
        for (topic, id) in &self.by_name {
            assert_eq!((self.ids[topic], &self.known[*id].cell.topic), (*id, topic));
        }
    }

    /// What history costs, in bytes; how many topics have some, how many are merely read, and how many
    /// forgotten ones are remembered.
    #[cfg(test)]
    pub(super) fn ledger(&self) -> [usize; 4] {
        [
            self.bytes,
            self.recency.len(),
            self.names.total(),
            self.tombstones.len(),
        ]
    }
}

fn address(mailbox: &Arc<Mailbox>) -> usize {
    Arc::as_ptr(mailbox) as usize
}

fn topic_cost(topic: &Topic) -> usize {
    TOPIC_OVERHEAD + topic.as_str().len()
}
