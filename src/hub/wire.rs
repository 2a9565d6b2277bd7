//! Events as they go over the wire, and what of them is in memory only because readers have not
//! taken it.

use std::{fmt, sync::Arc};

use bytes::{Buf as _, Bytes};

use crate::{
    sse::FRAME_HEAD,
    sync::atomic::{AtomicUsize, Ordering},
};

/// One or more whole events, behind the head of the HTTP/3 frame that they are the payload of: it is
/// made once, for all streams. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Wire(Bytes);

impl Wire {
    /// The events in `framed`, which begins with room for the head. Its bytes are counted in `ledger`
    /// until nobody has them any more.
    pub(super) fn new(mut framed: Vec<u8>, ledger: &Arc<Ledger>) -> Self {
        let len = framed.len() - FRAME_HEAD;
        // A DATA frame, RFC 9114 7.2.1, with its length in four bytes, RFC 9000 16.
        let len = u32::try_from(len).expect("far less than 1 GiB") | 0x8000_0000;
        framed[0] = 0;
        framed[1..FRAME_HEAD].copy_from_slice(&len.to_be_bytes());
        let ledger = ledger.clone();
        Self(Bytes::from_owner(Counted { framed, ledger }))
    }

    /// No events at all.
    pub(super) fn none() -> Self {
        Self(Bytes::new())
    }

    /// How many bytes the events are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len().saturating_sub(FRAME_HEAD)
    }

    /// Whether it is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The events.
    #[must_use]
    pub fn payload(mut self) -> Bytes {
        self.0.advance(FRAME_HEAD.min(self.0.len()));
        self.0
    }

    /// The events as one DATA frame of HTTP/3.
    #[must_use]
    pub fn framed(self) -> Bytes {
        self.0
    }

    /// The events.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.0.get(FRAME_HEAD..).unwrap_or_default()
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Bytes::copy_from_slice(self.as_slice()), f)
    }
}

/// Bytes that are taken off the ledger when the last who has them lets go.
struct Counted {
    framed: Vec<u8>,
    ledger: Arc<Ledger>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.framed
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let len = self.framed.len();
        self.ledger.unread.fetch_sub(len, Ordering::Relaxed);
    }
}

/// What readers have not taken and history does not hold: what was put together for one of them, and
/// what has left the rings and is on its way still.
#[derive(Debug)]
pub(super) struct Ledger {
    bound: usize,
    unread: AtomicUsize,
}

impl Ledger {
    /// With a bound, in bytes.
    pub(super) fn new(bound: usize) -> Arc<Self> {
        let unread = AtomicUsize::new(0);
        Arc::new(Self { bound, unread })
    }

    /// An event has left history, or events were put together for one reader.
    pub(super) fn add(&self, wire: &Wire) {
        self.unread.fetch_add(wire.0.len(), Ordering::Relaxed);
    }

    /// So many bytes are held for a reader who has not taken them, until what is returned is dropped.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.unread.fetch_add(bytes, Ordering::Relaxed);
        let ledger = self.clone();
        Held { ledger, bytes }
    }

    /// Whether there is no room for more.
    pub(super) fn is_full(&self) -> bool {
        self.unread() >= self.bound
    }

    /// How many bytes there are.
    pub(super) fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
    }
}

/// Bytes that are on a ledger.
#[derive(Debug)]
pub(super) struct Held {
    ledger: Arc<Ledger>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ledger.unread.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Draft;

    #[test]
    fn what_is_held_is_counted_until_the_last_lets_go() {
        let ledger = Ledger::new(20);
        let wire = Wire::new(Draft::new(None, "x", None).framed("1"), &ledger);
        ledger.add(&wire);
        let all = FRAME_HEAD + wire.len();
        assert_eq!((ledger.unread(), ledger.is_full()), (all, true));
        let payload = wire.clone().payload();
        assert_eq!(payload, "data: x\nid: 1\n\n");
        let part = payload.slice(3..5);
        drop((wire, payload));
        assert_eq!(ledger.unread(), all);
        drop(part);
        assert_eq!((ledger.unread(), ledger.is_full()), (0, false));
    }

    #[test]
    fn the_head_is_that_of_a_data_frame() {
        let ledger = Ledger::new(0);
        let wire = Wire::new(
            Draft::new(None, &"x".repeat(300), None).framed("1"),
            &ledger,
        );
        ledger.add(&wire);
        let (len, framed) = (wire.len(), wire.framed());
        assert_eq!(
            framed[..FRAME_HEAD],
            [0, 0x80, 0, (len >> 8) as u8, len as u8]
        );
        assert_eq!(framed.len(), FRAME_HEAD + len);
        assert!(Wire::none().payload().is_empty());
    }
}
