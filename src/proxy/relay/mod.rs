//! The app's own event streams, made resilient: an edge reads them event by event, numbers events that
//! have no id, keeps some of them for browsers that come back, and goes on when the app has started
//! anew.
//!
//! A feed is one event stream of an app, and a topic of a hub of the relay's own, whose names nobody else
//! can ask for.

mod events;
mod feed;
mod id;
mod source;
mod stream;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_lc_rs::digest::{Context as Digest, SHA256};
use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use http::{HeaderMap, StatusCode, header, uri::PathAndQuery};

use super::{
    asking::{Answer, Asking, Errand, LAST_EVENT_ID},
    route::plain_host,
    table::Route,
};
use crate::{
    access::Name,
    clock,
    exchange::{Beat, Body, Peer, Reply},
    history::Order,
    hub::{Hub, HubBounds, Resume, Retention, TopicRules},
    limits::{Bound, Limit},
    sse,
};
use feed::Feed;
use id::Token;
use source::{Progress, Source, gap};
use stream::RelayStream;

pub(in crate::proxy) use events::Ends;

/// `[relay]`
#[derive(Clone, Copy, Debug)]
pub struct RelaySettings {
    /// `relay.linger`
    pub linger: Duration,
    /// `relay.patience`
    pub patience: Duration,
    /// `relay.bytes`
    pub bytes: usize,
    /// How much of all event streams is kept together. It follows from `limits.memory`.
    pub total_bytes: usize,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(30),
            patience: Duration::from_secs(60),
            bytes: 256 << 10,
            total_bytes: 256 << 20,
        }
    }
}

/// How long events of a feed are kept.
const AGE: Duration = Duration::from_secs(3600);
/// The most that readers get of what came before they were let in.
const WHOLE: usize = 10_000;

/// What a browser's stream takes beside its feed.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Visit {
    pub(in crate::proxy) peer: Peer,
    pub(in crate::proxy) chromium: bool,
    pub(in crate::proxy) pace: Pace,
}

/// The times of one event stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long it may be quiet.
    pub keepalive: Duration,
    /// How long an `EventSource` waits that was cut.
    pub retry: Duration,
    /// How long one waits that cannot be served now.
    pub long_retry: Duration,
}

/// All feeds.
#[derive(Debug)]
pub(in crate::proxy) struct Relays {
    settings: RelaySettings,
    asking: Arc<Asking>,
    order: Arc<Order>,
    private: Mutex<HashMap<Token, Private>>,
    shared: Mutex<HashMap<SharedKey, Opened>>,
    /// Feeds that wait for their readers hold it too.
    lingering: Arc<()>,
}

/// A feed of one visitor.
#[derive(Debug)]
struct Private {
    feed: Arc<Feed>,
    claim: Claim,
}

/// Who may come back to a private feed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    target: Box<str>,
    /// Of the route, the cookies and the authorization.
    digest: [u8; 32],
    user: Option<Name>,
}

/// What those ask for who share a feed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SharedKey {
    /// Its address, which stays what it is.
    route: usize,
    host: Box<str>,
    target: Box<str>,
}

type Opened = Shared<BoxFuture<'static, Result<Arc<Feed>, Refused>>>;

/// Why there is no feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// For now.
    ForNow(Option<Duration>),
    /// The app has said so.
    Status(StatusCode),
}

impl Relays {
    pub(in crate::proxy) fn new(settings: RelaySettings, asking: Arc<Asking>) -> Self {
        let retention = Retention {
            age: AGE,
            topic_bytes: settings.bytes,
            total_bytes: settings.total_bytes,
            duplicates: 0,
            ..Retention::default()
        };
        let bounds = HubBounds {
            unread_bytes: asking.limits.unread_bytes.value,
            ..HubBounds::default()
        };
        Self {
            settings,
            asking,
            order: Arc::new(Order::in_memory(
                retention,
                TopicRules::default(),
                bounds,
                fastrand::u64(..),
            )),
            private: Mutex::default(),
            shared: Mutex::default(),
            lingering: Arc::default(),
        }
    }

