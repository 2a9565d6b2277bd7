//! Entries of the order as bytes, and back.
//!
//! Pure: no clock, no lock, no task.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::wall::Wall;
use crate::{
    hub::{Entry, Identity, IdentityParts, Released, Target},
    sse::Draft,
    topic::Topic,
};

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// An event that went out at once.
    Event = 1,
    /// An event that waits for its turn.
    Waits = 2,
    /// An event that has waited and goes out.
    Release = 3,
    /// The deletion of a topic.
    Delete = 4,
    /// The taking back of an event.
    Retract = 5,
    /// The end of a topic.
    Close = 6,
    /// A number and no more: what had it is of the moment, or nothing came of it.
    Passed = 7,
    /// An event that repeats another, under a key of its own.
    Repeat = 8,
    /// The end of the streams of a user.
    Disconnect = 9,
    /// Which message of the servers all before it came with. Only an edge of a cluster keeps it, for itself.
    Mark = 10,
}

impl Kind {
    pub(super) fn from_u8(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Event,
            2 => Self::Waits,
            3 => Self::Release,
            4 => Self::Delete,
            5 => Self::Retract,
            6 => Self::Close,
            7 => Self::Passed,
            8 => Self::Repeat,
            9 => Self::Disconnect,
            10 => Self::Mark,
            _ => return None,
        })
    }
}

/// An entry as it is written, but for its place.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    /// The hashes of the topics that it is found by.
    pub(super) topics: SmallVec<[u64; 1]>,
}

/// An entry that was read.
#[derive(Debug)]
pub(super) enum Content {
    /// An event, and when its turn is if it waits.
    Event {
        draft: Draft,
        target: Target,
        turn: Option<u64>,
    },
    /// An event that has waited: under what number, since when.
    Release {
        draft: Draft,
        target: Target,
        published: (u64, u64),
    },
    /// What is no event; and the number of the event that it takes back.
    Other(Entry, Option<u64>),
    /// A number and no more.
    Passed,
    /// What is known by this of the event with a number.
    Repeat(Identity, u64),
    /// By what the servers know the message that all before it came with.
    Mark(Option<String>),
}

/// What is noted behind the entries that came with one message of the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The last number that they could have.
    pub(super) sequence: u64,
    /// By what the servers know it, if it has a name.
    pub(super) id: Option<String>,
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        text(self.id.as_deref().unwrap_or_default())
    }
}

/// What of an event is given.
const TO: u8 = 1;
const ID: u8 = 2;
const KEY: u8 = 4;
const TTL: u8 = 8;
const IDEMPOTENCY_KEY: u8 = 16;
const CONTENT: u8 = 32;
const LIVE_ONLY: u8 = 64;
/// Not given by this version.
const LATER: u8 = 128;

