//! Readers of what the rings have let go of, against a flat list of all there ever was.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    net::Ipv4Addr,
    sync::Mutex,
    task::{Poll, Wake},
};

use proptest::prelude::*;

use super::{super::disk::Disk, *};
use crate::hub::{Ask, mailbox::Mailbox};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    /// To some topics, perhaps for readers of another only.
    Publish(BTreeSet<u8>, Option<u8>),
    /// Not kept.
    LiveOnly(u8),
    /// One of those there are.
    Retract(prop::sample::Index),
    Delete(u8),
    /// The live reader takes what there is.
    Read,
    /// Another comes with the id of one of those there were.
    Come(prop::sample::Index, BTreeSet<u8>),
    /// In good order, or not.
    Restart(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let some = || proptest::collection::btree_set(0u8..3, 1..3);
    let to = proptest::option::weighted(0.2, 0u8..3);
    prop_oneof![
        12 => (some(), to).prop_map(|(topics, to)| Step::Publish(topics, to)),
        1 => (0u8..3).prop_map(Step::LiveOnly),
        1 => any::<prop::sample::Index>().prop_map(Step::Retract),
        1 => (0u8..3).prop_map(Step::Delete),
        2 => Just(Step::Read),
        3 => (any::<prop::sample::Index>(), some()).prop_map(|(at, topics)| Step::Come(at, topics)),
        1 => any::<bool>().prop_map(Step::Restart),
    ]
}

/// An event that there was.
#[derive(Debug)]
struct Known {
    number: u64,
    data: String,
    /// The topics that it is still in.
    topics: BTreeSet<u8>,
    to: Option<u8>,
    is_retracted: bool,
}

#[derive(Debug, Default)]
struct Model {
    events: Vec<Known>,
    /// When each topic was deleted last.
    deleted: [u64; 3],
    last: u64,
}

impl Model {
    /// What a reader of some topics is given that has all up to a number.
    fn after(&self, number: u64, reads: &BTreeSet<u8>) -> Vec<String> {
        let later = self.events.iter().filter(|event| event.number > number);
        let meant = later.filter(|event| {
            !event.is_retracted
                && event.topics.iter().any(|topic| reads.contains(topic))
                && event.to.is_none_or(|to| reads.contains(&to))
        });
        meant.map(|event| event.data.clone()).collect()
    }
}

/// The topic of a number.
fn one(topic: u8) -> Vec<Topic> {
    topics(&[NAMES[usize::from(topic)]])
}

fn names(topics: &BTreeSet<u8>) -> Vec<&'static str> {
    topics
        .iter()
        .map(|topic| NAMES[usize::from(*topic)])
        .collect()
}

/// What was given, without what was told of deletions.
pub(super) fn without_deletions(said: Vec<String>) -> Vec<String> {
    said.into_iter()
        .filter(|said| said != "gap:deleted")
        .collect()
}