    pub(in crate::proxy) fn hub(&self) -> &Arc<Hub> {
        self.order.hub()
    }

    /// Goes on with the feed of a browser that has come back, if it is still there and the browser's.
    pub(in crate::proxy) fn resume(
        &self,
        route: &Arc<Route>,
        errand: &Errand,
        visit: &Visit,
    ) -> Option<Reply> {
        let id = last_event_id(&errand.fields)?;
        let token = Token::of_id(id)?;
        let claim = Claim::of(route, errand);
        let feed = {
            let private = self.private();
            let known = private.get(&token)?;
            (known.claim == claim && !known.feed.is_over()).then(|| known.feed.clone())?
        };
        Some(self.read(&feed, Resume::After(id), visit, Bytes::new(), None))
    }

    /// Takes an id of the relay's out of a request, which the app would not know. Whether there was one.
    pub(in crate::proxy) fn take_id(errand: &mut Errand) -> bool {
        let own = last_event_id(&errand.fields).is_some_and(|id| Token::of_id(id).is_some());
        if own {
            errand.fields.remove(LAST_EVENT_ID);
        }
        own
    }

    /// Relays an answer to one visitor, who may have come back with an id of a feed that is no more.
    pub(in crate::proxy) fn relay(
        self: &Arc<Self>,
        route: &Arc<Route>,
        errand: Errand,
        answer: Answer,
        mut head: HeaderMap,
        came_back: bool,
        visit: &Visit,
    ) -> Reply {
        let feed = Feed::new(new_token(), visit.pace.retry);
        let gap = if came_back {
            // What it had came from a feed that is no more, and the app knows nothing of such ids.
            gap("unknown").finish_without_id()
        } else {
            Bytes::new()
        };
        let claim = Claim::of(route, &errand);
        head.remove(header::CONTENT_LENGTH);
        let reply = self.read(&feed, Resume::Live, visit, gap, Some(head));
        if !matches!(reply.body, Body::Events(_)) {
            return reply;
        }
        let known = Private {
            feed: feed.clone(),
            claim,
        };
        self.private().insert(feed.token, known);
        self.clone()
            .spawn(feed, route.clone(), errand, answer, None);
        reply
    }

    /// Reads the one feed that all share who ask a route for the same. Those who are new may ask for the
    /// `last` events of it first.
    pub(in crate::proxy) async fn share(
        self: &Arc<Self>,
        route: &Arc<Route>,
        mut errand: Errand,
        visit: &Visit,
    ) -> Reply {
        let last;
        (errand.target, last) = without_last(errand.target);
        let id = last_event_id(&errand.fields).map(str::to_owned);
        let key = SharedKey {
            route: Arc::as_ptr(route) as usize,
            host: plain_host(errand.host()).into(),
            target: errand.target.as_str().into(),
        };
        let errand = errand.of_nobody();
        loop {
            let (opened, early) = match self.opened(&key, route, &errand, visit) {
                Ok(opened) => opened,
                Err(limit) => return Reply::no_room(visit.pace.long_retry, limit),
            };
            let feed = match opened.await {
                Ok(feed) => feed,
                Err(Refused::ForNow(retry)) => {
                    return Reply::gentle_refusal(retry.unwrap_or(visit.pace.long_retry));
                }
                Err(Refused::Status(status)) => {
                    return Reply::new(status, Body::Full(Bytes::new()));
                }
            };
            if feed.is_over() {
                self.forget(&key, Some(&feed));
                continue;
            }
            let resume = match (&id, last, early) {
                (Some(id), ..) => Resume::After(id),
                (None, Some(last), _) => Resume::Last(last),
                // It was there before the first event.
                (None, None, true) => Resume::Last(WHOLE),
                (None, None, false) => Resume::Live,
            };
            return self.read(&feed, resume, visit, Bytes::new(), None);
        }
    }

