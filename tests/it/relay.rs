//! The app's own event streams, made resilient.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use seventh::client::{Connection, Protocol, full};
use tokio::sync::mpsc;

use crate::harness::{Answer, Events, TestEdge, every_protocol, patiently};
use crate::upstream::{Sent, Upstream, whole};

every_protocol!(
    events_pass_and_get_ids_where_they_have_none,
    a_browser_that_comes_back_goes_on_without_the_app_noticing,
    a_tab_that_was_duplicated_reads_along,
    an_app_that_breaks_goes_on_where_it_was,
    an_app_that_cannot_resume_leaves_a_gap,
    all_share_one_stream_of_the_app,
    what_is_not_an_event_sources_passes_as_it_comes,
    a_quiet_app_is_kept_alive,
    an_app_hands_a_response_to_the_hub,
);

/// What a test has an app say on one of its event streams: `None` breaks it, its end ends it.
type Script = mpsc::Sender<Option<String>>;

/// An app with one event stream, which says what the test tells it to.
struct Talker {
    app: Upstream,
    /// The heads of the requests for it, and what to say to each.
    asked: mpsc::Receiver<(HeaderMap, Script)>,
    count: Arc<AtomicUsize>,
}

impl Talker {
    async fn start() -> Self {
        Self::at("127.0.0.1:0", "text/event-stream").await
    }

    async fn at(address: &str, content_type: &'static str) -> Self {
        let (asking, asked) = mpsc::channel(1000);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let app = Upstream::at(address, move |request: Request<Incoming>| {
            counted.fetch_add(1, Ordering::SeqCst);
            let (script, says) = mpsc::channel::<Option<String>>(1000);
            let gone = asking
                .try_send((request.headers().clone(), script))
                .is_err();
            async move {
                let says = stream::unfold(says, |mut says| async {
                    let said = says.recv().await?;
                    let frame = match said {
                        Some(text) => Ok(Frame::data(Bytes::from(text))),
                        None => Err("it breaks".into()),
                    };
                    Some((frame, says))
                });
                let body: Sent = StreamBody::new(says.boxed()).boxed_unsync();
                let body = if gone { whole("") } else { body };
                Response::builder()
                    .header("content-type", content_type)
                    .header("set-cookie", "seen=1")
                    .body(body)
                    .expect("a response")
            }
        })
        .await;
        Self { app, asked, count }
    }

    /// The next request, and what it is told.
    async fn asked(&mut self) -> (HeaderMap, Script) {
        patiently("a request", self.asked.recv())
            .await
            .expect("it is asked")
    }
}

fn say(script: &Script, text: &str) {
    script.try_send(Some(text.into())).expect("it is read");
}

async fn open(connection: &mut Connection, path: &str, fields: &[(&str, &str)]) -> Events {
    let mut request = Request::get(path).header("accept", "text/event-stream");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    Events::ask(connection, request.body(full("")).expect("a request")).await
}

async fn events_pass_and_get_ids_where_they_have_none(protocol: Protocol) {
    let mut talker = Talker::at("127.0.0.1:0", "Text/Event-Stream; charset=utf-8").await;
    let edge = TestEdge::with(&format!(
        "{}\nlimits.event_bytes = \"1 KiB\"",
        talker.app.route()
    ));
    let mut connection = edge.connect(protocol).await;
    let mut events = open(
        &mut connection,
        "/events?of=mine",
        &[("accept-encoding", "gzip")],
    )
    .await;
    assert_eq!(events.response.headers["set-cookie"], "seen=1");
    let (head, script) = talker.asked().await;
    assert_eq!(head["accept-encoding"], "identity");
    say(
        &script,
        "data: a\r\ndata: b\r\n\r\n: c\n\nretry: 1\nevent: tick\nda",
    );
    say(&script, "ta: x\n\n");
    let first = events.message().await;
    assert_eq!(
        (first.event.as_str(), first.data.as_str()),
        ("message", "a\nb")
    );
    let second = events.message().await;
    assert_eq!((second.event.as_str(), second.data.as_str()), ("tick", "x"));
    let number = |id: &str| {
        let (token, number) = id
            .strip_prefix("relay-")
            .expect("ours")
            .split_once('-')
            .expect("a number");
        assert_eq!(token.len(), 32);
        number.parse::<u64>().expect("a number")
    };
    assert_eq!((number(&first.id), number(&second.id)), (1, 2));
    // From here on the app has ids, which pass as they are; a long event is cut out, told and survived.
    say(
        &script,
        &format!(
            "id: seven\ndata: y\n\ndata: {}\n\ndata: z\n\n",
            "long".repeat(500)
        ),
    );
    let third = events.message().await;
    assert_eq!((third.id.as_str(), third.data.as_str()), ("seven", "y"));
    assert_eq!(events.edge_event("edge-gap").await.0["reason"], "too_long");
    let last = events.message().await;
    assert_eq!((last.id.as_str(), last.data.as_str()), ("seven", "z"));
    // Its clean end is passed on, after all that it said.
    say(&script, "data: bye\n\n");
    drop(script);
    assert_eq!(events.message().await.data, "bye");
    while let Some(item) = events.item().await {
        assert!(!matches!(item, seventh::sse::Item::Message(_)), "{item:?}");
    }
    edge.until_metric(
        &format!(
            "seventh_relay_streams{{protocol=\"{}\"}}",
            protocol.as_str()
        ),
        0,
    )
    .await;
}

