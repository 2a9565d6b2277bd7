//! Having the hub apply what the order brings, and answering those of this edge who wait for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot, watch};

use super::{
    broker::Delivered,
    frame::{self, BadFrame, Frame, FrameId},
};
use crate::{
    clock,
    history::{
        Durability, NotStored, Receipt,
        log::{Cache, apply_in_parts},
        record::{self, Content, Mark},
        wall::Wall,
    },
    hub::{Applied, Entry, Hub, OWN_PLACES, PLACE_BITS, Placed, end_of_frame, floor_before},
    sse::Epoch,
};

/// How long after a frame is stored its publishers wait for it to come back.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far the clocks of edges and servers may be apart without a word, in ms.
const SKEW: u64 = 5000;
/// And how far until entries are taken to be placed when they come.
const APART: Duration = Duration::from_secs(10);

/// Of how many frames it is remembered to how many event streams their entries went.
const FRAMES: usize = 1024;

/// Frames, oldest first, and to how many event streams each of their entries went.
type Counts = VecDeque<(u64, Box<[u32]>)>;

/// What a publisher is told.
pub(super) type Answer = Result<Receipt, NotStored>;

/// One who waits for an entry to be applied.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) own_id: Option<Box<str>>,
    /// What comes of it depends on what is before it, and is known once it is applied.
    pub(super) depends: bool,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// A frame on its way.
#[derive(Debug)]
struct Sent {
    waiters: Vec<Waiter>,
    /// When it was sent first.
    at: Instant,
    /// Under which number it was stored, and when.
    stored: Option<(u64, Instant)>,
}

impl Sent {
    /// Nothing came of it, or nobody knows.
    fn refuse(self, why: &NotStored) {
        for waiter in self.waiters {
            // Nobody waits any more.
            let _: Result<(), Answer> = waiter.answer.send(Err(why.clone()));
        }
    }
}

/// The last frame that was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Its number in the stream; 0 before the first.
    pub(super) sequence: u64,
    /// By what the servers know it; `None` of the one before the first that is read.
    pub(super) id: Option<String>,
}

/// What applies the order.
#[derive(Debug)]
pub(super) struct Applier {
    pub(super) hub: Arc<Hub>,
    wall: Wall,
    durability: Durability,
    /// Held while entries are applied, so that they are in the order of their numbers.
    tail: Mutex<Tail>,
    sent: Mutex<HashMap<FrameId, Sent>>,
    position: watch::Sender<Position>,
    counts: Mutex<Counts>,
    /// It was said that the clocks are apart.
    is_told: AtomicBool,
    /// There are few places left for what is this edge's own: a frame is wanted.
    wants_frame: Notify,
    /// Since when an answer of the disk is waited for, if it is.
    disk_since: Mutex<Option<Instant>>,
}

/// The last entry.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) sequence: u64,
    /// When the last frame was stored, of those that were read.
    pub(super) at: Option<Instant>,
    /// What is kept of it on disk, if anything is.
    pub(super) cache: Option<Cache>,
}

impl Applier {
    /// That goes on behind these.
    pub(super) fn new(
        hub: Arc<Hub>,
        wall: Wall,
        durability: Durability,
        position: Position,
        tail: Tail,
    ) -> Self {
        Self {
            tail: Mutex::new(tail),
            hub,
            wall,
            durability,
            sent: Mutex::default(),
            position: watch::Sender::new(position),
            counts: Mutex::default(),
            is_told: AtomicBool::new(false),
            wants_frame: Notify::new(),
            disk_since: Mutex::default(),
        }
    }