    /// The feed of a key, which may be still opening, and whether it is.
    fn opened(
        self: &Arc<Self>,
        key: &SharedKey,
        route: &Arc<Route>,
        errand: &Errand,
        visit: &Visit,
    ) -> Result<(Opened, bool), Limit> {
        let mut shared = self.shared();
        if let Some(opened) = shared.get(key) {
            return Ok((opened.clone(), opened.peek().is_none()));
        }
        let Bound { value, limit } = self.asking.limits.relay_shared;
        if shared.len() >= value {
            return Err(limit);
        }
        let (relays, route, key_of_it) = (self.clone(), route.clone(), key.clone());
        let (errand, retry) = (errand.again(errand.fields.clone()), visit.pace.retry);
        let opening = async move {
            let answer = relays.asking.ask_any(&route, &errand).await;
            let answer = answer.map_err(|_| Refused::ForNow(None))?;
            if answer.is_passing() {
                return Err(Refused::ForNow(answer.retry_after()));
            }
            if !answer.is_plain_event_stream() {
                return Err(Refused::Status(answer.response.status()));
            }
            let feed = Feed::new(new_token(), retry);
            relays.spawn(feed.clone(), route, errand, answer, Some(key_of_it));
            Ok(feed)
        };
        let opened = opening.boxed().shared();
        shared.insert(key.clone(), opened.clone());
        // It comes to its end though all who wait for it may leave.
        let (relays, key, whole) = (self.clone(), key.clone(), opened.clone());
        tokio::spawn(async move {
            if whole.await.is_err() {
                relays.forget(&key, None);
            }
        });
        Ok((opened, true))
    }

    /// Forgets a shared feed: that one, or one that could not be opened.
    fn forget(&self, key: &SharedKey, feed: Option<&Arc<Feed>>) {
        let mut shared = self.shared();
        let is_it = shared
            .get(key)
            .is_some_and(|opened| match (opened.peek(), feed) {
                (Some(Ok(known)), Some(feed)) => Arc::ptr_eq(known, feed),
                (Some(Err(_)), None) => true,
                _ => false,
            });
        if is_it {
            shared.remove(key);
        }
    }

    /// A browser's stream of a feed, which says `first` before anything else.
    fn read(
        &self,
        feed: &Arc<Feed>,
        resume: Resume<'_>,
        visit: &Visit,
        first: Bytes,
        head: Option<HeaderMap>,
    ) -> Reply {
        let place = match visit.peer.take_place(visit.chromium, &self.asking.limits) {
            Ok(place) => place,
            Err(limit) => return Reply::no_room(visit.pace.long_retry, limit),
        };
        let now = clock::now();
        let topics = [feed.topic.clone()];
        let mailbox = &visit.peer.mailbox;
        let subscribed = self.hub().subscribe(&topics, resume, mailbox, now);
        let Ok((subscription, _)) = subscribed else {
            return Reply::no_room(visit.pace.long_retry, Limit::Topics);
        };
        let mut opening = sse::retry(feed.retry()).into_bytes();
        opening.extend_from_slice(&first);
        let beat = Beat::of(subscription.handle(), visit.pace.keepalive, now);
        let stream = RelayStream {
            reader: feed.join(subscription.handle()),
            subscription,
            opening: Some(opening.into()),
            keepalive: visit.pace.keepalive,
            beat,
            ending: None,
            keepalives: self.asking.metrics.keepalives.clone(),
            _place: place,
            _open: self.asking.metrics.relayed.guard(visit.peer.protocol),
        };
        let reply = Reply::new(StatusCode::OK, Body::Events(Box::new(stream)));
        match head {
            Some(headers) => Reply { headers, ..reply },
            None => reply.into_event_stream(),
        }
    }

