//! The thread that writes: it takes what has come meanwhile, writes it in one go, has it last, has the hub apply
//! it, and answers.

use std::{sync::Arc, time::Duration};

use super::{
    appender::{self, Appender, Written},
    queue::{Answers, Batch, Item, News, Queue},
    sync_policy::SyncPolicy,
};
use crate::{
    clock,
    history::{
        Durability, NotStored, Receipt,
        alarm::Alarm,
        record::{self, Kind},
    },
    hub::{Entry, Hub, Placed},
    topic::Topic,
};

/// How often it is looked for what is too old.
const TIDY: Duration = Duration::from_secs(60);

/// What the thread has.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) log: Appender,
}

/// What is remembered of an entry whose publisher waits for an answer.
struct Asked {
    sequence: u64,
    own_id: Option<Box<str>>,
    durability: Durability,
}

impl Writer {
    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _alarm = Alarm("history");
        let mut tidied = clock::now();
        loop {
            let now = clock::now();
            let mut until = now + TIDY;
            if let SyncPolicy::Every(interval) = self.log.keeping.sync
                && self.log.end.synced < self.log.end.offset
                && self.log.end.failed.is_none()
            {
                until = until.min(self.log.end.synced_at + interval);
            }
            match self.queue.take(now, until) {
                News::Batches(mut batches) => {
                    while let Some(batch) = batches.pop_front() {
                        let mut commit = vec![batch];
                        while let Some(next) = batches.pop_front_if(|next| !batch_begins(next)) {
                            commit.push(next);
                        }
                        self.commit(commit);
                    }
                }
                News::Nothing => {}
                News::Closed => break,
            }
            let now = clock::now();
            if let SyncPolicy::Every(interval) = self.log.keeping.sync
                && self.log.end.synced_at + interval <= now
                && self.log.end.failed.is_none()
            {
                // What fails is met by the next commit.
                let _: Result<(), NotStored> = self.log.sync();
            }
            if tidied + TIDY <= now {
                tidied = now;
                // What is old is sealed, so that it can go; if that fails, whoever publishes next is told.
                let _: Result<(), NotStored> = self.log.let_go_of_old();
            }
        }
        self.log.close();
    }

    /// Writes some batches in one go and answers them.
    fn commit(&mut self, batches: Vec<Batch>) {
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.items.len()).collect();
        let (mut answers, mut items) = (Vec::new(), Vec::new());
        for batch in batches {
            items.extend(batch.items);
            // The room is taken until the answer is given.
            answers.push((batch.answer, batch.room));
        }
        let mut outcome = match self.store(items) {
            Ok(outcome) => outcome,
            Err(error) => vec![Err(error); sizes.iter().sum()],
        }
        .into_iter();
        for ((answer, _room), size) in answers.into_iter().zip(sizes) {
            let mine: Answers = outcome.by_ref().take(size).collect();
            // Nobody waits any more: it is stored all the same.
            let _: Result<(), Answers> = answer.send(mine);
        }
    }

    /// Writes entries, has the hub apply them, and says what came of each.
    fn store(&mut self, items: Vec<Item>) -> Result<Answers, NotStored> {
        let items = self.with_what_waits(items);
        let through = self.log.end.last.sequence + items.len() as u64;
        let now = self.log.wall.millis(clock::now());
        if let Err(error) = self.log.make_room(through, now) {
            forget(
                &self.log.hub,
                u64::MAX,
                items.iter().map(|(item, _)| &item.entry),
            );
            return Err(error);
        }
        let first = self.log.end.last.sequence + 1;
        let (mut written, asked) = self.place(items);
        self.log.settle(&mut written);
        if let Err(error) = self.log.write(&mut written, None) {
            forget(
                &self.log.hub,
                first,
                written.iter().map(|one| &one.placed.entry),
            );
            return Err(error);
        }
        if self.log.keeping.sync == SyncPolicy::Always {
            self.log.sync().map_err(|_| NotStored::Unknown)?;
        }
        self.log.metrics.commits.inc();
        let applied = asked.into_iter().zip(self.log.apply(written));
        let answers = applied.filter_map(|(asked, applied)| {
            let Asked {
                sequence,
                own_id,
                durability,
            } = asked?;
            let hub = &self.log.hub;
            Some(Receipt::of(hub, sequence, own_id, &applied, durability))
        });
        Ok(answers.collect())
    }

    /// What waits in a topic that is closed goes out before its streams end.
    fn with_what_waits(&self, items: Vec<Item>) -> Vec<(Item, bool)> {
        let asked = |item| (item, true);
        let first = match items.first().map(|item| (&item.entry, item.at)) {
            Some((Entry::Close(topic), at)) => {
                let waiting = self.log.hub.waiting_in(topic).into_iter();
                let item = |entry: Entry| {
                    let encoded = record::encode(&entry, &self.log.wall);
                    (Item { entry, encoded, at }, false)
                };
                waiting.map(item).collect()
            }
            _ => Vec::new(),
        };
        first
            .into_iter()
            .chain(items.into_iter().map(asked))
            .collect()
    }

    /// Gives entries their places, and remembers whose publishers wait.
    fn place(&self, items: Vec<(Item, bool)>) -> (Vec<Written>, Vec<Option<Asked>>) {
        let mut sequence = self.log.end.last.sequence;
        let mut last_at = self.log.end.last_at;
        let durability = self.log.keeping.sync.durability();
        items
            .into_iter()
            .map(|(item, is_asked)| {
                let Item { entry, encoded, at } = item;
                sequence += 1;
                // In the order time does not go back.
                last_at = last_at.max(at);
                let is_passed = encoded.kind == Kind::Passed;
                let asked = is_asked.then(|| Asked {
                    sequence,
                    own_id: entry.own_id(),
                    durability: if is_passed {
                        Durability::Memory
                    } else {
                        durability
                    },
                });
                let placed = Placed::new(sequence, last_at, entry);
                (Written::new(placed, encoded), asked)
            })
            .unzip()
    }
}

/// Whether a batch begins a commit of its own.
fn batch_begins(batch: &Batch) -> bool {
    let first = batch.items.first();
    first.is_some_and(|item| appender::begins(&item.entry))
}

/// Entries are not in the order after all that were judged from a number on: what was made known for them is forgotten.
pub(super) fn forget<'a>(hub: &Hub, from: u64, entries: impl Iterator<Item = &'a Entry>) {
    let topics: Vec<Topic> = entries.flat_map(Entry::prepared).cloned().collect();
    hub.unjudge(from, &topics);
}
