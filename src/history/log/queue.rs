//! What publishers hand to the thread that writes: a queue with a bound.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    history::{NotStored, Receipt, record::Encoded},
    hub::Entry,
};

/// How much may wait, in KiB: an entry counts at least as one.
const ROOM: u32 = 4096;
/// How long a publisher waits for room.
const PATIENCE: Duration = Duration::from_secs(2);

/// An entry on its way.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) entry: Entry,
    pub(super) encoded: Encoded,
    /// When it was handed over.
    pub(super) at: Instant,
}

/// What becomes of each entry of a batch.
pub(super) type Answers = Vec<Result<Receipt, NotStored>>;

/// Entries that become part of one commit, in their order.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) answer: oneshot::Sender<Answers>,
    /// Given back when all is done.
    pub(super) room: OwnedSemaphorePermit,
}

/// What is there for the thread that writes.
#[derive(Debug)]
pub(super) enum News {
    Batches(VecDeque<Batch>),
    /// Nothing by the time that it asked for.
    Nothing,
    /// Nothing more is to come.
    Closed,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    news: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            news: Condvar::new(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
        }
    }

    /// What an entry counts, in bytes.
    fn cost(encoded: &Encoded) -> usize {
        (encoded.body.len() + 256).max(1024)
    }

    /// Hands a batch over, once there is room for it. Dropped before, nothing was handed over.
    pub(super) async fn push(
        &self,
        items: Vec<Item>,
    ) -> Result<oneshot::Receiver<Answers>, NotStored> {
        let bytes: usize = items.iter().map(|item| Self::cost(&item.encoded)).sum();
        let kib = u32::try_from(bytes >> 10).unwrap_or(ROOM).clamp(1, ROOM);
        let room = self.room.clone().acquire_many_owned(kib);
        let room = match tokio::time::timeout(PATIENCE, room).await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(NotStored::Ending),
            Err(_) => return Err(NotStored::Busy),
        };
        let (answer, answers) = oneshot::channel();
        let mut state = self.lock();
        if state.is_closed {
            return Err(NotStored::Ending);
        }
        state.batches.push_back(Batch {
            items,
            answer,
            room,
        });
        drop(state);
        self.news.notify_one();
        Ok(answers)
    }

    /// What is there, waited for until a moment. For one thread.
    pub(super) fn take(&self, now: Instant, until: Instant) -> News {
        let mut state = self.lock();
        let wait = until.saturating_duration_since(now);
        if state.batches.is_empty() && !state.is_closed {
            let is_idle = |state: &mut State| state.batches.is_empty() && !state.is_closed;
            let waited = self.news.wait_timeout_while(state, wait, is_idle);
            state = waited.expect("no holder of this lock panics").0;
        }
        if !state.batches.is_empty() {
            return News::Batches(std::mem::take(&mut state.batches));
        }
        if state.is_closed {
            News::Closed
        } else {
            News::Nothing
        }
    }

    /// Nothing more is taken; what is there is written yet.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.room.close();
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}
