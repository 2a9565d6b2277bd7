//! When the events of a topic go out that has an interval: of each series the first at once, and from
//! then on the newest at its turn.
//!
//! Turns are on a grid of an eighth of the interval, so that those of many series fall together: a
//! connection is woken for all of them at once.
//!
//! Pure: no clock, no lock, no task. Callers pass `now` in.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::stored::{Series, Stored};
use crate::sse::Draft;

/// How many moments of an interval turns are at.
const MOMENTS: u32 = 8;

/// An event that waits for its turn, in one topic or several. Once no topic has it any more, it was
/// passed over.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) event: Arc<Stored>,
    /// What goes out, under the number that it gets then.
    pub(super) draft: Draft,
}

impl Drop for Waiting {
    fn drop(&mut self) {
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
    /// The same by their moments. One that was put off is here more than once.
    moments: BTreeMap<Instant, Vec<Arc<Series>>>,
}

/// When the next event of a series may go out, and which it is so far.
#[derive(Debug)]
struct Turn {
    at: Instant,
    waiting: Option<Arc<Waiting>>,
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
        (turn.at > now).then_some(turn.at)
    }

    /// An event has gone out. What waited is passed over, if it did.
    pub(super) fn went_out(&mut self, series: &Series, now: Instant) -> Option<Arc<Waiting>> {
        let next = self.not_before(now) + self.interval;
        self.put_off(series, next)
    }

    /// An event waits for its turn. What waited before is passed over, if it did.
    pub(super) fn wait(
        &mut self,
        series: &Series,
        turn: Instant,
        waiting: Arc<Waiting>,
    ) -> Option<Arc<Waiting>> {
        let before = self.put_off(series, turn);
        if let Some(turn) = self.turns.get_mut(series) {
            turn.waiting = Some(waiting);
        }
        before
    }

    /// The events whose turn it is by `now`, which stay until they are [released](Self::release). Series that
    /// nothing waits in are forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Arc<Waiting>> {
        let mut due = Vec::new();
        while let Some(moment) = self.moments.first_entry()
            && *moment.key() <= now
        {
            for series in moment.remove() {
                match self.turns.get(&series) {
                    Some(turn) if turn.at > now => {}
                    Some(Turn {
                        waiting: Some(waiting),
                        ..
                    }) => due.push((series, waiting.clone())),
                    _ => drop(self.turns.remove(&series)),
                }
            }
        }
        let next = self.not_after(now) + self.interval;
        let put_off = |(series, waiting): (Arc<Series>, _)| {
            self.moments.entry(next).or_default().push(series.clone());
            if let Some(turn) = self.turns.get_mut(&series) {
                turn.at = next;
            }
            waiting
        };
        due.into_iter().map(put_off).collect()
    }

    /// When the first turn is, if anything is known.
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
        let next = self.not_after(now) + self.interval;
        self.put_off(series, next);
        Some(waiting)
    }

    /// Takes the event with this number, if it waits.
    pub(super) fn take(&mut self, series: &Series, sequence: u64) -> Option<Arc<Waiting>> {
        let turn = self.turns.get_mut(series)?;
        let waiting = &mut turn.waiting;
        waiting.take_if(|waiting| waiting.event.sequence == sequence)
    }

    /// The next event of a series goes out at `next` and not before; what waited waits no more.
    fn put_off(&mut self, series: &Series, next: Instant) -> Option<Arc<Waiting>> {
        let known = self.turns.get_key_value(series);
        let series = known.map_or_else(|| Arc::new(series.clone()), |(series, _)| series.clone());
        let turn = self.turns.entry(series.clone()).or_insert(Turn {
            at: self.origin,
            waiting: None,
        });
        if turn.at != next {
            turn.at = next;
            self.moments.entry(next).or_default().push(series);
        }
        turn.waiting.take()
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
