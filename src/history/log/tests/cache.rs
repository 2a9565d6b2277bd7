//! What an edge of a cluster keeps of the order, against a hub whose rings hold all of it.

use proptest::{prelude::*, test_runner::Config};

use super::{
    super::{Cache, Kept, apply_in_parts, disk::Disk, start},
    crash::Numbers,
    deep::without_deletions,
    torn_disk::{Faults, Nothing},
    *,
};
use crate::{
    history::record::Mark,
    hub::{Hub, Key, PLACE_BITS, Placed, end_of_frame, floor_before},
    sse::Epoch,
};

/// An entry of a message.
#[derive(Clone, Debug)]
enum What {
    /// To one topic, or two; perhaps with a key that others have.
    Publish(u8, Option<u8>),
    LiveOnly,
    /// The event of so many messages ago.
    Retract(u8),
    Delete,
    Close,
}

#[derive(Clone, Debug)]
enum Step {
    Message(Vec<What>),
    /// So many messages were taken out of the order.
    Hole(u8),
    /// The edge is started again: it ended in good order, was killed, or lost power.
    Restart(u8),
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        9 => (0u8..3, proptest::option::weighted(0.2, 0u8..4)).prop_map(|(to, key)| What::Publish(to, key)),
        1 => Just(What::LiveOnly),
        1 => (0u8..9).prop_map(What::Retract),
        1 => Just(What::Delete),
        1 => Just(What::Close),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => proptest::collection::vec(what(), 0..6).prop_map(Step::Message),
        1 => (1u8..4).prop_map(Step::Hole),
        3 => (0u8..3).prop_map(Step::Restart),
    ]
}

/// The entries of a message, which anyone can say again.
fn entries(hub: &Hub, message: u64, whats: &[What]) -> Vec<Entry> {
    let entry = |(n, what): (usize, &What)| match what {
        What::Publish(to, key) => {
            let names: &[&str] = [&["a"][..], &["b"], &["a", "b"]][usize::from(*to)];
            let mut entry = event(names, &format!("{message}.{n} {}", "x".repeat(60)));
            if let (Entry::Event { target, .. }, Some(key)) = (&mut entry, key) {
                target.identity = Identity::of_key(Some(Key::new(&[*key], &[])));
            }
            entry
        }
        What::LiveOnly => {
            let mut entry = event(&["a"], "live");
            if let Entry::Event { target, .. } = &mut entry {
                target.is_live_only = true;
            }
            entry
        }
        What::Retract(ago) => Entry::Retract {
            topics: topics(&["a", "b"]).into(),
            id: hub
                .id(message.saturating_sub((*ago).into()) << PLACE_BITS)
                .to_string()
                .into(),
        },
        What::Delete => Entry::Delete(topics(&["a"])[0].clone()),
        What::Close => Entry::Close(topics(&["b"])[0].clone()),
    };
    whats.iter().enumerate().map(entry).collect()
}

/// The order, as the servers have it: messages by their numbers.
type Stream = std::collections::BTreeMap<u64, Vec<What>>;

fn hub(events: usize, epoch: Epoch, floor: u64) -> Arc<Hub> {
    let retention = Retention {
        total_bytes: 16 << 20,
        ..small(events)
    };
    let (rules, bounds) = (TopicRules::default(), HubBounds::default());
    let hub = Hub::new(retention, rules, bounds, epoch, floor, &[]);
    hub.share(clock::now());
    hub
}

fn floor(message: u64) -> u64 {
    floor_before(message << PLACE_BITS)
}

fn placed(hub: &Hub, message: u64, whats: &[What], now: Instant) -> Vec<Placed> {
    let entries = entries(hub, message, whats).into_iter();
    let numbers = message << PLACE_BITS..;
    let placed = entries.zip(numbers);
    placed
        .map(|(entry, number)| Placed::new(number, now, entry))
        .collect()
}

