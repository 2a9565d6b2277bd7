//! What a segment of the log looks like, byte by byte, and what is left of one after a crash.
//!
//! ```text
//! segment  header (4 KiB), then commits, each one write
//! header   magic 8 | format u32 | crc u32 | epoch u64 | first u64 | made u64 | salt u32 | flags u32 | lost u32 | ranges
//! flags    1: all that is acknowledged was synced | 2: numbers are given by others
//! range    from u64 | through u64 | is damage u8
//! commit   magic u32 | bytes u32 | first u64 | count u32 | synced u64 | crc u32 | records
//! record   length u32 | crc u32 | kind u8 | sequence u64 | unix ms u64 | body
//! ```
//!
//! All numbers are little endian. Every sum holds the salt of the segment and the offset, so that what a file held
//! that had the same sectors before never passes. `synced` is up to where the file was synced before the commit was
//! written: a crash may take, tear or leave out whatever is behind that, and nothing before it. A commit without
//! records says that the log was closed in good order. Where numbers are given by others some are left out within a commit,
//! and the last may be that of the one before; a commit begins with the number behind the last of the one before all
//! the same.
//!
//! Pure: no clock, no lock, no task.

use memchr::memmem;

use crate::{history::record::Kind, hub::LostRange};

/// How long the header of a segment is, in bytes.
pub(super) const HEADER: usize = 4096;
/// How many numbers a segment has at most: after a crash that may have taken some of them, the next begins behind
/// all that it could have given.
pub(super) const SPAN: u64 = 1 << 20;
/// The same of one whose numbers are given by others, which has them whatever a crash takes.
const WIDE_SPAN: u64 = 1 << 31;
/// The head of a commit, and that of a record with its sum, in bytes.
const COMMIT: usize = 32;
pub(super) const RECORD: usize = 25;
/// The most bytes that records are, beyond those that are never written: nothing longer is read.
pub(super) const LONGEST: usize = 1 << 30;

const MAGIC: &[u8; 8] = b"7thSegmt";
const COMMIT_MAGIC: [u8; 4] = *b"7tCm";
const FORMAT: u32 = 1;
/// Where the sum begins in a header.
const SUMMED: usize = 16;
const FIXED: usize = SUMMED + 8 + 8 + 8 + 4 + 4 + 4;
const RANGE: usize = 17;
/// The most ranges that a header has room for.
pub(super) const RANGES: usize = (HEADER - FIXED) / RANGE;
/// All that is acknowledged of this segment was synced before.
const ALWAYS: u32 = 1;
/// Numbers are given by others.
const SHARED: u32 = 2;

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// [`Epoch::number`](crate::sse::Epoch::number).
    pub(super) epoch: u64,
    /// The number of its first entry.
    pub(super) first: u64,
    /// When it was made, in unix ms: no entry is from before.
    pub(super) made: u64,
    /// What makes its sums unlike those of any other.
    pub(super) salt: u32,
    /// Whether nothing was shown that was not synced.
    pub(super) always: bool,
    /// Whether others give the numbers, and keep what has them: it is of an edge of a cluster.
    pub(super) is_shared: bool,
    /// What is lost of the numbers before.
    pub(super) lost: Vec<LostRange>,
}

/// Why a segment cannot be read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is damaged.
    Damaged,
    /// A later version wrote it.
    Format(u32),
}

