//! Who may connect.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{
    BURST, Limit, Limits, Occupant, Occupants, PENDING_HANDSHAKES, Place, Places, Rates, Slot,
    Slots, Stay,
};
use crate::networks::Networks;

/// Lets connections in, as long as there is room.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: Places,
    /// QUIC handshakes of those who need not show yet that their address is their own.
    unvalidated: Slots,
    handshakes: Places,
    rates: Mutex<Rates<IpAddr>>,
    occupants: Arc<Occupants>,
}

/// What a connection holds as long as it lives.
#[derive(Debug)]
pub(crate) struct Admitted {
    _place: Place,
    stay: Stay,
    handshake: Option<Place>,
}

impl Admitted {
    /// What it holds until its handshake is over.
    pub(crate) fn take_handshake(&mut self) -> Option<Place> {
        self.handshake.take()
    }

    /// The connection.
    pub(crate) fn occupant(&self) -> &Arc<Occupant> {
        self.stay.occupant()
    }
}

impl Admission {
    /// Shared by all listeners that these limits are for.
    #[must_use]
    pub(crate) fn new(limits: &Limits, exempt: Arc<Networks>, now: Instant) -> Self {
        Self {
            connections: Places::new(
                limits.connections,
                limits.address_connections,
                exempt.clone(),
            ),
            unvalidated: Slots::new(PENDING_HANDSHAKES),
            handshakes: Places::new(limits.handshakes, limits.address_handshakes, exempt),
            rates: Mutex::new(Rates::new(limits.connection_rate, BURST)),
            occupants: Occupants::new(now),
        }
    }

    /// Room for one more connection from `address`, held as long as it lives.
    ///
    /// # Errors
    ///
    /// The limit that bites when there is none: whoever comes is turned away. Before that, connections
    /// end on which nothing is asked for.
    pub(crate) fn connection(&self, address: IpAddr, now: Instant) -> Result<Admitted, Limit> {
        let tenant = self.connections.tenant(address);
        if !tenant.is_exempt() {
            let mut rates = self.rates.lock().expect("no holder of this lock panics");
            rates.take(tenant.source(), now)?;
        }
        let handshake = self.handshakes.tenant(address).take()?;
        let place = tenant.take().or_else(|limit| {
            let total = limit == Limit::Connections;
            if total && self.occupants.make_room(now) {
                return Ok(tenant.take_anyway());
            }
            Err(limit)
        })?;
        Ok(Admitted {
            _place: place,
            stay: self.occupants.come(tenant.source(), now),
            handshake: Some(handshake),
        })
    }

    /// Room for one more QUIC handshake, held while it lasts.
    ///
    /// # Errors
    ///
    /// [`Limit::PendingHandshakes`] when there are so many under way that whoever comes must first
    /// show that its address is its own (RFC 9000 8.1).
    pub(crate) fn handshake(&self) -> Result<Slot, Limit> {
        self.unvalidated.take()
    }

    /// Room for the handshake of one who has shown it, whatever else is under way.
    #[must_use]
    pub(crate) fn validated_handshake(&self) -> Slot {
        self.unvalidated.take_anyway()
    }
}
