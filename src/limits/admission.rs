//! Who may connect.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use super::{
    BURST, Limit, Limits, Memory, Occupant, Occupants, PENDING_HANDSHAKES, Place, Places, Rates,
    Slot, Slots, Stay,
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
    memory: Arc<Memory>,
    /// Who passes on the connections of others.
    balancers: Networks,
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
    pub(crate) fn new(
        limits: &Limits,
        exempt: Arc<Networks>,
        balancers: Networks,
        memory: Arc<Memory>,
        now: Instant,
    ) -> Self {
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
            memory,
            balancers,
        }
    }

    /// Whether this address passes on the connections of others, and says whose they are.
    #[must_use]
    pub(crate) fn is_balancer(&self, address: IpAddr) -> bool {
        self.balancers.contain(address)
    }

    /// Room for one more connection from `address`, held as long as it lives. One whose address is not
    /// `validated` (RFC 9000 8.1) costs nobody anything: it is [counted](Self::validated) afterwards.
    ///
    /// # Errors
    ///
    /// The limit that bites when there is none: whoever comes is turned away. Before that, connections
    /// end on which nothing is asked for.
    pub(crate) fn connection(
        &self,
        address: IpAddr,
        validated: bool,
        now: Instant,
    ) -> Result<Admitted, Limit> {
        let tenant = self.connections.tenant(address);
        if !tenant.is_exempt() {
            let mut rates = self.rates();
            if validated {
                rates.take(tenant.source(), now)?;
            } else {
                rates.check(&tenant.source(), now)?;
            }
        }
        let handshake = self.handshakes.tenant(address).take()?;
        // Whoever has its share is not to have others make room, of whatever there is too little.
        let others_go = || validated && self.occupants.make_room(now);
        let place = match tenant.take() {
            Ok(place) => match self.memory.for_more() {
                Err(limit) if !others_go() => return Err(limit),
                _ => place,
            },
            Err(Limit::Connections) if others_go() => tenant.take_anyway(),
            Err(limit) => return Err(limit),
        };
        Ok(Admitted {
            _place: place,
            stay: self.occupants.come(tenant.source(), now),
            handshake: Some(handshake),
        })
    }

    /// A connection that was let in has shown that its address is its own: it counts.
    pub(crate) fn validated(&self, address: IpAddr, now: Instant) {
        let tenant = self.connections.tenant(address);
        if !tenant.is_exempt() {
            // It is there already: the next one is judged by it.
            let _: Result<(), Limit> = self.rates().take(tenant.source(), now);
        }
    }

    /// Has some connections end for want of memory. How many.
    pub(crate) fn shed(&self, now: Instant) -> usize {
        self.occupants.shed(now)
    }

    fn rates(&self) -> MutexGuard<'_, Rates<IpAddr>> {
        self.rates.lock().expect("no holder of this lock panics")
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Where memory runs short an address that has its share gets no more, though others do nothing; one
    /// that has none gets a place of theirs.
    #[test]
    fn nobody_goes_for_whoever_has_its_share() {
        let mut limits = Limits::default();
        limits.address_connections.value = 2;
        limits.memory.value = 800;
        let memory = Arc::new(Memory::new(limits.memory));
        let now = crate::clock::now();
        let admission = Admission::new(
            &limits,
            Arc::default(),
            Networks::default(),
            memory.clone(),
            now,
        );
        let come = |last: u8, at| admission.connection([192, 0, 2, last].into(), true, at);
        let idle = [come(1, now), come(1, now)];
        assert!(idle.iter().all(Result::is_ok));
        memory.set(750);
        let later = |seconds: u64| now + Duration::from_secs(60 + seconds);
        assert_eq!(come(1, later(0)).err(), Some(Limit::AddressConnections));
        let held = [come(2, later(0)), come(3, later(1))];
        for held in held
            .iter()
            .map(|held| held.as_ref().expect("there is room"))
        {
            held.occupant().set_busy(true, later(1));
        }
        // Now there are none left that do nothing.
        assert_eq!(come(4, later(2)).err(), Some(Limit::Memory));
    }
}
