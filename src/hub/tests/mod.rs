//! What the hub promises, by examples and against models.

mod every_beginning;
#[cfg(feature = "model")]
mod model;
mod shared;
mod treatment;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex as StdMutex},
    task::Waker,
    time::Duration,
};

use proptest::prelude::*;

use super::{mailbox::Mailbox, *};
use crate::{
    pattern::Pattern,
    sse::{Draft, Item, Message, Parser},
};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn hub(events: usize) -> Arc<Hub> {
    with(Retention {
        events,
        ..Retention::default()
    })
}

fn with(retention: Retention) -> Arc<Hub> {
    ruled(retention, &[])
}

/// A hub with rules, each a pattern and how its topics are treated.
fn ruled(retention: Retention, rules: &[(&str, Treatment)]) -> Arc<Hub> {
    let rules = rules.iter().map(|(pattern, treatment)| TopicRule {
        pattern: Pattern::parse(pattern).expect("a pattern"),
        treatment: *treatment,
    });
    Hub::new(
        retention,
        rules.collect(),
        HubBounds::default(),
        Epoch::from_random(7),
        0,
        &[],
    )
}

/// What came of an entry, and its number.
fn put(hub: &Hub, entry: Entry, at: Instant) -> (Applied, u64) {
    // Entries are applied in the order of their numbers, whichever thread they come from.
    static ORDER: StdMutex<()> = StdMutex::new(());
    let order = ORDER.lock().expect("no test panics here");
    let sequence = hub.watermark() + 1;
    let outcome = hub.apply([Placed::new(sequence, at, entry)]);
    drop(order);
    (outcome.applied[0], sequence)
}

fn event(names: &[&str], data: &str) -> Entry {
    Entry::Event {
        draft: Draft::new(None, data, None),
        target: Target {
            topics: topics(names),
            ..Target::default()
        },
    }
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("a topic")
}

fn topics(names: &[&str]) -> Vec<Topic> {
    names.iter().map(|name| topic(name)).collect()
}

/// An event that was published: under which id, and to how many streams.
#[derive(Debug)]
struct Published {
    id: String,
    receivers: usize,
}

fn publish(hub: &Hub, names: &[&str], data: &str) -> Published {
    publish_as(hub, names, data, None)
}

fn publish_as(hub: &Hub, names: &[&str], data: &str, id: Option<&str>) -> Published {
    let mut entry = event(names, data);
    if let Entry::Event { target, .. } = &mut entry {
        target.id = id.map(Into::into);
    }
    let (applied, sequence) = put(hub, entry, clock::now());
    Published {
        id: id.map_or_else(|| hub.id(sequence).to_string(), Into::into),
        receivers: applied.receivers,
    }
}

fn delete(hub: &Hub, name: &str) -> Option<usize> {
    put(hub, Entry::Delete(topic(name)), clock::now()).0.removed
}

fn chunk(next: Next) -> Option<Chunk> {
    match next {
        Next::Chunk(chunk) => Some(chunk),
        Next::Nothing => None,
        other => panic!("neither events nor nothing: {other:?}"),
    }
}

fn subscribe(hub: &Arc<Hub>, names: &[&str], resume: Resume<'_>) -> Subscription {
    let mailbox = Mailbox::new(LOCAL);
    hub.subscribe(&topics(names), resume, &mailbox, clock::now())
        .expect("there is room")
        .0
}

fn messages(wire: &[u8]) -> Vec<Message> {
    let mut items = Vec::new();
    Parser::new(usize::MAX)
        .push(wire, &mut items)
        .expect("no limit");
    items
        .into_iter()
        .map(|item| match item {
            Item::Message(message) => message,
            other => panic!("not an event: {other:?}"),
        })
        .collect()
}

/// Everything there is to read now, in chunks of at most `max_bytes`.
fn drain(subscription: &mut Subscription, max_bytes: usize) -> Vec<Message> {
    let mut all = Vec::new();
    while let Some(chunk) = chunk(subscription.next(max_bytes)) {
        let read = messages(chunk.wire.as_slice());
        let sent = read.iter().filter(|m| m.event != "edge-gap").count();
        assert_eq!(chunk.events, sent as u64);
        all.extend(read);
    }
    all
}

fn data(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|m| m.data.as_str()).collect()
}

/// What a gap says, but for its times.
fn gap(message: &Message) -> serde_json::Value {
    assert_eq!(message.event, "edge-gap");
    let mut said: serde_json::Value = serde_json::from_str(&message.data).expect("JSON");
    let fields = said.as_object_mut().expect("an object");
    let [from, to] = ["from", "to"].map(|name| fields.remove(name));
    // RFC 3339 sorts as the moments do.
    assert!(from.is_none_or(|from| Some(from.as_str()) <= to.as_ref().map(|to| to.as_str())));
    said
}

