//! The thread that writes: it takes what has come meanwhile, writes it in one go, has it last, has the hub apply
//! it, and answers.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    disk::{Disk, DiskFile},
    format::{CommitWriter, HEADER, Header, Place, SPAN},
    index::Front,
    metrics::LogMetrics,
    noted::Noted,
    queue::{Answers, Batch, Item, News, Queue},
    segments::{self, Segment, Segments},
    sync_policy::SyncPolicy,
};
use crate::{
    clock,
    history::{
        Durability, NotStored, Receipt,
        alarm::Alarm,
        record::{self, Kind},
        wall::Wall,
    },
    hub::{Entry, Hub, Identity, Judged, Placed, Repeat, Verdict},
    topic::Topic,
};

/// A segment is sealed that is older than this, so that what is old can go.
const SEGMENT_AGE: Duration = Duration::from_secs(3600);
/// How often it is looked for what is too old.
const TIDY: Duration = Duration::from_secs(60);
/// What is kept of the room for a commit.
const BUFFER: usize = 1 << 20;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    pub(super) sync: SyncPolicy,
    /// The most bytes of all segments.
    pub(super) bytes: u64,
    pub(super) age: Duration,
    /// How long a segment grows.
    pub(super) segment_bytes: u64,
}

/// What the thread has.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) hub: Arc<Hub>,
    pub(super) queue: Arc<Queue>,
    pub(super) segments: Arc<Segments>,
    pub(super) metrics: LogMetrics,
    pub(super) keeping: Keeping,
    pub(super) wall: Wall,
    pub(super) end: Tail,
}

/// The end of the log.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) open: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    /// Where the next commit begins.
    pub(super) offset: u64,
    /// Up to where the file is synced.
    pub(super) synced: u64,
    /// When it was synced last.
    pub(super) synced_at: Instant,
    /// The place of the last entry.
    pub(super) last: Place,
    pub(super) last_at: Instant,
    /// What cannot be said to have lasted is not to be tried again: why.
    pub(super) failed: Option<String>,
    pub(super) buffer: Vec<u8>,
}

