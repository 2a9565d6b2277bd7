//! An app's event stream, event by event, whatever its chunks. Pure.

use crate::sse::{Item, Parser};

/// Finds where events end: behind empty lines.
#[derive(Debug)]
pub(in crate::proxy) struct Ends {
    line_is_empty: bool,
    after_cr: bool,
    /// Nothing of the next event was seen.
    between: bool,
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            line_is_empty: true,
            after_cr: false,
            between: true,
        }
    }
}

impl Ends {
    /// How much of `bytes` there is up to the next end of an event; `None` when there is no end in it, and
    /// all of it was looked at.
    fn next(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            let lf_of_crlf =
                std::mem::replace(&mut self.after_cr, *byte == b'\r') && *byte == b'\n';
            if lf_of_crlf {
                continue;
            }
            let ends_line = matches!(byte, b'\n' | b'\r');
            self.between = ends_line && self.line_is_empty;
            if self.between {
                return Some(at + 1);
            }
            self.line_is_empty = ends_line;
        }
        None
    }

    /// Looks at `bytes`.
    pub(in crate::proxy) fn look(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = self.next(rest) {
            rest = &rest[end..];
        }
    }

    /// Whether what was looked at ends between two events.
    pub(in crate::proxy) fn is_between(&self) -> bool {
        self.between
    }
}

/// Reads events; one that is too long is cut out, and the next is read.
#[derive(Debug)]
pub(super) struct Events {
    limit: usize,
    ends: Ends,
    parser: Parser,
    skipping: bool,
}

/// What a stream says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Item(Item),
    /// An event was longer than is passed on.
    TooLong,
}

impl Events {
    /// Reads events of at most so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            ends: Ends::default(),
            parser: Parser::new(limit),
            skipping: false,
        }
    }

    /// Reads the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8], said: &mut Vec<Said>) {
        let mut items = Vec::new();
        while !bytes.is_empty() {
            let end = self.ends.next(bytes);
            let (event, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            bytes = rest;
            if !self.skipping && self.parser.push(event, &mut items).is_err() {
                self.skipping = true;
                let id = self.parser.last_id().to_owned();
                self.parser = Parser::resuming(self.limit, id);
            }
            said.extend(items.drain(..).map(Said::Item));
            if self.skipping && end.is_some() {
                self.skipping = false;
                said.push(Said::TooLong);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(said: &[Said]) -> Vec<String> {
        said.iter()
            .filter_map(|said| match said {
                Said::Item(Item::Message(message)) => Some(message.data.clone()),
                Said::Item(_) => None,
                Said::TooLong => Some("too long".into()),
            })
            .collect()
    }

    #[test]
    fn what_is_too_long_is_cut_out() {
        let mut events = Events::new(100);
        let mut said = Vec::new();
        let long = format!(
            "id: 1\ndata: a\n\ndata: {}\nid: 9\ndata: x\r\n\r\ndata: b\n\n",
            "y".repeat(300)
        );
        events.push(long.as_bytes(), &mut said);
        assert_eq!(data(&said), ["a", "too long", "b"]);
        let Some(Said::Item(Item::Message(last))) = said.pop() else {
            panic!("a message");
        };
        assert_eq!(last.id, "1");
    }

    proptest! {
        /// However a stream is cut into chunks, its events are the same, and each end is found once.
        #[test]
        fn every_cut_reads_the_same(
            lines in proptest::collection::vec("(data: [a-z]{0,9}|id: [0-9]|:c|data: [a-z]{90,120}|)(\n|\r\n|\r)", 0..30),
            cut in 1usize..20,
        ) {
            let stream = lines.concat();
            let read = |size: usize| {
                let (mut events, mut said) = (Events::new(80), Vec::new());
                for chunk in stream.as_bytes().chunks(size) {
                    events.push(chunk, &mut said);
                }
                said
            };
            prop_assert_eq!(read(cut), read(usize::MAX));
        }
    }
}
