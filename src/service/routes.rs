//! Which request is for what: a table, from which 404, 405 and `Allow` come too.
//!
//! Pure: a listener's offer, a method and a path in, a route out.

use http::Method;
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use super::EventSettings;
use crate::exchange::Problem;

/// What a listener offers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Offer<'a> {
    /// The public listeners'.
    Public {
        /// Where the event streams are.
        events: &'a EventSettings,
        /// Whether the demo page is there.
        demo: bool,
        /// Whether publishers outside are let in.
        publishers: bool,
        /// Below what the paths of publishers are; mostly nothing.
        prefix: &'a str,
        /// Below what the edge's own are.
        own: &'a str,
    },
    /// The control listener's.
    Control,
}

/// What a request is for. Names are as they stand in the path, percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    EventStream,
    Preflight,
    PublishPreflight,
    ReadTopic(&'p str),
    Retract(Audience<'p>, &'p str),
    Presence,
    NewTicket,
    ClientScript,
    DemoPage,
    DemoPublish,
    Publish,
    PublishTo(&'p str),
    CloseTopic(&'p str),
    Broadcast,
    Send,
    ListTopics,
    ShowTopic(&'p str),
    DeleteTopic(&'p str),
    ListStreams,
    EndStream(&'p str),
    Stats,
    Cursor,
    Cluster,
    ListGroups,
    ShowGroup(&'p str),
    AddMember(&'p str, &'p str),
    RemoveMember(&'p str, &'p str),
    ShowUser(&'p str),
    Disconnect(&'p str),
    Revoke(&'p str),
    Health,
    Ready,
    Metrics,
}

/// For whom an event was that is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience<'p> {
    Topic(&'p str),
    User(&'p str),
    Group(&'p str),
    Everyone,
}

/// What a request may bring along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// Nothing that anyone would read.
    Nothing,
    /// The data of an event, as it is.
    Data,
    /// An event in JSON.
    Event,
    /// The same, from a visitor of the demo.
    DemoEvent,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// 404
    Path,
    /// 405: the methods that there are.
    Method(String),
}

/// By whom a row is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Events,
    /// Programs and pages that read without a stream.
    Readers,
    Demo,
    Publishers,
    Control,
}

type Captures<'p> = SmallVec<[&'p str; 2]>;

struct RouteRow {
    by: &'static [By],
    /// `*` stands for one segment, `**` for the rest, up to what follows it; [`EVENTS`] for the path that is
    /// configured.
    path: &'static str,
    methods: &'static [Method],
    expect: Expect,
    route: for<'p> fn(&[&'p str]) -> Route<'p>,
}

const EVENTS: &str = "events.path";
/// Below the edge's own.
const SCRIPT: &str = "/edge.js";
pub(super) const HEALTH: &str = "/healthz";
pub(super) const READY: &str = "/readyz";
pub(super) const METRICS: &str = "/metrics";
const READ: &[Method] = &[Method::GET, Method::HEAD];
const POST: &[Method] = &[Method::POST];

/// A row that reads no body.
const fn row(
    by: &'static [By],
    methods: &'static [Method],
    path: &'static str,
    route: for<'p> fn(&[&'p str]) -> Route<'p>,
) -> RouteRow {
    RouteRow {
        by,
        path,
        methods,
        expect: Expect::Nothing,
        route,
    }
}

/// What pages of other sites ask before they publish.
const fn preflight(path: &'static str) -> RouteRow {
    row(&[By::Publishers], &[Method::OPTIONS], path, |_| {
        Route::PublishPreflight
    })
}

impl RouteRow {
    const fn with(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// Whether it is where publishers and readers outside ask.
    fn is_below_prefix(&self) -> bool {
        self.by.contains(&By::Publishers) || self.by.contains(&By::Readers)
    }
}

/// The first path that matches is taken, and of its rows the one with the method. `Allow` names the
/// methods of all its rows, in order. Where something follows a `**`, other paths match still: a topic may have such
/// a name.
const TABLE: &[RouteRow] = &[
    row(&[By::Events], READ, EVENTS, |_| Route::EventStream),
    row(&[By::Events], &[Method::OPTIONS], EVENTS, |_| {
        Route::Preflight
    }),
    row(&[By::Events], READ, SCRIPT, |_| Route::ClientScript),
    row(&[By::Demo], READ, "/", |_| Route::DemoPage),
    row(&[By::Demo], POST, "/demo/publish", |_| Route::DemoPublish).with(Expect::DemoEvent),
    row(&[By::Control], READ, HEALTH, |_| Route::Health),
    row(&[By::Control], READ, READY, |_| Route::Ready),
    row(&[By::Control], READ, METRICS, |_| Route::Metrics),
    row(&[By::Control, By::Publishers], POST, "/publish", |_| {
        Route::Publish
    })
    .with(Expect::Event),
    row(&[By::Control, By::Publishers], POST, "/broadcast", |_| {
        Route::Broadcast
    })
    .with(Expect::Event),
    row(&[By::Control, By::Publishers], POST, "/send", |_| {
        Route::Send
    })
    .with(Expect::Event),
    preflight("/publish"),
    preflight("/broadcast"),
    preflight("/send"),
    row(
        &[By::Control, By::Readers],
        READ,
        "/topics/**/events",
        |p| {
            // A topic of such a name is written with its slash percent-encoded.
            Route::ReadTopic(p[0])
        },
    ),
    row(
        &[By::Readers],
        &[Method::OPTIONS],
        "/topics/**/events",
        |_| Route::Preflight,
    ),
    row(
        &[By::Control],
        &[Method::DELETE],
        "/topics/**/events/*",
        |p| Route::Retract(Audience::Topic(p[0]), p[1]),
    ),
    row(&[By::Control, By::Readers], READ, "/presence", |_| {
        Route::Presence
    }),
    row(&[By::Readers], &[Method::OPTIONS], "/presence", |_| {
        Route::Preflight
    }),
    row(&[By::Control, By::Readers], POST, "/tickets", |_| {
        Route::NewTicket
    })
    .with(Expect::Event),
    row(&[By::Readers], &[Method::OPTIONS], "/tickets", |_| {
        Route::PublishPreflight
    }),
    row(&[By::Control], READ, "/topics", |_| Route::ListTopics),
    row(&[By::Control], READ, "/topics/**", |p| {
        Route::ShowTopic(p[0])
    }),
    row(&[By::Control, By::Publishers], POST, "/topics/**", |p| {
        // A topic of such a name is written with its slash percent-encoded.
        match p[0].strip_suffix("/close") {
            Some(topic) => Route::CloseTopic(topic),
            None => Route::PublishTo(p[0]),
        }
    })
    .with(Expect::Data),
    preflight("/topics/**"),
    row(&[By::Control], &[Method::DELETE], "/topics/**", |p| {
        Route::DeleteTopic(p[0])
    }),
    row(&[By::Control], READ, "/streams", |_| Route::ListStreams),
    row(&[By::Control], &[Method::DELETE], "/streams/*", |p| {
        Route::EndStream(p[0])
    }),
    row(&[By::Control], READ, "/cursor", |_| Route::Cursor),
    row(&[By::Control], READ, "/cluster", |_| Route::Cluster),
    row(&[By::Control], READ, "/stats", |_| Route::Stats),
    row(&[By::Control], READ, "/groups", |_| Route::ListGroups),
    row(&[By::Control], READ, "/groups/*", |p| {
        Route::ShowGroup(p[0])
    }),
    row(&[By::Control], &[Method::PUT], "/groups/*/members/*", |p| {
        Route::AddMember(p[0], p[1])
    }),
    row(
        &[By::Control],
        &[Method::DELETE],
        "/groups/*/members/*",
        |p| Route::RemoveMember(p[0], p[1]),
    ),
    row(&[By::Control], READ, "/users/*", |p| Route::ShowUser(p[0])),
    row(&[By::Control], POST, "/users/*/disconnect", |p| {
        Route::Disconnect(p[0])
    }),
    row(&[By::Control], POST, "/users/*/revoke", |p| {
        Route::Revoke(p[0])
    }),
    row(
        &[By::Control],
        &[Method::DELETE],
        "/users/*/events/*",
        |p| Route::Retract(Audience::User(p[0]), p[1]),
    ),
    row(
        &[By::Control],
        &[Method::DELETE],
        "/groups/*/events/*",
        |p| Route::Retract(Audience::Group(p[0]), p[1]),
    ),
    row(
        &[By::Control],
        &[Method::DELETE],
        "/broadcast/events/*",
        |p| Route::Retract(Audience::Everyone, p[0]),
    ),
];

/// The paths that publishers and readers outside are offered, up to the stars.
pub(crate) fn public_paths() -> impl Iterator<Item = &'static str> {
    let public = TABLE.iter().filter(|row| row.is_below_prefix());
    public.map(|row| row.path.split("/*").next().unwrap_or_default())
}

/// Finds the route of a request, and what it may bring along.
pub(super) fn find<'p>(
    offer: Offer<'_>,
    method: &Method,
    path: &'p str,
) -> Result<(Route<'p>, Expect), NoRoute> {
    let mut allow: Vec<&str> = Vec::new();
    let mut taken = None;
    for row in TABLE
        .iter()
        .filter(|row| row.by.iter().any(|by| offer.has(*by)))
    {
        let Some(path) = offer.below_prefix(row, path) else {
            continue;
        };
        let Some(captures) = captures(row.path, path, offer) else {
            continue;
        };
        if !row.path.contains("**/") && *taken.get_or_insert(row.path) != row.path {
            continue;
        }
        if row.methods.contains(method) {
            return Ok(((row.route)(&captures), row.expect));
        }
        allow.extend(row.methods.iter().map(Method::as_str));
    }
    if allow.is_empty() {
        return Err(NoRoute::Path);
    }
    Err(NoRoute::Method(allow.join(", ")))
}

impl Offer<'_> {
    /// The path as the row has it: what publishers ask for may be below a prefix.
    fn below_prefix<'p>(self, row: &RouteRow, path: &'p str) -> Option<&'p str> {
        match self {
            Self::Public { prefix, .. } if row.is_below_prefix() => path.strip_prefix(prefix),
            _ => Some(path),
        }
    }

    fn has(self, by: By) -> bool {
        match self {
            Self::Public {
                events,
                demo,
                publishers,
                ..
            } => match by {
                By::Events | By::Readers => events.enabled,
                By::Demo => demo,
                By::Publishers => publishers,
                By::Control => false,
            },
            Self::Control => by == By::Control,
        }
    }
}

