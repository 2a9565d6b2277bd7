//! The order in memory: a number, and the hub's rings.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{Durability, NotStored, Receipt};
use crate::{
    hub::{Entry, Hub, HubBounds, Placed, Retention, TopicRules},
    sse::Epoch,
};

/// An order that is gone with the process.
#[derive(Debug)]
pub struct Memory {
    hub: Arc<Hub>,
    /// Held while an entry is applied, so that entries are applied in the order of their numbers.
    last: Mutex<Last>,
}

/// The place of the last entry.
#[derive(Debug, Default)]
struct Last {
    sequence: u64,
    /// Publishers read the clock before they have the lock, so theirs may be earlier than that of
    /// the entry before; in the order time does not go back.
    at: Option<Instant>,
}

impl Memory {
    pub(super) fn new(
        retention: Retention,
        rules: TopicRules,
        bounds: HubBounds,
        random: u64,
    ) -> Self {
        Self {
            hub: Hub::new(retention, rules, bounds, Epoch::from_random(random), 0, &[]),
            last: Mutex::default(),
        }
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(super) fn put(&self, entry: Entry, now: Instant) -> Result<Receipt, NotStored> {
        let own_id = entry.own_id();
        self.hub.prepare(&entry);
        let mut last = self.last.lock().expect("no holder of this lock panics");
        // What waits in a topic that is closed goes out before its streams end.
        let first = match &entry {
            Entry::Close(topic) => self.hub.waiting_in(topic),
            _ => Vec::new(),
        };
        let all = first.into_iter().chain([entry]);
        let outcome = self.hub.apply(all.map(|entry| last.place(entry, now)));
        let sequence = last.sequence;
        drop(last);
        let applied = *outcome.applied.last().expect("there is one for each entry");
        drop(outcome.wakes);
        Receipt::of(&self.hub, sequence, own_id, &applied, Durability::Memory)
    }

    /// Gives entries their places that nobody waits for an answer to.
    pub(super) fn put_all(&self, entries: Vec<Entry>, now: Instant) {
        let mut last = self.last.lock().expect("no holder of this lock panics");
        let placed = entries.into_iter().map(|entry| last.place(entry, now));
        let outcome = self.hub.apply(placed);
        drop(last);
        drop(outcome);
    }
}

impl Last {
    fn place(&mut self, entry: Entry, now: Instant) -> Placed {
        self.sequence += 1;
        let at = self.at.map_or(now, |at| at.max(now));
        self.at = Some(at);
        Placed::new(self.sequence, at, entry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        hub::{Identity, Target},
        sse::Draft,
        topic::Topic,
    };

    #[test]
    fn clocks_that_disagree_do_not_upset_the_books() {
        let minute = Duration::from_secs(60);
        let memory = Memory::new(
            Retention {
                age: minute,
                ..Retention::default()
            },
            TopicRules::default(),
            HubBounds::default(),
            7,
        );
        let topic = Topic::parse("a").expect("a topic");
        let now = crate::clock::now();
        let send = |at| {
            let target = Target {
                topics: vec![topic.clone()],
                ..Target::default()
            };
            let draft = Draft::new(None, "x", None);
            memory
                .put(Entry::Event { draft, target }, at)
                .expect("it has no key")
        };
        send(now + minute);
        send(now);
        let hub = memory.hub();
        hub.sweep(now + minute + Duration::from_secs(1));
        assert_eq!(hub.topic(&topic).expect("it is there").events, 2);
        hub.sweep(now + 3 * minute);
        assert_eq!(hub.topics(None, 9), []);
    }

    #[test]
    fn what_was_prepared_for_a_repetition_is_forgotten() {
        let memory = Memory::new(
            Retention::default(),
            TopicRules::default(),
            HubBounds::default(),
            7,
        );
        let send = |names: std::ops::Range<u32>| {
            let topic = |n: u32| Topic::parse(&format!("t{n:03}")).expect("a topic");
            let topics: Vec<Topic> = names.map(topic).collect();
            let identity = Identity::default().with_id("1", &topics, None, "x");
            let target = Target {
                topics,
                id: Some("1".into()),
                identity,
                ..Target::default()
            };
            let draft = Draft::new(None, "x", None);
            let entry = Entry::Event { draft, target };
            memory.put(entry, crate::clock::now()).expect("no key")
        };
        assert!(!send(0..300).duplicate);
        assert!(send(299..600).duplicate);
        assert_eq!(memory.hub().topics(None, 999).len(), 300);
    }
}
