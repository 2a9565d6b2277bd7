//! Looking at a log while nobody writes it, and mending one that is damaged.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{
    appender::create,
    disk::{self, Disk, Folder},
    error::{Damage, LogError, OpenError},
    format::{End, Header, Record, SPAN, Scan},
    segments::{self, name},
    start,
};
use crate::{
    clock,
    history::record::{self, Content},
    hub::LostRange,
    sse::Epoch,
};

/// What a log is found to hold.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Its segments, oldest first.
    pub segments: Vec<CheckedSegment>,
    /// By their names: how many events each topic has, and what they cost in bytes.
    pub topics: BTreeMap<String, (u64, u64)>,
    /// What the ids of its events begin with; none of a log without a segment.
    pub epoch: Option<Epoch>,
    /// What is known to be lost.
    pub lost: Vec<LostRange>,
    /// What is missing between the segments, which is not known to be.
    pub missing: Vec<LostRange>,
    /// It is what an edge of a cluster keeps.
    pub is_shared: bool,
}

/// What a segment is found to hold.
#[derive(Debug)]
pub(crate) struct CheckedSegment {
    /// The name of its file.
    pub file: String,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// The numbers of its entries: the first, and the one after the last.
    pub numbers: (u64, u64),
    /// When its first and its last entry were placed.
    pub ages: Option<(SystemTime, SystemTime)>,
    /// What is not there that should be.
    pub damage: Option<Damage>,
    /// How many bytes at its end a crash left half written; they are cut off when the log is opened.
    pub torn: u64,
}

/// What was cut out of a log.
#[derive(Debug)]
pub(crate) struct Cut {
    /// What was damaged.
    pub damage: String,
    /// What the file is called now, as it was, if there is one.
    pub saved: Option<String>,
    /// The numbers that are lost, or were never given.
    pub lost: LostRange,
}

/// Reads all of the log of a directory.
///
/// # Errors
///
/// [`LogError`] when it cannot be read; that it is damaged is no error.
pub(crate) fn check(directory: &Path) -> Result<Checked, LogError> {
    with(directory, look)
}

/// Cuts what is damaged out of the log of a directory: what can be read stays, the files as they were are kept under
/// another name, and readers who come across what is missing are told.
///
/// # Errors
///
/// [`LogError`] when that cannot be done.
pub(crate) fn cut(directory: &Path) -> Result<Vec<Cut>, LogError> {
    with(directory, mend)
}

fn with<T>(
    directory: &Path,
    work: impl FnOnce(&dyn Disk) -> Result<T, OpenError>,
) -> Result<T, LogError> {
    let open = || {
        if !has_segments(directory)? {
            return Err(OpenError::Nothing);
        }
        Ok(Folder::open_existing(directory)?)
    };
    open()
        .and_then(|folder| work(&folder))
        .map_err(|error| LogError {
            directory: directory.to_owned(),
            error,
        })
}

