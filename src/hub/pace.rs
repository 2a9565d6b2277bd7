//! When the events of a topic go out that has an interval: of each series the first at once, and from
//! then on the newest at its turn.
//!
//! Turns are on a grid of an eighth of the interval, so that those of many series fall together: a
//! connection is woken for all of them at once.
//!
//! Pure: no clock, no lock, no task. Callers pass `now` in.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::stored::{Series, Stored};
use crate::{
    sse::Draft,
    sync::atomic::{AtomicUsize, Ordering},
};

/// How many moments of an interval turns are at.
const MOMENTS: u32 = 8;

/// After how long it is looked again for series that may be forgotten, at the least.
const LATER: Duration = Duration::from_secs(10);

/// An event that waits for its turn, in one topic or several. Once no topic has it any more, it was
/// passed over.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) event: Arc<Stored>,
    /// What goes out, under the number that it gets then.
    pub(super) draft: Draft,
    /// What all that wait cost, in bytes.
    pub(super) bytes: Arc<AtomicUsize>,
}

/// An event that waits and is to go out, or has waited.
#[derive(Clone, Debug)]
pub struct Released(pub(super) Arc<Waiting>);

impl Released {
    /// The number under which it was published.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.0.event.sequence
    }

    /// What goes out, but for its id.
    #[must_use]
    pub fn draft(&self) -> &Draft {
        &self.0.draft
    }

    /// The event, on whose terms it goes out.
    #[must_use]
    pub fn event(&self) -> &Stored {
        &self.0.event
    }
}

impl Waiting {
    /// An event, which is counted in `bytes` while it waits.
    pub(super) fn new(event: Arc<Stored>, draft: Draft, bytes: &Arc<AtomicUsize>) -> Self {
        event.wait();
        bytes.fetch_add(2 * event.cost(), Ordering::Relaxed);
        let bytes = bytes.clone();
        Self {
            event,
            draft,
            bytes,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bytes
            .fetch_sub(2 * self.event.cost(), Ordering::Relaxed);
        self.event.pass_over();
    }
}

/// The turns of a topic.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// Some moment of the grid.
    origin: Instant,
    turns: HashMap<Arc<Series>, Turn>,
    /// When each is to be looked at, at the least.
    moments: BTreeMap<Instant, HashSet<Arc<Series>>>,
}

/// How far a series is.
#[derive(Debug)]
struct Turn {
    /// From when on an event may go out.
    free: Instant,
    /// The one that waits, and when its turn is: later than that where another topic has it wait.
    waiting: Option<(Instant, Arc<Waiting>)>,
}

impl Pace {
    /// Nothing has gone out yet.
    pub(super) fn new(interval: Duration, origin: Instant) -> Self {
        Self {
            interval,
            origin,
            turns: HashMap::new(),
            moments: BTreeMap::new(),
        }
    }

    /// Whether anything is known of a series.
    pub(super) fn knows(&self, series: &Series) -> bool {
        self.turns.contains_key(series)
    }

