//! How much memory the edge has, and whether there is any left for more.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Bound, Limit};

/// The budget, and what is taken of it.
#[derive(Debug)]
pub(crate) struct Memory {
    budget: Bound<usize>,
    taken: AtomicUsize,
}

impl Memory {
    /// Nothing is taken yet.
    #[must_use]
    pub(crate) fn new(budget: Bound<usize>) -> Self {
        Self {
            budget,
            taken: AtomicUsize::new(0),
        }
    }

    /// So much is taken now.
    pub(crate) fn set(&self, taken: usize) {
        self.taken.store(taken, Ordering::Relaxed);
    }

    /// Whether there is some for whoever comes.
    ///
    /// # Errors
    ///
    /// The limit, when there is none.
    pub(crate) fn for_more(&self) -> Result<(), Limit> {
        if self.excess() > 0 {
            return Err(self.budget.limit);
        }
        Ok(())
    }

    /// How much must go until there is some for whoever comes.
    pub(crate) fn excess(&self) -> usize {
        self.taken()
            .saturating_sub(for_newcomers(self.budget.value))
    }

    /// Whether more is taken than there is: some must go who are there.
    #[must_use]
    pub(crate) fn is_short(&self) -> bool {
        self.taken() > self.budget.value
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// How much of a budget may be taken while there is some for whoever comes: all but an eighth.
#[must_use]
pub(crate) fn for_newcomers(budget: usize) -> usize {
    budget - budget / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_are_refused_before_anybody_must_go() {
        let memory = Memory::new(Bound {
            limit: Limit::Memory,
            value: 800,
        });
        let at = |taken| {
            memory.set(taken);
            (memory.for_more(), memory.is_short())
        };
        assert_eq!(at(700), (Ok(()), false));
        assert_eq!(at(701), (Err(Limit::Memory), false));
        assert_eq!(at(801), (Err(Limit::Memory), true));
        assert_eq!(at(0), (Ok(()), false));
    }
}
