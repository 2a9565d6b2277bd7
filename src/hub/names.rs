//! Topics that are merely read: their names are made up by visitors and cost memory, so they are
//! counted, and whoever has most is refused first. History never gives way for them.
//!
//! Pure: no clock, no lock, no task.

use crate::sync::atomic::{AtomicUsize, Ordering};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use thiserror::Error;

/// How many names there may be.
#[derive(Clone, Copy, Debug)]
pub struct NameBounds {
    /// `limits.topics`: in total.
    pub total: usize,
    /// `limits.connection_topics`: on behalf of one connection.
    pub connection: usize,
    /// `limits.topic_event_streams`: the streams that read one topic.
    pub readers: usize,
}

impl Default for NameBounds {
    fn default() -> Self {
        Self {
            total: 250_000,
            connection: 5_000,
            readers: usize::MAX,
        }
    }
}

/// Why a stream is not let in: the names that it brings, or those that it shares with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoRoom {
    /// Its connection has brought too many.
    #[error("the connection reads too many topics that nobody publishes to")]
    Connection,
    /// A topic is read by as many streams as may.
    #[error("a topic has too many readers")]
    Topic,
    /// There are too many, and no other address has brought more of them.
    #[error("too many topics are read that nobody publishes to")]
    Total,
}

/// On whose behalf a name is there: a connection's.
#[derive(Debug)]
pub(super) struct Account {
    source: IpAddr,
    /// How many names. Changed under the hub's lock alone.
    names: AtomicUsize,
}

impl Account {
    /// That of a connection from `source`.
    pub(super) fn new(source: IpAddr) -> Arc<Self> {
        Arc::new(Self {
            source,
            names: AtomicUsize::new(0),
        })
    }
}

/// The names that are there.
#[derive(Debug)]
pub(super) struct Names {
    bounds: NameBounds,
    total: usize,
    /// Invariant: none is 0, and their sum is `total`.
    by_source: HashMap<IpAddr, usize>,
    /// The same by how many.
    heaviest: BTreeSet<(usize, IpAddr)>,
}

impl Names {
    pub(super) fn new(bounds: NameBounds) -> Self {
        Self {
            bounds,
            total: 0,
            by_source: HashMap::new(),
            heaviest: BTreeSet::new(),
        }
    }

    /// How many streams may read one topic.
    pub(super) fn readers(&self) -> usize {
        self.bounds.readers
    }

    /// Whether so many new ones may come on behalf of `account`.
    ///
    /// At the bound it is the address with most names that is refused, not whoever comes next: the
    /// others may go on up to twice the bound.
    pub(super) fn check(&self, account: &Account, new: usize) -> Result<(), NoRoom> {
        if new == 0 {
            return Ok(());
        }
        if account.names.load(Ordering::Relaxed) + new > self.bounds.connection {
            return Err(NoRoom::Connection);
        }
        let total = self.total + new;
        if total <= self.bounds.total {
            return Ok(());
        }
        let own = self.by_source.get(&account.source).copied().unwrap_or(0);
        let mut others = self.heaviest.iter().rev();
        let other = others.find(|(_, source)| *source != account.source);
        if other.is_none_or(|(most, _)| own + new >= *most) || total > 2 * self.bounds.total {
            return Err(NoRoom::Total);
        }
        Ok(())
    }

    /// A name comes on behalf of `account`.
    pub(super) fn add(&mut self, account: &Account) {
        account.names.fetch_add(1, Ordering::Relaxed);
        self.total += 1;
        self.change(account.source, |names| names + 1);
    }

    /// One goes, or is published to from now on.
    pub(super) fn remove(&mut self, account: &Account) {
        account.names.fetch_sub(1, Ordering::Relaxed);
        self.total -= 1;
        self.change(account.source, |names| names - 1);
    }

    fn change(&mut self, source: IpAddr, to: impl Fn(usize) -> usize) {
        let names = self.by_source.entry(source).or_default();
        self.heaviest.remove(&(*names, source));
        *names = to(*names);
        if *names == 0 {
            self.by_source.remove(&source);
        } else {
            self.heaviest.insert((*names, source));
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        debug_assert_eq!(self.by_source.values().sum::<usize>(), self.total);
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(last: u8) -> Arc<Account> {
        Account::new([192, 0, 2, last].into())
    }

    #[test]
    fn a_connection_has_a_bound_of_its_own() {
        let mut names = Names::new(NameBounds {
            total: 100,
            connection: 3,
            ..NameBounds::default()
        });
        let (one, other) = (account(1), account(1));
        for _ in 0..3 {
            assert_eq!(names.check(&one, 1), Ok(()));
            names.add(&one);
        }
        assert_eq!(names.check(&one, 1), Err(NoRoom::Connection));
        assert_eq!(names.check(&one, 0), Ok(()));
        assert_eq!(names.check(&other, 4), Err(NoRoom::Connection));
        assert_eq!(names.check(&other, 3), Ok(()));
        names.remove(&one);
        assert_eq!(names.check(&one, 1), Ok(()));
    }

    #[test]
    fn at_the_bound_the_heaviest_is_refused_and_the_others_are_not() {
        let mut names = Names::new(NameBounds {
            total: 100,
            connection: 1000,
            ..NameBounds::default()
        });
        let (heavy, light, new) = (account(1), account(2), account(3));
        for _ in 0..90 {
            names.add(&heavy);
        }
        for _ in 0..10 {
            names.add(&light);
        }
        assert_eq!(names.check(&heavy, 1), Err(NoRoom::Total));
        assert_eq!(names.check(&account(1), 1), Err(NoRoom::Total));
        assert_eq!(names.check(&light, 5), Ok(()));
        assert_eq!(names.check(&new, 50), Ok(()));
        // Nobody gets as far as the heaviest.
        assert_eq!(names.check(&new, 90), Err(NoRoom::Total));
        for last in 10..20 {
            for _ in 0..10 {
                names.add(&account(last));
            }
        }
        assert_eq!(names.check(&new, 1), Err(NoRoom::Total));
        assert_eq!(names.total(), 200);
        for _ in 0..90 {
            names.remove(&heavy);
        }
        assert_eq!(names.check(&heavy, 5), Ok(()));
        // Alone at the bound is the heaviest too.
        let names = Names::new(NameBounds {
            total: 1,
            connection: 9,
            ..NameBounds::default()
        });
        assert_eq!(names.check(&new, 2), Err(NoRoom::Total));
        assert_eq!(names.check(&new, 1), Ok(()));
    }
}