/// By what a topic is found in an index: FNV-1a. Two with one hash cost a look, as records have the names.
pub(super) fn hash(topic: &Topic) -> u64 {
    topic
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

fn hashes(topics: &[Topic]) -> SmallVec<[u64; 1]> {
    topics.iter().map(hash).collect()
}

/// Whether nothing of an entry need outlive the process: what is of the moment, or about streams that are open.
fn is_passed(entry: &Entry) -> bool {
    match entry {
        Entry::Event { target, .. } => target.is_live_only || is_own(entry),
        Entry::Release { topics, waiting } => topics.is_empty() || waiting.event().is_live_only(),
        Entry::Disconnect(_) => true,
        Entry::Delete(_) | Entry::Retract { .. } | Entry::Close(_) => false,
    }
}

/// Whether an entry is of this edge alone: what it says of itself and of who is there.
pub(super) fn is_own(entry: &Entry) -> bool {
    match entry {
        Entry::Event { target, .. } => target.topics.iter().all(Topic::is_of_the_moment),
        Entry::Release { topics, .. } => topics.iter().all(Topic::is_of_the_moment),
        _ => false,
    }
}

/// An entry as it is kept. Of an event it is settled later whether it waits.
pub(super) fn encode(entry: &Entry, wall: &Wall) -> Encoded {
    if is_passed(entry) {
        return Encoded {
            kind: Kind::Passed,
            body: Vec::new(),
            topics: SmallVec::new(),
        };
    }
    encode_all(entry, wall)
}

/// An entry as others are told it, whatever of it is kept.
pub(super) fn encode_all(entry: &Entry, wall: &Wall) -> Encoded {
    let (kind, body, topics): (_, _, &[Topic]) = match entry {
        Entry::Event { draft, target } => {
            let mut body = Vec::with_capacity(draft.encoded().len() + 64);
            put_event(&mut body, target, draft);
            (Kind::Event, body, &target.topics)
        }
        Entry::Release { topics, waiting } => {
            let mut body = Vec::new();
            body.extend(waiting.published().to_le_bytes());
            body.extend(wall.millis(waiting.event().at).to_le_bytes());
            put_event(&mut body, &target_of(topics, waiting), waiting.draft());
            (Kind::Release, body, topics)
        }
        Entry::Delete(topic) => (
            Kind::Delete,
            text(topic.as_str()),
            std::slice::from_ref(topic),
        ),
        Entry::Retract { topics, id } => {
            let mut body = text(id);
            put_topics(&mut body, topics);
            (Kind::Retract, body, &[])
        }
        Entry::Close(topic) => (Kind::Close, text(topic.as_str()), &[]),
        Entry::Disconnect(topic) => (Kind::Disconnect, text(topic.as_str()), &[]),
    };
    Encoded {
        kind,
        body,
        topics: hashes(topics),
    }
}

/// An event that repeats the one with this number, as it is written.
pub(super) fn repeat(identity: &Identity, first: u64) -> Encoded {
    let key = identity.parts().key;
    let mut body = Vec::new();
    if let Some(key) = key {
        body.extend(first.to_le_bytes());
        body.extend(key.as_flattened());
    }
    Encoded {
        kind: if key.is_some() {
            Kind::Repeat
        } else {
            Kind::Passed
        },
        body,
        topics: SmallVec::new(),
    }
}

/// For whom an event is that has waited, as from when it was published.
fn target_of(topics: &[Topic], waiting: &Released) -> Target {
    let event = waiting.event();
    let series = event.series();
    Target {
        topics: topics.to_vec(),
        to: series.to.as_deref().map(Into::into),
        id: event.id.clone(),
        identity: Identity::default(),
        key: series.key.clone(),
        ttl: event
            .until()
            .map(|until| until.saturating_duration_since(event.at)),
        is_live_only: event.is_live_only(),
    }
}

/// What stands before the body of a record whose kind has it: when the turn of an event is that waits, or which event
/// an entry takes back, 0 for none.
pub(super) fn before(
    kind: Kind,
    turn: Option<Instant>,
    taken: Option<u64>,
    wall: &Wall,
) -> Option<[u8; 8]> {
    match (kind, turn) {
        // Not before its turn, when it is read again.
        (Kind::Waits, Some(turn)) => Some((wall.millis(turn) + 1).to_le_bytes()),
        (Kind::Retract, _) => Some(taken.unwrap_or(0).to_le_bytes()),
        _ => None,
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(2 + text.len());
    put_text(&mut body, text);
    body
}

/// A text of less than 64 KiB.
fn put_text(body: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("names, ids and keys are short");
    body.extend(len.to_le_bytes());
    body.extend(text.as_bytes());
}

fn put_topics(body: &mut Vec<u8>, topics: &[Topic]) {
    let count = u32::try_from(topics.len()).expect("an event has fewer topics");
    body.extend(count.to_le_bytes());
    for topic in topics {
        put_text(body, topic.as_str());
    }
}

fn put_event(body: &mut Vec<u8>, target: &Target, draft: &Draft) {
    let parts = target.identity.parts();
    let flag = |is_given: bool, flag: u8| if is_given { flag } else { 0 };
    let flags = flag(target.to.is_some(), TO)
        | flag(target.id.is_some(), ID)
        | flag(target.key.is_some(), KEY)
        | flag(target.ttl.is_some(), TTL)
        | flag(parts.key.is_some(), IDEMPOTENCY_KEY)
        | flag(parts.content.is_some(), CONTENT)
        | flag(target.is_live_only, LIVE_ONLY);
    body.push(flags);
    put_topics(body, &target.topics);
    if let Some(to) = &target.to {
        put_topics(body, to);
    }
    for text in [&target.id, &target.key].into_iter().flatten() {
        put_text(body, text);
    }
    if let Some(ttl) = target.ttl {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        body.extend(millis.to_le_bytes());
    }
    body.extend(parts.key.iter().flatten().flatten());
    body.extend(parts.content.iter().flatten());
    body.extend(draft.encoded());
}

/// Takes a body apart.
struct Reading<'a>(&'a [u8]);

impl<'a> Reading<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = u16::from_le_bytes(self.array()?);
        std::str::from_utf8(self.bytes(len.into())?).ok()
    }

    fn topic(&mut self) -> Option<Topic> {
        self.text().map(Topic::of_checked)
    }

    fn topics(&mut self) -> Option<Vec<Topic>> {
        let count = u32::from_le_bytes(self.array()?);
        (0..count).map(|_| self.topic()).collect()
    }

    fn event(&mut self) -> Option<(Draft, Target)> {
        let [flags] = self.array()?;
        if flags & LATER != 0 {
            return None;
        }
        let has = |flag: u8| flags & flag != 0;
        let topics = self.topics()?;
        let to = if has(TO) { Some(self.topics()?) } else { None };
        let id = if has(ID) {
            Some(self.text()?.into())
        } else {
            None
        };
        let key = if has(KEY) {
            Some(self.text()?.into())
        } else {
            None
        };
        let ttl = if has(TTL) {
            Some(Duration::from_millis(self.u64()?))
        } else {
            None
        };
        let parts = IdentityParts {
            key: if has(IDEMPOTENCY_KEY) {
                Some([self.array()?, self.array()?])
            } else {
                None
            },
            content: if has(CONTENT) {
                Some(self.array()?)
            } else {
                None
            },
        };
        let target = Target {
            identity: Identity::from_parts(parts, &topics),
            topics,
            to,
            id,
            key,
            ttl,
            is_live_only: has(LIVE_ONLY),
        };
        Some((Draft::from_encoded(self.0), target))
    }
}

