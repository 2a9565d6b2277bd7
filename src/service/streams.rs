//! Who is connected: every open event stream, for operators to see and to end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use http::{HeaderMap, header};

use super::{
    members::{Members, Moment},
    presence::{Change, Presence, Readers},
};
use crate::{
    access::{Access, Identity, Name},
    clock,
    exchange::Peer,
    hub::{Belonging, mailbox::Mailbox},
    limits::{Bound, Limit, count_out, digest},
    protocol::Protocol,
    topic::Topic,
};

/// Every open event stream.
#[derive(Debug)]
pub struct Streams {
    next: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    by_id: BTreeMap<u64, Arc<StreamInfo>>,
    /// Who has some, and since when they are what they are.
    members: Members,
    /// Who reads topics of which that is told.
    presence: Presence,
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
    /// What few have.
    few: Option<Box<Few>>,
    /// How many events it was given.
    settled: AtomicU64,
    /// An [`Ended`], or 0.
    ended: AtomicU8,
}

/// What is known of few streams.
#[derive(Debug, Default)]
pub(super) struct Few {
    /// Whose it is, if it is one over HTTP/1.1.
    pub(super) browser: Option<Browser>,
    /// Those of its topics of which it is told who reads them.
    pub(super) told: Box<[Topic]>,
    /// The app has let it in, and no rule.
    pub(super) is_by_app: bool,
}

impl Few {
    /// These, unless they say nothing.
    fn boxed(self) -> Option<Box<Self>> {
        let says = self.browser.is_some() || !self.told.is_empty() || self.is_by_app;
        says.then(|| Box::new(self))
    }
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
        few: Few,
    ) -> Self {
        Self {
            identity,
            topics,
            protocol,
            remote,
            since,
            mailbox,
            key,
            few: few.boxed(),
            settled: AtomicU64::new(0),
            ended: AtomicU8::new(0),
        }
    }

    /// Those of its topics of which it is told who reads them.
    fn told(&self) -> &[Topic] {
        self.few.as_ref().map_or(&[], |few| &few.told)
    }

    /// Whether the app has let it in, and no rule.
    pub(super) fn is_by_app(&self) -> bool {
        self.few.as_ref().is_some_and(|few| few.is_by_app)
    }

    fn browser(&self) -> Option<Browser> {
        self.few.as_ref()?.browser
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
    /// None are open; it is settled from this moment on since when those who come are what they are.
    #[must_use]
    pub fn new(settled: Instant) -> Self {
        Self {
            next: AtomicU64::new(0),
            open: Mutex::new(Open {
                by_id: BTreeMap::new(),
                members: Members::new(settled),
                presence: Presence::default(),
                of_browsers: HashMap::new(),
            }),
        }
    }

    /// Since when somebody who comes is what they are, of all that they have not been from the beginning.
    pub(super) fn meet(&self, identity: &Identity, moment: Moment) -> Vec<Belonging> {
        self.lock().members.meet(identity, moment)
    }

    /// Who reads a topic of which that is told.
    pub(super) fn readers(&self, topic: &Topic, after: Option<&Name>, most: usize) -> Readers {
        self.lock().presence.of(topic, after, most)
    }

    /// Who has come and gone since this was asked last, by topic.
    pub(super) fn presence_changes(&self) -> Vec<Change> {
        self.lock().presence.changes()
    }

    /// Counts a stream in, of which a user may have as many as `of_user` says. Who was not met is what they are
    /// since `place`.
    ///
    /// # Errors
    ///
    /// The limit, when the user has so many.
    pub(super) fn register(
        self: &Arc<Self>,
        info: StreamInfo,
        of_user: Bound<usize>,
        place: u64,
    ) -> Result<(Registration, Crowd), Limit> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let info = Arc::new(info);
        let mut open = self.lock();
        if let Some(user) = info.identity.user()
            && open.members.streams(user) >= of_user.value
        {
            return Err(of_user.limit);
        }
        open.members.enter(&info.identity, place);
        open.presence.enter(info.told(), info.identity.user());
        let mut crowd = Crowd::No;
        if let Some(browser) = info.browser() {
            let own = open.of_browsers.entry(browser).or_default();
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

    /// Ends every stream that `ends` says; how many.
    pub(super) fn end_where(&self, why: Ended, ends: impl Fn(&StreamInfo) -> bool) -> usize {
        let all: Vec<Arc<StreamInfo>> = self.lock().by_id.values().cloned().collect();
        let ended = all.iter().filter(|info| ends(info));
        ended.inspect(|info| info.end(why)).count()
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

    /// Ends it if its owner is not any more who they were, or may not read it any more by rules that had let it in
    /// when so many had been taken out of groups.
    pub(super) fn end_if_over(&self, access: &Access, removals: Option<u64>) {
        let info = &self.info;
        if access.is_over(&info.identity) {
            return info.end(Ended::Login);
        }
        let have_changed = removals.is_some_and(|removals| removals != access.removals());
        if have_changed
            && access
                .may_subscribe(&info.identity, info.topics.iter())
                .is_err()
        {
            info.end(Ended::Membership);
        }
    }

    pub(super) fn settled(&self, events: u64) {
        self.info.settled.store(events, Ordering::Relaxed);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.by_id.remove(&self.id);
        open.members.leave(&self.info.identity, clock::now());
        open.presence
            .leave(self.info.told(), self.info.identity.user());
        if let Some(browser) = self.info.browser() {
            count_out(&mut open.of_browsers, &browser);
        }
    }
}
