//! What makes hundreds of streams on one connection work.

use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::json;
use seventh::{
    client::{Protocol, full},
    sse::Item,
};

use crate::harness::{Answer, Events, TestEdge, every_protocol, patiently};

every_protocol!(the_demo_publishes_for_its_own_page_only);
every_protocol!(multiplexed:
    hundreds_of_streams_share_one_connection,
    streams_over_the_grant_are_refused_gently_and_leave_room_for_requests,
    as_many_requests_as_one_likes_beside_all_streams,
);

async fn hundreds_of_streams_share_one_connection(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut connection = edge.connect(protocol).await;
    let mut streams = Vec::new();
    for n in 0..400 {
        let events = Events::open(&mut connection, &format!("topic=all&topic=own/{n}"), &[]).await;
        streams.push(events.opened().await);
    }
    assert_eq!(
        edge.metric(&format!("seventh_connections{{protocol=\"{protocol}\"}}"))
            .await,
        1
    );
    assert_eq!(
        edge.metric(&format!("seventh_event_streams{{protocol=\"{protocol}\"}}"))
            .await,
        400
    );
    assert_eq!(edge.publish("all", "everyone").await["receivers"], 400);
    edge.publish("own/7", "you").await;
    for (n, events) in streams.iter_mut().enumerate() {
        assert_eq!(events.data(1).await, ["everyone"]);
        if n == 7 {
            assert_eq!(events.data(1).await, ["you"]);
        }
    }
    let mut page = connection.get("/").await.expect("an answer");
    assert_eq!(page.status, StatusCode::OK);
    page.bytes().await.expect("a body");
}

async fn streams_over_the_grant_are_refused_gently_and_leave_room_for_requests(protocol: Protocol) {
    let edge = TestEdge::with("limits.http2_streams = 32\nlimits.event_streams_http3 = 16");
    let mut connection = edge.connect(protocol).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(
            Events::open(&mut connection, "topic=a", &[])
                .await
                .opened()
                .await,
        );
    }
    let mut refused = Events::open(&mut connection, "topic=a", &[]).await;
    let Some(Item::Retry(retry)) = refused.item().await else {
        panic!("a time to come back")
    };
    assert!(retry >= Duration::from_secs(9), "{retry:?}");
    assert_eq!(refused.item().await, None);
    connection
        .get("/")
        .await
        .expect("there is room")
        .bytes()
        .await
        .expect("a body");
    let key = if protocol == Protocol::Http2 {
        "limits.http2_streams"
    } else {
        "limits.event_streams_http3"
    };
    assert_eq!(
        edge.metric(&format!("seventh_limit_hits_total{{limit=\"{key}\"}}"))
            .await,
        1
    );
    // One that ends makes room for another.
    streams.pop();
    edge.until_metric(
        &format!("seventh_event_streams{{protocol=\"{protocol}\"}}"),
        15,
    )
    .await;
    Events::open(&mut connection, "topic=a", &[])
        .await
        .opened()
        .await;
}

async fn the_demo_publishes_for_its_own_page_only(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge.events(protocol, "topic=demo/3").await.opened().await;
    let own = format!("https://localhost:{}", edge.https.port());
    let mut connection = edge.connect(protocol).await;
    for (origin, body, status) in [
        (
            Some(own.as_str()),
            json!({"topic": ["demo/3", "demo/4"], "data": "hi"}),
            200,
        ),
        (
            Some(own.as_str()),
            json!({"topic": "orders", "data": "x"}),
            403,
        ),
        (
            Some("https://evil.example"),
            json!({"topic": "demo/3", "data": "x"}),
            403,
        ),
        (Some("null"), json!({"topic": "demo/3", "data": "x"}), 403),
        (None, json!({"topic": "demo/3", "data": "x"}), 403),
    ] {
        let mut request = Request::post("/demo/publish");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let request = request.body(full(body.to_string())).expect("a request");
        let answer = Answer::of(&mut connection, request).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{origin:?} {body}: {}",
            answer.text
        );
    }
    assert_eq!(events.data(1).await, ["hi"]);
    let off = TestEdge::with("demo.enabled = false");
    let mut connection = off.connect(protocol).await;
    for path in ["/", "/demo/publish"] {
        let answer = connection.get(path).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
}

/// The grant is for streams that come and go: what was given once must come back.
async fn as_many_requests_as_one_likes_beside_all_streams(protocol: Protocol) {
    let edge = TestEdge::with("limits.http2_streams = 1016");
    let mut connection = edge.connect(protocol).await;
    let _streams = Events::open_many(&mut connection, "topic=a", 1000).await;
    for _ in 0..400 {
        let mut page = patiently("an answer", connection.get("/"))
            .await
            .expect("an answer");
        assert_eq!(page.status, StatusCode::OK);
        patiently("a body", page.bytes()).await.expect("a body");
    }
}

/// Chromium opens 256 streams of an HTTP/2 connection at most, whatever is granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_keeps_streams_for_its_calls_over_http2() {
    let edge = TestEdge::start();
    let mut connection = edge.connect(Protocol::Http2).await;
    let chromium = [("sec-ch-ua", "\"Chromium\";v=\"156\"")];
    let mut streams = Vec::new();
    for _ in 0..240 {
        let events = Events::open(&mut connection, "topic=a", &chromium).await;
        streams.push(events.opened().await);
    }
    let mut refused = Events::open(&mut connection, "topic=a", &chromium).await;
    assert!(matches!(refused.item().await, Some(Item::Retry(_))));
    assert_eq!(refused.item().await, None);
    let line = "seventh_limit_hits_total{limit=\"limits.event_streams_http2\"}";
    assert_eq!(edge.metric(line).await, 1);
    // Whoever has no such ceiling is not bound by it.
    Events::open(&mut connection, "topic=a", &[])
        .await
        .opened()
        .await;
}
