//! Whether the pseudo-header fields of an encoded field section are as RFC 9114 4.3 has them.
//!
//! Pure. h3 does not look: it takes them twice, late, or a response's. Trailers of replies are encoded
//! here too: bodies are written without h3.

use bytes::Bytes;
use http::HeaderMap;

/// The pseudo-header fields of a request (RFC 9114 4.3.1).
pub(super) const PSEUDO: [&str; 4] = [":method", ":scheme", ":authority", ":path"];

/// Whether a field section keeps the rules for pseudo-header fields: each at most once, before all
/// others, none that is not a request's, and none in trailers (RFC 9114 4.3).
///
/// Only names are read, and of those only as much as it takes. What cannot be read is malformed:
/// h3 might read it after all.
pub(super) fn check_fields(section: &[u8], trailers: bool) -> Result<(), &'static str> {
    const NOT_QPACK: &str = "its field section cannot be read";
    let mut reader = Qpack(section);
    let mut seen = [false; PSEUDO.len()];
    let mut regular = false;
    let mut check = |name: FieldName| {
        let FieldName::Pseudo(pseudo) = name else {
            regular = true;
            return Ok(());
        };
        if trailers {
            return Err("a pseudo-header field in trailers");
        }
        if regular {
            return Err("a pseudo-header field after others");
        }
        let index = pseudo.ok_or("a pseudo-header field that is not a request's")?;
        if std::mem::replace(&mut seen[index], true) {
            Err("a pseudo-header field twice")
        } else {
            Ok(())
        }
    };
    // Required Insert Count and Base (RFC 9204 4.5.1).
    reader.integer(8).ok_or(NOT_QPACK)?;
    reader.integer(7).ok_or(NOT_QPACK)?;
    while !reader.0.is_empty() {
        check(reader.field().ok_or(NOT_QPACK)?)?;
    }
    Ok(())
}

/// A field section that names nothing of a table (RFC 9204 4.5): the few fields of trailers.
pub(super) fn encode(fields: &HeaderMap) -> Bytes {
    // Required Insert Count and Base.
    let mut section = vec![0, 0];
    for (name, value) in fields {
        put_integer(&mut section, 0x20, 3, name.as_str().len());
        section.extend_from_slice(name.as_str().as_bytes());
        put_integer(&mut section, 0, 7, value.len());
        section.extend_from_slice(value.as_bytes());
    }
    section.into()
}

/// An integer behind the first bits of its byte, with a prefix of so many bits (RFC 7541 5.1).
fn put_integer(out: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let mask = (1 << prefix) - 1;
    if value < mask {
        return out.push(first | value as u8);
    }
    out.push(first | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// What the name of a field is, as far as it matters here.
enum FieldName {
    Regular,
    /// Which one of [`PSEUDO`], or `None` for another.
    Pseudo(Option<usize>),
}

impl FieldName {
    /// Entries of the static table (RFC 9204, appendix A).
    fn of_static(index: u64) -> Self {
        match index {
            0 => Self::Pseudo(Some(2)),
            1 => Self::Pseudo(Some(3)),
            15..=21 => Self::Pseudo(Some(0)),
            22..=23 => Self::Pseudo(Some(1)),
            // :status
            24..=28 | 63..=71 => Self::Pseudo(None),
            _ => Self::Regular,
        }
    }

    fn of_literal(name: &[u8], huffman: bool) -> Self {
        let begins = match (name.first(), huffman) {
            (Some(&first), false) => first == b':',
            // The code of ':' is the seven bits 1011100 (RFC 7541, appendix B).
            (Some(&first), true) => first >> 1 == 0b101_1100,
            (None, _) => false,
        };
        if !begins {
            return Self::Regular;
        }
        Self::Pseudo(PSEUDO.iter().position(|known| {
            if huffman {
                huffman_name(known) == name
            } else {
                known.as_bytes() == name
            }
        }))
    }
}

/// The Huffman code (RFC 7541, appendix B) of a name that has only the letters of [`PSEUDO`].
pub(super) fn huffman_name(name: &str) -> Vec<u8> {
    let (mut bits, mut count, mut out) = (0u32, 0u32, Vec::new());
    for byte in name.bytes() {
        let (code, len) = match byte {
            b':' => (0b101_1100, 7),
            b'a' => (0b0_0011, 5),
            b'c' => (0b0_0100, 5),
            b'd' => (0b10_0100, 6),
            b'e' => (0b0_0101, 5),
            b'h' => (0b10_0111, 6),
            b'i' => (0b0_0110, 5),
            b'm' => (0b10_1001, 6),
            b'o' => (0b0_0111, 5),
            b'p' => (0b10_1011, 6),
            b'r' => (0b10_1100, 6),
            b's' => (0b0_1000, 5),
            b't' => (0b0_1001, 5),
            b'u' => (0b10_1101, 6),
            b'y' => (0b111_1010, 7),
            _ => return Vec::new(),
        };
        bits = bits << len | code;
        count += len;
        while count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    if count > 0 {
        // Padded with ones.
        out.push((bits << (8 - count)) as u8 | (0xff >> count));
    }
    out
}

/// Reads QPACK representations (RFC 9204 4.5); `None` at anything malformed.
struct Qpack<'a>(&'a [u8]);

impl<'a> Qpack<'a> {
    fn field(&mut self) -> Option<FieldName> {
        let first = *self.0.first()?;
        if first & 0x80 != 0 {
            let index = self.integer(6)?;
            return Some(static_name(first & 0x40 != 0, index));
        }
        let name = if first & 0x40 != 0 {
            let index = self.integer(4)?;
            static_name(first & 0x10 != 0, index)
        } else if first & 0x20 != 0 {
            let len = self.integer(3)?;
            let name = self.take(len)?;
            FieldName::of_literal(name, first & 0x08 != 0)
        } else {
            // References past the base of a dynamic table, which the edge does not offer.
            return None;
        };
        let len = self.integer(7)?;
        self.take(len)?;
        Some(name)
    }

    /// An integer with a prefix of so many bits (RFC 7541 5.1).
    fn integer(&mut self, prefix: u32) -> Option<u64> {
        let mask = (1u64 << prefix) - 1;
        let mut value = u64::from(self.byte()?) & mask;
        if value < mask {
            return Some(value);
        }
        for shift in (0..=28).step_by(7) {
            let byte = self.byte()?;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

fn static_name(is_static: bool, index: u64) -> FieldName {
    if is_static {
        FieldName::of_static(index)
    } else {
        FieldName::Regular
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_read_again(
            fields in proptest::collection::vec(("[a-z][a-z-]{0,200}", "[ -~]{0,400}"), 0..8),
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in &fields {
                let name = HeaderName::try_from(name.as_str()).expect("a name");
                map.append(name, HeaderValue::try_from(value.as_str()).expect("a value"));
            }
            let section = encode(&map);
            prop_assert_eq!(check_fields(&section, true), Ok(()));
            let mut reader = Qpack(&section[2..]);
            for (name, value) in &map {
                let len = reader.integer(3).expect("a length");
                prop_assert_eq!(reader.take(len), Some(name.as_str().as_bytes()));
                let len = reader.integer(7).expect("a length");
                prop_assert_eq!(reader.take(len), Some(value.as_bytes()));
            }
            prop_assert!(reader.0.is_empty());
        }
    }
}