#[test]
fn a_live_reader_gets_what_comes_and_one_behind_gets_it_in_one_chunk() {
    let hub = hub(10);
    publish(&hub, &["a"], "before");
    let mut reader = subscribe(&hub, &["a"], Resume::Live);
    assert_eq!(reader.next(999), Next::Nothing);
    assert_eq!(publish(&hub, &["a"], "1").receivers, 1);
    assert_eq!(publish(&hub, &["b"], "other").receivers, 0);
    publish(&hub, &["a"], "2");
    let chunk = chunk(reader.next(999)).expect("two events");
    assert_eq!(chunk.events, 2);
    assert_eq!(data(&messages(chunk.wire.as_slice())), ["1", "2"]);
    assert_eq!(reader.next(999), Next::Nothing);
    assert_eq!(reader.settled(), reader.handle().addressed());
}

#[test]
fn an_event_in_several_topics_reaches_a_reader_of_both_once() {
    let hub = hub(10);
    let mut reader = subscribe(&hub, &["a", "b", "a"], Resume::Live);
    assert_eq!(publish(&hub, &["a", "b", "b"], "x").receivers, 1);
    assert_eq!(publish(&hub, &["b"], "y").receivers, 1);
    assert_eq!(data(&drain(&mut reader, 999)), ["x", "y"]);
}

#[test]
fn resumes_after_an_id_over_several_topics_in_one_order() {
    let hub = hub(10);
    let first = publish(&hub, &["a"], "1");
    publish(&hub, &["b"], "2");
    publish(&hub, &["a"], "3");
    publish(&hub, &["c"], "not ours");
    let mut reader = subscribe(&hub, &["b", "a"], Resume::After(&first.id));
    publish(&hub, &["b"], "4");
    assert_eq!(data(&drain(&mut reader, 1)), ["2", "3", "4"]);
}

#[test]
fn resumes_after_a_publishers_own_id() {
    let hub = hub(10);
    publish_as(&hub, &["a"], "1", Some("09:41"));
    assert_eq!(publish_as(&hub, &["a"], "2", Some("09:42")).id, "09:42");
    publish(&hub, &["a"], "3");
    let mut reader = subscribe(&hub, &["a"], Resume::After("09:41"));
    let read = drain(&mut reader, 999);
    assert_eq!(
        (data(&read), read[0].id.as_str()),
        (vec!["2", "3"], "09:42")
    );
}

/// Two topics that each count 1, 2, 3: after `2` of the one, `2` of the other is not lost.
#[test]
fn an_id_that_several_topics_have_is_resumed_after_at_its_oldest_event() {
    let hub = hub(10);
    for n in ["1", "2", "3"] {
        for name in ["a", "b"] {
            publish_as(&hub, &[name], &format!("{name}{n}"), Some(n));
        }
    }
    let mut reader = subscribe(&hub, &["a", "b"], Resume::After("2"));
    assert_eq!(data(&drain(&mut reader, 999)), ["b2", "a3", "b3"]);
    // A game's clock that runs twice.
    publish_as(&hub, &["a"], "again", Some("1"));
    let mut reader = subscribe(&hub, &["a"], Resume::After("1"));
    assert_eq!(data(&drain(&mut reader, 999)), ["a2", "a3", "again"]);
}

#[test]
fn the_last_events_of_all_topics_together() {
    let hub = hub(10);
    for n in 1..=6 {
        publish(
            &hub,
            &[if n % 2 == 0 { "even" } else { "odd" }],
            &n.to_string(),
        );
    }
    for (asked, expected) in [
        (0, vec![]),
        (3, vec!["4", "5", "6"]),
        (99, vec!["1", "2", "3", "4", "5", "6"]),
    ] {
        let mut reader = subscribe(&hub, &["even", "odd"], Resume::Last(asked));
        assert_eq!(data(&drain(&mut reader, 999)), expected);
    }
}

#[test]
fn a_gap_is_told_with_its_count_and_what_is_held_follows() {
    let hub = hub(3);
    let first = publish(&hub, &["a"], "1");
    for n in 2..=6 {
        publish(&hub, &["a"], &n.to_string());
    }
    let mut reader = subscribe(&hub, &["a"], Resume::After(&first.id));
    let read = drain(&mut reader, 999);
    assert_eq!(
        gap(&read[0]),
        serde_json::json!({"reason": "trimmed", "missed": 2, "topics": ["a"]})
    );
    assert_eq!(data(&read[1..]), ["4", "5", "6"]);
    // Cut right after the gap event, a client resumes without a second gap and without a loss.
    let mut again = subscribe(&hub, &["a"], Resume::After(&read[0].id));
    assert_eq!(data(&drain(&mut again, 999)), ["4", "5", "6"]);
}

