//! Events to bytes. Nothing a publisher sends can forge a field, an event or a comment.

use std::{fmt::Display, io::Write as _, time::Duration};

use bytes::{Buf as _, Bytes};
use thiserror::Error;

use super::EventId;

/// The longest event id a publisher may set, in bytes.
pub const MAX_ID_BYTES: usize = 255;
/// The longest event type, in bytes.
pub const MAX_TYPE_BYTES: usize = 255;
/// The longest key of an event, in bytes.
const MAX_KEY_BYTES: usize = 255;
/// What the types of the edge's own events begin with.
const RESERVED_TYPE: &str = "edge-";
/// Room at the beginning of an event for the head of a frame of HTTP/3, in bytes.
pub const FRAME_HEAD: usize = 5;
/// Room kept at the end of a draft for its id line and the blank line.
const ID_LINE: usize = 48;

/// Why an id or an event type cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidField {
    /// The value is too long.
    #[error("{field} is {len} bytes long, the limit is {limit}")]
    TooLong {
        /// `id`, `event` or `key`.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// The id looks like one that the edge gave.
    #[error(
        "id is of the form that the edge's own ids have, eight letters or digits, `-` and a number; \
         choose another"
    )]
    OwnShape,
    /// The id begins or ends with a space, which no client can send back.
    #[error("id begins or ends with a space, which is lost in a header; remove it")]
    OuterSpace,
    /// The type is one that only the edge itself sends.
    #[error(
        "event begins with `{RESERVED_TYPE}`, which is reserved for the edge; choose another type"
    )]
    Reserved,
    /// The value holds a control character, which could end the line it stands on.
    #[error("{field} holds the control character U+{:04X} at byte {at}; remove it", *.char as u32)]
    Control {
        /// `id`, `event` or `key`.
        field: &'static str,
        /// The character.
        char: char,
        /// Where it stands, in bytes.
        at: usize,
    },
}

/// Checks an id that a publisher sets.
///
/// # Errors
///
/// [`InvalidField`] when it is over 255 bytes or holds a control character. The HTML standard
/// (9.2.6) makes readers ignore an id with a NUL; a CR or LF would end the line. Fields lose the
/// spaces around their values (RFC 9110 5.5), so `Last-Event-ID` could not bring such an id back;
/// and an id like the edge's own would be taken for a place in the order.
pub fn validate_id(id: &str) -> Result<(), InvalidField> {
    if id.starts_with(' ') || id.ends_with(' ') {
        return Err(InvalidField::OuterSpace);
    }
    if EventId::parse(id).is_some() {
        return Err(InvalidField::OwnShape);
    }
    validate("id", id, MAX_ID_BYTES)
}

/// Checks an event type.
///
/// # Errors
///
/// [`InvalidField`] when it is over 255 bytes, holds a control character, or begins with `edge-`.
pub fn validate_type(event: &str) -> Result<(), InvalidField> {
    if event.starts_with(RESERVED_TYPE) {
        return Err(InvalidField::Reserved);
    }
    validate("event", event, MAX_TYPE_BYTES)
}

/// Checks the key of an event, which is not sent.
///
/// # Errors
///
/// [`InvalidField`] when it is over 255 bytes or holds a control character.
pub fn validate_key(key: &str) -> Result<(), InvalidField> {
    validate("key", key, MAX_KEY_BYTES)
}

fn validate(field: &'static str, value: &str, limit: usize) -> Result<(), InvalidField> {
    if value.len() > limit {
        let len = value.len();
        return Err(InvalidField::TooLong { field, len, limit });
    }
    match value.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, char)) => Err(InvalidField::Control { field, char, at }),
        None => Ok(()),
    }
}

/// An event encoded but for its id.
///
/// The id comes last because it is known only when the hub has numbered the event, under its lock:
/// what is left to do there is one short append. The order of fields has no meaning to readers.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Behind [`FRAME_HEAD`].
    wire: Vec<u8>,
}

impl Draft {
    /// Encodes an event. `data` is split into lines at CRLF, CR and LF; an empty `event` is the
    /// same as none.
    ///
    /// The caller has checked `event` with [`validate_type`], or has read it from a stream.
    #[must_use]
    pub fn new(event: Option<&str>, data: &str, retry: Option<Duration>) -> Self {
        let room = FRAME_HEAD + data.len() + event.map_or(0, str::len) + 32 + ID_LINE;
        let mut wire = Vec::with_capacity(room);
        wire.resize(FRAME_HEAD, 0);
        if let Some(event) = event.filter(|event| !event.is_empty()) {
            debug_assert!(!event.contains(['\r', '\n']));
            push(&mut wire, &["event: ", event, "\n"]);
        }
        if let Some(retry) = retry {
            push(&mut wire, &[&self::retry(retry)]);
        }
        push_data(&mut wire, data);
        Self { wire }
    }

