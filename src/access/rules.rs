//! Rules: which topics are for whom. Pure.

use thiserror::Error;

use super::{InvalidName, Name, Standing};
use crate::pattern::Pattern;

/// What stands in a rule for the reader's own name.
const USER: &str = "{user}";

/// `[[access.rule]]`: whoever is allowed may read the topics that match. The first rule that
/// matches a topic decides; for one that none matches there is `access.default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// With `*` for `{user}`.
    topic: Pattern,
    /// Which segments of a topic are the reader's own name.
    own: Vec<usize>,
    pub(super) allow: Vec<Who>,
    /// Whether those who may read such a topic are also told who else does.
    pub(super) presence: bool,
}

/// Whom a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Everybody of a standing.
    Standing(Standing),
    User(Name),
    /// The members of a group and of those nested in it.
    Group(Name),
}

/// Why a rule is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidRule {
    #[error("`{0}` is not a pattern of topics; write 1 to 1024 characters, such as orders/*")]
    Pattern(String),
    #[error(
        "`{0}`: {{user}} is a segment of its own, with no ** before it, such as users/{{user}}/**"
    )]
    User(String),
    #[error("`{0}` is not known; write authenticated, anonymous, user:NAME or group:NAME")]
    Who(String),
    #[error("`{0}`: {1}")]
    Name(String, #[source] InvalidName),
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    ///
    /// [`InvalidRule`] names what is wrong.
    pub fn parse(topic: &str, allow: &[String]) -> Result<Self, InvalidRule> {
        let mut own = Vec::new();
        for (at, segment) in topic.split('/').enumerate() {
            if segment == USER {
                own.push(at);
            } else if segment.contains(USER) {
                return Err(InvalidRule::User(topic.into()));
            }
        }
        let before = topic.rfind(USER).map_or("", |end| &topic[..end]);
        if before.contains("**") {
            return Err(InvalidRule::User(topic.into()));
        }
        let shape = Pattern::parse(&topic.replace(USER, "*"));
        Ok(Self {
            topic: shape.ok_or_else(|| InvalidRule::Pattern(topic.into()))?,
            own,
            allow: allow
                .iter()
                .map(|who| Who::parse(who))
                .collect::<Result<_, _>>()?,
            presence: false,
        })
    }

    /// The same, which tells those who may read such a topic who else does, or not.
    #[must_use]
    pub fn with_presence(self, presence: bool) -> Self {
        Self { presence, ..self }
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        self.topic.matches(topic)
    }

    /// Whether a topic that matches is this user's, where the rule asks for that: it decides about all that
    /// look the same, or `users/{user}` would leave the topics of others to the rules that follow.
    pub(super) fn is_own(&self, topic: &str, user: Option<&Name>) -> bool {
        let is_own = |at: &usize| topic.split('/').nth(*at) == user.map(Name::as_str);
        self.own.iter().all(is_own)
    }
}

impl Who {
    fn parse(who: &str) -> Result<Self, InvalidRule> {
        let name = |name| Name::parse(name).map_err(|error| InvalidRule::Name(who.into(), error));
        match who.split_once(':') {
            None if who == "authenticated" => Ok(Self::Standing(Standing::Authenticated)),
            None if who == "anonymous" => Ok(Self::Standing(Standing::Anonymous)),
            Some(("user", user)) => Ok(Self::User(name(user)?)),
            Some(("group", group)) => Ok(Self::Group(name(group)?)),
            _ => Err(InvalidRule::Who(who.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_may_ask_for_the_readers_own_name() {
        let rule = Rule::parse("users/{user}/**", &[]).expect("a rule");
        let bob = Name::parse("bob").expect("a name");
        for topic in ["users/bob/orders", "users/eve/orders", "users/bob/"] {
            assert!(rule.matches(topic), "{topic}");
        }
        assert!(!rule.matches("users/bob"));
        assert!(rule.is_own("users/bob/orders/1", Some(&bob)));
        for topic in ["users/eve/bob", "users/bobby/x", "users//bob", "users/*/x"] {
            assert!(!rule.is_own(topic, Some(&bob)), "{topic}");
        }
        assert!(!rule.is_own("users/bob/orders", None));
        assert!(!rule.is_own("users//orders", None));
        let plain = Rule::parse("news/*", &[]).expect("a rule");
        assert!(plain.is_own("news/1", None));
        for wrong in [
            "**/{user}",
            "users/x{user}",
            "users/{user}s/*",
            "{user}/**/{user}",
        ] {
            let wrong = Rule::parse(wrong, &[]);
            assert!(matches!(wrong, Err(InvalidRule::User(_))), "{wrong:?}");
        }
    }
}
