//! Which edges are there: each says so every second.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::hub::{Retention, TopicRules};

/// After how long of silence an edge is gone.
const GONE: Duration = Duration::from_secs(3);
/// The most edges that are remembered.
const MOST: usize = 4096;

/// What an edge says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beat {
    /// `cluster.node`
    pub(crate) node: String,
    /// Which of its lives it is.
    pub(crate) boot: String,
    /// Of this program.
    pub(crate) version: String,
    /// The last frame that it applied.
    pub(crate) applied: u64,
    /// Its settings by which entries are settled, in short: all edges of one version need the same.
    #[serde(default)]
    pub(crate) rules: String,
}

impl Beat {
    /// What this edge says from now on.
    pub(super) fn own(node: &str, rules: &TopicRules, retention: &Retention) -> Self {
        let Retention {
            duplicates_age,
            duplicates,
            ..
        } = retention;
        let mut hasher = DefaultHasher::new();
        format!("{rules:?} {duplicates_age:?} {duplicates}").hash(&mut hasher);
        Self {
            node: node.to_owned(),
            boot: format!("{:016x}", fastrand::u64(..)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            applied: 0,
            rules: format!("{:016x}", hasher.finish()),
        }
    }

    /// The same once it has applied this frame.
    pub(super) fn at(&self, applied: u64) -> Self {
        Self {
            applied,
            ..self.clone()
        }
    }

    /// Whether another edge settles entries otherwise.
    pub(super) fn differs_from(&self, other: &Self) -> bool {
        self.version == other.version && self.rules != other.rules
    }
}

/// The edges that are there, but for this one.
#[derive(Debug, Default)]
pub(super) struct Nodes(Mutex<BTreeMap<String, (Instant, Beat)>>);

impl Nodes {
    /// An edge has said something; `false` if it is one that was not there before, or in another life.
    pub(super) fn hear(&self, beat: Beat, now: Instant) -> bool {
        let mut nodes = self.lock();
        if nodes.len() >= MOST && !nodes.contains_key(&beat.node) {
            return true;
        }
        let boot = beat.boot.clone();
        let before = nodes.insert(beat.node.clone(), (now, beat));
        before.is_some_and(|(_, before)| before.boot == boot)
    }

    /// None of them could be heard until now.
    pub(super) fn are_unheard(&self, now: Instant) {
        for (at, _) in self.lock().values_mut() {
            *at = now;
        }
    }

    /// Forgets those that are gone: which.
    pub(super) fn forget(&self, now: Instant) -> Vec<String> {
        let is_there = |at: &Instant| now.saturating_duration_since(*at) < GONE;
        let mut nodes = self.lock();
        let gone = nodes.iter().filter(|(_, (at, _))| !is_there(at));
        let gone = gone.map(|(node, _)| node.clone()).collect();
        nodes.retain(|_, (at, _)| is_there(at));
        gone
    }

    /// Those that are there, by name, and for how long they have said nothing.
    pub(super) fn all(&self, now: Instant) -> Vec<(Beat, Duration)> {
        let nodes = self.lock();
        let all = nodes.values();
        all.map(|(at, beat)| (beat.clone(), now.saturating_duration_since(*at)))
            .collect()
    }

    /// How many come before this name.
    pub(super) fn before(&self, node: &str) -> usize {
        let nodes = self.lock();
        nodes.keys().take_while(|other| &***other < node).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, Beat)>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn who_settles_otherwise_is_known() {
        let (rules, retention) = (TopicRules::default(), Retention::default());
        let (one, two) = (
            Beat::own("a", &rules, &retention),
            Beat::own("b", &rules, &retention),
        );
        assert!(!one.differs_from(&two.at(9)));
        let longer = Retention {
            duplicates_age: Duration::from_secs(600),
            ..retention
        };
        let mut other = Beat::own("b", &rules, &longer);
        assert!(one.differs_from(&other));
        other.version = "of another".into();
        assert!(!one.differs_from(&other));
    }

    #[test]
    fn who_says_nothing_for_three_seconds_is_gone() {
        let (nodes, now) = (Nodes::default(), clock::now());
        let beat = |node: &str, boot: &str| Beat {
            node: node.into(),
            boot: boot.into(),
            version: "1".into(),
            applied: 7,
            rules: String::new(),
        };
        assert!(!nodes.hear(beat("b", "1"), now));
        assert!(nodes.hear(beat("b", "1"), now));
        assert!(!nodes.hear(beat("b", "2"), now));
        assert!(!nodes.hear(beat("c", "1"), now + GONE));
        assert_eq!(
            ["a", "b", "c", "d"].map(|node| nodes.before(node)),
            [0, 0, 1, 2]
        );
        assert_eq!(nodes.forget(now + GONE), ["b"]);
        nodes.are_unheard(now + 3 * GONE);
        assert_eq!(nodes.forget(now + 3 * GONE), [""; 0]);
        assert_eq!(
            nodes.all(now + 3 * GONE),
            [(beat("c", "1"), Duration::ZERO)]
        );
    }
}