proptest! {
    #[test]
    fn whoever_comes_with_an_id_is_given_all_that_came_after_it(
        steps in proptest::collection::vec(step(), 0..80), events in 1usize..4, indexed in any::<bool>(),
    ) {
        let disk = TornDisk::default();
        let kept = Keeping { segment_bytes: 4400, ..keeping(SyncPolicy::Always) };
        let retention = Retention { total_bytes: if indexed { 1 } else { 1 << 20 }, ..small(events) };
        let mut edge = Edge::try_open(&disk, kept, retention).expect("it opens");
        let mut model = Model::default();
        let live_reads: BTreeSet<u8> = [0, 1].into();
        let mut live = edge.subscribe(&["a", "b"], Resume::Live);
        let mut live_after = 0;
        for step in steps {
            match step {
                Step::Publish(topics, to) => {
                    let data = format!("{} {}", model.events.len(), "x".repeat(60));
                    let mut entry = event(&names(&topics), &data);
                    if let Entry::Event { target, .. } = &mut entry {
                        target.to = to.map(one);
                    }
                    let receipt = edge.put(entry).expect("it is stored");
                    model.last = number(&receipt);
                    model.events.push(Known { number: model.last, data, topics, to, is_retracted: false });
                }
                Step::LiveOnly(topic) => {
                    let mut entry = event(&[NAMES[usize::from(topic)]], "live");
                    if let Entry::Event { target, .. } = &mut entry {
                        target.is_live_only = true;
                    }
                    model.last = number(&edge.put(entry).expect("it is numbered"));
                }
                Step::Retract(at) => {
                    let Some(at) = (!model.events.is_empty()).then(|| at.index(model.events.len())) else { continue };
                    let id = edge.id(model.events[at].number).into();
                    let topics = topics(&NAMES).into();
                    let receipt = edge.put(Entry::Retract { topics, id }).expect("it is stored");
                    model.last = number(&receipt);
                    model.events[at].is_retracted |= receipt.removed == Some(1);
                }
                Step::Delete(topic) => {
                    let receipt = edge.put(Entry::Delete(one(topic)[0].clone()));
                    model.last = number(&receipt.expect("it is stored"));
                    model.deleted[usize::from(topic)] = model.last;
                    for event in &mut model.events {
                        event.topics.remove(&topic);
                    }
                }
                Step::Read => {
                    let got = without_deletions(edge.take(&mut live));
                    let got: Vec<String> = got.into_iter().filter(|data| data != "live").collect();
                    prop_assert_eq!(got, model.after(live_after, &live_reads));
                    live_after = model.last;
                }
                Step::Come(at, topics) => {
                    let number = at.index(usize::try_from(model.last).expect("few") + 1) as u64;
                    let got = edge.after(&names(&topics), &edge.id(number));
                    let expected = model.after(number, &topics);
                    prop_assert_eq!(without_deletions(got), expected);
                }
                Step::Restart(in_order) => {
                    drop(live);
                    if in_order {
                        edge.close();
                    } else {
                        drop(edge);
                    }
                    edge = Edge::try_open(&disk, kept, retention).expect("it opens");
                    live = edge.subscribe(&["a", "b"], Resume::After(&edge.id(live_after)));
                    let last = edge.log.hub.cursor().sequence;
                    prop_assert!(last >= model.last, "{last} after {}", model.last);
                }
            }
        }
        // All that a stream was addressed is settled once it has caught up.
        let got = without_deletions(edge.take(&mut live));
        let got: Vec<String> = got.into_iter().filter(|data| data != "live").collect();
        prop_assert_eq!(got, model.after(live_after, &live_reads));
        assert_settled(&live);
    }
}

#[test]
fn a_deletion_that_a_reader_comes_across_is_told() {
    let edge = Edge::try_open(&TornDisk::default(), keeping(SyncPolicy::Always), small(1))
        .expect("it opens");
    edge.publish(&["a"], "1").expect("it is stored");
    edge.publish(&["a", "b"], "2").expect("it is stored");
    edge.put(Entry::Delete(topics(&["a"])[0].clone()))
        .expect("it is stored");
    for n in 3..6 {
        edge.publish(&["a"], &n.to_string()).expect("it is stored");
    }
    assert_eq!(edge.all(&["a"]), ["gap:deleted", "3", "4", "5"]);
    assert_eq!(edge.all(&["b"]), ["2"]);
}

#[test]
fn an_event_that_is_no_longer_in_memory_can_be_taken_back() {
    let disk = TornDisk::default();
    let edge = Edge::try_open(&disk, keeping(SyncPolicy::Always), small(1)).expect("it opens");
    let first = edge.publish(&["a"], "1").expect("it is stored");
    edge.publish(&["a"], "2").expect("it is stored");
    edge.publish(&["a"], "3").expect("it is stored");
    let retract = |id: &str| Entry::Retract {
        topics: topics(&["a"]).into(),
        id: id.into(),
    };
    let receipt = edge.put(retract(&first.id)).expect("it is stored");
    assert_eq!(receipt.removed, Some(1));
    // Not twice, and not what is none.
    assert_eq!(
        edge.put(retract(&first.id)).expect("it is stored").removed,
        None
    );
    assert_eq!(
        edge.put(retract(&edge.id(77)))
            .expect("it is stored")
            .removed,
        None
    );
    assert_eq!(edge.all(&["a"]), ["2", "3"]);
    edge.close();
    let edge = Edge::try_open(&disk, keeping(SyncPolicy::Always), small(1)).expect("it opens");
    assert_eq!(edge.all(&["a"]), ["2", "3"]);
}

