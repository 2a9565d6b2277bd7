//! Opening a log: what a crash left of its end is put in order, and the rings are filled.

use std::{collections::VecDeque, sync::Arc};

use super::{
    appender::{Tail, create},
    disk::{self, Disk, DiskFile},
    error::{Damage, OpenError},
    format::{End, HEADER, Header, Place, RANGES, Record, Scan, Unreadable},
    index::{Front, Index},
    load::{Loaded, load},
    segments::{self, Segment, State, name},
};
use crate::{
    clock,
    history::{
        record::{self, Content, Kind, Mark},
        wall::Wall,
    },
    hub::{Hub, LostRange, Retention},
    sse::Epoch,
    topic::Topic,
};

/// How late an event goes out at most whose turn has come, in milliseconds.
const LATE: u64 = 60_000;

/// Makes the hub of a history, whose entries up to a number are gone, and for good those that are lost.
pub(in crate::history) type MakeHub<'a> = &'a dyn Fn(Epoch, u64, &[LostRange]) -> Arc<Hub>;

/// The file that says that a directory is what an edge of a cluster keeps, whatever the others in it say.
pub(super) const CLUSTER: &str = "CLUSTER";

/// Whether a directory with these files is what an edge of a cluster keeps.
pub(super) fn is_of_cluster(names: &[String]) -> bool {
    names.iter().any(|name| name == CLUSTER)
}

/// Has a directory be one of an edge of a cluster: an empty one, or one that is.
pub(super) fn claim(disk: &dyn Disk) -> Result<(), OpenError> {
    let names = disk.list()?;
    if !is_of_cluster(&names) {
        let is_segment = |name: &String| segments::first_of(name).is_some();
        if let Some(name) = names.into_iter().find(is_segment) {
            return Err(OpenError::Alone(name));
        }
        let what = b"An edge of a cluster keeps here what it has read. It may be thrown away.\n";
        disk.create(CLUSTER)?.write_at(what, 0)?;
    }
    // One that is there may not have lasted yet.
    Ok(disk.sync()?)
}

/// How a log is opened.
#[derive(Clone, Copy)]
pub(super) struct Opening<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) wall: Wall,
    /// Of so many bytes entries are read, as the rings hold no more; and of those that are known if they come again.
    pub(super) retention: Retention,
    /// Nothing is shown that was not synced.
    pub(super) always: bool,
    /// It is of an edge of a cluster.
    pub(super) is_shared: bool,
    pub(super) make: MakeHub<'a>,
}

/// A log that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) hub: Arc<Hub>,
    pub(super) state: State,
    pub(super) tail: Tail,
    /// What was noted last.
    pub(super) mark: Option<Mark>,
}

/// What there is of a segment before it is read.
struct Found {
    header: Header,
    file: Arc<dyn DiskFile>,
    length: u64,
    /// Of one that was sealed.
    front: Option<Front>,
}

/// What was left behind the last entry that is whole.
struct Last {
    found: Found,
    index: Index,
    is_closed: bool,
}

/// Opens a log: the entries of its last segments are applied to the hub. None if the directory is empty.
pub(super) fn open(opening: Opening<'_>) -> Result<Option<Opened>, OpenError> {
    let Opening {
        disk,
        wall,
        make,
        is_shared,
        ..
    } = opening;
    let mut found = find(disk, is_shared)?;
    let Some(mut last) = found.pop_back() else {
        return Ok(None);
    };
    last.front = None;
    if is_shared {
        cut_to_mark(&mut last)?;
    }
    let mut closed = Vec::new();
    for found in &mut found {
        closed = complete(disk, found, closed)?;
    }
    let headers = found.iter().chain([&last]).map(|found| &found.header);
    let lost = all_lost(headers);
    is_whole(&found, &last.header, &lost)?;
    let loaded = split_loaded(&mut found, &last, &lost, &opening.retention);

    let first = loaded.front().unwrap_or(&last).header.first;
    let epoch = Epoch::from_random(last.header.epoch);
    let hub = make(epoch, first - 1, &lost);
    let mut sealed = VecDeque::new();
    // The last of them knows all that were closed before it; without one, what is read opens and closes again.
    if let Some(Found {
        front: Some(front), ..
    }) = found.back().or(loaded.front())
    {
        hub.were_closed(&front.closed);
    }
    let now = if is_shared {
        last.header.made
    } else {
        wall.began().1
    };
    for found in found {
        recall(&hub, &opening, &found, now)?;
        sealed.push_back(Arc::new(found.sealed()));
    }
    if let Some(sealed) = loaded.back().filter(|_| is_shared) {
        // Whoever was killed may have been about to.
        sealed.file.sync()?;
    }
    let mut mark = None;
    for found in loaded {
        let loaded = load(&hub, &wall, &found.header, &*found.file, false)?;
        if let End::Torn(at) | End::Damaged(at) = loaded.end {
            return Err(Damage::of(found.header.first, at).into());
        }
        mark = loaded.mark.or(mark);
        sealed.push_back(Arc::new(found.sealed()));
    }
    let (last, last_mark) = load_last(&hub, &wall, last)?;
    let mut opened = resume(opening, &hub, last, sealed, lost)?;
    opened.mark = last_mark.or(mark);
    Ok(Some(opened))
}

