//! Topics, their history, and who reads them. No sockets.
//!
//! - [`Entry`] is what can be put into the one order; whoever keeps the order hands placed entries
//!   to [`Hub::apply`], the one thing that changes rings, watermark and marks.
//! - [`ring`] holds the recent events of a topic; it is also the only queue there is. `evicted` is the
//!   numbers of those that have left it, `fleeting` what it knows of those that have terms.
//! - [`stored`] is an event, and on what terms it is kept.
//! - [`Subscription`] is a set of topics and a cursor; `resume` says where it begins, `gap` what it
//!   missed.
//! - `page` is history as a list.
//! - `wire` is events as rings, readers and sockets share them, and the ledger of what is unread.
//! - `topic_rules` says which topics are treated in another way than most.
//! - `pace` says when events go out in topics with an interval.
//! - `timeline` remembers when entries were placed.
//! - `names` counts the topics that are merely read, which strangers make up.
//! - `duplicates` knows a publish that comes again.
//! - [`mailbox`] wakes a connection once per batch, however many of its streams it is for.
//!
//! Readers take only events at or below the watermark, which is stored once what is at or below it
//! has been applied everywhere, so one number is a sound cursor over any number of topics.

mod duplicates;
mod entry;
mod evicted;
mod fleeting;
mod gap;
pub mod mailbox;
mod metrics;
mod names;
mod pace;
mod page;
mod resume;
mod retention;
pub mod ring;
pub mod stored;
mod subscription;
mod timeline;
mod topic_rules;
mod topics;
mod wire;

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::{
    clock,
    sse::{Draft, Epoch, EventId},
    topic::Topic,
};
use mailbox::Wakes;
use pace::Waiting;
use ring::Ring;
use stored::{Series, Stored, Terms};
use topics::{Cell, Ids, Topics};
use wire::Ledger;

pub use duplicates::{Identity, Key, Repeat};
pub use entry::{Applied, Entry, Outcome, Placed, Target};
pub use gap::GapReason;
pub use mailbox::StreamHandle;
pub use metrics::HubMetrics;
pub use names::{NameBounds, NoRoom};
pub use page::{Kept, Page};
pub use resume::Resume;
pub use retention::Retention;
pub use subscription::{Ask, Belonging, Chunk, Found, Next, Opening, Subscription};
pub use topic_rules::{Overflow, Replay, TopicRule, TopicRules, Treatment};
pub use wire::Wire;

/// How many entries are applied, or topics prepared, under one hold of the lock.
const UNDER_ONE_LOCK: usize = 64;
/// Nothing is kept beyond the rings.
const NOWHERE: u64 = u64::MAX;

/// What readers may cost.
#[derive(Clone, Copy, Debug)]
pub struct HubBounds {
    /// How many topics may be merely read.
    pub names: NameBounds,
    /// `limits.unread_bytes`: what may be in memory only because readers have not taken it.
    pub unread_bytes: usize,
}

impl Default for HubBounds {
    fn default() -> Self {
        Self {
            names: NameBounds::default(),
            unread_bytes: 128 << 20,
        }
    }
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

/// The hub: a ring for each topic, filled in the one order.
#[derive(Debug)]
pub struct Hub {
    epoch: Epoch,
    /// When it began, by both clocks.
    began: (Instant, SystemTime),
    metrics: HubMetrics,
    retention: Retention,
    rules: TopicRules,
    topics: Mutex<Topics>,
    ledger: Arc<Ledger>,
    /// An event has its turn before all others that wait.
    sooner: Notify,
    /// Every entry up to this number has been applied everywhere.
    watermark: AtomicU64,
    /// Whether any topic is closed, so that nobody need look at each.
    any_closed: AtomicBool,
    /// From this number on, events that the rings have let go of can be asked for.
    kept_from: AtomicU64,
}

/// What of an entry is left to do once the watermark is stored.
enum Rest {
    /// The streams that an event is for are to be marked.
    Mark(Arc<Stored>, Ids),
    /// The readers of a topic are to look.
    Tell(Topic),
    Nothing,
}

impl Hub {
    /// An empty hub of the history `epoch`, whose entries up to `floor` are gone.
    #[must_use]
    pub fn new(
        retention: Retention,
        rules: TopicRules,
        bounds: HubBounds,
        epoch: Epoch,
        floor: u64,
    ) -> Arc<Self> {
        let now = clock::now();
        Arc::new(Self {
            epoch,
            began: (now, clock::wall()),
            metrics: HubMetrics::default(),
            retention,
            rules: rules.clone(),
            topics: Mutex::new(Topics::new(retention, rules, bounds.names, floor, now)),
            ledger: Ledger::new(bounds.unread_bytes),
            sooner: Notify::new(),
            watermark: AtomicU64::new(floor),
            any_closed: AtomicBool::new(false),
            kept_from: AtomicU64::new(NOWHERE),
        })
    }