/// One of the edges.
struct Node {
    hub: Arc<Hub>,
    cache: Cache,
    /// The last message that it has applied, and the first it has of all.
    position: u64,
    first: u64,
    /// Something of it was there when it was opened.
    was_kept: bool,
    /// How long ago what it reads was placed.
    ago: Duration,
    runtime: Runtime,
}

impl Node {
    fn open(disk: &TornDisk, events: usize, stream: &Stream) -> Self {
        Self::late(disk, events, stream, Duration::ZERO)
    }

    /// One that comes when all of it was placed so long ago.
    fn late(disk: &TornDisk, events: usize, stream: &Stream, ago: Duration) -> Self {
        let keeping = Keeping {
            segment_bytes: 5200,
            age: Duration::from_secs(30 * 24 * 3600),
            ..keeping(SyncPolicy::Always)
        };
        let (disk, wall) = (
            Arc::new(disk.clone()),
            Wall::new(clock::now(), clock::wall()),
        );
        let retention = Retention {
            total_bytes: 1,
            ..small(events)
        };
        let make = |epoch, floor, _: &[_]| hub(events, epoch, floor);
        let opened = Cache::of(disk, keeping, wall, retention, &make);
        let (cache, kept) = opened.expect("it opens");
        let builder = tokio::runtime::Builder::new_current_thread();
        let runtime = { builder }.enable_time().build().expect("a runtime");
        let was_kept = kept.is_some();
        let (hub, position, first) = match kept {
            Some(Kept { hub, mark, .. }) => {
                let first = hub.kept_from() >> PLACE_BITS;
                let position = mark.sequence >> PLACE_BITS;
                assert_eq!(mark.id, Some(position.to_string()));
                assert!(stream.contains_key(&position));
                (hub, position, first)
            }
            None => (hub(events, Epoch::from_random(7), floor(1)), 0, 0),
        };
        let mut node = Self {
            hub,
            cache,
            position,
            first,
            was_kept,
            ago,
            runtime,
        };
        node.catch_up(stream);
        node
    }

    /// Applies what it has not of the order.
    fn catch_up(&mut self, stream: &Stream) {
        for (message, whats) in stream.range(self.position + 1..) {
            let end = end_of_frame(message << PLACE_BITS);
            let mark = Mark {
                sequence: end,
                id: Some(message.to_string()),
            };
            let now = clock::now() - self.ago;
            let placed = placed(&self.hub, *message, whats, now);
            let count = placed.len();
            let applied = self.cache.apply(&self.hub, placed, &mark, now);
            assert_eq!(applied.len(), count);
            self.hub.pass(end, now);
            self.position = *message;
        }
    }

    fn after(&self, names: &[&str], id: &str) -> Vec<String> {
        let mailbox = Mailbox::new(Ipv4Addr::LOCALHOST.into());
        let subscribed =
            self.hub
                .subscribe(&topics(names), Resume::After(id), &mailbox, clock::now());
        let mut reader = subscribed.expect("there is room").0;
        let reads = self.cache.reads();
        let said = take(&mut reader, |ask| self.runtime.block_on(reads.read(ask)));
        without_deletions(said)
    }

    /// Compares what readers are given who come with the id of any message.
    fn check(&self, stream: &Stream) -> Result<(), TestCaseError> {
        let whole = hub(10_000, self.hub.cursor().epoch, floor(1));
        for (message, whats) in stream {
            let now = clock::now();
            drop(apply_in_parts(&whole, placed(&whole, *message, whats, now)));
            whole.pass(end_of_frame(message << PLACE_BITS), now);
        }
        let mailbox = Mailbox::new(Ipv4Addr::LOCALHOST.into());
        let first = stream.keys().next().copied().unwrap_or(1);
        for message in first..=self.position + 1 {
            for names in [&["a"][..], &["b"], &["a", "b"]] {
                let id = self.hub.id(floor(message)).to_string();
                let subscribed =
                    whole.subscribe(&topics(names), Resume::After(&id), &mailbox, clock::now());
                let mut reader = subscribed.expect("there is room").0;
                let expected = without_deletions(take(&mut reader, |_| None));
                prop_assert_eq!(self.after(names, &id), expected, "{:?} after {}", names, id);
            }
        }
        Ok(())
    }
}