    /// Forgets everything: what waited is passed over.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        self.moments.clear();
    }

    /// How many series are known.
    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    /// When the next event of a series may go out; `None` is at once.
    pub(super) fn turn(&self, series: &Series, now: Instant) -> Option<Instant> {
        let turn = self.turns.get(series)?;
        (turn.free > now).then_some(turn.free)
    }

    /// From when on another of a series may go out of which one goes out now.
    pub(super) fn free_after(&self, now: Instant) -> Instant {
        self.not_before(now) + self.interval
    }

    /// An event has gone out. What waited is passed over, if it did.
    pub(super) fn went_out(&mut self, series: &Series, now: Instant) -> Option<Arc<Waiting>> {
        let free = self.free_after(now);
        self.change(series, free, |turn| {
            turn.free = free;
            turn.waiting.take()
        })
    }

    /// An event waits for its turn. What waited before is passed over, if it did.
    pub(super) fn wait(
        &mut self,
        series: &Series,
        at: Instant,
        waiting: Arc<Waiting>,
    ) -> Option<Arc<Waiting>> {
        self.change(series, at, |turn| turn.waiting.replace((at, waiting)))
    }

    /// Some of the events whose turn it is by `now`, at most so many; they stay until they are
    /// [released](Self::release). Series that nothing waits in are forgotten once nothing comes any more that was placed
    /// before they are free: all that is has come up to `through`.
    pub(super) fn due(&mut self, now: Instant, through: Instant, most: usize) -> Vec<Arc<Waiting>> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some(mut moment) = self.moments.first_entry()
            && *moment.key() <= now
        {
            let Some(series) = moment.get().iter().next().cloned() else {
                moment.remove();
                continue;
            };
            moment.get_mut().remove(&series);
            let Some(turn) = self.turns.get(&series) else {
                continue;
            };
            match &turn.waiting {
                Some((at, waiting)) if *at <= now => {
                    due.push(waiting.clone());
                    // If nothing comes of it, it is looked at again.
                    let again = self.not_after(now) + self.interval;
                    self.moments.entry(again).or_default().insert(series);
                }
                None if turn.free <= through => drop(self.turns.remove(&series)),
                None if turn.free <= now => {
                    let again = self.not_after(now) + self.interval.max(LATER);
                    self.moments.entry(again).or_default().insert(series);
                }
                // It has another moment.
                _ => {}
            }
        }
        due
    }

    /// When a series is to be looked at next, if anything is known.
    pub(super) fn first(&self) -> Option<Instant> {
        self.moments.keys().next().copied()
    }

    /// Takes the event with this number, which goes out now.
    pub(super) fn release(
        &mut self,
        series: &Series,
        sequence: u64,
        now: Instant,
    ) -> Option<Arc<Waiting>> {
        let waiting = self.take(series, sequence)?;
        let free = self.not_after(now) + self.interval;
        self.change(series, free, |turn| {
            turn.free = free;
            None
        });
        Some(waiting)
    }

    /// Takes the event with this number, if it waits.
    pub(super) fn take(&mut self, series: &Series, sequence: u64) -> Option<Arc<Waiting>> {
        let turn = self.turns.get_mut(series)?;
        let waiting = &mut turn.waiting;
        let taken = waiting.take_if(|(_, waiting)| waiting.event.sequence == sequence);
        taken.map(|(_, waiting)| waiting)
    }

    /// Whether the event with this number waits.
    pub(super) fn waits(&self, series: &Series, sequence: u64) -> bool {
        let waiting = self
            .turns
            .get(series)
            .and_then(|turn| turn.waiting.as_ref());
        waiting.is_some_and(|(_, waiting)| waiting.event.sequence == sequence)
    }

    /// All that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<Waiting>> {
        let all = self.turns.values();
        all.filter_map(|turn| turn.waiting.as_ref().map(|(_, waiting)| waiting))
    }

    /// Changes how far a series is, which is to be looked at at this moment.
    fn change(
        &mut self,
        series: &Series,
        at: Instant,
        change: impl FnOnce(&mut Turn) -> Option<(Instant, Arc<Waiting>)>,
    ) -> Option<Arc<Waiting>> {
        let known = self.turns.get_key_value(series);
        let series = known.map_or_else(|| Arc::new(series.clone()), |(series, _)| series.clone());
        let turn = self.turns.entry(series.clone()).or_insert(Turn {
            free: self.origin,
            waiting: None,
        });
        let before = change(turn);
        self.moments.entry(at).or_default().insert(series);
        before.map(|(_, waiting)| waiting)
    }

    fn step(&self) -> Duration {
        self.interval / MOMENTS
    }

    /// The last moment of the grid that is not after `at`.
    fn not_after(&self, at: Instant) -> Instant {
        let since = at.saturating_duration_since(self.origin).as_nanos();
        let rest = since % self.step().as_nanos().max(1);
        at - Duration::from_nanos(u64::try_from(rest).expect("less than an interval"))
    }

    /// The first moment of the grid that is not before `at`.
    fn not_before(&self, at: Instant) -> Instant {
        let floor = self.not_after(at);
        if floor == at { at } else { floor + self.step() }
    }
}
