//! The recent events of one topic.
//!
//! Pure: no clock, no lock, no task. Callers pass `now` in.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{
    evicted::{Evicted, Missing},
    fleeting::Fleeting,
    stored::{Release, Stored},
};

/// What part of the bytes of a topic events may take that are not kept: they give way to one another, and
/// what is kept does not give way to them.
const LIVE_ONLY_PART: usize = 4;

/// The bounds of one ring.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most events it holds, at least 1.
    pub events: usize,
    /// The most bytes it holds; the newest event stays whatever its size, as readers take it from here.
    pub bytes: usize,
    /// How old an event may grow.
    pub age: Duration,
    /// How many evicted events it remembers by number, if that is between 8 and 1,024.
    pub remembered: usize,
    /// Whether of each series only the newest is replayed.
    pub is_compact: bool,
    /// Whether the newest of each series is to be known.
    pub knows_newest: bool,
}

/// The events of one topic, oldest first.
#[derive(Debug, Default)]
pub struct Ring {
    events: VecDeque<Arc<Stored>>,
    /// Invariant: how many of `events` were taken back.
    retracted: usize,
    /// Invariant: the sum of `cost()` over `events`.
    bytes: usize,
    /// The number up to which events have left the ring.
    evicted_through: u64,
    /// The number up to which they left because the topic was deleted.
    deleted_through: u64,
    /// The numbers of the last events that left.
    evicted: Evicted,
    /// The number of the last event that was not for every reader.
    limited_through: u64,
    /// Publishers' own ids of events that are held, which may repeat: the numbers of each, oldest
    /// first. Invariant: none is empty.
    ids: BTreeMap<Box<str>, SmallVec<[u64; 1]>>,
    /// Whether of each series only the newest is replayed.
    is_compact: bool,
    /// What few rings know.
    fleeting: Option<Box<Fleeting>>,
}

impl Ring {
    /// An empty ring whose events up to `floor` have left already, perhaps by a deletion.
    #[must_use]
    pub fn starting_after(floor: u64, deleted: bool) -> Self {
        Self {
            deleted_through: if deleted { floor } else { 0 },
            evicted_through: floor,
            evicted: Evicted::after(floor),
            ..Self::default()
        }
    }

    /// Adds an event, which is the newest, and evicts what is over the bounds.
    pub fn push(&mut self, event: Arc<Stored>, bounds: &Bounds) {
        debug_assert!(
            self.events
                .back()
                .is_none_or(|e| e.sequence < event.sequence)
        );
        self.evicted.remember(bounds.remembered);
        self.is_compact = bounds.is_compact;
        self.evict_older(event.at, bounds.age);
        if event.to().is_some() && event.is_counted() {
            self.limited_through = event.sequence;
        }
        if let Some(id) = &event.id {
            let numbers = self.ids.entry(id.clone()).or_default();
            numbers.push(event.sequence);
        }
        self.retracted += usize::from(event.is_retracted());
        self.bytes += event.cost();
        if event.terms.is_some() || bounds.knows_newest {
            let fleeting = self.fleeting.get_or_insert_default();
            fleeting.push(&event, bounds.knows_newest);
        }
        self.events.push_back(event);
        while self.events.len() > 1 && self.is_over(bounds) {
            self.evict();
        }
        while let Some((oldest, events, bytes)) = self.live_only()
            && events > 1
            && (events > bounds.events || bytes > bounds.bytes / LIVE_ONLY_PART)
        {
            self.remove(oldest);
        }
    }

    /// Whether what it keeps is too much. Those taken back make room for others, though not for any
    /// number of them.
    fn is_over(&self, bounds: &Bounds) -> bool {
        let (live_only, bytes) = self.live_only().map_or((0, 0), |(_, n, bytes)| (n, bytes));
        let kept = self.events.len() - live_only;
        let twice = bounds.events.saturating_mul(2);
        kept - self.retracted > bounds.events || kept > twice || self.bytes - bytes > bounds.bytes
    }

    fn live_only(&self) -> Option<(u64, usize, usize)> {
        self.fleeting.as_ref()?.live_only()
    }