/// Of two topics one has lost events and the other has not: what is missing is told where it is
/// missing, so that a client that is cut in between is told of the rest and of nothing twice.
#[test]
fn a_gap_over_several_topics_is_told_once_across_a_reconnect() {
    let hub = hub(2);
    let start = publish(&hub, &["other"], "0").id;
    for (name, data) in [
        ("busy", "1"),
        ("quiet", "2"),
        ("busy", "3"),
        ("busy", "4"),
        ("busy", "5"),
        ("quiet", "6"),
        ("busy", "7"),
    ] {
        publish(&hub, &[name], data);
    }
    let names = ["busy", "quiet"];
    let mut reader = subscribe(&hub, &names, Resume::After(&start));
    let told = |missed: u64| serde_json::json!({"reason": "trimmed", "missed": missed, "topics": ["busy"]});
    let first = messages(chunk(reader.next(1)).expect("a gap").wire.as_slice());
    assert_eq!(gap(&first[0]), told(1));
    // Cut right here, and once more after the next event.
    let mut reader = subscribe(&hub, &names, Resume::After(&first[0].id));
    let next = messages(chunk(reader.next(1)).expect("an event").wire.as_slice());
    assert_eq!(data(&next), ["2"]);
    let mut reader = subscribe(&hub, &names, Resume::After(&next[0].id));
    let read = drain(&mut reader, 999);
    assert_eq!(gap(&read[0]), told(2));
    assert_eq!(data(&read[1..]), ["5", "6", "7"]);
}

/// A topic that loses its events by turns with another one would have a gap before each of its own.
#[test]
fn gaps_by_turns_come_to_an_end() {
    let hub = hub(300);
    let start = publish(&hub, &["other"], "0").id;
    for n in 0..200 {
        publish(&hub, &["busy"], &n.to_string());
        publish(&hub, &["quiet"], &n.to_string());
    }
    for n in 0..300 {
        publish(&hub, &["busy"], &n.to_string());
    }
    let mut reader = subscribe(&hub, &["busy", "quiet"], Resume::After(&start));
    let read = drain(&mut reader, 1 << 20);
    let gaps: Vec<_> = read
        .iter()
        .filter(|m| m.event == "edge-gap")
        .map(gap)
        .collect();
    assert_eq!(gaps.len(), 65);
    let missed = gaps
        .iter()
        .map(|gap| gap["missed"].as_u64().expect("a count"));
    assert_eq!((missed.sum::<u64>(), read.len() - gaps.len()), (200, 500));
}

#[test]
fn an_id_from_another_life_or_never_known_is_a_gap_and_all_that_is_held() {
    let hub = hub(3);
    let here = publish(&hub, &["a"], "1").id;
    let epoch = here.split('-').next().expect("an epoch");
    let ahead = format!("{epoch}-99");
    for (id, reason) in [
        ("zzzzzzzz-1", "restart"),
        ("never", "unknown"),
        (&ahead, "unknown"),
    ] {
        let mut reader = subscribe(&hub, &["a"], Resume::After(id));
        let read = drain(&mut reader, 999);
        assert_eq!(
            gap(&read[0]),
            serde_json::json!({"reason": reason, "missed": null, "topics": ["a"]})
        );
        assert_eq!(data(&read[1..]), ["1"]);
    }
}

#[test]
fn a_slow_reader_is_told_how_many_it_missed() {
    let hub = hub(5);
    let mut reader = subscribe(&hub, &["a", "b"], Resume::Live);
    publish(&hub, &["a"], "0");
    assert_eq!(data(&drain(&mut reader, 999)), ["0"]);
    for n in 1..=5_000 {
        publish(&hub, &["a", "b"], &n.to_string());
    }
    let read = drain(&mut reader, 999);
    assert_eq!(
        gap(&read[0]),
        serde_json::json!({"reason": "slow", "missed": 4995, "topics": ["a", "b"]})
    );
    assert_eq!(data(&read[1..]), ["4996", "4997", "4998", "4999", "5000"]);
}

#[test]
fn a_deleted_topic_tells_its_readers_and_goes_on() {
    let hub = hub(5);
    let first = publish(&hub, &["a"], "1").id;
    publish(&hub, &["a"], "2");
    let mut reader = subscribe(&hub, &["a"], Resume::Live);
    publish(&hub, &["a"], "3");
    assert_eq!(delete(&hub, "a"), Some(3));
    let read = drain(&mut reader, 999);
    assert_eq!(
        gap(&read[0]),
        serde_json::json!({"reason": "deleted", "missed": 1, "topics": ["a"]})
    );
    assert_eq!(read.len(), 1);
    publish(&hub, &["a"], "4");
    assert_eq!(data(&drain(&mut reader, 999)), ["4"]);
    // Who was away is told as well.
    let mut back = subscribe(&hub, &["a"], Resume::After(&first));
    let read = drain(&mut back, 999);
    assert_eq!(gap(&read[0])["missed"], 2);
    assert_eq!(data(&read[1..]), ["4"]);
    assert_eq!(delete(&hub, "nothing"), None);
}