/// Applies what the last segment holds, and cuts off what of its end was not written whole.
fn load_last(hub: &Arc<Hub>, wall: &Wall, last: Found) -> Result<(Last, Option<Mark>), OpenError> {
    let Loaded {
        index,
        end,
        mark,
        unsynced,
    } = load(hub, wall, &last.header, &*last.file, true)?;
    let is_closed = match end {
        End::Whole { closed } => closed,
        End::Torn(at) => {
            let bytes = last.length - at;
            let file = name(last.header.first);
            tracing::warn!(
                file,
                "the last {bytes} bytes of history were not written whole; they are cut off"
            );
            last.file.set_len(at)?;
            false
        }
        End::Damaged(at) => return Err(Damage::of(last.header.first, at).into()),
    };
    // What was found is shown from now on: it has to last. If a sync failed before, the system may take what it has
    // in memory for what is on disk, unless it is written again.
    if let Some((unsynced, from)) = unsynced.filter(|_| !is_closed) {
        last.file.write_at(&unsynced, from)?;
    }
    last.file.sync()?;
    let last = Last {
        found: last,
        index,
        is_closed,
    };
    Ok((last, mark))
}

/// Cuts off what came with a message of which not all is there: that comes again.
fn cut_to_mark(last: &mut Found) -> Result<(), OpenError> {
    let bytes = disk::read_all(&*last.file)?;
    let mut scan = Scan::new(&bytes, &last.header);
    let mut end = scan.offset();
    loop {
        match scan.commit() {
            Ok(records) => {
                let is_marked = records.last().is_some_and(|last| last.kind == Kind::Mark);
                end = if is_marked { scan.offset() } else { end };
            }
            Err(End::Damaged(at)) => return Err(Damage::of(last.header.first, at).into()),
            Err(End::Whole { .. } | End::Torn(_)) => break,
        }
    }
    if end < last.length {
        last.file.set_len(end)?;
        last.length = end;
    }
    Ok(())
}

/// Goes on behind the last segment, in a new one.
fn resume(
    Opening {
        disk,
        wall,
        always,
        is_shared,
        ..
    }: Opening<'_>,
    hub: &Arc<Hub>,
    last: Last,
    mut sealed: VecDeque<Arc<Segment>>,
    mut lost: Vec<LostRange>,
) -> Result<Opened, OpenError> {
    let Last {
        found,
        mut index,
        is_closed,
    } = last;
    let mut next = index.front.next;
    if let Some(range) = may_be_lost(&found.header, next, is_closed) {
        hub.lose(range);
        next = range.through + 1;
        lost.push(range);
    }
    let is_empty = index.front.next == found.header.first;
    let newest = index.front.newest.max(found.header.made);
    // What comes next to an edge of a cluster may have been placed while it was not there.
    let millis = if is_shared {
        newest
    } else {
        newest.max(wall.began().1)
    };
    hub.resumes(wall.past(newest));
    hub.pass(next - 1, wall.past(millis));
    let oldest = sealed.front();
    let oldest = oldest.map_or(found.header.first, |segment| segment.header.first);
    forget_before(&mut lost, oldest);
    fit(&mut lost);
    let header = Header {
        first: next,
        made: millis,
        salt: fastrand::u32(..),
        always,
        lost,
        ..found.header.clone()
    };
    if !is_empty {
        index.front.closed = hub.closed();
        segments::write_index(disk, &index)?;
    }
    let open = create(disk, header)?;
    if !is_empty {
        let front = index.front;
        sealed.push_back(Arc::new(Segment::new(found.header, front)));
    } else if found.header.first != next {
        disk.remove(&name(found.header.first))?;
    }
    hub.sweep(clock::now());
    Ok(opened(hub.clone(), sealed, open, wall))
}

/// What may have been shown and has not lasted, behind the entries that have: no number is given twice.
pub(super) fn may_be_lost(header: &Header, next: u64, is_closed: bool) -> Option<LostRange> {
    (!header.always && !is_closed).then(|| LostRange {
        from: next,
        through: header.end(),
        is_damage: false,
    })
}