/// What the stars of a pattern stand for in a path; `None` when it is not such a path.
fn captures<'p>(pattern: &str, path: &'p str, offer: Offer<'_>) -> Option<Captures<'p>> {
    if pattern == EVENTS {
        let is_it = matches!(offer, Offer::Public { events, .. } if events.are_at(path));
        return is_it.then(Captures::new);
    }
    if pattern == SCRIPT {
        let own = match offer {
            Offer::Public { own, .. } => path.strip_prefix(own),
            Offer::Control => None,
        };
        return (own == Some(SCRIPT)).then(Captures::new);
    }
    let mut captures = Captures::new();
    if let Some((before, after)) = pattern.split_once("/**/") {
        let mut rest = path.strip_prefix(before)?.strip_prefix('/')?;
        for expected in after.rsplit('/') {
            let (further, segment) = rest.rsplit_once('/')?;
            match expected {
                "*" => captures.push(segment),
                expected if expected == segment => {}
                _ => return None,
            }
            rest = further;
        }
        captures.push(rest);
        captures.reverse();
        return Some(captures);
    }
    let mut rest = Some(path.strip_prefix('/')?);
    for expected in pattern[1..].split('/') {
        let here = rest?;
        if expected == "**" {
            captures.push(here);
            return Some(captures);
        }
        let (segment, further) = match here.split_once('/') {
            Some((segment, further)) => (segment, Some(further)),
            None => (here, None),
        };
        match expected {
            "*" => captures.push(segment),
            expected if expected == segment => {}
            _ => return None,
        }
        rest = further;
    }
    rest.is_none().then_some(captures)
}

