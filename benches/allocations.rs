//! How often memory is allocated for an event: counted, so that it says the same on every machine.
//!
//! What is done once for an event may allocate; what is done for each of its readers may not.

use std::{sync::Arc, task::Waker, time::Instant};

use allocation_counter::measure;
use seventh::{
    clock,
    hub::{
        Entry, Hub, HubBounds, Placed, Resume, Retention, Subscription, Target, TopicRules,
        mailbox::Mailbox,
    },
    sse::{Draft, Epoch, Parser},
    topic::Topic,
};

const EVENTS: u64 = 100;

struct Crowd {
    hub: Arc<Hub>,
    topics: [Topic; 1],
    connections: Vec<(Arc<Mailbox>, Vec<Subscription>)>,
    sequence: u64,
    now: Instant,
}

impl Crowd {
    fn new(connections: usize, streams: usize) -> Self {
        let hub = Hub::new(
            Retention::default(),
            TopicRules::default(),
            HubBounds::default(),
            Epoch::from_random(1),
            0,
        );
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
        }
    }

    /// Publishes, and takes the event for each stream.
    fn deliver(&mut self, ready: &mut Vec<u32>) {
        self.sequence += 1;
        let entry = Entry::Event {
            draft: Draft::new(None, "some data", None),
            target: Target {
                topics: self.topics.to_vec(),
                ..Target::default()
            },
        };
        self.hub.apply([Placed {
            sequence: self.sequence,
            at: self.now,
            entry,
        }]);
        for (mailbox, streams) in &mut self.connections {
            mailbox.take_ready(Waker::noop(), ready);
            for key in ready.drain(..) {
                std::hint::black_box(streams[key as usize].next(16 << 10));
            }
        }
    }

    /// Allocations for an event, once the ring is as large as it gets.
    fn allocations(&mut self) -> f64 {
        let mut ready = Vec::with_capacity(1024);
        for _ in 0..5000 {
            self.deliver(&mut ready);
        }
        let counted = measure(|| {
            for _ in 0..EVENTS {
                self.deliver(&mut ready);
            }
        });
        counted.count_total as f64 / EVENTS as f64
    }
}

fn main() {
    let alone = Crowd::new(1, 1).allocations();
    let many = Crowd::new(10, 100).allocations();
    let wide = Crowd::new(1000, 1).allocations();
    println!(
        "an event: {alone} allocations with 1 reader, {many} with 10 x 100, {wide} with 1,000 x 1"
    );
    assert!(alone <= 8.0, "an event takes {alone} allocations");
    let each = (many - alone).max(wide - alone) / 999.0;
    assert!(each < 0.02, "a delivery takes {each} allocations");

    let data = "0123456789\n".repeat(10);
    let encode = measure(|| {
        let draft = Draft::new(Some("goal"), &data, None);
        std::hint::black_box(draft.finish("k3f9x2ab-1234"));
    });
    println!("encoding: {} allocations", encode.count_total);
    assert!(encode.count_total <= 4);

    let wire = Draft::new(Some("goal"), &data, None).finish("k3f9x2ab-1234");
    let mut parser = Parser::new(usize::MAX);
    let mut items = Vec::with_capacity(8);
    let parse = measure(|| {
        parser.push(&wire, &mut items).expect("no limit");
    });
    println!("parsing: {} allocations", parse.count_total);
    assert!(parse.count_total <= 12);
}
