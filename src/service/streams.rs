//! Who is connected: every open event stream, for operators to see and to end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crate::{
    access::{Identity, Name},
    hub::mailbox::Mailbox,
    protocol::Protocol,
    topic::Topic,
};

/// Every open event stream.
#[derive(Debug, Default)]
pub struct Streams {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<StreamInfo>>>,
}

/// What is known of an open event stream.
#[derive(Debug)]
pub struct StreamInfo {
    pub identity: Arc<Identity>,
    /// The topics it named.
    pub topics: Box<[Topic]>,
    /// Over what it came.
    pub protocol: Protocol,
    /// From where.
    pub remote: SocketAddr,
    /// Since when.
    pub since: SystemTime,
    /// Its place in its connection's mailbox.
    pub mailbox: Arc<Mailbox>,
    pub key: u32,
    /// How many events it was given.
    settled: AtomicU64,
    ended: AtomicBool,
}

/// Which streams are asked for.
#[derive(Debug, Default)]
pub struct Filter {
    pub user: Option<String>,
    /// Of members of this group.
    pub group: Option<String>,
    /// That named this topic.
    pub topic: Option<String>,
    /// Over this protocol.
    pub protocol: Option<Protocol>,
}

impl Filter {
    fn takes(&self, info: &StreamInfo) -> bool {
        let is = |own: &Name, asked: &String| own.as_str() == asked;
        let user = info.identity.user();
        self.user
            .as_ref()
            .is_none_or(|asked| user.is_some_and(|own| is(own, asked)))
            && self
                .group
                .as_ref()
                .is_none_or(|asked| info.identity.groups().iter().any(|own| is(own, asked)))
            && self
                .topic
                .as_ref()
                .is_none_or(|asked| info.topics.iter().any(|own| own.as_str() == asked))
            && self.protocol.is_none_or(|asked| info.protocol == asked)
    }
}

/// A stream's place among the open ones; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Registration {
    streams: Arc<Streams>,
    id: u64,
    info: Arc<StreamInfo>,
}

impl StreamInfo {
    pub(super) fn new(
        identity: Arc<Identity>,
        topics: Box<[Topic]>,
        protocol: Protocol,
        remote: SocketAddr,
        since: SystemTime,
        (mailbox, key): (Arc<Mailbox>, u32),
    ) -> Self {
        Self {
            identity,
            topics,
            protocol,
            remote,
            since,
            mailbox,
            key,
            settled: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// How many events wait for it.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let addressed = self.mailbox.addressed(self.key);
        addressed.saturating_sub(self.settled.load(Ordering::Relaxed))
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.mailbox.nudge(self.key);
    }
}

impl Streams {
    pub(super) fn register(self: &Arc<Self>, info: StreamInfo) -> Registration {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let info = Arc::new(info);
        self.lock().insert(id, info.clone());
        Registration {
            streams: self.clone(),
            id,
            info,
        }
    }

    /// The streams after `after` that the filter takes, by id, at most `limit`.
    #[must_use]
    pub fn list(&self, after: u64, limit: usize, filter: &Filter) -> Vec<(u64, Arc<StreamInfo>)> {
        let open = self.lock();
        let later = open.range(after.saturating_add(1)..);
        let taken = later.filter(|(_, info)| filter.takes(info)).take(limit);
        taken.map(|(id, info)| (*id, info.clone())).collect()
    }

    /// Ends every stream that `ends` says.
    pub(super) fn end_where(&self, ends: impl Fn(&StreamInfo) -> bool) {
        let all: Vec<Arc<StreamInfo>> = self.lock().values().cloned().collect();
        all.iter()
            .filter(|info| ends(info))
            .for_each(|info| info.end());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<StreamInfo>>> {
        self.open.lock().expect("no holder of this lock panics")
    }
}

impl Registration {
    /// Whether the stream was ended because of what its owner may not read any more.
    pub(super) fn is_ended(&self) -> bool {
        self.info.ended.load(Ordering::Acquire)
    }

    pub(super) fn settled(&self, events: u64) {
        self.info.settled.store(events, Ordering::Relaxed);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.id);
    }
}
