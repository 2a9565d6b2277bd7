//! As much of HTTP/2 (RFC 9113) as a reader of event streams needs, so that reading costs next to nothing
//! beside the server. Pure.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// What a client says first (section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window there is (section 6.9.1).
pub(super) const MAX_WINDOW: u32 = (1 << 31) - 1;
/// The window of a connection before it is raised (section 6.9.2).
pub(super) const FIRST_WINDOW: u32 = 65_535;
/// The largest frame it takes (section 6.5.2).
const MAX_FRAME: usize = 16_384;
const HEADER: usize = 9;

pub(super) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
}

pub(super) mod flag {
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

mod setting {
    pub(super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// The payload, with padding if there is any.
    pub(super) payload: Bytes,
}

/// A frame that is larger than this client takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge(pub(super) usize);

impl Frame {
    /// Takes a whole frame off the input, if there is one.
    pub(super) fn take(input: &mut BytesMut) -> Result<Option<Self>, TooLarge> {
        let Some(head) = input.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if length > MAX_FRAME {
            return Err(TooLarge(length));
        }
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & MAX_WINDOW;
        if input.len() < HEADER + length {
            return Ok(None);
        }
        input.advance(HEADER);
        Ok(Some(Self {
            kind,
            flags,
            stream,
            payload: input.split_to(length).freeze(),
        }))
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload without padding and priority (sections 6.1 and 6.2); nothing if they do not fit.
    pub(super) fn content(&self) -> &[u8] {
        let mut content = &self.payload[..];
        let mut padding = 0;
        if self.has(flag::PADDED) && !content.is_empty() {
            padding = content.get_u8() as usize;
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            content = content.get(5..).unwrap_or_default();
        }
        let end = content.len().saturating_sub(padding);
        &content[..end]
    }

    /// How many streams a SETTINGS frame grants, if it says so.
    pub(super) fn granted_streams(&self) -> Option<u32> {
        let settings = self.payload.chunks_exact(6);
        settings
            .map(|mut setting| (setting.get_u16(), setting.get_u32()))
            .filter(|(id, _)| *id == setting::MAX_CONCURRENT_STREAMS)
            .map(|(_, granted)| granted)
            .next_back()
    }
}

/// Writes a frame.
pub(super) fn put(output: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    output.put_uint(payload.len() as u64, 3);
    output.put_u8(kind);
    output.put_u8(flags);
    output.put_u32(stream);
    output.put_slice(payload);
}

/// Writes what a connection begins with: no push, the widest windows, and no table of header fields, so that
/// no answer depends on one before it.
pub(super) fn put_hello(output: &mut BytesMut) {
    output.put_slice(PREFACE);
    let mut settings = Vec::new();
    for (id, value) in [
        (setting::HEADER_TABLE_SIZE, 0),
        (setting::ENABLE_PUSH, 0),
        (setting::INITIAL_WINDOW_SIZE, MAX_WINDOW),
    ] {
        settings.put_u16(id);
        settings.put_u32(value);
    }
    put(output, kind::SETTINGS, 0, 0, &settings);
    put_window(output, 0, MAX_WINDOW - FIRST_WINDOW);
}

/// Writes a WINDOW_UPDATE.
pub(super) fn put_window(output: &mut BytesMut, stream: u32, by: u32) {
    put(output, kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
}

/// Writes a GET whose fields are literals without an index (RFC 7541, section 6.2.2).
pub(super) fn put_get(
    output: &mut BytesMut,
    stream: u32,
    secure: bool,
    authority: &str,
    path: &str,
    fields: &[(&str, &[u8])],
) {
    // `:method: GET` and `:scheme` of the static table.
    let mut block = vec![0x82, if secure { 0x87 } else { 0x86 }];
    for (name, value) in [(1, authority), (4, path)] {
        block.put_u8(name);
        put_string(&mut block, value.as_bytes());
    }
    for (name, value) in fields {
        block.put_u8(0);
        put_string(&mut block, name.as_bytes());
        put_string(&mut block, value);
    }
    let flags = flag::END_STREAM | flag::END_HEADERS;
    put(output, kind::HEADERS, flags, stream, &block);
}

/// A string without Huffman coding (RFC 7541, section 5.2).
fn put_string(block: &mut Vec<u8>, text: &[u8]) {
    const PREFIX: usize = 127;
    if text.len() < PREFIX {
        block.put_u8(text.len() as u8);
    } else {
        block.put_u8(PREFIX as u8);
        let mut rest = text.len() - PREFIX;
        while rest >= 128 {
            block.put_u8((rest % 128 + 128) as u8);
            rest /= 128;
        }
        block.put_u8(rest as u8);
    }
    block.put_slice(text);
}

/// The status of an answer, which stands first in it (section 8.3).
///
/// No answer depends on a table, so it is one of the static table (RFC 7541, appendix A) or three digits.
pub(super) fn status(block: &[u8]) -> Option<u16> {
    // The server may say that it keeps no table (section 6.3).
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    let (first, rest) = block[at..].split_first()?;
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match first {
        0x88..=0x8e => Some(STATIC[usize::from(first - 0x88)]),
        // A name of the static table that is `:status`, in the three kinds of a literal.
        0x48..=0x4e | 0x08..=0x0e | 0x18..=0x1e => digits(rest),
        _ => None,
    }
}

/// Three digits, with Huffman coding or without.
fn digits(text: &[u8]) -> Option<u16> {
    let (length, text) = text.split_first()?;
    let text = text.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    // 0 to 2 have five bits, 00000 to 00010; 3 to 9 have six, 011001 to 011111 (RFC 7541, appendix B).
    let mut bits = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |n| u16::from(byte >> n & 1)));
    let mut value = 0;
    for _ in 0..3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | bits.next()?;
        }
        if code > 2 {
            code = code << 1 | bits.next()?;
            code = code.checked_sub(0b01_1001)? + 3;
        }
        value = value * 10 + code;
    }
    (value < 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(wire: &[u8]) -> Vec<Frame> {
        let mut input = BytesMut::from(wire);
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = Frame::take(&mut input) {
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn statuses_are_read_however_they_are_written() {
        for (block, expected) in [
            (&[0x88][..], Some(200)),
            (&[0x20, 0x88, 0x00], Some(200)),
            (&[0x3f, 0x00, 0x88], None),
            (&[0x8d], Some(404)),
            (b"\x48\x03503", Some(503)),
            (b"\x08\x03429", Some(429)),
            // RFC 7541, appendix C.6.1: 302 in Huffman coding.
            (&[0x48, 0x82, 0x64, 0x02], Some(302)),
            // C.6.2: 307.
            (&[0x48, 0x83, 0x64, 0x0e, 0xff], Some(307)),
            (&[], None),
            (&[0x48], None),
            (&[0x48, 0x83, 0x64], None),
            (&[0xbe], None),
        ] {
            assert_eq!(status(block), expected, "{block:x?}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut output = BytesMut::new();
        put_hello(&mut output);
        let frames = read(&output[PREFACE.len()..]);
        let kinds: Vec<u8> = frames.iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [kind::SETTINGS, kind::WINDOW_UPDATE]);
        assert_eq!(frames[0].granted_streams(), None);
        let mut granting = frames[0].payload.to_vec();
        granting.extend([0, 3, 0, 0, 0, 250]);
        let frame = Frame {
            payload: granting.into(),
            kind: kind::SETTINGS,
            flags: 0,
            stream: 0,
        };
        assert_eq!(frame.granted_streams(), Some(250));
    }

    #[test]
    fn padding_is_no_content() {
        let frame = |kind, flags, payload: &'static [u8]| Frame {
            kind,
            flags,
            stream: 1,
            payload: Bytes::from_static(payload),
        };
        let padded = frame(kind::DATA, flag::PADDED, b"\x02ab..");
        assert_eq!(padded.content(), b"ab");
        let both = flag::PADDED | flag::PRIORITY;
        assert_eq!(frame(kind::HEADERS, both, b"\x01.....h.").content(), b"h");
        assert_eq!(frame(kind::DATA, flag::PADDED, b"\xff").content(), b"");
        assert_eq!(frame(kind::HEADERS, both, b"\x01.").content(), b"");
    }

    #[test]
    fn a_frame_too_large_is_named() {
        let mut input = BytesMut::from(&[0x01, 0, 0, 0, 0, 0, 0, 0, 1][..]);
        assert_eq!(Frame::take(&mut input), Err(TooLarge(65_536)));
    }

    proptest! {
        #[test]
        fn a_request_is_one_frame_that_says_it(path in "/[a-z]{0,400}", value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut output = BytesMut::new();
            put_get(&mut output, 5, true, "host:1", &path, &[("last-event-id", &value)]);
            let frames = read(&output);
            prop_assert_eq!(frames.len(), 1);
            prop_assert_eq!((frames[0].kind, frames[0].stream), (kind::HEADERS, 5));
            let has = |part: &[u8]| frames[0].payload.windows(part.len().max(1)).any(|at| at == part) || part.is_empty();
            prop_assert!(has(path.as_bytes()) && has(&value));
        }

        #[test]
        fn nothing_from_the_wire_panics(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _: Option<u16> = status(&wire);
            for frame in read(&wire) {
                let _: (&[u8], Option<u32>) = (frame.content(), frame.granted_streams());
            }
        }
    }
}