/// Begins the log of an edge on its own in an empty directory.
pub(super) fn begin(
    Opening {
        disk,
        wall,
        always,
        make,
        ..
    }: Opening<'_>,
) -> Result<Opened, OpenError> {
    let epoch = Epoch::from_random(fastrand::u64(..));
    let header = Header {
        epoch: epoch.number(),
        first: 1,
        made: wall.began().1,
        salt: fastrand::u32(..),
        always,
        is_shared: false,
        lost: Vec::new(),
    };
    let open = create(disk, header)?;
    Ok(opened(make(epoch, 0, &[]), VecDeque::new(), open, wall))
}

pub(super) fn opened(
    hub: Arc<Hub>,
    sealed: VecDeque<Arc<Segment>>,
    (open, file): (Segment, Arc<dyn DiskFile>),
    wall: Wall,
) -> Opened {
    let open = Arc::new(open);
    let last = Place {
        sequence: open.header.first - 1,
        millis: open.header.made,
    };
    let tail = Tail {
        open: open.clone(),
        file,
        offset: HEADER as u64,
        synced: HEADER as u64,
        synced_at: clock::now(),
        last,
        last_at: wall.past(last.millis),
        failed: None,
        is_refusing: false,
        buffer: Vec::new(),
    };
    Opened {
        hub,
        state: State::new(sealed, open),
        tail,
        mark: None,
    }
}

/// The segments of a directory, oldest first. What was not made whole is removed.
fn find(disk: &dyn Disk, is_shared: bool) -> Result<VecDeque<Found>, OpenError> {
    let names = disk.list()?;
    if !is_shared && is_of_cluster(&names) {
        return Err(OpenError::Shared);
    }
    for name in names.iter().filter(|name| segments::is_unfinished(name)) {
        disk.remove(name)?;
    }
    let mut firsts: Vec<u64> = names
        .iter()
        .filter_map(|name| segments::first_of(name))
        .collect();
    firsts.sort_unstable();
    let mut all: VecDeque<Found> = VecDeque::new();
    let last = firsts.last().copied();
    for first in firsts {
        let file = disk.open(&name(first))?;
        let header = match header(&*file, first) {
            Err(OpenError::Damaged(_)) if is_shared && Some(first) == last => {
                // A crash came before it was there. What was in it comes again.
                disk.remove(&name(first))?;
                break;
            }
            header => header?,
        };
        match (header.is_shared, is_shared) {
            (true, false) => return Err(OpenError::Shared),
            (false, true) => return Err(OpenError::Alone(name(first))),
            _ => {}
        }
        if all
            .back()
            .is_some_and(|before| before.header.epoch != header.epoch)
        {
            return Err(OpenError::Foreign(name(first)));
        }
        let length = file.len()?;
        let front = segments::read_front(disk, &header);
        all.push_back(Found {
            front: front.filter(|front| front.length == length),
            header,
            file,
            length,
        });
    }
    Ok(all)
}

/// The header of the segment whose name says that its first entry has this number.
pub(super) fn header(file: &dyn DiskFile, first: u64) -> Result<Header, OpenError> {
    let mut bytes = vec![0; HEADER];
    let filled = disk::read_up_to(file, &mut bytes, 0)?;
    match Header::decode(&bytes[..filled]) {
        Ok(header) if header.first == first => Ok(header),
        Ok(_) | Err(Unreadable::Damaged) => Err(Damage::of(first, 0).into()),
        Err(Unreadable::Format(format)) => Err(OpenError::Format(name(first), format)),
    }
}

/// Makes the index of a sealed segment if it is not there. Which topics are closed behind it, of those before.
fn complete(
    disk: &dyn Disk,
    found: &mut Found,
    closed: Vec<Topic>,
) -> Result<Vec<Topic>, OpenError> {
    if let Some(front) = &found.front {
        return Ok(front.closed.clone());
    }
    let bytes = disk::read_all(&*found.file)?;
    let (index, end) = segments::index_of(&bytes, &found.header, closed);
    if let End::Torn(at) | End::Damaged(at) = end {
        return Err(Damage::of(found.header.first, at).into());
    }
    segments::write_index(disk, &index)?;
    let front = found.front.insert(index.front);
    Ok(front.closed.clone())
}

/// What is known to be lost by any of some segments, oldest first: each has room for the last of it.
pub(super) fn all_lost<'a>(headers: impl Iterator<Item = &'a Header>) -> Vec<LostRange> {
    let mut lost: Vec<LostRange> = headers.flat_map(|header| &header.lost).copied().collect();
    lost.sort_unstable_by_key(|range| (range.from, range.through, range.is_damage));
    lost.dedup();
    lost
}

