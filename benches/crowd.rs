//! A hub and those who read from it, for the benches.

use std::{hint::black_box, sync::Arc, task::Waker, time::Instant};

use seventh::{
    clock,
    hub::{
        Entry, Hub, HubBounds, Placed, Resume, Retention, Subscription, Target, TopicRules,
        mailbox::Mailbox,
    },
    sse::{Draft, Epoch},
    topic::Topic,
};

/// A hub that keeps what is usual.
pub(crate) fn new_hub() -> Arc<Hub> {
    Hub::new(
        Retention::default(),
        TopicRules::default(),
        HubBounds::default(),
        Epoch::from_random(1),
        0,
        &[],
    )
}

/// Puts an event into the hub.
pub(crate) fn publish(hub: &Hub, sequence: u64, topics: &[Topic], data: &str, at: Instant) {
    let target = Target {
        topics: topics.to_vec(),
        ..Target::default()
    };
    let entry = Entry::Event {
        draft: Draft::new(None, data, None),
        target,
    };
    black_box(hub.apply([Placed::new(sequence, at, entry)]));
}

/// Streams of one topic.
pub(crate) struct Crowd {
    hub: Arc<Hub>,
    topics: [Topic; 1],
    connections: Vec<(Arc<Mailbox>, Vec<Subscription>)>,
    sequence: u64,
    now: Instant,
    ready: Vec<u32>,
}

impl Crowd {
    pub(crate) fn new(connections: usize, streams: usize) -> Self {
        let hub = new_hub();
        let topics = [Topic::parse("bench").expect("a topic")];
        let now = clock::now();
        let connections = (0..connections)
            .map(|_| {
                let mailbox = Mailbox::new([127, 0, 0, 1].into());
                let streams = (0..streams)
                    .map(|_| {
                        let subscribed = hub.subscribe(&topics, Resume::Live, &mailbox, now);
                        subscribed.expect("there is room").0
                    })
                    .collect();
                (mailbox, streams)
            })
            .collect();
        Self {
            hub,
            topics,
            connections,
            sequence: 0,
            now,
            ready: Vec::with_capacity(1024),
        }
    }

    /// Publishes, and takes the event for each stream.
    pub(crate) fn deliver(&mut self, data: &str) {
        self.sequence += 1;
        publish(&self.hub, self.sequence, &self.topics, data, self.now);
        for (mailbox, streams) in &mut self.connections {
            mailbox.take_ready(Waker::noop(), &mut self.ready);
            for key in self.ready.drain(..) {
                black_box(streams[key as usize].next(16 << 10));
            }
        }
    }
}
