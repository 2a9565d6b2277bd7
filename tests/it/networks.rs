//! What streams do for pages on real networks: they are heard, they say where they stand, they end
//! before others cut them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, StatusCode};
use seventh::{
    client::{EventSource, Protocol, Signal, Trust, full},
    sse::Item,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use crate::harness::{Answer, Events, TestEdge, every_protocol, patiently};
use crate::upstream::{Upstream, whole};

every_protocol!(
    a_heartbeat_is_an_event_without_an_id,
    the_end_of_the_replay_is_told,
    a_gap_has_its_times,
    a_stream_ends_at_its_age_and_not_in_its_replay,
    a_finished_topic_ends_its_streams_for_good,
    each_event_says_its_topics_where_that_is_asked,
    a_page_with_its_state_goes_on_from_there,
    paths_of_the_operators_own_have_their_topics,
    what_the_edge_says_of_itself_is_for_whom_a_rule_allows_it,
    what_is_published_while_the_app_answers_is_delivered,
);

every_protocol!(multiplexed:
    keepalives_of_a_connection_go_out_together,
    events_pass_a_download,
);

async fn a_heartbeat_is_an_event_without_an_id(protocol: Protocol) {
    let edge = TestEdge::with("events.keepalive = \"100ms\"");
    let mut events = edge.events(protocol, "topic=a&edge=heartbeat").await;
    let (open, _) = events.edge_event("edge-open").await;
    assert_eq!(open["keepalive"], 0.1);
    let now = open["now"].as_str().expect("a time");
    humantime::parse_rfc3339(now).expect("RFC 3339");
    for _ in 0..3 {
        let ping = events.message().await;
        assert_eq!((&*ping.event, &*ping.data), ("edge-ping", "{}"));
    }
    let id = edge.publish_id("a", "x").await;
    loop {
        let message = events.message().await;
        if message.event == "message" {
            assert_eq!((message.data, message.id), ("x".into(), id.clone()));
            break;
        }
    }
    // It leaves the last id where it is.
    let ping = events.message().await;
    assert_eq!((ping.event.as_str(), ping.id), ("edge-ping", id));
}

async fn the_end_of_the_replay_is_told(protocol: Protocol) {
    let edge = TestEdge::with("history.events = 4");
    let mut fresh = edge.events(protocol, "topic=a&edge=sync").await;
    let (_, start) = fresh.edge_event("edge-open").await;
    let (sync, id) = fresh.edge_event("edge-sync").await;
    assert_eq!(sync, serde_json::json!({ "replayed": 0, "missed": 0 }));
    assert_eq!(id, start);
    for n in 0..3 {
        edge.publish("a", n.to_string()).await;
    }
    let mut back = edge
        .events_after(protocol, "topic=a&topic=b&edge=sync", &start)
        .await;
    back.edge_event("edge-open").await;
    assert_eq!(back.data(3).await, ["0", "1", "2"]);
    let (sync, _) = back.edge_event("edge-sync").await;
    assert_eq!(sync, serde_json::json!({ "replayed": 3, "missed": 0 }));
    edge.publish("a", "3").await;
    edge.publish("a", "4").await;
    assert_eq!(back.data(2).await, ["3", "4"]);
    let mut late = edge
        .events_after(protocol, "topic=a&edge=sync,quiet", &start)
        .await;
    assert_eq!(late.edge_event("edge-gap").await.0["missed"], 1);
    assert_eq!(late.data(4).await, ["1", "2", "3", "4"]);
    let (sync, _) = late.edge_event("edge-sync").await;
    assert_eq!(sync, serde_json::json!({ "replayed": 4, "missed": 1 }));
    // Nobody counts what was missed of another history.
    let mut stranger = edge
        .events_after(protocol, "topic=a&edge=sync,quiet", "of-another")
        .await;
    stranger.edge_event("edge-gap").await;
    stranger.data(4).await;
    let (sync, _) = stranger.edge_event("edge-sync").await;
    assert_eq!(sync["missed"], serde_json::Value::Null);
    drop(fresh);
}

async fn a_gap_has_its_times(protocol: Protocol) {
    let edge = TestEdge::with("history.events = 1");
    let first = edge.publish_id("a", "0").await;
    for n in 1..4 {
        edge.publish("a", n.to_string()).await;
    }
    let time = |value: &serde_json::Value| {
        let text = value
            .as_str()
            .unwrap_or_else(|| panic!("{value} is no time"));
        humantime::parse_rfc3339(text).expect("RFC 3339")
    };
    let mut events = edge
        .events_after(protocol, "topic=a&edge=quiet", &first)
        .await;
    let (gap, _) = events.edge_event("edge-gap").await;
    assert_eq!(gap["missed"], 2);
    assert!(time(&gap["from"]) <= time(&gap["to"]), "{gap}");
    // When an id of another history was is not known.
    let mut events = edge
        .events_after(protocol, "topic=a&edge=quiet", "of-another")
        .await;
    let (gap, _) = events.edge_event("edge-gap").await;
    assert!(gap.get("from").is_none(), "{gap}");
    time(&gap["to"]);
}

async fn a_stream_ends_at_its_age_and_not_in_its_replay(protocol: Protocol) {
    let edge = TestEdge::with("events.max_age = \"1m\"");
    let mut connection = edge.connect(protocol).await;
    for (age, wrong) in [("9s", "9s"), ("61s", "1m 1s"), ("soon", "soon")] {
        let request = Request::get(format!("/events?topic=a&max_age={age}")).body(full(""));
        let answer = Answer::of(&mut connection, request.expect("a request")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{age}");
        assert_eq!(answer.json()["value"], wrong, "{}", answer.text);
    }
    let mut events = edge.events(protocol, "topic=a&max_age=10s").await;
    events.edge_event("edge-open").await;
    edge.publish("a", "x").await;
    assert_eq!(events.data(1).await, ["x"]);
    let Some(Item::Retry(retry)) = events.item().await else {
        panic!("a time to come back")
    };
    assert!(retry >= Duration::from_millis(500));
    assert_eq!(events.try_item().await.expect("no reset"), None);
    edge.until_metric("seventh_event_streams_aged_total", 1)
        .await;
}

/// Some middleboxes and antivirus programs pass nothing of a response on before its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_responses_until_their_end_gets_every_event() {
    let edge = TestEdge::with("events.retry = \"500ms\"");
    let target = edge.target();
    let holding = Upstream::start(move |request: Request<hyper::body::Incoming>| {
        let target = target.clone();
        async move {
            let mut connection = seventh::client::Connection::open(&target, Protocol::Http2)
                .await
                .expect("it connects");
            let (mut parts, _) = request.into_parts();
            parts.headers.remove("host");
            let mut response = connection
                .send(Request::from_parts(parts, full("")))
                .await
                .expect("an answer");
            let body = response.bytes().await.expect("a clean end");
            let held = http::Response::builder().header("content-type", "text/event-stream");
            held.body(whole(body)).expect("a response")
        }
    })
    .await;
    let url = format!("{}/events?topic=a&max_age=10s", holding.url());
    let url: http::Uri = url.parse().expect("a URL");
    let mut source = EventSource::new(url, Protocol::Http1, Trust::System, String::new());
    let publishing = async {
        let (mut sent, mut opened) = (0, 0);
        // Over two streams, and between them.
        while opened < 2 {
            edge.publish("a", sent.to_string()).await;
            sent += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let line = "seventh_event_streams_aged_total";
            opened = edge.metric(line).await;
        }
        edge.publish("a", "last").await;
        sent
    };
    let reading = async {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let signal = patiently("a signal", source.next()).await;
            if let Some(Signal::Message(message)) = signal
                && message.event == "message"
            {
                if message.data == "last" {
                    return seen;
                }
                seen.push(message.data);
            }
        }
    };
    let (sent, seen) = tokio::join!(publishing, reading);
    // The first stream may have begun after the first events.
    let first: usize = seen[0].parse().expect("a number");
    let expected: Vec<String> = (first..sent).map(|n| n.to_string()).collect();
    assert!(first < 100, "{first}");
    assert_eq!(seen, expected);
}

