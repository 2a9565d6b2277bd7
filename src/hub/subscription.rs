//! What one event stream reads: a set of topics and a cursor. `asked` is about what the rings have let go of.

mod asked;

use std::{collections::HashSet, fmt, sync::Arc, time::Instant};

use serde_json::json;
use smallvec::SmallVec;

use super::{
    GapReason, Hub, NoRoom, Overflow, Replay, Resume, Treatment,
    ahead::Awaited,
    gap::{self, Gap, Look, Position, View},
    mailbox::{Mailbox, StreamHandle},
    resume::{self, Newest},
    ring::Ring,
    stored::{Release, Stored},
    topics::Cell,
    wire::{Ledger, Wire},
};
use crate::{
    clock,
    sse::{Draft, EventId, FRAME_HEAD},
    sync::atomic::Ordering,
    topic::Topic,
};

pub use asked::{Ask, Found, FoundEvent};

/// What a subscription says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The id that stands for where the reader is: a client cut before its first event resumes
    /// here. `None` while a gap is to be told first.
    pub id: Option<EventId>,
    /// The reader begins behind the newest event.
    pub behind: bool,
    /// Something that came after the cursor was for those who belonged to an audience then, which the reader did
    /// not yet.
    pub is_partial: bool,
}

/// A topic, and since when a reader belongs to those that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belonging {
    /// The topic.
    pub topic: Topic,
    /// The number of the last entry before that: what is up to it is not the reader's.
    pub since: u64,
    /// The reader asks for nothing from before now of the topic itself.
    pub is_from_now: bool,
}

/// What there is for a reader.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Events to write.
    Chunk(Chunk),
    /// What the rings do not hold any more and is kept elsewhere: to be found, and handed to
    /// [`Subscription::answer`]. Until then it is asked for again at each call.
    Ask(Ask),
    /// An operator has ended the stream, or it was too slow for a topic that ends such streams: nothing
    /// more is for it.
    Ended,
    /// Nothing: the connection's mailbox tells when to ask again. After an answer there may be
    /// more at once.
    Nothing,
}

/// Events to write, already encoded.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// One or more whole events.
    pub wire: Wire,
    /// How many of them publishers sent; the edge's own do not count.
    pub events: u64,
    /// How many events they say are missing, if that is known.
    pub missed: Option<u64>,
}

/// One topic that a subscription reads.
struct Read {
    cell: Arc<Cell>,
    /// What left its ring up to this number needs no telling, or was told.
    told_through: u64,
    /// What few have.
    rare: Option<Box<Rare>>,
}

/// What few readers of a topic have.
#[derive(Clone, Copy, Debug, Default)]
struct Rare {
    /// Up to this number nothing is for it: it did not belong to whom the topic is for.
    since: u64,
    /// Up to this number nothing of the topic is given to it.
    from: u64,
    /// Up to this number only the newest event of each series is for it, as it was too slow for all.
    newest_through: u64,
}

impl Read {
    fn since(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.since)
    }

    fn from(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.from)
    }

    fn newest_through(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.newest_through)
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// How many gaps a stream is told of until it has caught up, before the last tells of all that is
/// missing: topics that lose events by turns would otherwise have one before each event.
const GAPS_AT_ONCE: u8 = 64;

/// What one event stream reads. Dropping it ends it.
///
/// There is no queue: a slow reader costs a cursor, and one that falls off the ring is told so.
pub struct Subscription {
    hub: Arc<Hub>,
    handle: StreamHandle,
    reads: Box<[Read]>,
    /// Every event of the topics up to this number was taken, or told of as missing.
    cursor: u64,
    /// The last entry before the subscription began: what comes after was addressed to it.
    joined: u64,
    /// How many events after `joined` were taken or told of as missing.
    settled: u64,
    /// A gap found when the subscription began.
    gap: Option<GapReason>,
    /// How many gaps it was told of since it had caught up.
    gaps: u8,
    /// Nobody knows how many of those events it was told of as missing, so `settled` is less.
    is_uncounted: bool,
    /// Each event is preceded by one that names its topics.
    tells_topics: bool,
    /// How often the hub had begun anew when it began.
    generation: u32,
    /// It came with the id of an event that is not applied yet.
    ahead: Option<Awaited>,
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
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when topics that nobody knows would be too many with those that are merely
    /// read.
    pub fn subscribe(
        self: &Arc<Self>,
        topics: &[Topic],
        resume: Resume<'_>,
        mailbox: &Arc<Mailbox>,
        now: Instant,
    ) -> Result<(Subscription, Opening), NoRoom> {
        self.subscribe_as(topics, &[], resume, mailbox, now)
    }

