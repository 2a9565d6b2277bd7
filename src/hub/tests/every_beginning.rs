//! Against the plainest model, a list of all there ever was: however a reader begins, whatever is
//! published, limited, deleted and evicted, and however slowly it reads, what it gets and what it is
//! told it missed is everything that is for it.

use std::collections::BTreeSet;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// To some topics, perhaps only for readers of another as well.
    Publish(Vec<u8>, Option<u8>, Kind),
    Read(usize),
    Delete(u8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Kept,
    LiveOnly,
    /// From the first moment on.
    Over,
}

#[derive(Clone, Debug)]
enum Begin {
    Live,
    /// After the n-th event of those there were.
    After(prop::sample::Index),
    Last(usize),
    Unknown,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let to = proptest::option::weighted(0.2, 0u8..4);
    let topics = proptest::collection::vec(0u8..4, 1..3);
    let kind = prop_oneof![
        4 => Just(Kind::Kept),
        1 => Just(Kind::LiveOnly),
        1 => Just(Kind::Over),
    ];
    prop_oneof![
        6 => (topics, to, kind).prop_map(|(topics, to, kind)| Step::Publish(topics, to, kind)),
        2 => (1usize..300).prop_map(Step::Read),
        1 => (0u8..4).prop_map(Step::Delete),
    ]
}

fn begin() -> impl Strategy<Value = Begin> {
    prop_oneof![
        Just(Begin::Live),
        any::<prop::sample::Index>().prop_map(Begin::After),
        (0usize..6).prop_map(Begin::Last),
        Just(Begin::Unknown),
        Just(Begin::Restart),
    ]
}

/// All there ever was, as a reader of some topics sees it.
struct Model {
    hub: Arc<Hub>,
    reads: Vec<&'static str>,
    /// The numbers of the events that are for the reader, in their order.
    meant: Vec<u64>,
    /// The same of those that are not kept, and of those that nobody gets.
    live_only: Vec<u64>,
    over: Vec<u64>,
    /// The number of the last entry.
    last: u64,
}

impl Model {
    fn new(hub: &Arc<Hub>, reads: &BTreeSet<u8>) -> Self {
        Self {
            hub: hub.clone(),
            reads: reads.iter().map(|&n| NAMES[n as usize]).collect(),
            meant: Vec::new(),
            live_only: Vec::new(),
            over: Vec::new(),
            last: 0,
        }
    }

    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Publish(names, to, kind) => {
                let names: Vec<&str> = names.iter().map(|&n| NAMES[n as usize]).collect();
                let to = to.map(|n| NAMES[n as usize]);
                let mut entry = event(&names, &(self.last + 1).to_string());
                if let Entry::Event { target, .. } = &mut entry {
                    target.to = to.map(|name| topics(&[name]));
                    target.is_live_only = *kind == Kind::LiveOnly;
                    target.ttl = (*kind == Kind::Over).then_some(Duration::ZERO);
                }
                self.last = put(&self.hub, entry, clock::now()).1;
                let reads = |name: &str| self.reads.contains(&name);
                if names.iter().any(|name| reads(name)) && to.is_none_or(reads) {
                    let of_its_kind = match kind {
                        Kind::Kept => &mut self.meant,
                        Kind::LiveOnly => &mut self.live_only,
                        Kind::Over => &mut self.over,
                    };
                    of_its_kind.push(self.last);
                }
            }
            Step::Delete(n) => {
                let entry = Entry::Delete(topic(NAMES[*n as usize]));
                self.last = put(&self.hub, entry, clock::now()).1;
            }
            Step::Read(_) => {}
        }
        Ok(())
    }

    /// What is held of it just now.
    fn held(&self) -> Vec<u64> {
        let mut reader = subscribe(&self.hub, &self.reads, Resume::Last(10_000));
        let all = drain(&mut reader, 1 << 20);
        data(&all)
            .iter()
            .map(|n| n.parse().expect("a number"))
            .collect()
    }
}

/// What a reader got, and what it was told.
#[derive(Default)]
struct Told {
    got: Vec<u64>,
    missed: u64,
    /// A gap was told without a count.
    uncounted: bool,
}

impl Told {
    fn take(&mut self, reader: &mut Subscription, max_bytes: usize) -> Result<(), TestCaseError> {
        while let Some(chunk) = chunk(reader.next(max_bytes)) {
            self.read(&messages(chunk.wire.as_slice()))?;
        }
        Ok(())
    }