async fn a_browser_that_comes_back_goes_on_without_the_app_noticing(protocol: Protocol) {
    let mut talker = Talker::start().await;
    let edge = TestEdge::with(&talker.app.route());
    let cookie = ("cookie", "sid=1");
    let mut connection = edge.connect(protocol).await;
    let mut events = open(&mut connection, "/events", &[cookie]).await;
    let (_, script) = talker.asked().await;
    say(&script, "data: 1\n\ndata: 2\n\n");
    assert_eq!(events.data(1).await, ["1"]);
    let id = events.message().await.id;
    drop((events, connection));
    let line = format!(
        "seventh_relay_streams{{protocol=\"{}\"}}",
        protocol.as_str()
    );
    edge.until_metric(&line, 0).await;
    say(&script, "data: 3\n\ndata: 4\n\n");
    let mut connection = edge.connect(protocol).await;
    let mut events = open(
        &mut connection,
        "/events",
        &[cookie, ("last-event-id", &id)],
    )
    .await;
    assert_eq!(events.data(2).await, ["3", "4"]);
    say(&script, "data: 5\n\n");
    assert_eq!(events.data(1).await, ["5"]);
    assert_eq!(talker.count.load(Ordering::SeqCst), 1);
    // Nobody else does: another cookie, another path, no cookie, another number of the same kind.
    let forged = format!("relay-{}-1", "0".repeat(32));
    for (path, fields) in [
        (
            "/events",
            vec![("cookie", "sid=2"), ("last-event-id", &*id)],
        ),
        ("/events?x", vec![cookie, ("last-event-id", &*id)]),
        ("/events", vec![("last-event-id", &*id)]),
        ("/events", vec![cookie, ("last-event-id", &*forged)]),
    ] {
        let mut connection = edge.connect(protocol).await;
        let mut other = open(&mut connection, path, &fields).await;
        let (head, script) = talker.asked().await;
        assert!(!head.contains_key("last-event-id"), "{head:?}");
        // It may have missed something: nobody knows.
        assert_eq!(
            other.edge_event("edge-gap").await.0["reason"],
            "unknown",
            "{path}"
        );
        say(&script, "data: mine\n\n");
        assert_eq!(other.data(1).await, ["mine"], "{path}");
    }
}

async fn a_tab_that_was_duplicated_reads_along(protocol: Protocol) {
    let mut talker = Talker::start().await;
    let edge = TestEdge::with(&format!("{}\nrelay.linger = \"200ms\"", talker.app.route()));
    let mut first = edge.connect(protocol).await;
    let mut tab = open(&mut first, "/events", &[]).await;
    let (_, script) = talker.asked().await;
    say(&script, "data: 1\n\ndata: 2\n\n");
    let id = tab.message().await.id;
    // The first one still reads when the other comes with an id that both have.
    let mut second = edge.connect(protocol).await;
    let mut copy = open(&mut second, "/events", &[("last-event-id", &id)]).await;
    say(&script, "data: 3\n\n");
    assert_eq!(tab.data(2).await, ["2", "3"]);
    assert_eq!(copy.data(2).await, ["2", "3"]);
    // What one of them leaves is the other's still.
    drop((tab, first));
    let line = format!(
        "seventh_relay_streams{{protocol=\"{}\"}}",
        protocol.as_str()
    );
    edge.until_metric(&line, 1).await;
    say(&script, "data: 4\n\n");
    assert_eq!(copy.data(1).await, ["4"]);
    assert_eq!(talker.count.load(Ordering::SeqCst), 1);
    drop((copy, second));
    patiently("the app is left", script.closed()).await;
}

