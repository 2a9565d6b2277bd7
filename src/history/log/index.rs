//! Where the entries of a segment stand, by their topics.
//!
//! ```text
//! file    magic 8 | front length u32 | front crc u32 | front | rest crc u32 | rest
//! front   first u64 | next u64 | newest u64 | length u64 | last turn u64 | identified u64 | deletes | retracts | closed, each a count u32
//!         and its items
//! rest    topics u32, each a hash u64, where its entries begin u32, how many u32, sorted | entries, each a number u32
//!         after the first and an offset u32
//! ```
//!
//! What it says can be found again in the segment: a bad one is made anew.
//!
//! Pure: no clock, no lock, no task.

use std::{collections::BTreeMap, io};

use crate::topic::Topic;

const MAGIC: &[u8; 8] = b"7thIndx1";
/// What stands before the front, what a topic takes in the rest, and an entry.
const HEAD: usize = 16;
const TOPIC: u64 = 16;
const POSTING: u64 = 8;

/// Where an entry stands: its number after that of the segment's first, and its offset.
pub(super) type Posting = (u32, u32);

/// What is known of a segment without its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Front {
    /// The number of its first entry.
    pub(super) first: u64,
    /// The number after its last.
    pub(super) next: u64,
    /// When its last entry was placed, in unix ms.
    pub(super) newest: u64,
    /// How long it is, in bytes.
    pub(super) length: u64,
    /// When the turn of the last of its events is that wait for it, in unix ms; 0 if none does.
    pub(super) last_turn: u64,
    /// How many of its entries are known if they come again.
    pub(super) identified: u64,
    /// The topics that were deleted, and at which numbers.
    pub(super) deletes: Vec<(Topic, u64)>,
    /// The numbers of the events that were taken back, whatever segment they stand in.
    pub(super) retracts: Vec<u64>,
    /// The topics that were closed when it was sealed.
    pub(super) closed: Vec<Topic>,
}

/// The index of a segment, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) front: Front,
    /// By the hash of the topic, in the order of their numbers.
    topics: BTreeMap<u64, Vec<Posting>>,
}

impl Index {
    /// That of a segment without entries, whose first has this number.
    pub(super) fn new(first: u64) -> Self {
        Self {
            front: Front {
                first,
                next: first,
                ..Front::default()
            },
            topics: BTreeMap::new(),
        }
    }

    /// An entry is found by this topic.
    pub(super) fn add(&mut self, topic: u64, sequence: u64, offset: u64) {
        let posting = (
            u32::try_from(sequence - self.front.first).expect("a segment has few numbers"),
            u32::try_from(offset).expect("a segment is far smaller than 4 GiB"),
        );
        let postings = self.topics.entry(topic).or_default();
        // Two topics of one event may have one hash.
        if postings.last() != Some(&posting) {
            postings.push(posting);
        }
    }

    /// The entries of a topic with numbers above `after`, at most so many.
    pub(super) fn after(&self, topic: u64, after: u64, most: usize) -> &[Posting] {
        let Some(postings) = self.topics.get(&topic) else {
            return &[];
        };
        let first = self.front.first;
        let from = postings.partition_point(|(n, _)| first + u64::from(*n) <= after);
        let rest = &postings[from..];
        &rest[..rest.len().min(most)]
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let front = self.front.encode();
        let mut rest = Vec::new();
        put_u32(&mut rest, self.topics.len());
        let mut start = 0;
        for (topic, postings) in &self.topics {
            rest.extend(topic.to_le_bytes());
            put_u32(&mut rest, start);
            put_u32(&mut rest, postings.len());
            start += postings.len();
        }
        for (number, offset) in self.topics.values().flatten() {
            rest.extend(number.to_le_bytes());
            rest.extend(offset.to_le_bytes());
        }
        let mut bytes = MAGIC.to_vec();
        put_u32(&mut bytes, front.len());
        bytes.extend(crc32fast::hash(&front).to_le_bytes());
        bytes.extend(&front);
        bytes.extend(crc32fast::hash(&rest).to_le_bytes());
        bytes.extend(&rest);
        bytes
    }

    /// `None` if it is damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (front, rest) = Front::split(bytes)?;
        let mut all = Items(rest);
        let crc = all.u32()?;
        if crc32fast::hash(all.0) != crc {
            return None;
        }
        let count = all.u32()?;
        let head = |all: &mut Items<'_>| Some((all.u64()?, all.u32()?, all.u32()?));
        let heads: Option<Vec<(u64, u32, u32)>> = (0..count).map(|_| head(&mut all)).collect();
        let mut topics = BTreeMap::new();
        for (topic, _, count) in heads? {
            let postings: Option<Vec<Posting>> =
                (0..count).map(|_| Some((all.u32()?, all.u32()?))).collect();
            topics.insert(topic, postings?);
        }
        let front = Front::decode(front)?;
        Some(Self { front, topics })
    }
}

