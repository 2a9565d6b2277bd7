//! Rules: which topics are for whom. Pure.

use thiserror::Error;

use super::{InvalidName, Name, Standing};
use crate::pattern::Pattern;

/// `[[access.rule]]`: whoever is allowed may read the topics that match. The first rule that
/// matches a topic decides; a topic that none matches is for all who may open event streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    topic: Pattern,
    pub(super) allow: Vec<Who>,
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
        Ok(Self {
            topic: Pattern::parse(topic).ok_or_else(|| InvalidRule::Pattern(topic.into()))?,
            allow: allow
                .iter()
                .map(|who| Who::parse(who))
                .collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        self.topic.matches(topic)
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