    /// How much history is kept.
    #[must_use]
    pub fn retention(&self) -> &Retention {
        &self.retention
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &HubMetrics {
        &self.metrics
    }

    /// The id of the entry with this number.
    #[must_use]
    pub fn id(&self, sequence: u64) -> EventId {
        EventId {
            epoch: self.epoch,
            sequence,
        }
    }

    /// The id that stands for now, over all topics: whoever begins after it gets what comes.
    #[must_use]
    pub fn cursor(&self) -> EventId {
        self.id(self.watermark())
    }

    /// The number of the last entry that was placed by a moment, or of one a little later.
    #[must_use]
    pub fn placed_by(&self, at: Instant) -> u64 {
        let topics = self.lock();
        topics
            .timeline()
            .placed_by(at)
            .unwrap_or_else(|| topics.sequence())
    }

    /// From now on, events from this number on can be asked for ([`Next::Ask`]) though the rings
    /// have let go of them.
    pub fn keeps_from(&self, sequence: u64) {
        self.kept_from.store(sequence, Ordering::Release);
    }

    /// Makes the topics of an event known that goes to many, a slice of them at a time: when it is
    /// applied that is all done, and others do not wait for it.
    pub fn prepare(&self, entry: &Entry) {
        let Entry::Event { target, .. } = entry else {
            return;
        };
        if target.topics.len() > UNDER_ONE_LOCK {
            for slice in target.topics.chunks(UNDER_ONE_LOCK) {
                self.lock().prepare(slice);
            }
        }
    }

    /// Applies entries, each above the last one.
    ///
    /// For each handful of them, under one hold of the lock: first the rings, then the watermark,
    /// then the marks. A connection that finds its mark must find the event too, or it would take
    /// the mark and sleep on it.
    ///
    /// What of a batch its rings cannot hold has left them before anyone saw it: who batches keeps
    /// it elsewhere too ([`keeps_from`](Self::keeps_from)).
    pub fn apply(&self, batch: impl IntoIterator<Item = Placed>) -> Outcome {
        let mut batch = batch.into_iter().peekable();
        let mut applied: SmallVec<[Applied; 1]> = SmallVec::new();
        let mut wakes = Wakes::default();
        while batch.peek().is_some() {
            let mut topics = self.lock();
            let mut rests: SmallVec<[Rest; 1]> = SmallVec::new();
            let turn = topics.first_turn();
            for placed in batch.by_ref().take(UNDER_ONE_LOCK) {
                topics.advance(placed.sequence, placed.at);
                let (done, rest) = self.apply_to_rings(&mut topics, placed);
                applied.push(done);
                rests.push(rest);
            }
            let any_closed = topics.has_closed();
            if any_closed != self.any_closed.load(Ordering::Relaxed) {
                self.any_closed.store(any_closed, Ordering::Relaxed);
            }
            self.watermark.store(topics.sequence(), Ordering::Release);
            let first = applied.len() - rests.len();
            for (done, rest) in applied[first..].iter_mut().zip(rests) {
                match rest {
                    Rest::Mark(event, of) => {
                        done.receivers = topics.mark(&of, &event, &mut wakes);
                    }
                    Rest::Tell(topic) => done.receivers = topics.tell(&topic, &mut wakes),
                    Rest::Nothing => {}
                }
            }
            let first = topics.first_turn();
            if first.is_some_and(|first| turn.is_none_or(|turn| first < turn)) {
                self.sooner.notify_one();
            }
        }
        Outcome { applied, wakes }
    }

    fn apply_to_rings(&self, topics: &mut Topics, placed: Placed) -> (Applied, Rest) {
        let Placed {
            sequence,
            at,
            entry,
        } = placed;
        match entry {
            Entry::Event { draft, target } => {
                let Some(repeat) = topics.repeats(&target.identity, at) else {
                    return self.publish(topics, (sequence, at), draft, target);
                };
                topics.forget_idle(&target.topics);
                if matches!(repeat, Repeat::Of(_)) {
                    self.metrics.duplicates.inc();
                }
                let done = Applied {
                    repeat: Some(repeat),
                    ..Applied::default()
                };
                (done, Rest::Nothing)
            }
            Entry::Release {
                topics: of,
                series,
                published,
            } => {
                let waited = topics.release(&of, &series, published, at);
                let rest = waited.map_or(Rest::Nothing, |(waiting, of)| {
                    self.release(topics, (sequence, at), &waiting, &of)
                });
                (Applied::default(), rest)
            }
            Entry::Delete(topic) => (topics.delete(&topic), Rest::Tell(topic)),
            Entry::Retract { topics: of, id } => {
                let done = topics.retract(&of, |ring| self.find(ring, &id));
                (done, Rest::Nothing)
            }
            Entry::Close(topic) => {
                topics.close(&topic);
                (Applied::default(), Rest::Tell(topic))
            }
            Entry::Disconnect(topic) => {
                topics.end_streams(&topic);
                (Applied::default(), Rest::Tell(topic))
            }
        }
    }

    /// Puts an event, which repeats none, into the rings of its topics: to go out now, or to wait.
    fn publish(
        &self,
        topics: &mut Topics,
        (sequence, at): (u64, Instant),
        draft: Draft,
        target: Target,
    ) -> (Applied, Rest) {
        self.metrics.published.inc();
        let to = target.to.map(|mut to| {
            to.sort_unstable();
            to.dedup();
            to.into()
        });
        let terms = Terms {
            series: Series {
                key: target.key,
                to,
                is_live_only: target.is_live_only,
            },
            until: target.ttl.and_then(|ttl| at.checked_add(ttl)),
            published: None,
        };
        let turn = topics.turn(&target.topics, &terms.series, at);
        // One that is over by then goes out at once or never.
        let turn = turn.filter(|turn| terms.until.is_none_or(|until| until > *turn));
        let waits = turn.map(|turn| (turn, draft.clone()));
        let event = self.stored((sequence, at), draft, target.id, terms);
        let (passed_over, deferred, rest) = match waits {
            None => {
                let ids = topics.push(&target.topics, &event);
                let passed_over = topics.went_out(&ids, event.series(), at);
                (passed_over, false, Rest::Mark(event, ids))
            }
            Some((turn, draft)) => {
                let waiting = Waiting::new(event.clone(), draft, topics.waiting_bytes());
                if !event.is_live_only() {
                    topics.push(&target.topics, &event);
                }
                let passed_over = topics.wait(&target.topics, turn, waiting);
                (passed_over, true, Rest::Nothing)
            }
        };
        self.metrics.passed_over.inc_by(passed_over as u64);
        let done = Applied {
            deferred,
            ..Applied::default()
        };
        (done, rest)
    }

    /// Puts an event that has waited into the rings of these topics, under its new number.
    fn release(
        &self,
        topics: &mut Topics,
        place: (u64, Instant),
        waiting: &Waiting,
        of: &[Topic],
    ) -> Rest {
        let before = &waiting.event;
        if before.is_over(|| place.1) {
            return Rest::Nothing;
        }
        let terms = Terms {
            published: Some(before.sequence),
            ..before.terms.as_deref().cloned().unwrap_or_default()
        };
        let event = self.stored(place, waiting.draft.clone(), before.id.clone(), terms);
        let ids = topics.push(of, &event);
        Rest::Mark(event, ids)
    }

    fn stored(
        &self,
        (sequence, at): (u64, Instant),
        draft: Draft,
        id: Option<Box<str>>,
        terms: Terms,
    ) -> Arc<Stored> {
        let framed = match &id {
            Some(id) => draft.framed(id),
            None => draft.framed(self.id(sequence)),
        };
        Arc::new(Stored {
            sequence,
            at,
            id,
            wire: Wire::new(framed, &self.ledger),
            terms: terms.boxed(),
            release: AtomicU8::new(0),
            ledger: self.ledger.clone(),
        })
    }

    /// The id that clients know an event by.
    fn id_of(&self, event: &Stored) -> String {
        match &event.id {
            Some(id) => id.to_string(),
            None => self.id(event.sequence).to_string(),
        }
    }

    /// The newest event that a ring holds under an id, the publisher's own or the edge's.
    fn find(&self, ring: &Ring, id: &str) -> Option<Arc<Stored>> {
        // Those that were taken back keep theirs.
        let mut own = ring.find(id).iter().rev();
        if let Some(event) = own.find_map(|sequence| ring.published(*sequence)) {
            return Some(event.clone());
        }
        let id = EventId::parse(id).filter(|id| id.epoch == self.epoch)?;
        ring.published(id.sequence).cloned()
    }

    /// Returns once the turn of an event has come, in a topic with an interval. Cancel-safe.
    pub async fn until_turn(&self) {
        loop {
            let sooner = self.sooner.notified();
            let first = self.lock().first_turn();
            let Some(first) = first else {
                sooner.await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(first.into()) => return,
                () = sooner => {}
            }
        }
    }

    /// Some of what is to be put into the order because its turn has come, at most so many.
    #[must_use]
    pub fn due(&self, now: Instant, most: usize) -> Vec<Entry> {
        self.lock().due(now, most)
    }

    /// What is to be put into the order before a topic is closed: all that waits in it.
    #[must_use]
    pub fn waiting_in(&self, topic: &Topic) -> Vec<Entry> {
        self.lock().waiting_in(topic)
    }

    /// Drops the history of topics that were last published to longer than `history.age` ago, and
    /// forgets those that nobody reads. To be called now and then.
    pub fn sweep(&self, now: Instant) {
        while !self.lock().sweep(now) {}
    }

    /// Lets go of the oldest events of the topics that were published to least recently, before their time,
    /// until about so many bytes are free; how many are. Publishers and readers wait meanwhile.
    pub fn let_go(&self, bytes: usize) -> usize {
        self.lock().let_go(bytes)
    }

    /// What is known of the publishers' topics after `after`, in the order of their names, at most
    /// `limit`.
    #[must_use]
    pub fn topics(&self, after: Option<&str>, limit: usize) -> Vec<TopicInfo> {
        let page: Vec<_> = {
            let topics = self.lock();
            let page = topics.after(after).take(limit);
            page.map(|known| (known.cell().clone(), known.subscribers()))
                .collect()
        };
        page.iter()
            .map(|(cell, subscribers)| self.info(cell, *subscribers))
            .collect()
    }

    /// How many event streams read a topic.
    #[must_use]
    pub fn readers(&self, topic: &Topic) -> usize {
        let topics = self.lock();
        topics.get(topic).map_or(0, topics::Known::subscribers)
    }

    /// What is known of one topic.
    #[must_use]
    pub fn topic(&self, topic: &Topic) -> Option<TopicInfo> {
        let (cell, subscribers) = {
            let topics = self.lock();
            let known = topics.get(topic)?;
            (known.cell().clone(), known.subscribers())
        };
        Some(self.info(&cell, subscribers))
    }

    fn info(&self, cell: &Cell, subscribers: usize) -> TopicInfo {
        let ring = cell.ring();
        let id = |event: &Arc<Stored>| self.id_of(event);
        TopicInfo {
            topic: cell.topic.clone(),
            subscribers,
            events: ring.len(),
            bytes: ring.bytes(),
            oldest: ring.oldest().map(id),
            newest: ring.newest().map(id),
        }
    }

    /// Whether readers leave so much unread that nothing is put together for them, and whoever is
    /// slow has to go.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.ledger.is_full()
    }

    /// How many bytes are in memory only because readers have not taken them.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.ledger.unread()
    }

    /// A moment as people read it: RFC 3339, in UTC.
    fn told(&self, at: Instant) -> String {
        let (began, wall) = self.began;
        let wall = match at.checked_duration_since(began) {
            Some(later) => wall + later,
            None => wall - began.duration_since(at),
        };
        humantime::format_rfc3339_millis(wall).to_string()
    }

    fn kept_from(&self) -> u64 {
        self.kept_from.load(Ordering::Acquire)
    }

    fn watermark(&self) -> u64 {
        self.watermark.load(Ordering::Acquire)
    }

    /// What is under the lock is of one piece or of no use: after a panic in the middle of a change
    /// the process ends, rather than say that it is well and deliver nothing.
    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(|_| {
            eprintln!("seventh: the hub panicked, which is a bug; the process ends");
            std::process::abort()
        })
    }
}

#[cfg(test)]
mod tests;
