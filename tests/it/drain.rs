//! Ending in good order.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use seventh::{
    client::{EventSource, Protocol, Signal, Trust, full},
    edge::Drained,
    sse::Item,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use crate::harness::{Answer, Events, TestEdge, every_protocol, lines, patiently, streaming};
use crate::upstream::{Sent, Upstream, read_head};

every_protocol!(
    event_streams_end_without_a_reset,
    new_streams_are_refused_gently_or_not_at_all,
    a_publisher_of_lines_is_told,
    event_streams_of_an_app_end_without_a_reset,
);

const QUICK: &str = "drain.spread = \"500ms\"\ndrain.grace = \"20s\"";

async fn event_streams_end_without_a_reset(protocol: Protocol) {
    let edge = TestEdge::with(QUICK);
    let mut streams = Vec::new();
    let mut connection = edge.connect(protocol).await;
    for _ in 0..40 {
        if protocol == Protocol::Http1 {
            streams.push(edge.events(protocol, "topic=a").await.opened().await);
        } else {
            streams.push(
                Events::open(&mut connection, "topic=a", &[])
                    .await
                    .opened()
                    .await,
            );
        }
    }
    edge.publish("a", "last").await;
    let drained = tokio::spawn(edge.drain());
    let mut waits = Vec::new();
    for mut stream in streams {
        assert_eq!(stream.data(1).await, ["last"]);
        let Some(Item::Retry(retry)) = stream.item().await else {
            panic!("a time to come back")
        };
        // It sticks: a client that is told less hammers an edge that is gone.
        let least = Duration::from_millis(500);
        assert!((least..=2 * least).contains(&retry), "{retry:?}");
        waits.push(retry);
        assert_eq!(stream.try_item().await.expect("no reset"), None);
    }
    waits.dedup();
    assert!(
        waits.len() > 10,
        "the times to come back are spread: {waits:?}"
    );
    assert_eq!(
        patiently("the drain", drained).await.expect("no panic"),
        Drained::Clean
    );
}

async fn new_streams_are_refused_gently_or_not_at_all(protocol: Protocol) {
    let edge = TestEdge::with(QUICK);
    let https = edge.https;
    let mut connection = edge.connect(protocol).await;
    let stream = Events::open(&mut connection, "topic=a", &[])
        .await
        .opened()
        .await;
    let target = edge.target();
    let mut control = edge.control(Protocol::Http1).await;
    let drained = tokio::spawn(edge.drain());
    // Readiness goes off, while the control listener still answers.
    patiently("readiness", async {
        loop {
            let request = Request::get("/readyz").body(full("")).expect("a request");
            let Ok(response) = control.send(request).await else {
                break;
            };
            if response.status == StatusCode::SERVICE_UNAVAILABLE {
                break;
            }
        }
    })
    .await;
    if protocol != Protocol::Http1 {
        // One that crosses the GOAWAY is answered gently; later ones are not sent at all.
        if let Ok(mut response) = connection.get("/events?topic=b").await {
            let body = response.bytes().await.expect("a clean end");
            assert!(body.starts_with(b"retry: "), "{body:?}");
        }
    }
    // Nobody listens any more. QUIC clients learn so from the endpoint, or from silence.
    if protocol != Protocol::Http3 {
        let refused = seventh::client::Connection::open(&target, protocol).await;
        assert!(refused.is_err(), "{https} is closed");
    }
    drop((stream, connection));
    assert_eq!(
        patiently("the drain", drained).await.expect("no panic"),
        Drained::Clean
    );
}

/// What is in the middle of being answered is finished.
#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_request_finishes() {
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
        let edge = TestEdge::with(QUICK);
        let mut connection = edge.connect(protocol).await;
        let (parts, body) = streaming();
        let request = Request::post("/demo/publish")
            .header("origin", format!("https://localhost:{}", edge.https.port()));
        let request = request.body(body).expect("a request");
        let answer = tokio::spawn(async move { Answer::of(&mut connection, request).await });
        parts
            .send("{\"topic\":\"demo/0\",".into())
            .await
            .expect("it is read");
        let in_progress = format!("seventh_requests_in_progress{{protocol=\"{protocol}\"}}");
        edge.until_metric(&in_progress, 1).await;
        // The rest comes after the drain has begun.
        parts.send("\"data\":".into()).await.expect("it is read");
        let control = edge.control;
        let drained = tokio::spawn(edge.drain());
        until_not_ready(control).await;
        parts.send("\"x\"}".into()).await.expect("it is read");
        drop(parts);
        let answer = patiently("the answer", answer).await.expect("no panic");
        assert_eq!(answer.status, StatusCode::OK, "{protocol}: {}", answer.text);
        assert_eq!(
            patiently("the drain", drained).await.expect("no panic"),
            Drained::Clean
        );
    }
}

