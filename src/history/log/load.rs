//! Having a hub apply what a segment holds: one thread reads while another applies.

use std::{sync::mpsc, thread, time::Duration, time::Instant};

use smallvec::SmallVec;

use super::{
    disk::{self, DiskFile},
    error::{Damage, OpenError},
    format::{End, Header, Place, Record, Scan},
    index::Index,
    noted::Noted,
};
use crate::{
    history::{
        record::{self, Content, Kind, Mark},
        wall::Wall,
    },
    hub::{Entry, Hub, Identity, Judged, Placed},
};

/// How many entries are applied at once, and how many such batches may wait.
const BATCH: usize = 256;
const BATCHES: usize = 16;

/// What the hub is to do.
enum Step {
    Apply(Vec<Placed>),
    /// Know what repeated the event with a number.
    Remember(Identity, u64, Instant),
}

/// What was read of a segment.
pub(super) struct Loaded {
    /// Its index, if it was wanted; its front in any case.
    pub(super) index: Index,
    pub(super) end: End,
    /// What was noted last.
    pub(super) mark: Option<Mark>,
    /// The bytes that may not have been synced before the last commit, and where they begin, if its index was wanted.
    pub(super) unsynced: Option<(Vec<u8>, u64)>,
}

/// Has the hub apply the entries of a segment, and makes its index if that `is_wanted`.
pub(super) fn load(
    hub: &Hub,
    wall: &Wall,
    header: &Header,
    file: &dyn DiskFile,
    is_wanted: bool,
) -> Result<Loaded, OpenError> {
    let bytes = disk::read_all(file)?;
    thread::scope(|scope| {
        let (steps, taken) = mpsc::sync_channel(BATCHES);
        let reader = Reader {
            hub,
            wall,
            index: is_wanted.then(|| Index::new(header.first)),
            batch: Vec::with_capacity(BATCH),
            steps,
            mark: None,
        };
        let reading = scope.spawn(|| reader.read(&bytes, header));
        for step in taken {
            match step {
                Step::Apply(batch) => drop(hub.apply(batch)),
                Step::Remember(identity, first, at) => hub.remember(&identity, first, true, at),
            }
        }
        let read = reading.join();
        read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Entries on their way from a segment to a hub.
struct Reader<'a> {
    hub: &'a Hub,
    wall: &'a Wall,
    index: Option<Index>,
    batch: Vec<Placed>,
    steps: mpsc::SyncSender<Step>,
    mark: Option<Mark>,
}

impl Reader<'_> {
    fn read(mut self, segment: &[u8], header: &Header) -> Result<Loaded, OpenError> {
        let mut scan = Scan::new(segment, header);
        let mut newest = 0;
        let end = loop {
            let records = match scan.commit() {
                Ok(records) => records,
                Err(end) => break end,
            };
            for record in records {
                newest = record.place.millis;
                if !self.take(&record) {
                    return Err(Damage::of(header.first, record.offset).into());
                }
            }
        };
        self.send_batch();
        let is_last = self.index.is_some();
        let mut index = self.index.unwrap_or_default();
        index.front.next = scan.next();
        index.front.newest = newest;
        index.front.length = scan.offset();
        let (from, to) = (scan.synced(), scan.offset());
        let unsynced = segment.get(from as usize..to as usize).unwrap_or_default();
        Ok(Loaded {
            index,
            end,
            mark: self.mark,
            unsynced: is_last.then(|| (unsynced.to_vec(), from)),
        })
    }

    /// Takes a record; `false` if it is of nothing that is known.
    fn take(&mut self, record: &Record<'_>) -> bool {
        let Some(content) = record::decode(record.kind, record.body) else {
            return false;
        };
        let Place { sequence, millis } = record.place;
        let at = self.wall.past(millis);
        let (mut written_turn, mut turn, mut taken) = (None, None, None);
        let entry = match content {
            Content::Passed => return true,
            Content::Mark(id) => {
                self.mark = Some(Mark { sequence, id });
                return true;
            }
            Content::Repeat(identity, first) => {
                if let Some(index) = &mut self.index {
                    let noted = Noted::new(sequence, record.offset).identified(true);
                    noted.put_into(index);
                }
                self.send_batch();
                self.send(Step::Remember(identity, first, at));
                return true;
            }
            Content::Event {
                draft,
                target,
                turn: until,
            } => {
                written_turn = until;
                // As long as it was to: a clock that was set back is no reason to wait.
                let waits = until.map(|until| Duration::from_millis(until.saturating_sub(millis)));
                turn = waits.and_then(|waits| at.checked_add(waits));
                Entry::Event { draft, target }
            }
            Content::Release {
                draft,
                target,
                published: (published, since),
            } => {
                let place = (published, self.wall.past(since));
                self.hub.to_release(place, draft, target)
            }
            Content::Other(entry, number) => {
                taken = number;
                entry
            }
        };
        if let Some(index) = &mut self.index {
            let noted = Noted::new(sequence, record.offset).of(&entry, taken);
            let noted = noted.found_by(record.kind, topics(&entry, record.kind));
            let is_identified = record::is_identified(record.kind, record.body);
            let noted = noted.with_turn(written_turn).identified(is_identified);
            noted.put_into(index);
        }
        self.batch.push(Placed {
            sequence,
            at,
            judged: Judged::Again(turn),
            entry,
        });
        if self.batch.len() == BATCH {
            self.send_batch();
        }
        true
    }

    fn send_batch(&mut self) {
        if !self.batch.is_empty() {
            let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
            self.send(Step::Apply(batch));
        }
    }

    fn send(&self, step: Step) {
        // Whoever applies takes all there is.
        let _: Result<(), _> = self.steps.send(step);
    }
}

fn topics(entry: &Entry, kind: Kind) -> SmallVec<[u64; 1]> {
    match entry {
        Entry::Event { target, .. } if kind == Kind::Event => {
            target.topics.iter().map(record::hash).collect()
        }
        Entry::Release { topics, .. } => topics.iter().map(record::hash).collect(),
        _ => SmallVec::new(),
    }
}
