//! Secrets that whoever holds them may act.

use std::fmt;

use subtle::ConstantTimeEq as _;

/// A secret that whoever holds it may act. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// The shortest token that is taken, in bytes.
const MIN_TOKEN_BYTES: usize = 16;

impl Token {
    /// Takes a token.
    ///
    /// # Errors
    ///
    /// What is wrong with it, when it is too short to keep anyone out, or cannot stand in a header.
    pub fn parse(token: &str) -> Result<Self, String> {
        if token.len() < MIN_TOKEN_BYTES {
            return Err(format!(
                "is {} bytes long; take at least {MIN_TOKEN_BYTES} random ones",
                token.len()
            ));
        }
        if token.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(token.into()))
        } else {
            Err("holds a character that cannot stand in a header; take ASCII without spaces".into())
        }
    }

    /// Whether `given` is this token, in a time that says nothing of how much of it is right.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        bool::from(self.0.as_bytes().ct_eq(given.as_bytes()))
    }

    /// The token itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