async fn a_finished_topic_ends_its_streams_for_good(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge.events(protocol, "topic=game/7").await.opened().await;
    let mut both = edge
        .events(protocol, "topic=game/7&topic=game/8")
        .await
        .opened()
        .await;
    let before = edge.publish_id("game/7", "3:2").await;
    let closed = edge
        .ask("POST", "/topics/game/7/close?event=end", "4:2")
        .await;
    assert_eq!(closed.json()["streams"], 2, "{}", closed.text);
    assert_eq!(closed.json()["last"]["receivers"], 2);
    assert_eq!(events.data(1).await, ["3:2"]);
    let last = events.message().await;
    assert_eq!((&*last.event, &*last.data), ("end", "4:2"));
    assert!(matches!(events.item().await, Some(Item::Retry(_))));
    assert_eq!(events.try_item().await.expect("no reset"), None);
    // Another topic of the stream goes on.
    assert_eq!(both.data(2).await, ["3:2", "4:2"]);
    edge.publish("game/8", "0:0").await;
    assert_eq!(both.data(1).await, ["0:0"]);

    let mut connection = edge.connect(protocol).await;
    let ask = |id: &str, query: &str| {
        let request = Request::get(format!("/events?{query}"))
            .header("accept", "text/event-stream")
            .header("last-event-id", id);
        request.body(full("")).expect("a request")
    };
    // Who missed the end gets it first; who comes back after that stays away.
    let mut missed = Events::ask(&mut connection, ask(&before, "topic=game/7&edge=quiet")).await;
    let end = missed.message().await;
    assert_eq!((&*end.event, &end.id), ("end", &last.id));
    while missed.item().await.is_some() {}
    let mut connection = edge.connect(protocol).await;
    for id in [&*last.id, ""] {
        let answer = Answer::of(&mut connection, ask(id, "topic=game/7")).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{id}");
        assert_eq!(answer.text, "");
    }
    edge.publish("game/7", "extra time").await;
    let mut again = Events::ask(&mut connection, ask(&last.id, "topic=game/7&edge=quiet")).await;
    assert_eq!(again.data(1).await, ["extra time"]);
    // Closed without a word, and without anyone who reads it or has written to it.
    let closed = edge.ask("POST", "/topics/nobody/close", "").await;
    assert_eq!(
        closed.json(),
        serde_json::json!({ "streams": 0, "last": null })
    );
    let mut connection = edge.connect(protocol).await;
    let answer = Answer::of(&mut connection, ask("", "topic=nobody")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    // A topic whose own name ends that way.
    edge.publish("a%2Fclose", "x").await;
    assert_eq!(
        edge.ask("GET", "/topics/a/close", "").await.json()["events"],
        1
    );
}

async fn each_event_says_its_topics_where_that_is_asked(protocol: Protocol) {
    let edge = TestEdge::with("events.keepalive = \"1m\"");
    let start = edge.publish_id("other", "0").await;
    let to_many = r#"{"topic": ["a", "b", "c"], "data": "1"}"#;
    edge.ask("POST", "/publish", to_many).await;
    let query = "topic=a&topic=b&edge=topics,quiet";
    let mut events = edge.events_after(protocol, query, &start).await;
    let mut told = async |topics: serde_json::Value, data: &str| {
        let (said, _) = events.edge_event("edge-topic").await;
        assert_eq!(said, serde_json::json!({ "topics": topics }));
        assert_eq!(events.message().await.data, data);
    };
    told(serde_json::json!(["a", "b"]), "1").await;
    edge.publish("b", "2").await;
    told(serde_json::json!(["b"]), "2").await;
    let to_all = r#"{"data": "3", "anonymous": true}"#;
    edge.ask("POST", "/broadcast", to_all).await;
    told(serde_json::json!([]), "3").await;
    // They are nobody's events: neither counted nor left unread.
    let delivered = format!(
        "seventh_events_delivered_total{{protocol=\"{}\"}}",
        protocol.as_str()
    );
    edge.until_metric(&delivered, 3).await;
}

/// Where no UDP gets through nothing is opened for it, and browsers are told to forget what they know.
#[tokio::test]
async fn http3_is_off_or_where_the_operator_says() {
    let off = TestEdge::with("https.http3 = false");
    let port = off.https.port();
    drop(std::net::UdpSocket::bind(("127.0.0.1", port)).expect("nobody has it"));
    for (edge, said) in [
        (off, "clear"),
        (
            TestEdge::with("https.advertise = 443"),
            "h3=\":443\"; ma=60",
        ),
        (TestEdge::with("https.advertise = \"clear\""), "clear"),
    ] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let request = Request::get("/").body(full("")).expect("a request");
            let answer = Answer::of(&mut edge.connect(protocol).await, request).await;
            assert_eq!(answer.header("alt-svc"), said);
        }
    }
}

