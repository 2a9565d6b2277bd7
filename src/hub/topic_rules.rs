//! How topics are treated whose events are not all of the same use. Pure.

use std::{sync::Arc, time::Duration};

use crate::{pattern::Pattern, topic::Topic};

/// What of a topic's history whoever comes back is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replay {
    /// All that is held.
    #[default]
    All,
    /// Of each series the newest event.
    Latest,
    /// Nothing.
    None,
}

impl Replay {
    /// Whether an event is given again, of which `is_newest` says if it is the newest of its series.
    #[must_use]
    pub fn gives_again(self, is_newest: impl FnOnce() -> bool) -> bool {
        match self {
            Self::All => true,
            Self::Latest => is_newest(),
            Self::None => false,
        }
    }
}

/// What becomes of a reader that was too slow for what a topic holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It is told of the gap, and goes on with what is held.
    #[default]
    Gap,
    /// It goes on with the newest event of each series that is held: what it missed is old.
    Latest,
    /// Its stream ends, in good order: it comes back, or does not.
    Disconnect,
}

/// `[[topic]]`: how the topics that match are treated. The first that matches a topic decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// The topics.
    pub pattern: Pattern,
    /// How they are treated.
    pub treatment: Treatment,
}

/// How a topic is treated. The default is: every event at once, and all of them again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// Of each series no more than one event goes out in this time, the newest.
    pub interval: Option<Duration>,
    /// What of its history whoever comes back is given.
    pub replay: Replay,
    /// What becomes of a reader that was too slow.
    pub overflow: Overflow,
}

impl Treatment {
    /// Whether the newest event of each series is to be known.
    #[must_use]
    pub fn knows_newest(&self) -> bool {
        self.replay == Replay::Latest || self.overflow == Overflow::Latest
    }
}

/// All rules, in their order.
#[derive(Clone, Debug, Default)]
pub struct TopicRules(Arc<[TopicRule]>);

impl TopicRules {
    /// Whether any topics have an interval.
    #[must_use]
    pub fn have_intervals(&self) -> bool {
        self.0.iter().any(|rule| rule.treatment.interval.is_some())
    }

    /// How a topic is treated. Those of an audience, which no operator names, are as the default has it.
    #[must_use]
    pub fn of(&self, topic: &Topic) -> Treatment {
        let mut rules = self.0.iter().filter(|_| !topic.is_reserved());
        let rule = rules.find(|rule| rule.pattern.matches(topic.as_str()));
        rule.map_or_else(Treatment::default, |rule| rule.treatment)
    }
}

impl FromIterator<TopicRule> for TopicRules {
    fn from_iter<I: IntoIterator<Item = TopicRule>>(rules: I) -> Self {
        Self(rules.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rule = |pattern: &str, replay| TopicRule {
            pattern: Pattern::parse(pattern).expect("a pattern"),
            treatment: Treatment {
                replay,
                ..Treatment::default()
            },
        };
        let rules = [rule("ticker/eu", Replay::None), rule("**", Replay::Latest)];
        let rules: TopicRules = rules.into_iter().collect();
        let replay = |name: &str| rules.of(&Topic::parse(name).expect("a topic")).replay;
        assert_eq!(replay("ticker/eu"), Replay::None);
        assert_eq!(replay("ticker/us"), Replay::Latest);
        assert_eq!(rules.of(&Topic::stats()), Treatment::default());
    }
}
