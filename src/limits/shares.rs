//! Places that clients of many addresses share, so that one of them cannot take them all.
//!
//! As long as there are many left, an address may take any number: an office or a mobile carrier is one
//! address. Once three quarters are taken, none may have more than its share, which is as if one more
//! address came; and the last sixteenth is for those who have none yet.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{Bound, Limit, count_out, source};
use crate::networks::Networks;

/// Places that all clients share. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    shares: Arc<Mutex<Shares>>,
    exempt: Arc<Networks>,
}

/// One who takes places: all from its address are one.
#[derive(Debug)]
pub(crate) struct Tenant {
    shares: Arc<Mutex<Shares>>,
    source: IpAddr,
    /// Whether it may take any number of those that are left.
    is_exempt: bool,
}

/// A place taken; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place(Arc<Tenant>);

impl Places {
    /// So many in total, so many of them for one address, unless it is exempt.
    #[must_use]
    pub(crate) fn new(total: Bound<usize>, each: Bound<usize>, exempt: Arc<Networks>) -> Self {
        Self {
            shares: Arc::new(Mutex::new(Shares::new(total, each))),
            exempt,
        }
    }

    /// Whoever comes from this address.
    #[must_use]
    pub(crate) fn tenant(&self, address: IpAddr) -> Arc<Tenant> {
        Arc::new(Tenant {
            shares: self.shares.clone(),
            source: source(address),
            is_exempt: self.exempt.contain(address),
        })
    }
}

impl Tenant {
    /// Takes a place.
    ///
    /// # Errors
    ///
    /// The limit that bites.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Place, Limit> {
        self.lock().take(self.source, self.is_exempt)?;
        Ok(Place(self.clone()))
    }

    /// Takes a place whether any is free or not, as somebody else is about to give one back.
    #[must_use]
    pub(crate) fn take_anyway(self: &Arc<Self>) -> Place {
        self.lock().add(self.source);
        Place(self.clone())
    }

    /// Whether it may take any number of those that are left.
    #[must_use]
    pub(crate) fn is_exempt(&self) -> bool {
        self.is_exempt
    }

    /// Where it comes from.
    #[must_use]
    pub(crate) fn source(&self) -> IpAddr {
        self.source
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().give_back(self.0.source);
    }
}

/// How many places are taken, and by whom.
#[derive(Debug)]
struct Shares {
    total: Bound<usize>,
    each: Bound<usize>,
    taken: usize,
    /// Invariant: none is 0, and their sum is `taken`.
    by_source: HashMap<IpAddr, usize>,
}

impl Shares {
    fn new(total: Bound<usize>, each: Bound<usize>) -> Self {
        Self {
            total,
            each,
            taken: 0,
            by_source: HashMap::new(),
        }
    }

    fn take(&mut self, source: IpAddr, is_exempt: bool) -> Result<(), Limit> {
        let own = self.by_source.get(&source).copied().unwrap_or(0);
        // Whoever has its share is not to have others make room.
        if !is_exempt && own > 0 && own >= self.most(own) {
            return Err(self.each.limit);
        }
        if self.taken >= self.total.value {
            return Err(self.total.limit);
        }
        self.add(source);
        Ok(())
    }

    fn add(&mut self, source: IpAddr) {
        self.taken += 1;
        *self.by_source.entry(source).or_default() += 1;
    }

    /// How many an address may have just now that has `own`.
    fn most(&self, own: usize) -> usize {
        let total = self.total.value;
        let left = total.saturating_sub(self.taken);
        let share = (total / (self.by_source.len() + 1)).min(self.each.value);
        if left > total / 4 {
            self.each.value
        } else if left > total / 16 || left == 0 {
            // Where none is left others may make room, for one that has less than its share.
            share
        } else {
            own
        }
    }

    fn give_back(&mut self, source: IpAddr) {
        self.taken -= 1;
        count_out(&mut self.by_source, &source);
        if self.by_source.is_empty() {
            // What a crowd took is given back.
            self.by_source = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOTAL: Bound<usize> = Bound {
        limit: Limit::Connections,
        value: 64,
    };
    const EACH: Bound<usize> = Bound {
        limit: Limit::AddressConnections,
        value: 60,
    };

    fn address(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    fn places() -> Places {
        let exempt = Networks(vec!["127.0.0.0/8".parse().expect("a network")]);
        Places::new(TOTAL, EACH, Arc::new(exempt))
    }

    fn take_all(tenant: &Arc<Tenant>) -> (Vec<Place>, Limit) {
        let mut taken = Vec::new();
        loop {
            match tenant.take() {
                Ok(place) => taken.push(place),
                Err(limit) => return (taken, limit),
            }
        }
    }

    #[test]
    fn one_address_does_not_take_them_all() {
        let places = places();
        let (greedy, limit) = take_all(&places.tenant(address(1)));
        assert_eq!((greedy.len(), limit), (48, Limit::AddressConnections));
        // The next one has its share, and those who have none yet have the rest.
        let (second, _) = take_all(&places.tenant(address(2)));
        assert_eq!(second.len(), 12);
        let last: Vec<_> = (3..=6).map(|n| places.tenant(address(n)).take()).collect();
        assert!(last.iter().all(Result::is_ok));
        let none = places.tenant(address(7)).take();
        assert_eq!(none.err(), Some(Limit::Connections));
        // At the bound too whoever has its share is refused for that.
        let more = places.tenant(address(1)).take();
        assert_eq!(more.err(), Some(Limit::AddressConnections));
        let more = places.tenant(address(3)).take();
        assert_eq!(more.err(), Some(Limit::Connections));
        drop((greedy, second, last));
        let shares = places.shares.lock().expect("no panic");
        assert!(shares.taken == 0 && shares.by_source.is_empty());
    }

    #[test]
    fn whoever_is_exempt_takes_what_there_is() {
        let places = places();
        let (all, limit) = take_all(&places.tenant([127, 0, 0, 1].into()));
        assert_eq!((all.len(), limit), (64, Limit::Connections));
    }

    #[test]
    fn a_bound_of_an_address_holds_from_the_first() {
        let each = Bound { value: 2, ..EACH };
        let places = Places::new(TOTAL, each, Arc::default());
        assert_eq!(take_all(&places.tenant(address(1))).0.len(), 2);
    }

    proptest! {
        /// Whoever comes and goes: the books are right, nobody has more than the bounds, and one who has
        /// none gets a place as long as there is one.
        #[test]
        fn there_is_room_for_who_comes_first(steps in proptest::collection::vec((0u8..12, any::<bool>()), 0..300)) {
            let places = places();
            let mut held: Vec<(u8, Place)> = Vec::new();
            for (n, comes) in steps {
                let own = held.iter().filter(|(of, _)| *of == n).count();
                if !comes {
                    if let Some(at) = held.iter().position(|(of, _)| *of == n) {
                        held.swap_remove(at);
                    }
                    continue;
                }
                let before = held.len();
                match places.tenant(address(n)).take() {
                    Ok(place) => held.push((n, place)),
                    Err(limit) => {
                        prop_assert!(own > 0 || limit == Limit::Connections && before == TOTAL.value);
                    }
                }
                let shares = places.shares.lock().expect("no panic");
                prop_assert_eq!(shares.taken, held.len());
                prop_assert_eq!(shares.by_source.values().sum::<usize>(), held.len());
                prop_assert!(held.len() <= TOTAL.value && own <= EACH.value);
            }
        }
    }
}
