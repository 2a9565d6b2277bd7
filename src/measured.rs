//! Doors for the benches to what is private otherwise. Nothing else may use them.

use std::{hint::black_box, path::Path, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    access::{Groups, Identity, Member, Name},
    clock,
    history::{LogSettings, Order, SyncPolicy},
    hub::{Entry, HubBounds, Retention, Target, TopicRules},
    proxy::{Facts, HostPattern, PathPattern, find_route, from_app, to_app},
    sse::Draft,
    topic::Topic,
};

/// Groups that are nested in one another, each with users of its own.
#[derive(Debug)]
pub struct NestedGroups {
    groups: Groups,
    outermost: [Name; 1],
}

impl NestedGroups {
    /// So many groups, each with so many users.
    #[must_use]
    pub fn new(groups: usize, users: usize) -> Self {
        let name = |group: usize| Name::parse(&format!("group-{group}")).expect("a name");
        let mut nested = Groups::default();
        for group in 0..groups {
            for user in 0..users {
                let user = Name::parse(&format!("user-{group}-{user}")).expect("a name");
                let added = nested.add(&name(group), Member::User(user));
                added.expect("there is room");
            }
            if group > 0 {
                let added = nested.add(&name(group - 1), Member::Group(name(group)));
                added.expect("there is room, and no circle");
            }
        }
        Self {
            groups: nested,
            outermost: [name(0)],
        }
    }

    /// What the outermost stands for.
    pub fn expand(&self) {
        black_box(self.groups.expand(black_box(&self.outermost)));
    }
}

/// Routes of several hosts.
#[derive(Debug)]
pub struct Routes(Vec<(HostPattern, PathPattern)>);

impl Routes {
    /// Ten hosts with so many paths each.
    #[must_use]
    pub fn new(paths: usize) -> Self {
        let host = |host: usize| HostPattern::parse(&format!("h{host}.example")).expect("a host");
        let path = |path: usize| PathPattern::parse(&format!("/app/{path}/**")).expect("a path");
        let of = |at: usize| (0..paths).map(move |n| (host(at), path(n)));
        Self((0..10).flat_map(of).collect())
    }

    /// Finds the route of a request.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn find(&self, authority: &str, path: &str) {
        let patterns = self.0.iter().map(|(host, path)| (host, path));
        let found = find_route(patterns, black_box(authority), black_box(path));
        black_box(found.expect("there is a route"));
    }
}

/// The header fields of a request as a browser sends it, and of an app's answer.
#[derive(Debug)]
pub struct Fields {
    request: HeaderMap,
    answer: HeaderMap,
    identity: Identity,
}

impl Default for Fields {
    fn default() -> Self {
        const REQUEST: &[(&str, &str)] = &[
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0"),
            ("accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
            ("accept-encoding", "gzip, deflate, br, zstd"),
            ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
            ("cookie", "sid=0123456789abcdef0123456789abcdef; theme=dark"),
            ("referer", "https://shop.example/basket"),
            ("sec-fetch-dest", "empty"),
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-site", "same-origin"),
            ("x-forwarded-for", "203.0.113.1"),
        ];
        const ANSWER: &[(&str, &str)] = &[
            ("content-type", "application/json"),
            ("content-length", "1024"),
            ("cache-control", "no-store"),
            ("set-cookie", "sid=0123456789abcdef; Path=/; HttpOnly"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
        ];
        let fields = |fields: &[(&'static str, &'static str)]| {
            let field = |&(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            };
            fields.iter().map(field).collect()
        };
        let user = Name::parse("alice").expect("a name");
        let groups = vec![Name::parse("staff").expect("a name")];
        Self {
            request: fields(REQUEST),
            answer: fields(ANSWER),
            identity: Identity::authenticated(user, groups, None, None),
        }
    }
}

impl Fields {
    /// What the app is sent for the request, and the client for the answer.
    pub fn exchange(&self) {
        let mut request = self.request.clone();
        let facts = Facts {
            peer: [203, 0, 113, 9].into(),
            trusted: false,
            host: "shop.example",
            send_host: "shop.example",
            request_id: "0123456789abcdef",
            identity: Some(&self.identity),
            body: false,
            http2: false,
        };
        black_box(to_app(&mut request, &facts));
        assert!(request.contains_key(header::HOST));
        let mut answer = self.answer.clone();
        from_app(&mut answer);
        black_box((request, answer));
    }
}

/// The one order, in memory or in a log.
#[derive(Clone, Debug)]
pub struct History {
    order: Arc<Order>,
    topics: Arc<[Topic]>,
}

impl History {
    /// In memory.
    #[must_use]
    pub fn in_memory() -> Self {
        let (retention, rules) = (Retention::default(), TopicRules::default());
        Self::of(Order::in_memory(retention, rules, HubBounds::default(), 7))
    }

    /// In a log that is synced before anything is seen, or so often.
    ///
    /// # Panics
    ///
    /// When it cannot be opened.
    #[must_use]
    pub fn in_log(directory: &Path, sync: Option<Duration>) -> Self {
        let settings = LogSettings {
            directory: directory.to_owned(),
            sync: sync.map_or(SyncPolicy::Always, SyncPolicy::Every),
            bytes: 4 << 30,
            age: Duration::from_secs(3600),
        };
        let (retention, rules) = (Retention::default(), TopicRules::default());
        let order = Order::in_log(&settings, retention, &rules, HubBounds::default());
        Self::of(order.expect("it opens"))
    }

    fn of(order: Order) -> Self {
        let topic = |n: u32| Topic::parse(&format!("bench/{n}")).expect("a topic");
        Self {
            order: Arc::new(order),
            topics: (0..1000).map(topic).collect(),
        }
    }

    fn entry(&self, n: usize, data: &str) -> Entry {
        Entry::Event {
            draft: Draft::new(None, data, None),
            target: Target {
                topics: vec![self.topics[n % self.topics.len()].clone()],
                ..Target::default()
            },
        }
    }

    /// Publishes so many events, one after the other.
    ///
    /// # Panics
    ///
    /// When one is not stored.
    pub async fn publish(&self, events: usize, data: &str) {
        for n in 0..events {
            let receipt = self.order.put(self.entry(n, data), clock::now()).await;
            black_box(receipt.expect("it is stored"));
        }
    }

    /// Publishes so many events at once.
    ///
    /// # Panics
    ///
    /// When one is not stored.
    pub async fn publish_at_once(&self, events: usize, data: &str) {
        let entries = (0..events).map(|n| self.entry(n, data)).collect();
        for receipt in self.order.put_all(entries, clock::now()).await {
            black_box(receipt.expect("it is stored"));
        }
    }
}