#[test]
fn a_topic_without_history_and_readers_is_forgotten_but_not_its_losses() {
    let hub = hub(5);
    let first = publish(&hub, &["a"], "1").id;
    publish(&hub, &["a"], "2");
    delete(&hub, "a");
    assert_eq!(hub.topics(None, 10), []);
    let mut reader = subscribe(&hub, &["a"], Resume::After(&first));
    // Nobody read it when it was deleted, and it was forgotten: that it was is not.
    assert_eq!(
        gap(&drain(&mut reader, 999)[0]),
        serde_json::json!({"reason": "deleted", "missed": null, "topics": ["a"]})
    );
    drop(reader);
    assert_eq!(hub.topics(None, 10), []);
    assert_eq!(hub.lock().ledger(), [0, 0, 0, 1]);
}

#[test]
fn the_least_recently_published_topics_give_way_first() {
    let hub = with(Retention {
        total_bytes: 2600,
        ..Retention::default()
    });
    let _reader = subscribe(&hub, &["quiet"], Resume::Live);
    publish(&hub, &["quiet"], &"q".repeat(300));
    for _ in 0..3 {
        publish(&hub, &["busy"], &"b".repeat(300));
    }
    let held: Vec<_> = hub
        .topics(None, 10)
        .into_iter()
        .map(|t| (t.topic.to_string(), t.events))
        .collect();
    assert_eq!(held, [("busy".to_owned(), 3), ("quiet".to_owned(), 0)]);
    assert!(hub.lock().ledger()[0] <= 2600);
    // One event over the whole bound is still delivered.
    let mut reader = subscribe(&hub, &["busy"], Resume::Live);
    publish(&hub, &["busy"], &"b".repeat(3000));
    assert_eq!(drain(&mut reader, 999).len(), 1);
}

/// When memory is short the oldest goes before its time, and readers are told.
#[test]
fn history_that_is_let_go_of_is_a_gap() {
    let hub = hub(1000);
    let first = publish(&hub, &["a"], "first");
    let large = "x".repeat(900 << 10);
    for topic in ["a", "b", "c"] {
        publish(&hub, &[topic], &large);
    }
    let freed = hub.let_go(1_500_000);
    assert!(
        freed >= 2 * large.len() && freed < 3 * large.len(),
        "{freed}"
    );
    assert!(hub.topic(&topic("b")).is_none());
    let mut subscription = subscribe(&hub, &["a"], Resume::After(&first.id));
    let all = drain(&mut subscription, usize::MAX);
    assert_eq!(gap(&all[0])["reason"], "trimmed");
    // The newest of all stays, and then there is nothing left.
    assert_eq!(hub.let_go(usize::MAX), 0);
    assert_eq!(hub.topic(&topic("c")).map(|info| info.events), Some(1));
}

#[test]
fn old_events_go_and_idle_topics_with_them() {
    let hub = hub(5);
    let now = clock::now();
    let hour = Duration::from_secs(3600);
    for (name, at) in [("a", now), ("b", now + hour)] {
        put(&hub, event(&[name], "x"), at);
    }
    hub.sweep(now + hour);
    assert_eq!(hub.topics(None, 10).len(), 2);
    hub.sweep(now + hour + Duration::from_secs(1));
    assert_eq!(hub.topics(None, 10).len(), 1);
    // Events older than the bound are not replayed, swept or not.
    let mailbox = Mailbox::new(LOCAL);
    let later = now + 2 * hour + Duration::from_secs(1);
    let (mut reader, _) = hub
        .subscribe(&topics(&["b"]), Resume::Last(9), &mailbox, later)
        .expect("there is room");
    assert_eq!(drain(&mut reader, 999), []);
}

#[test]
fn topics_are_listed_in_pages() {
    let hub = hub(5);
    let _reader = subscribe(&hub, &["b"], Resume::Live);
    let a = publish(&hub, &["a"], "1").id;
    publish_as(&hub, &["a"], "2", Some("own"));
    let page = hub.topics(None, 1);
    assert_eq!(page.len(), 1);
    assert_eq!((page[0].events, page[0].subscribers), (2, 0));
    assert_eq!(
        (page[0].oldest.as_deref(), page[0].newest.as_deref()),
        (Some(&*a), Some("own"))
    );
    let page = hub.topics(Some("a"), 10);
    assert_eq!(page.len(), 1);
    assert_eq!((page[0].topic.as_str(), page[0].subscribers), ("b", 1));
    assert_eq!(hub.topic(&topic("b")).expect("it has a reader").bytes, 0);
}

