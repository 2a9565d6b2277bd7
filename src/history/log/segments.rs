//! The segments of a log: which there are, where in them entries stand, and reading those that the rings have let
//! go of.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use indexmap::IndexSet;
use smallvec::SmallVec;

use super::{
    disk::{self, Disk, DiskFile},
    format::{self, End, HEADER, Header, Place, Scan},
    index::{Filter, Front, Index, Lookup, Posting},
    noted::Noted,
};
use crate::{
    clock,
    history::{
        record::{self, Content},
        wall::Wall,
    },
    hub::{Ask, Entry, Found, FoundEvent, Hub, LostRange, Target},
    sse::EventId,
    topic::Topic,
};

/// The most bytes of events that are read at once, unless the first is larger.
const SLICE: usize = 64 << 10;
/// The most events that are read at once, and the most segments that are looked into.
const EVENTS: usize = 1024;
const SEGMENTS: usize = 8;
/// And the most that may be found to have nothing of what is asked for.
const OVERLAPPING: usize = 1024;
/// How much is read in one go, of which the next event is likely to be a part.
const WINDOW: usize = 16 << 10;

/// A segment. Its files are opened when they are read: there may be many.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    /// What is known of it; of the open one that is in its index.
    pub(super) front: Front,
    /// Which topics its index has, once that was found to be whole.
    filter: OnceLock<Filter>,
}

impl Segment {
    pub(super) fn new(header: Header, front: Front) -> Self {
        Self {
            header,
            front,
            filter: OnceLock::new(),
        }
    }

    fn first(&self) -> u64 {
        self.header.first
    }

    /// Whether it may have any of some topics, as far as that is known.
    fn may_have(&self, topics: &[u64]) -> bool {
        let filter = self.filter.get();
        filter.is_none_or(|filter| filter.may_have(topics))
    }
}

/// The name of a segment whose first entry has this number, and that of its index.
pub(super) fn name(first: u64) -> String {
    format!("{first:020}.seg")
}

pub(super) fn index_name(first: u64) -> String {
    format!("{first:020}.idx")
}

/// What a name says that a segment has.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// Whether a name is that of a file of the log that was not made whole.
pub(super) fn is_unfinished(name: &str) -> bool {
    let whole = name.strip_suffix(".tmp");
    whole.is_some_and(|name| first_of(&name.replace(".idx", ".seg")).is_some())
}

/// Removes all segments, oldest first: whatever is left of them, nothing is missing between.
pub(super) fn remove_all(disk: &dyn Disk) -> io::Result<()> {
    let mut names = disk.list()?;
    names.retain(|name| is_unfinished(name) || first_of(&name.replace(".idx", ".seg")).is_some());
    names.sort_unstable();
    for name in names {
        disk.remove(&name)?;
    }
    disk.sync()
}

/// The segments of a log.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    hub: Arc<Hub>,
    wall: Wall,
    state: RwLock<State>,
}

/// What there is. It is changed in the turn of an entry: whoever sees the entry in the hub finds it here.
#[derive(Debug)]
pub(super) struct State {
    /// Oldest first.
    sealed: VecDeque<Arc<Segment>>,
    /// Invariant: how long those are, in bytes.
    sealed_bytes: u64,
    pub(super) open: Arc<Segment>,
    pub(super) index: Index,
    /// The last deletion of each topic.
    deleted: HashMap<Topic, u64>,
    /// The numbers of the events that were taken back.
    retracted: BTreeSet<u64>,
    /// All of it is thrown away: nothing is to be read of it, or said about it.
    is_gone: bool,
}

impl State {
    pub(super) fn new(sealed: VecDeque<Arc<Segment>>, open: Arc<Segment>) -> Self {
        let fronts = || sealed.iter().map(|segment| &segment.front);
        Self {
            index: Index::new(open.first()),
            open,
            deleted: fronts()
                .flat_map(|front| front.deletes.iter().cloned())
                .collect(),
            retracted: fronts()
                .flat_map(|front| &front.retracts)
                .copied()
                .collect(),
            sealed_bytes: fronts().map(|front| front.length).sum(),
            sealed,
            is_gone: false,
        }
    }

