//! What bites is counted, by the name of the limit.

use bytes::Bytes;
use http::{Request, StatusCode};
use seventh::{
    client::{Connection, Protocol, full},
    sse::Item,
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::access;
use crate::harness::{
    Answer, Events, TestEdge, every_protocol, patiently, plain_answer, streaming, tcp_from,
};

every_protocol!(
    a_limit_that_bites_is_counted,
    a_connection_without_a_request_is_closed_and_counted,
    a_connection_that_asks_for_nothing_is_closed,
    a_body_may_take_its_time_but_not_pause,
    strangers_who_make_up_topics_evict_nobodys_history,
    one_address_does_not_take_all_event_streams,
    a_user_has_so_many_event_streams,
    idle_connections_end_for_those_who_come,
    a_topic_has_so_many_readers,
    a_connection_asks_for_so_much_a_second,
    a_publisher_from_outside_has_its_pace,
);

async fn a_limit_that_bites_is_counted(protocol: Protocol) {
    let edge = TestEdge::with("limits.event_bytes = \"10 B\"\nevents.topics = 1");
    let mut connection = edge.connect(protocol).await;
    let many = (0..70).fold(Request::get("/events?topic=a"), |request, n| {
        request.header(format!("x-{n}"), "y")
    });
    let long = Request::get("/events?topic=a").header("x", "y".repeat((16 << 10) - 10));
    let topics = Request::get("/events?topic=a&topic=b");
    for (request, status, limit) in [
        (many, 431, "limits.header_count"),
        (long, 431, "limits.header_bytes"),
        (topics, 400, "events.topics"),
    ] {
        assert_eq!(edge.hits(limit).await, 0);
        let request = request.body(full("")).expect("a request");
        let answer = Answer::of(&mut connection, request).await;
        assert_eq!(answer.status, status, "{limit}: {}", answer.text);
        assert_eq!(edge.hits(limit).await, 1, "{limit}");
    }

    let named = "{\"topic\":[\"a\",\"b\"],\"data\":1}";
    let answer = edge.ask("POST", "/publish", named).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(edge.hits("events.topics").await, 2);
    let answer = edge.ask("POST", "/topics/a", "12345678901").await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let lines = "{\"topic\":\"a\",\"data\":\"12345678901\"}\n";
    let request = Request::post("/publish").header("content-type", "application/x-ndjson");
    let mut control = edge.control(Protocol::Http1).await;
    let request = request.body(full(lines.repeat(2))).expect("a request");
    Answer::of(&mut control, request).await;
    assert_eq!(edge.hits("limits.event_bytes").await, 3);
}

async fn a_connection_without_a_request_is_closed_and_counted(protocol: Protocol) {
    let edge = TestEdge::with("limits.idle = \"2s\"");
    let mut connection = edge.connect(protocol).await;
    let answer = connection.get("/").await.expect("an answer").bytes().await;
    answer.expect("a body");
    patiently("the limit to bite", async {
        while edge.hits("limits.idle").await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let line = format!("seventh_connections{{protocol=\"{protocol}\"}}");
    drop(connection);
    edge.until_metric(&line, 0).await;
    assert_eq!(edge.hits("limits.idle").await, 1);
}

/// The other has asked for something, and may do so again when the time for that is over.
async fn a_connection_that_asks_for_nothing_is_closed(protocol: Protocol) {
    let edge = TestEdge::with("limits.handshake = \"3s\"");
    let mut asked = edge.connect(protocol).await;
    let answer = asked.get("/").await.expect("an answer").bytes().await;
    answer.expect("a body");
    let _silent = edge.connect(protocol).await;
    let line = "seventh_limit_hits_total{limit=\"limits.handshake\"}";
    edge.until_metric(line, 1).await;
    let line = format!("seventh_connections{{protocol=\"{protocol}\"}}");
    edge.until_metric(&line, 1).await;
    let answer = asked.get("/").await.expect("an answer").bytes().await;
    answer.expect("a body");
}

async fn a_body_may_take_its_time_but_not_pause(protocol: Protocol) {
    let pause = std::time::Duration::from_millis(800);
    let edge =
        TestEdge::with("limits.request_body = \"5s\"\naccess.publish = [\"0123456789abcdef\"]");
    let post = |body| {
        let request = Request::post("/topics/a").header("authorization", "Bearer 0123456789abcdef");
        request.body(body).expect("a request")
    };
    let mut connection = edge.connect(protocol).await;
    let (sender, body) = streaming();
    let sending = tokio::spawn(async move {
        // Over the limit in all, each pause well under it.
        for _ in 0..7 {
            sender.send(Bytes::from("x")).await.expect("it is read");
            tokio::time::sleep(pause).await;
        }
    });
    let answer = Answer::of(&mut connection, post(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    sending.await.expect("it does not panic");
    assert_eq!(edge.hits("limits.request_body").await, 0);

    let (sender, body) = streaming();
    sender.send(Bytes::from("x")).await.expect("there is room");
    let answer = Answer::of(&mut connection, post(body)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
    assert!(
        answer
            .text
            .contains("paused for over 5 s (limits.request_body)")
    );
    assert_eq!(edge.hits("limits.request_body").await, 1);
    drop(sender);
}

/// Topics that are merely read are counted on their own: per connection, and in total.
async fn strangers_who_make_up_topics_evict_nobodys_history(protocol: Protocol) {
    let edge = TestEdge::with(
        "limits.connection_topics = 20\nlimits.topics = 50\nhistory.total_bytes = \"4 KiB\"",
    );
    for n in 0..5 {
        edge.publish("kept", n.to_string()).await;
    }
    let query = |first: usize, count: usize| {
        let names: Vec<String> = (first..first + count)
            .map(|n| format!("topic={n}"))
            .collect();
        names.join("&")
    };
    let gently_refused = async |connection: &mut _, query: &str| {
        let refused = Events::open(connection, query, &[]).await.item().await;
        assert!(matches!(refused, Some(Item::Retry(_))), "{refused:?}");
    };
    let mut connections = Vec::new();
    let mut streams = Vec::new();
    for n in 0..3 {
        let mut connection = edge.connect(protocol).await;
        if n < 2 {
            gently_refused(&mut connection, &query(100 * n, 21)).await;
            assert_eq!(edge.hits("limits.connection_topics").await, n as u64 + 1);
            let events = Events::open(&mut connection, &query(100 * n, 19), &[]).await;
            streams.push(events.opened().await);
        } else {
            // Nobody has more names than this address.
            gently_refused(&mut connection, &query(100 * n, 19)).await;
            assert_eq!(edge.hits("limits.topics").await, 1);
            let events = Events::open(&mut connection, "topic=1&topic=101&topic=kept", &[]).await;
            streams.push(events.opened().await);
        }
        connections.push(connection);
    }
    assert_eq!(
        edge.ask("GET", "/topics/kept", "").await.json()["events"],
        5
    );
    // A publish is never refused for names, and who publishes to one takes it out of them.
    assert_eq!(edge.publish("1", "x").await["receivers"], 2);
    assert_eq!(edge.publish("new", "x").await["receivers"], 0);
    assert_eq!(streams[0].data(1).await, ["x"]);
    // Those whose streams have ended do not count.
    drop((streams, connections));
    patiently("the streams to end", async {
        while edge.subscribers("kept").await > 0 || edge.subscribers("0").await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    edge.events(protocol, &query(300, 19)).await.opened().await;
    assert_eq!(edge.hits("limits.topics").await, 1);
}

/// A stream of a client from this address, as a proxy that is trusted says it.
async fn from(edge: &TestEdge, protocol: Protocol, address: &str) -> Events {
    let mut connection = edge.connect(protocol).await;
    let fields = [("x-forwarded-for", address)];
    let events = Events::open(&mut connection, "topic=a", &fields).await;
    events.owning(connection)
}

/// What a refusal tells its client to wait, in milliseconds; it says which limit it was, and ends.
async fn refused(mut events: Events, limit: &str) -> u64 {
    let retry = events.retry().await;
    let said = events.any_item().await;
    assert_eq!(said, Some(Item::Comment(format!(" {limit} is reached"))));
    assert_eq!(events.any_item().await, None);
    retry.as_millis() as u64
}

async fn one_address_does_not_take_all_event_streams(protocol: Protocol) {
    let edge = TestEdge::with(
        "limits.event_streams = 8\nlimits.address_event_streams = 7\ntrusted.networks = [\"127.0.0.0/8\"]",
    );
    let mut open = Vec::new();
    // Two addresses of one customer's network are one.
    for n in 0..6 {
        let address = format!("2001:db8:0:1::{n}");
        open.push(from(&edge, protocol, &address).await.opened().await);
    }
    let seventh = from(&edge, protocol, "2001:db8:0:1::7").await;
    let limit = "limits.address_event_streams";
    let first = refused(seventh, limit).await;
    // A page with many streams is asked to wait as long as for one; others of the address too.
    let second = refused(from(&edge, protocol, "2001:db8:0:1::8").await, limit).await;
    for retry in [first, second] {
        assert!((9_000..=18_000).contains(&retry), "{retry}");
    }
    for _ in 0..2 {
        open.push(from(&edge, protocol, "192.0.2.1").await.opened().await);
    }
    refused(
        from(&edge, protocol, "192.0.2.2").await,
        "limits.event_streams",
    )
    .await;
    assert_eq!(edge.hits(limit).await, 2);
    assert_eq!(edge.hits("limits.event_streams").await, 1);
    // What is given back can be taken.
    drop(open.pop());
    edge.until_metric(
        &format!("seventh_event_streams{{protocol=\"{protocol}\"}}"),
        7,
    )
    .await;
    from(&edge, protocol, "192.0.2.2").await.opened().await;
}

async fn a_user_has_so_many_event_streams(protocol: Protocol) {
    let edge = access::with_secret("limits.user_event_streams = 2");
    let bearer = format!("Bearer {}", access::token(&access::claims()));
    let fields = [("authorization", &*bearer)];
    let mut open = Vec::new();
    for n in 0..3 {
        let mut connection = edge.connect(protocol).await;
        let events = Events::open(&mut connection, "topic=a", &fields).await;
        let events = events.owning(connection);
        if n < 2 {
            open.push(events.opened().await);
        } else {
            refused(events, "limits.user_event_streams").await;
        }
    }
    drop(open);
    edge.until_metric(
        &format!("seventh_event_streams{{protocol=\"{protocol}\"}}"),
        0,
    )
    .await;
    let mut connection = edge.connect(protocol).await;
    let events = Events::open(&mut connection, "topic=a", &fields).await;
    events.opened().await;
}

async fn a_topic_has_so_many_readers(protocol: Protocol) {
    let edge = TestEdge::with("limits.topic_event_streams = 2");
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(
            edge.events(protocol, "topic=a&topic=b")
                .await
                .opened()
                .await,
        );
    }
    let limit = "limits.topic_event_streams";
    refused(edge.events(protocol, "topic=b&topic=c").await, limit).await;
    edge.events(protocol, "topic=c").await.opened().await;
    assert_eq!(edge.hits(limit).await, 1);
}

async fn a_connection_asks_for_so_much_a_second(protocol: Protocol) {
    let edge = TestEdge::with("limits.request_rate = 1\nlimits.exempt = []");
    let mut connection = edge.connect(protocol).await;
    let answer = async |connection: &mut Connection| {
        let request = Request::get("/").body(full("")).expect("a request");
        Answer::of(connection, request).await
    };
    let refused = patiently("the limit to bite", async {
        loop {
            let answer = answer(&mut connection).await;
            if answer.status != 200 {
                break answer;
            }
        }
    })
    .await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("retry-after")),
        (429, "1")
    );
    assert!(
        refused.text.contains("limits.request_rate"),
        "{}",
        refused.text
    );
    assert!(edge.hits("limits.request_rate").await >= 1);
    // Another connection has its own.
    let mut other = edge.connect(protocol).await;
    assert_eq!(answer(&mut other).await.status, 200);
}

async fn a_publisher_from_outside_has_its_pace(protocol: Protocol) {
    let edge = TestEdge::with(
        "limits.publish_rate = 1\naccess.publish = [\"0123456789abcdef\", \"fedcba9876543210\"]",
    );
    let mut connection = edge.connect(protocol).await;
    let mut publish = async |key: &str, path: &str, body: String| {
        // However the scheme is spelled, it is one key.
        let scheme = ["Bearer", "bearer", "bEARER"][fastrand::usize(..3)];
        let request = Request::post(path)
            .header("authorization", format!("{scheme} {key}"))
            .header("content-type", "application/x-ndjson");
        let request = request.body(full(body)).expect("a request");
        Answer::of(&mut connection, request).await
    };
    let key = "0123456789abcdef";
    let refused = patiently("the limit to bite", async {
        loop {
            let answer = publish(key, "/topics/a", "x".into()).await;
            if answer.status != 200 {
                break answer;
            }
        }
    })
    .await;
    assert_eq!(refused.status, 429);
    // A line of many is refused as one event is.
    let lines = "{\"topic\": \"a\", \"data\": 1}\n".repeat(30);
    let answers = publish(key, "/publish", lines).await;
    assert_eq!(answers.status, 200);
    assert!(answers.text.contains("\"status\":429"), "{}", answers.text);
    // Others have theirs, and the control listener is the operator's own.
    let other = publish("fedcba9876543210", "/topics/a", "x".into()).await;
    assert_eq!(other.status, 200);
    for _ in 0..20 {
        edge.publish("a", "x").await;
    }
}

/// The seventh stream of a browser over HTTP/1.1 cannot reach the edge; that there are five can be seen.
#[tokio::test]
async fn a_browser_that_comes_near_six_streams_over_http1_is_counted() {
    let edge = TestEdge::start();
    let browser = [("user-agent", "Mozilla/5.0 (X11) Firefox/140.0")];
    let program = [("user-agent", "curl/8")];
    let mut open = Vec::new();
    for (protocol, fields, crowds) in [
        (Protocol::Http2, browser, 0),
        (Protocol::Http1, program, 0),
        (Protocol::Http1, browser, 1),
    ] {
        for _ in 0..6 {
            let mut connection = edge.connect(protocol).await;
            let events = Events::open(&mut connection, "topic=a", &fields).await;
            open.push(events.owning(connection).opened().await);
        }
        assert_eq!(edge.metric("seventh_http1_crowds_total").await, crowds);
    }
}

/// A connection from this address of the machine, without TLS, and whether it is let in.
async fn plain_from(edge: &TestEdge, last: u8) -> Option<TcpStream> {
    plain_answer(tcp_from(edge.http()[0], last).await).await
}

#[tokio::test]
async fn an_address_begins_so_many_connections_a_second() {
    let edge = TestEdge::with(
        "limits.connection_rate = 1\nlimits.exempt = []\nhttp.listen = [\"127.0.0.1:0\"]",
    );
    patiently("the limit to bite", async {
        while plain_from(&edge, 1).await.is_some() {}
    })
    .await;
    assert!(edge.hits("limits.connection_rate").await >= 1);
    assert!(plain_from(&edge, 2).await.is_some());
}

/// Whoever only connects has its share of the handshakes and no more.
#[tokio::test]
async fn one_address_does_not_take_all_handshakes() {
    let edge =
        TestEdge::with("limits.handshakes = 8\nlimits.exempt = []\nlimits.handshake = \"1h\"");
    let mut silent = Vec::new();
    let turned_away = async |stream: &mut TcpStream| stream.read(&mut [0; 1]).await;
    for _ in 0..7 {
        silent.push(tcp_from(edge.https, 2).await);
    }
    let last = silent.last_mut().expect("there is one");
    let read = patiently("the end", turned_away(last)).await;
    assert!(read.is_err() || read.is_ok_and(|read| read == 0));
    assert_eq!(edge.hits("limits.address_handshakes").await, 1);
    // Others are let in, and give their places back.
    for protocol in Protocol::ALL {
        for _ in 0..4 {
            edge.events(protocol, "topic=a").await.opened().await;
        }
    }
}

/// At the bound connections end that do nothing, and those with event streams stay.
async fn idle_connections_end_for_those_who_come(protocol: Protocol) {
    const BOUND: usize = 6;
    let edge = TestEdge::with(&format!(
        "limits.connections = {BOUND}\nlimits.idle = \"1h\""
    ));
    let mut streams = Vec::new();
    let mut idle = Vec::new();
    for n in 0..BOUND {
        if n % 2 == 0 {
            streams.push(edge.events(protocol, "topic=a").await.opened().await);
        } else {
            let mut connection = edge.connect(protocol).await;
            let answer = connection.get("/").await.expect("an answer").bytes().await;
            answer.expect("a body");
            idle.push(connection);
        }
    }
    for other in Protocol::ALL {
        // Until the others have done nothing for a while.
        let come = async {
            loop {
                if let Ok(mut connection) = Connection::open(&edge.target(), other).await
                    && let Ok(mut answer) = connection.get("/").await
                    && answer.bytes().await.is_ok()
                {
                    break connection;
                }
            }
        };
        let mut connection = patiently("room", come).await;
        let events = Events::open(&mut connection, "topic=a", &[]).await;
        streams.push(events.owning(connection).opened().await);
    }
    assert_eq!(edge.publish("a", "x").await["receivers"], BOUND);
    for events in &mut streams {
        assert_eq!(events.data(1).await, ["x"]);
    }
    // All of them do something now.
    for other in Protocol::ALL {
        assert!(
            Connection::open(&edge.target(), other).await.is_err(),
            "{other}"
        );
    }
}

/// Connections are shared out as event streams are: over TCP and QUIC, before anything was asked.
#[tokio::test]
async fn one_address_does_not_take_all_connections() {
    let edge = TestEdge::with(
        "limits.connections = 8\nlimits.exempt = []\nhttp.listen = [\"127.0.0.1:0\"]",
    );
    let mut held = Vec::new();
    for last in [1, 1, 1, 1, 1, 1, 2, 2] {
        if held.len() == 6 {
            assert!(plain_from(&edge, 1).await.is_none());
        }
        held.push(plain_from(&edge, last).await.expect("there is room"));
    }
    assert!(plain_from(&edge, 3).await.is_none());
    assert_eq!(edge.hits("limits.address_connections").await, 1);
    assert_eq!(edge.hits("limits.connections").await, 1);
}

mod multiplexed {
    use super::event_streams_opened_and_left_again_and_again_are_too_many;
    use crate::harness::every_protocol;

    every_protocol!(multiplexed: event_streams_opened_and_left_again_and_again_are_too_many);
}

/// A page that is left and comes back opens all of its streams anew; one that never stops has its
/// connection closed.
async fn event_streams_opened_and_left_again_and_again_are_too_many(protocol: Protocol) {
    let edge = TestEdge::with("limits.http2_streams = 48\nlimits.event_streams_http3 = 32");
    let mut page = edge.connect(protocol).await;
    for _ in 0..3 {
        let streams = Events::open_many(&mut page, "topic=a", 30).await;
        drop(streams);
        let open = format!("seventh_event_streams{{protocol=\"{protocol}\"}}");
        edge.until_metric(&open, 0).await;
    }
    assert_eq!(edge.hits("stream_opens").await, 0);
    let mut rude = edge.connect(protocol).await;
    patiently("the end", async {
        while let Ok(mut response) = rude.get("/events?topic=a").await {
            if response.chunk().await.is_err() {
                break;
            }
        }
    })
    .await;
    assert_eq!(edge.hits("stream_opens").await, 1);
    Events::open(&mut page, "topic=a", &[]).await.opened().await;
}
