//! Topics, their history, and who reads them. No sockets.
//!
//! - [`Entry`] is what can be put into the one order; whoever keeps the order hands placed entries
//!   to [`Hub::apply`], the one thing that changes rings, watermark and marks.
//! - [`ring`] holds the recent events of a topic; it is also the only queue there is. `evicted` is the
//!   numbers of those that have left it, `fleeting` what it knows of those that have terms.
//! - [`stored`] is an event, and on what terms it is kept.
//! - [`Subscription`] is a set of topics and a cursor; `resume` says where it begins, `gap` what it
//!   missed.
//! - `page` is history as a list, `lost` what nobody has any more, `ahead` what other hubs of the same order know
//!   already.
//! - Rings that hold no more ask whoever keeps the order ([`Ask`]).
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

mod ahead;
mod duplicates;
mod entry;
mod evicted;
mod fleeting;
mod gap;
mod lost;
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
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::{
    clock,
    sse::{Draft, Epoch, EventId},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    topic::Topic,
};
use ahead::Ahead;
use entry::UNDER_ONE_LOCK;
use lost::Lost;
use mailbox::Wakes;
use pace::Waiting;
use ring::Ring;
use stored::{Stored, Terms};
use topics::{Cell, Ids, Topics};
use wire::Ledger;

pub use ahead::{OWN_PLACES, PLACE_BITS, end_of_frame, floor_before};
pub use duplicates::{Identity, IdentityParts, Key, Repeat};
pub use entry::{Applied, Entry, Judged, Outcome, Placed, Target, Verdict};
pub use gap::GapReason;
pub use lost::LostRange;
pub use mailbox::StreamHandle;
pub use metrics::HubMetrics;
pub use names::{NameBounds, NoRoom};
pub use pace::Released;
pub use page::{Kept, Page};
pub use resume::Resume;
pub use retention::Retention;
pub use subscription::{Ask, Belonging, Chunk, Found, FoundEvent, Next, Opening, Subscription};
pub use topic_rules::{Overflow, Replay, TopicRule, TopicRules, Treatment};
pub use wire::Wire;

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
    /// [`Epoch::number`].
    epoch: AtomicU64,
    /// How often it has begun anew.
    generation: AtomicU32,
    /// Other hubs apply the same order, and may be ahead: who waits for what they know.
    ahead: OnceLock<Ahead>,
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
    lost: Lost,
    /// When the last entry was placed of the life before.
    resumed: OnceLock<Instant>,
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
    /// An empty hub of the history `epoch`, whose entries up to `floor` are gone, and for good those that are `lost`.
    #[must_use]
    pub fn new(
        retention: Retention,
        rules: TopicRules,
        bounds: HubBounds,
        epoch: Epoch,
        floor: u64,
        lost: &[LostRange],
    ) -> Arc<Self> {
        let now = clock::now();
        Arc::new(Self {
            epoch: AtomicU64::new(epoch.number()),
            generation: AtomicU32::new(0),
            ahead: OnceLock::new(),
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
            lost: Lost::new(lost),
            resumed: OnceLock::new(),
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
            epoch: self.epoch(),
            sequence,
        }
    }

    fn epoch(&self) -> Epoch {
        Epoch::from_random(self.epoch.load(Ordering::Acquire))
    }

    /// Other hubs apply the same order too, by the same moments: an id that is ahead of this one waits, and turns are on
    /// a grid with the moment `origin`, as they are there. To be called before the first entry.
    pub fn share(&self, origin: Instant) {
        self.ahead.get_or_init(Ahead::default);
        self.lock().share(origin);
    }

    /// There is nothing in the order behind this number by now: who waits for what is ahead of it for long is told.
    pub fn settle_ahead(&self, end: u64, now: Instant) {
        if let Some(ahead) = self.ahead.get() {
            ahead.settle(end, self.watermark(), now);
        }
    }

    /// All that it held is of no history any more: it begins anew in another, whose entries up to `floor` are gone, and
    /// the streams that read end.
    pub fn begin_anew(&self, epoch: Epoch, floor: u64) {
        let mut wakes = Wakes::default();
        let mut topics = self.lock();
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.epoch.store(epoch.number(), Ordering::Release);
        topics.begin_anew(floor, &mut wakes);
        self.lost.clear();
        self.any_closed.store(false, Ordering::Relaxed);
        self.watermark.store(floor, Ordering::Release);
        drop(topics);
        drop(wakes);
    }

    fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
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
        for slice in entry.prepared().chunks(UNDER_ONE_LOCK) {
            self.lock().prepare(slice);
        }
    }

    /// How many entries are best applied at once before readers get their turn, as the ring is their queue.
    #[must_use]
    pub fn at_once(&self) -> usize {
        (self.retention.events / 8).clamp(1, UNDER_ONE_LOCK)
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
            judged,
        } = placed;
        match entry {
            Entry::Event { draft, target } => {
                let repeat = match judged {
                    Judged::NotYet => topics.repeats(&target.identity, at),
                    Judged::Before(verdict) => verdict.repeat,
                    Judged::Again(_) => {
                        topics.remember(&target.identity, sequence, false, at);
                        None
                    }
                };
                let Some(repeat) = repeat else {
                    return self.publish(topics, (sequence, at), (draft, target), judged);
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
                waiting: Released(waiting),
            } => {
                let is_settled = judged != Judged::NotYet;
                let (series, published) = (waiting.event.series(), waiting.event.sequence);
                let mut still = topics.release(&of, series, published, at, is_settled);
                if is_settled {
                    still = of.into();
                }
                let rest = if still.is_empty() {
                    Rest::Nothing
                } else {
                    self.release(topics, (sequence, at), &waiting, &still)
                };
                topics.forget_idle(&still);
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
        (draft, target): (Draft, Target),
        judged: Judged,
    ) -> (Applied, Rest) {
        if !matches!(judged, Judged::Again(_)) {
            self.metrics.published.inc();
        }
        let terms = target.terms(at);
        let turn = match judged {
            Judged::NotYet => {
                let turn = topics.turn(&target.topics, &terms.series, at);
                // One that is over by then goes out at once or never.
                turn.filter(|turn| target.is_there_at(at, *turn))
            }
            Judged::Before(Verdict { turn, .. }) | Judged::Again(turn) => {
                turn.filter(|_| topics.can_wait(&target, &terms.series))
            }
        };
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

    /// What becomes of the entries of a batch, each with its place, that is applied later with [`Judged::Before`];
    /// nothing else is applied before that. What is not applied after all is [unjudged](Self::unjudge).
    pub fn judge<'a>(
        &self,
        batch: impl Iterator<Item = (u64, Instant, &'a Entry)>,
    ) -> Vec<Verdict> {
        self.lock().judge(batch)
    }

    /// The entries from a number on were judged and are not in the order after all: what was prepared for these topics
    /// is forgotten.
    pub fn unjudge(&self, from: u64, topics: &[Topic]) {
        let mut known = self.lock();
        known.unjudge(from);
        known.forget_idle(topics);
    }

    /// An event with this number is read again, and not applied, as the rings do not hold it any more, or `repeats`
    /// one with this number: it is known if it comes once more.
    pub fn remember(&self, identity: &Identity, sequence: u64, repeats: bool, at: Instant) {
        self.lock().remember(identity, sequence, repeats, at);
    }

    /// When an entry was placed that is not applied.
    pub fn remember_moment(&self, sequence: u64, at: Instant) {
        self.lock().remember_moment(sequence, at);
    }

    /// Nobody knows when what was before the first entry was placed.
    pub fn forget_moments(&self) {
        self.lock().forget_moments();
    }

    /// These topics were closed before the first entry that is applied.
    pub fn were_closed(&self, closed: &[Topic]) {
        let mut topics = self.lock();
        for topic in closed {
            topics.close(topic);
        }
        self.any_closed
            .store(topics.has_closed(), Ordering::Relaxed);
    }

    /// The topics that are closed.
    #[must_use]
    pub fn closed(&self) -> Vec<Topic> {
        self.lock().closed()
    }

    /// In which of these topics an event does wait that is to be released.
    #[must_use]
    pub fn still_waiting(&self, topics: &[Topic], waiting: &Released) -> Vec<Topic> {
        self.lock().still_waiting(topics, &waiting.0)
    }

    /// The number of the event that would be taken back.
    #[must_use]
    pub fn to_retract(&self, topics: &[Topic], id: &str) -> Option<u64> {
        let known = self.lock();
        let cells = topics.iter().filter_map(|topic| known.get(topic));
        let found = cells.filter_map(|known| self.find(&known.cell().ring(), id));
        found.map(|event| event.sequence).max()
    }

    /// The place before which somebody came to be what they are who comes back from the life before, if they were
    /// there so long before its end: 0 without such a life.
    #[must_use]
    pub fn before_start(&self, within: Duration) -> u64 {
        let last = self.resumed.get();
        let from = last.and_then(|last| last.checked_sub(within));
        from.map_or(0, |from| self.placed_by(from))
    }

    /// The hub goes on where another life ended, whose last entry was placed then.
    pub fn resumes(&self, last: Instant) {
        let _: Result<(), _> = self.resumed.set(last);
    }

    /// An event that the rings do not hold, as they would: with its place, and the number under which it was
    /// published if it had to wait.
    #[must_use]
    pub fn kept(
        &self,
        place: (u64, Instant),
        draft: Draft,
        target: Target,
        published: Option<u64>,
    ) -> Arc<Stored> {
        let terms = Terms {
            published,
            ..target.terms(place.1)
        };
        self.stored(place, draft, target.id, terms)
    }

    /// The release of an event that waited in a life before, or at another edge: as it was published, under what number and
    /// when.
    #[must_use]
    pub fn to_release(&self, place: (u64, Instant), draft: Draft, target: Target) -> Entry {
        let topics = target.topics.clone().into();
        let event = self.kept(place, draft.clone(), target, None);
        let uncounted = Arc::default();
        let waiting = Released(Arc::new(Waiting::new(event, draft, &uncounted)));
        Entry::Release { topics, waiting }
    }

    /// Something more is known to be lost for good.
    pub fn lose(&self, range: LostRange) {
        self.lost.add(range);
    }

    /// The first damage that a reader at `cursor` has not passed.
    #[must_use]
    pub fn damage_after(&self, cursor: u64) -> Option<LostRange> {
        self.lost.damage_after(cursor)
    }

    /// The numbers up to this one are passed, and what was placed up to a moment: nothing of it comes any more.
    pub fn pass(&self, sequence: u64, at: Instant) {
        let mut topics = self.lock();
        topics.settle(at);
        if sequence > topics.sequence() {
            topics.advance(sequence, at);
            self.watermark.store(sequence, Ordering::Release);
        }
    }

    /// The number that an id of the edge's own stands for.
    fn place(&self, id: &str, joined: u64) -> Result<u64, GapReason> {
        resume::place(
            id,
            self.epoch(),
            joined,
            &self.lost,
            self.ahead.get().is_some(),
        )
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
        let id = EventId::parse(id).filter(|id| id.epoch == self.epoch())?;
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
        if self.ahead.get().is_none() {
            // Others judge by when entries were placed alone.
            self.lock().forget_repeats(now);
        }
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

    pub(crate) fn kept_from(&self) -> u64 {
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
