//! What stands between QUIC and the h3 crate, which buffers every frame but DATA whole before it
//! looks at its size, and validates little of what it decodes.
//!
//! Pure: bytes of a stream in, the same bytes out, or a violation.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::field_section::check_fields;
use crate::limits::Limit;

/// The largest field section, encoded: what the service takes at most, and what is just over it and
/// is answered with a problem.
const MAX_HEADERS: u64 = 18 << 10;
/// The largest frame of any other kind but DATA.
const MAX_OTHER: u64 = 4 << 10;

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;
/// Stream type of the control stream (RFC 9114 6.2.1).
const CONTROL_STREAM: u64 = 0x0;

/// What a peer must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Violation {
    /// H3_EXCESSIVE_LOAD: the connection is closed.
    #[error("a frame of type {kind:#x} announces {bytes} bytes, the limit is {limit}")]
    ExcessiveLoad {
        /// The frame's type.
        kind: u64,
        /// Its announced length.
        bytes: u64,
        limit: u64,
    },
    /// H3_EXCESSIVE_LOAD: the connection is closed, which has passed a limit.
    #[error("the connection passed {}", .0.key())]
    Passed(Limit),
    /// H3_MESSAGE_ERROR: the stream is reset (RFC 9114 4.1.2).
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
}

/// Looks at one stream as its bytes come in.
#[derive(Debug)]
pub(super) struct Guard {
    state: State,
    /// A field section has been seen: the next one is trailers.
    headers_seen: bool,
    /// Frames that are neither a field section nor of a body, since they were last asked for.
    others: usize,
}

#[derive(Debug)]
enum State {
    /// In the type of a unidirectional stream.
    StreamType(Varints),
    /// In the type and length of a frame.
    FrameHead(Varints),
    /// In a frame that is passed on as it comes.
    Passing(u64),
    /// In a field section, which is held back until it is whole.
    Holding(BytesMut, usize, usize),
    /// In a stream that has no frames, or that h3 will reject.
    Unframed,
}

/// The bytes of one or two variable-length integers (RFC 9000 16) that are still coming.
#[derive(Debug, Default)]
struct Varints {
    bytes: [u8; 16],
    len: usize,
}

