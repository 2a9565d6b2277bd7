//! What an event costs between the publisher's request and the sockets.

mod crowd;
mod parts;

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seventh::{
    clock,
    hub::{Next, Resume, mailbox::Mailbox},
    measured::History,
    sse::{Epoch, EventId},
    topic::Topic,
};

use crowd::{Crowd, new_hub, publish};
use parts::PARTS;

const STREAMS: usize = 100;

/// One event to so many streams, of which a hundred are on a connection, or each on one of its own: publish, and
/// take it for each.
fn fan_out(c: &mut Criterion) {
    let data = "x".repeat(100);
    let mut group = c.benchmark_group("hub");
    for (connections, streams) in [(1, 1), (1_000, 1), (10, STREAMS), (1_000, STREAMS)] {
        let mut crowd = Crowd::new(connections, streams);
        group.throughput(Throughput::Elements((connections * streams) as u64));
        group.bench_function(
            format!("publish and take, {connections} x {streams} streams"),
            |b| b.iter(|| crowd.deliver(&data)),
        );
    }
    group.finish();
}

/// Who has missed 900 events comes back, and takes them.
fn replay(c: &mut Criterion) {
    const MISSED: u64 = 900;
    let hub = new_hub();
    let topics = [Topic::parse("bench").expect("a topic")];
    let now = clock::now();
    let data = "x".repeat(100);
    for sequence in 1..=MISSED + 1 {
        publish(&hub, sequence, &topics, &data, now);
    }
    let mailbox = Mailbox::new([127, 0, 0, 1].into());
    let cursor = EventId {
        epoch: Epoch::from_random(1),
        sequence: 1,
    }
    .to_string();
    let mut group = c.benchmark_group("hub");
    group.throughput(Throughput::Elements(MISSED));
    group.bench_function("come back with 900 missed", |b| {
        b.iter(|| {
            let resume = Resume::After(&cursor);
            let subscribed = hub.subscribe(&topics, resume, &mailbox, now);
            let (mut stream, _) = subscribed.expect("there is room");
            let mut chunks = 0;
            while let Next::Chunk(chunk) = stream.next(16 << 10) {
                black_box(chunk);
                chunks += 1;
            }
            assert!(chunks > 1);
        });
    });
    group.finish();
}

/// One event to a topic that nobody reads, one of a thousand in turn.
fn publish_alone(c: &mut Criterion) {
    let hub = new_hub();
    let topics: Vec<Topic> = (0..1000)
        .map(|n| Topic::parse(&format!("bench/{n}")).expect("a topic"))
        .collect();
    let now = clock::now();
    let data = "x".repeat(100);
    let mut sequence = 0;
    let mut group = c.benchmark_group("hub");
    group.throughput(Throughput::Elements(1));
    group.bench_function("publish, nobody reads", |b| {
        b.iter(|| {
            sequence += 1;
            let at = sequence as usize % topics.len();
            publish(&hub, sequence, &topics[at..=at], &data, now);
        });
    });
    group.finish();
}

/// One event to one of 100,000 topics in turn, each of which has a reader.
fn publish_among_many(c: &mut Criterion) {
    const TOPICS: usize = 100_000;
    let hub = new_hub();
    let topics: Vec<Topic> = (0..TOPICS)
        .map(|n| Topic::parse(&format!("users/{n}/notifications")).expect("a topic"))
        .collect();
    let now = clock::now();
    let mailboxes: Vec<_> = (0..TOPICS / STREAMS)
        .map(|_| Mailbox::new([127, 0, 0, 1].into()))
        .collect();
    let mut streams: Vec<_> = topics
        .iter()
        .enumerate()
        .map(|(n, topic)| {
            let topics = std::slice::from_ref(topic);
            let mailbox = &mailboxes[n / STREAMS];
            hub.subscribe(topics, Resume::Live, mailbox, now)
                .expect("there is room")
                .0
        })
        .collect();
    let data = "x".repeat(100);
    let mut sequence = 0;
    let mut group = c.benchmark_group("hub");
    group.throughput(Throughput::Elements(1));
    group.bench_function("publish and take, 100,000 topics with a reader each", |b| {
        b.iter(|| {
            sequence += 1;
            // A step that is prime to their number, so that none is near the one before.
            let at = sequence as usize * 7919 % topics.len();
            publish(&hub, sequence, &topics[at..=at], &data, now);
            black_box(streams[at].next(16 << 10));
        });
    });
    group.finish();
}

/// The pure parts, each by itself.
fn pure_parts(c: &mut Criterion) {
    let mut group = c.benchmark_group("part");
    for part in PARTS {
        group.throughput(Throughput::Elements(u64::from(part.times)));
        let mut done = (part.make)();
        group.bench_function(part.name, |b| b.iter(&mut done));
    }
    group.finish();
}

/// What it costs that events outlive the process: 64 publishers that wait for each answer, and some that send many at
/// once.
fn history(c: &mut Criterion) {
    const PUBLISHERS: usize = 64;
    const EACH: usize = 50;
    const AT_ONCE: usize = 512;
    let data = "x".repeat(300);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = || tempfile::tempdir_in(".").expect("a folder");
    let folders = [folder(), folder()];
    let homes = [
        ("memory", History::in_memory()),
        (
            "log, synced always",
            History::in_log(folders[0].path(), None),
        ),
        (
            "log, synced each 100 ms",
            History::in_log(folders[1].path(), Some(Duration::from_millis(100))),
        ),
    ];
    let mut group = c.benchmark_group("history");
    for (name, home) in &homes {
        group.throughput(Throughput::Elements((PUBLISHERS * EACH) as u64));
        group.bench_function(format!("{name}: 64 publishers"), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let publishers = (0..PUBLISHERS).map(|_| {
                        let (home, data) = (home.clone(), data.clone());
                        tokio::spawn(async move { home.publish(EACH, &data).await })
                    });
                    for publisher in publishers.collect::<Vec<_>>() {
                        publisher.await.expect("it ends well");
                    }
                });
            });
        });
        group.throughput(Throughput::Elements(AT_ONCE as u64));
        group.bench_function(format!("{name}: 512 at once"), |b| {
            b.iter(|| runtime.block_on(home.publish_at_once(AT_ONCE, &data)));
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    history,
    fan_out,
    replay,
    publish_alone,
    publish_among_many,
    pure_parts
);
criterion_main!(benches);
