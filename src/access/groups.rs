//! Groups nested in groups. Pure.
//!
//! Membership of people comes with their identity; what is kept here is which groups (and which
//! users, by an operator's word) belong to a group. It is expanded when something is published, so
//! a change takes effect at once for streams that are open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use thiserror::Error;

use super::{InvalidName, Name};

/// The most members of all groups together.
const MAX_MEMBERS: usize = 100_000;

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// `user:NAME`
    User(Name),
    /// `group:NAME`: all of its members.
    Group(Name),
}

/// Why a member cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidMember {
    #[error("`{0}` is not a member; write user:NAME or group:NAME")]
    Kind(String),
    /// Its name is not one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The group would be in itself.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    #[error("there are {MAX_MEMBERS} members in all groups already, which is the limit")]
    TooMany,
}

/// Groups that would be nested in themselves, from the first to itself again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Cycle(pub Vec<Name>);

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: Vec<&str> = self.0.iter().map(Name::as_str).collect();
        write!(
            f,
            "the groups would be nested in a cycle: {}",
            path.join(" > ")
        )
    }
}

/// All that groups come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The groups, and those nested in them.
    pub groups: BTreeSet<Name>,
    /// The users who were made members of one of them.
    pub users: BTreeSet<Name>,
}

/// Which members belong to which group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Invariant: without cycles, and no group is empty.
    members: BTreeMap<Name, BTreeSet<Member>>,
    /// Invariant: the sum of the members of all groups.
    count: usize,
}