    /// An entry of the open segment is about to be applied.
    pub(super) fn note(&mut self, noted: &Noted) {
        noted.put_into(&mut self.index);
        if let Some(topic) = &noted.deletion {
            self.deleted.insert(topic.clone(), noted.sequence);
        }
        self.retracted.extend(noted.taken);
    }

    /// The number of the first entry that is kept, or of the first before it that is known to be lost.
    pub(super) fn oldest(&self) -> u64 {
        self.kept_without(0)
    }

    /// The same once so many segments are gone.
    fn kept_without(&self, gone: usize) -> u64 {
        let oldest = self.sealed.get(gone).unwrap_or(&self.open);
        let mut first = oldest.first();
        for range in self.open.header.lost.iter().rev() {
            if range.through + 1 == first {
                first = range.from;
            }
        }
        first
    }

    /// How many there are, and how long all of them are, in bytes.
    pub(super) fn size(&self) -> (usize, u64) {
        let open = self.index.front.length.max(HEADER as u64);
        (self.sealed.len() + 1, self.sealed_bytes + open)
    }
}

/// An entry of a segment and by which of the topics that are asked for it is found.
type Spot = (Posting, usize);

/// Where in a segment to look.
#[derive(Debug, Default)]
struct Spots {
    /// In the order of their numbers.
    spots: Vec<Spot>,
    /// There are more behind this number, after that of the segment's first.
    horizon: Option<u32>,
}

/// A segment to look into, and where in it if that is known.
type Look = (Arc<Segment>, Option<Spots>);

impl Segments {
    pub(super) fn new(disk: Arc<dyn Disk>, hub: Arc<Hub>, wall: Wall, state: State) -> Self {
        hub.keeps_from(state.oldest());
        Self {
            disk,
            hub,
            wall,
            state: RwLock::new(state),
        }
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("no holder of this lock panics")
    }