/// What is missing is counted while publishers go on, and the count is right all the same.
#[test]
fn a_reader_that_falls_behind_publishers_on_other_threads_accounts_for_every_event() {
    const EACH: u64 = 4_000;
    let hub = hub(4);
    let mut readers: Vec<_> = [&["t0", "t1"][..], &["t1"], &["t2", "t0", "t1"]]
        .map(|names| (names.len() as u64, subscribe(&hub, names, Resume::Live)))
        .into();
    std::thread::scope(|scope| {
        for publisher in 0..3 {
            let hub = &hub;
            scope.spawn(move || {
                for n in 0..EACH {
                    publish(hub, &[&format!("t{publisher}")], &n.to_string());
                }
            });
        }
        for (topics, reader) in &mut readers {
            scope.spawn(move || {
                let (mut got, mut missed) = (0, 0);
                while got + missed < *topics * EACH {
                    for message in drain(reader, 64) {
                        match message.event.as_str() {
                            "edge-gap" => missed += gap(&message)["missed"].as_u64().expect("live"),
                            _ => got += 1,
                        }
                    }
                    std::thread::yield_now();
                }
                assert_eq!(got + missed, *topics * EACH);
                assert_eq!(reader.settled(), reader.handle().addressed());
            });
        }
    });
}

/// What was put together for a reader, and what only a reader still has, is on the ledger; beyond its
/// bound nothing is put together.
#[test]
fn what_readers_leave_unread_is_on_a_ledger() {
    let bounds = HubBounds {
        unread_bytes: 250,
        ..HubBounds::default()
    };
    let retention = Retention {
        events: 3,
        ..Retention::default()
    };
    let hub = Hub::new(
        retention,
        TopicRules::default(),
        bounds,
        Epoch::from_random(7),
        0,
        &[],
    );
    let mut readers: Vec<_> = (0..3)
        .map(|_| subscribe(&hub, &["a"], Resume::Live))
        .collect();
    let event = "x".repeat(100);
    for _ in 0..3 {
        publish(&hub, &["a"], &event);
    }
    assert_eq!(hub.unread_bytes(), 0);
    let whole = chunk(readers[0].next(1 << 20)).expect("three events");
    assert_eq!((whole.events, hub.is_pressed()), (3, true));
    assert!(hub.unread_bytes() > 300);
    let shared = chunk(readers[1].next(1 << 20)).expect("an event");
    let before = hub.unread_bytes();
    assert_eq!(shared.events, 1);
    drop(whole);
    // History lets go of what the second reader has still, and of what nobody has.
    for _ in 0..3 {
        publish(&hub, &["a"], &event);
    }
    assert!((100..before).contains(&hub.unread_bytes()));
    assert!(!hub.is_pressed());
    drop(shared);
    assert_eq!(hub.unread_bytes(), 0);
    assert_eq!(drain(&mut readers[2], 1 << 20).len(), 4);
    assert_eq!(hub.unread_bytes(), 0);
}

/// Names and history are two ledgers, and a topic goes from one to the other.
#[test]
fn a_topic_counts_as_a_name_while_it_is_merely_read() {
    let hub = hub(5);
    let [names, history] = [2, 1];
    let counts = |which: usize| hub.lock().ledger()[which];
    let reader = subscribe(&hub, &["a", "b"], Resume::Live);
    let other = subscribe(&hub, &["b", "c"], Resume::Live);
    assert_eq!((counts(names), counts(history)), (3, 0));
    publish(&hub, &["a", "d"], "x");
    assert_eq!((counts(names), counts(history)), (2, 2));
    // Another stream reads `b` still.
    drop(reader);
    assert_eq!((counts(names), counts(history)), (2, 2));
    hub.lock().audit();
    publish(&hub, &["c"], "x");
    assert_eq!((counts(names), counts(history)), (1, 3));
    delete(&hub, "c");
    assert_eq!((counts(names), counts(history)), (2, 2));
    drop(other);
    hub.sweep(clock::now() + Duration::from_secs(2 * 3600));
    hub.lock().audit();
    assert_eq!(hub.lock().ledger()[..3], [0, 0, 0]);
}

#[test]
fn the_edges_own_topics_are_passed_over_wherever_a_page_begins() {
    let hub = hub(5);
    let own = Topic::reserved("user:", "ann");
    let (_reader, _) = hub
        .subscribe(&[own], Resume::Live, &Mailbox::new(LOCAL), clock::now())
        .expect("there is room");
    let names = [" a", "#", "#z", "%", "a", "b"];
    for name in names {
        publish(&hub, &[name], "x");
    }
    let mut listed: Vec<String> = Vec::new();
    while let Some(info) = hub.topics(listed.last().map(String::as_str), 1).pop() {
        listed.push(info.topic.to_string());
    }
    assert_eq!(listed, names);
    for (after, next) in [
        ("", " a"),
        ("$", "%"),
        ("$user:ann", "%"),
        ("#zz", "%"),
        ("%", "a"),
    ] {
        assert_eq!(
            hub.topics(Some(after), 1)[0].topic.as_str(),
            next,
            "{after}"
        );
    }
}

