//! What one subscriber has received: is anything lost, twice or out of order? Pure.

use smallvec::SmallVec;

use super::stamp::Stamp;

/// The account of a subscriber. Order holds between the events of one publisher.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// For each publisher: the sequence that should come next.
    next: SmallVec<[u64; 1]>,
    /// Events that were passed over, and may still come.
    missing: u64,
    /// Events that came, each counted once.
    pub(super) received: u64,
    /// Events that came again.
    pub(super) repeated: u64,
    /// Events that came after later ones.
    pub(super) disordered: u64,
}

impl Tally {
    /// The account of one who has had so many events of the first publisher.
    pub(super) fn after(sequence: u64) -> Self {
        Self {
            next: SmallVec::from_elem(sequence, 1),
            ..Self::default()
        }
    }

    /// An event has come.
    pub(super) fn take(&mut self, stamp: &Stamp) {
        let publisher = stamp.publisher as usize;
        if self.next.len() <= publisher {
            self.next.resize(publisher + 1, 0);
        }
        let next = &mut self.next[publisher];
        if stamp.sequence >= *next {
            self.missing = self.missing.saturating_add(stamp.sequence - *next);
            *next = stamp.sequence.saturating_add(1);
            self.received += 1;
        } else if self.missing > 0 {
            // Which of the missing it is nobody keeps: the run is void either way.
            self.missing -= 1;
            self.received += 1;
            self.disordered += 1;
        } else {
            self.repeated += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(events: &[(u32, u64)]) -> (u64, u64, u64, u64) {
        let mut tally = Tally::default();
        for (publisher, sequence) in events {
            tally.take(&Stamp {
                run: 0,
                publisher: *publisher,
                sequence: *sequence,
                due: 0,
            });
        }
        (
            tally.received,
            tally.missing,
            tally.repeated,
            tally.disordered,
        )
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        assert_eq!(tally(&[(0, 0), (0, 1), (0, 2)]), (3, 0, 0, 0));
        assert_eq!(tally(&[(0, 0), (0, 2)]), (2, 1, 0, 0), "a loss");
        assert_eq!(tally(&[(0, 0), (0, 1), (0, 1)]), (2, 0, 1, 0), "a repeat");
        assert_eq!(tally(&[(0, 1), (0, 0)]), (2, 0, 0, 1), "out of order");
    }

    #[test]
    fn publishers_have_an_order_each() {
        let mixed = [(1, 0), (0, 0), (1, 1), (0, 1), (2, 0)];
        assert_eq!(tally(&mixed), (5, 0, 0, 0));
    }

    #[test]
    fn one_who_comes_back_has_had_some() {
        let mut tally = Tally::after(1);
        for sequence in 1..4 {
            tally.take(&Stamp {
                run: 0,
                publisher: 0,
                sequence,
                due: 0,
            });
        }
        assert_eq!((tally.received, tally.missing, tally.repeated), (3, 0, 0));
    }
}