    /// The same for a reader who belongs to whom some of the topics are for only since a while: of those it is
    /// given what came later.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_as(
        self: &Arc<Self>,
        topics: &[Topic],
        belongs: &[Belonging],
        resume: Resume<'_>,
        mailbox: &Arc<Mailbox>,
        now: Instant,
    ) -> Result<(Subscription, Opening), NoRoom> {
        let named_before = |(at, topic)| topics[..at].contains(topic);
        let once = topics
            .iter()
            .enumerate()
            .filter(|named| !named_before(*named));
        let once: Vec<&Topic> = once.map(|(_, topic)| topic).collect();
        // Looked up before the lock is held: names are made up by strangers.
        let treatments: Vec<Treatment> = once.iter().map(|topic| self.rules.of(topic)).collect();
        let handle = mailbox.open();
        let mut guard = self.lock();
        if let Err(too_many) = guard.check_names(&once, mailbox) {
            drop(guard);
            return Err(too_many);
        }
        // Not the last entry that was placed: what is not applied yet will be marked for it.
        let joined = guard.sequence();
        let reads = once.into_iter().zip(treatments);
        let reads = reads.map(|(topic, treatment)| Read {
            cell: guard.join(topic, treatment, &handle, now),
            told_through: joined,
            rare: None,
        });
        let reads = reads.collect();
        let mut subscription = Subscription {
            hub: self.clone(),
            handle,
            reads,
            cursor: joined,
            joined,
            settled: 0,
            gap: None,
            gaps: 0,
            is_uncounted: false,
            tells_topics: false,
            generation: self.generation(),
            ahead: None,
        };
        drop(guard);
        subscription.belong(belongs, resume);
        subscription.start(resume);
        if subscription.cursor > joined
            && let Some(ahead) = self.ahead.get()
        {
            // What comes until then was addressed to it, and it has it.
            subscription.is_uncounted = true;
            let awaited = ahead.wait(subscription.cursor, &subscription.handle, now);
            subscription.ahead = Some(awaited);
        }
        let comes_back = matches!(resume, Resume::After(_));
        let is_partial = comes_back && subscription.is_partial();
        let behind = subscription.cursor < joined || subscription.gap.is_some();
        if behind {
            self.metrics.replays.inc();
        }
        // While a gap is untold, a client that is cut must come back with the id it came with.
        let id = subscription
            .gap
            .is_none()
            .then(|| self.id(subscription.cursor));
        let opening = Opening {
            id,
            behind,
            is_partial,
        };
        Ok((subscription, opening))
    }
}

impl Subscription {
    /// From now on each event is preceded by one, `edge-topic`, that names the topics which brought it.
    pub fn tell_topics(&mut self) {
        self.tells_topics = true;
    }

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