async fn an_app_that_breaks_goes_on_where_it_was(protocol: Protocol) {
    let mut talker = Talker::start().await;
    let edge = TestEdge::with(&talker.app.route());
    let mut connection = edge.connect(protocol).await;
    let mut events = open(&mut connection, "/events", &[("cookie", "sid=1")]).await;
    let (_, script) = talker.asked().await;
    say(&script, "id: 41\ndata: a\n\n");
    assert_eq!(events.data(1).await, ["a"]);
    script.try_send(None).expect("it is read");
    let (head, script) = talker.asked().await;
    assert_eq!(
        (&head["last-event-id"], &head["cookie"]),
        (
            &"41".parse().expect("a value"),
            &"sid=1".parse().expect("a value")
        )
    );
    say(&script, "id: 42\ndata: b\n\n");
    assert_eq!(events.data(1).await, ["b"]);
    // Gone for a while, with all it had.
    let address = talker.app.address.to_string();
    talker.app.stop().await;
    let mut talker = Talker::at(&address, "text/event-stream").await;
    let (head, script) = talker.asked().await;
    assert_eq!(head["last-event-id"], "42");
    say(&script, "id: 43\ndata: c\n\n");
    assert_eq!(events.data(1).await, ["c"]);
    assert_eq!(edge.metric("seventh_relay_resumed_total").await, 2);
    // Once it says something else, the browser's own next request gets that.
    let address = talker.app.address.to_string();
    talker.app.stop().await;
    let _app = Upstream::at(&address, |_| async {
        Response::builder()
            .status(403)
            .body(whole(""))
            .expect("a response")
    })
    .await;
    assert!(matches!(
        events.item().await,
        Some(seventh::sse::Item::Retry(_))
    ));
    assert_eq!(events.item().await, None);
}

async fn an_app_that_cannot_resume_leaves_a_gap(protocol: Protocol) {
    let mut talker = Talker::start().await;
    let edge = TestEdge::with(&format!("{}\nrelay.patience = \"10s\"", talker.app.route()));
    let mut connection = edge.connect(protocol).await;
    let mut events = open(&mut connection, "/events", &[]).await;
    let (_, script) = talker.asked().await;
    say(&script, "data: a\n\n");
    assert_eq!(events.data(1).await, ["a"]);
    script.try_send(None).expect("it is read");
    let (head, script) = talker.asked().await;
    assert!(!head.contains_key("last-event-id"));
    say(&script, "data: b\n\n");
    let (gap, id) = events.edge_event("edge-gap").await;
    assert_eq!(
        (&gap["reason"], &gap["missed"]),
        (&"upstream".into(), &serde_json::Value::Null)
    );
    assert!(id.starts_with("relay-"), "{id}");
    assert_eq!(events.data(1).await, ["b"]);
    // Gone for good: a clean end, so that the browser comes back.
    drop((talker, script));
    assert!(matches!(
        events.item().await,
        Some(seventh::sse::Item::Retry(_))
    ));
    assert_eq!(events.item().await, None);
}

