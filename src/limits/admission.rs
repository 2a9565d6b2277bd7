//! Who may connect.

use super::{Limit, Limits, PENDING_HANDSHAKES, Slot, Slots};

/// Lets connections in, as long as there is room.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: Slots,
    handshakes: Slots,
}

impl Admission {
    /// Shared by all listeners that these limits are for.
    #[must_use]
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            connections: Slots::new(limits.connections),
            handshakes: Slots::new(PENDING_HANDSHAKES),
        }
    }

    /// Room for one more connection, held as long as it lives.
    ///
    /// # Errors
    ///
    /// [`Limit::Connections`] when there is none: whoever comes is turned away.
    pub(crate) fn connection(&self) -> Result<Slot, Limit> {
        self.connections.take()
    }

    /// Room for one more QUIC handshake, held while it lasts.
    ///
    /// # Errors
    ///
    /// [`Limit::PendingHandshakes`] when there are so many under way that whoever comes must first
    /// show that its address is its own (RFC 9000 8.1).
    pub(crate) fn handshake(&self) -> Result<Slot, Limit> {
        self.handshakes.take()
    }

    /// Room for the handshake of one who has shown it, whatever else is under way.
    #[must_use]
    pub(crate) fn validated_handshake(&self) -> Slot {
        self.handshakes.take_anyway()
    }
}
