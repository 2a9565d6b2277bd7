//! Topic names, checked once. No clock, no lock, no task.

use std::{fmt, sync::Arc};

use thiserror::Error;

/// The longest topic, in bytes of UTF-8.
pub const MAX_BYTES: usize = 1024;

/// The name of a sequence of events, such as `orders/eu`: 1 to 1,024 bytes of UTF-8, no control
/// characters, not beginning with `$`, which is kept for the edge's own topics.
///
/// Holding one proves the name was checked: nothing downstream checks it again. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// Why a name is not a topic.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidTopic {
    /// The name is empty.
    #[error("topic is empty; give it 1 to {MAX_BYTES} bytes")]
    Empty,
    /// The name is too long.
    #[error("topic is {0} bytes long, the limit is {MAX_BYTES}")]
    TooLong(usize),
    /// The name holds a control character.
    #[error("topic holds the control character U+{:04X} at byte {at}; remove it", *.char as u32)]
    Control {
        /// The character.
        char: char,
        /// Where it stands, in bytes.
        at: usize,
    },
    /// The name begins with `$`.
    #[error(
        "topic begins with `$`, which is reserved for the edge; choose another first character"
    )]
    Reserved,
}

/// What the topics begin with that tell who reads another.
const PRESENCE: &str = "$presence/";

/// What the edge says of itself.
pub(crate) const STATS: &str = "$edge/stats";

impl Topic {
    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`] says which rule it breaks.
    pub fn parse(name: &str) -> Result<Self, InvalidTopic> {
        if name.is_empty() {
            return Err(InvalidTopic::Empty);
        }
        if name.len() > MAX_BYTES {
            return Err(InvalidTopic::TooLong(name.len()));
        }
        if let Some((at, char)) = name.char_indices().find(|(_, c)| c.is_control()) {
            return Err(InvalidTopic::Control { char, at });
        }
        if name.starts_with('$') {
            return Err(InvalidTopic::Reserved);
        }
        Ok(Self(name.into()))
    }

    /// One whose name was checked before it was written to where it is read from now.
    pub(crate) fn of_checked(name: &str) -> Self {
        Self(name.into())
    }

    /// Whether what goes to it is of the moment, and in no history that outlives the process: what the edge says of
    /// itself and of who is there.
    pub(crate) fn is_of_the_moment(&self) -> bool {
        &*self.0 == STATS || self.presence_of().is_some()
    }

    /// One of the edge's own topics: `$` and a kind, with a name that was checked.
    pub(crate) fn reserved(kind: &str, name: &str) -> Self {
        Self(format!("${kind}{name}").into())
    }

    /// The edge's own topic of this name that visitors may ask for, if there is one.
    #[must_use]
    pub(crate) fn of_edge(name: &str) -> Option<Self> {
        if let Some(of) = name.strip_prefix(PRESENCE) {
            return Self::parse(of).is_ok().then(|| Self(name.into()));
        }
        (name == STATS).then(Self::stats)
    }

    /// The topic that tells who reads this one.
    #[must_use]
    pub(crate) fn presence(&self) -> Self {
        Self(format!("{PRESENCE}{}", self.0).into())
    }

    /// Of which topic this one tells who reads it, if it is such a one.
    #[must_use]
    pub(crate) fn presence_of(&self) -> Option<&str> {
        self.0.strip_prefix(PRESENCE)
    }

    /// What the edge says of itself.
    #[must_use]
    pub(crate) fn stats() -> Self {
        Self(STATS.into())
    }

    /// Whether clients know it by its name: not those of an audience.
    #[must_use]
    pub(crate) fn is_named(&self) -> bool {
        !self.is_reserved() || &*self.0 == STATS || self.presence_of().is_some()
    }

    /// Whether it is one of the edge's own.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_the_rule_that_is_broken() {
        assert_eq!(Topic::parse(""), Err(InvalidTopic::Empty));
        assert_eq!(
            Topic::parse(&"x".repeat(1025)),
            Err(InvalidTopic::TooLong(1025))
        );
        assert_eq!(
            Topic::parse("a\nb"),
            Err(InvalidTopic::Control { char: '\n', at: 1 })
        );
        assert_eq!(Topic::parse("$all"), Err(InvalidTopic::Reserved));
        assert_eq!(
            Topic::parse("a\u{7f}").expect_err("DEL").to_string(),
            "topic holds the control character U+007F at byte 1; remove it"
        );
    }

    #[test]
    fn takes_what_people_write() {
        for name in [
            "a",
            "orders/eu",
            "früh stück",
            "a$b",
            "🎈",
            &"x".repeat(1024),
        ] {
            assert_eq!(Topic::parse(name).expect("a topic").as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_what_it_takes(name in any::<String>()) {
            if let Ok(topic) = Topic::parse(&name) {
                prop_assert_eq!(topic.as_str(), name);
            }
        }
    }
}