impl Front {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Self {
            first,
            next,
            newest,
            length,
            last_turn,
            identified,
            ..
        } = self;
        for number in [first, next, newest, length, last_turn, identified] {
            bytes.extend(number.to_le_bytes());
        }
        put_u32(&mut bytes, self.deletes.len());
        for (topic, sequence) in &self.deletes {
            put_topic(&mut bytes, topic);
            bytes.extend(sequence.to_le_bytes());
        }
        put_u32(&mut bytes, self.retracts.len());
        bytes.extend(self.retracts.iter().flat_map(|number| number.to_le_bytes()));
        put_u32(&mut bytes, self.closed.len());
        for topic in &self.closed {
            put_topic(&mut bytes, topic);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut all = Items(bytes);
        let [first, next, newest] = [all.u64()?, all.u64()?, all.u64()?];
        let [length, last_turn, identified] = [all.u64()?, all.u64()?, all.u64()?];
        let count = all.u32()?;
        let deletes: Option<Vec<_>> = (0..count)
            .map(|_| Some((all.topic()?, all.u64()?)))
            .collect();
        let count = all.u32()?;
        let retracts: Option<Vec<u64>> = (0..count).map(|_| all.u64()).collect();
        let count = all.u32()?;
        let closed: Option<Vec<Topic>> = (0..count).map(|_| all.topic()).collect();
        Some(Self {
            first,
            next,
            newest,
            length,
            last_turn,
            identified,
            deletes: deletes?,
            retracts: retracts?,
            closed: closed?,
        })
    }

    /// How long the beginning of an index is that holds all of its front, of which these are the first bytes.
    pub(super) fn needs(bytes: &[u8]) -> Option<usize> {
        let mut all = Items(bytes.strip_prefix(MAGIC)?);
        Some(all.u32()? as usize + HEAD)
    }

    /// The front of an index, of which this is the beginning; `None` if it is damaged.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        Self::decode(Self::split(bytes)?.0)
    }

    fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let mut all = Items(bytes.strip_prefix(MAGIC)?);
        let len = all.u32()? as usize;
        let crc = all.u32()?;
        let (front, rest) = all.0.split_at_checked(len)?;
        (crc32fast::hash(front) == crc).then_some((front, rest))
    }
}

/// The most that a filter takes, in words of 64 bits.
const FILTER: usize = 8 << 10;

/// Says of most topics that an index does not have that it does not: a Bloom filter of two bits a topic.
#[derive(Debug)]
pub(super) struct Filter(Box<[u64]>);

impl Filter {
    /// Of all topics of an index.
    pub(super) fn of(index: &Index) -> Self {
        // Eight bits a topic: it is wrong for one in twenty.
        let words = (index.topics.len() / 8).next_power_of_two();
        let mut filter = Self(vec![0; words.min(FILTER)].into());
        for topic in index.topics.keys() {
            for (word, bit) in filter.bits(*topic) {
                filter.0[word] |= bit;
            }
        }
        filter
    }

    /// Whether the index may have any of some topics.
    pub(super) fn may_have(&self, topics: &[u64]) -> bool {
        let has = |topic: &u64| {
            self.bits(*topic)
                .iter()
                .all(|(word, bit)| self.0[*word] & bit != 0)
        };
        topics.iter().any(has)
    }

    fn bits(&self, topic: u64) -> [(usize, u64); 2] {
        // The upper bits of such a hash change little with the last letters.
        let mixed = (topic ^ topic >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [mixed, mixed >> 32].map(|bits| {
            let word = (bits >> 6) as usize & (self.0.len() - 1);
            (word, 1 << (bits & 63))
        })
    }
}

fn put_u32(bytes: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a segment has fewer entries");
    bytes.extend(count.to_le_bytes());
}

fn put_topic(bytes: &mut Vec<u8>, topic: &Topic) {
    put_u32(bytes, topic.as_str().len());
    bytes.extend(topic.as_str().as_bytes());
}

/// An index in a file, of which only what is wanted is read. The file was decoded once before.
pub(super) struct Lookup<'a> {
    /// Reads at an offset until the buffer is full.
    read: &'a dyn Fn(&mut [u8], u64) -> io::Result<()>,
    /// Where the topics begin, and how many there are.
    topics: u64,
    count: u64,
    /// The number of the segment's first entry.
    first: u64,
}

impl<'a> Lookup<'a> {
    /// In the index of a segment whose first entry has this number.
    pub(super) fn new(
        first: u64,
        read: &'a dyn Fn(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut head = [0; HEAD];
        read(&mut head, 0)?;
        let front = Front::needs(&head).ok_or(io::ErrorKind::InvalidData)? as u64;
        let mut count = [0; 4];
        read(&mut count, front + 4)?;
        Ok(Self {
            read,
            topics: front + 8,
            count: u32::from_le_bytes(count).into(),
            first,
        })
    }