/// An entry that is part of a commit.
struct Written {
    placed: Placed,
    encoded: record::Encoded,
    asked: Option<Asked>,
    offset: u64,
    /// The number of the event that it takes back.
    taken: Option<u64>,
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
            if let SyncPolicy::Every(interval) = self.keeping.sync
                && self.end.synced < self.end.offset
                && self.end.failed.is_none()
            {
                until = until.min(self.end.synced_at + interval);
            }
            match self.queue.take(now, until) {
                News::Batches(mut batches) => {
                    while let Some(batch) = batches.pop_front() {
                        let mut commit = vec![batch];
                        while let Some(next) = batches.pop_front_if(|next| !begins(next)) {
                            commit.push(next);
                        }
                        self.commit(commit);
                    }
                }
                News::Nothing => {}
                News::Closed => break,
            }
            let now = clock::now();
            if let SyncPolicy::Every(interval) = self.keeping.sync
                && self.end.synced_at + interval <= now
                && self.end.failed.is_none()
            {
                // What fails is met by the next commit.
                let _: Result<(), NotStored> = self.sync();
            }
            if tidied + TIDY <= now {
                tidied = now;
                // What is old is sealed, so that it can go; if that fails, whoever publishes next is told.
                let _: Result<(), NotStored> = self.make_room(0);
                self.tidy();
            }
        }
        self.close();
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
        let room = self.make_room(items.len() as u64);
        if let Err(error) = room {
            forget(
                &self.hub,
                u64::MAX,
                items.iter().map(|(item, _)| &item.entry),
            );
            return Err(error);
        }
        let first = self.end.last.sequence + 1;
        let mut written = self.place(items);
        if let Err(error) = self.write(&mut written) {
            forget(
                &self.hub,
                first,
                written.iter().map(|one| &one.placed.entry),
            );
            return Err(error);
        }
        if self.keeping.sync == SyncPolicy::Always {
            self.sync().map_err(|_| NotStored::Unknown)?;
        }
        self.metrics.commits.inc();
        Ok(self.apply(written))
    }

    /// What waits in a topic that is closed goes out before its streams end.
    fn with_what_waits(&self, items: Vec<Item>) -> Vec<(Item, bool)> {
        let asked = |item| (item, true);
        let first = match items.first().map(|item| (&item.entry, item.at)) {
            Some((Entry::Close(topic), at)) => {
                let waiting = self.hub.waiting_in(topic).into_iter();
                let item = |entry: Entry| {
                    let encoded = record::encode(&entry, &self.wall);
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

    /// Gives entries their places, and settles when those go out that may have to wait.
    fn place(&mut self, items: Vec<(Item, bool)>) -> Vec<Written> {
        let Place {
            mut sequence,
            mut millis,
        } = self.end.last;
        let mut last_at = self.end.last_at;
        let durability = self.keeping.sync.durability();
        let mut written: Vec<Written> = items
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
                Written {
                    placed: Placed::new(sequence, last_at, entry),
                    encoded,
                    asked,
                    offset: 0,
                    taken: None,
                }
            })
            .collect();
        millis = millis.max(self.wall.millis(last_at));
        self.end.last.millis = millis;
        self.settle(&mut written);
        written
    }

    /// Settles what becomes of entries: what repeats another, what waits, what is taken back and what goes out.
    fn settle(&self, written: &mut [Written]) {
        for one in written.iter_mut() {
            match &mut one.placed.entry {
                Entry::Retract { topics, id } => {
                    let held = self.hub.to_retract(topics, id);
                    one.taken = held.or_else(|| self.segments.find(topics, id));
                }
                Entry::Release { topics, waiting } => {
                    let still = self.hub.still_waiting(topics, waiting);
                    if still.len() < topics.len() {
                        *topics = still.into();
                        one.encoded = record::encode(&one.placed.entry, &self.wall);
                    }
                }
                _ => {}
            }
        }
        let entries = written.iter().map(|one| {
            let Placed {
                sequence,
                at,
                entry,
                ..
            } = &one.placed;
            (*sequence, *at, entry)
        });
        let verdicts = self.hub.judge(entries);
        for (one, verdict) in written.iter_mut().zip(verdicts) {
            one.placed.judged = Judged::Before(verdict);
            match (&one.placed.entry, verdict.repeat) {
                (Entry::Event { target, .. }, Some(Repeat::Of(first))) => {
                    one.encoded = record::repeat(&target.identity, first);
                }
                (Entry::Event { .. }, Some(Repeat::OfKey)) => {
                    one.encoded = record::repeat(&Identity::default(), 0);
                }
                _ if verdict.turn.is_some() && one.encoded.kind == Kind::Event => {
                    one.encoded.kind = Kind::Waits;
                }
                _ => {}
            }
        }
    }

    /// Writes entries at the end of the open segment, as one commit.
    fn write(&mut self, written: &mut [Written]) -> Result<(), NotStored> {
        let Tail {
            open,
            file,
            offset,
            synced,
            last,
            buffer,
            ..
        } = &mut self.end;
        let mut commit = CommitWriter::new(buffer, open.header.salt, *offset);
        for written in written.iter_mut() {
            let place = Place {
                sequence: written.placed.sequence,
                millis: self
                    .wall
                    .millis(written.placed.at)
                    .clamp(open.header.made, last.millis),
            };
            let turn = match written.placed.judged {
                Judged::Before(verdict) => verdict.turn,
                _ => None,
            };
            let kind = written.encoded.kind;
            let before = record::before(kind, turn, written.taken, &self.wall);
            let before: &[u8] = before.as_ref().map_or(&[], |before| before);
            written.offset = commit.push(kind, place, [before, &written.encoded.body]);
        }
        commit.finish(last.sequence + 1, *synced);
        if let Err(error) = file.write_at(buffer, *offset) {
            let undone = file.set_len(*offset);
            if let Err(worse) = undone {
                self.fail(&format!("what was half written cannot be undone: {worse}"));
            }
            return Err(self.not_written(&error));
        }
        *offset += buffer.len() as u64;
        last.sequence += written.len() as u64;
        if buffer.capacity() > BUFFER {
            *buffer = Vec::new();
        }
        Ok(())
    }

    /// Has last what was written. If that fails, nobody knows what did, and asking again would not say.
    fn sync(&mut self) -> Result<(), NotStored> {
        if let Some(why) = &self.end.failed {
            return Err(NotStored::Failed(why.clone()));
        }
        let began = clock::now();
        self.end.synced_at = began;
        if self.end.synced == self.end.offset {
            return Ok(());
        }
        if let Err(error) = self.end.file.sync() {
            let why = format!("what was written cannot be synced: {error}");
            self.fail(&why);
            return Err(NotStored::Failed(why));
        }
        let seconds = (clock::now() - began).as_secs_f64();
        self.metrics.sync_seconds.inc_by(seconds);
        self.end.synced = self.end.offset;
        Ok(())
    }

    /// Has the hub apply what is written, and the index know it.
    fn apply(&mut self, written: Vec<Written>) -> Answers {
        let mut answers = Vec::with_capacity(written.len());
        let slice = self.hub.at_once();
        let mut written = written.into_iter().peekable();
        while written.peek().is_some() {
            if !answers.is_empty() {
                // The ring is the readers' queue: they get their turn.
                thread::yield_now();
            }
            self.apply_some(written.by_ref().take(slice), &mut answers);
        }
        answers
    }

    /// Applies some entries, and has those readers woken that they are for.
    fn apply_some(&mut self, written: impl Iterator<Item = Written>, answers: &mut Answers) {
        let (mut asked, mut batch) = (Vec::new(), Vec::new());
        let mut state = self.segments.change();
        for one in written {
            let Written {
                placed,
                encoded,
                taken,
                ..
            } = one;
            let turn = match placed.judged {
                Judged::Before(Verdict { turn, .. }) => turn.map(|turn| self.wall.millis(turn)),
                _ => None,
            };
            let noted = Noted::new(placed.sequence, one.offset).of(&placed.entry, taken);
            let is_identified = match &placed.entry {
                Entry::Event { target, .. } => {
                    encoded.kind != Kind::Passed && target.identity.is_known()
                }
                _ => false,
            };
            let noted = noted.identified(is_identified);
            let noted = noted.found_by(encoded.kind, encoded.topics);
            state.note(&noted.with_turn(turn));
            asked.push((one.asked, taken));
            self.end.last_at = placed.at;
            batch.push(placed);
        }
        state.index.front.newest = self.end.last.millis;
        state.index.front.length = self.end.offset;
        let outcome = self.hub.apply(batch);
        self.metrics.see(&state);
        drop(state);
        drop(outcome.wakes);
        let applied = asked.into_iter().zip(outcome.applied);
        answers.extend(applied.filter_map(|((asked, taken), mut applied)| {
            // The hub does not know what only the log has.
            applied.removed = applied.removed.or(taken.map(|_| 1));
            let Asked {
                sequence,
                own_id,
                durability,
            } = asked?;
            Some(Receipt::of(
                &self.hub, sequence, own_id, &applied, durability,
            ))
        }));
    }

    /// Begins a new segment when the open one has no room for so many entries, or is old.
    fn make_room(&mut self, entries: u64) -> Result<(), NotStored> {
        if let Some(why) = &self.end.failed {
            return Err(NotStored::Failed(why.clone()));
        }
        let Tail {
            open, offset, last, ..
        } = &self.end;
        let used = last.sequence + 1 - open.header.first;
        let now = self.wall.millis(clock::now());
        let age = now.saturating_sub(open.header.made);
        let is_old = used > 0 && u128::from(age) > SEGMENT_AGE.as_millis();
        let is_full = *offset >= self.keeping.segment_bytes || used + entries >= SPAN;
        if !is_full && !is_old {
            return Ok(());
        }
        self.sync()?;
        let Tail { open, last, .. } = &self.end;
        let header = Header {
            first: last.sequence + 1,
            made: last.millis,
            salt: fastrand::u32(..),
            always: self.keeping.sync == SyncPolicy::Always,
            ..open.header.clone()
        };
        let written = self.segments.write_open_index();
        let next = written.and_then(|()| create(self.segments.disk(), header));
        let (next, file) = next.map_err(|error| self.not_written(&error))?;
        let next = Arc::new(next);
        self.segments.seal(next.clone());
        self.end = Tail {
            open: next,
            file,
            offset: HEADER as u64,
            synced: HEADER as u64,
            synced_at: self.end.synced_at,
            last: self.end.last,
            last_at: self.end.last_at,
            failed: None,
            buffer: std::mem::take(&mut self.end.buffer),
        };
        self.tidy();
        Ok(())
    }

    /// Lets go of what is too much, with what the open segment is yet to be, or too old.
    fn tidy(&self) {
        let Keeping {
            bytes,
            age,
            segment_bytes,
            ..
        } = self.keeping;
        let now = self.wall.millis(clock::now());
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let most = bytes.saturating_sub(segment_bytes);
        if let Err(error) = self.segments.let_go(most, now.saturating_sub(age)) {
            tracing::warn!("old history is not removed: {error}");
        }
        self.metrics.see(&self.segments.state());
    }

    /// Ends the log in good order.
    fn close(&mut self) {
        if self.sync().is_err() {
            return;
        }
        let Tail {
            open,
            file,
            offset,
            synced,
            last,
            buffer,
            ..
        } = &mut self.end;
        CommitWriter::new(buffer, open.header.salt, *offset).finish(last.sequence + 1, *synced);
        let closed = file.write_at(buffer, *offset);
        if let Err(error) = closed.and_then(|()| file.sync()) {
            tracing::warn!("history is not closed in good order: {error}");
        }
    }

    /// Nothing is written any more.
    fn fail(&mut self, why: &str) {
        tracing::error!("history takes nothing more until the edge is started again: {why}");
        self.metrics.failed.set(1);
        self.end.failed = Some(why.to_owned());
    }

    fn not_written(&self, error: &io::Error) -> NotStored {
        tracing::error!("history is not written: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => NotStored::Full,
            _ => NotStored::Failed(error.to_string()),
        }
    }
}

/// Whether a batch begins a commit of its own: what becomes of it depends on all that is before it being applied.
fn begins(batch: &Batch) -> bool {
    batch.items.first().is_some_and(|item| {
        matches!(
            item.entry,
            Entry::Close(_) | Entry::Release { .. } | Entry::Retract { .. }
        )
    })
}

/// Entries are not in the order after all that were judged from a number on: what was made known for them is forgotten.
pub(super) fn forget<'a>(hub: &Hub, from: u64, entries: impl Iterator<Item = &'a Entry>) {
    let topics: Vec<Topic> = entries.flat_map(Entry::prepared).cloned().collect();
    hub.unjudge(from, &topics);
}

/// Makes a segment, which is there for good once it is.
pub(super) fn create(disk: &dyn Disk, header: Header) -> io::Result<(Segment, Arc<dyn DiskFile>)> {
    let name = segments::name(header.first);
    let new = format!("{name}.tmp");
    let file = disk.create(&new)?;
    file.write_at(&header.encode(), 0)?;
    file.sync()?;
    disk.rename(&new, &name)?;
    disk.sync()?;
    Ok((Segment::new(header, Front::default()), file))
}
