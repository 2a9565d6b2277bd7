//! Who reads a topic, where a rule says that those who may read it are told.
//!
//! Pure.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
};

use serde_json::{Value, json};

use crate::{access::Name, topic::Topic};

/// How many names one event tells at most.
const NAMES: usize = 500;

/// Who reads the topics of which that is told.
#[derive(Debug, Default)]
pub(super) struct Presence {
    of: HashMap<Topic, Present>,
    /// Those of which something is to be told.
    changed: HashSet<Topic>,
}

/// Who has come to a topic and left it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The topic that they read.
    pub(super) topic: Topic,
    joined: Vec<Name>,
    left: Vec<Name>,
    users: usize,
    anonymous: usize,
}

/// Who reads one topic.
#[derive(Debug, Default)]
struct Present {
    /// How many streams each user has there. Invariant: none is 0.
    users: BTreeMap<Name, usize>,
    anonymous: usize,
    /// Who has come or gone since it was told, and whether they were there then.
    changes: BTreeMap<Name, bool>,
    /// How many anonymous streams were told of.
    anonymous_told: usize,
}

/// Some of those who read a topic.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Readers {
    /// The users, by name, with how many streams each has.
    pub(super) users: Vec<(Name, usize)>,
    /// How many streams there are of whom nobody knows who they are.
    pub(super) anonymous: usize,
}

impl Presence {
    /// A stream begins that reads these topics.
    pub(super) fn enter(&mut self, topics: &[Topic], user: Option<&Name>) {
        for topic in topics {
            let present = self.of.entry(topic.clone()).or_default();
            let Some(user) = user else {
                present.anonymous += 1;
                self.changed.insert(topic.clone());
                continue;
            };
            let streams = present.users.entry(user.clone()).or_default();
            *streams += 1;
            if *streams == 1 {
                present.changes.entry(user.clone()).or_insert(false);
                self.changed.insert(topic.clone());
            }
        }
    }

    /// One that began ends.
    pub(super) fn leave(&mut self, topics: &[Topic], user: Option<&Name>) {
        for topic in topics {
            let Some(present) = self.of.get_mut(topic) else {
                continue;
            };
            let Some(user) = user else {
                present.anonymous -= 1;
                self.changed.insert(topic.clone());
                continue;
            };
            if let Some(streams) = present.users.get_mut(user) {
                *streams -= 1;
                if *streams == 0 {
                    present.users.remove(user);
                    present.changes.entry(user.clone()).or_insert(true);
                    self.changed.insert(topic.clone());
                }
            }
        }
    }

    /// What has changed since this was asked last. Whoever has come and gone again meanwhile, or gone and come
    /// again, has not changed.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let mut all = Vec::new();
        for topic in self.changed.drain() {
            if let Some(present) = self.of.get_mut(&topic) {
                let is_empty = present.users.is_empty() && present.anonymous == 0;
                if is_empty {
                    let present = self.of.remove(&topic);
                    all.extend(present.and_then(|mut present| present.change(topic)));
                } else {
                    all.extend(present.change(topic));
                }
            }
        }
        all
    }

    /// Who reads a topic, of the users those after `after`, at most so many.
    pub(super) fn of(&self, topic: &Topic, after: Option<&Name>, most: usize) -> Readers {
        let Some(present) = self.of.get(topic) else {
            return Readers::default();
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let users = present.users.range((from, Bound::Unbounded)).take(most);
        Readers {
            users: users
                .map(|(user, streams)| (user.clone(), *streams))
                .collect(),
            anonymous: present.anonymous,
        }
    }
}

impl Present {
    /// What has changed, which is told from then on.
    fn change(&mut self, topic: Topic) -> Option<Change> {
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for (user, was_there) in std::mem::take(&mut self.changes) {
            match (was_there, self.users.contains_key(&user)) {
                (false, true) => joined.push(user),
                (true, false) => left.push(user),
                _ => {}
            }
        }
        let before = std::mem::replace(&mut self.anonymous_told, self.anonymous);
        let is_none = joined.is_empty() && left.is_empty() && before == self.anonymous;
        (!is_none).then_some(Change {
            topic,
            joined,
            left,
            users: self.users.len(),
            anonymous: self.anonymous,
        })
    }
}

impl Change {
    /// The data of the events that tell of it, each of so many names at most.
    pub(super) fn events(&self) -> impl Iterator<Item = String> + '_ {
        let parts = self
            .joined
            .len()
            .max(self.left.len())
            .div_ceil(NAMES)
            .max(1);
        let part = |names: &[Name], at: usize| -> Value {
            let names = names.chunks(NAMES).nth(at).unwrap_or_default();
            names.iter().map(Name::as_str).collect()
        };
        (0..parts).map(move |at| {
            let event = json!({
                "join": part(&self.joined, at),
                "leave": part(&self.left, at),
                "users": self.users,
                "anonymous": self.anonymous,
            });
            event.to_string()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn name(n: u32) -> Name {
        Name::parse(&format!("u{n:04}")).expect("a name")
    }

    proptest! {
        /// Whoever keeps the list that is told has it right, however people come and go between two moments.
        #[test]
        fn whoever_listens_knows_who_is_there(
            steps in proptest::collection::vec((0u32..6, any::<bool>(), any::<bool>()), 1..60),
        ) {
            let topic = Topic::parse("a").expect("a topic");
            let topics = [topic.clone()];
            let mut presence = Presence::default();
            let mut open: Vec<Option<Name>> = Vec::new();
            let (mut known, mut strangers) = (BTreeSet::new(), 0);
            for (user, comes, tells) in steps {
                if comes || open.is_empty() {
                    let user = (user > 0).then(|| name(user));
                    presence.enter(&topics, user.as_ref());
                    open.push(user);
                } else {
                    let user = open.swap_remove(user as usize % open.len());
                    presence.leave(&topics, user.as_ref());
                }
                if !tells {
                    continue;
                }
                let changes = presence.changes();
                for data in changes.iter().flat_map(Change::events) {
                    let data: Value = serde_json::from_str(&data).expect("JSON");
                    for user in data["join"].as_array().expect("a list") {
                        prop_assert!(known.insert(user.as_str().expect("text").to_owned()));
                    }
                    for user in data["leave"].as_array().expect("a list") {
                        prop_assert!(known.remove(user.as_str().expect("text")));
                    }
                    strangers = data["anonymous"].as_u64().expect("a number") as usize;
                }
                let there: BTreeSet<String> = open.iter().flatten().map(ToString::to_string).collect();
                prop_assert_eq!(&known, &there);
                prop_assert_eq!(strangers, open.iter().filter(|user| user.is_none()).count());
                let listed = presence.of(&topic, None, 99);
                prop_assert_eq!(listed.users.len(), there.len());
                prop_assert_eq!(listed.anonymous, strangers);
            }
            for user in open {
                presence.leave(&topics, user.as_ref());
            }
            presence.changes();
            prop_assert!(presence.of.is_empty() && presence.changed.is_empty());
        }
    }

    #[test]
    fn a_crowd_is_told_in_parts_and_listed_in_pages() {
        let topic = Topic::parse("a").expect("a topic");
        let mut presence = Presence::default();
        for n in 0..1200 {
            presence.enter(std::slice::from_ref(&topic), Some(&name(n)));
        }
        assert_eq!(
            presence.changes().iter().flat_map(Change::events).count(),
            3
        );
        assert_eq!(presence.changes(), []);
        let page = presence.of(&topic, Some(&name(1189)), 100);
        assert_eq!(page.users.len(), 10);
    }
}
