//! Topics with an interval: when their events go out, and what waits until then.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use super::{
    super::{
        Entry, Replay, Target, Verdict,
        pace::{Pace, Released, Waiting},
        stored::Series,
    },
    Id, Topics, Treatment,
};
use crate::{
    sync::atomic::{AtomicUsize, Ordering},
    topic::Topic,
};

/// How many series all topics with an interval may know: what is over that goes out at once.
const SERIES: usize = 100_000;
/// Events that go out, by their numbers, with the topics that they wait in.
type Due = BTreeMap<u64, (Arc<Waiting>, Vec<Topic>)>;

impl Topics {
    /// When an event of these topics goes out: at once unless all of them have an interval, and it is
    /// not its turn yet in one of them.
    pub(in crate::hub) fn turn(
        &self,
        topics: &[Topic],
        series: &Series,
        now: Instant,
    ) -> Option<Instant> {
        let too_much = self.waiting_bytes.load(Ordering::Relaxed) > self.retention.total_bytes / 4;
        if self.series == 0 || too_much {
            return None;
        }
        let mut last = None;
        for topic in topics {
            self.treatment(topic).interval?;
            let pace = self.get(topic);
            let pace = pace.and_then(|known| known.pace.as_deref());
            if self.is_full_for(pace, series) {
                return None;
            }
            last = last.max(pace.and_then(|pace| pace.turn(series, now)));
        }
        last
    }

    /// What becomes of the entries of a batch that is applied later; those of it that go out put off others.
    pub(in crate::hub) fn judge<'a>(
        &mut self,
        batch: impl Iterator<Item = (u64, Instant, &'a Entry)>,
    ) -> Vec<Verdict> {
        let mut free: HashMap<(Topic, Series), Instant> = HashMap::new();
        let mut verdicts = Vec::new();
        for (sequence, at, entry) in batch {
            let mut verdict = Verdict::default();
            match entry {
                Entry::Event { target, .. } => {
                    verdict.repeat = self.duplicates.judge(&target.identity, sequence, at);
                    if verdict.repeat.is_none() && self.rules.have_intervals() {
                        verdict.turn = self.turn_among(&mut free, target, at);
                    }
                }
                Entry::Release { topics, waiting } => {
                    let series = waiting.event().series();
                    for (topic, pace) in self.paced_topics(topics) {
                        free.insert((topic, series.clone()), pace.free_after(at));
                    }
                }
                _ => {}
            }
            verdicts.push(verdict);
        }
        verdicts
    }

    /// When an event goes out behind others of its batch, which have until these moments to themselves.
    fn turn_among(
        &self,
        free: &mut HashMap<(Topic, Series), Instant>,
        target: &Target,
        at: Instant,
    ) -> Option<Instant> {
        let paced = self.paced_topics(&target.topics);
        if paced.is_empty() {
            return None;
        }
        let series = target.series();
        let before = target.topics.iter().filter_map(|topic| {
            let free = free.get(&(topic.clone(), series.clone()));
            free.filter(|free| **free > at).copied()
        });
        let turn = before.chain(self.turn(&target.topics, &series, at)).max();
        let turn = turn.filter(|_| paced.len() == target.topics.len());
        let turn = turn.filter(|turn| target.is_there_at(at, *turn));
        if turn.is_none() {
            for (topic, pace) in paced {
                free.insert((topic, series.clone()), pace.free_after(at));
            }
        }
        turn
    }

    /// Those of some topics that have an interval, as if nothing of them had gone out.
    fn paced_topics(&self, topics: &[Topic]) -> Vec<(Topic, Pace)> {
        let paced = topics.iter().filter_map(|topic| {
            let interval = self.treatment(topic).interval?;
            Some((topic.clone(), Pace::new(interval, self.origin)))
        });
        paced.collect()
    }

    /// In which of these topics an event does wait.
    pub(in crate::hub) fn still_waiting(&self, topics: &[Topic], waiting: &Waiting) -> Vec<Topic> {
        let waits = |topic: &&Topic| {
            let pace = self.get(topic).and_then(|known| known.pace.as_ref());
            let number = waiting.event.sequence;
            pace.is_some_and(|pace| pace.waits(waiting.event.series(), number))
        };
        topics.iter().filter(waits).cloned().collect()
    }

    /// Whether an event can wait for its turn in any of these topics.
    pub(in crate::hub) fn can_wait(&mut self, target: &Target, series: &Series) -> bool {
        let mut topics = target.topics.iter();
        topics.any(|topic| {
            let id = self.know(topic);
            self.has_pace(id, series)
        })
    }

    fn treatment(&self, topic: &Topic) -> Treatment {
        let known = self.get(topic);
        known.map_or_else(|| self.rules.of(topic), |known| known.cell.treatment)
    }

    /// An event goes out now in these topics. How many topics it takes the place of another in.
    pub(in crate::hub) fn went_out(&mut self, ids: &[Id], series: &Series, now: Instant) -> usize {
        let mut passed_over = 0;
        for &id in ids {
            if self.has_pace(id, series) {
                let before = self.paced(id, |pace| pace.went_out(series, now));
                passed_over += self.pass_over(id, before.flatten());
            }
        }
        passed_over
    }

