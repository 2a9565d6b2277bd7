//! What bites is counted, by the name of the limit.

use bytes::Bytes;
use http::{Request, StatusCode};
use seventh::{
    client::{Protocol, full},
    sse::Item,
};

use crate::harness::{Answer, Events, TestEdge, every_protocol, patiently, streaming};

every_protocol!(
    a_limit_that_bites_is_counted,
    a_connection_without_a_request_is_closed_and_counted,
    a_connection_that_asks_for_nothing_is_closed,
    a_body_may_take_its_time_but_not_pause,
    strangers_who_make_up_topics_evict_nobodys_history,
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
            assert_eq!(hits(&edge, "limits.connection_topics").await, n as u64 + 1);
            let events = Events::open(&mut connection, &query(100 * n, 19), &[]).await;
            streams.push(events.opened().await);
        } else {
            // Nobody has more names than this address.
            gently_refused(&mut connection, &query(100 * n, 19)).await;
            assert_eq!(hits(&edge, "limits.topics").await, 1);
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
    assert_eq!(hits(&edge, "limits.topics").await, 1);
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
    assert_eq!(hits(&edge, "stream_opens").await, 0);
    let mut rude = edge.connect(protocol).await;
    patiently("the end", async {
        while let Ok(mut response) = rude.get("/events?topic=a").await {
            if response.chunk().await.is_err() {
                break;
            }
        }
    })
    .await;
    assert_eq!(hits(&edge, "stream_opens").await, 1);
    Events::open(&mut page, "topic=a", &[]).await.opened().await;
}
