//! Publishes that come again: a publisher that heard no answer sends the same once more.
//!
//! Pure: judged by the order of entries and the times that are stored with them and nothing else, so
//! that whoever applies the same entries judges alike.

use std::{
    collections::{HashMap, VecDeque, hash_map},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{Context, SHA256};
use smallvec::SmallVec;

use crate::topic::Topic;

/// The half of a SHA-256, which nobody can find two texts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Digest([u8; 16]);

impl Digest {
    /// That of parts which cannot run into each other.
    fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let digest = context.finish();
        Self(digest.as_ref()[..16].try_into().expect("it has 32 bytes"))
    }
}

/// By what a publish is known when it comes again. The default is known by nothing.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    key: Option<Key>,
    /// Its own id with its type and data.
    content: Option<Digest>,
    /// The same in each of its topics.
    ids: SmallVec<[Digest; 1]>,
}

/// What an [`Identity`] is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityParts {
    /// The key, and the request that it was given for.
    pub key: Option<[[u8; 16]; 2]>,
    /// The publisher's own id, with the type and the data.
    pub content: Option<[u8; 16]>,
}

/// The `Idempotency-Key` of a request, and what it was given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    key: Digest,
    request: Digest,
}

impl Key {
    /// The key of a request that is made of `parts`.
    #[must_use]
    pub fn new(key: &[u8], parts: &[&[u8]]) -> Self {
        Self {
            key: Digest::of(&[b"key", key]),
            request: Digest::of(parts),
        }
    }
}

impl Identity {
    /// That of a request with this key.
    #[must_use]
    pub fn of_key(key: Option<Key>) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }

    /// The same of an event that has its publisher's own id.
    #[must_use]
    pub fn with_id(self, id: &str, topics: &[Topic], event: Option<&str>, data: &str) -> Self {
        let event = event.unwrap_or_default();
        let content = Digest::of(&[b"event", id.as_bytes(), event.as_bytes(), data.as_bytes()]);
        self.with_content(content, topics)
    }

    fn with_content(self, content: Digest, topics: &[Topic]) -> Self {
        let of = |topic: &Topic| Digest::of(&[b"id", topic.as_str().as_bytes(), &content.0]);
        Self {
            content: Some(content),
            ids: topics.iter().map(of).collect(),
            ..self
        }
    }

    /// Whether it is known by anything.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.key.is_some() || self.content.is_some()
    }

    /// What it is made of again, with its topics: the key with its request, and the content.
    #[must_use]
    pub fn parts(&self) -> IdentityParts {
        IdentityParts {
            key: self.key.map(|Key { key, request }| [key.0, request.0]),
            content: self.content.map(|content| content.0),
        }
    }

    /// One that was taken apart, of an event to these topics.
    #[must_use]
    pub fn from_parts(parts: IdentityParts, topics: &[Topic]) -> Self {
        let key = parts.key.map(|[key, request]| Key {
            key: Digest(key),
            request: Digest(request),
        });
        let identity = Self::of_key(key);
        match parts.content {
            Some(content) => identity.with_content(Digest(content), topics),
            None => identity,
        }
    }
}

/// What an entry repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// The event with this number, which was published before.
    Of(u64),
    /// The key of another request.
    OfKey,
}

/// What was published of late.
#[derive(Debug)]
pub(super) struct Duplicates {
    age: Duration,
    most: usize,
    /// Invariant: those in `order`, each once.
    seen: HashMap<Digest, Seen>,
    /// Oldest first.
    order: VecDeque<Remembered>,
}

/// What is known, since when, and by which entry: a repetition of another is known by itself.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    at: Instant,
    by: u64,
    digest: Digest,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    sequence: u64,
    /// The request that a key was given for.
    request: Option<Digest>,
}