/// Whatever was in memory then, and is not read at the next start.
#[test]
fn what_was_taken_back_stays_so_though_it_is_not_read_at_the_start() {
    let disk = TornDisk::default();
    let little = Retention {
        total_bytes: 1,
        ..Retention::default()
    };
    let edge = Edge::try_open(&disk, keeping(SyncPolicy::Always), Retention::default());
    let edge = edge.expect("it opens");
    let mut entry = event(&["a"], "own");
    if let Entry::Event { target, .. } = &mut entry {
        target.id = Some("own".into());
    }
    edge.put(entry).expect("it is stored");
    edge.publish(&["a"], "stays").expect("it is stored");
    let fill = |edge: &Edge| {
        for n in 0..100 {
            let data = format!("{n} {}", "x".repeat(100));
            edge.publish(&["other"], &data).expect("it is stored");
        }
    };
    fill(&edge);
    let taken = edge.put(Entry::Retract {
        topics: topics(&["a"]).into(),
        id: "own".into(),
    });
    assert_eq!(taken.expect("it is stored").removed, Some(1));
    for _ in 0..2 {
        let left = disk.after_kill();
        let edge = Edge::try_open(&left, keeping(SyncPolicy::Always), little).expect("it opens");
        assert_eq!(edge.all(&["a"]), ["stays"]);
    }
    fill(&edge);
    edge.close();
    let edge = Edge::try_open(&disk, keeping(SyncPolicy::Always), little).expect("it opens");
    assert_eq!(edge.all(&["a"]), ["stays"]);
}

#[test]
fn a_file_that_is_missing_is_named() {
    let disk = TornDisk::default();
    let edge = Edge::open(&disk, SyncPolicy::Always);
    for n in 0..150 {
        let data = format!("{n} {}", "x".repeat(100));
        edge.publish(&["a"], &data).expect("it is stored");
    }
    edge.close();
    let names = segments(&disk);
    Disk::remove(&disk, &names[1]).expect("it is there");
    let opened = Edge::try_open(&disk, keeping(SyncPolicy::Always), Retention::default());
    let Err(OpenError::Missing(file, from, through)) = opened.map(|_| ()) else {
        panic!("it is missing");
    };
    assert_eq!(file, names[0]);
    let checked = super::super::check::look(&disk).expect("it can be read");
    let missing: Vec<(u64, u64)> = checked
        .missing
        .iter()
        .map(|m| (m.from, m.through))
        .collect();
    assert_eq!(missing, [(from, through)]);
    let cuts = super::super::check::mend(&disk).expect("it can be mended");
    assert_eq!(cuts.len(), 1);
    let edge = Edge::open(&disk, SyncPolicy::Always);
    let got = edge.all(&["a"]);
    assert_eq!(got.iter().filter(|said| *said == "gap:lost").count(), 1);
    assert_eq!(got.len() as u64, 151 - (through - from + 1));
}

/// An event's time begins when it is published, not when the process began.
#[test]
fn an_event_ends_in_the_log_when_it_would_have_in_memory() {
    let age = Duration::from_secs(30);
    // A process that began a minute ago.
    let wall = Wall::new(clock::now() - 2 * age, clock::wall() - 2 * age);
    let edge = Edge::since(&TornDisk::default(), wall, small(1));
    let mut entry = event(&["a"], "1");
    if let Entry::Event { target, .. } = &mut entry {
        target.ttl = Some(age);
    }
    edge.put(entry).expect("it is stored");
    for n in 2..5 {
        edge.publish(&["a"], &n.to_string()).expect("it is stored");
    }
    assert_eq!(edge.all(&["a"]), ["1", "2", "3", "4"]);
}

/// Nothing of what is in memory alone is passed over because other events are read from disk.
#[test]
fn what_only_the_rings_have_comes_among_what_they_let_go_of() {
    let edge = Edge::try_open(&TornDisk::default(), keeping(SyncPolicy::Always), small(2))
        .expect("it opens");
    let mut reader = edge.subscribe(&["a", "b"], Resume::Live);
    for n in 0..6 {
        edge.publish(&["a"], &n.to_string()).expect("it is stored");
        if n % 4 == 1 {
            let mut live = event(&["b"], &format!("live {n}"));
            if let Entry::Event { target, .. } = &mut live {
                target.is_live_only = true;
            }
            edge.put(live).expect("it is numbered");
        }
    }
    let expected = ["0", "1", "live 1", "2", "3", "4", "5", "live 5"];
    assert_eq!(edge.take(&mut reader), expected);
    assert_settled(&reader);
}

