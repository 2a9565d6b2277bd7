//! What bites is counted, by the name of the limit.

use bytes::Bytes;
use http::{Request, StatusCode};
use seventh::client::{Protocol, full};

use crate::harness::{Answer, TestEdge, every_protocol, patiently, streaming};

every_protocol!(
    a_limit_that_bites_is_counted,
    a_connection_without_a_request_is_closed_and_counted,
    a_connection_that_asks_for_nothing_is_closed,
    a_body_may_take_its_time_but_not_pause,
);

async fn hits(edge: &TestEdge, limit: &str) -> u64 {
    let line = format!("seventh_limit_hits_total{{limit=\"{limit}\"}}");
    edge.metric(&line).await
}

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
        assert_eq!(hits(&edge, limit).await, 0);
        let request = request.body(full("")).expect("a request");
        let answer = Answer::of(&mut connection, request).await;
        assert_eq!(answer.status, status, "{limit}: {}", answer.text);
        assert_eq!(hits(&edge, limit).await, 1, "{limit}");
    }

    let named = "{\"topic\":[\"a\",\"b\"],\"data\":1}";
    let answer = edge.ask("POST", "/publish", named).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(hits(&edge, "events.topics").await, 2);
    let answer = edge.ask("POST", "/topics/a", "12345678901").await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let lines = "{\"topic\":\"a\",\"data\":\"12345678901\"}\n";
    let request = Request::post("/publish").header("content-type", "application/x-ndjson");
    let mut control = edge.control(Protocol::Http1).await;
    let request = request.body(full(lines.repeat(2))).expect("a request");
    Answer::of(&mut control, request).await;
    assert_eq!(hits(&edge, "limits.event_bytes").await, 3);
}

async fn a_connection_without_a_request_is_closed_and_counted(protocol: Protocol) {
    let edge = TestEdge::with("limits.idle = \"200ms\"");
    let mut connection = edge.connect(protocol).await;
    let answer = connection.get("/").await.expect("an answer").bytes().await;
    answer.expect("a body");
    patiently("the limit to bite", async {
        while hits(&edge, "limits.idle").await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let line = format!("seventh_connections{{protocol=\"{protocol}\"}}");
    drop(connection);
    edge.until_metric(&line, 0).await;
    assert_eq!(hits(&edge, "limits.idle").await, 1);
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
    let pause = std::time::Duration::from_millis(400);
    let edge =
        TestEdge::with("limits.request_body = \"2s\"\naccess.publish = [\"0123456789abcdef\"]");
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
    assert_eq!(hits(&edge, "limits.request_body").await, 0);

    let (sender, body) = streaming();
    sender.send(Bytes::from("x")).await.expect("there is room");
    let answer = Answer::of(&mut connection, post(body)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
    assert!(
        answer
            .text
            .contains("paused for over 2 s (limits.request_body)")
    );
    assert_eq!(hits(&edge, "limits.request_body").await, 1);
    drop(sender);
}
