//! Since when people are known, and in which groups, as places in the one order: what was sent to a group is for
//! those who were in it then, and what was sent to all who are known for those who were known.
//!
//! Whoever the control listener puts into a group is named when something is published. What is kept here is what
//! came with identities: since they were first seen so, or since their token was issued.
//!
//! Pure: callers pass the time in.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use crate::{
    access::{Identity, Name},
    hub::Belonging,
};

/// How many people are remembered who have no stream open.
const MOST: usize = 100_000;
/// Who is known, and since when.
#[derive(Debug)]
pub(super) struct Members {
    /// Until then nobody can say since when those who come have been what they are: they come back from the life
    /// before.
    settled: Instant,
    known: HashMap<Name, Member>,
    /// Who has no stream, by when they were seen last. Invariant: those of `known` with `left`.
    gone: BTreeSet<(Instant, Name)>,
}

#[derive(Debug)]
struct Member {
    /// The last entry before they were known.
    since: u64,
    groups: Vec<Membership>,
    streams: usize,
    /// When they were seen last, while they have no stream.
    left: Option<Instant>,
}

#[derive(Debug)]
struct Membership {
    group: Name,
    /// The last entry before they were in it.
    since: u64,
    streams: usize,
}

/// When somebody is met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// The last entry of the order.
    pub(super) place: u64,
    /// The last entry before they are taken to have been what they are who come back from the life before.
    pub(super) before: u64,
    /// That before which their token was issued, if it says when.
    pub(super) issued: Option<u64>,
    pub(super) now: Instant,
    /// How long history lasts: so long are those remembered who have gone.
    pub(super) kept: Duration,
}