/// All that a stream was addressed is settled once it has caught up, though nobody counted what was missing.
fn assert_settled(reader: &Subscription) {
    let handle = reader.handle();
    let addressed = handle.mailbox().addressed(handle.key());
    assert_eq!(reader.settled(), addressed);
}

#[test]
fn a_reader_that_the_log_did_not_wait_for_is_counted_anew() {
    let kept = Keeping {
        bytes: 20_000,
        ..keeping(SyncPolicy::Always)
    };
    let edge = Edge::try_open(&TornDisk::default(), kept, small(1)).expect("it opens");
    let mut reader = edge.subscribe(&["a"], Resume::Live);
    for n in 0..400 {
        let data = format!("{n} {}", "x".repeat(100));
        edge.publish(&["a"], &data).expect("it is stored");
    }
    let got = edge.take(&mut reader);
    assert_eq!(got[0], "gap:trimmed");
    assert_settled(&reader);
}

/// A reader that takes what there is whenever it is woken, in the thread that wakes it.
struct Awake {
    mailbox: Arc<Mailbox>,
    reader: Mutex<Option<Subscription>>,
    taken: Mutex<Vec<Next>>,
}

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        self.mailbox
            .take_ready(&self.clone().into(), &mut Vec::new());
        let mut reader = self.reader.lock().expect("it does not panic");
        if let Some(reader) = reader.as_mut() {
            let mut taken = self.taken.lock().expect("it does not panic");
            loop {
                match reader.next(1 << 20) {
                    Next::Nothing => break,
                    next => taken.push(next),
                }
            }
        }
    }
}

/// Many that are published at once are no reason to lose any.
#[test]
fn a_commit_that_is_larger_than_a_ring_reaches_whoever_is_awake() {
    let edge = Edge::try_open(&TornDisk::default(), keeping(SyncPolicy::Always), small(10))
        .expect("it opens");
    let mailbox = Mailbox::new(Ipv4Addr::LOCALHOST.into());
    let reader = edge
        .log
        .hub
        .subscribe(&topics(&["a"]), Resume::Live, &mailbox, clock::now());
    let awake = Arc::new(Awake {
        mailbox,
        reader: Mutex::new(Some(reader.expect("there is room").0)),
        taken: Mutex::default(),
    });
    awake.clone().wake();
    let many: Vec<Entry> = (0..1000).map(|n| event(&["a"], &n.to_string())).collect();
    assert!(edge.put_all(many).iter().all(Result::is_ok));
    let taken = awake.taken.lock().expect("it does not panic");
    let events = taken.iter().map(|next| match next {
        Next::Chunk(chunk) => chunk.events,
        next => panic!("{next:?}"),
    });
    assert_eq!(events.sum::<u64>(), 1000);
    drop(awake.reader.lock().expect("it does not panic").take());
}

/// Readers that asked and are not polled any more, as their clients take nothing.
#[test]
fn readers_that_do_not_take_what_was_found_hold_nobody_up() {
    let edge = Edge::try_open(&TornDisk::default(), keeping(SyncPolicy::Always), small(1))
        .expect("it opens");
    for n in 0..9 {
        edge.publish(&["a"], &n.to_string()).expect("it is stored");
    }
    let ask = || Ask {
        topics: topics(&["a"]).into(),
        after: 0,
        through: 5,
        max_bytes: 1,
    };
    edge.runtime.block_on(async {
        let mut stuck: Vec<_> = (0..20).map(|_| Box::pin(edge.log.read(ask()))).collect();
        for read in &mut stuck {
            let polled = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
        }
        let found = edge.log.read(ask());
        let found = tokio::time::timeout(Duration::from_secs(60), found).await;
        assert!(found.expect("it has its turn").is_some());
    });
}

/// The names of the segments there are.
fn segments(disk: &TornDisk) -> Vec<String> {
    let mut names = Disk::list(disk).expect("names");
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    names
}

