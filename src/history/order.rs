//! The one order, whatever keeps it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Asked, ClusterError, ClusterSettings, ClusterStatus, Fact, Gathered, LogError, LogSettings,
    NotStored, Reached, Receipt, Unheard, cluster::Cluster, log::Log, memory::Memory,
};
use crate::{
    clock,
    hub::{Ask, Entry, Found, Hub, HubBounds, Retention, TopicRules},
    metrics::Registry,
};

/// How long readers have to take what went out at once.
const BREATH: Duration = Duration::from_millis(1);

/// The one order of entries. An enum rather than a trait object: each event goes through it.
#[derive(Debug)]
pub enum Order {
    /// Gone with the process.
    Memory(Memory),
    /// Kept in files.
    Log(Log),
    /// Numbered and kept by servers, for many edges.
    Cluster(Box<Cluster>),
}

impl Order {
    /// An order in memory, whose history begins now. `random` makes its event ids unlike those of
    /// any other.
    #[must_use]
    pub fn in_memory(
        retention: Retention,
        rules: TopicRules,
        bounds: HubBounds,
        random: u64,
    ) -> Self {
        Self::Memory(Memory::new(retention, rules, bounds, random))
    }

    /// An order that is kept in the files of a directory, and goes on where it ended.
    ///
    /// # Errors
    ///
    /// [`LogError`] says what is in the way.
    pub fn in_log(
        settings: &LogSettings,
        retention: Retention,
        rules: &TopicRules,
        bounds: HubBounds,
    ) -> Result<Self, LogError> {
        Log::open(settings, retention, rules, bounds).map(Self::Log)
    }

    /// An order that many edges have in common. It waits until that is there.
    ///
    /// # Errors
    ///
    /// [`ClusterError`] says what is in the way.
    pub fn in_cluster(
        settings: ClusterSettings,
        retention: Retention,
        rules: &TopicRules,
        bounds: HubBounds,
    ) -> Result<Self, ClusterError> {
        let cluster = Cluster::open(settings, retention, rules, bounds)?;
        Ok(Self::Cluster(Box::new(cluster)))
    }

    /// Why nobody new is to come, if so.
    #[must_use]
    pub fn unready(&self, now: Instant) -> Option<String> {
        match self {
            Self::Memory(_) | Self::Log(_) => None,
            Self::Cluster(cluster) => cluster.unready(now),
        }
    }

    /// Whether others apply it too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// How many event streams of all edges an entry went to, that was not one before.
    pub(crate) async fn reached(&self, receipt: &Receipt) -> Reached {
        match self {
            Self::Memory(_) | Self::Log(_) => Reached::alone(receipt.receivers.unwrap_or_default()),
            Self::Cluster(cluster) => {
                let reached = cluster.reached(&[receipt]).await;
                reached.into_iter().next().expect("one was asked for")
            }
        }
    }

    /// The same of several entries, in their order.
    pub(crate) async fn reached_all(&self, receipts: &[&Receipt]) -> Vec<Reached> {
        match self {
            Self::Memory(_) | Self::Log(_) => receipts
                .iter()
                .map(|receipt| Reached::alone(receipt.receivers.unwrap_or_default()))
                .collect(),
            Self::Cluster(cluster) => cluster.reached(receipts).await,
        }
    }