/// It is there wherever the hub's paths are, and knows where that is.
#[tokio::test]
async fn the_client_script_knows_where_the_streams_are() {
    let app = Upstream::echo().await;
    for (text, path, events) in [
        (String::new(), "/.seventh/edge.js", "/events"),
        (app.route(), "/.seventh/edge.js", "/.seventh/events"),
        (
            format!(
                "access.prefix = \"/live/\"\nevents.path = \"/s/it's\"\n{}",
                app.route()
            ),
            "/live/edge.js",
            "/s/it's",
        ),
    ] {
        let edge = TestEdge::with(&text);
        let request = Request::get(path).body(full("")).expect("a request");
        let answer = Answer::of(&mut edge.connect(Protocol::Http2).await, request).await;
        assert_eq!(
            answer.header("content-type"),
            "text/javascript; charset=utf-8"
        );
        let line = format!("const EVENTS = \"{events}\";");
        assert!(answer.text.contains(&line), "{line}");
    }
}

async fn a_page_with_its_state_goes_on_from_there(protocol: Protocol) {
    let edge = TestEdge::start();
    edge.publish("a", "before").await;
    let cursor = edge.ask("GET", "/cursor", "").await.json()["id"].clone();
    let cursor = cursor.as_str().expect("an id");
    edge.publish("a", "while it is rendered").await;
    // Also of a topic that nobody has heard of.
    for topic in ["a", "new"] {
        let query = format!("topic={topic}&lastEventId={cursor}&edge=quiet");
        let mut events = edge.events(protocol, &query).await;
        if topic == "a" {
            assert_eq!(events.data(1).await, ["while it is rendered"]);
        }
        edge.publish(topic, "after").await;
        assert_eq!(events.data(1).await, ["after"]);
    }
}

