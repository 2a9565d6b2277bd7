//! Who may do what.

use std::fmt;

/// A secret that whoever holds it may act. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// The shortest token that is taken, in bytes.
pub const MIN_TOKEN_BYTES: usize = 16;

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
        match token.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(Self(token.into())),
            false => Err(
                "holds a character that cannot stand in a header; take ASCII without spaces".into(),
            ),
        }
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