impl Members {
    /// Nobody is known by now; those who come until it is settled who is what have been it before.
    pub(super) fn new(settled: Instant) -> Self {
        Self {
            settled,
            known: HashMap::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Somebody comes, who is from now on what they are, unless they have been before. Since when that is, of all
    /// that is not from the beginning.
    pub(super) fn meet(&mut self, identity: &Identity, moment: Moment) -> Vec<Belonging> {
        let Some(user) = identity.user() else {
            return Vec::new();
        };
        self.forget(moment);
        let is_settled = moment.now >= self.settled;
        let first = if is_settled {
            moment.place
        } else {
            moment.before
        };
        let since = moment.issued.map_or(first, |issued| issued.min(first));
        let member = self.known.entry(user.clone()).or_insert_with(|| Member {
            since,
            groups: Vec::new(),
            streams: 0,
            left: None,
        });
        if member.streams == 0 {
            see(&mut self.gone, user, &mut member.left, Some(moment.now));
        }
        member.since = member.since.min(since);
        // Who comes without a group in which they have no stream open has left it.
        let own = identity.groups();
        let stays = |group: &Name| own.binary_search(group).is_ok();
        member
            .groups
            .retain(|membership| membership.streams > 0 || stays(&membership.group));
        for group in own {
            match member.groups.iter_mut().find(|known| known.group == *group) {
                Some(known) => known.since = known.since.min(since),
                None => member.groups.push(Membership {
                    group: group.clone(),
                    since,
                    streams: 0,
                }),
            }
        }
        let known = Belonging {
            topic: identity.standing().topic(),
            since: member.since,
            is_from_now: false,
        };
        let groups = member.groups.iter().map(|membership| Belonging {
            topic: membership.group.group_topic(),
            since: membership.since,
            is_from_now: false,
        });
        let all = groups.chain([known]);
        all.filter(|belonging| belonging.since > 0).collect()
    }

    /// How many streams somebody has.
    pub(super) fn streams(&self, user: &Name) -> usize {
        self.known.get(user).map_or(0, |member| member.streams)
    }

    /// A stream of somebody begins, who was met before; if not, they are what they are since this place.
    pub(super) fn enter(&mut self, identity: &Identity, place: u64) {
        let Some(user) = identity.user() else {
            return;
        };
        let member = self.known.entry(user.clone()).or_insert_with(|| Member {
            since: place,
            groups: Vec::new(),
            streams: 0,
            left: None,
        });
        member.streams += 1;
        see(&mut self.gone, user, &mut member.left, None);
        for group in identity.groups() {
            match member.groups.iter_mut().find(|known| known.group == *group) {
                Some(known) => known.streams += 1,
                None => member.groups.push(Membership {
                    group: group.clone(),
                    since: place,
                    streams: 1,
                }),
            }
        }
    }

    /// One that began ends.
    pub(super) fn leave(&mut self, identity: &Identity, now: Instant) {
        let Some(user) = identity.user() else {
            return;
        };
        // It is there, and so are the groups: none is forgotten that has a stream.
        let Some(member) = self.known.get_mut(user) else {
            return;
        };
        member.streams -= 1;
        let own = identity.groups();
        let left = member.groups.iter_mut();
        for membership in left.filter(|known| own.binary_search(&known.group).is_ok()) {
            membership.streams -= 1;
        }
        if member.streams == 0 {
            see(&mut self.gone, user, &mut member.left, Some(now));
        } else {
            // Those streams that go on are of somebody who is not in it any more.
            member.groups.retain(|membership| membership.streams > 0);
        }
    }

    /// Forgets who has gone for longer than history lasts, and of too many those who went first.
    fn forget(&mut self, moment: Moment) {
        while let Some((at, _)) = self.gone.first()
            && (self.gone.len() > MOST || moment.now.saturating_duration_since(*at) > moment.kept)
        {
            if let Some((_, user)) = self.gone.pop_first() {
                self.known.remove(&user);
            }
        }
    }
}

/// Somebody is seen who has no stream, or has one from now on.
fn see(
    gone: &mut BTreeSet<(Instant, Name)>,
    user: &Name,
    left: &mut Option<Instant>,
    now: Option<Instant>,
) {
    if let Some(before) = std::mem::replace(left, now) {
        gone.remove(&(before, user.clone()));
    }
    gone.extend(now.map(|now| (now, user.clone())));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const KEPT: Duration = Duration::from_secs(3600);

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn who(user: &str, groups: &[&str]) -> Identity {
        let groups = groups.iter().map(|group| name(group)).collect();
        Identity::authenticated(name(user), groups, None, None)
    }

    fn at(place: u64, now: Instant) -> Moment {
        Moment {
            place,
            before: 0,
            issued: None,
            now,
            kept: KEPT,
        }
    }

    fn since(belongings: &[Belonging], group: &str) -> Option<u64> {
        let topic = name(group).group_topic();
        let found = belongings.iter().find(|belonging| belonging.topic == topic);
        found.map(|belonging| belonging.since)
    }

    #[test]
    fn who_leaves_a_group_and_comes_back_is_in_it_since_then() {
        let began = clock::now();
        let now = began + Duration::from_secs(60);
        let mut members = Members::new(now);
        // Who comes at first was there before, for all anybody knows.
        assert_eq!(members.meet(&who("ann", &["g"]), at(5, began)), []);
        let bob = who("bob", &["g", "h"]);
        let met = members.meet(&bob, at(7, now));
        assert_eq!(
            (since(&met, "g"), since(&met, "h"), met.len()),
            (Some(7), Some(7), 3)
        );
        members.enter(&bob, 7);
        assert_eq!(since(&members.meet(&bob, at(9, now)), "g"), Some(7));
        // As long as a stream of his is in it, he is, whatever else he comes with.
        let without = who("bob", &["h"]);
        assert_eq!(members.meet(&without, at(10, now)).len(), 3);
        members.leave(&bob, now);
        assert_eq!(members.streams(&name("bob")), 0);
        let met = members.meet(&without, at(11, now));
        assert_eq!((since(&met, "g"), since(&met, "h")), (None, Some(7)));
        let met = members.meet(&bob, at(12, now));
        assert_eq!((since(&met, "g"), since(&met, "h")), (Some(12), Some(7)));
        // Who is seen now and then is not forgotten, stream or no stream.
        let mut seen = Members::new(now);
        seen.meet(&bob, at(7, now));
        for minutes in 1..200u32 {
            let met = seen.meet(
                &bob,
                at(
                    7 + u64::from(minutes),
                    now + minutes * Duration::from_secs(60),
                ),
            );
            assert_eq!(since(&met, "g"), Some(7));
        }
        // Another stream of his, without the group, does not keep him in it.
        let mut two = Members::new(now);
        for identity in [&bob, &without] {
            two.meet(identity, at(7, now));
            two.enter(identity, 7);
        }
        two.leave(&bob, now);
        assert_eq!(since(&two.meet(&bob, at(13, now)), "g"), Some(13));
        // A token that was issued before says so.
        let issued = Moment {
            issued: Some(3),
            ..at(12, now)
        };
        assert_eq!(since(&members.meet(&bob, issued), "g"), Some(3));
        // Who has gone is remembered as long as what was sent to them.
        let later = now + KEPT + Duration::from_secs(1);
        assert_eq!(since(&members.meet(&bob, at(20, later)), "h"), Some(20));
        assert_eq!(members.meet(&Identity::anonymous(), at(20, later)), []);
    }

    proptest! {
        /// However streams come and go, those that are open are counted, and nobody who has one is forgotten.
        #[test]
        fn who_is_there_is_counted(steps in proptest::collection::vec((0u8..4, proptest::collection::btree_set(0u8..3, 0..3), any::<bool>(), 0u64..2000), 1..80)) {
            let began = clock::now();
            let mut members = Members::new(began);
            let mut now = began;
            let mut open: Vec<Identity> = Vec::new();
            for (place, (user, groups, comes, seconds)) in steps.into_iter().enumerate() {
                now += Duration::from_secs(seconds);
                if comes || open.is_empty() {
                    let groups: Vec<String> = groups.iter().map(u8::to_string).collect();
                    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
                    let identity = who(&user.to_string(), &groups);
                    members.meet(&identity, at(place as u64 + 1, now));
                    members.enter(&identity, place as u64 + 1);
                    open.push(identity);
                } else {
                    let identity = open.swap_remove(usize::from(user) % open.len());
                    members.leave(&identity, now);
                }
                for user in 0..4u8 {
                    let user = name(&user.to_string());
                    let own = open.iter().filter(|identity| identity.user() == Some(&user));
                    prop_assert_eq!(members.streams(&user), own.count());
                }
                let gone = members.known.values().filter(|member| member.left.is_some());
                prop_assert_eq!(members.gone.len(), gone.count());
                for member in members.known.values() {
                    prop_assert_eq!(member.streams == 0, member.left.is_some());
                    for membership in &member.groups {
                        prop_assert!(membership.streams <= member.streams);
                    }
                }
            }
        }
    }
}