    /// Whether it was given, or told of as missing, all that there was when it began.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.gap.is_none() && self.cursor >= self.joined && self.ahead.is_none()
    }

    /// How many events the stream was given or told of as missing since it began.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Takes the next events, at most `max_bytes` of them but at least one when there is one; no more
    /// than that while readers leave too much unread, as a single event is nobody's copy.
    pub fn next(&mut self, max_bytes: usize) -> Next {
        loop {
            match self.step(max_bytes) {
                // Nothing of what was looked at is for it: on to what is left.
                Next::Nothing if !self.is_current() => {}
                next => return next,
            }
        }
    }

    fn step(&mut self, max_bytes: usize) -> Next {
        if self.gap == Some(GapReason::Lost) {
            self.gap = None;
            return self.tell_missing(GapReason::Lost, None, self.cursor);
        }
        let max_bytes = if self.hub.is_pressed() { 0 } else { max_bytes };
        // Loaded before the rings are looked at, so that all of them hold what is at or below it.
        let mut watermark = self.hub.watermark();
        if self.is_of_before() {
            return Next::Ended;
        }
        if let Some(awaited) = &self.ahead {
            if self.cursor <= watermark {
                self.ahead = None;
            } else if awaited.is_unknown() {
                self.ahead = None;
                self.start_at_what_is_held(GapReason::Unknown);
            }
        }
        if self.gap.is_none() && self.cursor >= watermark {
            self.gaps = 0;
            if self.is_uncounted && self.ahead.is_none() {
                self.count_anew();
            }
            return Next::Nothing;
        }
        let cursor = self.cursor;
        if cursor < self.joined {
            // What is replayed and what comes live are told apart.
            watermark = watermark.min(self.joined);
        }
        let changed = |read: &&Read| read.cell.has_changed_after(cursor);
        let mut all = self.reads.iter().filter(changed);
        let (first, second) = (all.next(), all.next());
        // A disconnect is a change, so that no other topic need be looked at for it.
        let ended = |read: &Read| read.cell.was_ended_after(self.joined);
        if first.is_some_and(ended) || second.is_some_and(ended) || all.any(ended) {
            return Next::Ended;
        }
        let taken = match (first, second) {
            _ if self.gap.is_some() => Err(Fallen),
            (None, _) => Ok((Wires::new(), watermark)),
            (Some(read), None) => self.take_of_one(read, watermark, max_bytes),
            _ => self.take_of_many(watermark, max_bytes),
        };
        if self.is_of_before() {
            return Next::Ended;
        }
        match taken {
            Ok((wires, cursor)) => {
                self.settle(&wires);
                self.cursor = cursor;
                let chunk = self.join(wires, |number| self.bringing(number));
                chunk.map_or(Next::Nothing, Next::Chunk)
            }
            Err(Fallen) if self.is_kept() => self.ask(watermark, max_bytes),
            Err(Fallen) if self.is_kept_later(watermark) => self.tell_missing(
                GapReason::Trimmed,
                Some(self.cursor),
                self.hub.kept_from() - 1,
            ),
            Err(Fallen) => self.tell_gap(),
        }
    }

    /// Tells that topics were deleted whose events it had all.
    fn tell_deletion(&mut self, rings: Vec<usize>) -> Next {
        for place in &rings {
            let read = &mut self.reads[*place];
            read.told_through = self.cursor + 1;
        }
        let gap = Gap {
            reason: GapReason::Deleted,
            missed: Some(0),
            missed_live: 0,
            rings,
            first: None,
            through: self.cursor,
        };
        self.hub.metrics.gap(gap.reason);
        let wire = self.gap_notice(&gap, Some(self.cursor), self.cursor + 1);
        self.hub.ledger.add(&wire);
        Next::Chunk(Chunk {
            wire,
            events: 0,
            missed: gap.missed,
        })
    }

    /// It has all there is, so what it was addressed is settled, whatever of it was missing.
    fn count_anew(&mut self) {
        let position = self.position();
        if let Some(position) = position.filter(|position| position.through <= self.cursor) {
            self.settled += position.outstanding;
            self.is_uncounted = false;
        }
    }

    /// Tells that what is next is missing, or what the reader had seen, and goes on behind it.
    fn tell_missing(&mut self, reason: GapReason, from: Option<u64>, through: u64) -> Next {
        self.cursor = through;
        self.is_uncounted |= through > self.joined;
        let gap = Gap {
            reason,
            missed: None,
            missed_live: 0,
            rings: (0..self.reads.len()).collect(),
            first: None,
            through,
        };
        self.hub.metrics.gap(gap.reason);
        let wire = self.gap_notice(&gap, from, through);
        self.hub.ledger.add(&wire);
        Next::Chunk(Chunk {
            wire,
            events: 0,
            missed: None,
        })
    }

    /// Whether the hub has begun anew since.
    fn is_of_before(&self) -> bool {
        self.generation != self.hub.generation()
    }

    /// Whether it was ended by a disconnect, or with the history that it read.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        if self.is_of_before() {
            return true;
        }
        let mut reads = self.reads.iter();
        reads.any(|read| read.cell.was_ended_after(self.joined))
    }

    /// Whether all topics that it named are closed, and it has all of them.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        // Another edge knows already what comes after the end of a topic.
        let is_ahead = self.ahead.is_some();
        if !self.hub.any_closed.load(Ordering::Relaxed) || self.gap.is_some() || is_ahead {
            return false;
        }
        let mut all = self.reads.iter();
        if all.any(|read| read.cell.has_changed_after(self.cursor)) {
            return false;
        }
        let named = || {
            let reads = self.reads.iter();
            reads.filter(|read| read.cell.topic.is_named())
        };
        named().next().is_some() && named().all(|read| read.cell.is_closed())
    }

    /// Whether what is after the cursor is kept somewhere, though not in the rings, and the reader wants it: not one
    /// that was too slow for topics of which that is of no use.
    fn is_kept(&self) -> bool {
        self.gap.is_none()
            && self.hub.kept_from() <= self.cursor + 1
            && (self.cursor < self.joined || self.wants_all())
    }

    /// Whether something after the cursor is kept that the reader wants, though not what is next.
    fn is_kept_later(&self, watermark: u64) -> bool {
        let kept_from = self.hub.kept_from();
        self.gap.is_none()
            && kept_from > self.cursor + 1
            && kept_from <= watermark
            && (self.cursor < self.joined || self.wants_all())
    }

    /// Whether any of the topics that the reader has fallen off is one of which it is to get all.
    fn wants_all(&self) -> bool {
        let mut fallen = self.reads.iter().filter(|read| {
            read.cell.has_changed_after(self.cursor)
                && self.whole_through(read, &read.cell.ring()).is_err()
        });
        fallen.any(|read| read.cell.treatment.overflow == Overflow::Gap)
    }

    /// The events one after the other; `bringing` says which topics brought the one of a number.
    fn join<'a>(&self, wires: Wires, bringing: impl Fn(u64) -> Vec<&'a str>) -> Option<Chunk> {
        let ledger = &self.hub.ledger;
        if !self.tells_topics {
            return join(wires, ledger);
        }
        let sent = wires.into_iter().filter(|event| !event.wire.is_empty());
        let told = sent.flat_map(|event| {
            let data = json!({ "topics": bringing(event.sequence) }).to_string();
            let draft = Draft::new(Some("edge-topic"), &data, None);
            let wire = Wire::new(draft.framed_without_id(), ledger);
            ledger.add(&wire);
            [Picked { wire, ..event }, event]
        });
        let mut chunk = join(told.collect(), ledger)?;
        chunk.events /= 2;
        Some(chunk)
    }

    /// The topics that brought the event of this number, as far as a client knows them by name; none
    /// when it has left them meanwhile.
    fn bringing(&self, number: u64) -> Vec<&str> {
        let bring = |read: &&Read| read.cell.ring().get(number).is_some();
        let named = |read: &&Read| read.cell.topic.is_named();
        let reads = self.reads.iter().filter(named).filter(bring);
        reads.map(|read| read.cell.topic.as_str()).collect()
    }

    fn settle(&mut self, wires: &Wires) {
        let live = wires.iter().filter(|event| event.sequence > self.joined);
        self.settled += live.filter(|event| event.is_counted).count() as u64;
    }

    fn take_of_one(&self, read: &Read, watermark: u64, max_bytes: usize) -> Result<Taken, Fallen> {
        let ring = read.cell.ring();
        let through = watermark.min(self.whole_through(read, &ring)?);
        Ok(self.take(read, &ring, through, max_bytes))
    }

    fn take_of_many(&self, watermark: u64, max_bytes: usize) -> Result<Taken, Fallen> {
        let mut all = Wires::new();
        // Where the first of the rings was cut short: beyond it the order is not known yet.
        let mut through = watermark;
        for read in &self.reads {
            if !read.cell.has_changed_after(self.cursor) {
                continue;
            }
            let ring = read.cell.ring();
            through = through.min(self.whole_through(read, &ring)?);
            let (wires, end) = self.take(read, &ring, through, max_bytes);
            drop(ring);
            through = through.min(end);
            all.extend(wires);
        }
        all.sort_unstable_by_key(|event| event.sequence);
        all.dedup_by_key(|event| event.sequence);
        let mut bytes = 0;
        let mut fits = 0;
        for event in &all {
            bytes += event.wire.len();
            if event.sequence > through || (fits > 0 && bytes > max_bytes) {
                break;
            }
            fits += 1;
        }
        if fits < all.len() {
            all.truncate(fits);
            through = all.last().map_or(through, |event| event.sequence);
        }
        Ok((all, through))
    }

    /// The events in `(cursor, through]` that are for this reader, until they are `max_bytes` or
    /// more.
    fn take(&self, read: &Read, ring: &Ring, through: u64, max_bytes: usize) -> Taken {
        let mut wires = Wires::new();
        let mut bytes = 0;
        let events = ring.after(self.cursor);
        for event in events.take_while(|event| event.sequence <= through) {
            if !self.is_for_it(read, ring, event) {
                continue;
            }
            let is_skipped = event.sequence <= read.newest_through() && !ring.is_newest(event);
            let event = Picked::of(event, is_skipped);
            bytes += event.wire.len();
            if bytes > max_bytes
                && let Some(last) = wires.last()
            {
                let through = last.sequence;
                return (wires, through);
            }
            wires.push(event);
        }
        (wires, through)
    }

    fn is_meant(&self, event: &Stored) -> bool {
        let was_there = event.sequence > self.joined;
        let comes = match event.release() {
            Release::Out => was_there || !event.is_live_only(),
            Release::Waiting => false,
            Release::PassedOver => !was_there,
        };
        if !comes {
            return false;
        }
        event.to().is_none_or(|to| {
            let mut reads = self.reads.iter();
            reads.any(|read| {
                event.sequence > read.since() && to.binary_search(&read.cell.topic).is_ok()
            })
        })
    }

    /// Whether an event that this ring holds is for the reader: it is meant, and one from before the reader
    /// came is given again.
    fn is_for_it(&self, read: &Read, ring: &Ring, event: &Stored) -> bool {
        let replay = read.cell.treatment.replay;
        let is_replayed = || replay.gives_again(|| ring.is_newest(event));
        event.sequence > read.from()
            && self.is_meant(event)
            && (event.sequence > self.joined || is_replayed())
    }

    /// Up to where the ring has all that the reader did not take yet.
    fn whole_through(&self, read: &Read, ring: &Ring) -> Result<u64, Fallen> {
        let through = self.view(read, ring).whole_through(self.cursor);
        if through <= self.cursor {
            return Err(Fallen);
        }
        Ok(through)
    }

    /// Settles of which topics the reader is given only what came later.
    fn belong(&mut self, belongs: &[Belonging], resume: Resume<'_>) {
        if resume == Resume::Live {
            return;
        }
        for belonging in belongs {
            let since = belonging.since.min(self.joined);
            let from = if belonging.is_from_now {
                self.joined
            } else {
                since
            };
            let mut reads = self.reads.iter_mut();
            if from > 0
                && let Some(read) = reads.find(|read| read.cell.topic == belonging.topic)
            {
                *read.rare() = Rare {
                    since,
                    from,
                    newest_through: 0,
                };
            }
        }
    }

    /// Whether something came after the cursor that was for those who belonged to an audience then, and comes by no
    /// other topic. Of what has left the rings nobody knows whether it was.
    fn is_partial(&self) -> bool {
        if self.gap.is_some() || self.reads.iter().all(|read| read.since() <= self.cursor) {
            return false;
        }
        let latest = self.reads.iter().map(Read::since).max().unwrap_or_default();
        let (mut withheld, mut given) = (HashSet::new(), HashSet::new());
        for read in &self.reads {
            let ring = read.cell.ring();
            if read.since() > self.cursor && ring.evicted_through() > self.cursor {
                return true;
            }
            let held = ring.after(self.cursor);
            for event in held.take_while(|event| event.sequence <= latest) {
                let is_there =
                    event.is_counted() && !event.is_retracted() && !event.is_over(clock::now);
                if !is_there {
                    continue;
                }
                if self.is_for_it(read, &ring, event) {
                    given.insert(event.sequence);
                } else if event.sequence <= read.since() || self.is_withheld(event) {
                    withheld.insert(event.sequence);
                }
            }
        }
        withheld.iter().any(|number| !given.contains(number))
    }

    /// Whether an event for some readers only was for an audience that the reader came to belong to later.
    fn is_withheld(&self, event: &Stored) -> bool {
        event.to().is_some_and(|to| {
            let mut reads = self.reads.iter();
            reads.any(|read| {
                event.sequence <= read.since() && to.binary_search(&read.cell.topic).is_ok()
            })
        })
    }

    /// Places the cursor: the rings are looked at one by one, up to where it joined.
    fn start(&mut self, resume: Resume<'_>) {
        let joined = self.joined;
        match resume {
            Resume::Live => {}
            Resume::After(id) => {
                let own = |read: &Read| resume::own(id, &read.cell.ring(), joined);
                let own = self.reads.iter().filter_map(own).min();
                match own.map_or_else(|| self.hub.place(id, joined), Ok) {
                    Ok(number) => {
                        self.cursor = number;
                        for read in &mut self.reads {
                            let told = told_through(&read.cell, number, joined);
                            read.told_through = told.max(read.from());
                        }
                    }
                    // It has all that was before.
                    Err(reason @ GapReason::Lost) => {
                        self.gap = Some(reason);
                        let seen = EventId::parse(id).map_or(joined, |id| id.sequence);
                        let end = self.hub.lost.end_of(seen).unwrap_or(joined).min(joined);
                        self.cursor = end;
                        for read in &mut self.reads {
                            read.told_through =
                                told_through(&read.cell, end, joined).max(read.from());
                        }
                    }
                    Err(reason) => self.start_at_what_is_held(reason),
                }
            }
            Resume::Last(events) => {
                let mut newest = Newest::new(events);
                self.pass_over(|ring, is_meant| newest.look(ring, joined, is_meant));
                self.cursor = newest.before().unwrap_or(joined);
            }
        }
    }

    /// What is held follows a gap, all of it. What has left by now is the gap; what leaves from now on will be told.
    fn start_at_what_is_held(&mut self, reason: GapReason) {
        let joined = self.joined;
        self.gap = Some(reason);
        let mut cursor = joined;
        self.pass_over(|ring, _| {
            let oldest = ring.oldest().map(|event| event.sequence - 1);
            cursor = oldest.unwrap_or(joined).min(cursor);
        });
        self.cursor = cursor;
    }

    /// Looks at the rings one by one. What has left them by then was not asked for.
    fn pass_over(&mut self, mut look: impl FnMut(&Ring, &dyn Fn(&Stored) -> bool)) {
        let mut told: SmallVec<[u64; 4]> = SmallVec::new();
        for read in &self.reads {
            let ring = read.cell.ring();
            let left = ring.evicted_through();
            told.push(told_through(&read.cell, left, self.joined).max(read.from()));
            look(&ring, &|event| {
                self.is_for_it(read, &ring, event) && !event.is_over(clock::now)
            });
        }
        for (read, told_through) in self.reads.iter_mut().zip(told) {
            read.told_through = told_through;
        }
    }

    /// Tells what is missing, and goes on with the first event that is held.
    fn tell_gap(&mut self) -> Next {
        let hub = self.hub.clone();
        let (position, looks) = loop {
            let Some(position) = self.position() else {
                return Next::Ended;
            };
            let looks: Vec<Look> = self
                .reads
                .iter()
                .map(|read| self.look(read, position))
                .collect();
            let deleted = |look: &Look| look.was_deleted_after(position.through);
            // A deletion is told once: it has to be part of what is looked at.
            if !looks.iter().any(deleted) {
                break (position, looks);
            }
        };
        let known = self.gap.take();
        let mut gap = gap::measure(&looks, position, known);
        // What is outstanding is too much then, and never too little.
        if self.is_uncounted && gap.missed != Some(0) {
            gap.missed = None;
        }
        let overflow = self.overflow(&gap);
        match overflow {
            Overflow::Gap => {}
            Overflow::Latest => {
                hub.metrics.skipped.inc();
            }
            Overflow::Disconnect => {
                hub.metrics.disconnected.inc();
                return Next::Ended;
            }
        }
        self.settled += gap.missed_live;
        self.cursor = gap.first.map_or(position.through, |first| first - 1);
        for (read, look) in self.reads.iter_mut().zip(looks) {
            let told = look.evicted_through.min(gap.through);
            read.told_through = read.told_through.max(told);
            if overflow == Overflow::Latest && read.cell.treatment.overflow == Overflow::Latest {
                read.rare().newest_through = position.through;
            }
        }
        self.gaps = self.gaps.saturating_add(1);
        if gap.is_of_nothing() || overflow == Overflow::Latest {
            return Next::Nothing;
        }
        hub.metrics.gap(gap.reason);
        // Of an id that is not of this history nobody knows when it was.
        let from = known.is_none().then_some(position.cursor);
        let wire = self.gap_notice(&gap, from, gap.first.unwrap_or(position.through));
        hub.ledger.add(&wire);
        Next::Chunk(Chunk {
            wire,
            events: 0,
            missed: gap.missed,
        })
    }

    /// What a reader is told of a gap, which lasted from one number, if it is known, to the other.
    fn gap_notice(&self, gap: &Gap, from: Option<u64>, to: u64) -> Wire {
        let hub = &self.hub;
        let (from, to) = {
            let topics = hub.lock();
            let timeline = topics.timeline();
            let from = from.and_then(|from| timeline.not_after(from));
            (from, timeline.not_before(to))
        };
        let mut data = json!({
            "reason": gap.reason.as_str(),
            "missed": gap.missed,
            "topics": self.named(gap),
        });
        for (name, at) in [("from", from), ("to", to)] {
            if let Some(at) = at {
                data[name] = hub.told(at).into();
            }
        }
        let draft = Draft::new(Some("edge-gap"), &data.to_string(), None);
        Wire::new(draft.framed(hub.id(self.cursor)), &hub.ledger)
    }

    /// What becomes of the reader because of a gap: what the topics say that it is slow for, of several
    /// that want it otherwise the most careful. One that came back is told in any case.
    fn overflow(&self, gap: &Gap) -> Overflow {
        if gap.reason != GapReason::Slow || gap.is_of_nothing() {
            return Overflow::Gap;
        }
        let mut all = gap.rings.iter();
        let of_ring = |ring: &usize| self.reads[*ring].cell.treatment.overflow;
        let first = all.next().map_or(Overflow::Gap, of_ring);
        let agree = all.all(|ring| of_ring(ring) == first);
        if agree { first } else { Overflow::Gap }
    }

    /// Where it stands, and what of the order is settled: all of one moment. `None` when it was
    /// ended by then, as the cursor is about to pass that.
    fn position(&self) -> Option<Position> {
        let topics = self.hub.lock();
        (!self.is_ended()).then(|| Position {
            cursor: self.cursor,
            joined: self.joined,
            through: topics.sequence(),
            outstanding: self.handle.addressed().saturating_sub(self.settled),
            in_parts: self.gaps < GAPS_AT_ONCE,
        })
    }

    fn view<'a>(&self, read: &Read, ring: &'a Ring) -> View<'a> {
        View {
            ring,
            told_through: read.told_through,
            joined: self.joined,
            now: clock::now,
        }
    }

    fn look(&self, read: &Read, position: Position) -> Look {
        let ring = read.cell.ring();
        let view = self.view(read, &ring);
        view.look(position, |event| {
            event.is_counted() && self.is_for_it(read, &ring, event)
        })
    }

    /// The topics of a gap that a client knows by name: not the audience's, nor those that are not given
    /// again to one that comes back.
    fn named(&self, gap: &Gap) -> Vec<&str> {
        let is_slow = gap.reason == GapReason::Slow;
        let is_told =
            |ring: &usize| is_slow || self.reads[*ring].cell.treatment.replay != Replay::None;
        let told: SmallVec<[usize; 1]> = gap.rings.iter().copied().filter(is_told).collect();
        self.named_of(&told)
    }

    /// Those of some of its topics that a client knows by name.
    fn named_of(&self, places: &[usize]) -> Vec<&str> {
        let topics = places.iter().map(|place| &self.reads[*place].cell.topic);
        let named = topics.filter(|topic| topic.is_named());
        named.map(Topic::as_str).collect()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut topics = self.hub.lock();
        for Read { cell, .. } in &self.reads {
            topics.leave(cell, &self.handle);
        }
    }
}

