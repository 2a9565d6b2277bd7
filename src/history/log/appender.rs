//! The end of a log: entries are settled and written there, and the hub applies them.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    disk::{Disk, DiskFile},
    format::{CommitWriter, HEADER, Header, Place},
    index::Front,
    metrics::LogMetrics,
    noted::Noted,
    segments::{self, Segment, Segments},
    sync_policy::SyncPolicy,
};
use crate::{
    clock,
    history::{
        NotStored,
        record::{self, Encoded, Kind, Mark},
        wall::Wall,
    },
    hub::{Applied, Entry, Hub, Identity, Judged, Placed, Repeat, Verdict},
};

/// A segment is sealed that is older than this, so that what is old can go.
const SEGMENT_AGE: Duration = Duration::from_secs(3600);
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

/// What writes at the end of a log.
#[derive(Debug)]
pub(super) struct Appender {
    pub(super) hub: Arc<Hub>,
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
    /// The last write failed, and that was said.
    pub(super) is_refusing: bool,
}

/// An entry that is part of a commit.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) placed: Placed,
    encoded: Encoded,
    offset: u64,
    /// The number of the event that it takes back.
    taken: Option<u64>,
}

impl Written {
    /// An entry with its place.
    pub(super) fn new(placed: Placed, encoded: Encoded) -> Self {
        Self {
            placed,
            encoded,
            offset: 0,
            taken: None,
        }
    }
}