    /// All of it but the id, as it is encoded.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.wire[FRAME_HEAD..]
    }

    /// One that was [`encoded`](Self::encoded) before.
    #[must_use]
    pub fn from_encoded(fields: &[u8]) -> Self {
        let mut wire = Vec::with_capacity(FRAME_HEAD + fields.len() + ID_LINE);
        wire.resize(FRAME_HEAD, 0);
        wire.extend_from_slice(fields);
        Self { wire }
    }

    /// Ends the event without an id: readers keep the one they have.
    #[must_use]
    pub fn finish_without_id(self) -> Bytes {
        unframed(self.framed_without_id())
    }

    /// The same behind [`FRAME_HEAD`] bytes that are to be filled in.
    #[must_use]
    pub fn framed_without_id(mut self) -> Vec<u8> {
        push(&mut self.wire, &["\n"]);
        self.wire
    }

    /// Ends the event with its id and the blank line that dispatches it.
    #[must_use]
    pub fn finish(self, id: impl Display) -> Bytes {
        unframed(self.framed(id))
    }

    /// The same behind [`FRAME_HEAD`] bytes that are to be filled in.
    #[must_use]
    pub fn framed(mut self, id: impl Display) -> Vec<u8> {
        writeln!(self.wire, "id: {id}\n").expect("writing to memory cannot fail");
        self.wire
    }
}

fn unframed(wire: Vec<u8>) -> Bytes {
    let mut wire = Bytes::from(wire);
    wire.advance(FRAME_HEAD);
    wire
}

fn push(wire: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        wire.extend_from_slice(part.as_bytes());
    }
}

fn push_data(wire: &mut Vec<u8>, data: &str) {
    let mut rest = data;
    loop {
        let Some(end) = rest.bytes().position(|b| b == b'\n' || b == b'\r') else {
            return push(wire, &["data: ", rest, "\n"]);
        };
        push(wire, &["data: ", &rest[..end], "\n"]);
        let line_end = if rest[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + line_end..];
    }
}

/// A `retry` field on its own: it takes effect when its line is read (HTML standard, 9.2.6). No
/// empty line follows, which clients built on fetch take for an empty message.
#[must_use]
pub fn retry(after: Duration) -> String {
    format!("retry: {}\n", after.as_millis())
}

/// An empty comment: it keeps proxies from closing a quiet stream, and readers skip it. No empty line
/// follows, as after a lone [`retry`].
#[must_use]
pub fn comment() -> Bytes {
    Bytes::from_static(b":\n")
}

/// The same for pages, to which comments are invisible: an event without an id.
#[must_use]
pub fn ping() -> Bytes {
    Bytes::from_static(b"event: edge-ping\ndata: {}\n\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::*, *};

    fn parse(wire: &[u8]) -> Vec<Item> {
        let mut parser = Parser::new(usize::MAX);
        let mut items = Vec::new();
        parser.push(wire, &mut items).expect("no limit");
        items
    }

    #[test]
    fn what_an_event_looks_like() {
        let draft = Draft::new(Some("goal"), "one\r\ntwo", Some(Duration::from_secs(2)));
        assert_eq!(
            draft.finish("x-1"),
            "event: goal\nretry: 2000\ndata: one\ndata: two\nid: x-1\n\n"
        );
    }

    #[test]
    fn nothing_can_be_forged_through_the_data() {
        let wire = Draft::new(None, "a\n\nevent: evil\r\rid: 7\n: c", None).finish("x-1");
        let [Item::Message(message)] = &parse(&wire)[..] else {
            panic!("one event");
        };
        assert_eq!(message.data, "a\n\nevent: evil\n\nid: 7\n: c");
        assert_eq!(
            (message.event.as_str(), message.id.as_str()),
            ("message", "x-1")
        );
    }

    fn normalized(data: &str) -> String {
        data.replace("\r\n", "\n").replace('\r', "\n")
    }

    proptest! {
        /// parse(encode(e)) = e, but for the line ends, which the format does not tell apart.
        #[test]
        fn parse_gives_back_what_was_encoded(
            event in proptest::option::of("[^\\p{Cc}]{1,40}"),
            data in "([a:\\u{0} \u{feff}\u{1F388}]|\r|\n|\r\n){0,60}",
            id in "[^\\p{Cc}]{1,40}",
            retry in proptest::option::of(0u64..1_000_000),
        ) {
            let draft = Draft::new(event.as_deref(), &data, retry.map(Duration::from_millis));
            let mut expected = Vec::new();
            expected.extend(retry.map(|ms| Item::Retry(Duration::from_millis(ms))));
            expected.push(Item::Message(Message {
                event: event.unwrap_or_else(|| "message".into()),
                data: normalized(&data),
                id: id.clone(),
            }));
            prop_assert_eq!(parse(&draft.finish(&id)), expected);
        }

        #[test]
        fn an_id_or_type_that_passes_stays_on_its_line(value: String) {
            if validate_id(&value).is_ok() {
                prop_assert!(value.len() <= MAX_ID_BYTES);
                prop_assert!(!value.contains(['\r', '\n', '\0']));
            }
        }
    }
}