#[test]
fn publishers_and_readers_on_many_threads_see_one_order() {
    let hub = hub(100_000);
    let start = std::sync::Barrier::new(5);
    let read: Vec<Vec<Message>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = subscribe(&hub, &["t0", "t1", "t2"], Resume::Live);
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let mut read = Vec::new();
                    while read.len() < 3 * 2_000 {
                        read.extend(drain(&mut reader, 4096));
                        std::thread::yield_now();
                    }
                    read
                })
            })
            .collect();
        for publisher in 0..3 {
            let (hub, start) = (&hub, &start);
            scope.spawn(move || {
                start.wait();
                for n in 0..2_000 {
                    publish(
                        hub,
                        &[&format!("t{publisher}")],
                        &format!("{publisher}:{n}"),
                    );
                }
            });
        }
        readers
            .into_iter()
            .map(|r| r.join().expect("it does not panic"))
            .collect()
    });
    assert_eq!(read[0], read[1]);
    for publisher in 0..3 {
        let prefix = format!("{publisher}:");
        let own: Vec<_> = read[0]
            .iter()
            .filter_map(|m| m.data.strip_prefix(&prefix))
            .collect();
        let sent: Vec<_> = (0..2_000).map(|n| n.to_string()).collect();
        assert_eq!(own, sent);
    }
}

#[test]
fn a_publish_marks_the_streams_of_a_connection() {
    let hub = hub(5);
    let mailbox = Mailbox::new(LOCAL);
    let now = clock::now();
    let (a, _) = hub
        .subscribe(&topics(&["a"]), Resume::Live, &mailbox, now)
        .expect("there is room");
    let (_b, _) = hub
        .subscribe(&topics(&["b"]), Resume::Live, &mailbox, now)
        .expect("there is room");
    let (ab, _) = hub
        .subscribe(&topics(&["a", "b"]), Resume::Live, &mailbox, now)
        .expect("there is room");
    assert_eq!(publish(&hub, &["a"], "x").receivers, 2);
    let mut ready = Vec::new();
    mailbox.take_ready(Waker::noop(), &mut ready);
    assert_eq!(ready, [a.handle().key(), ab.handle().key()]);
}

/// A connection that takes its mark while the event is still being published must find the event,
/// or it would sleep on it. Here each event must be read before the next is published.
#[test]
fn whoever_finds_a_mark_finds_the_event() {
    const EVENTS: u64 = 5_000;
    let hub = hub(10);
    let mailbox = Mailbox::new(LOCAL);
    let names: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let now = clock::now();
    let (mut reader, _) = hub
        .subscribe(&topics(&all[..1]), Resume::Live, &mailbox, now)
        .expect("there is room");
    let read = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for n in 1..=EVENTS {
                publish(&hub, &all, "x");
                let published = clock::now();
                while read.load(Ordering::Acquire) < n {
                    assert!(published.elapsed().as_secs() < 20, "event {n} is slept on");
                    std::hint::spin_loop();
                }
            }
        });
        let mut ready = Vec::new();
        // A publisher that gives up ends the test, which then fails with its panic.
        while read.load(Ordering::Acquire) < EVENTS && !publisher.is_finished() {
            mailbox.take_ready(Waker::noop(), &mut ready);
            // Only who is marked looks.
            for _ in ready.drain(..) {
                while let Some(chunk) = chunk(reader.next(99)) {
                    read.fetch_add(chunk.events, Ordering::Release);
                }
            }
        }
    });
}

/// A loud topic's losses do not hide those of a quiet one.
#[test]
fn each_topic_tells_its_own_losses() {
    let hub = hub(3);
    for n in 1..=3 {
        publish(&hub, &["quiet"], &format!("q{n}"));
    }
    for n in 1..=9 {
        publish(&hub, &["loud"], &format!("l{n}"));
    }
    let mut reader = subscribe(&hub, &["quiet", "loud"], Resume::Last(6));
    for n in 4..=6 {
        publish(&hub, &["quiet"], &format!("q{n}"));
    }
    let read = drain(&mut reader, 999);
    assert_eq!(gap(&read[0])["missed"], 3);
    assert_eq!(data(&read[1..]), ["l7", "l8", "l9", "q4", "q5", "q6"]);
}

