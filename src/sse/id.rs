//! Event ids of the edge's own making: `<epoch>-<sequence>`.

use std::fmt;

/// When a history began: drawn at random, so that an id from another life is told from one of this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Epoch(u64);

/// The id of an event in a history: `<epoch>-<sequence>`, opaque to clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventId {
    /// The history that gave it.
    pub epoch: Epoch,
    /// The number of the event in that history, from 1; 0 stands before the first.
    pub sequence: u64,
}

const DIGITS: usize = 8;
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl Epoch {
    /// Makes an epoch of any random number.
    #[must_use]
    pub fn from_random(random: u64) -> Self {
        Self(random % 36u64.pow(DIGITS as u32))
    }

    /// The number of which [`from_random`](Self::from_random) makes it again.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; DIGITS];
        let mut rest = self.0;
        for digit in text.iter_mut().rev() {
            *digit = ALPHABET[(rest % 36) as usize];
            rest /= 36;
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

impl EventId {
    /// Reads an id that this format could have written; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, sequence) = text.split_once('-')?;
        let well_formed = epoch.len() == DIGITS
            && epoch.bytes().all(|b| ALPHABET.contains(&b))
            && !sequence.is_empty()
            && sequence.bytes().all(|b| b.is_ascii_digit())
            && (sequence == "0" || !sequence.starts_with('0'));
        if !well_formed {
            return None;
        }
        Some(Self {
            epoch: Epoch(u64::from_str_radix(epoch, 36).ok()?),
            sequence: sequence.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parse_reads_what_display_writes(random: u64, sequence: u64) {
            let id = EventId { epoch: Epoch::from_random(random), sequence };
            prop_assert_eq!(EventId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn display_writes_what_parse_reads(text in "[0-9a-z]{7,9}-[0-9]{0,21}") {
            if let Some(id) = EventId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn anything_else_is_none_without_a_panic(text: String) {
            let _: Option<EventId> = EventId::parse(&text);
        }
    }
}