/// The index of a segment is bad, and so is what it would be made of.
#[test]
fn damage_that_is_found_while_an_index_is_made_anew_is_told() {
    let disk = TornDisk::default();
    let edge = Edge::try_open(&disk, keeping(SyncPolicy::Always), small(1)).expect("it opens");
    for n in 0..150 {
        let data = format!("{n} {}", "x".repeat(100));
        edge.publish(&["a"], &data).expect("it is stored");
    }
    let segment = &segments(&disk)[1];
    disk.flip(segment, disk.len_of(segment) - 300, 3);
    let index = segment.replace(".seg", ".idx");
    disk.flip(&index, disk.len_of(&index) - 3, 3);
    for _ in 0..2 {
        let got = edge.all(&["a"]);
        let gaps = got.iter().filter(|said| said.starts_with("gap:"));
        assert_eq!(gaps.collect::<Vec<_>>(), ["gap:lost"]);
        assert!((140..150).contains(&(got.len() - 1)), "{}", got.len());
    }
}

#[test]
fn a_segment_that_cannot_be_read_holds_nobody_up_whatever_is_damaged_later() {
    let disk = TornDisk::default();
    let edge = Edge::try_open(&disk, keeping(SyncPolicy::Always), small(1)).expect("it opens");
    for n in 0..150 {
        let data = format!("{n} {}", "x".repeat(100));
        edge.publish(&["a"], &data).expect("it is stored");
    }
    edge.log.hub.lose(crate::hub::LostRange {
        from: 140,
        through: 141,
        is_damage: true,
    });
    let first = &segments(&disk)[0];
    Disk::remove(&disk, first).expect("it is there");
    Disk::remove(&disk, &first.replace(".seg", ".idx")).expect("it is there");
    let got = edge.all(&["a"]);
    assert!(got[0].starts_with("gap:"), "{got:?}");
    assert!(got.last().is_some_and(|last| last.starts_with("149 ")));
}

/// A topic that is so busy that a part of its entries is all that is looked at, beside a quiet one.
#[test]
fn no_part_of_an_index_is_taken_for_all_of_it() {
    let disk = TornDisk::default();
    let kept = Keeping {
        segment_bytes: 1 << 20,
        ..keeping(SyncPolicy::Always)
    };
    let edge = Edge::try_open(&disk, kept, small(1)).expect("it opens");
    let many: Vec<Entry> = (0..3000)
        .map(|n| event(&["busy"], &n.to_string()))
        .collect();
    assert!(edge.put_all(many).iter().all(Result::is_ok));
    edge.publish(&["quiet"], "quiet").expect("it is stored");
    edge.publish(&["quiet"], "again").expect("it is stored");
    let expected = || (0..3000).map(|n| n.to_string());
    let got = edge.all(&["busy", "quiet"]);
    let tail = ["quiet".to_owned(), "again".to_owned()];
    assert_eq!(got, expected().chain(tail.clone()).collect::<Vec<_>>());
    // The same from the index on disk.
    edge.close();
    let edge = Edge::try_open(&disk, kept, small(1)).expect("it opens");
    assert_eq!(edge.all(&["busy"]), expected().collect::<Vec<_>>());
    assert_eq!(edge.all(&["quiet"]), tail);
}

/// Of a topic to which little is published not every segment is looked into.
#[test]
fn a_quiet_topic_is_found_at_once_among_many_segments() {
    let disk = TornDisk::default();
    let edge = Edge::try_open(&disk, keeping(SyncPolicy::Always), small(1)).expect("it opens");
    for n in 0..4 {
        edge.publish(&["quiet"], &n.to_string())
            .expect("it is stored");
        for _ in 0..60 {
            edge.publish(&["busy"], &"x".repeat(300))
                .expect("it is stored");
        }
    }
    assert!(segments(&disk).len() > 40, "{}", segments(&disk).len());
    edge.close();
    // Nothing is known of it but what is on disk.
    let retention = Retention {
        total_bytes: 1,
        ..small(1)
    };
    let kept = keeping(SyncPolicy::Always);
    let edge = Edge::try_open(&disk, kept, retention).expect("it opens");
    let reads = || {
        let before = edge.log.metrics.deep_reads.get();
        let read = edge.after(&["quiet"], &edge.id(1));
        assert_eq!(read, ["1", "2", "3"]);
        edge.log.metrics.deep_reads.get() - before
    };
    // What each segment has is not known before it was looked into.
    assert!(reads() > 4);
    assert_eq!(reads(), 1);
}