#[test]
fn an_event_taken_back_is_for_nobody_who_comes_to_it_later() {
    let hub = hub(10);
    let mut behind = subscribe(&hub, &["a"], Resume::Live);
    let first = publish(&hub, &["a"], "1").id;
    let wrong = publish(&hub, &["a", "b"], "wrong").id;
    publish_as(&hub, &["a"], "3", Some("own"));
    let retract = |id: &str| {
        let entry = Entry::Retract {
            topics: topics(&["a", "b", "c"]).into(),
            id: id.into(),
        };
        put(&hub, entry, clock::now()).0.removed
    };
    assert_eq!(retract(&wrong), Some(1));
    assert_eq!((retract(&wrong), retract("never")), (None, None));
    assert_eq!(data(&drain(&mut behind, 999)), ["1", "3"]);
    // It counts as neither missed nor waiting.
    assert_eq!(behind.settled(), behind.handle().addressed());
    let mut back = subscribe(&hub, &["a", "b"], Resume::After(&first));
    assert_eq!(data(&drain(&mut back, 999)), ["3"]);
    // Its id is still a place to resume after.
    let mut back = subscribe(&hub, &["a"], Resume::After(&wrong));
    assert_eq!(data(&drain(&mut back, 999)), ["3"]);
    let mut last = subscribe(&hub, &["a"], Resume::Last(2));
    assert_eq!(data(&drain(&mut last, 999)), ["1", "3"]);
    assert_eq!(retract("own"), Some(1));
    assert_eq!(hub.topic(&topic("a")).expect("it is there").events, 1);
    assert_eq!(hub.topic(&topic("b")).expect("it is there").events, 0);
}

#[test]
fn a_disconnect_ends_the_streams_that_began_before_it() {
    let hub = hub(10);
    let mut bob = subscribe(&hub, &["news", "bob"], Resume::Live);
    let mut ann = subscribe(&hub, &["news", "ann"], Resume::Live);
    let disconnect = Entry::Disconnect(topic("bob"));
    assert_eq!(put(&hub, disconnect, clock::now()).0.receivers, 1);
    publish(&hub, &["news"], "later");
    assert_eq!((bob.next(999), bob.next(999)), (Next::Ended, Next::Ended));
    assert_eq!(data(&drain(&mut ann, 999)), ["later"]);
    let mut back = subscribe(&hub, &["news", "bob"], Resume::Live);
    publish(&hub, &["bob"], "hello again");
    assert_eq!(data(&drain(&mut back, 999)), ["hello again"]);
}

/// The gap moves the cursor past all there is: also past the word that ends the stream.
#[test]
fn a_disconnect_is_not_lost_in_a_gap() {
    let hub = hub(2);
    hub.keeps_from(1);
    let mut bob = subscribe(&hub, &["a", "bob"], Resume::Live);
    for n in 1..=5 {
        publish(&hub, &["a"], &n.to_string());
    }
    assert!(matches!(bob.next(999), Next::Ask(_)));
    delete(&hub, "a");
    put(&hub, Entry::Disconnect(topic("bob")), clock::now());
    assert_eq!(bob.answer(None), Next::Ended);
    assert_eq!(bob.next(999), Next::Ended);
}

#[test]
fn a_deletion_is_told_also_where_events_are_kept_elsewhere() {
    let hub = hub(2);
    hub.keeps_from(1);
    let mut reader = subscribe(&hub, &["a"], Resume::Live);
    publish(&hub, &["a"], "1");
    delete(&hub, "a");
    let Next::Ask(ask) = reader.next(999) else {
        panic!("it asks");
    };
    assert_eq!((ask.after, ask.through), (0, 1));
    let draft = Draft::new(None, "1", None);
    let event = hub.kept((1, clock::now()), draft, Target::default(), None);
    let found = FoundEvent {
        event: Arc::new(event.retracted()),
        topics: SmallVec::from_elem(0, 1),
        is_deleted: true,
    };
    let found = Found::new(&hub, vec![found], 1);
    let told = chunk(reader.answer(Some(found))).expect("a gap");
    let told = gap(&messages(told.wire.as_slice())[0]);
    assert_eq!(
        (&told["reason"], &told["missed"]),
        (&"deleted".into(), &1.into())
    );
    // Once.
    assert_eq!(chunk(reader.next(999)), None);
    delete(&hub, "a");
    let told = chunk(reader.next(999)).expect("a gap");
    let told = gap(&messages(told.wire.as_slice())[0]);
    assert_eq!(
        (&told["reason"], &told["missed"]),
        (&"deleted".into(), &0.into())
    );
    assert_eq!(chunk(reader.next(999)), None);
    assert!(reader.is_current());
}

