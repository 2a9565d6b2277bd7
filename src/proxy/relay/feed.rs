//! One event stream of an app, and who reads it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use slab::Slab;
use tokio::sync::Notify;

use super::id::Token;
use crate::{
    hub::{StreamHandle, mailbox::Mailbox},
    topic::Topic,
};

/// How many feeds may wait for their readers to come back.
const LINGERING: usize = 1000;

/// One event stream of an app. Its events are a topic of the relay's own hub.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) token: Token,
    pub(super) topic: Topic,
    readers: Mutex<Slab<(Arc<Mailbox>, u32)>>,
    /// A reader has come or gone.
    changed: Notify,
    over: AtomicBool,
    /// What the app tells its clients to wait, in milliseconds.
    retry: AtomicU64,
    /// Its events have ids of the app's.
    has_ids: AtomicBool,
}

/// Reads a feed while it lives.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) feed: Arc<Feed>,
    key: usize,
}

impl Feed {
    pub(super) fn new(token: Token, retry: Duration) -> Arc<Self> {
        Arc::new(Self {
            token,
            topic: Topic::reserved("relay:", &token.to_string()),
            readers: Mutex::default(),
            changed: Notify::new(),
            over: AtomicBool::new(false),
            retry: AtomicU64::new(retry.as_millis() as u64),
            has_ids: AtomicBool::new(false),
        })
    }

    /// Has a stream told of its end.
    pub(super) fn join(self: &Arc<Self>, handle: &StreamHandle) -> Reader {
        let key = self
            .readers()
            .insert((handle.mailbox().clone(), handle.key()));
        self.changed.notify_one();
        Reader {
            feed: self.clone(),
            key,
        }
    }

    /// Nothing more comes: its readers end once they have what there is.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        for (_, (mailbox, key)) in self.readers().iter() {
            mailbox.nudge(*key);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(super) fn retry(&self) -> Duration {
        Duration::from_millis(self.retry.load(Ordering::Relaxed))
    }

    pub(super) fn set_retry(&self, retry: Duration) {
        let retry = retry.as_millis() as u64;
        self.retry.store(retry, Ordering::Relaxed);
    }

    pub(super) fn has_ids(&self) -> bool {
        self.has_ids.load(Ordering::Relaxed)
    }

    pub(super) fn set_has_ids(&self) {
        self.has_ids.store(true, Ordering::Relaxed);
    }

    /// Waits until nobody has read it for as long as `linger` says when the last one leaves, or for no
    /// time if too many wait: whoever opens and leaves streams all the time would have the app serve them
    /// all.
    pub(super) async fn abandoned(&self, lingering: &Arc<()>, linger: impl Fn() -> Duration) {
        loop {
            let changed = self.changed.notified();
            if !self.readers().is_empty() {
                changed.await;
                continue;
            }
            // Whoever waits holds it, and its owner.
            let _waits = lingering.clone();
            let others = Arc::strong_count(lingering) - 2;
            let wait = if others < LINGERING {
                linger()
            } else {
                Duration::ZERO
            };
            let came = tokio::time::timeout(wait, changed).await;
            if came.is_err() && self.readers().is_empty() {
                return;
            }
        }
    }

    fn readers(&self) -> MutexGuard<'_, Slab<(Arc<Mailbox>, u32)>> {
        self.readers.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.feed.readers().remove(self.key);
        self.feed.changed.notify_one();
    }
}