async fn what_is_published_while_the_app_answers_is_delivered(protocol: Protocol) {
    let (asked, mut asking) = tokio::sync::mpsc::channel(1);
    let (read, reads) = tokio::sync::watch::channel(());
    let app = Upstream::start(move |_| {
        let (asked, mut reads) = (asked.clone(), reads.clone());
        async move {
            // Its state is read, and not said yet.
            asked.send(()).await.expect("the test waits");
            reads.changed().await.expect("the test goes on");
            let response = http::Response::builder().header("seventh-subscribe", "orders");
            response.body(whole("data: state\n\n")).expect("a response")
        }
    })
    .await;
    let edge = TestEdge::with(&format!(
        "[[route]]\nhub = true\nupstream = \"{}\"",
        app.url()
    ));
    edge.publish("orders", "of before").await;
    let mut connection = edge.connect(protocol).await;
    let opening = async {
        let request = Request::get("/stream").header("accept", "text/event-stream");
        Events::ask(&mut connection, request.body(full("")).expect("a request")).await
    };
    let publishing = async {
        patiently("the app", asking.recv())
            .await
            .expect("it is asked");
        edge.publish("orders", "meanwhile").await;
        read.send(()).expect("the app waits");
    };
    let (mut events, ()) = tokio::join!(opening, publishing);
    assert_eq!(events.data(1).await, ["state"]);
    events.edge_event("edge-open").await;
    edge.publish("orders", "after").await;
    assert_eq!(events.data(2).await, ["meanwhile", "after"]);
}

