//! The order in a log of files: it outlives the process.
//!
//! - `format` is what segments look like, `index` where entries stand, `noted` what an index is told.
//! - `appender` writes at the end and has the hub apply that. `queue` is between publishers and the one thread that
//!   does it, `writer`; `cache` does it for an edge of a cluster.
//! - `segments` are the files there are, and `reads` reading for readers what the rings have let go of; `disk` is the
//!   directory, `behind` one of what may be lost.
//! - `start` opens a log, `load` fills the rings, `error` says why not, `check` looks at one and mends it.

mod appender;
mod behind;
mod cache;
mod check;
mod disk;
mod error;
mod format;
mod index;
mod load;
mod metrics;
mod noted;
mod queue;
mod reads;
mod segments;
mod start;
mod sync_policy;
mod writer;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{NotStored, Receipt, record, wall::Wall};
use crate::{
    clock,
    hub::{Ask, Entry, Found, Hub, HubBounds, LostRange, Retention, TopicRules},
    topic::Topic,
};
use appender::{Appender, Keeping};
use disk::{Disk, Folder};
pub(super) use metrics::LogMetrics;
use queue::{Item, Queue};
pub(super) use reads::Reads;
use segments::Segments;
use start::Opening;
use writer::Writer;

pub(super) use appender::apply_in_parts;
pub(super) use cache::{Cache, Kept};
pub(crate) use check::{Checked, Cut, check, cut};
pub(crate) use error::LogError;
use error::OpenError;
pub(crate) use sync_policy::SyncPolicy;

/// How long a segment grows, in bytes: a part of all of them, between these.
const SEGMENT: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 20;
const SEGMENTS: u64 = 16;

/// `history.directory` and what belongs to it.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// `history.directory`
    pub directory: PathBuf,
    /// `history.sync`
    pub sync: SyncPolicy,
    /// `history.disk.bytes`: the most bytes of all segments.
    pub bytes: u64,
    /// `history.disk.age`: how long events are kept at least, if there is room.
    pub age: Duration,
}

/// An order that is kept in files.
#[derive(Debug)]
pub struct Log {
    hub: Arc<Hub>,
    queue: Arc<Queue>,
    reads: Reads,
    metrics: LogMetrics,
    wall: Wall,
    age: Duration,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn keeping(settings: &LogSettings) -> Keeping {
    Keeping {
        sync: settings.sync,
        bytes: settings.bytes,
        age: settings.age,
        segment_bytes: (settings.bytes / SEGMENTS).clamp(*SEGMENT.start(), *SEGMENT.end()),
    }
}

impl Log {
    /// Opens the log of a directory, which is made if it is not there, and fills the rings of its hub.
    ///
    /// # Errors
    ///
    /// [`LogError`] says what is in the way, and what to do about it.
    pub(super) fn open(
        settings: &LogSettings,
        retention: Retention,
        rules: &TopicRules,
        bounds: HubBounds,
    ) -> Result<Self, LogError> {
        Folder::open(&settings.directory)
            .map_err(OpenError::from)
            .and_then(|folder| {
                let wall = Wall::new(clock::now(), clock::wall());
                let keeping = keeping(settings);
                Self::of(Arc::new(folder), wall, keeping, retention, rules, bounds)
            })
            .map_err(|error| LogError {
                directory: settings.directory.clone(),
                error,
            })
    }

    fn of(
        disk: Arc<dyn Disk>,
        wall: Wall,
        keeping: Keeping,
        retention: Retention,
        rules: &TopicRules,
        bounds: HubBounds,
    ) -> Result<Self, OpenError> {
        let make = |epoch, floor, lost: &[LostRange]| {
            Hub::new(retention, rules.clone(), bounds, epoch, floor, lost)
        };
        let opening = Opening {
            disk: &*disk,
            wall,
            retention,
            always: keeping.sync == SyncPolicy::Always,
            is_shared: false,
            make: &make,
        };
        let opened = match start::open(opening)? {
            Some(opened) => opened,
            None => start::begin(opening)?,
        };
        let hub = opened.hub;
        let segments = Segments::new(disk, hub.clone(), wall, opened.state);
        let (segments, queue) = (Arc::new(segments), Arc::new(Queue::new()));
        let metrics = LogMetrics::default();
        metrics.see(&segments.state());
        let log = Appender {
            hub: hub.clone(),
            segments: segments.clone(),
            metrics: metrics.clone(),
            keeping,
            wall,
            end: opened.tail,
        };
        let queued = queue.clone();
        let writer = Writer { queue: queued, log };
        let thread = std::thread::Builder::new().name("history".into());
        let thread = thread.spawn(move || writer.run())?;
        Ok(Self {
            hub,
            queue,
            reads: Reads::new(Some(segments), metrics.clone()),
            metrics,
            wall,
            age: keeping.age,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// How long entries are kept.
    pub(super) fn age(&self) -> Duration {
        self.age
    }

    pub(super) fn metrics(&self) -> &LogMetrics {
        &self.metrics
    }

    /// Stores an entry and has it applied. Dropped before it is answered, that may happen all the same.
    pub(super) async fn put(&self, entry: Entry, now: Instant) -> Result<Receipt, NotStored> {
        let mut answers = self.put_batch(vec![self.item(entry, now)]).await?;
        answers.pop().expect("there is one for each entry")
    }

    /// The same of many, in their order and in one commit.
    pub(super) async fn put_all(
        &self,
        entries: Vec<Entry>,
        now: Instant,
    ) -> Vec<Result<Receipt, NotStored>> {
        let count = entries.len();
        if count == 0 {
            return Vec::new();
        }
        let items = entries.into_iter().map(|entry| self.item(entry, now));
        match self.put_batch(items.collect()).await {
            Ok(answers) => answers,
            Err(error) => vec![Err(error); count],
        }
    }

    async fn put_batch(&self, items: Vec<Item>) -> Result<queue::Answers, NotStored> {
        let mut prepared = Prepared {
            hub: &self.hub,
            topics: Vec::new(),
        };
        for Item { entry, .. } in &items {
            self.hub.prepare(entry);
            prepared.topics.extend(entry.prepared().iter().cloned());
        }
        let answers = self.queue.push(items).await?;
        prepared.topics.clear();
        // The thread answers all that it takes, and takes all that there is.
        answers.await.map_err(|_| NotStored::Unknown)
    }

    fn item(&self, entry: Entry, at: Instant) -> Item {
        let encoded = record::encode(&entry, &self.wall);
        Item { entry, encoded, at }
    }

    /// Finds what the rings do not hold any more.
    pub(super) async fn read(&self, ask: Ask) -> Option<Found> {
        self.reads.read(ask).await
    }

    /// Writes what was handed over, and ends the log in good order.
    pub(super) async fn close(&self) {
        self.queue.close();
        let thread = self
            .thread
            .lock()
            .expect("no holder of this lock panics")
            .take();
        if let Some(thread) = thread {
            let _: Result<_, _> = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Topics that were made known for entries which are not handed over yet: forgotten if they never are.
struct Prepared<'a> {
    hub: &'a Hub,
    topics: Vec<Topic>,
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if !self.topics.is_empty() {
            self.hub.unjudge(u64::MAX, &self.topics);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.close();
        let thread = self.thread.lock().map(|mut thread| thread.take());
        // The directory is another's to open from now on.
        if let Ok(Some(thread)) = thread {
            let _: Result<_, _> = thread.join();
        }
    }
}

#[cfg(test)]
pub(in crate::history) mod tests;
