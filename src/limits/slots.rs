//! Places of which there are only so many.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{Bound, Limit};

/// Places that may be taken, up to a bound. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    taken: Arc<AtomicUsize>,
    bound: Bound<usize>,
}

/// A place taken; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Slots {
    /// So many, all of them free.
    #[must_use]
    pub(crate) fn new(bound: Bound<usize>) -> Self {
        Self {
            taken: Arc::default(),
            bound,
        }
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn bound(&self) -> usize {
        self.bound.value
    }

    /// Takes one.
    ///
    /// # Errors
    ///
    /// The limit behind the bound, when none is free.
    pub(crate) fn take(&self) -> Result<Slot, Limit> {
        let free = |taken| (taken < self.bound.value).then_some(taken + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        match self.taken.fetch_update(set, fetch, free) {
            Ok(_) => Ok(Slot(self.taken.clone())),
            Err(_) => Err(self.bound.limit),
        }
    }

    /// Takes one if fewer than another bound are taken, too.
    ///
    /// # Errors
    ///
    /// The limit behind the bound that bites.
    pub(crate) fn take_within(&self, bound: Bound<usize>) -> Result<Slot, Limit> {
        let narrower = bound.value < self.bound.value;
        let taken = self.taken.clone();
        let bound = if narrower { bound } else { self.bound };
        Self { taken, bound }.take()
    }

    /// Takes one whether any is free or not, for those who have paid otherwise.
    #[must_use]
    pub(crate) fn take_anyway(&self) -> Slot {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Slot(self.taken.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_there_are_and_a_place_given_back_can_be_taken() {
        let slots = Slots::new(Bound {
            limit: Limit::Http2Streams,
            value: 2,
        });
        let (first, second) = (slots.take(), slots.clone().take());
        assert!(first.is_ok() && second.is_ok());
        for _ in 0..3 {
            assert_eq!(slots.take().err(), Some(Limit::Http2Streams));
        }
        let third = slots.take_anyway();
        drop(first);
        assert!(slots.take().is_err());
        drop(third);
        assert!(slots.take().is_ok());
    }
}