async fn all_share_one_stream_of_the_app(protocol: Protocol) {
    let mut talker = Talker::start().await;
    let edge = TestEdge::with(&format!(
        "[[route]]\nupstream = \"{}\"\nshare = true\n[relay]\nlinger = \"200ms\"",
        talker.app.url()
    ));
    let readers = if protocol == Protocol::Http1 { 1 } else { 100 };
    let mut all = Vec::new();
    let mut connections = Vec::new();
    for n in 0..10 {
        let mut connection = edge.connect(protocol).await;
        for _ in 0..readers {
            let cookie = format!("sid={n}");
            all.push(open(&mut connection, "/scores?game=7", &[("cookie", &cookie)]).await);
        }
        connections.push(connection);
    }
    let (head, script) = talker.asked().await;
    assert!(!head.contains_key("cookie"));
    assert!(!all[0].response.headers.contains_key("set-cookie"));
    for n in 0..5 {
        say(&script, &format!("data: {n}\n\n"));
    }
    for events in &mut all {
        assert_eq!(events.data(5).await, ["0", "1", "2", "3", "4"]);
    }
    assert_eq!(talker.count.load(Ordering::SeqCst), 1);
    // Who comes late begins with what comes next, or asks for more.
    let mut connection = edge.connect(protocol).await;
    let mut late = open(&mut connection, "/scores?game=7&last=2", &[]).await;
    let second = late.message().await;
    assert_eq!(second.data, "3");
    let mut connection = edge.connect(protocol).await;
    let mut back = open(
        &mut connection,
        "/scores?game=7",
        &[("last-event-id", &second.id)],
    )
    .await;
    assert_eq!(back.data(1).await, ["4"]);
    let mut connection = edge.connect(protocol).await;
    let mut live = open(&mut connection, "/scores?game=7", &[]).await;
    say(&script, "data: 5\n\n");
    assert_eq!(live.data(1).await, ["5"]);
    assert_eq!(talker.count.load(Ordering::SeqCst), 1);
    // With nobody left the app's stream is let go of.
    drop((all, late, back, live, connections, connection));
    patiently("the app is left", script.closed()).await;
}

async fn what_is_not_an_event_sources_passes_as_it_comes(protocol: Protocol) {
    let app = Upstream::start(|request| async move {
        let compressed = request.uri().path() == "/gzip";
        let parts: VecDeque<_> = ["data: a\n", "\n:x\nid:1\ndata: b\r\n\r\n"].into();
        let frames = stream::iter(
            parts
                .into_iter()
                .map(|part| Ok(Frame::data(Bytes::from(part)))),
        );
        let frames = frames.boxed();
        let mut response = Response::builder().header("content-type", "text/event-stream");
        if compressed {
            response = response.header("content-encoding", "gzip");
        }
        response
            .body(StreamBody::new(frames).boxed_unsync())
            .expect("a response")
    })
    .await;
    let edge = TestEdge::with(&app.route());
    let text = "data: a\n\n:x\nid:1\ndata: b\r\n\r\n";
    for request in [
        Request::post("/").header("accept", "text/event-stream"),
        Request::get("/").header("accept", "text/event-stream, application/json"),
        Request::get("/gzip").header("accept", "text/event-stream"),
    ] {
        let request = request.body(full("")).expect("a request");
        let answer = Answer::of(&mut edge.connect(protocol).await, request).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (StatusCode::OK, text)
        );
    }
    assert_eq!(edge.metric("seventh_relay_compressed_total").await, 1);
    let broken = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                  transfer-encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n";
    let app = Upstream::raw(broken).await;
    let edge = TestEdge::with(&app.route());
    let request = Request::post("/").header("accept", "text/event-stream");
    let request = request.body(full("")).expect("a request");
    let mut connection = edge.connect(protocol).await;
    let sent = patiently("an answer", connection.send(request)).await;
    if let Ok(mut response) = sent {
        assert!(patiently("its end", response.bytes()).await.is_err());
    }
}

async fn a_quiet_app_is_kept_alive(protocol: Protocol) {
    let mut talker = Talker::start().await;
    let edge = TestEdge::with(&format!(
        "{}\nevents.keepalive = \"100ms\"\nlimits.upstream_idle = \"100ms\"",
        talker.app.route()
    ));
    for method in ["GET", "POST"] {
        let mut connection = edge.connect(protocol).await;
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header("accept", "text/event-stream");
        let mut events =
            Events::ask(&mut connection, request.body(full("")).expect("a request")).await;
        let (_, script) = talker.asked().await;
        let comment = |item| matches!(item, Some(seventh::sse::Item::Comment(_)));
        let mut comments = 0;
        while comments < 3 {
            comments += usize::from(comment(events.any_item().await));
        }
        // Not in the middle of an event, where an app's own parts are not to be parted.
        say(&script, "data: a\ndata: ");
        say(&script, "b\n\n");
        assert_eq!(events.message().await.data, "a\nb");
    }
}

#[tokio::test]
async fn a_failing_shared_stream_is_asked_for_once_by_all() {
    let times = Arc::new(Mutex::new(0));
    let counted = times.clone();
    let app = Upstream::start(move |_| {
        *counted.lock().expect("no panic") += 1;
        async {
            Response::builder()
                .status(503)
                .body(whole(""))
                .expect("a response")
        }
    })
    .await;
    let edge = TestEdge::with(&format!(
        "[[route]]\nupstream = \"{}\"\nshare = true",
        app.url()
    ));
    let mut connection = edge.connect(Protocol::Http2).await;
    let request = Request::get("/a")
        .header("accept", "text/event-stream")
        .body(full(""));
    let answer = Answer::of(&mut connection, request.expect("a request")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text.starts_with("retry: "), "{}", answer.text);
    assert_eq!(*times.lock().expect("no panic"), 1);
}