    pub(super) fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("no holder of this lock panics")
    }

    /// Writes the index of the open segment, which is to be sealed behind its last number, and is so long.
    pub(super) fn write_open_index(&self, last: Place, length: u64) -> io::Result<()> {
        let closed = self.hub.closed();
        let index = {
            let mut state = self.change();
            let front = &mut state.index.front;
            front.closed = closed;
            // What is noted behind entries is none.
            (front.next, front.newest, front.length) = (last.sequence + 1, last.millis, length);
            state.index.clone()
        };
        write_index(self.disk(), &index)
    }

    /// Another segment is open from now on; the one before, whose index is written, is sealed.
    pub(super) fn seal(&self, next: Arc<Segment>) {
        let mut state = self.change();
        let index = std::mem::replace(&mut state.index, Index::new(next.first()));
        let before = std::mem::replace(&mut state.open, next);
        state.sealed_bytes += index.front.length;
        let sealed = Segment::new(before.header.clone(), index.front);
        state.sealed.push_back(Arc::new(sealed));
    }

    /// Removes the oldest segments until all but the open one are no more than so many bytes, and those whose entries are all
    /// from before a moment.
    pub(super) fn let_go(&self, bytes: u64, before: u64) -> io::Result<()> {
        loop {
            let state = self.state();
            let is_too_much = state.sealed_bytes > bytes;
            let Some(oldest) = state.sealed.front().cloned() else {
                return Ok(());
            };
            if !is_too_much && oldest.front.newest >= before {
                return Ok(());
            }
            let next = state.sealed.get(1).unwrap_or(&state.open).first();
            let kept_from = state.kept_without(1);
            drop(state);
            // Nobody asks for it any more once it begins to go, and it goes before the next: there is no hole.
            self.hub.keeps_from(kept_from);
            for file in [name(oldest.first()), index_name(oldest.first())] {
                match self.disk.remove(&file) {
                    // It went before, and what followed failed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed?,
                }
            }
            self.disk.sync()?;
            let mut state = self.change();
            state.sealed.pop_front();
            state.sealed_bytes -= oldest.front.length;
            state.retracted = state.retracted.split_off(&next);
            state.deleted.retain(|_, sequence| *sequence > next);
        }
    }

    /// Some of what is asked for; `None` when the first of it is kept no more, or cannot be read.
    pub(super) fn read(&self, ask: &Ask) -> Option<Found> {
        let hashes: Vec<u64> = ask.topics.iter().map(record::hash).collect();
        let mut found = Reading {
            segments: self,
            ask,
            events: Vec::new(),
            bytes: 0,
        };
        let (mut through, mut looked) = (ask.after, 0);
        for (segment, spots) in self.overlapping(ask, &hashes)? {
            // All that the hub has applied of the open one is in its index.
            let end = if spots.is_some() {
                ask.through
            } else {
                segment.front.next - 1
            };
            if spots.is_none() && !segment.may_have(&hashes) {
                through = end.min(ask.through);
                continue;
            }
            looked += 1;
            if looked > SEGMENTS {
                break;
            }
            let spots = spots.or_else(|| self.spots(&segment, &hashes, ask.after));
            let Some(spots) = spots else {
                break;
            };
            let horizon = spots.horizon.map(|last| segment.first() + u64::from(last));
            match found.take(&segment, spots.spots) {
                Ok(true) => through = horizon.unwrap_or(end).min(ask.through),
                Ok(false) => through = found.looked_through(through),
                Err(bad) => {
                    through = bad - 1;
                    break;
                }
            }
            if through < end.min(ask.through) {
                break;
            }
        }
        // What was found to be damaged meanwhile is told before what is behind it.
        let damaged_from = self
            .hub
            .damage_after(ask.after)
            .map_or(u64::MAX, |damage| damage.from);
        let mut events = found.events;
        if damaged_from <= through {
            through = (damaged_from - 1).max(ask.after);
            events.retain(|found| found.event.sequence <= through);
        }
        let nothing = through == ask.after && damaged_from > ask.after + 1;
        (!nothing).then(|| Found::new(&self.hub, events, through))
    }

    /// The number of the event of some topics that has this id, the edge's, if it is there to be taken back.
    pub(super) fn find(&self, topics: &[Topic], id: &str) -> Option<u64> {
        let id = EventId::parse(id).filter(|id| *id == self.hub.id(id.sequence))?;
        let ask = Ask {
            topics: topics.into(),
            after: id.sequence.checked_sub(1)?,
            through: id.sequence,
            max_bytes: SLICE,
        };
        let found = self.read(&ask)?;
        let event = &found.events().first()?.event;
        (!event.is_retracted()).then_some(id.sequence)
    }

    /// The segments that may hold what is asked for, oldest first; of the open one, where.
    fn overlapping(&self, ask: &Ask, hashes: &[u64]) -> Option<Vec<Look>> {
        let state = self.state();
        if state.is_gone || state.oldest() > ask.after + 1 {
            return None;
        }
        let from = state
            .sealed
            .partition_point(|segment| segment.front.next <= ask.after + 1);
        let sealed = state.sealed.range(from..).take(OVERLAPPING);
        let sealed = sealed.take_while(|segment| segment.first() <= ask.through);
        let mut all: Vec<_> = sealed.map(|segment| (segment.clone(), None)).collect();
        if all.len() < OVERLAPPING {
            let spots = in_memory(&state.index, hashes, ask.after);
            all.push((state.open.clone(), Some(spots)));
        }
        Some(all)
    }

    /// Where in a sealed segment to look. Its index is read whole once, to know that it can be trusted.
    fn spots(&self, segment: &Segment, hashes: &[u64], after: u64) -> Option<Spots> {
        if segment.filter.get().is_none() {
            let Some(index) = whole_index(self.disk(), segment) else {
                let file = index_name(segment.first());
                tracing::warn!(
                    file,
                    "an index of history is missing or damaged; it is made anew"
                );
                let index = self.index_anew(segment)?;
                return Some(in_memory(&index, hashes, after));
            };
            let filter = segment.filter.get_or_init(|| Filter::of(&index));
            if !filter.may_have(hashes) {
                return Some(Spots::default());
            }
        }
        let looked = look_up(self.disk(), segment, hashes, after);
        looked
            .map_err(|error| self.cannot_read(segment, &error))
            .ok()
    }

    /// Makes the index of a segment by reading all of it.
    fn index_anew(&self, segment: &Segment) -> Option<Index> {
        let file = self.disk.open(&name(segment.first()));
        let bytes = file.and_then(|file| disk::read_all(&*file));
        let bytes = bytes
            .map_err(|error| self.cannot_read(segment, &error))
            .ok()?;
        let (mut index, _) = index_of(&bytes, &segment.header, Vec::new());
        let Front { next, length, .. } = index.front;
        if next < segment.front.next {
            self.is_damaged(segment, length, next..segment.front.next);
        }
        index.front = segment.front.clone();
        let state = self.state();
        if state.is_gone {
            return None;
        }
        if let Err(error) = write_index(self.disk(), &index) {
            tracing::warn!("an index of history is not written: {error}");
        }
        drop(state);
        Some(index)
    }

    /// All of it is thrown away.
    pub(super) fn forget(&self) {
        self.change().is_gone = true;
        self.hub.keeps_from(u64::MAX);
    }

    fn cannot_read(&self, segment: &Segment, error: &io::Error) {
        if self.state().is_gone {
            return;
        }
        let file = name(segment.first());
        tracing::error!(file, "history cannot be read: {error}");
    }

    /// Something is not there any more that should be.
    fn is_damaged(&self, segment: &Segment, offset: u64, numbers: std::ops::Range<u64>) {
        let state = self.state();
        if state.is_gone {
            return;
        }
        let file = name(segment.first());
        tracing::error!(
            file,
            offset,
            "history is damaged; what is lost is told to its readers, and `seventh history check` says more"
        );
        self.hub.lose(LostRange {
            from: numbers.start,
            through: numbers.end - 1,
            is_damage: true,
        });
    }
}