/// Whether a later version has put something into an entry that this one would take for something else.
pub(super) fn is_of_later(kind: Kind, body: &[u8]) -> bool {
    flags(kind, body).is_some_and(|flags| flags & LATER != 0)
}

/// What of an event is given.
fn flags(kind: Kind, body: &[u8]) -> Option<u8> {
    let at = match kind {
        Kind::Event => 0,
        Kind::Waits => 8,
        Kind::Release => 16,
        _ => return None,
    };
    body.get(at).copied()
}

/// Whether an entry is known if it comes again.
pub(super) fn is_identified(kind: Kind, body: &[u8]) -> bool {
    let flags = match kind {
        Kind::Repeat => return true,
        Kind::Release => None,
        _ => flags(kind, body),
    };
    flags.is_some_and(|flags| flags & (IDEMPOTENCY_KEY | CONTENT) != 0)
}

/// What a record is of; `None` if it is of nothing that this program writes.
pub(super) fn decode(kind: Kind, body: &[u8]) -> Option<Content> {
    let mut body = Reading(body);
    Some(match kind {
        Kind::Event | Kind::Waits => {
            let turn = if kind == Kind::Waits {
                Some(body.u64()?)
            } else {
                None
            };
            let (draft, target) = body.event()?;
            Content::Event {
                draft,
                target,
                turn,
            }
        }
        Kind::Release => {
            let published = (body.u64()?, body.u64()?);
            let (draft, target) = body.event()?;
            Content::Release {
                draft,
                target,
                published,
            }
        }
        Kind::Delete => Content::Other(Entry::Delete(body.topic()?), None),
        Kind::Retract => {
            let taken = Some(body.u64()?).filter(|number| *number > 0);
            let id = body.text()?.into();
            let topics = body.topics()?.into();
            Content::Other(Entry::Retract { topics, id }, taken)
        }
        Kind::Close => Content::Other(Entry::Close(body.topic()?), None),
        Kind::Disconnect => Content::Other(Entry::Disconnect(body.topic()?), None),
        Kind::Passed => Content::Passed,
        Kind::Mark => Content::Mark(Some(body.text()?.to_owned()).filter(|id| !id.is_empty())),
        Kind::Repeat => {
            let first = body.u64()?;
            let parts = IdentityParts {
                key: Some([body.array()?, body.array()?]),
                content: None,
            };
            Content::Repeat(Identity::from_parts(parts, &[]), first)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{clock, hub::Key};

    fn names() -> impl Strategy<Value = Vec<Topic>> {
        let name = "[^\\p{Cc}$][^\\p{Cc}]{0,20}";
        proptest::collection::vec(name, 0..4).prop_map(|names| {
            let topic = |name: &String| Topic::parse(name).expect("a topic");
            names.iter().map(topic).collect()
        })
    }

    proptest! {
        #[test]
        fn an_event_comes_back_as_it_was_written(
            topics in names(), to in proptest::option::of(names()),
            live: bool, id in proptest::option::of("[a-z ]{1,255}"), key in proptest::option::of("\\PC{0,80}"),
            ttl in proptest::option::of(0u64..u64::MAX), data: String,
            named in any::<bool>(), again in proptest::option::of("[a-z]{1,9}"),
        ) {
            let wall = Wall::new(clock::now(), clock::wall());
            let mut identity = Identity::of_key(again.map(|key| Key::new(key.as_bytes(), &[data.as_bytes()])));
            if named {
                identity = identity.with_id("1", &topics, None, &data);
            }
            let target = Target {
                topics, to, identity, is_live_only: live,
                id: id.map(Into::into), key: key.map(Into::into), ttl: ttl.map(Duration::from_millis),
            };
            let (said, of) = (format!("{target:?}"), hashes(&target.topics));
            let is_empty = target.topics.is_empty();
            let entry = Entry::Event { draft: Draft::new(Some("type"), &data, None), target };
            prop_assert_eq!(encode(&entry, &wall).kind == Kind::Passed, live || is_empty);
            let Encoded { kind, body, topics } = encode_all(&entry, &wall);
            let Entry::Event { draft, .. } = entry else { unreachable!() };
            prop_assert_eq!(topics, of);
            prop_assume!(!is_empty);
            let Some(Content::Event { draft: read, target, turn: None }) = decode(kind, &body) else {
                panic!("an event");
            };
            prop_assert_eq!(format!("{target:?}"), said);
            prop_assert_eq!(read.finish("x"), draft.finish("x"));
            let turn = before(Kind::Waits, Some(wall.began().0), None, &wall).expect("it has one");
            let waits = [&turn[..], &body].concat();
            let waits = decode(Kind::Waits, &waits);
            let Some(Content::Event { turn: Some(at), .. }) = waits else {
                panic!("an event that waits");
            };
            prop_assert_eq!(at, wall.began().1 + 1);
        }

        #[test]
        fn anything_is_read_without_a_panic(kind in 0u8..11, body in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(kind) = Kind::from_u8(kind) {
                let _: Option<Content> = decode(kind, &body);
            }
        }
    }

    #[test]
    fn what_is_no_event_comes_back_too() {
        let wall = Wall::new(clock::now(), clock::wall());
        let topic = |name| Topic::parse(name).expect("a topic");
        let topics = vec![topic("a"), topic("b")].into();
        for entry in [
            Entry::Delete(topic("a")),
            Entry::Disconnect(topic("a")),
            Entry::Close(topic("ä")),
            Entry::Retract {
                topics,
                id: "1".into(),
            },
        ] {
            let Encoded { kind, body, .. } = encode_all(&entry, &wall);
            let taken = (kind == Kind::Retract).then_some(7);
            let before = before(kind, None, taken, &wall);
            let body = [before.as_ref().map_or(&[][..], |b| b), &body].concat();
            let Some(Content::Other(read, was_taken)) = decode(kind, &body) else {
                panic!("no event");
            };
            assert_eq!(was_taken, taken);
            assert_eq!(format!("{read:?}"), format!("{entry:?}"));
        }
        let ended = encode(&Entry::Disconnect(topic("a")), &wall);
        assert!(matches!(
            decode(ended.kind, &ended.body),
            Some(Content::Passed)
        ));
    }
}