async fn paths_of_the_operators_own_have_their_topics(protocol: Protocol) {
    let app = Upstream::echo().await;
    let edge = TestEdge::with(&format!(
        "{}\naccess.origins = [\"https://app.example\"]\n\
         [[events.stream]]\npath = \"/scores\"\ntopics = [\"game/7\", \"game/8\"]\nlast = 1\n\
         [[events.stream]]\npath = \"/news/\"\ntopics = [\"news\"]",
        app.route()
    ));
    edge.publish("game/7", "1").await;
    let second = edge.publish_id("game/8", "2").await;
    edge.publish("game/7", "3").await;
    let open = async |path: &str, id: &str| {
        let mut connection = edge.connect(protocol).await;
        let request = Request::get(path)
            .header("accept", "text/event-stream")
            .header("origin", "https://app.example")
            .header("last-event-id", id);
        let asked = request.body(full("")).expect("a request");
        Events::ask(&mut connection, asked).await.owning(connection)
    };
    let mut events = open("/scores", "").await;
    let allowed = &events.response.headers["access-control-allow-origin"];
    assert_eq!(allowed, "https://app.example");
    let (said, _) = events.edge_event("edge-open").await;
    assert_eq!(said["topics"], serde_json::json!(["game/7", "game/8"]));
    assert_eq!(events.data(1).await, ["3"]);
    edge.publish("game/8", "4").await;
    assert_eq!(events.data(1).await, ["4"]);
    // All else is as elsewhere: cursor, `last`, words for the edge.
    let mut back = open("/scores/?edge=quiet", &second).await;
    assert_eq!(back.data(2).await, ["3", "4"]);
    let mut all = open("/scores?last=4&edge=quiet", "").await;
    assert_eq!(all.data(4).await, ["1", "2", "3", "4"]);
    open("/news", "").await.edge_event("edge-open").await;
    let mut connection = edge.connect(protocol).await;
    let request = Request::get("/scores?topic=secret").body(full(""));
    let answer = Answer::of(&mut connection, request.expect("a request")).await;
    assert_eq!(answer.json()["field"], "topic", "{}", answer.text);
    let request = Request::get("/scores/7").body(full(""));
    let answer = Answer::of(&mut connection, request.expect("a request")).await;
    assert_eq!(answer.json()["target"], "/scores/7");
}