#[test]
fn a_batch_wakes_a_connection_once_and_is_seen_whole() {
    let hub = hub(1000);
    let mailbox = Mailbox::new(LOCAL);
    let now = clock::now();
    let (mut reader, _) = hub
        .subscribe(&topics(&["a"]), Resume::Live, &mailbox, now)
        .expect("there is room");
    let batch = (1..=200).map(|sequence| {
        let entry = match sequence {
            7 => Entry::Delete(topic("b")),
            n => event(&["a"], &n.to_string()),
        };
        Placed::new(sequence, now, entry)
    });
    let outcome = hub.apply(batch);
    assert_eq!(outcome.applied.len(), 200);
    assert_eq!(outcome.applied[6], Applied::default());
    assert_eq!(outcome.applied[7].receivers, 1);
    drop(outcome.wakes);
    let read = drain(&mut reader, 1 << 20);
    let sent: Vec<_> = (1..=200)
        .filter(|n| *n != 7)
        .map(|n| n.to_string())
        .collect();
    assert_eq!(data(&read), sent);
}

/// All there ever was, for those who fell off the rings.
fn archive(hub: &Arc<Hub>, ask: &Ask, most: usize) -> Found {
    let mut all = subscribe(hub, &["archive"], Resume::Last(10_000));
    let mut events = Vec::new();
    let mut through = ask.through;
    for message in drain(&mut all, 1 << 20) {
        let (sequence, topics) = message.data.split_once(' ').expect("a number and topics");
        let sequence: u64 = sequence.parse().expect("a number");
        let topics = topics.split(',');
        let asked = topics.filter_map(|name| ask.topics.iter().position(|t| t.as_str() == name));
        let topics: SmallVec<[usize; 1]> = asked.collect();
        if sequence <= ask.after || topics.is_empty() {
            continue;
        }
        if events.len() == most {
            through = events
                .last()
                .map_or(through, |found: &FoundEvent| found.event.sequence);
            break;
        }
        let draft = Draft::new(None, &sequence.to_string(), None);
        events.push(FoundEvent {
            event: hub.kept((sequence, clock::now()), draft, Target::default(), None),
            topics,
            is_deleted: false,
        });
    }
    Found::new(hub, events, through)
}

proptest! {
    /// A reader that falls off the rings is answered from elsewhere, in any portions: nothing is
    /// lost, doubled, or out of order, and no gap is told.
    #[test]
    fn what_is_kept_elsewhere_is_asked_for(
        steps in proptest::collection::vec(proptest::option::weighted(0.8, proptest::collection::vec(0u8..3, 1..3)), 0..60),
        limit in 1usize..4,
        most in 1usize..5,
        max_bytes in 1usize..200,
    ) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let hub = hub(limit);
        // The archive of this test is a hub of its own, as a log would be.
        let kept = with(Retention { events: 10_000, ..Retention::default() });
        hub.keeps_from(1);
        let mut reader = subscribe(&hub, &["a", "b"], Resume::Live);
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        let mut take = |reader: &mut Subscription| loop {
            let next = match reader.next(max_bytes) {
                Next::Ask(ask) => reader.answer(Some(archive(&kept, &ask, most))),
                next => next,
            };
            match next {
                Next::Chunk(chunk) => {
                    for message in messages(chunk.wire.as_slice()) {
                        assert_ne!(message.event, "edge-gap");
                        got.push(message.data.parse::<u64>().expect("a number"));
                    }
                }
                Next::Nothing if reader.is_current() => break,
                Next::Nothing => {}
                other => panic!("{other:?}"),
            }
        };
        for step in steps {
            match step {
                Some(to) => {
                    let names: Vec<&str> = to.iter().map(|&n| NAMES[n as usize]).collect();
                    let sequence = hub.watermark() + 1;
                    publish(&kept, &["archive"], &format!("{sequence} {}", names.join(",")));
                    publish(&hub, &names, &sequence.to_string());
                    if names.iter().any(|name| *name != "c") {
                        sent.push(sequence);
                    }
                }
                None => take(&mut reader),
            }
        }
        take(&mut reader);
        prop_assert_eq!(got, sent);
        prop_assert_eq!(reader.settled(), reader.handle().addressed());
    }
}

#[test]
fn what_is_kept_no_more_is_a_gap_after_all() {
    let hub = hub(2);
    hub.keeps_from(1);
    let mut reader = subscribe(&hub, &["a"], Resume::Live);
    for n in 1..=5 {
        publish(&hub, &["a"], &n.to_string());
    }
    let Next::Ask(ask) = reader.next(999) else {
        panic!("it asks");
    };
    assert_eq!((ask.after, ask.through), (0, 5));
    let told = chunk(reader.answer(None)).expect("a gap");
    assert_eq!(gap(&messages(told.wire.as_slice())[0])["missed"], 3);
    assert_eq!(data(&drain(&mut reader, 999)), ["4", "5"]);
}