    /// The entries of a topic with numbers above `after`, at most so many.
    pub(super) fn after(&self, topic: u64, after: u64, most: usize) -> io::Result<Vec<Posting>> {
        let place = partition(self.count, |at| Ok(self.topic(at)?.0 < topic))?;
        if place == self.count {
            return Ok(Vec::new());
        }
        let (found, start, count) = self.topic(place)?;
        if found != topic {
            return Ok(Vec::new());
        }
        let (start, count) = (u64::from(start), u64::from(count));
        let is_before = |at| {
            let (number, _) = self.postings(start + at, 1)?[0];
            Ok(self.first + u64::from(number) <= after)
        };
        let from = partition(count, is_before)?;
        self.postings(start + from, (count - from).min(most as u64))
    }

    fn topic(&self, at: u64) -> io::Result<(u64, u32, u32)> {
        let mut bytes = [0; TOPIC as usize];
        (self.read)(&mut bytes, self.topics + at * TOPIC)?;
        let mut all = Items(&bytes);
        let topic = all.u64().zip(all.u32()).zip(all.u32());
        let ((topic, start), count) = topic.expect("it is as long");
        Ok((topic, start, count))
    }

    fn postings(&self, at: u64, count: u64) -> io::Result<Vec<Posting>> {
        let mut bytes = vec![0; (count * POSTING) as usize];
        (self.read)(&mut bytes, self.topics + self.count * TOPIC + at * POSTING)?;
        let mut all = Items(&bytes);
        let postings = (0..count).map_while(|_| all.u32().zip(all.u32()));
        Ok(postings.collect())
    }
}

/// How many of so many places, in their order, are before what is looked for.
fn partition(count: u64, is_before: impl Fn(u64) -> io::Result<bool>) -> io::Result<u64> {
    let (mut from, mut to) = (0, count);
    while from < to {
        let middle = from + (to - from) / 2;
        if is_before(middle)? {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    Ok(from)
}

struct Items<'a>(&'a [u8]);

impl Items<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    fn topic(&mut self) -> Option<Topic> {
        let len = self.u32()? as usize;
        let (name, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(name).ok().map(Topic::of_checked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_filter_knows_all_that_is_there_and_little_else() {
        let hash = |n: u32| crate::history::record::hash(&Topic::of_checked(&format!("topic/{n}")));
        for count in [0, 1, 9, 1000, 100_000] {
            let mut index = Index::new(1);
            (0..count).for_each(|n| index.add(hash(n), 1, 1));
            let filter = Filter::of(&index);
            assert!((0..count).all(|n| filter.may_have(&[hash(n)])));
            let wrong = (count..count + 1000).filter(|n| filter.may_have(&[hash(*n)]));
            let wrong = wrong.count();
            assert!(
                count > 64 * FILTER as u32 / 8 || wrong < 120,
                "{wrong} of 1000 beside {count}"
            );
            assert!(!filter.may_have(&[]));
        }
    }

    proptest! {
        #[test]
        fn an_index_comes_back_and_a_damaged_one_does_not(
            entries in proptest::collection::vec((0u64..5, 1u64..4), 0..40),
            deletes in proptest::collection::vec(("[a-zä]{1,9}", any::<u64>()), 0..4),
            retracts in proptest::collection::vec(any::<u64>(), 0..4),
            closed in proptest::collection::vec("[a-z]{1,9}", 0..4),
            at in any::<prop::sample::Index>(), after in 90u64..200, most in 0usize..9,
        ) {
            let mut index = Index::new(100);
            let mut sequence = 100;
            let mut of_topic = Vec::new();
            for (topic, step) in entries {
                index.add(topic, sequence, 4096 + sequence);
                index.add(topic, sequence, 4096 + sequence);
                if topic == 3 && sequence > after && of_topic.len() < most {
                    of_topic.push(((sequence - 100) as u32, (4096 + sequence) as u32));
                }
                sequence += step;
            }
            index.front.next = sequence;
            let topic = |name: &String| Topic::of_checked(name);
            index.front.deletes = deletes.iter().map(|(name, at)| (topic(name), *at)).collect();
            index.front.retracts = retracts;
            index.front.closed = closed.iter().map(topic).collect();
            prop_assert_eq!(index.after(3, after, most), &of_topic[..]);
            let mut bytes = index.encode();
            prop_assert_eq!(Index::decode(&bytes), Some(index.clone()));
            {
                let read = |buffer: &mut [u8], offset: u64| {
                    let from = offset as usize;
                    buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
                    Ok(())
                };
                let lookup = Lookup::new(100, &read).expect("it is one");
                prop_assert_eq!(lookup.after(3, after, most).expect("memory"), of_topic);
                prop_assert_eq!(lookup.after(7, after, most).expect("memory"), []);
            }
            let needs = Front::needs(&bytes[..16]).expect("it is one");
            prop_assert_eq!(Front::of(&bytes[..needs]), Some(index.front));
            let len = bytes.len();
            bytes[at.index(len)] ^= 1;
            prop_assert_eq!(Index::decode(&bytes), None);
            bytes.truncate(at.index(len));
            prop_assert_eq!(Index::decode(&bytes), None);
        }
    }
}