/// Forgets what is lost of the numbers before the first that is kept, but for what leads up to it without a hole.
fn forget_before(lost: &mut Vec<LostRange>, mut oldest: u64) {
    let forgotten = lost.iter().rposition(|range| {
        let is_before = range.through + 1 < oldest;
        oldest = oldest.min(range.from);
        is_before
    });
    lost.drain(..forgotten.map_or(0, |at| at + 1));
}

/// Has ranges fit into a header: those that touch become one, as far as they have to, and else the oldest are left out.
pub(super) fn fit(lost: &mut Vec<LostRange>) {
    while lost.len() > RANGES {
        let mut pairs = lost.iter().zip(&lost[1..]);
        let touching = pairs.position(|(one, next)| {
            one.is_damage == next.is_damage && one.through + 1 == next.from
        });
        let gone = lost.remove(touching.unwrap_or(0));
        if let Some(at) = touching {
            lost[at].from = gone.from;
        }
    }
}

/// Whether no entries are missing between the segments but those that are known to be lost.
fn is_whole(sealed: &VecDeque<Found>, last: &Header, lost: &[LostRange]) -> Result<(), OpenError> {
    let headers = sealed
        .iter()
        .map(|found| &found.header)
        .skip(1)
        .chain([last]);
    for (found, following) in sealed.iter().zip(headers) {
        let next = found.front.as_ref().map_or(0, |front| front.next);
        if found.header.is_shared && next > following.first {
            // They are of two orders, one of which was thrown away.
            return Err(OpenError::Foreign(name(following.first)));
        }
        if let Some((from, through)) = hole(next, following.first, lost) {
            let file = name(found.header.first);
            return Err(OpenError::Missing(file, from, through));
        }
    }
    Ok(())
}

/// The numbers that are missing between an entry that is next and the first of the following segment, if they are
/// not known to be lost.
pub(super) fn hole(next: u64, following: u64, lost: &[LostRange]) -> Option<(u64, u64)> {
    let mut from = next;
    while from < following {
        let range = lost
            .iter()
            .find(|range| range.from <= from && from <= range.through);
        match range {
            Some(range) => from = range.through + 1,
            None => return Some((from, following - 1)),
        }
    }
    None
}

/// Takes those off the end of the sealed segments that are read with the last one, so that they are of so many bytes
/// and all that may still wait for its turn is in them. Rings are whole from where they begin: not across damage.
fn split_loaded(
    found: &mut VecDeque<Found>,
    last: &Found,
    lost: &[LostRange],
    retention: &Retention,
) -> VecDeque<Found> {
    let damaged = lost.iter().filter(|range| range.is_damage);
    let whole_from = damaged
        .map(|range| range.through + 1)
        .max()
        .unwrap_or_default();
    let mut loaded = VecDeque::new();
    let mut bytes = last.length;
    let made = last.header.made;
    let may_wait = |found: &Found| {
        let front = found.front.as_ref();
        front.is_none_or(|front| front.last_turn.saturating_add(LATE) >= made)
    };
    let oldest_waiting = found.iter().position(may_wait);
    // Of an edge of a cluster the last that is sealed need not have lasted.
    let is_shared = last.header.is_shared;
    while (bytes < retention.total_bytes as u64
        || is_shared && loaded.is_empty()
        || oldest_waiting.is_some_and(|at| at < found.len()))
        && let Some(before) = found.pop_back_if(|before| before.header.first >= whole_from)
    {
        bytes += before.length;
        loaded.push_front(before);
    }
    loaded
}

impl Found {
    /// A sealed one, whose index is there.
    fn sealed(self) -> Segment {
        Segment::new(self.header, self.front.unwrap_or_default())
    }
}

/// What has to be known of a segment that is not loaded: when it was, and what is known if it comes again by a moment.
fn recall(hub: &Hub, opening: &Opening<'_>, found: &Found, now: u64) -> Result<(), OpenError> {
    let wall = &opening.wall;
    let Some(front) = &found.front else {
        return Ok(());
    };
    hub.remember_moment(found.header.first, wall.past(found.header.made));
    let known = opening.retention.duplicates_age.as_millis();
    let age = now.saturating_sub(front.newest);
    if u128::from(age) > known || front.identified == 0 {
        return Ok(());
    }
    let bytes = disk::read_all(&*found.file)?;
    let mut scan = Scan::new(&bytes, &found.header);
    while let Ok(records) = scan.commit() {
        for Record {
            kind, place, body, ..
        } in records
            .into_iter()
            .filter(|record| record::is_identified(record.kind, record.body))
        {
            let at = wall.past(place.millis);
            match record::decode(kind, body) {
                Some(Content::Event { target, .. }) => {
                    hub.remember(&target.identity, place.sequence, false, at);
                }
                Some(Content::Repeat(identity, first)) => hub.remember(&identity, first, true, at),
                _ => {}
            }
        }
    }
    Ok(())
}