/// The entries of some topics together, each with at most so many that are read at once.
fn together(of_topics: impl Iterator<Item = Vec<Posting>>) -> Spots {
    let mut all = Spots::default();
    for (topic, postings) in of_topics.enumerate() {
        if postings.len() == EVENTS
            && let Some((last, _)) = postings.last()
        {
            all.horizon = Some(all.horizon.map_or(*last, |horizon| horizon.min(*last)));
        }
        all.spots
            .extend(postings.into_iter().map(|posting| (posting, topic)));
    }
    if let Some(horizon) = all.horizon {
        all.spots.retain(|((number, _), _)| *number <= horizon);
    }
    all.spots.sort_unstable();
    all
}

fn in_memory(index: &Index, hashes: &[u64], after: u64) -> Spots {
    let of = |hash: &u64| index.after(*hash, after, EVENTS).to_vec();
    together(hashes.iter().map(of))
}

fn look_up(disk: &dyn Disk, segment: &Segment, hashes: &[u64], after: u64) -> io::Result<Spots> {
    let file = disk.open(&index_name(segment.first()))?;
    let read = |buffer: &mut [u8], offset: u64| {
        let filled = disk::read_up_to(&*file, buffer, offset)?;
        if filled < buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    };
    let lookup = Lookup::new(segment.first(), &read)?;
    let found = hashes.iter().map(|hash| lookup.after(*hash, after, EVENTS));
    let found: Vec<Vec<Posting>> = found.collect::<io::Result<_>>()?;
    Ok(together(found.into_iter()))
}

/// The index of a segment as it is in its file, if it is whole and fits.
fn whole_index(disk: &dyn Disk, segment: &Segment) -> Option<Index> {
    let file = disk.open(&index_name(segment.first()));
    let bytes = file.and_then(|file| disk::read_all(&*file));
    let index = bytes.ok().and_then(|bytes| Index::decode(&bytes));
    index.filter(|index| index.front == segment.front)
}