    /// What this edge is called among those that apply it too, if others do.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Memory(_) | Self::Log(_) => None,
            Self::Cluster(cluster) => Some(cluster.node()),
        }
    }

    /// What the others answer to a question, and who did not; `None` where nobody else applies it.
    pub(crate) async fn gather(&self, question: &Value) -> Option<Gathered> {
        match self {
            Self::Memory(_) | Self::Log(_) => None,
            Self::Cluster(cluster) => Some(cluster.gather(question).await),
        }
    }

    /// What one of the others answers to a question.
    ///
    /// # Errors
    ///
    /// [`Unheard`] if it does not.
    pub(crate) async fn ask(&self, node: &str, question: &Value) -> Result<Value, Unheard> {
        match self {
            Self::Memory(_) | Self::Log(_) => Err(Unheard::Unknown(node.to_owned())),
            Self::Cluster(cluster) => cluster.ask(node, question).await,
        }
    }

    /// The next question of the others. Cancel-safe.
    pub(crate) async fn until_asked(&self) -> Asked {
        match self {
            Self::Memory(_) | Self::Log(_) => std::future::pending().await,
            Self::Cluster(cluster) => cluster.until_asked().await,
        }
    }

    /// Tells all who apply it a fact, which is forgotten after a while if that is given; `false` if its key was told of
    /// since the revision that is expected. Nobody is told where nobody else applies it.
    ///
    /// # Errors
    ///
    /// [`NotStored`] says why nobody is told.
    pub(crate) async fn tell(
        &self,
        key: &str,
        value: Vec<u8>,
        expected: Option<u64>,
        kept: Option<Duration>,
    ) -> Result<bool, NotStored> {
        match self {
            Self::Memory(_) | Self::Log(_) => Ok(true),
            Self::Cluster(cluster) => cluster.tell(key, value, expected, kept).await,
        }
    }

    /// The facts that came since it was last asked, in their order.
    pub(crate) fn facts(&self) -> Vec<Fact> {
        match self {
            Self::Memory(_) | Self::Log(_) => Vec::new(),
            Self::Cluster(cluster) => cluster.facts().take(),
        }
    }

    /// The facts up to this revision are known.
    pub(crate) fn facts_are_known(&self, revision: u64) {
        if let Self::Cluster(cluster) = self {
            cluster.facts().are_known(revision);
        }
    }

    /// Returns once facts may have come. Cancel-safe.
    pub(crate) async fn until_facts(&self) {
        match self {
            Self::Memory(_) | Self::Log(_) => std::future::pending().await,
            Self::Cluster(cluster) => cluster.facts().news().await,
        }
    }

    /// Waits a little for a fact to be known.
    pub(crate) async fn until_fact(&self, revision: u64) {
        if let Self::Cluster(cluster) = self {
            cluster.until_fact(revision).await;
        }
    }

    /// What is told of the cluster, if it is of one.
    #[must_use]
    pub(crate) fn cluster(&self, now: Instant) -> Option<ClusterStatus> {
        match self {
            Self::Memory(_) | Self::Log(_) => None,
            Self::Cluster(cluster) => Some(cluster.status(now)),
        }
    }

    /// Has what it counts be told.
    pub fn register(&self, registry: &mut Registry) {
        match self {
            Self::Cluster(cluster) => cluster.register(registry),
            Self::Memory(_) => {}
            Self::Log(log) => log.metrics().register(registry),
        }
    }

    /// The hub that applies what is put in.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        match self {
            Self::Memory(memory) => memory.hub(),
            Self::Log(log) => log.hub(),
            Self::Cluster(cluster) => cluster.hub(),
        }
    }

    /// Gives an entry its place, keeps it, and has it applied.
    ///
    /// # Errors
    ///
    /// [`NotStored`] says why it has no place; then nobody sees it.
    pub async fn put(&self, entry: Entry, now: Instant) -> Result<Receipt, NotStored> {
        match self {
            Self::Memory(memory) => memory.put(entry, now),
            Self::Log(log) => log.put(entry, now).await,
            Self::Cluster(cluster) => cluster.put(entry, now).await,
        }
    }

    /// The same of many, in their order; what became of each.
    pub async fn put_all(
        &self,
        entries: Vec<Entry>,
        now: Instant,
    ) -> Vec<Result<Receipt, NotStored>> {
        match self {
            Self::Memory(memory) => {
                let put = |entry| memory.put(entry, now);
                entries.into_iter().map(put).collect()
            }
            Self::Log(log) => log.put_all(entries, now).await,
            Self::Cluster(cluster) => cluster.put_all(entries, now).await,
        }
    }

    /// Whether an entry is one that is ever taken, whatever is before it.
    ///
    /// # Errors
    ///
    /// [`NotStored::TooLarge`] if it does not fit.
    pub fn check_size(&self, entry: &Entry) -> Result<(), NotStored> {
        match self {
            Self::Memory(_) | Self::Log(_) => Ok(()),
            Self::Cluster(cluster) => cluster.check_size(entry),
        }
    }

    /// How long an event is kept.
    #[must_use]
    pub fn keeps_for(&self) -> Duration {
        let age = self.hub().retention().age;
        match self {
            Self::Memory(_) => age,
            Self::Cluster(cluster) => cluster.age().map_or(age, |kept| age.max(kept)),
            Self::Log(log) => age.max(log.age()),
        }
    }

    /// How many entries are best put in at once: in memory few, so that readers get their turn, as the ring is
    /// their queue; else as many as make a write worth it, and no more than half of what a ring holds.
    #[must_use]
    pub fn batch(&self) -> usize {
        match self {
            Self::Memory(_) => 32,
            Self::Cluster(cluster) => (cluster.hub().retention().events / 2).clamp(32, 500),
            Self::Log(log) => (log.hub().retention().events / 2).clamp(32, 1000),
        }
    }

    /// Keeps what was put in, and takes nothing more.
    pub async fn close(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Log(log) => log.close().await,
            Self::Cluster(cluster) => cluster.close().await,
        }
    }

    /// Has events go out whose turn has come, in topics with an interval, for as long as it is polled.
    pub async fn keep_pace(&self) {
        let hub = self.hub();
        loop {
            hub.until_turn().await;
            if let Self::Cluster(cluster) = self {
                // One edge of all does it, unless it does not.
                tokio::time::sleep(cluster.pause_before_turns()).await;
            }
            let now = clock::now();
            // The ring is the readers' queue: what is due goes out in parts that it holds a few of.
            let most = (hub.retention().events / 8).clamp(8, 256);
            let due = hub.due(now, most);
            let is_all = due.len() < most;
            match self {
                Self::Memory(memory) => memory.put_all(due, now),
                // What fails is due again.
                Self::Log(log) => drop(log.put_all(due, now).await),
                Self::Cluster(cluster) => drop(cluster.put_all(due, now).await),
            }
            if !is_all {
                tokio::time::sleep(BREATH).await;
            }
        }
    }

    /// Finds what the rings do not hold any more; `None` when it is kept nowhere.
    pub async fn read(&self, ask: Ask) -> Option<Found> {
        match self {
            Self::Log(log) => log.read(ask).await,
            Self::Cluster(cluster) => cluster.read(ask).await,
            // What has left the rings is gone.
            Self::Memory(_) => None,
        }
    }
}