async fn an_app_hands_a_response_to_the_hub(protocol: Protocol) {
    let app = Upstream::start(|request: Request<Incoming>| async move {
        assert!(!request.headers().contains_key("seventh-subscribe"));
        let topics = if request.uri().path() == "/bad" {
            "$user:bob"
        } else {
            "orders, prices"
        };
        Response::builder()
            .header("seventh-subscribe", topics)
            .header("set-cookie", "seen=1")
            .header("content-type", "text/event-stream")
            .body(whole("id: mine\ndata: first\n\n"))
            .expect("a response")
    })
    .await;
    let edge = TestEdge::with(&format!(
        "[[route]]\nhub = true\nupstream = \"{}\"",
        app.url()
    ));
    let mut connection = edge.connect(protocol).await;
    let mut events = open(
        &mut connection,
        "/stream",
        &[("seventh-subscribe", "secrets")],
    )
    .await;
    assert_eq!(events.response.headers["set-cookie"], "seen=1");
    assert!(!events.response.headers.contains_key("seventh-subscribe"));
    assert_eq!(events.message().await.data, "first");
    let (said, id) = events.edge_event("edge-open").await;
    assert_eq!(said["topics"], serde_json::json!(["orders", "prices"]));
    edge.publish("prices", "7").await;
    assert_eq!(events.message().await.data, "7");
    let to_all = r#"{"data":"to all","anonymous":true}"#;
    let told = edge.ask("POST", "/broadcast", to_all).await;
    assert_eq!(told.json()["receivers"], 1, "{}", told.text);
    assert_eq!(events.message().await.data, "to all");
    // Who comes back gets what was missed; over HTTP/1.1 a stream has its connection to itself.
    drop(events);
    let mut connection = edge.connect(protocol).await;
    let mut events = open(&mut connection, "/stream", &[("last-event-id", &id)]).await;
    assert_eq!(events.message().await.data, "first");
    events.edge_event("edge-open").await;
    assert_eq!(events.data(2).await, ["7", "to all"]);
    let request = Request::get("/bad").body(full("")).expect("a request");
    let answer = Answer::of(&mut edge.connect(protocol).await, request).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{}", answer.text);
    // Where the route does not say so, it is the app's own business.
    let edge = TestEdge::with(&app.route());
    let request = Request::get("/stream").body(full("")).expect("a request");
    let answer = Answer::of(&mut edge.connect(protocol).await, request).await;
    assert_eq!(answer.text, "id: mine\ndata: first\n\n");
}

/// A shared stream is nobody's in particular, and of one host; what strangers ask for and leave is forgotten.
#[tokio::test]
async fn a_shared_stream_is_asked_for_on_behalf_of_nobody() {
    let mut talker = Talker::start().await;
    let edge = TestEdge::with(&format!(
        "access.audience = \"seventh\"\n[[access.key]]\nalgorithm = \"HS256\"\nkid = \"h\"\nsecret = \"{}\"\n\
         [[route]]\nupstream = \"{}\"\nshare = true\nidentity = true",
        crate::access::SECRET,
        talker.app.url()
    ));
    let bearer = format!("Bearer {}", crate::access::token(&crate::access::claims()));
    let mut connection = edge.connect(Protocol::Http1).await;
    let mut first = open(&mut connection, "/a", &[("authorization", &bearer)]).await;
    let (head, script) = talker.asked().await;
    for name in ["remote-user", "authorization", "cookie"] {
        assert!(!head.contains_key(name), "{name}");
    }
    say(&script, "data: of this host\n\n");
    assert_eq!(first.data(1).await, ["of this host"]);
    let mut connection = edge.connect(Protocol::Http1).await;
    let mut other = open(&mut connection, "/a", &[("host", "other.example")]).await;
    let (head, script) = talker.asked().await;
    assert_eq!(head["host"], "other.example");
    say(&script, "data: of the other\n\n");
    assert_eq!(other.data(1).await, ["of the other"]);
}