/// The index of a segment, made of nothing but that and of which topics were closed before it, and how the segment ends.
pub(super) fn index_of(segment: &[u8], header: &Header, closed: Vec<Topic>) -> (Index, End) {
    let mut index = Index::new(header.first);
    let mut closed: IndexSet<Topic> = closed.into_iter().collect();
    let mut scan = Scan::new(segment, header);
    let end = loop {
        let records = match scan.commit() {
            Ok(records) => records,
            Err(end) => break end,
        };
        for record in records {
            let Place { sequence, millis } = record.place;
            index.front.newest = millis;
            let is_identified = record::is_identified(record.kind, record.body);
            let noted = Noted::new(sequence, record.offset).identified(is_identified);
            let noted = match record::decode(record.kind, record.body) {
                Some(Content::Event { target, turn, .. }) => {
                    target
                        .topics
                        .iter()
                        .for_each(|topic| open(&mut closed, topic));
                    let topics = target.topics.iter().map(record::hash).collect();
                    noted.found_by(record.kind, topics).with_turn(turn)
                }
                Some(Content::Release { target, .. }) => {
                    target
                        .topics
                        .iter()
                        .for_each(|topic| open(&mut closed, topic));
                    let topics = target.topics.iter().map(record::hash).collect();
                    noted.found_by(record.kind, topics)
                }
                Some(Content::Other(entry, taken)) => {
                    if let Entry::Close(topic) = &entry {
                        closed.insert(topic.clone());
                    }
                    noted.of(&entry, taken)
                }
                Some(Content::Passed | Content::Repeat(..) | Content::Mark(_)) | None => noted,
            };
            noted.put_into(&mut index);
        }
    };
    index.front.next = scan.next();
    index.front.length = scan.offset();
    index.front.closed = closed.into_iter().collect();
    (index, end)
}

/// Something is published to a topic, which is closed no more.
fn open(closed: &mut IndexSet<Topic>, topic: &Topic) {
    if !closed.is_empty() {
        closed.shift_remove(topic);
    }
}

/// Writes an index. That it is there can be made good, so nothing is synced.
pub(super) fn write_index(disk: &dyn Disk, index: &Index) -> io::Result<()> {
    let name = index_name(index.front.first);
    let new = format!("{name}.tmp");
    disk.create(&new)?.write_at(&index.encode(), 0)?;
    disk.rename(&new, &name)
}

/// What an index says of a segment without its entries, if it fits it.
pub(super) fn read_front(disk: &dyn Disk, header: &Header) -> Option<Front> {
    let file = disk.open(&index_name(header.first)).ok()?;
    let mut bytes = vec![0; 4096];
    let filled = disk::read_up_to(&*file, &mut bytes, 0).ok()?;
    bytes.truncate(filled);
    let needs = Front::needs(&bytes)?;
    if needs > filled {
        bytes.resize(needs.min(usize::try_from(file.len().ok()?).ok()?), 0);
        disk::read_up_to(&*file, &mut bytes, 0).ok()?;
    }
    Front::of(&bytes).filter(|front| front.first == header.first)
}

/// What was read so far.
struct Reading<'a> {
    segments: &'a Segments,
    ask: &'a Ask,
    events: Vec<FoundEvent>,
    bytes: usize,
}