/// Whether there is any history in a directory.
fn has_segments(directory: &Path) -> io::Result<bool> {
    for file in fs::read_dir(directory)? {
        let name = file?.file_name();
        if name.to_str().and_then(segments::first_of).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A segment, as far as it can be read.
struct Looked {
    header: Option<Header>,
    segment: CheckedSegment,
    bytes: Vec<u8>,
    /// It says that the log was closed in good order.
    is_closed: bool,
}

pub(super) fn look(disk: &dyn Disk) -> Result<Checked, OpenError> {
    let mut topics = BTreeMap::new();
    let all = look_at_all(disk, &mut topics)?;
    let headers = || all.iter().filter_map(|looked| looked.header.as_ref());
    let (header, lost) = (headers().next_back(), start::all_lost(headers()));
    Ok(Checked {
        epoch: header.map(|header| Epoch::from_random(header.epoch)),
        missing: holes(&all, &lost),
        lost,
        is_shared: start::is_of_cluster(&disk.list()?),
        segments: all.into_iter().map(|looked| looked.segment).collect(),
        topics,
    })
}

/// The numbers that are missing between whole segments.
fn holes(all: &[Looked], lost: &[LostRange]) -> Vec<LostRange> {
    let pairs = all.iter().zip(all.iter().skip(1));
    let whole = pairs.filter(|(one, _)| one.segment.damage.is_none());
    let missing = whole.filter_map(|(one, following)| {
        let (from, through) =
            start::hole(one.segment.numbers.1, following.segment.numbers.0, lost)?;
        Some(LostRange {
            from,
            through,
            is_damage: true,
        })
    });
    missing.collect()
}

fn look_at_all(
    disk: &dyn Disk,
    topics: &mut BTreeMap<String, (u64, u64)>,
) -> Result<Vec<Looked>, OpenError> {
    let names = disk.list()?;
    let mut firsts: Vec<u64> = names
        .iter()
        .filter_map(|name| segments::first_of(name))
        .collect();
    firsts.sort_unstable();
    let last = firsts.last().copied();
    let look = |first| look_at(disk, first, Some(first) == last, topics);
    let all: Vec<Looked> = firsts.into_iter().map(look).collect::<Result<_, _>>()?;
    let mut epochs = all.iter().filter_map(|looked| looked.header.as_ref());
    if let Some(epoch) = epochs.next().map(|header| header.epoch)
        && let Some(foreign) = epochs.find(|header| header.epoch != epoch)
    {
        return Err(OpenError::Foreign(name(foreign.first)));
    }
    Ok(all)
}

fn look_at(
    disk: &dyn Disk,
    first: u64,
    is_last: bool,
    topics: &mut BTreeMap<String, (u64, u64)>,
) -> Result<Looked, OpenError> {
    let file = disk.open(&name(first))?;
    let bytes = disk::read_all(&*file)?;
    let mut segment = CheckedSegment {
        file: name(first),
        bytes: bytes.len() as u64,
        numbers: (first, first),
        ages: None,
        damage: None,
        torn: 0,
    };
    let header = match start::header(&*file, first) {
        Ok(header) => Some(header),
        Err(OpenError::Damaged(damage)) => {
            segment.damage = Some(damage);
            None
        }
        Err(error) => return Err(error),
    };
    let Some(known) = &header else {
        return Ok(Looked {
            header,
            segment,
            bytes,
            is_closed: false,
        });
    };
    let mut scan = Scan::new(&bytes, known);
    let end = loop {
        // A commit of which something is unknown is damaged as a whole.
        let (at, next) = (scan.offset(), scan.next());
        let records = match scan.commit() {
            Ok(records) => records,
            Err(end) => break end,
        };
        if records
            .iter()
            .any(|r| record::decode(r.kind, r.body).is_none())
        {
            segment.numbers.1 = next;
            break End::Damaged(at);
        }
        segment.numbers.1 = scan.next();
        for record in &records {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(record.place.millis);
            segment.ages = Some((segment.ages.map_or(at, |(first, _)| first), at));
            count(record, topics);
        }
    };
    match end {
        End::Whole { .. } => {}
        End::Torn(at) if is_last => segment.torn = segment.bytes - at,
        End::Torn(at) | End::Damaged(at) => segment.damage = Some(Damage::of(first, at)),
    }
    Ok(Looked {
        header,
        segment,
        bytes,
        is_closed: end == End::Whole { closed: true },
    })
}

fn count(record: &Record<'_>, topics: &mut BTreeMap<String, (u64, u64)>) {
    let content = record::decode(record.kind, record.body);
    if let Some(
        Content::Event {
            target, turn: None, ..
        }
        | Content::Release { target, .. },
    ) = content
    {
        for topic in target.topics {
            let (events, bytes) = topics.entry(topic.as_str().to_owned()).or_default();
            *events += 1;
            *bytes += record.len as u64;
        }
    }
}

/// A file that is damaged, or torn, and how much of it stays: nothing without a header.
struct Mended<'a> {
    looked: &'a Looked,
    keeps: u64,
}

pub(super) fn mend(disk: &dyn Disk) -> Result<Vec<Cut>, OpenError> {
    let all = look_at_all(disk, &mut BTreeMap::new())?;
    if start::is_of_cluster(&disk.list()?) {
        return Err(OpenError::Shared);
    }
    let Some(newest) = all.iter().rev().find_map(|looked| looked.header.clone()) else {
        return match all.into_iter().find_map(|looked| looked.segment.damage) {
            // Nothing is left of it that could be gone on with.
            Some(damage) => Err(damage.into()),
            None => Ok(Vec::new()),
        };
    };
    let mut lost = start::all_lost(all.iter().filter_map(|looked| looked.header.as_ref()));
    let (mut cuts, mut mended) = (Vec::new(), Vec::new());
    let mut before = 1;
    for (at, looked) in all.iter().enumerate() {
        let segment = &looked.segment;
        let following = all.get(at + 1).map(|next| next.segment.numbers.0);
        let (first, next) = segment.numbers;
        // Any of those that it could give may have been given.
        let end = following.unwrap_or(first + SPAN + 1) - 1;
        if let Some(damage) = &segment.damage {
            let from = if looked.header.is_some() {
                next
            } else {
                before
            };
            cuts.push(Cut {
                damage: damage.to_string(),
                saved: Some(saved(segment)),
                lost: LostRange {
                    from,
                    through: end,
                    is_damage: true,
                },
            });
            let keeps = if looked.header.is_some() {
                damage.offset
            } else {
                0
            };
            mended.push(Mended { looked, keeps });
        } else if following.is_none()
            && let Some(header) = &looked.header
        {
            // What follows the last is no longer the last.
            lost.extend(start::may_be_lost(header, next, looked.is_closed));
            if segment.torn > 0 {
                let keeps = segment.bytes - segment.torn;
                mended.push(Mended { looked, keeps });
            }
        }
        before = next;
    }
    cuts.extend(holes(&all, &lost).into_iter().map(|lost| Cut {
        damage: "a file is missing".to_owned(),
        saved: None,
        lost,
    }));
    if cuts.is_empty() {
        return Ok(cuts);
    }
    lost.extend(cuts.iter().map(|cut| cut.lost));
    lost.sort_unstable_by_key(|range| range.from);
    start::fit(&mut lost);
    go_on(disk, &all, newest, lost, &mended)?;
    Ok(cuts)
}

/// Writes what stays, and a segment that goes on behind it, before anything is moved: whenever this ends, the log is as
/// it was, or can be mended again.
fn go_on(
    disk: &dyn Disk,
    all: &[Looked],
    newest: Header,
    lost: Vec<LostRange>,
    mended: &[Mended<'_>],
) -> Result<(), OpenError> {
    let kept = |mended: &Mended<'_>| format!("{}.tmp", mended.looked.segment.file);
    let write = |name: &str, bytes: &[u8]| {
        let file = disk.create(name)?;
        file.write_at(bytes, 0)?;
        file.sync()
    };
    for one in mended {
        let bytes = &one.looked.bytes;
        if one.keeps > 0 {
            let keeps = usize::try_from(one.keeps).unwrap_or(usize::MAX);
            write(&kept(one), &bytes[..keeps.min(bytes.len())])?;
        }
        if one.looked.segment.damage.is_some() {
            write(&saved(&one.looked.segment), bytes)?;
        }
    }
    let last = all.last().map_or(1, |looked| looked.segment.numbers.1);
    let behind = lost.iter().map(|range| range.through + 1).max();
    let now = clock::wall()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let made = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let header = Header {
        first: last.max(behind.unwrap_or(0)),
        made: made.max(newest.made),
        salt: fastrand::u32(..),
        always: true,
        lost,
        ..newest
    };
    create(disk, header)?;
    for one in mended {
        let CheckedSegment { file, numbers, .. } = &one.looked.segment;
        if one.keeps > 0 {
            disk.rename(&kept(one), file)?;
        } else {
            disk.remove(file)?;
        }
        // It is made anew.
        let _: io::Result<()> = disk.remove(&segments::index_name(numbers.0));
    }
    disk.sync()?;
    Ok(())
}

/// What a damaged file is called that is kept as it was.
fn saved(segment: &CheckedSegment) -> String {
    format!("{}.damaged", segment.file)
}