    /// An event waits for its turn in these topics. How many topics it takes the place of another in.
    pub(in crate::hub) fn wait(
        &mut self,
        topics: &[Topic],
        turn: Instant,
        waiting: Waiting,
    ) -> usize {
        let waiting = Arc::new(waiting);
        let series = waiting.event.series();
        let mut passed_over = 0;
        for topic in topics {
            let id = self.know(topic);
            if self.has_pace(id, series) {
                let before = self.paced(id, |pace| pace.wait(series, turn, waiting.clone()));
                // It is named twice.
                let before = before.flatten();
                let other = before.filter(|before| !Arc::ptr_eq(before, &waiting));
                passed_over += self.pass_over(id, other);
            }
        }
        passed_over
    }

    /// An event waits no more in a topic, as another took its place. Where nobody is given it again it
    /// takes no place in history. How many that are.
    fn pass_over(&mut self, id: Id, waiting: Option<Arc<Waiting>>) -> usize {
        let Some(waiting) = waiting else {
            return 0;
        };
        if self.known[id].cell.treatment.replay != Replay::All {
            self.shrink(id, |ring| ring.take_out(waiting.event.sequence));
        }
        1
    }

    /// Whether the events of a series wait for their turns in a topic; of too many series some do not.
    fn has_pace(&mut self, id: Id, series: &Series) -> bool {
        let known = &self.known[id];
        let Some(interval) = known.cell.treatment.interval else {
            return false;
        };
        if self.is_full_for(known.pace.as_deref(), series) {
            return false;
        }
        let new = || Box::new(Pace::new(interval, self.origin));
        self.known[id].pace.get_or_insert_with(new);
        true
    }

    /// Whether so many series are known that a new one is not.
    fn is_full_for(&self, pace: Option<&Pace>, series: &Series) -> bool {
        self.series >= SERIES && !pace.is_some_and(|pace| pace.knows(series))
    }

    /// What all events that wait cost, in bytes.
    pub(in crate::hub) fn waiting_bytes(&self) -> &Arc<AtomicUsize> {
        &self.waiting_bytes
    }

    /// When the first turn of all is.
    pub(in crate::hub) fn first_turn(&self) -> Option<Instant> {
        self.turns.first().map(|(turn, _)| *turn)
    }

    /// Some of what is to go out because its turn has come, in the order in which it was published.
    pub(in crate::hub) fn due(&mut self, now: Instant, most: usize) -> Vec<Entry> {
        let mut due: Due = BTreeMap::new();
        let through = self.settled.map_or(now, |settled| settled.min(now));
        let mut idle = Vec::new();
        while due.len() < most
            && let Some(&(_, id)) = self.turns.first().filter(|(turn, _)| *turn <= now)
        {
            let of_topic = self.paced(id, |pace| pace.due(now, through, most));
            for waiting in of_topic.into_iter().flatten() {
                let number = waiting.event.sequence;
                let (_, topics) = due.entry(number).or_insert((waiting, Vec::new()));
                topics.push(self.known[id].cell.topic.clone());
            }
            idle.extend(self.known[id].pace.is_none().then_some(id));
        }
        for id in idle {
            self.forget_if_idle(id);
        }
        released(due)
    }

    /// What is to go out before a topic is closed: all that waits in it.
    pub(in crate::hub) fn waiting_in(&self, topic: &Topic) -> Vec<Entry> {
        let pace = self.get(topic).and_then(|known| known.pace.as_ref());
        let all = pace.into_iter().flat_map(|pace| pace.waiting());
        let entry = |waiting: &Arc<Waiting>| {
            let topics = vec![topic.clone()];
            (waiting.event.sequence, (waiting.clone(), topics))
        };
        released(all.map(entry).collect())
    }

    /// Takes out of the history of topics an event that waits there and goes out now. Which of them it
    /// does wait in; it is taken out of all if that `is_settled`.
    pub(in crate::hub) fn release(
        &mut self,
        topics: &[Topic],
        series: &Series,
        published: u64,
        now: Instant,
        is_settled: bool,
    ) -> Vec<Topic> {
        let mut of = Vec::new();
        for topic in topics {
            let Some(id) = self.id(topic) else {
                continue;
            };
            let waited = self.paced(id, |pace| pace.release(series, published, now));
            if waited.flatten().is_some() || is_settled {
                self.shrink(id, |ring| ring.take_out(published));
                of.push(topic.clone());
            }
        }
        of
    }

    /// Changes the turns of a topic, if it has any, and keeps the books of them.
    pub(super) fn paced<T>(&mut self, id: Id, change: impl FnOnce(&mut Pace) -> T) -> Option<T> {
        let known = &mut self.known[id];
        let pace = known.pace.as_mut()?;
        let before = pace.len();
        let done = change(pace);
        self.series = self.series - before + pace.len();
        // Moments of series that were forgotten may be left.
        known.pace.take_if(|pace| pace.len() == 0);
        let first = known.pace.as_ref().and_then(|pace| pace.first());
        if known.turn != first {
            if let Some(turn) = std::mem::replace(&mut known.turn, first) {
                self.turns.remove(&(turn, id));
            }
            self.turns.extend(first.map(|turn| (turn, id)));
        }
        Some(done)
    }
}

fn released(due: Due) -> Vec<Entry> {
    let entry = |(_, (waiting, topics)): (u64, (Arc<Waiting>, Vec<Topic>))| Entry::Release {
        topics: topics.into(),
        waiting: Released(waiting),
    };
    due.into_iter().map(entry).collect()
}
