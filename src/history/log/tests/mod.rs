//! What the log promises, on a disk that tears, fills up and fails, and against models.

mod cache;
mod crash;
mod deep;
mod failing;
mod paced;
mod torn_disk;

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use super::{Log, SyncPolicy, appender::Keeping, error::OpenError, segments::Segments};
use crate::{
    clock,
    history::{NotStored, Receipt, wall::Wall},
    hub::{
        Ask, Entry, Found, HubBounds, Identity, Next, Resume, Retention, Subscription, Target,
        TopicRules, mailbox::Mailbox,
    },
    sse::{Draft, Item, Parser},
    topic::Topic,
};
pub(in crate::history) use cache::Hanging;
use torn_disk::TornDisk;

/// A log on a disk, and what asks it.
struct Edge {
    log: Log,
    runtime: Runtime,
}

/// How tests keep a log: in segments of a few entries.
fn keeping(sync: SyncPolicy) -> Keeping {
    Keeping {
        sync,
        bytes: 1 << 30,
        age: Duration::from_secs(3600),
        segment_bytes: 5000,
    }
}

/// Rings that hold next to nothing.
fn small(events: usize) -> Retention {
    Retention {
        events,
        ..Retention::default()
    }
}

impl Edge {
    fn open(disk: &TornDisk, sync: SyncPolicy) -> Self {
        Self::try_open(disk, keeping(sync), Retention::default()).expect("it opens")
    }

    fn try_open(
        disk: &TornDisk,
        keeping: Keeping,
        retention: Retention,
    ) -> Result<Self, OpenError> {
        Self::ruled(disk, keeping, retention, TopicRules::default())
    }

    fn ruled(
        disk: &TornDisk,
        keeping: Keeping,
        retention: Retention,
        rules: TopicRules,
    ) -> Result<Self, OpenError> {
        let wall = Wall::new(clock::now(), clock::wall());
        Self::of(disk, wall, keeping, retention, &rules)
    }

    /// One that began at another moment.
    fn since(disk: &TornDisk, wall: Wall, retention: Retention) -> Self {
        let kept = keeping(SyncPolicy::Always);
        Self::of(disk, wall, kept, retention, &TopicRules::default()).expect("it opens")
    }

    fn of(
        disk: &TornDisk,
        wall: Wall,
        keeping: Keeping,
        retention: Retention,
        rules: &TopicRules,
    ) -> Result<Self, OpenError> {
        let disk = Arc::new(disk.clone());
        let log = Log::of(disk, wall, keeping, retention, rules, HubBounds::default())?;
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().expect("a runtime");
        Ok(Self { log, runtime })
    }

    fn put(&self, entry: Entry) -> Result<Receipt, NotStored> {
        self.runtime.block_on(self.log.put(entry, clock::now()))
    }

    fn put_all(&self, entries: Vec<Entry>) -> Vec<Result<Receipt, NotStored>> {
        self.runtime
            .block_on(self.log.put_all(entries, clock::now()))
    }

    fn publish(&self, names: &[&str], data: &str) -> Result<Receipt, NotStored> {
        self.put(event(names, data))
    }

    fn subscribe(&self, names: &[&str], resume: Resume<'_>) -> Subscription {
        let mailbox = Mailbox::new(Ipv4Addr::LOCALHOST.into());
        let reader = self
            .log
            .hub
            .subscribe(&topics(names), resume, &mailbox, clock::now());
        reader.expect("there is room").0
    }

    /// All that is there for a reader: data, and `gap:` with the reason of a gap.
    fn take(&self, reader: &mut Subscription) -> Vec<String> {
        take(reader, |ask| self.runtime.block_on(self.log.read(ask)))
    }

    /// All that came after an id.
    fn after(&self, names: &[&str], id: &str) -> Vec<String> {
        self.take(&mut self.subscribe(names, Resume::After(id)))
    }

    /// All that there ever was, as history has it.
    fn all(&self, names: &[&str]) -> Vec<String> {
        self.after(names, &self.id(0))
    }

    fn segments(&self) -> Arc<Segments> {
        self.log.reads.segments().expect("they are there")
    }

    fn id(&self, sequence: u64) -> String {
        self.log.hub.id(sequence).to_string()
    }

    fn close(self) {
        self.runtime.block_on(self.log.close());
    }
}

/// All that is there for a reader, whose questions are answered: data, and `gap:` with the reason of a gap.
fn take(reader: &mut Subscription, find: impl Fn(Ask) -> Option<Found>) -> Vec<String> {
    let (mut parser, mut items) = (Parser::new(usize::MAX), Vec::new());
    loop {
        let next = match reader.next(300) {
            Next::Ask(ask) => reader.answer(find(ask)),
            next => next,
        };
        match next {
            Next::Chunk(chunk) => {
                let bytes = chunk.wire.payload();
                parser.push(&bytes, &mut items).expect("no limit");
            }
            Next::Nothing if reader.is_current() => break,
            Next::Nothing => {}
            Next::Ended => panic!("it ended"),
            Next::Ask(_) => unreachable!("it was answered"),
        }
    }
    let said = items.into_iter().filter_map(|item| match item {
        Item::Message(message) if message.event == "edge-gap" => {
            let gap: serde_json::Value = serde_json::from_str(&message.data).expect("JSON");
            Some(format!("gap:{}", gap["reason"].as_str().expect("a reason")))
        }
        Item::Message(message) => Some(message.data),
        _ => None,
    });
    said.collect()
}

fn topics(names: &[&str]) -> Vec<Topic> {
    let topic = |name: &&str| Topic::parse(name).expect("a topic");
    names.iter().map(topic).collect()
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

/// The number of an id.
fn number(receipt: &Receipt) -> u64 {
    let (_, number) = receipt.id.split_once('-').expect("an id of the edge's");
    number.parse().expect("a number")
}