/// One that thinks between two lines would otherwise keep the edge from ending, and be cut without
/// knowing what was published.
async fn a_publisher_of_lines_is_told(protocol: Protocol) {
    let edge = TestEdge::with(&format!("{QUICK}\naccess.publish = [\"0123456789abcdef\"]"));
    let mut outside = edge.connect(protocol).await;
    let mut control = edge.control(Protocol::Http1).await;
    let mut publishing = Vec::new();
    for connection in [&mut outside, &mut control] {
        let (lines, request) = lines();
        let sent = connection.send(request);
        let line = "{\"topic\":\"a\",\"data\":1}\n";
        let (sent, response) = tokio::join!(lines.send(line.into()), patiently("an answer", sent));
        sent.expect("it is read");
        let mut response = response.expect("an answer");
        let first = patiently("an answer", response.chunk())
            .await
            .expect("it goes on");
        assert!(first.expect("a line").starts_with(b"{\"id\""));
        publishing.push((lines, response));
    }
    assert_eq!(edge.drain().await, Drained::Clean);
    for (_lines, mut response) in publishing {
        let last = patiently("the end", response.bytes())
            .await
            .expect("a clean end");
        let last: serde_json::Value = serde_json::from_slice(&last).expect("a line of JSON");
        assert_eq!(last["status"], 503, "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_is_cut_after_the_grace() {
    let edge = TestEdge::with("drain.spread = \"0s\"\ndrain.grace = \"300ms\"");
    let mut connection = edge.connect(Protocol::Http2).await;
    let (_parts, body) = streaming();
    let request = Request::post("/demo/publish")
        .header("origin", format!("https://localhost:{}", edge.https.port()));
    let request = request.body(body.boxed_unsync()).expect("a request");
    let waiting = tokio::spawn(async move { connection.send(request).await.map(|_| ()) });
    edge.until_metric("seventh_requests_in_progress{protocol=\"h2\"}", 1)
        .await;
    assert_eq!(edge.drain().await, Drained::Cut(1));
    patiently("the cut", waiting)
        .await
        .expect("no panic")
        .expect_err("it was cut");
}

/// 1,000 clients go through a drain and come back to a second instance on the same port. With
/// memory history they must see a gap with reason `restart`, never silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_come_back_to_a_second_instance() {
    const EACH: usize = 100;
    // An address that no other test uses, so that nobody takes the port in between.
    let address = "127.0.0.2:0".parse().expect("an address");
    let first =
        TestEdge::at(address, "drain.spread = \"2s\"\ndrain.grace = \"20s\"").expect("it starts");
    let https = first.https;
    let mut clients = JoinSet::new();
    let (opened, mut open) = tokio::sync::mpsc::channel(1000);
    for n in 0..1000 {
        let protocol = match n / EACH {
            0..4 => Protocol::Http1,
            4..7 => Protocol::Http2,
            _ => Protocol::Http3,
        };
        let url = format!("https://127.0.0.2:{}/events?topic=a", https.port())
            .parse()
            .expect("a URL");
        let opened = opened.clone();
        clients.spawn(async move {
            let mut source = EventSource::new(url, protocol, Trust::Anyone, String::new());
            let mut seen = Vec::new();
            loop {
                match patiently("a signal", source.next())
                    .await
                    .expect("it never closes")
                {
                    Signal::Open => {}
                    Signal::Message(message) if message.event == "edge-open" => {
                        opened.send(()).await.expect("the test listens");
                    }
                    Signal::Message(message) => {
                        seen.push((message.event, message.data));
                        if seen.last().is_some_and(|(_, data)| data == "after") {
                            return seen;
                        }
                    }
                    // Told to go in good order, or nobody there yet; never a reset.
                    Signal::Reconnecting { why, .. } => {
                        assert!(
                            why == "the stream ended" || why.starts_with("cannot connect"),
                            "{protocol}: {why}"
                        );
                    }
                    Signal::Closed { why } => panic!("{protocol}: {why}"),
                }
            }
        });
    }
    for _ in 0..1000 {
        patiently("a client", open.recv()).await;
    }
    first.publish("a", "before").await;
    assert_eq!(first.drain().await, Drained::Clean);

    // The socket of the first is closed by a task of quinn's own.
    let second = patiently("the port", async {
        loop {
            match TestEdge::at(https, "") {
                Ok(edge) => break edge,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await;
    second.publish("a", "while away").await;
    for _ in 0..1000 {
        patiently("a client to come back", open.recv()).await;
    }
    second.publish("a", "after").await;
    while let Some(seen) = clients.join_next().await {
        let seen = seen.expect("a client does not panic");
        let [(message, before), (gap, reason), (_, held), (_, after)] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!((message.as_str(), before.as_str()), ("message", "before"));
        assert_eq!(gap, "edge-gap");
        assert!(reason.contains("\"reason\":\"restart\""), "{reason}");
        assert_eq!((held.as_str(), after.as_str()), ("while away", "after"));
    }
}

async fn event_streams_of_an_app_end_without_a_reset(protocol: Protocol) {
    // A GET of an `EventSource` is read event by event, others pass as they are; none ends by itself.
    let app = Upstream::start(|_| async {
        let first = stream::iter([Ok(Frame::data(Bytes::from("data: first\n\n")))]);
        let body: Sent = StreamBody::new(first.chain(stream::pending()).boxed()).boxed_unsync();
        let response = http::Response::builder().header("content-type", "text/event-stream");
        response.body(body).expect("a response")
    })
    .await;
    let edge = TestEdge::with(&format!("{QUICK}\n{}", app.route()));
    let mut connection = edge.connect(protocol).await;
    let request = Request::get("/").header("accept", "text/event-stream");
    let mut events = Events::ask(&mut connection, request.body(full("")).expect("a request")).await;
    assert_eq!(events.data(1).await, ["first"]);
    let drained = tokio::spawn(edge.drain());
    let Some(Item::Retry(retry)) = events.item().await else {
        panic!("a time to come back")
    };
    assert!(retry >= Duration::from_millis(500), "{retry:?}");
    assert_eq!(events.try_item().await.expect("no reset"), None);
    drop(connection);
    assert_eq!(
        patiently("the drain", drained).await.expect("no panic"),
        Drained::Clean
    );
}

/// A tunnel goes on while the edge ends, and keeps it no longer than the grace.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_has_the_grace() {
    for (grace, outcome) in [("20s", Drained::Clean), ("300ms", Drained::Cut(1))] {
        let app = Upstream::accepting("127.0.0.1:0", |mut stream| async move {
            let _head = read_head(&mut stream).await;
            let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                          upgrade: websocket\r\n\r\n";
            stream
                .write_all(agreed.as_bytes())
                .await
                .expect("it is read");
            let (mut read, mut write) = stream.split();
            let _: std::io::Result<u64> = tokio::io::copy(&mut read, &mut write).await;
        })
        .await;
        let edge = TestEdge::with(&format!(
            "drain.spread = \"0s\"\ndrain.grace = \"{grace}\"\n{}",
            app.route()
        ));
        let mut io = edge.raw_http1().await;
        let head = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\n\
                    upgrade: websocket\r\n\r\n";
        io.write_all(head.as_bytes()).await.expect("it is sent");
        patiently("an answer", read_head(&mut io))
            .await
            .expect("one");
        let control = edge.control;
        let drained = tokio::spawn(edge.drain());
        until_not_ready(control).await;
        if outcome == Drained::Clean {
            io.write_all(b"still here").await.expect("it is sent");
            let mut echo = [0; 10];
            patiently("the echo", io.read_exact(&mut echo))
                .await
                .expect("it goes on");
            assert_eq!(&echo, b"still here");
            drop(io);
        }
        let drained = patiently("the drain", drained).await.expect("no panic");
        assert_eq!(drained, outcome);
    }
}

/// Waits until the edge says that it ends.
async fn until_not_ready(control: std::net::SocketAddr) {
    patiently("the drain to begin", async {
        while let Ok(mut stream) = tokio::net::TcpStream::connect(control).await {
            let request =
                format!("GET /readyz HTTP/1.1\r\nHost: {control}\r\nConnection: close\r\n\r\n");
            stream
                .write_all(request.as_bytes())
                .await
                .expect("it is read");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("an answer");
            if text.contains("503") {
                break;
            }
        }
    })
    .await;
}
