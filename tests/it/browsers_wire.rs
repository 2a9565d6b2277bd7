//! What makes hundreds of streams on one connection work.

use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::json;
use seventh::{
    client::{Protocol, full},
    sse::Item,
};

use crate::harness::{Answer, Events, TestEdge, every_protocol};

every_protocol!(the_demo_publishes_for_its_own_page_only);
every_protocol!(multiplexed:
    hundreds_of_streams_share_one_connection,
    streams_over_the_grant_are_refused_gently_and_leave_room_for_requests,
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
    let edge = TestEdge::with("limits.http2_streams = 32\nlimits.http3_streams = 32");
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
        "limits.http3_streams"
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
