//! Who is connected: every open event stream, for operators to see and to end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use http::{HeaderMap, header};

use crate::{
    access::{Identity, Name},
    exchange::Peer,
    hub::mailbox::Mailbox,
    limits::{Bound, Limit, count_out, digest},
    protocol::Protocol,
    topic::Topic,
};

/// Every open event stream.
#[derive(Debug, Default)]
pub struct Streams {
    next: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_id: BTreeMap<u64, Arc<StreamInfo>>,
    /// How many each user has. Invariant: none is 0.
    of_users: HashMap<Name, usize>,
    /// The same of browsers over HTTP/1.1.
    of_browsers: HashMap<Browser, usize>,
}

/// So many event streams of a browser over HTTP/1.1 are one less than the connections that it has.
pub(super) const CROWD: usize = 5;

/// A browser that comes over HTTP/1.1, as far as browsers of one address are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Browser {
    address: IpAddr,
    user_agent: u64,
}

impl Browser {
    /// The one that asks, if it is one, and the connection is its own.
    pub(super) fn of(peer: &Peer, fields: &HeaderMap) -> Option<Self> {
        let user_agent = fields.get(header::USER_AGENT)?.as_bytes();
        let is_one = user_agent.starts_with(b"Mozilla/");
        let counts = is_one && peer.protocol == Protocol::Http1 && !peer.by_proxy;
        counts.then(|| Self {
            address: peer.remote.ip(),
            user_agent: digest(user_agent),
        })
    }
}

/// Whether a browser comes to have so many streams that it will have no connection left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowd {
    Begins,
    No,
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
    /// If it is one over HTTP/1.1.
    browser: Option<Box<Browser>>,
    /// How many events it was given.
    settled: AtomicU64,
    /// An [`Ended`], or 0.
    ended: AtomicU8,
}

/// Why a stream was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A rule had let it in by a group that its client is not in any more.
    Membership = 1,
    /// The app does not say of its client any more what it said.
    Login = 2,
    /// An operator said so.
    Operator = 3,
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
        browser: Option<Browser>,
    ) -> Self {
        Self {
            identity,
            topics,
            protocol,
            remote,
            since,
            mailbox,
            key,
            browser: browser.map(Box::new),
            settled: AtomicU64::new(0),
            ended: AtomicU8::new(0),
        }
    }

    /// How many events wait for it.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let addressed = self.mailbox.addressed(self.key);
        addressed.saturating_sub(self.settled.load(Ordering::Relaxed))
    }

    fn end(&self, why: Ended) {
        self.ended.store(why as u8, Ordering::Release);
        self.mailbox.nudge(self.key);
    }
}

impl Streams {
    /// Counts a stream in, of which a user may have as many as `of_user` says.
    ///
    /// # Errors
    ///
    /// The limit, when the user has so many.
    pub(super) fn register(
        self: &Arc<Self>,
        info: StreamInfo,
        of_user: Bound<usize>,
    ) -> Result<(Registration, Crowd), Limit> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let info = Arc::new(info);
        let mut open = self.lock();
        if let Some(user) = info.identity.user() {
            let own = open.of_users.entry(user.clone()).or_default();
            if *own >= of_user.value {
                return Err(of_user.limit);
            }
            *own += 1;
        }
        let mut crowd = Crowd::No;
        if let Some(browser) = &info.browser {
            let own = open.of_browsers.entry(**browser).or_default();
            *own += 1;
            if *own == CROWD {
                crowd = Crowd::Begins;
            }
        }
        open.by_id.insert(id, info.clone());
        drop(open);
        let registration = Registration {
            streams: self.clone(),
            id,
            info,
        };
        Ok((registration, crowd))
    }

    /// The streams after `after` that the filter takes, by id, at most `limit`.
    #[must_use]
    pub fn list(&self, after: u64, limit: usize, filter: &Filter) -> Vec<(u64, Arc<StreamInfo>)> {
        let open = self.lock();
        let later = open.by_id.range(after.saturating_add(1)..);
        let taken = later.filter(|(_, info)| filter.takes(info)).take(limit);
        taken.map(|(id, info)| (*id, info.clone())).collect()
    }

    /// Ends the stream with this id; `false` when there is none.
    pub(super) fn end(&self, id: u64, why: Ended) -> bool {
        let info = self.lock().by_id.get(&id).cloned();
        info.inspect(|info| info.end(why)).is_some()
    }

    /// The users with open streams of whose identities `is` says so.
    pub(super) fn users_where(&self, is: impl Fn(&Identity) -> bool) -> BTreeSet<Name> {
        let open = self.lock();
        let identities = open.by_id.values().map(|info| &*info.identity);
        let users = identities.filter(|identity| is(identity));
        users.filter_map(Identity::user).cloned().collect()
    }

    /// Ends every stream that `ends` says.
    pub(super) fn end_where(&self, why: Ended, ends: impl Fn(&StreamInfo) -> bool) {
        let all: Vec<Arc<StreamInfo>> = self.lock().by_id.values().cloned().collect();
        all.iter()
            .filter(|info| ends(info))
            .for_each(|info| info.end(why));
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("no holder of this lock panics")
    }
}

impl Registration {
    /// Why the stream was ended, if it was.
    pub(super) fn ended(&self) -> Option<Ended> {
        let ended = self.info.ended.load(Ordering::Acquire);
        let all = [Ended::Membership, Ended::Login, Ended::Operator];
        all.into_iter().find(|why| *why as u8 == ended)
    }

    /// Whether the app does not say of its owner any more, by which they were known.
    pub(super) fn is_over(&self) -> bool {
        self.info.identity.is_over()
    }

    pub(super) fn settled(&self, events: u64) {
        self.info.settled.store(events, Ordering::Relaxed);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.by_id.remove(&self.id);
        if let Some(user) = self.info.identity.user() {
            count_out(&mut open.of_users, user);
        }
        if let Some(browser) = &self.info.browser {
            count_out(&mut open.of_browsers, browser);
        }
    }
}
