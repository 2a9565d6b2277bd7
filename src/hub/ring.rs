//! The recent events of one topic.
//!
//! Pure: no clock, no lock, no task. Callers pass `now` in.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::wire::{Ledger, Wire};
use crate::topic::Topic;

/// What an event costs beside its bytes: its entry in the ring, the allocation's header.
const OVERHEAD: usize = 96;
/// What a topic that an event is limited to costs beside its name.
const TO_OVERHEAD: usize = 48;
/// How many evicted events a topic remembers by number, so that a gap can be counted: at least and at
/// most.
const REMEMBERED: RangeInclusive<usize> = 8..=1024;

/// An event as the hub keeps it. Every topic and every reader shares one.
#[derive(Debug)]
pub struct Stored {
    /// Its number in the hub's one order, from 1.
    pub sequence: u64,
    /// When it was published.
    pub at: Instant,
    /// The id its publisher gave it, if any.
    pub id: Option<Box<str>>,
    /// The whole event; none when it was taken back.
    pub wire: Wire,
    /// For readers of one of these topics too, and no others, if given. Invariant: sorted.
    pub to: Option<Box<[Topic]>>,
    /// Where its bytes are counted from the moment that it has left history.
    pub(super) ledger: Arc<Ledger>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.ledger.add(&self.wire);
    }
}

impl Stored {
    /// Whether it was taken back: its number stays, so that all counts stay right.
    #[must_use]
    pub fn is_retracted(&self) -> bool {
        self.wire.is_empty()
    }

    /// The same event taken back.
    #[must_use]
    pub fn retracted(&self) -> Self {
        Self {
            sequence: self.sequence,
            at: self.at,
            id: self.id.clone(),
            wire: Wire::none(),
            to: self.to.clone(),
            ledger: self.ledger.clone(),
        }
    }

    /// What it counts against the bounds, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        let to = self.to.iter().flatten();
        let to: usize = to.map(|topic| topic.as_str().len() + TO_OVERHEAD).sum();
        self.wire.len() + self.id.as_ref().map_or(0, |id| 2 * id.len()) + to + OVERHEAD
    }
}

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
    /// The numbers of the last events that left, oldest first.
    evicted: VecDeque<u64>,
    /// The most of them.
    remembered: usize,
    /// `evicted` is complete for numbers above this one.
    evicted_known_after: u64,
    /// The number of the last event that was not for every reader.
    limited_through: u64,
    /// Publishers' own ids of events that are held, which may repeat: the numbers of each, oldest
    /// first. Invariant: none is empty.
    ids: BTreeMap<Box<str>, SmallVec<[u64; 1]>>,
}