/// The lives of an edge that loses what it was about to keep.
fn lives(steps: &[Step], events: usize, chance: Vec<u16>) -> Result<(), TestCaseError> {
    let (mut stream, mut last) = (Stream::new(), 0);
    let mut disk = TornDisk::default();
    let mut chance = Numbers(chance, 0);
    let mut node = Node::open(&disk, events, &stream);
    for step in steps {
        match step {
            Step::Message(whats) => {
                last += 1;
                stream.insert(last, whats.clone());
                node.catch_up(&stream);
            }
            Step::Hole(count) => last += u64::from(*count),
            Step::Restart(how) => {
                let (before, had) = (disk.clone(), node.position);
                match how {
                    0 => drop(node),
                    1 => disk = before.after_kill(),
                    _ => disk = before.after_power_cut(&mut chance),
                }
                node = Node::open(&disk, events, &stream);
                prop_assert!(*how == 2 || had == 0 || node.was_kept, "{had}");
                // What is thrown away is read again, all of it.
                let first = stream.keys().next().copied().unwrap_or_default();
                prop_assert!(node.first <= first, "{} and not {first}", node.first);
            }
        }
    }
    node.check(&stream)
}

proptest! {
    #![proptest_config(Config { cases: 64, ..Config::default() })]
    #[test]
    fn an_edge_has_what_the_order_has_however_it_ends(
        steps in proptest::collection::vec(step(), 0..60), events in 1usize..5,
        chance in proptest::collection::vec(any::<u16>(), 1..60),
    ) {
        lives(&steps, events, chance)?;
    }
}

/// A disk that may not answer.
#[derive(Default)]
pub(in crate::history) struct Hanging(TornDisk);

impl Hanging {
    /// What is kept on it.
    pub(in crate::history) fn cache(&self) -> Cache {
        open(&self.0).expect("it opens").0
    }

    /// It answers nobody as long as this is held.
    pub(in crate::history) fn hang(&self) -> impl Sized {
        self.0.hang()
    }
}

fn publish(count: u64) -> Stream {
    let whats = vec![What::Publish(0, None); 3];
    (1..=count)
        .map(|message| (message, whats.clone()))
        .collect()
}

#[test]
fn a_disk_that_fails_is_begun_anew_and_readers_are_told() {
    let disk = TornDisk::default();
    let mut node = Node::open(&disk, 2, &publish(5));
    let start = node.hub.id(floor(1)).to_string();
    assert_eq!(node.after(&["a"], &start).len(), 15);
    disk.fail(Faults {
        write: true,
        ..Faults::default()
    });
    node.catch_up(&publish(7));
    let told = node.after(&["a"], &start);
    assert_eq!((&told[0][..], told.len()), ("gap:trimmed", 3), "{told:?}");
    disk.fail(Faults::default());
    node.catch_up(&publish(8));
    assert_eq!(node.after(&["a"], &start).len(), 3, "it rests");
    drop(node);
    // What was kept before it failed is whole.
    let node = Node::open(&disk, 2, &publish(9));
    assert_eq!(node.after(&["a"], &start).len(), 27);
}

#[test]
fn what_is_thrown_away_is_asked_for_no_more() {
    let disk = TornDisk::default();
    let mut node = Node::open(&disk, 2, &publish(60));
    assert!(disk.list().expect("memory").len() > 4);
    node.cache.clear();
    assert_eq!(disk.list().expect("memory"), [start::CLUSTER]);
    let told = node.after(&["a"], &node.hub.id(floor(1)).to_string());
    assert_eq!((&told[0][..], told.len()), ("gap:trimmed", 3), "{told:?}");
    node.catch_up(&publish(61));
    let behind = node.hub.id(floor(61)).to_string();
    assert_eq!(node.after(&["a"], &behind).len(), 3);
}