impl Duplicates {
    /// Remembers what was published for `age`, and at most `most` keys and ids of it.
    pub(super) fn new(age: Duration, most: usize) -> Self {
        Self {
            age,
            most,
            seen: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether this entry, the newest of all, repeats one before it. If not, it is remembered.
    pub(super) fn judge(
        &mut self,
        identity: &Identity,
        sequence: u64,
        at: Instant,
    ) -> Option<Repeat> {
        self.forget_older(at);
        let of_key = identity.key.and_then(|Key { key, request }| {
            let seen = self.seen.get(&key)?;
            Some(if seen.request == Some(request) {
                Repeat::Of(seen.sequence)
            } else {
                Repeat::OfKey
            })
        });
        let repeat = of_key.or_else(|| {
            let seen = identity.ids.iter().filter_map(|id| self.seen.get(id));
            let first = seen.map(|seen| seen.sequence).min();
            first.map(Repeat::Of)
        });
        let by = sequence;
        let sequence = match repeat {
            Some(Repeat::OfKey) => return repeat,
            Some(Repeat::Of(first)) => first,
            None => sequence,
        };
        let mut remember = |digest, request| {
            let seen = Seen { sequence, request };
            self.remember(seen, Remembered { at, by, digest });
        };
        if let Some(Key { key, request }) = identity.key {
            remember(key, Some(request));
        }
        if repeat.is_none() {
            for id in &identity.ids {
                remember(*id, None);
            }
        }
        while self.order.len() > self.most {
            self.forget();
        }
        repeat
    }

    fn remember(&mut self, seen: Seen, remembered: Remembered) {
        if let hash_map::Entry::Vacant(place) = self.seen.entry(remembered.digest) {
            place.insert(seen);
            self.order.push_back(remembered);
        }
    }

    /// An entry comes again under a key of its own, as it was judged before.
    pub(super) fn repeats(&mut self, identity: &Identity, first: u64, at: Instant) {
        if let Some(Key { key, request }) = identity.key {
            let (sequence, request) = (first, Some(request));
            let seen = Seen { sequence, request };
            let remembered = Remembered {
                at,
                by: first,
                digest: key,
            };
            self.remember(seen, remembered);
        }
    }

    /// Forgets the entries from a number on, which were judged and are not in the order after all.
    pub(super) fn undo(&mut self, from: u64) {
        while let Some(undone) = self.order.pop_back_if(|last| last.by >= from) {
            self.seen.remove(&undone.digest);
        }
    }

    /// Forgets what was published more than `age` before `now`.
    pub(super) fn forget_older(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front()
            && now.saturating_duration_since(oldest.at) > self.age
        {
            self.forget();
        }
    }

    fn forget(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.seen.remove(&oldest.digest);
        }
        if self.order.is_empty() {
            // What a burst took is given back.
            self.order = VecDeque::new();
            self.seen = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGE: Duration = Duration::from_secs(120);

    fn topics(names: &[&str]) -> Vec<Topic> {
        let parse = |name: &&str| Topic::parse(name).expect("a topic");
        names.iter().map(parse).collect()
    }

    fn id(id: &str, names: &[&str], data: &str) -> Identity {
        Identity::default().with_id(id, &topics(names), Some("type"), data)
    }

    fn key(key: &str, body: &str) -> Identity {
        Identity::of_key(Some(Key::new(key.as_bytes(), &[body.as_bytes()])))
    }

    #[test]
    fn an_id_with_the_same_content_in_one_of_the_topics_is_a_repetition() {
        let now = crate::clock::now();
        let mut duplicates = Duplicates::new(AGE, 100);
        let mut judge = |identity, sequence| duplicates.judge(&identity, sequence, now);
        assert_eq!(judge(id("1", &["a", "b"], "x"), 1), None);
        assert_eq!(judge(id("1", &["b", "c"], "x"), 2), Some(Repeat::Of(1)));
        // Nothing of the repetition was published, so `c` has not seen it.
        assert_eq!(judge(id("1", &["c"], "x"), 3), None);
        assert_eq!(judge(id("1", &["a"], "y"), 4), None);
        assert_eq!(judge(id("1", &["a"], "x"), 5), Some(Repeat::Of(1)));
        assert_eq!(judge(id("2", &["a"], "x"), 6), None);
        assert_eq!(judge(Identity::default(), 7), None);
        assert_eq!(judge(Identity::default(), 8), None);
    }

    #[test]
    fn a_key_is_of_one_request() {
        let now = crate::clock::now();
        let mut duplicates = Duplicates::new(AGE, 100);
        let mut judge = |identity, sequence| duplicates.judge(&identity, sequence, now);
        assert_eq!(judge(key("k", "x"), 1), None);
        assert_eq!(judge(key("k", "x"), 2), Some(Repeat::Of(1)));
        assert_eq!(judge(key("k", "y"), 3), Some(Repeat::OfKey));
        assert_eq!(judge(key("l", "x"), 4), None);
        // A key that came with an id seen before is that event's too.
        let both = key("m", "z").with_id("1", &topics(&["a"]), None, "z");
        assert_eq!(judge(both.clone(), 5), None);
        let other = key("n", "z").with_id("1", &topics(&["a"]), None, "z");
        assert_eq!(judge(other.clone(), 6), Some(Repeat::Of(5)));
        assert_eq!(judge(other, 7), Some(Repeat::Of(5)));
    }

    #[test]
    fn what_is_undone_is_not_known_though_a_part_of_it_repeated_another() {
        let now = crate::clock::now();
        let mut duplicates = Duplicates::new(AGE, 100);
        let of_id = |name, n: &str| key(name, "x").with_id(n, &topics(&["a"]), None, n);
        duplicates.judge(&of_id("k", "1"), 1, now);
        duplicates.judge(&key("new", "x"), 2, now);
        assert_eq!(
            duplicates.judge(&of_id("l", "1"), 3, now),
            Some(Repeat::Of(1))
        );
        duplicates.undo(2);
        assert_eq!(duplicates.order.len(), 2);
        assert_eq!(duplicates.judge(&key("new", "x"), 2, now), None);
        assert_eq!(
            duplicates.judge(&of_id("m", "1"), 3, now),
            Some(Repeat::Of(1))
        );
    }

    proptest! {
        /// Against the plainest model: a list of all that was published, searched from its end.
        #[test]
        fn it_remembers_for_its_time_and_no_more_than_it_may(
            steps in proptest::collection::vec((0u8..6, 0u64..90), 0..60),
            most in 0usize..8,
        ) {
            let mut duplicates = Duplicates::new(AGE, most);
            let mut published: Vec<(u8, u64, Instant)> = Vec::new();
            let mut now = crate::clock::now();
            for (number, (name, later)) in steps.into_iter().enumerate() {
                let sequence = number as u64 + 1;
                now += Duration::from_secs(later);
                let remembered = published.iter().rev().take(most);
                let young = remembered.filter(|(_, _, at)| now - *at <= AGE);
                let expected = young.filter(|(n, ..)| *n == name).map(|(_, first, _)| *first).next();
                let got = duplicates.judge(&key(&name.to_string(), "x"), sequence, now);
                prop_assert_eq!(got, expected.map(Repeat::Of));
                if expected.is_none() {
                    published.push((name, sequence, now));
                }
                prop_assert!(duplicates.order.len() <= most);
                prop_assert_eq!(duplicates.order.len(), duplicates.seen.len());
            }
        }
    }
}