    fn read(&mut self, messages: &[Message]) -> Result<(), TestCaseError> {
        for message in messages {
            if message.event != "edge-gap" {
                self.got.push(message.data.parse().expect("a number"));
                continue;
            }
            let gap = gap(message);
            match gap["missed"].as_u64() {
                Some(missed) => {
                    let deleted = gap["reason"] == "deleted";
                    prop_assert!(missed > 0 || deleted, "a gap of nothing: {gap}");
                    self.missed += missed;
                }
                None => self.uncounted = true,
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn however_a_reader_begins_nothing_is_lost_in_silence(
        before in proptest::collection::vec(step(), 0..30),
        begin in begin(),
        after in proptest::collection::vec(step(), 0..50),
        limit in 1usize..8,
        total in prop_oneof![Just(usize::MAX), 2000usize..6000],
        reads in proptest::collection::btree_set(0u8..3, 1..3),
    ) {
        let hub = with(Retention { events: limit, total_bytes: total, ..Retention::default() });
        let mut model = Model::new(&hub, &reads);
        for step in &before {
            model.apply(step)?;
        }
        let id = match &begin {
            Begin::After(index) => hub.id(index.index(model.last as usize + 1) as u64).to_string(),
            Begin::Unknown => "never".into(),
            Begin::Restart => "zzzzzzzz-1".into(),
            Begin::Live | Begin::Last(_) => String::new(),
        };
        let resume = match &begin {
            Begin::Live => Resume::Live,
            Begin::Last(events) => Resume::Last(*events),
            _ => Resume::After(&id),
        };
        let joined = model.last;
        let held = model.held();
        let mut reader = subscribe(&hub, &model.reads, resume);
        let mut told = Told::default();
        // What of the past it is to get, or to be told of; after a gap that cannot be counted, what
        // was held then.
        let past: Vec<u64> = match &begin {
            Begin::Live => Vec::new(),
            Begin::Last(events) => held[held.len().saturating_sub(*events)..].to_vec(),
            Begin::After(_) => {
                let after: u64 = id.rsplit('-').next().and_then(|n| n.parse().ok()).expect("ours");
                model.meant.iter().copied().filter(|n| *n > after).collect()
            }
            Begin::Unknown | Begin::Restart => {
                let first = chunk(reader.next(1)).expect("a gap");
                prop_assert_eq!(gap(&messages(first.wire.as_slice())[0])["missed"].as_u64(), None);
                held
            }
        };
        for step in &after {
            model.apply(step)?;
            if let Step::Read(max_bytes) = step {
                told.take(&mut reader, *max_bytes)?;
            }
        }
        told.take(&mut reader, 100)?;

        let lasting = |n: &u64| !model.live_only.contains(n);
        let (got, live_only): (Vec<u64>, Vec<u64>) = told.got.iter().partition(|n| lasting(n));
        prop_assert!(live_only.iter().all(|n| *n > joined), "{:?}", live_only);
        let live = model.meant.iter().copied().filter(|n| *n > joined);
        let expected: Vec<u64> = past.into_iter().chain(live).collect();
        prop_assert!(told.got.is_sorted_by(|a, b| a < b), "{:?}", told.got);
        prop_assert!(got.iter().all(|n| expected.contains(n)), "{:?}", got);
        let missing = (expected.len() - got.len()) as u64;
        // What a slow reader lost counts as missing even if its time is over by then.
        let over = model.over.iter().filter(|n| **n > joined).count() as u64;
        if told.uncounted {
            prop_assert!(told.missed <= missing + over);
        } else {
            prop_assert!((missing..=missing + over).contains(&told.missed), "{}", told.missed);
        }
        hub.lock().audit();
        // Every event is accounted for, so that the next gap is counted right.
        prop_assert_eq!(reader.settled(), reader.handle().addressed());
    }
}

proptest! {
    /// A client that is cut after every few events or gaps, and comes back with the last id it saw.
    #[test]
    fn however_often_a_reader_is_cut_nothing_is_told_twice(
        steps in proptest::collection::vec((proptest::collection::vec(0u8..4, 1..3), 0usize..4), 0..60),
        limit in 1usize..8,
        total in prop_oneof![Just(usize::MAX), 2000usize..6000],
        reads in proptest::collection::btree_set(0u8..3, 1..4),
    ) {
        let hub = with(Retention { events: limit, total_bytes: total, ..Retention::default() });
        let mut model = Model::new(&hub, &reads);
        let mut told = Told::default();
        let mut id = hub.id(0).to_string();
        let mut come = |hub: &Arc<Hub>, reads: &[&str], chunks: usize| {
            let mut reader = subscribe(hub, reads, Resume::After(&id));
            let read = std::iter::from_fn(|| chunk(reader.next(1)));
            let read: Vec<Message> = read.take(chunks).flat_map(|c| messages(c.wire.as_slice())).collect();
            if let Some(last) = read.last() {
                id = last.id.clone();
            }
            read
        };
        for (names, chunks) in steps {
            model.apply(&Step::Publish(names, None, Kind::Kept))?;
            if chunks > 0 {
                told.read(&come(&hub, &model.reads, chunks))?;
            }
        }
        told.read(&come(&hub, &model.reads, usize::MAX))?;
        prop_assert!(told.got.is_sorted_by(|a, b| a < b), "{:?}", told.got);
        // A topic that was forgotten with its history may have lost more than is known.
        if told.uncounted {
            prop_assert!(told.got.len() as u64 + told.missed <= model.meant.len() as u64);
        } else {
            prop_assert_eq!(told.got.len() as u64 + told.missed, model.meant.len() as u64);
        }
    }
}
