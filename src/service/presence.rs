//! Who reads a topic, where a rule says that those who may read it are told.
//!
//! Pure.

use std::{
    collections::{BTreeMap, HashMap},
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
                continue;
            };
            let streams = present.users.entry(user.clone()).or_default();
            *streams += 1;
            if *streams == 1 {
                present.changes.entry(user.clone()).or_insert(false);
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
                continue;
            };
            if let Some(streams) = present.users.get_mut(user) {
                *streams -= 1;
                if *streams == 0 {
                    present.users.remove(user);
                    present.changes.entry(user.clone()).or_insert(true);
                }
            }
        }
    }

    /// What has changed since it was told last, as the data of events; `is_read` says whether anyone reads what is
    /// told of a topic. Whoever has come and gone again meanwhile, or gone and come again, has not changed.
    pub(super) fn tell(&mut self, is_read: impl Fn(&Topic) -> bool) -> Vec<(Topic, String)> {
        let mut told = Vec::new();
        self.of.retain(|topic, present| {
            let changed =
                !present.changes.is_empty() || present.anonymous != present.anonymous_told;
            if changed && is_read(topic) {
                told.extend(
                    present
                        .tell()
                        .into_iter()
                        .map(|data| (topic.presence(), data)),
                );
            }
            present.changes.clear();
            present.anonymous_told = present.anonymous;
            !present.users.is_empty() || present.anonymous > 0
        });
        told
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
    fn tell(&self) -> Vec<String> {
        let changed = |is_there: bool| {
            let changes = self.changes.iter();
            let changes = changes.filter(move |(user, was_there)| {
                **was_there != is_there && self.users.contains_key(*user) == is_there
            });
            changes.map(|(user, _)| user.as_str())
        };
        let joined: Vec<&str> = changed(true).collect();
        let left: Vec<&str> = changed(false).collect();
        if joined.is_empty() && left.is_empty() && self.anonymous == self.anonymous_told {
            return Vec::new();
        }
        let parts = joined
            .len()
            .div_ceil(NAMES)
            .max(left.len().div_ceil(NAMES))
            .max(1);
        let part = |names: &[&str], at: usize| -> Value {
            names.chunks(NAMES).nth(at).unwrap_or_default().into()
        };
        let event = |at| {
            json!({
                "join": part(&joined, at),
                "leave": part(&left, at),
                "users": self.users.len(),
                "anonymous": self.anonymous,
            })
        };
        (0..parts).map(|at| event(at).to_string()).collect()
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
                for (of, data) in presence.tell(|_| true) {
                    prop_assert_eq!(of.as_str(), "$presence/a");
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
            presence.tell(|_| true);
            prop_assert!(presence.of.is_empty());
        }
    }

    #[test]
    fn a_crowd_is_told_in_parts_and_listed_in_pages() {
        let topic = Topic::parse("a").expect("a topic");
        let mut presence = Presence::default();
        for n in 0..1200 {
            presence.enter(std::slice::from_ref(&topic), Some(&name(n)));
        }
        assert_eq!(presence.tell(|_| true).len(), 3);
        assert_eq!(presence.tell(|_| true), []);
        let page = presence.of(&topic, Some(&name(1189)), 100);
        assert_eq!(page.users.len(), 10);
        // What nobody hears is not told later either: whoever comes asks who is there.
        presence.leave(std::slice::from_ref(&topic), Some(&name(7)));
        assert_eq!(presence.tell(|_| false), []);
        assert_eq!(presence.tell(|_| true), []);
    }
}