impl Appender {
    /// Settles what becomes of entries: what repeats another, what waits, what is taken back and what goes out.
    pub(super) fn settle(&self, written: &mut [Written]) {
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
                // Of what is not kept it is known, too, if it comes again.
                (Entry::Event { target, .. }, None) if one.encoded.kind == Kind::Passed => {
                    one.encoded = record::repeat(&target.identity, one.placed.sequence);
                }
                _ if verdict.turn.is_some() && one.encoded.kind == Kind::Event => {
                    one.encoded.kind = Kind::Waits;
                }
                _ => {}
            }
        }
    }

    /// Writes entries at the end of the open segment, as one commit, with what is noted behind them.
    pub(super) fn write(
        &mut self,
        written: &mut [Written],
        mark: Option<&Mark>,
    ) -> Result<(), NotStored> {
        let Tail {
            open,
            file,
            offset,
            synced,
            last,
            buffer,
            is_refusing,
            ..
        } = &mut self.end;
        if let Some(written) = written.last() {
            last.millis = last.millis.max(self.wall.millis(written.placed.at));
        }
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
        if let Some(mark) = mark {
            let place = Place {
                sequence: mark.sequence,
                millis: last.millis,
            };
            commit.push(Kind::Mark, place, [&[], &mark.encode()]);
        }
        commit.finish(last.sequence + 1, *synced);
        if let Err(error) = file.write_at(buffer, *offset) {
            let undone = file.set_len(*offset);
            if let Err(worse) = undone {
                self.fail(&format!("what was half written cannot be undone: {worse}"));
            }
            return Err(self.not_written(&error));
        }
        if std::mem::take(is_refusing) {
            tracing::info!("history is written again");
        }
        *offset += buffer.len() as u64;
        let end = written.last().map(|written| written.placed.sequence);
        let end = mark.map(|mark| mark.sequence).or(end);
        last.sequence = end.unwrap_or(last.sequence);
        if buffer.capacity() > BUFFER {
            *buffer = Vec::new();
        }
        Ok(())
    }

    /// Has last what was written. If that fails, nobody knows what did, and asking again would not say.
    pub(super) fn sync(&mut self) -> Result<(), NotStored> {
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

    /// Has the hub apply what is written, and the index know it. What came of each entry.
    pub(super) fn apply(&mut self, written: Vec<Written>) -> Vec<Applied> {
        let most = self.hub.at_once();
        in_parts(most, written, |part, applied| {
            self.apply_some(part, applied);
        })
    }

    /// Applies some entries, and has those readers woken that they are for.
    fn apply_some(
        &mut self,
        written: impl Iterator<Item = Written>,
        all_applied: &mut Vec<Applied>,
    ) {
        let (mut all_taken, mut batch) = (Vec::new(), Vec::new());
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
            all_taken.push(taken);
            self.end.last_at = placed.at;
            batch.push(placed);
        }
        state.index.front.newest = self.end.last.millis;
        state.index.front.length = self.end.offset;
        let outcome = self.hub.apply(batch);
        self.metrics.see(&state);
        drop(state);
        drop(outcome.wakes);
        let applied = all_taken.into_iter().zip(outcome.applied);
        all_applied.extend(applied.map(|(taken, applied)| Applied {
            // The hub does not know what only the log has.
            removed: applied.removed.or(taken.map(|_| 1)),
            ..applied
        }));
    }

    /// Begins a new segment when the open one has no room for entries up to a number, or was begun long before this
    /// moment, which is in unix ms.
    pub(super) fn make_room(&mut self, through: u64, at: u64) -> Result<(), NotStored> {
        if let Some(why) = &self.end.failed {
            return Err(NotStored::Failed(why.clone()));
        }
        let Tail {
            open, offset, last, ..
        } = &self.end;
        let is_empty = last.sequence + 1 == open.header.first;
        let age = at.saturating_sub(open.header.made);
        let is_old = u128::from(age) > SEGMENT_AGE.as_millis();
        let is_full = *offset >= self.keeping.segment_bytes || through + 1 >= open.header.end();
        if is_empty || !is_full && !is_old {
            return Ok(());
        }
        self.sync()?;
        let Tail {
            open, offset, last, ..
        } = &self.end;
        let header = Header {
            first: last.sequence + 1,
            made: last.millis,
            salt: fastrand::u32(..),
            always: self.keeping.sync == SyncPolicy::Always,
            ..open.header.clone()
        };
        let written = self.segments.write_open_index(*last, *offset);
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
            is_refusing: self.end.is_refusing,
        };
        self.tidy();
        Ok(())
    }

    /// Seals what is old, and lets go of what is too old; an error of the former.
    pub(super) fn let_go_of_old(&mut self) -> Result<(), NotStored> {
        let now = self.wall.millis(clock::now());
        let sealed = self.make_room(self.end.last.sequence, now);
        self.tidy();
        sealed
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
    pub(super) fn close(&mut self) {
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
        if !self.end.open.header.is_shared {
            tracing::error!("history takes nothing more until the edge is started again: {why}");
        }
        self.metrics.failed.set(1);
        self.end.failed = Some(why.to_owned());
    }

    fn not_written(&mut self, error: &io::Error) -> NotStored {
        if !std::mem::replace(&mut self.end.is_refusing, true) {
            tracing::error!("history is not written: {error}");
        }
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => NotStored::Full,
            _ => NotStored::Failed(error.to_string()),
        }
    }
}

/// Has the hub apply entries of which nothing is kept.
pub(in crate::history) fn apply_in_parts(
    hub: &Hub,
    entries: impl IntoIterator<Item = Placed>,
) -> Vec<Applied> {
    in_parts(hub.at_once(), entries, |part, applied| {
        let outcome = hub.apply(part);
        drop(outcome.wakes);
        applied.extend(outcome.applied);
    })
}

/// Applies entries, so many at once at most: the ring is the readers' queue, and they get their turn between.
fn in_parts<T>(
    most: usize,
    entries: impl IntoIterator<Item = T>,
    mut apply: impl FnMut(&mut dyn Iterator<Item = T>, &mut Vec<Applied>),
) -> Vec<Applied> {
    let mut applied = Vec::new();
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        if !applied.is_empty() {
            thread::yield_now();
        }
        apply(&mut entries.by_ref().take(most), &mut applied);
    }
    applied
}

/// Whether what becomes of an entry depends on all before it being applied, so that it begins a commit.
pub(super) fn begins(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Close(_) | Entry::Delete(_) | Entry::Release { .. } | Entry::Retract { .. }
    )
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