async fn what_the_edge_says_of_itself_is_for_whom_a_rule_allows_it(protocol: Protocol) {
    let rule = "[[access.rule]]\ntopic = \"$edge/*\"\nallow = [\"anonymous\"]";
    let edge = TestEdge::with(&format!("demo.enabled = false\n{rule}"));
    let query = "topic=$edge/stats&topic=a";
    let mut events = edge.events(protocol, query).await;
    let (open, _) = events.edge_event("edge-open").await;
    assert_eq!(open["topics"], serde_json::json!(["$edge/stats", "a"]));
    // One that is said while the stream is being opened does not count it yet.
    let said = loop {
        let said = events.message().await;
        let said: serde_json::Value = serde_json::from_str(&said.data).expect("JSON");
        assert_eq!(said["connections"], 1);
        if said["event_streams"] == 1 {
            break said;
        }
    };
    assert_eq!(said["requests"], 1);
    // Its uptime goes on.
    let later = events.message().await;
    let later: serde_json::Value = serde_json::from_str(&later.data).expect("JSON");
    assert!(
        later["uptime"].as_u64() > said["uptime"].as_u64(),
        "{later}"
    );
    // Nobody publishes to it, and without a rule nobody reads it, but for the operator.
    let answer = edge.ask("POST", "/topics/$edge%2Fstats", "forged").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let edge = TestEdge::with("demo.enabled = false");
    let mut connection = edge.connect(protocol).await;
    for (topic, status) in [
        ("$edge/stats", 401),
        ("$edge/other", 400),
        ("$relay:x", 400),
    ] {
        let request = Request::get(format!("/events?topic={topic}")).body(full(""));
        let answer = Answer::of(&mut connection, request.expect("a request")).await;
        assert_eq!(answer.status, status, "{topic}");
    }
    if protocol != Protocol::Http3 {
        let mut connection = edge.control(protocol).await;
        let request = Request::get("/stats").body(full("")).expect("a request");
        let mut events = Events::ask(&mut connection, request).await.opened().await;
        edge.ask("POST", "/broadcast", r#"{"data": "x", "anonymous": true}"#)
            .await;
        let said = events.message().await;
        assert!(said.data.contains("\"uptime\":"), "{}", said.data);
    }
}

/// Passes on what one client and the edge say, and counts how often the edge says something.
struct Meter {
    address: std::net::SocketAddr,
    said: Arc<AtomicUsize>,
    _passing: JoinSet<()>,
}

impl Meter {
    async fn start(edge: std::net::SocketAddr, protocol: Protocol) -> Self {
        let said = Arc::new(AtomicUsize::new(0));
        let counted = said.clone();
        let mut passing = JoinSet::new();
        let any = "127.0.0.1:0";
        if protocol == Protocol::Http3 {
            let here = UdpSocket::bind(any).await.expect("a port");
            let address = here.local_addr().expect("an address");
            let there = UdpSocket::bind(any).await.expect("a port");
            there.connect(edge).await.expect("an address");
            passing.spawn(async move {
                let (mut client, mut up, mut down) = (None, [0; 2048], [0; 2048]);
                loop {
                    tokio::select! {
                        Ok((length, from)) = here.recv_from(&mut up) => {
                            client = Some(from);
                            there.send(&up[..length]).await.expect("it is sent");
                        }
                        Ok(length) = there.recv(&mut down) => {
                            counted.fetch_add(1, Ordering::SeqCst);
                            let client = client.expect("it has asked");
                            here.send_to(&down[..length], client).await.expect("it is sent");
                        }
                    }
                }
            });
            return Self {
                address,
                said,
                _passing: passing,
            };
        }
        let listener = TcpListener::bind(any).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        passing.spawn(async move {
            let (mut client, _) = listener.accept().await.expect("a client");
            let mut there = TcpStream::connect(edge).await.expect("it listens");
            let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            loop {
                tokio::select! {
                    Ok(length) = client.read(&mut up) => {
                        if length == 0 { break; }
                        there.write_all(&up[..length]).await.expect("it is sent");
                    }
                    Ok(length) = there.read(&mut down) => {
                        counted.fetch_add(1, Ordering::SeqCst);
                        client.write_all(&down[..length]).await.expect("it is sent");
                    }
                }
            }
        });
        Self {
            address,
            said,
            _passing: passing,
        }
    }
}

/// Each packet wakes a phone's radio: those of fifty streams go out as one, or with an acknowledgement as
/// two.
async fn keepalives_of_a_connection_go_out_together(protocol: Protocol) {
    const BEATS: usize = 5;
    let edge = TestEdge::with("events.keepalive = \"1s\"");
    let meter = Meter::start(edge.https, protocol).await;
    let mut target = edge.target();
    target.address = Some(meter.address);
    let mut connection = patiently(
        "a connection",
        seventh::client::Connection::open(&target, protocol),
    )
    .await
    .expect("it connects");
    let began = tokio::time::Instant::now();
    let mut streams = Events::open_many(&mut connection, "topic=a", 50).await;
    let comments = async |events: &mut Events, count| {
        for _ in 0..count {
            let item = events.any_item().await;
            assert!(matches!(item, Some(Item::Comment(_))), "{item:?}");
        }
    };
    // What opening them took is over with the first.
    for events in &mut streams {
        comments(events, 1).await;
    }
    let before = meter.said.load(Ordering::SeqCst);
    for events in &mut streams {
        comments(events, BEATS).await;
    }
    let said = meter.said.load(Ordering::SeqCst) - before;
    // On a busy machine some are sent again. Each alone would be fifty a beat.
    assert!((BEATS..=6 * BEATS).contains(&said), "{said} for {BEATS}");
    // Each has one a beat, and no more: perhaps the next ones are out already.
    let sent = edge.metric("seventh_keepalives_total").await as usize;
    let beats = began.elapsed().as_secs() as usize;
    let most = streams.len() * (beats + 2);
    assert!(sent <= most, "{sent} of {most}");
}

/// An app whose answer does not end.
async fn endless() -> Upstream {
    Upstream::accepting("127.0.0.1:0", |mut stream| async move {
        let _head = crate::upstream::read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("it is read");
        let chunk = vec![b'x'; 64 << 10];
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await
}

/// The connection is full all the time: its task must see to what was published meanwhile whenever there
/// is room, and not at the next keepalive.
async fn events_pass_a_download(protocol: Protocol) {
    let app = endless().await;
    let edge = TestEdge::with(&format!(
        "events.keepalive = \"4m\"\n[[route]]\npath = \"/big\"\nupstream = \"{}\"",
        app.url()
    ));
    // On a way that is narrower than its ends.
    let meter = Meter::start(edge.https, protocol).await;
    let mut target = edge.target();
    target.address = Some(meter.address);
    let opening = seventh::client::Connection::open(&target, protocol);
    let mut connection = patiently("a connection", opening).await.expect("one");
    let mut streams = Events::open_many(&mut connection, "topic=a", 20).await;
    let mut download = patiently("an answer", connection.get("/big"))
        .await
        .expect("one");
    let loading = tokio::spawn(async move { while let Ok(Some(_)) = download.chunk().await {} });
    for n in 0..600 {
        edge.publish("a", n.to_string()).await;
    }
    for events in &mut streams {
        for n in 0..600 {
            assert_eq!(events.message().await.data, n.to_string());
        }
    }
    assert!(!loading.is_finished());
    loading.abort();
}

/// How long events take beside a long download on the same connection, and without: a figure to look at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn events_beside_a_download() {
    const STREAMS: usize = 50;
    const EVENTS: usize = 400;
    let app = endless().await;
    // A keepalive would have the connection look anew.
    let text = format!(
        "events.keepalive = \"4m\"\n[[route]]\npath = \"/big\"\nupstream = \"{}\"",
        app.url()
    );
    let server = crate::commands::Server::start(&text).await;
    for protocol in [Protocol::Http2, Protocol::Http3] {
        for download in [false, true] {
            let mut control = server.control().await;
            let mut connection = server.connect(protocol).await;
            let began = seventh::clock::now();
            let mut readers = JoinSet::new();
            for _ in 0..STREAMS {
                let request = Request::get("/events?topic=a&edge=quiet").body(full(""));
                let asked = request.expect("a request");
                let mut events = Events::ask(&mut connection, asked).await;
                readers.spawn(async move {
                    let mut waits = Vec::new();
                    for _ in 0..EVENTS {
                        let sent: u128 = events.message().await.data.parse().expect("a time");
                        waits.push(began.elapsed().as_micros() - sent);
                    }
                    waits
                });
            }
            let (got, downloading) = (Arc::new(AtomicUsize::new(0)), download);
            let counted = got.clone();
            let loading = tokio::spawn(async move {
                if downloading {
                    let mut response = connection.get("/big").await.expect("an answer");
                    while let Ok(Some(chunk)) = response.chunk().await {
                        counted.fetch_add(chunk.len(), Ordering::Relaxed);
                    }
                }
                // The streams' connection lives as long as this.
                std::future::pending::<()>().await;
                drop(connection);
            });
            tokio::time::sleep(Duration::from_millis(300)).await;
            for _ in 0..EVENTS {
                let now = began.elapsed().as_micros();
                let publish = Request::post("/topics/a").body(full(now.to_string()));
                Answer::of(&mut control, publish.expect("a request")).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut waits: Vec<u128> = Vec::new();
            while let Some(read) = readers.join_next().await {
                waits.extend(read.expect("no panic"));
            }
            waits.sort_unstable();
            let at = |share: f64| waits[(waits.len() as f64 * share) as usize] as f64 / 1000.0;
            println!(
                "{protocol} download {download}: p50 {:.2} ms, p99 {:.2} ms, {} MiB downloaded",
                at(0.5),
                at(0.99),
                got.load(Ordering::Relaxed) >> 20
            );
            loading.abort();
        }
    }
}