    /// Evicts the oldest event; `false` when there is none.
    pub fn evict(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else {
            return false;
        };
        let is_superseded = self.is_superseded(&event);
        self.forget(&event);
        if event.is_live_only() {
            return true;
        }
        self.evicted_through = event.sequence;
        if event.release() != Release::Out {
            // It was given to nobody.
        } else if event.is_retracted() || is_superseded {
            // Whoever comes with an old id does not miss it.
            self.evicted.push_forgiven(event.sequence, None);
        } else if let Some(until) = event.until() {
            self.evicted.push_forgiven(event.sequence, Some(until));
        } else {
            self.evicted.push(event.sequence);
        }
        true
    }

    /// Removes an event that is not kept.
    fn remove(&mut self, sequence: u64) {
        if let Some(at) = self.position(sequence)
            && let Some(event) = self.events.remove(at)
        {
            self.forget(&event);
        }
    }

    /// Takes an event out of the books that has just left.
    fn forget(&mut self, event: &Stored) {
        self.bytes -= event.cost();
        self.retracted -= usize::from(event.is_retracted());
        if let Some(fleeting) = &mut self.fleeting {
            fleeting.remove(event);
        }
        self.forget_id(event);
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    fn forget_id(&mut self, event: &Stored) {
        if let Some(id) = &event.id
            && let Some(numbers) = self.ids.get_mut(id)
        {
            numbers.retain(|number| *number != event.sequence);
            if numbers.is_empty() {
                self.ids.remove(id);
            }
        }
    }

    /// Takes out what has ended by `now`, and says when the next does. What is kept is taken back, so
    /// that all counts stay right.
    pub fn end(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let (end, number) = self.fleeting.as_ref()?.first_end()?;
            if end > now {
                return Some(end);
            }
            let at = self.position(number).expect("it is held");
            let ended = Arc::new(self.events[at].retracted());
            self.retract(&ended);
        }
    }

    /// Evicts what was published more than `age` before `now`.
    pub fn evict_older(&mut self, now: Instant, age: Duration) {
        while let Some(oldest) = self.events.front()
            && now.saturating_duration_since(oldest.at) > age
        {
            self.evict();
        }
    }

    /// The held event with this number, if it was not taken back.
    #[must_use]
    pub fn get(&self, sequence: u64) -> Option<&Arc<Stored>> {
        let at = self.position(sequence)?;
        Some(&self.events[at]).filter(|event| !event.is_retracted())
    }

    /// Takes back the event that `retracted` was, if that is held.
    pub fn retract(&mut self, retracted: &Arc<Stored>) {
        let Some(at) = self.position(retracted.sequence) else {
            return;
        };
        if retracted.is_live_only() {
            return self.remove(retracted.sequence);
        }
        if self.events[at].is_retracted() {
            return;
        }
        let event = std::mem::replace(&mut self.events[at], retracted.clone());
        self.retracted += 1;
        self.bytes = self.bytes - event.cost() + retracted.cost();
        let Some(fleeting) = &mut self.fleeting else {
            return;
        };
        if fleeting.remove(&event) {
            let series = event.series();
            let is_of_it = |other: &&Arc<Stored>| {
                other.series() == series && !other.is_retracted() && other.is_counted()
            };
            if let Some(before) = self.events.range(..at).rfind(is_of_it) {
                fleeting.set_newest(series, before.sequence);
            }
        }
    }

    /// Takes out the event with this number, which goes out under another.
    pub(super) fn take_out(&mut self, sequence: u64) {
        if let Some(event) = self.get(sequence).cloned() {
            self.forget_id(&event);
            self.retract(&Arc::new(event.taken_out()));
        }
    }

    /// Whether a newer event of its series is held, where that matters to those who come back.
    fn is_superseded(&self, event: &Stored) -> bool {
        self.is_compact && !self.is_newest(event)
    }

    fn position(&self, sequence: u64) -> Option<usize> {
        self.events
            .binary_search_by_key(&sequence, |event| event.sequence)
            .ok()
    }

    /// Evicts everything because the topic is deleted at `sequence`.
    pub fn delete(&mut self, sequence: u64) {
        while self.evict() {}
        self.evicted_through = sequence;
        self.deleted_through = sequence;
    }

    /// The number up to which events have left the ring; 0 when none has.
    #[must_use]
    pub fn evicted_through(&self) -> u64 {
        self.evicted_through
    }

    /// At what number the topic was deleted, if nothing has left since.
    #[must_use]
    pub fn deleted_at(&self) -> Option<u64> {
        self.was_deleted().then_some(self.deleted_through)
    }

