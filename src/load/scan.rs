//! Reads an event stream at next to no cost: it finds stamps and ids and forgets the rest. Pure.
//!
//! Lines end with LF or CR LF. (A lone CR, which the HTML standard allows in section 9.2.5, no server is
//! known to write.)

use super::stamp::Stamp;

/// How much of a line is kept until its end comes: enough for a stamp or an id, wherever it stands.
const KEPT: usize = 1024;
/// How much of a comment is kept.
const WORD: usize = 120;

/// The state between two pieces of a stream.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    stamp: Option<Stamp>,
    id: Option<Vec<u8>>,
    last_id: Vec<u8>,
    word: Vec<u8>,
}

/// What a piece of a stream held.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An event with a stamp.
    Event(Stamp),
    /// A comment: a keepalive.
    Comment,
}

impl Scanner {
    /// For a stream that goes on after this id.
    pub(super) fn after(id: &[u8]) -> Self {
        Self {
            last_id: id.to_vec(),
            ..Self::default()
        }
    }

    /// Reads a piece.
    pub(super) fn push(&mut self, mut piece: &[u8], mut found: impl FnMut(Found)) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            if self.line.is_empty() {
                self.take(&piece[..end], &mut found);
            } else {
                self.keep(&piece[..end]);
                let line = std::mem::take(&mut self.line);
                self.take(&line, &mut found);
            }
            piece = &piece[end + 1..];
        }
        self.keep(piece);
    }

    /// The id to come back with; empty before there is one.
    pub(super) fn last_id(&self) -> &[u8] {
        &self.last_id
    }

    /// The last comment that said something: why a stream ended, if the server is so kind.
    pub(super) fn last_word(&self) -> &[u8] {
        &self.word
    }

    /// Forgets the event that was cut off, as one does who connects again.
    pub(super) fn restart(&mut self) {
        self.line = Vec::new();
        self.stamp = None;
        self.id = None;
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = KEPT.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn take(&mut self, line: &[u8], found: &mut impl FnMut(Found)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if let Some(id) = self.id.take() {
                self.last_id = id;
            }
            if let Some(stamp) = self.stamp.take() {
                found(Found::Event(stamp));
            }
        } else if let Some(word) = line.strip_prefix(b":") {
            let word = word.trim_ascii();
            if !word.is_empty() {
                self.word = word[..word.len().min(WORD)].to_vec();
            }
            found(Found::Comment);
        } else if let Some(data) = line.strip_prefix(b"data:") {
            let begin = &data[..data.len().min(KEPT)];
            self.stamp = self.stamp.or_else(|| Stamp::find(begin));
        } else if let Some(id) = line.strip_prefix(b"id:") {
            self.id = Some(id.strip_prefix(b" ").unwrap_or(id).to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sse::{Item, Parser};

    proptest! {
        /// Whatever the pieces, it finds what the parser of the client finds in the whole.
        #[test]
        fn it_finds_what_a_parser_finds(
            events in proptest::collection::vec((0usize..3, any::<u16>(), 0usize..3000, any::<bool>()), 0..12),
            cuts in proptest::collection::vec(1usize..700, 1..20),
        ) {
            let mut wire = String::new();
            for (kind, number, size, crlf) in events {
                let end = if crlf { "\r\n" } else { "\n" };
                let stamp = Stamp { run: 3, publisher: 1, sequence: number.into(), due: 7 };
                wire += &match kind {
                    0 => format!(": alive{end}"),
                    1 => format!("id: {number}{end}data: {}{end}{end}", stamp.data(size)),
                    _ => format!("event: other{end}data: none{end}{end}"),
                };
            }
            let mut items = Vec::new();
            let mut parser = Parser::new(usize::MAX);
            parser.push(wire.as_bytes(), &mut items).expect("no limit");
            let expected: Vec<_> = items.iter().filter_map(|item| match item {
                Item::Comment(_) => Some(Found::Comment),
                Item::Message(message) => Stamp::find(message.data.as_bytes()).map(Found::Event),
                Item::Retry(_) => None,
            }).collect();
            let mut scanner = Scanner::default();
            let mut found = Vec::new();
            let (mut rest, mut cuts) = (wire.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, left) = rest.split_at(rest.len().min(*cuts.next().expect("a cycle")));
                scanner.push(piece, |what| found.push(what));
                rest = left;
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(scanner.last_id(), parser.last_id().as_bytes());
        }
    }
}