    /// Reads an app's answer into its feed until it has ended or nobody wants it.
    fn spawn(
        self: Arc<Self>,
        feed: Arc<Feed>,
        route: Arc<Route>,
        errand: Errand,
        answer: Answer,
        shared: Option<SharedKey>,
    ) {
        tokio::spawn(async move {
            let is_private = shared.is_none();
            let mut source = Source {
                asking: self.asking.clone(),
                order: self.order.clone(),
                patience: self.settings.patience,
                feed: feed.clone(),
                route,
                errand,
                said: Progress::default(),
            };
            // Who comes back with an id of the app's is the app's to serve.
            let linger = || {
                if is_private && feed.has_ids() {
                    return Duration::ZERO;
                }
                self.settings.linger
            };
            tokio::select! {
                () = source.run(answer) => {}
                () = feed.abandoned(&self.lingering, linger) => {}
            }
            drop(source);
            feed.end();
            match &shared {
                Some(key) => self.forget(key, Some(&feed)),
                None => drop(self.private().remove(&feed.token)),
            }
            // Those who are still there read on; then its events go.
            feed.abandoned(&self.lingering, || Duration::ZERO).await;
            let gone = crate::hub::Entry::Delete(feed.topic.clone());
            let _nobody_reads_it: Result<_, _> = self.order.put(gone, clock::now()).await;
        });
    }

    fn private(&self) -> MutexGuard<'_, HashMap<Token, Private>> {
        self.private.lock().expect("no holder of this lock panics")
    }

    fn shared(&self) -> MutexGuard<'_, HashMap<SharedKey, Opened>> {
        self.shared.lock().expect("no holder of this lock panics")
    }
}

impl Claim {
    fn of(route: &Arc<Route>, errand: &Errand) -> Self {
        let mut digest = Digest::new(&SHA256);
        digest.update(&(Arc::as_ptr(route) as usize).to_be_bytes());
        for name in [header::COOKIE, header::AUTHORIZATION] {
            for value in errand.fields.get_all(name) {
                digest.update(&(value.len() as u64).to_be_bytes());
                digest.update(value.as_bytes());
            }
            // So that one cannot pass for the other.
            digest.update(&u64::MAX.to_be_bytes());
        }
        let digest = digest.finish();
        Self {
            target: errand.target.as_str().into(),
            digest: digest.as_ref().try_into().expect("it has 32 bytes"),
            user: errand
                .identity()
                .and_then(|identity| identity.user().cloned()),
        }
    }
}

/// A token that nobody guesses.
fn new_token() -> Token {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).expect("the system has random numbers");
    Token::new(random)
}

fn last_event_id(fields: &HeaderMap) -> Option<&str> {
    fields.get(LAST_EVENT_ID)?.to_str().ok()
}

/// What is asked for without the `last` of its query, which is the edge's to answer.
fn without_last(target: PathAndQuery) -> (PathAndQuery, Option<usize>) {
    let Some(query) = target.query() else {
        return (target, None);
    };
    let number = |pair: &str| {
        pair.strip_prefix("last=")
            .and_then(|n| n.parse::<usize>().ok())
    };
    let last = query.split('&').find_map(number);
    let rest: Vec<&str> = query
        .split('&')
        .filter(|pair| number(pair).is_none())
        .collect();
    let mut text = target.path().to_owned();
    if !rest.is_empty() {
        text.push('?');
        text.push_str(&rest.join("&"));
    }
    (text.parse().unwrap_or(target), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_is_for_the_edge() {
        let split = |target: &str| {
            let (target, last) = without_last(target.parse().expect("a target"));
            (target.to_string(), last)
        };
        assert_eq!(split("/a"), ("/a".into(), None));
        assert_eq!(split("/a?last=5"), ("/a".into(), Some(5)));
        assert_eq!(split("/a?x=%20&last=5&y"), ("/a?x=%20&y".into(), Some(5)));
        assert_eq!(
            split("/a?last=x&blast=2"),
            ("/a?last=x&blast=2".into(), None)
        );
    }
}