    /// Whether the last events to leave did so because the topic was deleted.
    #[must_use]
    pub fn was_deleted(&self) -> bool {
        self.deleted_through > 0 && self.deleted_through == self.evicted_through
    }

    /// The numbers of the events that have left and are missing to a reader, or `None` when they are
    /// not remembered that far back.
    pub(super) fn missing(&self, missing: Missing) -> Option<impl Iterator<Item = u64> + '_> {
        self.evicted.missing(missing)
    }

    /// Whether there have been events after `cursor` that were not for every reader.
    #[must_use]
    pub fn limited_after(&self, cursor: u64) -> bool {
        self.limited_through > cursor
    }

    /// The events held after `cursor`, oldest first.
    pub fn after(&self, cursor: u64) -> impl DoubleEndedIterator<Item = &Arc<Stored>> {
        // Nearly always the reader wants just the newest one.
        let from = match self
            .events
            .iter()
            .rev()
            .take(2)
            .position(|e| e.sequence <= cursor)
        {
            Some(newer) => self.events.len() - newer,
            None => self.events.partition_point(|e| e.sequence <= cursor),
        };
        self.events.range(from..)
    }

    /// The held event that was published under this number, and has another or the same.
    #[must_use]
    pub fn published(&self, sequence: u64) -> Option<&Arc<Stored>> {
        let waited = |event: &&Arc<Stored>| {
            let terms = event.terms.as_ref();
            terms.is_some_and(|terms| terms.published == Some(sequence)) && !event.is_retracted()
        };
        self.get(sequence)
            .or_else(|| self.events.iter().find(waited))
    }

    /// The numbers of the held events whose publishers gave them `id`, oldest first.
    #[must_use]
    pub fn find(&self, id: &str) -> &[u64] {
        self.ids.get(id).map_or(&[], |numbers| numbers)
    }

    /// Whether an event that is held is the newest of its series, where that is known.
    #[must_use]
    pub fn is_newest(&self, event: &Stored) -> bool {
        let fleeting = self.fleeting.as_ref();
        fleeting.is_some_and(|fleeting| fleeting.is_newest(event))
    }

    /// Whether a newer event is held of the series of one that need not be held, where that is known.
    #[must_use]
    pub fn has_newer(&self, event: &Stored) -> bool {
        let fleeting = self.fleeting.as_ref();
        fleeting.is_some_and(|fleeting| fleeting.has_newer(event))
    }

    /// The events that are kept and were not taken back, oldest first.
    fn kept(&self) -> impl DoubleEndedIterator<Item = &Arc<Stored>> {
        let events = self.events.iter();
        events.filter(|event| !event.is_retracted() && !event.is_live_only())
    }

    /// The oldest event that is kept and was not taken back.
    #[must_use]
    pub fn oldest(&self) -> Option<&Arc<Stored>> {
        self.kept().next()
    }

    /// The newest event that is kept and was not taken back.
    #[must_use]
    pub fn newest(&self) -> Option<&Arc<Stored>> {
        self.kept().next_back()
    }

    /// How many events are kept, those taken back not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        let live_only = self.live_only().map_or(0, |(_, events, _)| events);
        self.events.len() - self.retracted - live_only
    }

    /// Whether nothing is held, not even what was taken back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How many events may be evicted yet, those taken back counted.
    #[must_use]
    pub fn evictable(&self) -> usize {
        self.events.len()
    }

    /// What the held events cost, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use crate::sync::atomic::AtomicU8;

    use proptest::prelude::*;

    use super::{
        super::{
            stored::{LIVE, OVERHEAD, Series, Terms},
            wire::{Ledger, Wire},
        },
        *,
    };
    use crate::{clock, sse::FRAME_HEAD};

    fn event(sequence: u64, at: Instant, id: Option<&str>, bytes: usize) -> Arc<Stored> {
        let ledger = Ledger::new(usize::MAX);
        let framed = vec![b'x'; FRAME_HEAD + bytes];
        Arc::new(Stored {
            sequence,
            at,
            id: id.map(Into::into),
            wire: Wire::new(framed, &ledger),
            terms: None,
            release: AtomicU8::new(0),
            ledger,
        })
    }

    fn with(terms: Terms, sequence: u64, at: Instant) -> Arc<Stored> {
        let event = event(sequence, at, None, 10);
        let terms = terms.boxed();
        let wire = event.wire.clone();
        let ledger = event.ledger.clone();
        Arc::new(Stored {
            sequence,
            at,
            id: None,
            wire,
            terms,
            release: AtomicU8::new(0),
            ledger,
        })
    }

    fn bounds(events: usize, bytes: usize) -> Bounds {
        Bounds {
            events,
            bytes,
            age: Duration::from_secs(3600),
            remembered: 1024,
            is_compact: false,
            knows_newest: false,
        }
    }

    fn missing(after: u64, through: u64) -> Missing {
        Missing {
            after,
            through,
            joined: u64::MAX,
            now: clock::now,
        }
    }

    fn held(ring: &Ring, cursor: u64) -> Vec<u64> {
        ring.after(cursor).map(|e| e.sequence).collect()
    }

    #[test]
    fn evicts_by_count_by_bytes_and_by_age() {
        let now = clock::now();
        let mut ring = Ring::default();
        for sequence in 1..=5 {
            ring.push(event(sequence, now, None, 10), &bounds(3, usize::MAX));
        }
        assert_eq!(held(&ring, 0), [3, 4, 5]);
        assert_eq!(ring.evicted_through(), 2);

        ring.push(event(6, now, None, 10), &bounds(9, 2 * (10 + OVERHEAD)));
        assert_eq!(held(&ring, 0), [5, 6]);

        ring.evict_older(now + Duration::from_secs(60), Duration::from_secs(60));
        assert_eq!(held(&ring, 0), [5, 6]);
        ring.evict_older(now + Duration::from_secs(61), Duration::from_secs(60));
        assert!(ring.is_empty());
        assert_eq!((ring.bytes(), ring.evicted_through()), (0, 6));
    }

    #[test]
    fn the_newest_event_stays_whatever_its_size() {
        let mut ring = Ring::default();
        ring.push(event(1, clock::now(), None, 1000), &bounds(3, 10));
        assert_eq!(held(&ring, 0), [1]);
    }

    #[test]
    fn an_id_given_twice_is_found_at_each_of_its_events() {
        let now = clock::now();
        let mut ring = Ring::default();
        for (sequence, id) in [(1, "a"), (2, "b"), (3, "a")] {
            ring.push(event(sequence, now, Some(id), 1), &bounds(3, usize::MAX));
        }
        assert_eq!(ring.find("a"), [1, 3]);
        ring.evict();
        assert_eq!((ring.find("a"), ring.find("b")), (&[3][..], &[2][..]));
        ring.evict();
        assert_eq!((ring.find("a"), ring.find("b")), (&[3][..], &[][..]));
        ring.evict();
        assert!(ring.find("a").is_empty() && ring.ids.is_empty());
    }

    #[test]
    fn it_remembers_fewer_numbers_as_its_share_shrinks() {
        let now = clock::now();
        let mut ring = Ring::default();
        let mut push = |sequence, remembered| {
            let bounds = Bounds {
                remembered,
                ..bounds(1, usize::MAX)
            };
            ring.push(event(sequence, now, None, 1), &bounds);
            ring.evicted.len_and_room().0
        };
        let most = (1..=2000).map(|n| push(n, usize::MAX)).max();
        assert_eq!(most, Some(1024));
        assert_eq!(push(2001, 100), 100);
        assert_eq!(push(2002, 0), 8);
        assert!(ring.evicted.len_and_room().1 <= 32);
        assert!(ring.missing(missing(1992, 2001)).is_none());
        let known = ring.missing(missing(1993, 2001)).expect("that far back");
        assert!(known.eq(1994..=2001));
    }

    #[test]
    fn what_is_not_kept_displaces_nothing_and_is_not_missed() {
        let now = clock::now();
        let mut ring = Ring::default();
        let live = Terms {
            series: Series {
                is_live_only: true,
                ..Series::default()
            },
            ..Terms::default()
        };
        let bounds = bounds(3, 4000);
        for sequence in (1..=20).step_by(2) {
            ring.push(event(sequence, now, None, 10), &bounds);
            ring.push(with(live.clone(), sequence + 1, now), &bounds);
        }
        assert_eq!(held(&ring, 0), [15, 16, 17, 18, 19, 20]);
        assert_eq!((ring.len(), ring.evicted_through()), (3, 13));
        assert_eq!(ring.newest().map(|event| event.sequence), Some(19));
        let missed = ring.missing(missing(9, u64::MAX)).expect("few");
        assert!(missed.eq([11, 13]));
        assert_eq!(ring.end(now), Some(now + LIVE));
        assert_eq!(ring.end(now + LIVE), None);
        assert_eq!(held(&ring, 0), [15, 17, 19]);
        assert_eq!(ring.bytes(), 3 * (10 + OVERHEAD));
    }

    #[test]
    fn what_has_ended_is_taken_back_and_not_missed_by_who_comes_then() {
        let now = clock::now();
        let mut ring = Ring::default();
        let until = |after| Terms {
            until: Some(now + after),
            ..Terms::default()
        };
        let hour = Duration::from_secs(3600);
        for (sequence, after) in [
            (1, hour),
            (2, Duration::ZERO),
            (3, hour),
            (4, Duration::ZERO),
        ] {
            ring.push(with(until(after), sequence, now), &bounds(2, 4000));
        }
        assert_eq!(ring.len(), 2);
        let missed = ring.missing(missing(0, u64::MAX)).expect("few");
        assert_eq!(missed.collect::<Vec<_>>(), [1]);
        // To a reader that was there when they came.
        let all = Missing {
            joined: 0,
            ..missing(0, u64::MAX)
        };
        assert!(ring.missing(all).expect("few").eq([1, 2]));
        assert_eq!(ring.end(now), Some(now + hour));
        assert_eq!((ring.len(), held(&ring, 0)), (1, vec![3, 4]));
        assert!(ring.get(4).is_none());
        // What was taken back makes room.
        ring.push(event(5, now, None, 10), &bounds(2, 4000));
        assert_eq!(held(&ring, 0), [3, 4, 5]);
    }

    #[test]
    fn of_each_series_the_newest_is_known() {
        let now = clock::now();
        let mut ring = Ring::default();
        let bounds = Bounds {
            is_compact: true,
            knows_newest: true,
            ..bounds(4, 4000)
        };
        let of = |key: &str| Terms {
            series: Series {
                key: Some(key.into()),
                ..Series::default()
            },
            ..Terms::default()
        };
        for (sequence, key) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
            ring.push(with(of(key), sequence, now), &bounds);
        }
        let newest = |ring: &Ring| {
            let held = ring.after(0).filter(|event| ring.is_newest(event));
            held.map(|event| event.sequence).collect::<Vec<_>>()
        };
        assert_eq!(newest(&ring), [2, 4]);
        let taken_back = ring.get(4).expect("it is held").retracted();
        ring.retract(&Arc::new(taken_back));
        assert_eq!(newest(&ring), [2, 3]);
        ring.push(event(5, now, None, 10), &bounds);
        ring.push(event(6, now, None, 10), &bounds);
        ring.push(event(7, now, None, 10), &bounds);
        assert_eq!(
            (held(&ring, 0), newest(&ring)),
            (vec![3, 4, 5, 6, 7], vec![3, 7])
        );
        // 1 was no more than an older state of what 3 is; 2 is missing.
        assert!(ring.missing(missing(0, u64::MAX)).expect("few").eq([2]));
    }

    proptest! {
        /// Against the plainest model: a list of all there ever was.
        #[test]
        fn missed_plus_held_is_everything_after_the_cursor(
            steps in proptest::collection::vec((1u64..4, 1usize..200, any::<bool>()), 0..60),
            limit in 1usize..12,
            byte_limit in 100usize..2000,
            cursor in 0u64..150,
        ) {
            let now = clock::now();
            let mut ring = Ring::default();
            let (mut all, mut sequence) = (Vec::new(), 0);
            for (skip, bytes, evict) in steps {
                sequence += skip;
                all.push(sequence);
                ring.push(event(sequence, now, None, bytes), &bounds(limit, byte_limit));
                if evict {
                    ring.evict();
                }
                prop_assert_eq!(ring.bytes(), ring.after(0).map(|e| e.cost()).sum::<usize>());
                prop_assert!(ring.len() <= limit);
                prop_assert!(ring.len() <= 1 || ring.bytes() <= byte_limit);
            }
            let missed = ring.missing(missing(cursor, u64::MAX)).expect("few events");
            let mut seen: Vec<u64> = missed.collect();
            prop_assert!(seen.iter().all(|&s| s <= ring.evicted_through()));
            seen.extend(held(&ring, cursor));
            all.retain(|&s| s > cursor);
            prop_assert_eq!(seen, all);
        }
    }
}
