//! Who is asking.

use std::{
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use thiserror::Error;

use super::login::Login;
use crate::{pattern::Pattern, topic::Topic};

/// The longest name of a user or a group, in bytes.
const MAX_NAME: usize = 255;
/// The most groups one identity may have.
pub(super) const MAX_GROUPS: usize = 256;
/// The most patterns of topics that an app may name for one.
pub(super) const MAX_TOPICS: usize = 256;

/// The name of a user or a group: 1 to 255 bytes without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// Why a name is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidName {
    #[error("the name is empty")]
    Empty,
    #[error("the name is {0} bytes long, the limit is {MAX_NAME}")]
    TooLong(usize),
    #[error("the name holds a control character")]
    Control,
}

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says which rule it breaks.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        match name {
            "" => Err(InvalidName::Empty),
            name if name.len() > MAX_NAME => Err(InvalidName::TooLong(name.len())),
            name if name.chars().any(char::is_control) => Err(InvalidName::Control),
            name => Ok(Self(name.into())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The reserved topic of the user with this name.
    #[must_use]
    pub fn user_topic(&self) -> Topic {
        Topic::reserved("user:", &self.0)
    }

    /// The reserved topic of the group with this name.
    #[must_use]
    pub fn group_topic(&self) -> Topic {
        Topic::reserved("group:", &self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Whether it is known who someone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Authenticated,
    /// It is not.
    Anonymous,
}

impl Standing {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::Anonymous => "anonymous",
        }
    }

    /// The reserved topic of all with this standing.
    #[must_use]
    pub fn topic(self) -> Topic {
        Topic::reserved(self.as_str(), "")
    }
}

/// Who is asking, as it was settled before anything else.
#[derive(Clone, Debug)]
pub struct Identity {
    user: Option<Name>,
    groups: Vec<Name>,
    topics: Option<Vec<Pattern>>,
    expires: Option<Instant>,
    /// When its token was issued, if it says so.
    issued: Option<SystemTime>,
    /// What the app has known it by, and is asked about again.
    login: Option<Arc<Login>>,
}

impl Identity {
    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            user: None,
            groups: Vec::new(),
            topics: None,
            expires: None,
            issued: None,
            login: None,
        }
    }

    /// A user with their groups; `topics` are all they may read, if given.
    pub(crate) fn authenticated(
        user: Name,
        mut groups: Vec<Name>,
        topics: Option<Vec<Pattern>>,
        expires: Option<Instant>,
    ) -> Self {
        groups.sort_unstable();
        groups.dedup();
        Self {
            user: Some(user),
            groups,
            topics,
            expires,
            issued: None,
            login: None,
        }
    }

    /// The same, by a token that was issued then.
    pub(super) fn issued_at(self, issued: Option<SystemTime>) -> Self {
        Self { issued, ..self }
    }

    /// When its token was issued, if it says so.
    #[must_use]
    pub fn issued(&self) -> Option<SystemTime> {
        self.issued
    }

    /// Whether a token says who it is, or a ticket.
    #[must_use]
    pub(super) fn is_by_token(&self) -> bool {
        self.user.is_some() && self.login.is_none()
    }

    /// The same, known by a login.
    pub(super) fn with_login(self, login: Arc<Login>) -> Self {
        let login = Some(login);
        Self { login, ..self }
    }

    /// What the app has known it by, if it was the app.
    #[must_use]
    pub(super) fn login(&self) -> Option<&Arc<Login>> {
        self.login.as_ref()
    }

    /// Whether the app does not say that of it any more, by which it was known.
    #[must_use]
    pub(crate) fn is_over(&self) -> bool {
        self.login.as_ref().is_some_and(|login| login.is_ended())
    }

    /// How much it takes to keep, in bytes, by and large.
    pub(super) fn bytes(&self) -> usize {
        let names = self.groups.iter().chain(&self.user);
        let names: usize = names
            .map(|name| size_of::<Name>() + name.as_str().len())
            .sum();
        let topics = self.topics.iter().flatten();
        let topics: usize = topics
            .map(|topic| size_of::<Pattern>() + topic.bytes())
            .sum();
        size_of::<Self>() + names + topics
    }

    /// Whether it is the same person, who may do the same.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.user == other.user && self.groups == other.groups && self.topics == other.topics
    }

    /// Whether it is known who it is.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.user {
            Some(_) => Standing::Authenticated,
            None => Standing::Anonymous,
        }
    }

    #[must_use]
    pub fn user(&self) -> Option<&Name> {
        self.user.as_ref()
    }

    /// The groups that the user is in, without those that these are nested in.
    #[must_use]
    pub fn groups(&self) -> &[Name] {
        &self.groups
    }

    /// The topics that its token names, if it names any.
    #[must_use]
    pub fn topics(&self) -> Option<&[Pattern]> {
        self.topics.as_deref()
    }

    /// When its token ends.
    #[must_use]
    pub fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// The reserved topics that each of its event streams reads besides those it names.
    #[must_use]
    pub fn reserved_topics(&self) -> Vec<Topic> {
        let mut topics = vec![self.standing().topic()];
        topics.extend(self.user.iter().map(Name::user_topic));
        topics.extend(self.groups.iter().map(Name::group_topic));
        topics
    }
}