impl Header {
    /// The number after all that the segment can give.
    pub(super) fn end(&self) -> u64 {
        let span = if self.is_shared { WIDE_SPAN } else { SPAN };
        self.first.saturating_add(span)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SUMMED];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        for number in [self.epoch, self.first, self.made] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.salt.to_le_bytes());
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let flags = flag(self.always, ALWAYS) | flag(self.is_shared, SHARED);
        bytes.extend(flags.to_le_bytes());
        let newest = &self.lost[self.lost.len().saturating_sub(RANGES)..];
        bytes.extend((newest.len() as u32).to_le_bytes());
        for range in newest {
            bytes.extend(range.from.to_le_bytes());
            bytes.extend(range.through.to_le_bytes());
            bytes.push(u8::from(range.is_damage));
        }
        bytes.resize(HEADER, 0);
        let crc = crc32fast::hash(&bytes[SUMMED..]);
        bytes[12..SUMMED].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes = bytes.get(..HEADER).ok_or(Unreadable::Damaged)?;
        if &bytes[..8] != MAGIC {
            return Err(Unreadable::Damaged);
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            return Err(Unreadable::Format(format));
        }
        let count = u32_at(bytes, FIXED - 4) as usize;
        if crc32fast::hash(&bytes[SUMMED..]) != u32_at(bytes, 12) || count > RANGES {
            return Err(Unreadable::Damaged);
        }
        let range = |n: usize| {
            let at = FIXED + n * RANGE;
            LostRange {
                from: u64_at(bytes, at),
                through: u64_at(bytes, at + 8),
                is_damage: bytes[at + 16] != 0,
            }
        };
        Ok(Self {
            epoch: u64_at(bytes, SUMMED),
            first: u64_at(bytes, SUMMED + 8),
            made: u64_at(bytes, SUMMED + 16),
            salt: u32_at(bytes, SUMMED + 24),
            always: u32_at(bytes, SUMMED + 28) & ALWAYS != 0,
            is_shared: u32_at(bytes, SUMMED + 28) & SHARED != 0,
            lost: (0..count).map(range).collect(),
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The sum of what stands at an offset of a segment.
fn sum(salt: u32, offset: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&offset.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// The place of an entry in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its number.
    pub(super) sequence: u64,
    /// When it was placed, in unix ms.
    pub(super) millis: u64,
}

/// Writes a commit, as it is to stand at an offset.
#[derive(Debug)]
pub(super) struct CommitWriter<'a> {
    buffer: &'a mut Vec<u8>,
    salt: u32,
    offset: u64,
    count: u32,
}

impl<'a> CommitWriter<'a> {
    /// A commit without records yet, in a buffer that is emptied for it.
    pub(super) fn new(buffer: &'a mut Vec<u8>, salt: u32, offset: u64) -> Self {
        buffer.clear();
        buffer.resize(COMMIT, 0);
        Self {
            buffer,
            salt,
            offset,
            count: 0,
        }
    }

    /// Adds a record, whose body is in two parts; its offset.
    pub(super) fn push(&mut self, kind: Kind, place: Place, parts: [&[u8]; 2]) -> u64 {
        let at = self.buffer.len();
        let offset = self.offset + at as u64;
        let len = RECORD - 8 + parts[0].len() + parts[1].len();
        let len = u32::try_from(len).expect("events are far smaller than 4 GiB");
        self.buffer.extend(len.to_le_bytes());
        self.buffer.extend([0; 4]);
        self.buffer.push(kind as u8);
        self.buffer.extend(place.sequence.to_le_bytes());
        self.buffer.extend(place.millis.to_le_bytes());
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        let crc = sum(self.salt, offset, &self.buffer[at + 8..]);
        self.buffer[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        self.count += 1;
        offset
    }

    /// Ends the commit, whose first entry has this number; the file was synced up to `synced` before.
    pub(super) fn finish(self, first: u64, synced: u64) {
        let bytes = u32::try_from(self.buffer.len() - COMMIT).expect("the queue is bounded");
        let head = &mut self.buffer[..COMMIT];
        head[..4].copy_from_slice(&COMMIT_MAGIC);
        head[4..8].copy_from_slice(&bytes.to_le_bytes());
        head[8..16].copy_from_slice(&first.to_le_bytes());
        head[16..20].copy_from_slice(&self.count.to_le_bytes());
        head[20..28].copy_from_slice(&synced.to_le_bytes());
        let crc = sum(self.salt, self.offset, &head[..28]);
        head[28..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A record that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) offset: u64,
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) body: &'a [u8],
    /// Its length with its head, in bytes.
    pub(super) len: usize,
}

/// How long the record is whose first bytes these are.
pub(super) fn record_len(head: &[u8]) -> Option<usize> {
    let len = u32::from_le_bytes(head.get(..4)?.try_into().ok()?) as usize;
    (RECORD - 8..LONGEST).contains(&len).then_some(len + 8)
}

/// The record that `bytes` begin with, which stand at an offset; `None` if there is none, or it is damaged.
pub(super) fn record(bytes: &[u8], offset: u64, salt: u32) -> Option<Record<'_>> {
    let len = record_len(bytes)?;
    let bytes = bytes.get(..len)?;
    if sum(salt, offset, &bytes[8..]) != u32_at(bytes, 4) {
        return None;
    }
    Some(Record {
        offset,
        kind: Kind::from_u8(bytes[8])?,
        place: Place {
            sequence: u64_at(bytes, 9),
            millis: u64_at(bytes, 17),
        },
        body: &bytes[RECORD..],
        len,
    })
}

/// The head of a commit.
#[derive(Clone, Copy, Debug)]
struct Commit {
    bytes: usize,
    first: u64,
    count: u32,
    synced: u64,
}

fn commit(segment: &[u8], at: usize, salt: u32) -> Option<Commit> {
    let head = segment.get(at..at.checked_add(COMMIT)?)?;
    if head[..4] != COMMIT_MAGIC || sum(salt, at as u64, &head[..28]) != u32_at(head, 28) {
        return None;
    }
    Some(Commit {
        bytes: u32_at(head, 4) as usize,
        first: u64_at(head, 8),
        count: u32_at(head, 16),
        synced: u64_at(head, 20),
    })
}

/// What the commits of a segment end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The last commit. Whether it says that the log was closed in good order.
    Whole { closed: bool },
    /// What a crash left of commits that were not synced, from this offset on.
    Torn(u64),
    /// What was synced and is not there any more, from this offset on.
    Damaged(u64),
}

