//! The heads of the frames that a peer of HTTP/2 sends: h2 answers some kinds of frame at a cost of
//! its own and counts none of them.
//!
//! Pure: bytes in, limits out.

use std::time::Instant;

use crate::limits::{Bucket, Limit};

/// What a client sends before its first frame (RFC 9113 3.4).
const PREFACE: usize = 24;
/// The length of a frame's head (RFC 9113 4.1).
const HEAD: usize = 9;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const WINDOW_UPDATE: u8 = 0x8;
/// The length of its payload (RFC 9113 6.9).
const INCREMENT: usize = 4;
/// The window of a connection before any of them (RFC 9113 6.9.2).
const INITIAL_WINDOW: u64 = 65_535;
const ACK: u8 = 0x1;

/// Follows what a client sends.
#[derive(Debug)]
pub(super) struct Frames {
    /// How much comes before the next head.
    skip: usize,
    head: [u8; HEAD + INCREMENT],
    /// How much of it has come.
    have: usize,
    /// How much of a head is wanted: of one that grants a window, the payload too.
    want: usize,
    granted: u64,
    settings: Bucket,
    pings: Bucket,
    requests: usize,
}

impl Frames {
    /// From the beginning of a connection on.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE,
            head: [0; HEAD + INCREMENT],
            have: 0,
            want: HEAD,
            granted: INITIAL_WINDOW,
            // Each change of the initial window visits every stream. Browsers send one.
            settings: Bucket::new(Limit::Http2Settings, 32, 1, now),
            // Clients that estimate their bandwidth send one a round trip.
            pings: Bucket::new(Limit::Http2Pings, 1000, 200, now),
            requests: 0,
        }
    }

    /// How much is left of the frame that the next byte is of.
    pub(super) fn left(&self) -> usize {
        self.skip
    }

    /// How much the peer has let the connection send since it began, by all its updates.
    pub(super) fn granted(&self) -> u64 {
        self.granted
    }

    /// How many requests have begun since they were last forgotten, trailers included.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    pub(super) fn forget_requests(&mut self) {
        self.requests = 0;
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    ///
    /// The limit that they pass.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        now: impl Fn() -> Instant,
    ) -> Result<(), Limit> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.want - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.skip > 0 || self.have < self.want {
                return Ok(());
            }
            let [a, b, c, kind, flags, w, x, y, z, increment @ ..] = self.head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let of_connection = [w & 0x7f, x, y, z] == [0; 4];
            if (kind, length, of_connection) == (WINDOW_UPDATE, INCREMENT, true) {
                if self.want == HEAD {
                    self.want += INCREMENT;
                    continue;
                }
                self.granted += u64::from(u32::from_be_bytes(increment) & 0x7fff_ffff);
            }
            self.skip = length + HEAD - self.want;
            (self.have, self.want) = (0, HEAD);
            self.requests += usize::from(kind == HEADERS);
            let bucket = match kind {
                _ if flags & ACK != 0 => continue,
                SETTINGS => &mut self.settings,
                PING => &mut self.pings,
                _ => continue,
            };
            bucket.take(1, now())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, stream]);
        // A payload that looks like heads.
        frame.extend([SETTINGS].repeat(length));
        frame
    }

    proptest! {
        /// However the bytes are cut, the same frame passes the limit.
        #[test]
        fn every_cut_counts_the_same(
            frames in proptest::collection::vec((3u8..9, 0u8..2, 0u8..2, prop_oneof![Just(4), 0usize..40]), 0..120),
            cuts in proptest::collection::vec(1usize..30, 1..20),
        ) {
            let now = crate::clock::now();
            let mut bytes = vec![SETTINGS; PREFACE];
            let mut passed_at = None;
            let (mut counted, mut granted) = (0, INITIAL_WINDOW);
            for (kind, flags, stream, length) in frames {
                if (kind, stream, length) == (WINDOW_UPDATE, 0, 4) {
                    granted += u64::from(u32::from_be_bytes([SETTINGS; 4]));
                }
                counted += usize::from(kind == SETTINGS && flags == 0);
                if counted == 33 && passed_at.is_none() {
                    passed_at = Some(bytes.len() + HEAD);
                }
                bytes.extend(frame(kind, flags, stream, length));
            }
            let mut scanner = Frames::new(now);
            let (mut rest, mut fed) = (&bytes[..], 0);
            let mut at = None;
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || at.is_some() {
                    break;
                }
                let (part, left) = rest.split_at((*cut).min(rest.len()));
                if scanner.feed(part, || now).is_err() {
                    at = Some(fed..=fed + part.len());
                }
                (rest, fed) = (left, fed + part.len());
            }
            match (at, passed_at) {
                (None, None) => prop_assert_eq!(scanner.granted(), granted),
                (Some(at), Some(passed)) => prop_assert!(at.contains(&passed)),
                (at, passed) => prop_assert!(false, "{at:?} {passed:?}"),
            }
        }
    }

    #[test]
    fn pings_have_a_pace_of_their_own() {
        let now = crate::clock::now();
        let mut frames = Frames::new(now);
        frames.feed(&[0; PREFACE], || now).expect("the preface");
        let ping = frame(PING, 0, 0, 8);
        for _ in 0..1000 {
            frames.feed(&ping, || now).expect("within the burst");
            frames
                .feed(&frame(PING, ACK, 0, 8), || now)
                .expect("an answer");
        }
        assert_eq!(frames.feed(&ping, || now), Err(Limit::Http2Pings));
    }
}
