//! Whose turn it is among the streams of a connection that have something to send. Pure.

use std::collections::VecDeque;

/// How many event streams have their turns in a row while others wait.
const IN_A_ROW: u32 = 64;

/// The streams that are ready: event streams go first, and do not keep the others waiting for ever.
#[derive(Debug, Default)]
pub(super) struct Turns {
    events: VecDeque<u32>,
    others: VecDeque<u32>,
    in_a_row: u32,
}

impl Turns {
    /// One more is ready.
    pub(super) fn push(&mut self, key: u32, is_events: bool) {
        if is_events {
            self.events.push_back(key);
        } else {
            self.others.push_back(key);
        }
    }

    /// The one whose turn it is.
    pub(super) fn pop(&mut self) -> Option<u32> {
        if (self.in_a_row < IN_A_ROW || self.others.is_empty())
            && let Some(key) = self.events.pop_front()
        {
            self.in_a_row = self.in_a_row.saturating_add(1);
            return Some(key);
        }
        self.in_a_row = 0;
        self.others.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.others.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.events.len() + self.others.len()
    }

    /// Those that are ready, by their places: there are [`len`](Self::len) of them.
    pub(super) fn get(&self, at: usize) -> Option<u32> {
        let (events, others) = (&self.events, &self.others);
        events
            .get(at)
            .or_else(|| others.get(at - events.len()))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_streams_go_first_and_others_get_their_turns() {
        let mut turns = Turns::default();
        turns.push(1000, false);
        turns.push(1001, false);
        for key in 0..100 {
            turns.push(key, true);
        }
        let all: Vec<u32> = (0..turns.len()).filter_map(|at| turns.get(at)).collect();
        assert_eq!(all.len(), 102);
        let order: Vec<u32> = std::iter::from_fn(|| turns.pop()).collect();
        let first: Vec<u32> = (0..64).collect();
        assert_eq!(order[..64], first);
        assert_eq!(order[64], 1000);
        assert_eq!((order[65], order[100], order[101]), (64, 99, 1001));
        assert!(turns.is_empty());
    }
}