    /// Where it is.
    pub(super) fn position(&self) -> watch::Ref<'_, Position> {
        self.position.borrow()
    }

    pub(super) fn wall(&self) -> &Wall {
        &self.wall
    }

    /// Returns once a frame is wanted though nobody publishes.
    pub(super) async fn wants_frame(&self) {
        self.wants_frame.notified().await;
    }

    /// Applies a frame of the stream, unless a later version has written it: then this one has to wait for that.
    pub(super) fn apply(&self, frame: &Delivered) -> Result<(), BadFrame> {
        let (sequence, payload) = (frame.sequence, &frame.payload);
        let (id, contents) = match frame::decode(payload) {
            Ok(Frame { id, entries }) => (Some(id), entries),
            Err(error) if error.is_of_later() => return Err(error),
            Err(error) => {
                tracing::error!("message {sequence} of the order is passed over: {error}");
                (None, Vec::new())
            }
        };
        let mut tail = self.lock();
        // In the order time does not go back. It is that of the servers: all edges settle by it what waits, though by the
        // clock of some it is yet to come, unless that is far off.
        let at = self.moment(frame.millis);
        let at = tail.at.map_or(at, |before| before.max(at));
        let first = sequence << PLACE_BITS;
        let placed = contents.into_iter().zip(first..).map(|((kind, body), number)| {
            let entry = record::decode(kind, body).and_then(|content| self.entry(content));
            if entry.is_none() {
                tracing::error!("entry {number} of the order is passed over: it is of nothing that this version knows");
            }
            entry.map(|entry| Placed::new(number, at, entry))
        });
        let placed: Vec<Option<Placed>> = placed.collect();
        let known: Vec<bool> = placed.iter().map(Option::is_some).collect();
        let placed = placed.into_iter().flatten();
        let end = end_of_frame(first);
        let applied = match &mut tail.cache {
            None => apply_in_parts(&self.hub, placed),
            Some(cache) => {
                let mark = Mark {
                    sequence: end,
                    id: frame.id.clone(),
                };
                self.at_disk(|| cache.apply(&self.hub, placed.collect(), &mark, at))
            }
        };
        self.hub.pass(end, at);
        // What came of each entry; `None` of one that is not known.
        let mut applied = applied.into_iter();
        let outcomes = known.into_iter();
        let outcomes = outcomes.map(|is_known| is_known.then(|| applied.next()).flatten());
        let outcomes: Vec<Option<Applied>> = outcomes.collect();
        self.remember(sequence, &outcomes);
        (tail.sequence, tail.at) = (end, Some(at));
        drop(tail);
        self.position.send_replace(Position {
            sequence,
            id: frame.id.clone(),
        });
        let sent = id.and_then(|id| self.sent().remove(&id));
        let Some(Sent {
            waiters,
            at: is_sent,
            ..
        }) = sent
        else {
            return Ok(());
        };
        self.compare_clocks(frame.millis, is_sent);
        for ((waiter, number), outcome) in waiters.into_iter().zip(first..).zip(outcomes) {
            let answer = match outcome {
                Some(applied) => {
                    Receipt::of(&self.hub, number, waiter.own_id, &applied, self.durability)
                }
                None => Err(NotStored::Unknown),
            };
            // Nobody waits any more: it is stored all the same.
            let _: Result<(), Answer> = waiter.answer.send(answer);
        }
        Ok(())
    }

    /// What the servers say, by the clock of this edge.
    fn moment(&self, millis: u64) -> Instant {
        self.wall.moment(millis).min(clock::now() + APART)
    }

    /// Looks, when a frame of this edge has come back, whether it was stored in between by the clock of the servers.
    fn compare_clocks(&self, millis: u64, is_sent: Instant) {
        let (from, to) = (self.wall.millis(is_sent), self.wall.millis(clock::now()));
        let away = from.saturating_sub(millis).max(millis.saturating_sub(to));
        if away < SKEW || self.is_told.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            "by the clock that this edge had when it was started it is {} s away from the NATS servers: set all clocks by \
             NTP, and start the edge again",
            away / 1000
        );
    }

    /// Remembers for a while to how many event streams the entries of a frame went.
    fn remember(&self, sequence: u64, outcomes: &[Option<Applied>]) {
        let of = |outcome: &Option<Applied>| {
            let receivers = outcome.map_or(0, |applied| applied.receivers);
            u32::try_from(receivers).unwrap_or(u32::MAX)
        };
        let receivers = outcomes.iter().map(of).collect();
        let mut counts = self.counts();
        if counts.len() == FRAMES {
            counts.pop_front();
        }
        counts.push_back((sequence, receivers));
    }

    /// To how many event streams of this edge an entry went, if it was applied of late.
    pub(super) fn receivers(&self, number: u64) -> Option<usize> {
        let (frame, place) = (number >> PLACE_BITS, number % (1 << PLACE_BITS));
        let counts = self.counts();
        let at = counts
            .binary_search_by_key(&frame, |(frame, _)| *frame)
            .ok()?;
        let of_frame = &counts[at].1;
        let count = of_frame.get(usize::try_from(place).ok()?)?;
        usize::try_from(*count).ok()
    }

    /// Waits a little for a frame to be applied.
    pub(super) async fn until(&self, frame: u64, patience: Duration) {
        let mut position = self.position.subscribe();
        let applied = position.wait_for(|position| position.sequence >= frame);
        let _: Result<_, _> = tokio::time::timeout(patience, applied).await.map(drop);
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no holder of this lock panics")
    }

    fn entry(&self, content: Content) -> Option<Entry> {
        Some(match content {
            Content::Event { draft, target, .. } => Entry::Event { draft, target },
            Content::Release {
                draft,
                target,
                published: (published, since),
            } => {
                let place = (published, self.moment(since));
                self.hub.to_release(place, draft, target)
            }
            Content::Other(entry, _) => entry,
            Content::Passed | Content::Repeat(..) | Content::Mark(_) => return None,
        })
    }

    /// Applies an entry that is of this edge alone, as it is of the moment. An error gives it back: there is no place for it
    /// before the next frame, or one is just being applied.
    pub(super) fn apply_own(&self, entry: Entry, now: Instant) -> Result<Answer, Box<Entry>> {
        let own_id = entry.own_id();
        // A disk that does not answer holds up nobody who is not of the cluster's thread.
        let Ok(mut tail) = self.tail.try_lock() else {
            return Err(Box::new(entry));
        };
        let sequence = tail.sequence + 1;
        let place = sequence % (1 << PLACE_BITS);
        if place < OWN_PLACES || place == OWN_PLACES + OWN_PLACES / 2 {
            // Nothing was published for long, and much was said of the moment.
            self.wants_frame.notify_one();
        }
        if place < OWN_PLACES {
            return Err(Box::new(entry));
        }
        let at = tail.at.map_or(now, |before| before.max(now));
        let outcome = self.hub.apply([Placed::new(sequence, at, entry)]);
        // Frames that are read late were placed before.
        tail.sequence = sequence;
        drop(tail);
        let applied = outcome.applied[0];
        drop(outcome.wakes);
        Ok(Receipt::of(
            &self.hub,
            sequence,
            own_id,
            &applied,
            Durability::Memory,
        ))
    }

    /// Does something at the disk, which may not answer.
    fn at_disk<T>(&self, work: impl FnOnce() -> T) -> T {
        *self.disk_since() = Some(clock::now());
        let done = work();
        *self.disk_since() = None;
        done
    }

    /// For how long the disk has not answered.
    pub(super) fn waits_for_disk(&self, now: Instant) -> Duration {
        self.disk_since()
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// All that was applied is of no history any more, or there is a hole before the frame that is first now.
    pub(super) fn begin_anew(&self, epoch: Epoch, first: u64) {
        let mut tail = self.lock();
        let is_another = self.hub.cursor().epoch != epoch;
        let sequence = floor_before(first << PLACE_BITS);
        if let Some(cache) = &mut tail.cache {
            self.at_disk(|| cache.clear());
        }
        self.hub.begin_anew(epoch, sequence);
        (tail.sequence, tail.at) = (sequence, None);
        self.counts().clear();
        drop(tail);
        self.position.send_replace(Position {
            sequence: first - 1,
            id: None,
        });
        if is_another {
            // What was stored was in the one before.
            let stored = self.take_where(|sent| sent.stored.is_some());
            stored
                .into_iter()
                .for_each(|sent| sent.refuse(&NotStored::Unknown));
        }
    }

    /// The frames up to this one are not there, and never were for anyone who reads: an operator took them out.
    pub(super) fn pass_over(&self, sequence: u64) {
        let mut tail = self.lock();
        let end = end_of_frame(sequence << PLACE_BITS);
        self.hub.pass(end, tail.at.unwrap_or_else(clock::now));
        tail.sequence = tail.sequence.max(end);
        drop(tail);
        self.position.send_replace(Position { sequence, id: None });
    }

    /// Lets go of what is too old on disk.
    pub(super) fn tidy(&self, now: Instant) {
        if let Some(cache) = &mut self.lock().cache {
            self.at_disk(|| cache.tidy(now));
        }
    }

    /// The edge ends: what is kept on disk is whole from now on.
    pub(super) fn close(&self) {
        drop(self.lock().cache.take());
    }

    /// The edge ends: who waits still is answered as far as is known.
    pub(super) fn answer_all(&self) {
        self.answer_where(|_| true);
    }

    /// A frame is about to be sent for some who wait.
    pub(super) fn is_sent(&self, id: FrameId, waiters: Vec<Waiter>) {
        let sent = Sent {
            waiters,
            at: clock::now(),
            stored: None,
        };
        self.sent().insert(id, sent);
    }

    /// A frame was stored under a number.
    pub(super) fn is_stored(&self, id: FrameId, sequence: u64) {
        if let Some(sent) = self.sent().get_mut(&id) {
            sent.stored = Some((sequence, clock::now()));
        }
    }

    /// Nothing came of a frame, or nobody knows.
    pub(super) fn is_not_stored(&self, id: FrameId, why: &NotStored) {
        let sent = self.sent().remove(&id);
        sent.into_iter().for_each(|sent| sent.refuse(why));
    }

    /// Answers those whose frame was stored a while ago and has not come back: this edge is behind.
    pub(super) fn answer_late(&self, now: Instant) {
        let is_late = |(_, at)| now.saturating_duration_since(at) >= PATIENCE;
        self.answer_where(|sent| sent.stored.is_some_and(is_late));
    }

    /// No more waits for some frames to come back.
    fn take_where(&self, is_due: impl Fn(&Sent) -> bool) -> Vec<Sent> {
        let mut sent = self.sent();
        let due = sent.extract_if(|_, sent| is_due(sent));
        due.map(|(_, sent)| sent).collect()
    }

    fn answer_where(&self, is_late: impl Fn(&Sent) -> bool) {
        for Sent {
            waiters, stored, ..
        } in self.take_where(is_late)
        {
            let first = stored.map_or(0, |(sequence, _)| sequence << PLACE_BITS);
            for (waiter, number) in waiters.into_iter().zip(first..) {
                let answer = if waiter.depends || stored.is_none() {
                    // It may repeat another, or do nothing.
                    Err(NotStored::Unknown)
                } else {
                    let id = waiter
                        .own_id
                        .map_or_else(|| self.hub.id(number).to_string(), Into::into);
                    Ok(Receipt {
                        id,
                        sequence: number,
                        receivers: None,
                        removed: None,
                        duplicate: false,
                        deferred: false,
                        durability: self.durability,
                    })
                };
                let _: Result<(), Answer> = waiter.answer.send(answer);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().expect("no holder of this lock panics")
    }

    fn disk_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.disk_since
            .lock()
            .expect("no holder of this lock panics")
    }

    fn sent(&self) -> MutexGuard<'_, HashMap<FrameId, Sent>> {
        self.sent.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{
        history::log::tests::Hanging,
        hub::{HubBounds, Retention, Target, TopicRules},
        sse::Draft,
        topic::Topic,
    };

    fn event(data: &str, is_live_only: bool) -> Entry {
        Entry::Event {
            draft: Draft::new(None, data, None),
            target: Target {
                topics: vec![Topic::parse("a").expect("a topic")],
                is_live_only,
                ..Target::default()
            },
        }
    }

    fn applier(cache: Option<Cache>) -> Applier {
        let (retention, rules) = (Retention::default(), TopicRules::default());
        let epoch = Epoch::from_random(7);
        let hub = Hub::new(retention, rules, HubBounds::default(), epoch, 0, &[]);
        let wall = Wall::new(clock::now(), clock::wall());
        let tail = Tail {
            sequence: floor_before(1 << PLACE_BITS),
            at: None,
            cache,
        };
        Applier::new(hub, wall, Durability::Written, Position::default(), tail)
    }

    /// The first frame.
    fn frame(wall: &Wall) -> Delivered {
        let encoded = record::encode_all(&event("b", false), wall);
        let id = FrameId { boot: 1, number: 1 };
        Delivered {
            sequence: 1,
            subject: "a".into(),
            nth: 1,
            pending: 0,
            id: None,
            millis: wall.millis(clock::now()),
            payload: frame::encode(id, [&encoded].into_iter()).into(),
        }
    }

    fn is_applied(applier: &Applier) -> bool {
        let said = applier.apply_own(event("a", true), clock::now());
        matches!(said, Ok(Ok(_)))
    }

    #[test]
    fn what_is_of_the_moment_asks_for_a_frame_in_time() {
        use futures_util::FutureExt as _;

        let applier = applier(None);
        let places = usize::try_from(OWN_PLACES).expect("few");
        assert!((0..places / 2).all(|_| is_applied(&applier)));
        assert!(applier.wants_frame().now_or_never().is_none());
        assert!((places / 2..places).all(|_| is_applied(&applier)));
        assert!(applier.wants_frame().now_or_never().is_some());
        assert!(!is_applied(&applier));
        assert_eq!(applier.apply(&frame(applier.wall())), Ok(()));
        assert!(is_applied(&applier));
    }

    #[test]
    fn a_disk_that_does_not_answer_is_known_and_holds_up_no_other_thread() {
        let disk = Hanging::default();
        let applier = applier(Some(disk.cache()));
        let frame = frame(applier.wall());
        assert!(is_applied(&applier));
        let hangs = disk.hang();
        thread::scope(|scope| {
            let applying = scope.spawn(|| applier.apply(&frame));
            while applier.waits_for_disk(clock::now()).is_zero() {
                thread::yield_now();
            }
            let later = clock::now() + Duration::from_secs(60);
            assert!(applier.waits_for_disk(later) >= Duration::from_secs(50));
            assert!(!is_applied(&applier));
            drop(hangs);
            assert_eq!(applying.join().expect("no panic"), Ok(()));
        });
        assert!(applier.waits_for_disk(clock::now()).is_zero());
        assert!(is_applied(&applier));
        assert_eq!(applier.position().sequence, 1);
    }
}