/// A part of a path, decoded.
pub(super) fn decode(part: &str) -> Result<String, Problem> {
    let decoded = percent_decode_str(part).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| Problem::field("path", part, "the path is not UTF-8, percent-encoded"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(path: &str) -> &'static EventSettings {
        Box::leak(Box::new(EventSettings {
            enabled: !path.is_empty(),
            path: path.into(),
            ..EventSettings::default()
        }))
    }

    fn public() -> Offer<'static> {
        Offer::Public {
            events: events("/events"),
            demo: true,
            publishers: true,
            prefix: "",
            own: "/.seventh",
        }
    }

    fn allow(offer: Offer<'_>, path: &str) -> String {
        match find(offer, &Method::PATCH, path) {
            Err(NoRoute::Method(allow)) => allow,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn each_path_allows_what_is_offered_there() {
        assert_eq!(allow(public(), "/events"), "GET, HEAD, OPTIONS");
        assert_eq!(allow(public(), "/events/"), "GET, HEAD, OPTIONS");
        assert_eq!(allow(public(), "/topics/a/b"), "POST, OPTIONS");
        assert_eq!(
            allow(Offer::Control, "/topics/a"),
            "GET, HEAD, POST, DELETE"
        );
        assert_eq!(allow(Offer::Control, "/groups/g/members/m"), "PUT, DELETE");
    }

    #[test]
    fn names_are_taken_from_the_path() {
        let control = |method, path| find(Offer::Control, &method, path).map(|(route, _)| route);
        assert_eq!(
            control(Method::POST, "/topics/a/b"),
            Ok(Route::PublishTo("a/b"))
        );
        assert_eq!(
            control(Method::POST, "/topics/a/b/close"),
            Ok(Route::CloseTopic("a/b"))
        );
        for topic in ["close", "a%2Fclose"] {
            let found = control(Method::POST, Box::leak(format!("/topics/{topic}").into()));
            assert_eq!(found, Ok(Route::PublishTo(topic)));
        }
        assert_eq!(control(Method::GET, "/topics/"), Ok(Route::ShowTopic("")));
        assert_eq!(control(Method::GET, "/topics"), Ok(Route::ListTopics));
        let member = control(Method::PUT, "/groups/g/members/user:m");
        assert_eq!(member, Ok(Route::AddMember("g", "user:m")));
        for nothing in [
            "/",
            "/users",
            "/groups/a/b",
            "/groups/g/members/m/x",
            "/healthz/",
        ] {
            assert_eq!(
                control(Method::GET, nothing),
                Err(NoRoute::Path),
                "{nothing}"
            );
        }
    }

    #[test]
    fn what_is_not_offered_is_not_there() {
        let bare = Offer::Public {
            events: events(""),
            demo: false,
            publishers: false,
            prefix: "",
            own: "/.seventh",
        };
        for row in TABLE {
            let path = row.path.replace("**", "a").replace('*', "a");
            let path = path.replace(EVENTS, "/events");
            let path = path.replace(SCRIPT, "/.seventh/edge.js");
            assert_eq!(
                find(bare, &row.methods[0], &path),
                Err(NoRoute::Path),
                "{path}"
            );
            let offer = if row.by.contains(&By::Control) {
                Offer::Control
            } else {
                public()
            };
            let found = find(offer, &row.methods[0], &path);
            assert_eq!(found.map(|(_, expect)| expect), Ok(row.expect), "{path}");
        }
        // Where nothing else is, the path of the events is as good as any.
        let moved = Offer::Public {
            events: events("/"),
            demo: true,
            publishers: false,
            prefix: "",
            own: "/.seventh",
        };
        let found = find(moved, &Method::GET, "/");
        assert_eq!(found.map(|(route, _)| route), Ok(Route::EventStream));
        assert_eq!(allow(moved, "/"), "GET, HEAD, OPTIONS");
        let over = Offer::Public {
            events: events("/publish"),
            demo: false,
            publishers: true,
            prefix: "",
            own: "/.seventh",
        };
        let found = find(over, &Method::POST, "/publish");
        assert!(matches!(found, Err(NoRoute::Method(_))), "{found:?}");
    }

    #[test]
    fn publishers_ask_below_the_prefix() {
        let offer = Offer::Public {
            events: events("/.seventh/events"),
            demo: false,
            publishers: true,
            prefix: "/.seventh",
            own: "/.seventh",
        };
        let found = |path| find(offer, &Method::POST, path).map(|(route, _)| route);
        assert_eq!(found("/.seventh/publish"), Ok(Route::Publish));
        assert_eq!(found("/.seventh/topics/a/b"), Ok(Route::PublishTo("a/b")));
        for path in [
            "/publish",
            "/.seventh",
            "/.seventhpublish",
            "/.seventh/.seventh/publish",
        ] {
            assert_eq!(found(path), Err(NoRoute::Path), "{path}");
        }
        for path in public_paths() {
            let path = if path == "/topics" { "/topics/a" } else { path };
            assert!(find(public(), &Method::OPTIONS, path).is_ok(), "{path}");
        }
    }

    /// The OpenAPI document has what is there, and nothing else.
    #[test]
    fn all_is_documented() {
        let document: serde_json::Value =
            serde_json::from_str(include_str!("../../docs/openapi.json")).expect("JSON");
        let paths = document["paths"].as_object().expect("an object");
        let mut documented = Vec::new();
        for (path, methods) in paths {
            let example = path.replace(['{', '}'], "");
            for (method, operation) in methods.as_object().expect("an object") {
                let method =
                    Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
                let listeners = operation["x-listeners"].as_array().expect("a list");
                for (listener, offer) in [("public", public()), ("control", Offer::Control)] {
                    let said = listeners.iter().any(|known| known == listener);
                    let found = find(offer, &method, &example).is_ok();
                    assert_eq!(said, found, "{method} {path} of the {listener} listener");
                }
                let star = |part| {
                    if str::starts_with(part, '{') {
                        "*"
                    } else {
                        part
                    }
                };
                let shape: Vec<&str> = path.split('/').map(star).collect();
                documented.push((method, shape.join("/")));
            }
        }
        for row in TABLE {
            let shape = row.path.replace("**", "*").replace(EVENTS, "/events");
            let shape = if shape == SCRIPT {
                "/.seventh/edge.js".to_owned()
            } else {
                shape
            };
            for method in row.methods.iter().filter(|method| **method != Method::HEAD) {
                let is_there = documented
                    .iter()
                    .any(|(known, of)| known == method && *of == shape);
                assert!(is_there, "{method} {shape} is not in docs/openapi.json");
            }
        }
    }

    proptest! {
        #[test]
        fn any_path_is_answered(path in "/?[a-z/*%.]{0,30}", method in "[A-Z]{1,8}") {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            for offer in [public(), Offer::Control] {
                let allowed = match find(offer, &method, &path) {
                    Err(NoRoute::Method(allow)) => allow,
                    _ => continue,
                };
                prop_assert!(!allowed.split(", ").any(|allowed| allowed == method.as_str()));
            }
        }
    }
}