fn open(disk: &TornDisk) -> Result<(Cache, Option<Kept>), OpenError> {
    let make = |epoch, floor, _: &[_]| hub(2, epoch, floor);
    let wall = Wall::new(clock::now(), clock::wall());
    let keeping = keeping(SyncPolicy::Always);
    Cache::of(Arc::new(disk.clone()), keeping, wall, small(2), &make)
}

/// What can be read again from the servers is no reason not to start.
#[test]
fn a_disk_that_is_full_at_a_start_is_begun_anew() {
    let disk = TornDisk::default();
    drop(Node::open(&disk, 2, &publish(60)));
    let names = disk.list().expect("memory");
    let used = names.iter().map(|name| disk.len_of(name)).sum();
    disk.fail(Faults {
        room: Some(used),
        ..Faults::default()
    });
    // What is thrown away makes room.
    let node = Node::open(&disk, 2, &publish(60));
    assert!(!node.was_kept);
    let start = node.hub.id(floor(1)).to_string();
    assert_eq!(node.after(&["a"], &start).len(), 180);
    drop(node);
    disk.fail(Faults::default());
    assert!(Node::open(&disk, 2, &publish(60)).was_kept);
}

/// Else a crash could leave what is kept without it, and be taken for the history of an edge on its own.
#[test]
fn whose_a_directory_is_has_lasted_before_anything_is_kept_in_it() {
    let disk = TornDisk::default();
    disk.fail(Faults {
        sync: true,
        ..Faults::default()
    });
    assert!(matches!(open(&disk), Err(OpenError::Io(_))));
    disk.fail(Faults::default());
    drop(open(&disk).expect("it opens"));
    let names = disk.after_power_cut(&mut Nothing).list();
    assert_eq!(names.expect("memory"), [start::CLUSTER]);
}

#[test]
fn the_history_of_an_edge_on_its_own_is_not_thrown_away() {
    let disk = TornDisk::default();
    let edge = Edge::open(&disk, SyncPolicy::Always);
    edge.publish(&["a"], "x").expect("it is stored");
    edge.close();
    let opened = open(&disk);
    assert!(matches!(opened, Err(OpenError::Alone(_))), "{opened:?}");
    let edge = Edge::open(&disk, SyncPolicy::Always);
    assert_eq!(edge.all(&["a"]), ["x"]);
    // Nor is what an edge of a cluster keeps taken for it.
    let shared = TornDisk::default();
    drop(Node::open(&shared, 2, &publish(3)));
    let opened = Edge::try_open(&shared, keeping(SyncPolicy::Always), small(2));
    assert!(matches!(opened.err(), Some(OpenError::Shared)));
}

#[test]
fn what_is_read_late_is_kept_as_what_is_read_at_once() {
    let files = |ago| {
        let disk = TornDisk::default();
        drop(Node::late(&disk, 2, &publish(50), ago));
        disk.list().expect("memory").len()
    };
    assert_eq!(
        files(Duration::from_secs(5 * 24 * 3600)),
        files(Duration::ZERO)
    );
}

/// A repetition is judged by when it was placed: it was, long ago, right behind what it repeats.
#[test]
fn what_came_again_while_the_edge_was_away_is_known() {
    let disk = TornDisk::default();
    let ago = Duration::from_secs(600);
    let with_key = vec![What::Publish(0, Some(1))];
    let mut stream = Stream::from([(1, with_key.clone())]);
    for message in 2..30 {
        stream.insert(message, vec![What::Publish(1, None)]);
    }
    drop(Node::late(&disk, 2, &stream, ago));
    stream.insert(30, with_key);
    let node = Node::late(&disk, 2, &stream, ago);
    node.hub.sweep(clock::now());
    assert!(node.was_kept);
    let told = node.after(&["a"], &node.hub.id(floor(1)).to_string());
    assert_eq!(told.len(), 1, "{told:?}");
}
