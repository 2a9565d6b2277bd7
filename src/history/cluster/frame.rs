//! What a message of the order looks like: a frame of entries.
//!
//! ```text
//! frame  magic 4 | format u8 | boot u64 | number u64 | count u16 | entries
//! entry  kind u8 | bytes u32 | body
//! ```
//!
//! All numbers are little endian. The sequence of an entry is that of its frame in the stream, with its place in the
//! frame behind: both come from the order and are not written.
//!
//! Pure: no clock, no lock, no task.

use std::fmt;

use thiserror::Error;

use crate::{
    history::record::{self, Encoded, Kind},
    hub::OWN_PLACES,
};

const MAGIC: &[u8; 4] = b"7thF";
const FORMAT: u8 = 1;
const HEAD: usize = 4 + 1 + 8 + 8 + 2;
const ENTRY: usize = 1 + 4;
/// The most entries of a frame: the places behind are each edge's own.
pub(super) const ENTRIES: usize = OWN_PLACES as usize;
/// The most bytes of a frame: half of what a server takes unless it is told otherwise (`max_payload`).
pub(super) const BYTES: usize = 512 << 10;

/// Which frame of all it is: those of one life of an edge are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FrameId {
    /// Drawn at random by each life.
    pub(super) boot: u64,
    pub(super) number: u64,
}

/// What the servers know a frame by, so that one which is sent again is not stored again.
impl fmt::Display for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.boot, self.number)
    }
}

/// What an entry takes in a frame, in bytes.
pub(super) fn cost(entry: &Encoded) -> usize {
    ENTRY + entry.body.len()
}

/// The most bytes that an entry may take.
pub(super) const LARGEST: usize = BYTES - HEAD;

/// Writes a frame.
pub(super) fn encode<'a>(
    id: FrameId,
    entries: impl ExactSizeIterator<Item = &'a Encoded>,
) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(FORMAT);
    bytes.extend(id.boot.to_le_bytes());
    bytes.extend(id.number.to_le_bytes());
    let count = u16::try_from(entries.len()).expect("a frame has few entries");
    bytes.extend(count.to_le_bytes());
    for Encoded { kind, body, .. } in entries {
        bytes.push(*kind as u8);
        let len = u32::try_from(body.len()).expect("a frame is short");
        bytes.extend(len.to_le_bytes());
        bytes.extend(body);
    }
    bytes
}

/// A frame that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) id: FrameId,
    pub(super) entries: Vec<(Kind, &'a [u8])>,
}

/// Why a message is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum BadFrame {
    #[error("it is no frame of Seventh")]
    Foreign,
    #[error("it is of format {0}, which this version does not know")]
    Format(u8),
    #[error("it has an entry of kind {0} that this version does not know")]
    Kind(u8),
    #[error("it is cut short, or damaged")]
    Damaged,
}

impl BadFrame {
    /// Whether a later version may read it.
    pub(super) fn is_of_later(self) -> bool {
        matches!(self, Self::Format(_) | Self::Kind(_))
    }
}

/// Reads a frame.
pub(super) fn decode(bytes: &[u8]) -> Result<Frame<'_>, BadFrame> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(BadFrame::Foreign)?;
    let (&format, rest) = rest.split_first().ok_or(BadFrame::Damaged)?;
    if format != FORMAT {
        return Err(BadFrame::Format(format));
    }
    let (id, entries) = whole(rest).ok_or(BadFrame::Damaged)?;
    let known = |(kind, body)| match Kind::from_u8(kind) {
        Some(known) if !record::is_of_later(known, body) => Ok((known, body)),
        _ => Err(BadFrame::Kind(kind)),
    };
    let entries = entries.into_iter().map(known).collect::<Result<_, _>>()?;
    Ok(Frame { id, entries })
}

/// The frame of a message but for what its entries are.
type Raw<'a> = (FrameId, Vec<(u8, &'a [u8])>);

fn whole(mut rest: &[u8]) -> Option<Raw<'_>> {
    let id = FrameId {
        boot: u64::from_le_bytes(take(&mut rest)?),
        number: u64::from_le_bytes(take(&mut rest)?),
    };
    let count = u16::from_le_bytes(take(&mut rest)?);
    let mut entry = || {
        let [kind] = take(&mut rest)?;
        let len = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (body, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some((kind, body))
    };
    let entries: Option<Vec<_>> = (0..count).map(|_| entry()).collect();
    let entries = entries?;
    (rest.is_empty() && entries.len() <= ENTRIES).then_some((id, entries))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smallvec::SmallVec;

    use super::*;

    /// One of this version.
    fn encoded() -> impl Strategy<Value = Encoded> {
        let body = proptest::collection::vec(any::<u8>(), 0..40);
        let encoded = (1u8..10, body).prop_map(|(kind, body)| Encoded {
            kind: Kind::from_u8(kind).expect("it is one"),
            body,
            topics: SmallVec::new(),
        });
        encoded.prop_filter("it is of a later version", |entry| {
            !record::is_of_later(entry.kind, &entry.body)
        })
    }

    proptest! {
        #[test]
        fn a_frame_comes_back_and_a_part_of_one_does_not(
            boot: u64, number: u64, cut in any::<prop::sample::Index>(),
            entries in proptest::collection::vec(encoded(), 0..20),
        ) {
            let id = FrameId { boot, number };
            let bytes = encode(id, entries.iter());
            prop_assert_eq!(bytes.len(), HEAD + entries.iter().map(cost).sum::<usize>());
            let read = entries.iter().map(|entry| (entry.kind, &entry.body[..])).collect();
            prop_assert_eq!(decode(&bytes), Ok(Frame { id, entries: read }));
            let part = decode(&bytes[..cut.index(bytes.len())]);
            prop_assert!(part.is_err_and(|error| !error.is_of_later()));
        }

        #[test]
        fn what_a_later_version_wrote_is_told_from_damage(format in 2u8.., kind in 200u8.., body: Vec<u8>) {
            let id = FrameId { boot: 7, number: 1 };
            let known = Encoded { kind: Kind::Passed, body, topics: SmallVec::new() };
            let mut bytes = encode(id, [&known, &known].into_iter());
            bytes[HEAD] = kind;
            prop_assert_eq!(decode(&bytes), Err(BadFrame::Kind(kind)));
            let with_more = Encoded { kind: Kind::Event, body: vec![128], topics: SmallVec::new() };
            let with_more = encode(id, [&with_more].into_iter());
            prop_assert_eq!(decode(&with_more), Err(BadFrame::Kind(1)));
            bytes[MAGIC.len()] = format;
            prop_assert_eq!(decode(&bytes), Err(BadFrame::Format(format)));
        }

        #[test]
        fn anything_is_read_without_a_panic(mut bytes: Vec<u8>, is_like_one: bool) {
            if is_like_one {
                bytes.splice(0..0, *b"7thF\x01");
            }
            let _: Result<Frame<'_>, BadFrame> = decode(&bytes);
        }
    }
}