impl Varints {
    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// The integer at `at` and where the next begins, once it is complete.
    fn get(&self, at: usize) -> Option<(u64, usize)> {
        let bytes = &self.bytes[..self.len];
        let first = *bytes.get(at)?;
        let end = at + (1 << (first >> 6));
        let rest = bytes.get(at + 1..end)?;
        let value = rest.iter().fold(u64::from(first & 0x3f), |value, &b| {
            value << 8 | u64::from(b)
        });
        Some((value, end))
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Guard {
    /// For a stream that a request comes in on.
    pub(super) fn request() -> Self {
        Self {
            state: State::FrameHead(Varints::default()),
            headers_seen: false,
            others: 0,
        }
    }

    /// For a unidirectional stream.
    pub(super) fn unidirectional() -> Self {
        Self {
            state: State::StreamType(Varints::default()),
            headers_seen: false,
            others: 0,
        }
    }

    /// How much of a field section is held back until it is whole.
    pub(super) fn held(&self) -> usize {
        match &self.state {
            State::Holding(held, ..) => held.len(),
            _ => 0,
        }
    }

    /// How many frames came since this was last asked that are neither a field section nor of a body.
    pub(super) fn take_others(&mut self) -> usize {
        std::mem::take(&mut self.others)
    }

    /// Whether the stream may end here: not in the middle of a frame.
    pub(super) fn may_end(&self) -> bool {
        match &self.state {
            State::FrameHead(varints) => varints.len == 0,
            State::Unframed => true,
            State::StreamType(_) | State::Passing(_) | State::Holding(..) => false,
        }
    }

    /// Looks at the next bytes, and returns those that may go on.
    ///
    /// # Errors
    ///
    /// The first [`Violation`]; the guard is of no use after that.
    pub(super) fn feed(&mut self, mut bytes: Bytes) -> Result<Bytes, Violation> {
        let mut out = BytesMut::new();
        loop {
            match &mut self.state {
                State::Unframed => return Ok(pass(out, bytes)),
                State::Passing(left) => {
                    let here = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    *left -= here as u64;
                    let rest = bytes.split_off(here);
                    if *left > 0 {
                        return Ok(pass(out, bytes));
                    }
                    self.state = State::FrameHead(Varints::default());
                    if rest.is_empty() {
                        return Ok(pass(out, bytes));
                    }
                    out.extend_from_slice(&bytes);
                    bytes = rest;
                }
                State::Holding(held, head, whole) => {
                    let here = (*whole - held.len()).min(bytes.len());
                    held.extend_from_slice(&bytes.split_to(here));
                    if held.len() < *whole {
                        return Ok(out.freeze());
                    }
                    check_fields(&held[*head..], self.headers_seen)
                        .map_err(Violation::Malformed)?;
                    self.headers_seen = true;
                    out.extend_from_slice(held);
                    self.state = State::FrameHead(Varints::default());
                }
                State::StreamType(varints) => {
                    if bytes.is_empty() {
                        return Ok(out.freeze());
                    }
                    varints.push(bytes.split_to(1)[0]);
                    if let Some((kind, _)) = varints.get(0) {
                        out.extend_from_slice(varints.as_bytes());
                        self.state = match kind {
                            CONTROL_STREAM => State::FrameHead(Varints::default()),
                            _ => State::Unframed,
                        };
                    }
                }
                State::FrameHead(varints) => {
                    if bytes.is_empty() {
                        return Ok(out.freeze());
                    }
                    varints.push(bytes.split_to(1)[0]);
                    let Some((kind, at)) = varints.get(0) else {
                        continue;
                    };
                    let Some((length, _)) = varints.get(at) else {
                        continue;
                    };
                    let head = varints.as_bytes();
                    let limit = match kind {
                        DATA => u64::MAX,
                        HEADERS => MAX_HEADERS,
                        _ => MAX_OTHER,
                    };
                    if length > limit {
                        let bytes = length;
                        return Err(Violation::ExcessiveLoad { kind, bytes, limit });
                    }
                    self.state = if kind == HEADERS {
                        let whole =
                            head.len() + usize::try_from(length).expect("it is under the limit");
                        State::Holding(head.into(), head.len(), whole)
                    } else {
                        self.others += usize::from(kind != DATA || length == 0);
                        out.extend_from_slice(head);
                        State::Passing(length)
                    };
                    if matches!(self.state, State::Passing(0)) {
                        self.state = State::FrameHead(Varints::default());
                    }
                }
            }
        }
    }
}

fn pass(mut out: BytesMut, bytes: Bytes) -> Bytes {
    if out.is_empty() {
        return bytes;
    }
    out.extend_from_slice(&bytes);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::field_section::{PSEUDO, huffman_name},
        *,
    };

    fn varint(value: u64) -> Vec<u8> {
        match value {
            0..64 => vec![value as u8],
            64..16_384 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
            16_384..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
            _ => (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
        }
    }

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        [varint(kind), varint(payload.len() as u64), payload.to_vec()].concat()
    }

    fn section(fields: &[&[u8]]) -> Vec<u8> {
        [&[0, 0], &fields.concat()[..]].concat()
    }

    /// `:method GET`, `:scheme https`, `:path /`, each from the static table.
    const METHOD: &[u8] = &[0xc0 | 17];
    const SCHEME: &[u8] = &[0xc0 | 23];
    const PATH: &[u8] = &[0xc0 | 1];
    /// `:authority a` by name reference.
    const AUTHORITY: &[u8] = &[0x50, 1, b'a'];
    const REGULAR: &[u8] = &[0x20 | 1, b'x', 1, b'y'];
    const STATUS: &[u8] = &[0xc0 | 25];

    #[test]
    fn a_request_with_its_body_goes_through() {
        let headers = section(&[METHOD, SCHEME, AUTHORITY, PATH, REGULAR]);
        let stream = [
            frame(HEADERS, &headers),
            frame(DATA, b"hello"),
            frame(HEADERS, &section(&[REGULAR])),
        ]
        .concat();
        let out = Guard::request()
            .feed(stream.clone().into())
            .expect("it is right");
        assert_eq!(out, stream);
    }

    #[test]
    fn pseudo_header_fields_twice_late_or_of_a_response() {
        let literal =
            |name: &str| [&[0x27, name.len() as u8 - 7], name.as_bytes(), &[1, b'a']].concat();
        for (fields, why) in [
            (vec![METHOD, METHOD], "a pseudo-header field twice"),
            (
                vec![METHOD, &literal(":method")],
                "a pseudo-header field twice",
            ),
            (
                vec![METHOD, REGULAR, SCHEME],
                "a pseudo-header field after others",
            ),
            (
                vec![METHOD, STATUS],
                "a pseudo-header field that is not a request's",
            ),
            (
                vec![METHOD, &literal(":protocol")],
                "a pseudo-header field that is not a request's",
            ),
        ] {
            let result = Guard::request().feed(frame(HEADERS, &section(&fields)).into());
            assert_eq!(result, Err(Violation::Malformed(why)));
        }
        let trailers = [
            frame(HEADERS, &section(&[METHOD])),
            frame(HEADERS, &section(&[PATH])),
        ]
        .concat();
        let result = Guard::request().feed(trailers.into());
        assert_eq!(
            result,
            Err(Violation::Malformed("a pseudo-header field in trailers"))
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_passed() {
        // h3 reads integers of up to ten bytes, and ignores this one.
        let long = [
            &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00, 0x00],
            METHOD,
            METHOD,
        ]
        .concat();
        for section in [long, vec![0], vec![0, 0, 0x51], vec![0, 0, 0x10]] {
            let result = Guard::request().feed(frame(HEADERS, &section).into());
            assert!(
                matches!(result, Err(Violation::Malformed(_))),
                "{section:?}"
            );
        }
    }

    #[test]
    fn a_stream_may_end_between_frames_only() {
        let whole = frame(DATA, b"hello");
        for cut in 0..=whole.len() {
            let mut guard = Guard::request();
            guard
                .feed(whole[..cut].to_vec().into())
                .expect("it is right");
            assert_eq!(guard.may_end(), cut == 0 || cut == whole.len());
        }
    }

    #[test]
    fn a_huffman_coded_name_is_seen_through() {
        // As nghttp2 encodes it: b9 49 53 39 e4 is `:method`.
        assert_eq!(huffman_name(":method"), [0xb9, 0x49, 0x53, 0x39, 0xe4]);
        for name in PSEUDO {
            let coded = huffman_name(name);
            let prefix = match coded.len() {
                short @ 0..7 => vec![0x28 | short as u8],
                long => vec![0x2f, long as u8 - 7],
            };
            let field = [&prefix[..], &coded[..], &[0]].concat();
            let twice = section(&[&field, &field]);
            let result = Guard::request().feed(frame(HEADERS, &twice).into());
            assert_eq!(
                result,
                Err(Violation::Malformed("a pseudo-header field twice")),
                "{name}"
            );
        }
    }

    #[test]
    fn frames_that_announce_too_much_are_refused_at_their_head() {
        for (kind, bytes) in [
            (HEADERS, MAX_HEADERS + 1),
            (0x21, MAX_OTHER + 1),
            (0x4, 1 << 40),
            (HEADERS, 1 << 40),
        ] {
            let head = [varint(kind), varint(bytes)].concat();
            let result = Guard::request().feed(head.into());
            assert!(
                matches!(result, Err(Violation::ExcessiveLoad { .. })),
                "{kind:#x} {bytes}"
            );
        }
        let data = [varint(DATA), varint(1 << 40)].concat();
        assert!(Guard::request().feed(data.into()).is_ok());
    }

    #[test]
    fn the_control_stream_is_watched_and_qpack_streams_are_not() {
        let settings = [varint(CONTROL_STREAM), frame(0x4, &[6, 0x40, 0xff])].concat();
        let mut control = Guard::unidirectional();
        assert_eq!(
            control.feed(settings.clone().into()).expect("it is right"),
            settings
        );
        let large = [varint(0x21), varint(1 << 20)].concat();
        assert!(control.feed(large.clone().into()).is_err());
        let encoder = [varint(0x2), large].concat();
        assert!(Guard::unidirectional().feed(encoder.into()).is_ok());
    }

    proptest! {
        #[test]
        fn any_chunking_passes_the_same_and_never_panics(
            frames in proptest::collection::vec(
                (prop_oneof![Just(DATA), Just(HEADERS), Just(0x21u64)], proptest::collection::vec(any::<u8>(), 0..80)),
                0..6),
            tail in proptest::collection::vec(any::<u8>(), 0..12),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let mut stream: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            stream.extend(tail);
            let whole = Guard::request().feed(stream.clone().into());
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut guard = Guard::request();
            let parts: Result<Vec<Bytes>, _> = cuts
                .windows(2)
                .map(|w| guard.feed(Bytes::copy_from_slice(&stream[w[0]..w[1]])))
                .collect();
            match (whole, parts) {
                (Ok(whole), Ok(parts)) => {
                    prop_assert_eq!(parts.concat(), whole.to_vec());
                    prop_assert!(stream.starts_with(&whole));
                }
                (whole, parts) => prop_assert_eq!(whole.err(), parts.err()),
            }
        }
    }
}