/// Reads a segment from its first commit on: all records of commits that are whole, in their order. What comes
/// after one that is not is not read, whatever it is.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    segment: &'a [u8],
    salt: u32,
    is_shared: bool,
    /// Where the next commit begins.
    at: usize,
    /// The number that is next.
    next: u64,
    /// The number after all that the segment can give.
    end: u64,
    /// Up to where the file was synced before the last commit.
    synced: u64,
    closed: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(segment: &'a [u8], header: &Header) -> Self {
        Self {
            segment,
            salt: header.salt,
            is_shared: header.is_shared,
            at: HEADER.min(segment.len()),
            next: header.first,
            end: header.end(),
            synced: HEADER as u64,
            closed: false,
        }
    }

    /// Up to where the file was synced for certain before the last commit was written that was read.
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// Where the last commit ended that was read.
    pub(super) fn offset(&self) -> u64 {
        self.at as u64
    }

    /// The number of the entry after those that were read.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The records of the next commit, one or more, or how all of them end.
    pub(super) fn commit(&mut self) -> Result<Vec<Record<'a>>, End> {
        loop {
            if self.at == self.segment.len() {
                return Err(End::Whole {
                    closed: self.closed,
                });
            }
            let Some((records, synced, end)) = self.whole_commit() else {
                return Err(self.bad_end());
            };
            (self.at, self.synced) = (end, synced);
            self.closed = records.is_empty();
            if let Some(last) = records.last() {
                self.next = last.place.sequence + 1;
                return Ok(records);
            }
        }
    }

    /// The records of the next commit, up to where the file was synced before it, and where it ends.
    fn whole_commit(&self) -> Option<(Vec<Record<'a>>, u64, usize)> {
        let head = commit(self.segment, self.at, self.salt)?;
        let end = (self.at + COMMIT).checked_add(head.bytes)?;
        if end > self.segment.len() || head.first != self.next {
            return None;
        }
        let mut at = self.at + COMMIT;
        let mut records: Vec<Record<'_>> = Vec::new();
        while at < end {
            let record = record(&self.segment[at..end], at as u64, self.salt)?;
            let before = records.last().map(|record| record.place.sequence);
            let (sequence, next) = (record.place.sequence, before.map_or(self.next, |n| n + 1));
            let is_next = if self.is_shared {
                before.unwrap_or(self.next) <= sequence && sequence < self.end
            } else {
                sequence == next
            };
            if !is_next {
                return None;
            }
            at += record.len;
            records.push(record);
        }
        (records.len() == head.count as usize).then_some((records, head.synced, end))
    }

    /// What follows a commit that is not whole proves nothing, as sectors reach the disk in any order, unless it says
    /// that this one was synced.
    fn bad_end(&self) -> End {
        let bad = self.at;
        let later = memmem::find_iter(&self.segment[bad..], &COMMIT_MAGIC);
        let mut later = later.filter_map(|at| commit(self.segment, bad + at, self.salt));
        if later.any(|commit| commit.synced > bad as u64) {
            End::Damaged(bad as u64)
        } else {
            End::Torn(bad as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            epoch: 7,
            first: 11,
            made: 1_000,
            salt: 0xdead_beef,
            always: true,
            is_shared: false,
            lost: vec![LostRange {
                from: 3,
                through: 9,
                is_damage: true,
            }],
        }
    }

    /// A segment of commits, each of so many records; and where each of them begins.
    fn segment(commits: &[u8], synced_each: bool) -> (Vec<u8>, Vec<u64>) {
        let header = header();
        let (mut segment, mut buffer) = (header.encode(), Vec::new());
        let (mut starts, mut next, mut synced) = (Vec::new(), header.first, HEADER as u64);
        for &count in commits {
            let offset = segment.len() as u64;
            starts.push(offset);
            let mut commit = CommitWriter::new(&mut buffer, header.salt, offset);
            for n in 0..u64::from(count) {
                let place = Place {
                    sequence: next + n,
                    millis: 5,
                };
                let at = commit.push(Kind::Event, place, [b"7tCm", &[count; 40]]);
                assert!(at > offset);
            }
            commit.finish(next, synced);
            next += u64::from(count);
            segment.extend(&buffer);
            if synced_each {
                synced = segment.len() as u64;
            }
        }
        (segment, starts)
    }

    fn read(segment: &[u8]) -> (Vec<u64>, End) {
        let header = Header::decode(segment).expect("it is whole");
        let mut scan = Scan::new(segment, &header);
        let mut numbers = Vec::new();
        loop {
            match scan.commit() {
                Ok(records) => numbers.extend(records.iter().map(|r| r.place.sequence)),
                Err(end) => return (numbers, end),
            }
        }
    }

    #[test]
    fn a_header_comes_back_and_a_damaged_one_does_not() {
        let header = header();
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header.clone()));
        for at in (8..HEADER).step_by(61) {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(Header::decode(&bad).is_err());
        }
        assert_eq!(Header::decode(&bytes[..100]), Err(Unreadable::Damaged));
        let mut later = bytes;
        later[8] = 2;
        assert_eq!(Header::decode(&later), Err(Unreadable::Format(2)));
        let many = (0..1000).map(|n| LostRange {
            from: n,
            through: n,
            is_damage: false,
        });
        let many = Header {
            lost: many.collect(),
            ..header
        };
        let read = Header::decode(&many.encode()).expect("it fits");
        assert_eq!(read.lost[..], many.lost[1000 - RANGES..]);
    }

    #[test]
    fn a_commit_without_records_says_that_the_log_was_closed() {
        let (closed, _) = segment(&[1, 2, 0], true);
        assert_eq!(
            read(&closed),
            (vec![11, 12, 13], End::Whole { closed: true })
        );
        let (again, _) = segment(&[1, 0, 2], true);
        assert_eq!(
            read(&again),
            (vec![11, 12, 13], End::Whole { closed: false })
        );
    }

    proptest! {
        /// Whatever a crash does behind what was synced, all that is before is read, and no more than was written.
        #[test]
        fn what_was_synced_is_read_whatever_is_torn_behind_it(
            commits in proptest::collection::vec(1u8..5, 1..8), synced in any::<prop::sample::Index>(),
            torn in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20), cut in any::<prop::sample::Index>(),
        ) {
            let (mut bytes, starts) = segment(&commits, false);
            let (whole, _) = read(&bytes);
            let synced = synced.index(starts.len());
            let from = starts[synced] as usize;
            for (at, byte) in torn {
                let len = bytes.len() - from;
                bytes[from + at.index(len)] = byte;
            }
            let len = bytes.len() - from;
            bytes.truncate(from + cut.index(len + 1));
            let (numbers, end) = read(&bytes);
            let kept: usize = commits[..synced].iter().map(|n| usize::from(*n)).sum();
            prop_assert!(numbers.len() >= kept);
            prop_assert_eq!(&whole[..numbers.len()], &numbers[..]);
            prop_assert!(!matches!(end, End::Damaged(_)));
        }

        /// A bit that flips in what later commits say was synced is found, and where.
        #[test]
        fn damage_is_told_from_a_torn_tail(
            commits in proptest::collection::vec(1u8..5, 2..8), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let (mut bytes, starts) = segment(&commits, true);
            let last = *starts.last().expect("some") as usize;
            let at = HEADER + at.index(last - HEADER);
            bytes[at] ^= 1 << bit;
            let of = starts.iter().rfind(|start| **start <= at as u64).expect("it is in one");
            let (_, end) = read(&bytes);
            // The head of the last but one is the only one that says so of the one before it.
            prop_assert_eq!(end, End::Damaged(*of));
        }

        #[test]
        fn anything_is_read_without_a_panic(tail in proptest::collection::vec(any::<u8>(), 0..300), commits in proptest::collection::vec(0u8..4, 0..4)) {
            let (mut bytes, _) = segment(&commits, true);
            bytes.extend(tail);
            let _: (Vec<u64>, End) = read(&bytes);
        }
    }
}
