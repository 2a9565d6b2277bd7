//! What publishers outside may do.
//!
//! Pure.

use std::{sync::Arc, time::SystemTime};

use super::{Name, Token};
use crate::{pattern::Pattern, topic::Topic};

/// What a publisher outside may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// What the log calls it, if it has a name.
    pub name: Option<Arc<str>>,
    /// The topics that it may publish to; all, if none are named.
    topics: Option<Arc<[Pattern]>>,
    /// The token that it comes with.
    token: Option<TokenLife>,
    /// Whether it may send to people, and is told of them.
    pub knows_people: bool,
}

/// What of a token says whether it is good still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenLife {
    /// Whose it is.
    pub user: Name,
    /// When it was issued, if it says so.
    pub issued: Option<SystemTime>,
    /// When it ends.
    pub until: SystemTime,
}

/// `[[access.publisher]]`: whoever holds this key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHolder {
    pub key: Token,
    pub publisher: Publisher,
}

impl Publisher {
    /// One that may do anything that the control listener offers to publishers.
    #[must_use]
    pub fn of_everything() -> Self {
        Self {
            name: None,
            topics: None,
            token: None,
            knows_people: true,
        }
    }

    /// One that its token's `publish` claim names topics for, until it ends.
    pub(super) fn of_claim(topics: Vec<Pattern>, token: TokenLife) -> Self {
        Self {
            name: None,
            topics: Some(topics.into()),
            token: Some(token),
            knows_people: false,
        }
    }

    /// One with a name, for these topics.
    #[must_use]
    pub fn named(name: &str, topics: Vec<Pattern>, knows_people: bool) -> Self {
        Self {
            name: Some(name.into()),
            topics: Some(topics.into()),
            token: None,
            knows_people,
        }
    }

    /// The token that it comes with, if it is not known by a key.
    #[must_use]
    pub fn token(&self) -> Option<&TokenLife> {
        self.token.as_ref()
    }

    /// The first of these topics that is not its to publish to.
    #[must_use]
    pub fn first_foreign<'t>(&self, topics: &'t [Topic]) -> Option<&'t Topic> {
        let own = self.topics.as_ref()?;
        let is_own = |topic: &&Topic| own.iter().any(|pattern| pattern.matches(topic.as_str()));
        topics.iter().find(|topic| !is_own(topic))
    }
}
