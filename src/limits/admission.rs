//! Who may connect.

use std::{net::IpAddr, sync::Arc};

use super::{Limit, Limits, PENDING_HANDSHAKES, Place, Places, Slot, Slots};
use crate::networks::Networks;

/// Lets connections in, as long as there is room.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: Places,
    handshakes: Slots,
}

impl Admission {
    /// Shared by all listeners that these limits are for.
    #[must_use]
    pub(crate) fn new(limits: &Limits, exempt: Arc<Networks>) -> Self {
        Self {
            connections: Places::new(limits.connections, limits.address_connections, exempt),
            handshakes: Slots::new(PENDING_HANDSHAKES),
        }
    }

    /// Room for one more connection from `address`, held as long as it lives.
    ///
    /// # Errors
    ///
    /// The limit that bites when there is none: whoever comes is turned away.
    pub(crate) fn connection(&self, address: IpAddr) -> Result<Place, Limit> {
        self.connections.tenant(address).take()
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
