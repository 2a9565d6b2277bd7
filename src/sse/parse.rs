//! Bytes to events: the algorithm of the HTML standard, section 9.2.6, for any chunking.

use std::time::Duration;

use thiserror::Error;

/// What a stream says, in the order it says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An event that an `EventSource` would dispatch.
    Message(Message),
    /// A new reconnection time.
    Retry(Duration),
    /// A comment line, without its colon.
    Comment(String),
}

/// An event as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The type, `message` when none was given.
    pub event: String,
    /// The lines of data, joined by LF.
    pub data: String,
    /// The last event id in force when it was dispatched.
    pub id: String,
}

/// A line or an event grew over the reader's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an event of the stream is over {limit} bytes long")]
pub struct Overlong {
    /// The limit, in bytes.
    pub limit: usize,
}

/// Reads an event stream as it arrives.
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    at_start: bool,
    after_cr: bool,
    line: Vec<u8>,
    event: String,
    data: String,
    has_data: bool,
    /// The id buffer: it survives the dispatch of an event.
    id: String,
    /// The last event id: the id buffer as of the last blank line.
    last_id: String,
}

impl Parser {
    /// A parser that refuses events over `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            at_start: true,
            after_cr: false,
            line: Vec::new(),
            event: String::new(),
            data: String::new(),
            has_data: false,
            id: String::new(),
            last_id: String::new(),
        }
    }

    /// A parser for a stream that resumes after `id`.
    #[must_use]
    pub fn resuming(limit: usize, id: String) -> Self {
        Self {
            id: id.clone(),
            last_id: id,
            ..Self::new(limit)
        }
    }

    /// The last event id: what a reconnect sends as `Last-Event-ID`.
    #[must_use]
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Reads `bytes` and appends what they complete to `items`.
    ///
    /// # Errors
    ///
    /// [`Overlong`] when a line, or the data of an event, passes the limit. The parser is of no
    /// use after that.
    pub fn push(&mut self, mut bytes: &[u8], items: &mut Vec<Item>) -> Result<(), Overlong> {
        while !bytes.is_empty() {
            // The LF of a CRLF whose CR ended the line before, perhaps in another chunk.
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let taken = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + taken.len() + self.data.len() > self.limit {
                return Err(Overlong { limit: self.limit });
            }
            self.line.extend_from_slice(taken);
            let Some(end) = end else { return Ok(()) };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let mut line = std::mem::take(&mut self.line);
            self.take_line(&line, items);
            line.clear();
            self.line = line;
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], items: &mut Vec<Item>) {
        let line = if std::mem::take(&mut self.at_start) {
            line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line)
        } else {
            line
        };
        if line.is_empty() {
            self.dispatch(items);
            return;
        }
        let text = String::from_utf8_lossy(line);
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        if field.is_empty() && line[0] == b':' {
            items.push(Item::Comment(value.to_owned()));
            return;
        }
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
                self.has_data = true;
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                // Digits beyond 64 bits still mean "a very long time".
                let ms = value.parse().unwrap_or(u64::MAX);
                items.push(Item::Retry(Duration::from_millis(ms)));
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, items: &mut Vec<Item>) {
        self.last_id.clone_from(&self.id);
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        if !std::mem::take(&mut self.has_data) {
            return;
        }
        data.pop();
        items.push(Item::Message(Message {
            event: if event.is_empty() {
                "message".into()
            } else {
                event
            },
            data,
            id: self.last_id.clone(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> (Vec<Item>, String) {
        let mut parser = Parser::new(usize::MAX);
        let mut items = Vec::new();
        for chunk in chunks {
            parser.push(chunk, &mut items).expect("no limit");
        }
        (items, parser.last_id)
    }

    fn data(text: &str) -> Item {
        message("message", text, "")
    }

    fn message(event: &str, data: &str, id: &str) -> Item {
        Item::Message(Message {
            event: event.into(),
            data: data.into(),
            id: id.into(),
        })
    }

    /// The examples of the HTML standard, section 9.2.6.
    #[test]
    fn the_examples_of_the_standard() {
        let (items, _) = parse(&[b"data: YHOO\ndata: +2\ndata: 10\n\n"]);
        assert_eq!(items, [data("YHOO\n+2\n10")]);

        let (items, last_id) = parse(&[
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        ]);
        assert_eq!(
            items,
            [
                Item::Comment(" test stream".into()),
                message("message", "first event", "1"),
                data("second event"),
                data(" third event"),
            ]
        );
        assert_eq!(last_id, "");

        let (items, _) = parse(&[b"data\n\ndata\ndata\n\ndata:"]);
        assert_eq!(items, [data(""), data("\n")]);

        let (items, _) = parse(&[b"data:test\n\ndata: test\n\n"]);
        assert_eq!(items, [data("test"), data("test")]);
    }

    #[test]
    fn line_ends_of_all_three_kinds_also_across_chunks() {
        let (items, _) = parse(&[b"data: a\r", b"\ndata: b\rdata: c\n", b"\r", b"\n", b"\n"]);
        assert_eq!(items, [data("a\nb\nc")]);
    }

    #[test]
    fn one_byte_order_mark_is_skipped_and_only_at_the_start() {
        let (items, _) = parse(&[b"\xEF\xBB", b"\xBFdata: a\n\n\xEF\xBB\xBFdata: b\n\n"]);
        assert_eq!(items, [data("a")]);
    }

    #[test]
    fn an_id_with_nul_is_ignored_and_an_id_without_data_moves_the_cursor() {
        let (items, last_id) = parse(&[b"id: a\x00b\ndata: x\n\nid: 5\n\n"]);
        assert_eq!(items, [data("x")]);
        assert_eq!(last_id, "5");
    }

    #[test]
    fn an_id_counts_only_once_its_event_has_ended() {
        let (_, last_id) = parse(&[b"id: 1\ndata: x\n\nid: 2\ndata: cut"]);
        assert_eq!(last_id, "1");
    }

    #[test]
    fn retry_takes_digits_only() {
        let (items, _) = parse(&[b"retry: 10\nretry: -1\nretry: 1.5\nretry:\nretry: 1a\n"]);
        assert_eq!(items, [Item::Retry(Duration::from_millis(10))]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser::new(10);
        let mut items = Vec::new();
        parser.push(b"data: 1234", &mut items).expect("ten bytes");
        assert_eq!(parser.push(b"5", &mut items), Err(Overlong { limit: 10 }));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same(
            bytes in proptest::collection::vec(
                prop_oneof![
                    Just(b"data: ".to_vec()), Just(b"id: 3".to_vec()), Just(b"event: e".to_vec()),
                    Just(b"retry: 5".to_vec()), Just(b"\r\n".to_vec()), Just(b"\n".to_vec()),
                    Just(b"\r".to_vec()), Just(b"\xEF\xBB\xBF".to_vec()), Just(b"\0".to_vec()),
                    Just(b":".to_vec()), proptest::collection::vec(any::<u8>(), 0..4),
                ], 0..40),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes = bytes.concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(parse(&chunks), parse(&[&bytes]));
        }
    }
}
