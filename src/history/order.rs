//! The one order, whatever keeps it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{NotStored, Receipt, memory::Memory};
use crate::clock;
use crate::hub::{Ask, Entry, Found, Hub, HubBounds, Retention, TopicRules};

/// How long readers have to take what went out at once.
const BREATH: Duration = Duration::from_millis(1);

/// The one order of entries. An enum rather than a trait object: each event goes through it.
#[derive(Debug)]
pub enum Order {
    /// Gone with the process.
    Memory(Memory),
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

    /// The hub that applies what is put in.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        match self {
            Self::Memory(memory) => memory.hub(),
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
        }
    }

    /// Has events go out whose turn has come, in topics with an interval, for as long as it is polled.
    pub async fn keep_pace(&self) {
        let hub = self.hub();
        loop {
            hub.until_turn().await;
            let now = clock::now();
            // The ring is the readers' queue: what is due goes out in parts that it holds a few of.
            let most = (hub.retention().events / 8).clamp(8, 256);
            let due = hub.due(now, most);
            let is_all = due.len() < most;
            match self {
                Self::Memory(memory) => memory.put_all(due, now),
            }
            if !is_all {
                tokio::time::sleep(BREATH).await;
            }
        }
    }

    /// Finds what the rings do not hold any more; `None` when it is kept nowhere.
    pub async fn read(&self, _ask: Ask) -> Option<Found> {
        match self {
            // What has left the rings is gone.
            Self::Memory(_) => None,
        }
    }
}