impl Ring {
    /// An empty ring whose events up to `floor` have left already, perhaps by a deletion.
    #[must_use]
    pub fn starting_after(floor: u64, deleted: bool) -> Self {
        Self {
            deleted_through: if deleted { floor } else { 0 },
            evicted_through: floor,
            evicted_known_after: floor,
            remembered: *REMEMBERED.end(),
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
        let (least, most) = REMEMBERED.into_inner();
        self.remembered = bounds.remembered.clamp(least, most);
        self.evict_older(event.at, bounds.age);
        if event.to.is_some() {
            self.limited_through = event.sequence;
        }
        if let Some(id) = &event.id {
            let numbers = self.ids.entry(id.clone()).or_default();
            numbers.push(event.sequence);
        }
        self.retracted += usize::from(event.is_retracted());
        self.bytes += event.cost();
        self.events.push_back(event);
        while self.events.len() > 1
            && (self.events.len() > bounds.events || self.bytes > bounds.bytes)
        {
            self.evict();
        }
    }

    /// Evicts the oldest event; `false` when there is none.
    pub fn evict(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else {
            return false;
        };
        self.bytes -= event.cost();
        self.evicted_through = event.sequence;
        if event.is_retracted() {
            // Whoever comes with an old id does not miss it.
            self.retracted -= 1;
        } else {
            self.evicted.push_back(event.sequence);
            while self.evicted.len() > self.remembered {
                self.evicted_known_after = self.evicted.pop_front().expect("it has some");
            }
            if self.evicted.capacity() > 4 * self.remembered {
                self.evicted.shrink_to(self.remembered);
            }
        }
        if let Some(id) = &event.id
            && let Some(numbers) = self.ids.get_mut(id)
        {
            numbers.retain(|number| *number != event.sequence);
            if numbers.is_empty() {
                self.ids.remove(id);
            }
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        true
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

    /// Puts `retracted` in the place of the event that it was, if that is held.
    pub fn retract(&mut self, retracted: &Arc<Stored>) {
        let Some(at) = self.position(retracted.sequence) else {
            return;
        };
        let event = std::mem::replace(&mut self.events[at], retracted.clone());
        self.bytes = self.bytes - event.cost() + retracted.cost();
        self.retracted += usize::from(!event.is_retracted());
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

    /// Whether the last events to leave did so because the topic was deleted.
    #[must_use]
    pub fn was_deleted(&self) -> bool {
        self.deleted_through > 0 && self.deleted_through == self.evicted_through
    }

    /// The numbers in `(after, through]` of events that have left, or `None` when they are not
    /// remembered that far back.
    pub fn evicted_between(
        &self,
        after: u64,
        through: u64,
    ) -> Option<impl Iterator<Item = u64> + '_> {
        if self.evicted_known_after > after {
            return None;
        }
        let from = self.evicted.partition_point(|&s| s <= after);
        Some(
            self.evicted
                .range(from..)
                .copied()
                .take_while(move |&s| s <= through),
        )
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

    /// The numbers of the held events whose publishers gave them `id`, oldest first.
    #[must_use]
    pub fn find(&self, id: &str) -> &[u64] {
        self.ids.get(id).map_or(&[], |numbers| numbers)
    }

    /// The oldest event held that was not taken back.
    #[must_use]
    pub fn oldest(&self) -> Option<&Arc<Stored>> {
        self.events.iter().find(|event| !event.is_retracted())
    }

    /// The newest event held that was not taken back.
    #[must_use]
    pub fn newest(&self) -> Option<&Arc<Stored>> {
        self.events.iter().rfind(|event| !event.is_retracted())
    }

    /// How many events are held, those taken back not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len() - self.retracted
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
    use proptest::prelude::*;

    use super::*;
    use crate::sse::FRAME_HEAD;

    fn event(sequence: u64, at: Instant, id: Option<&str>, bytes: usize) -> Arc<Stored> {
        let ledger = Ledger::new(usize::MAX);
        let framed = vec![b'x'; FRAME_HEAD + bytes];
        Arc::new(Stored {
            sequence,
            at,
            id: id.map(Into::into),
            wire: Wire::new(framed, &ledger),
            to: None,
            ledger,
        })
    }

    fn bounds(events: usize, bytes: usize) -> Bounds {
        Bounds {
            events,
            bytes,
            age: Duration::from_secs(3600),
            remembered: 1024,
        }
    }

    fn held(ring: &Ring, cursor: u64) -> Vec<u64> {
        ring.after(cursor).map(|e| e.sequence).collect()
    }

    #[test]
    fn evicts_by_count_by_bytes_and_by_age() {
        let now = crate::clock::now();
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
        ring.push(event(1, crate::clock::now(), None, 1000), &bounds(3, 10));
        assert_eq!(held(&ring, 0), [1]);
    }

    #[test]
    fn an_id_given_twice_is_found_at_each_of_its_events() {
        let now = crate::clock::now();
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
        let now = crate::clock::now();
        let mut ring = Ring::default();
        let mut push = |sequence, remembered| {
            let bounds = Bounds {
                remembered,
                ..bounds(1, usize::MAX)
            };
            ring.push(event(sequence, now, None, 1), &bounds);
            ring.evicted.len()
        };
        let most = (1..=2000).map(|n| push(n, usize::MAX)).max();
        assert_eq!(most, Some(1024));
        assert_eq!(push(2001, 100), 100);
        assert_eq!(push(2002, 0), 8);
        assert!(ring.evicted.capacity() <= 32);
        assert!(ring.evicted_between(1992, 2001).is_none());
        let known = ring.evicted_between(1993, 2001).expect("that far back");
        assert!(known.eq(1994..=2001));
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
            let now = crate::clock::now();
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
            let missed = ring.evicted_between(cursor, u64::MAX).expect("few events");
            let mut seen: Vec<u64> = missed.collect();
            prop_assert!(seen.iter().all(|&s| s <= ring.evicted_through()));
            seen.extend(held(&ring, cursor));
            all.retain(|&s| s > cursor);
            prop_assert_eq!(seen, all);
        }
    }
}