impl Reading<'_> {
    /// Takes the entries at these places of a segment. Whether those were all; else there was no room for more. An
    /// error is the number of one that is damaged, or cannot be read.
    fn take(&mut self, segment: &Segment, spots: Vec<Spot>) -> Result<bool, u64> {
        let mut window = None;
        let mut spots = spots.into_iter().peekable();
        while let Some(((number, offset), topic)) = spots.next() {
            let sequence = segment.first() + u64::from(number);
            if sequence > self.ask.through {
                return Ok(true);
            }
            let most = self.ask.max_bytes.clamp(1, SLICE);
            if self.events.len() >= EVENTS || self.bytes >= most {
                return Ok(false);
            }
            let mut topics: SmallVec<[usize; 1]> = SmallVec::from_elem(topic, 1);
            while let Some((_, topic)) = spots.next_if(|((next, _), _)| *next == number) {
                topics.push(topic);
            }
            let content = self.content(segment, &mut window, offset.into(), sequence)?;
            let found = self.found(sequence, topics, content);
            self.bytes += found.as_ref().map_or(0, |found| found.event.wire.len());
            self.events.extend(found);
        }
        Ok(true)
    }

    /// Up to where was looked when there was no room for more.
    fn looked_through(&self, before: u64) -> u64 {
        let last = self.events.last();
        last.map_or(before, |found| found.event.sequence)
    }

    fn content(
        &self,
        segment: &Segment,
        window: &mut Option<Window>,
        offset: u64,
        sequence: u64,
    ) -> Result<(u64, Content), u64> {
        let segments = self.segments;
        let opened = match window.take() {
            Some(opened) => Ok(opened),
            None => segments.disk.open(&name(segment.first())).map(Window::new),
        };
        let salt = segment.header.salt;
        let content = opened.and_then(|opened| {
            let window = window.insert(opened);
            window.content(offset, sequence, salt)
        });
        match content {
            Ok(Some(content)) => Ok(content),
            Ok(None) => {
                segments.is_damaged(segment, offset, sequence..sequence + 1);
                Err(sequence)
            }
            Err(error) => {
                segments.cannot_read(segment, &error);
                Err(sequence)
            }
        }
    }

    /// An event as readers are given it, by those topics that it is of.
    fn found(
        &self,
        sequence: u64,
        topics: SmallVec<[usize; 1]>,
        (millis, content): (u64, Content),
    ) -> Option<FoundEvent> {
        let Segments { hub, wall, .. } = self.segments;
        let (draft, target, published) = match content {
            Content::Event { draft, target, .. } => (draft, target, None),
            Content::Release {
                draft,
                target,
                published: (published, since),
            } => {
                // It ends when it would have.
                let waited = Duration::from_millis(millis.saturating_sub(since));
                let ttl = target.ttl.map(|ttl| ttl.saturating_sub(waited));
                (draft, Target { ttl, ..target }, Some(published))
            }
            Content::Other(..) | Content::Passed | Content::Repeat(..) | Content::Mark(_) => {
                return None;
            }
        };
        // What another topic's hash brought is for its readers.
        let of = |place: &usize| target.topics.contains(&self.ask.topics[*place]);
        let topics: SmallVec<[usize; 1]> = topics.into_iter().filter(of).collect();
        if topics.is_empty() {
            return None;
        }
        let (is_retracted, kept): (bool, SmallVec<[usize; 1]>) = {
            let state = self.segments.state();
            let is_kept = |place: &usize| {
                let deleted = state.deleted.get(&self.ask.topics[*place]);
                deleted.is_none_or(|deleted| *deleted < sequence)
            };
            let kept = topics.iter().copied().filter(is_kept).collect();
            (state.retracted.contains(&sequence), kept)
        };
        let is_deleted = kept.is_empty();
        // An event of this life ends when it does in the rings; one that a clock which was set back has yet to come is
        // as new as can be.
        let at = wall.moment(millis).min(clock::now());
        let event = hub.kept((sequence, at), draft, target, published);
        Some(FoundEvent {
            event: if is_deleted || is_retracted {
                Arc::new(event.retracted())
            } else {
                event
            },
            topics: if is_deleted { topics } else { kept },
            is_deleted,
        })
    }
}

/// A part of a segment.
struct Window {
    file: Arc<dyn DiskFile>,
    offset: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            offset: 0,
            bytes: Vec::new(),
        }
    }

    /// When the entry with this number was placed, which stands at an offset, and what it is; `None` if it is not
    /// there.
    fn content(
        &mut self,
        offset: u64,
        sequence: u64,
        salt: u32,
    ) -> io::Result<Option<(u64, Content)>> {
        let head = self.bytes(offset, format::RECORD)?;
        let Some(len) = format::record_len(head) else {
            return Ok(None);
        };
        let record = format::record(self.bytes(offset, len)?, offset, salt);
        let record = record.filter(|record| record.place.sequence == sequence);
        Ok(record.and_then(|record| {
            Some((
                record.place.millis,
                record::decode(record.kind, record.body)?,
            ))
        }))
    }

    /// So many bytes at an offset, or fewer where the segment ends.
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let has = |window: &Self| {
            let from = offset.checked_sub(window.offset)?;
            let from = usize::try_from(from).ok()?;
            (from + len <= window.bytes.len()).then_some(from)
        };
        let from = match has(self) {
            Some(from) => from,
            None => {
                // A damaged length is not to cost more than the segment is long.
                let end = self.file.len()?.saturating_sub(offset);
                let len = len
                    .max(WINDOW)
                    .min(usize::try_from(end).unwrap_or(usize::MAX));
                self.bytes.resize(len, 0);
                let filled = disk::read_up_to(&*self.file, &mut self.bytes, offset)?;
                self.bytes.truncate(filled);
                self.offset = offset;
                0
            }
        };
        let end = (from + len).min(self.bytes.len());
        Ok(&self.bytes[from..end])
    }
}
