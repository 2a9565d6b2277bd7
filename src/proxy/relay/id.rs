//! Ids of events whose app gave them none. Pure.

use std::fmt;

const PREFIX: &str = "relay-";
const TOKEN: usize = 32;

/// What nobody guesses: whoever knows it was given one of the stream's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Token(u128);

impl Token {
    /// Of these random bytes.
    pub(super) fn new(random: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(random))
    }

    /// The id of the stream's event with this number.
    pub(super) fn id(self, number: u64) -> String {
        format!("{PREFIX}{self}-{number}")
    }

    /// That of an id, if it is one of these.
    pub(super) fn of_id(id: &str) -> Option<Self> {
        let (token, number) = id.strip_prefix(PREFIX)?.split_once('-')?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let plain = token.len() == TOKEN && token.bytes().all(hex);
        number.parse::<u64>().ok()?;
        plain.then(|| u128::from_str_radix(token, 16).ok().map(Self))?
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0TOKEN$x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_leads_back_to_its_token(random: [u8; 16], number: u64) {
            let token = Token::new(random);
            prop_assert_eq!(Token::of_id(&token.id(number)), Some(token));
        }

        #[test]
        fn other_ids_are_the_apps(id in "(relay-)?[0-9a-fA-F]{30,34}-?[0-9]{0,3}") {
            if let Some(token) = Token::of_id(&id) {
                let begins = format!("relay-{token}-");
                prop_assert!(id.starts_with(&begins));
            }
        }
    }
}