/// Up to what number nothing is to be told of what left a topic before `joined`, if it is `number` where
/// it is given again: what is not is not missing.
fn told_through(cell: &Cell, number: u64, joined: u64) -> u64 {
    match cell.treatment.replay {
        Replay::All | Replay::Latest => number.min(joined),
        Replay::None => joined,
    }
}

/// A ring has evicted what the reader did not take yet.
struct Fallen;

/// An event for a reader.
#[derive(Debug)]
struct Picked {
    sequence: u64,
    /// None when it was taken back, is over or skipped: it counts all the same.
    wire: Wire,
    /// Whether whoever loses it is told so.
    is_counted: bool,
}

impl Picked {
    /// An event, of which the reader gets nothing if it is skipped.
    fn of(event: &Arc<Stored>, is_skipped: bool) -> Self {
        Self {
            sequence: event.sequence,
            wire: if is_skipped || event.is_over(clock::now) {
                Wire::none()
            } else {
                event.wire.clone()
            },
            is_counted: event.is_counted(),
        }
    }
}

/// Nearly always one: the newest.
type Wires = SmallVec<[Picked; 1]>;
/// Events, and the cursor once they are written.
type Taken = (Wires, u64);

/// Events one after the other; `None` when there are none.
fn join(mut wires: Wires, ledger: &Arc<Ledger>) -> Option<Chunk> {
    if let [Picked { wire, .. }] = &mut *wires
        && !wire.is_empty()
    {
        let wire = std::mem::replace(wire, Wire::none());
        return Some(Chunk {
            wire,
            events: 1,
            missed: Some(0),
        });
    }
    let bytes: usize = wires.iter().map(|event| event.wire.len()).sum();
    let mut whole = Vec::with_capacity(FRAME_HEAD + bytes);
    whole.resize(FRAME_HEAD, 0);
    let mut events = 0;
    let wires = wires.iter().map(|event| &event.wire);
    for wire in wires.filter(|wire| !wire.is_empty()) {
        whole.extend_from_slice(wire.as_slice());
        events += 1;
    }
    (events > 0).then(|| {
        let wire = Wire::new(whole, ledger);
        ledger.add(&wire);
        Chunk {
            wire,
            events,
            missed: Some(0),
        }
    })
}

// A reader costs a cursor.
const _: () = assert!(size_of::<Subscription>() <= 128);
