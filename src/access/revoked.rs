//! Tokens that were taken back before their time: those of a user that were issued before a moment.
//!
//! Pure: callers pass the time in.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::Name;

/// How many users' tokens may be revoked at a time.
pub(crate) const MOST: usize = 100_000;

/// The users whose tokens of before are no good, each as long as such a token could last.
#[derive(Debug)]
pub(super) struct Revoked {
    /// How long one is remembered.
    kept: Duration,
    /// When.
    at: HashMap<Name, SystemTime>,
    /// In the order in which they were revoked, each once.
    order: BTreeSet<(SystemTime, Name)>,
}

impl Revoked {
    /// None are; each will be remembered so long.
    pub(super) fn new(kept: Duration) -> Self {
        Self {
            kept,
            at: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// From now on tokens of this user that were issued before the moment which is returned are no good. That is a
    /// whole second, as tokens have them, and the next: one of the second that goes on may be from before.
    /// `None` when there is no room for another user.
    pub(super) fn revoke(&mut self, user: &Name, now: SystemTime) -> Option<SystemTime> {
        self.forget_old(now);
        if self.at.len() == MOST && !self.at.contains_key(user) {
            return None;
        }
        // What another edge says may be from before.
        if let Some(before) = self.at.get(user).filter(|before| **before >= now) {
            return Some(next_second(*before));
        }
        if let Some(before) = self.at.insert(user.clone(), now) {
            self.order.remove(&(before, user.clone()));
        }
        self.order.insert((now, user.clone()));
        Some(next_second(now))
    }

    /// Whether a token of this user that was issued at some moment is no good. One that does not say when counts
    /// as issued before; one that says it to less than a second, as those of the edge's own do, is taken at its
    /// word.
    pub(super) fn is_revoked(&self, user: &Name, issued: Option<SystemTime>) -> bool {
        let at = self.at.get(user);
        at.is_some_and(|at| {
            issued.is_none_or(|issued| {
                let since = issued.duration_since(UNIX_EPOCH).unwrap_or_default();
                let before = if since.subsec_nanos() == 0 {
                    next_second(*at)
                } else {
                    *at
                };
                issued < before
            })
        })
    }

    fn forget_old(&mut self, now: SystemTime) {
        while let Some((at, _)) = self.order.first()
            && now.duration_since(*at).is_ok_and(|age| age > self.kept)
        {
            if let Some((_, user)) = self.order.pop_first() {
                self.at.remove(&user);
            }
        }
    }
}

fn next_second(at: SystemTime) -> SystemTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_issued_before_is_no_good_for_a_while() {
        let name = |text: &str| Name::parse(text).expect("a name");
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let mut revoked = Revoked::new(Duration::from_secs(60));
        let bob = name("bob");
        assert!(!revoked.is_revoked(&bob, None));
        assert_eq!(revoked.revoke(&bob, at(100_400)), Some(at(101_000)));
        assert!(revoked.is_revoked(&bob, Some(at(100_000))));
        assert!(revoked.is_revoked(&bob, None));
        assert!(!revoked.is_revoked(&bob, Some(at(101_000))));
        assert!(revoked.is_revoked(&bob, Some(at(100_399))));
        assert!(!revoked.is_revoked(&bob, Some(at(100_401))));
        assert!(!revoked.is_revoked(&name("eve"), None));
        // A second time counts from then.
        revoked.revoke(&bob, at(130_000));
        revoked.revoke(&name("eve"), at(162_000));
        assert!(revoked.is_revoked(&bob, Some(at(130_000))));
        revoked.revoke(&name("eve"), at(192_000));
        assert!(!revoked.is_revoked(&bob, None));
        assert_eq!((revoked.at.len(), revoked.order.len()), (1, 1));
    }

    #[test]
    fn there_is_a_bound() {
        let mut revoked = Revoked::new(Duration::from_secs(60));
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        for n in 0..MOST {
            let name = Name::parse(&n.to_string()).expect("a name");
            assert!(revoked.revoke(&name, now).is_some());
        }
        let one_more = Name::parse("one more").expect("a name");
        assert!(revoked.revoke(&one_more, now).is_none());
        let later = now + Duration::from_secs(62);
        assert!(revoked.revoke(&one_more, later).is_some());
    }
}
