//! People rather than topics: users, groups and those nested in them. Groups are expanded when
//! something is published, so a change of theirs takes effect at once.

use serde::Deserialize;

use super::one_or_many::OneOrMany;
use crate::{
    access::{Access, Name},
    exchange::Problem,
    topic::Topic,
};

/// The most users, and the most groups, that one event may name.
const MAX_NAMED: usize = 1000;

/// The most that groups may come to.
const MAX_EXPANDED: usize = 10_000;

/// The people an event is for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct To {
    #[serde(default)]
    pub(super) users: OneOrMany,
    #[serde(default)]
    pub(super) groups: OneOrMany,
}

impl To {
    /// The reserved topics of these people.
    pub(super) fn topics(&self, access: &Access) -> Result<Vec<Topic>, Problem> {
        let users = names("users", self.users.as_slice())?;
        let groups = names("groups", self.groups.as_slice())?;
        if users.is_empty() && groups.is_empty() {
            let detail = "neither users nor groups are named: it is for nobody";
            return Err(Problem::field("users", "", detail));
        }
        let expansion = access.groups().expand(&groups);
        let mut topics: Vec<Topic> = users
            .iter()
            .chain(&expansion.users)
            .map(Name::user_topic)
            .collect();
        topics.extend(expansion.groups.iter().map(Name::group_topic));
        if topics.len() > MAX_EXPANDED {
            let n = topics.len();
            let detail =
                format!("the groups come to {n} users and groups, the limit is {MAX_EXPANDED}");
            return Err(Problem::field("groups", &n.to_string(), detail).with_limit(MAX_EXPANDED));
        }
        Ok(topics)
    }
}

fn names(field: &'static str, names: &[String]) -> Result<Vec<Name>, Problem> {
    if names.len() > MAX_NAMED {
        let n = names.len();
        let detail =
            format!("{n} {field} are named, the limit is {MAX_NAMED}; nest them in a group");
        return Err(Problem::field(field, &n.to_string(), detail).with_limit(MAX_NAMED));
    }
    let parse = |name: &String| {
        Name::parse(name).map_err(|error| Problem::field(field, name, error.to_string()))
    };
    names.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        access::{Groups, Member, Standing},
        hub::{
            Entry, Hub, HubBounds, Next, Placed, Resume, Retention, Target, TopicRules,
            mailbox::Mailbox,
        },
        sse::{Draft, Epoch},
    };

    fn name(kind: &str, n: u8) -> Name {
        Name::parse(&format!("{kind}{n}")).expect("a name")
    }

    proptest! {
        /// For any nesting of groups and any set of streams, a message reaches exactly the people that
        /// a plain walk of the graph names, each of their streams once.
        #[test]
        fn a_message_reaches_whom_a_plain_walk_names(
            edges in proptest::collection::vec((0u8..6, 0u8..6), 0..15),
            made_members in proptest::collection::vec((0u8..6, 0u8..5), 0..5),
            streams in proptest::collection::vec((0u8..5, proptest::collection::btree_set(0u8..6, 0..3)), 0..10),
            to_users in proptest::collection::vec(0u8..5, 0..3),
            to_groups in proptest::collection::vec(0u8..6, 0..3),
        ) {
            let mut groups = Groups::default();
            let mut nested: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
            for (above, below) in edges {
                if groups.add(&name("g", above), Member::Group(name("g", below))).is_ok() {
                    nested.entry(above).or_default().insert(below);
                }
            }
            for (group, user) in &made_members {
                groups.add(&name("g", *group), Member::User(name("u", *user))).expect("room");
            }
            let hub = Hub::new(Retention::default(), TopicRules::default(), HubBounds::default(), Epoch::from_random(1), 0, &[]);
            let mailbox = Mailbox::new([127, 0, 0, 1].into());
            let now = crate::clock::now();
            let mut readers: Vec<_> = streams.iter().map(|(user, own)| {
                let mut topics = vec![Topic::parse("own").expect("a topic"), Standing::Authenticated.topic(), name("u", *user).user_topic()];
                topics.extend(own.iter().map(|g| name("g", *g).group_topic()));
                hub.subscribe(&topics, Resume::Live, &mailbox, now).expect("there is room").0
            }).collect();

            let asked: Vec<Name> = to_groups.iter().map(|g| name("g", *g)).collect();
            let expansion = groups.expand(&asked);
            let mut topics: Vec<Topic> = to_users.iter().map(|u| name("u", *u).user_topic()).collect();
            topics.extend(expansion.users.iter().map(Name::user_topic));
            topics.extend(expansion.groups.iter().map(Name::group_topic));
            let target = Target { topics, ..Target::default() };
            let entry = Entry::Event { draft: Draft::new(None, "x", None), target };
            let placed = Placed::new(1, now, entry);
            let receivers = hub.apply([placed]).applied[0].receivers;

            let mut reached: BTreeSet<u8> = to_groups.iter().copied().collect();
            loop {
                let more: BTreeSet<u8> = reached.iter().flat_map(|g| nested.get(g).into_iter().flatten().copied()).collect();
                if more.is_subset(&reached) { break; }
                reached.extend(more);
            }
            let mut got = 0;
            for ((user, own), reader) in streams.iter().zip(&mut readers) {
                let made = made_members.iter().any(|(g, u)| u == user && reached.contains(g));
                let meant = to_users.contains(user) || made || !own.is_disjoint(&reached);
                match reader.next(1 << 20) {
                    Next::Chunk(chunk) => prop_assert_eq!((meant, chunk.events), (true, 1)),
                    next => prop_assert_eq!((meant, next), (false, Next::Nothing)),
                }
                got += usize::from(meant);
            }
            prop_assert_eq!(receivers, got);
        }
    }
}