impl Member {
    /// Reads `user:NAME` or `group:NAME`.
    ///
    /// # Errors
    ///
    /// [`InvalidMember`] when it is neither.
    pub fn parse(member: &str) -> Result<Self, InvalidMember> {
        match member.split_once(':') {
            Some(("user", name)) => Ok(Self::User(Name::parse(name)?)),
            Some(("group", name)) => Ok(Self::Group(Name::parse(name)?)),
            _ => Err(InvalidMember::Kind(member.into())),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl Groups {
    /// Adds a member; `false` when it is one already.
    ///
    /// # Errors
    ///
    /// [`InvalidMember::Cycle`] with its path when the group would be nested in itself.
    pub fn add(&mut self, group: &Name, member: Member) -> Result<bool, InvalidMember> {
        let is_new = self.would_add(group, &member)?;
        if is_new {
            let members = self.members.entry(group.clone()).or_default();
            members.insert(member);
            self.count += 1;
        }
        Ok(is_new)
    }

    /// Whether a member would be added that is none yet.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn would_add(&self, group: &Name, member: &Member) -> Result<bool, InvalidMember> {
        if self.has(group, member) {
            return Ok(false);
        }
        if self.count >= MAX_MEMBERS {
            return Err(InvalidMember::TooMany);
        }
        if let Member::Group(nested) = member
            && let Some(mut path) = self.path(nested, group)
        {
            path.insert(0, group.clone());
            return Err(Cycle(path).into());
        }
        Ok(true)
    }

    /// Whether a group has a member, itself.
    #[must_use]
    pub fn has(&self, group: &Name, member: &Member) -> bool {
        let members = self.members.get(group);
        members.is_some_and(|members| members.contains(member))
    }

    /// Removes a member; `false` when it was none.
    pub fn remove(&mut self, group: &Name, member: &Member) -> bool {
        let Some(members) = self.members.get_mut(group) else {
            return false;
        };
        let removed = members.remove(member);
        self.count -= usize::from(removed);
        if members.is_empty() {
            self.members.remove(group);
        }
        removed
    }

    /// The groups that have members, by name.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.members.keys()
    }

    /// The direct members of a group.
    pub fn members(&self, group: &Name) -> impl Iterator<Item = &Member> {
        self.members.get(group).into_iter().flatten()
    }

    /// The groups themselves, all that are nested in them, and the users in any of these.
    #[must_use]
    pub fn expand(&self, groups: &[Name]) -> Expansion {
        let mut expansion = Expansion::default();
        let mut rest: Vec<&Name> = groups.iter().collect();
        while let Some(group) = rest.pop() {
            if !expansion.groups.insert(group.clone()) {
                continue;
            }
            for member in self.members(group) {
                match member {
                    Member::User(user) => {
                        expansion.users.insert(user.clone());
                    }
                    Member::Group(nested) => rest.push(nested),
                }
            }
        }
        expansion
    }

    /// Whether a user, or one of their groups, is in `group` or in one nested in it.
    #[must_use]
    pub fn holds(&self, group: &Name, groups: &[Name], user: Option<&Name>) -> bool {
        let mut seen = BTreeSet::new();
        let mut rest = vec![group];
        while let Some(group) = rest.pop() {
            if !seen.insert(group) {
                continue;
            }
            if groups.contains(group) {
                return true;
            }
            let Some(members) = self.members.get(group) else {
                continue;
            };
            if user.is_some_and(|user| members.contains(&Member::User(user.clone()))) {
                return true;
            }
            // Users stand before groups.
            let nested = members.iter().rev().map_while(|member| match member {
                Member::Group(nested) => Some(nested),
                Member::User(_) => None,
            });
            rest.extend(nested);
        }
        false
    }

    /// The way from one group down to another, both included.
    fn path(&self, from: &Name, to: &Name) -> Option<Vec<Name>> {
        // How each group was come to.
        let mut above: BTreeMap<&Name, Option<&Name>> = BTreeMap::from([(from, None)]);
        let mut rest = vec![from];
        while let Some(group) = rest.pop() {
            if group == to {
                let mut path = vec![group.clone()];
                let mut group = group;
                while let Some(Some(parent)) = above.get(group) {
                    path.push((*parent).clone());
                    group = parent;
                }
                path.reverse();
                return Some(path);
            }
            for member in self.members(group) {
                if let Member::Group(nested) = member
                    && !above.contains_key(nested)
                {
                    above.insert(nested, Some(group));
                    rest.push(nested);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn group(text: &str) -> Member {
        Member::Group(name(text))
    }

    #[test]
    fn a_cycle_is_refused_with_its_path() {
        let mut groups = Groups::default();
        groups
            .add(&name("staff"), group("editors"))
            .expect("no cycle");
        groups
            .add(&name("editors"), group("interns"))
            .expect("no cycle");
        let error = groups
            .add(&name("interns"), group("staff"))
            .expect_err("a cycle");
        assert_eq!(
            error.to_string(),
            "the groups would be nested in a cycle: interns > staff > editors > interns"
        );
        let own = groups.add(&name("x"), group("x")).expect_err("a cycle");
        assert_eq!(
            own.to_string(),
            "the groups would be nested in a cycle: x > x"
        );
    }

    #[test]
    fn members_come_and_go() {
        let mut groups = Groups::default();
        let bob = Member::User(name("bob"));
        assert_eq!(groups.add(&name("a"), bob.clone()), Ok(true));
        assert_eq!(groups.add(&name("a"), bob.clone()), Ok(false));
        assert!(groups.expand(&[name("a")]).users.contains(&name("bob")));
        assert!(groups.remove(&name("a"), &bob));
        assert!(!groups.remove(&name("a"), &bob));
        assert_eq!(groups, Groups::default());
    }

    proptest! {
        #[test]
        fn expands_to_what_a_plain_walk_finds_and_never_nests_in_a_cycle(
            edges in proptest::collection::vec((0u8..8, 0u8..8), 0..30),
            asked in proptest::collection::vec(0u8..8, 0..4),
        ) {
            let mut groups = Groups::default();
            let mut kept = HashSet::new();
            let reaches = |kept: &HashSet<(u8, u8)>, from: u8| {
                let mut seen = HashSet::from([from]);
                loop {
                    let more: Vec<u8> = kept
                        .iter()
                        .filter(|(a, b)| seen.contains(a) && !seen.contains(b))
                        .map(|(_, b)| *b)
                        .collect();
                    if more.is_empty() {
                        return seen;
                    }
                    seen.extend(more);
                }
            };
            for (above, below) in edges {
                let cyclic = reaches(&kept, below).contains(&above);
                let added = groups.add(&name(&above.to_string()), group(&below.to_string()));
                prop_assert_eq!(added.is_err(), cyclic);
                if !cyclic {
                    kept.insert((above, below));
                }
            }
            let expected: BTreeSet<Name> =
                asked.iter().flat_map(|&g| reaches(&kept, g)).map(|g| name(&g.to_string())).collect();
            let asked: Vec<Name> = asked.iter().map(|g| name(&g.to_string())).collect();
            prop_assert_eq!(groups.expand(&asked).groups, expected);
        }
    }
}
