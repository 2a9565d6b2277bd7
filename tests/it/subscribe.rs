//! Opening event streams.

use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::json;
use seventh::{
    client::{Protocol, full},
    sse::Item,
};

use crate::harness::{Answer, Events, TestEdge, every_protocol};

every_protocol!(
    the_first_bytes_leave_at_once,
    a_quiet_stream_has_no_priming_event,
    events_arrive_in_order_with_all_their_fields,
    an_event_in_several_topics_arrives_once,
    head_gets_the_head_alone,
    wrong_requests_are_told_what_is_wrong,
    a_quiet_stream_is_kept_alive,
    a_client_that_left_is_gone,
    ordinary_requests_are_answered,
);

async fn the_first_bytes_leave_at_once(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge.events(protocol, "topic=a&topic=b").await;
    let headers = &events.response.headers;
    assert_eq!(headers["cache-control"], "no-cache, no-transform");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["x-accel-buffering"], "no");
    let alt_svc = format!("h3=\":{}\"; ma=60", edge.https.port());
    match protocol {
        Protocol::Http3 => assert!(!headers.contains_key("alt-svc")),
        _ => assert_eq!(headers["alt-svc"], alt_svc),
    }
    let Some(Item::Retry(retry)) = events.item().await else {
        panic!("retry comes first")
    };
    assert!((1500..=4500).contains(&retry.as_millis()), "{retry:?}");
    let (data, id) = events.edge_event("edge-open").await;
    assert_eq!(
        (&data["topics"], &data["replay"], &data["keepalive"]),
        (&json!(["a", "b"]), &json!(false), &json!(15))
    );
    assert_eq!(data["protocol"], protocol.alpn());
    assert!(id.ends_with("-0"), "{id}");
}

async fn a_quiet_stream_has_no_priming_event(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge.events(protocol, "topic=a&edge=quiet").await;
    assert!(matches!(events.item().await, Some(Item::Retry(_))));
    edge.publish("a", "first").await;
    assert_eq!(events.data(1).await, ["first"]);
}

async fn events_arrive_in_order_with_all_their_fields(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge.events(protocol, "topic=a").await.opened().await;
    for n in 0..50 {
        edge.publish("a", n.to_string()).await;
    }
    let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(events.data(50).await, expected);
    edge.ask(
        "POST",
        "/topics/a?event=goal&id=09:42&retry=2000",
        "one\r\ntwo\n",
    )
    .await;
    assert_eq!(
        events.item().await,
        Some(Item::Retry(Duration::from_secs(2)))
    );
    let message = events.message().await;
    assert_eq!(
        (
            message.event.as_str(),
            message.data.as_str(),
            message.id.as_str()
        ),
        ("goal", "one\ntwo\n", "09:42")
    );
}

async fn an_event_in_several_topics_arrives_once(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut both = edge
        .events(protocol, "topic=a&topic=b")
        .await
        .opened()
        .await;
    let mut one = edge.events(protocol, "topic=b").await.opened().await;
    let answer = edge
        .ask("POST", "/publish", r#"{"topic": ["a", "b"], "data": "x"}"#)
        .await;
    assert_eq!(answer.json()["receivers"], 2);
    edge.publish("b", "y").await;
    assert_eq!(both.data(2).await, ["x", "y"]);
    assert_eq!(one.data(2).await, ["x", "y"]);
}

async fn head_gets_the_head_alone(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut connection = edge.connect(protocol).await;
    let request = Request::head("/events?topic=a")
        .body(full(""))
        .expect("a request");
    let answer = Answer::of(&mut connection, request).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (StatusCode::OK, "text/event-stream")
    );
    assert_eq!(answer.text, "");
    assert_eq!(edge.subscribers("a").await, 0);
}

async fn wrong_requests_are_told_what_is_wrong(protocol: Protocol) {
    let edge = TestEdge::with("events.topics = 2");
    let mut connection = edge.connect(protocol).await;
    for (method, path, accept, status, says) in [
        ("POST", "/events?topic=a", "*/*", 405, "GET, HEAD, OPTIONS"),
        ("GET", "/events?topic=a", "application/json", 406, "Accept"),
        ("GET", "/events?topic=", "*/*", 400, "empty"),
        ("GET", "/events?topic=$all", "*/*", 400, "reserved"),
        ("GET", "/events?topic=a%00b", "*/*", 400, "U+0000"),
        (
            "GET",
            "/events?topic=a&topic=b&topic=c",
            "*/*",
            400,
            "the limit is 2",
        ),
        ("GET", "/events?topic=a&last=-1", "*/*", 400, "last"),
        ("GET", "/nothing", "*/*", 404, "/events"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", accept);
        let answer = Answer::of(&mut connection, request.body(full("")).expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{path}"
        );
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        assert!(
            problem["detail"].as_str().expect("a detail").contains(says),
            "{path}: {problem}"
        );
        if status == 405 {
            assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
        }
    }
    let long = "x".repeat(1025);
    let request = Request::get(format!("/events?topic={long}"))
        .body(full(""))
        .expect("a request");
    let problem = Answer::of(&mut connection, request).await.json();
    assert_eq!(
        (&problem["field"], &problem["limit"]),
        (&json!("topic"), &json!(1024))
    );
}

async fn a_quiet_stream_is_kept_alive(protocol: Protocol) {
    let edge = TestEdge::with("events.keepalive = \"200ms\"");
    let mut events = edge.events(protocol, "topic=a").await.opened().await;
    for _ in 0..3 {
        assert_eq!(events.any_item().await, Some(Item::Comment(String::new())));
    }
    edge.publish("a", "x").await;
    loop {
        match events.any_item().await {
            Some(Item::Comment(_)) => {}
            Some(Item::Message(message)) => break assert_eq!(message.data, "x"),
            other => panic!("{other:?}"),
        }
    }
    assert!(edge.metric("seventh_keepalives_total").await >= 3);
}

async fn a_client_that_left_is_gone(protocol: Protocol) {
    let edge = TestEdge::start();
    let line = format!("seventh_event_streams{{protocol=\"{protocol}\"}}");
    let mut connection = edge.connect(protocol).await;
    let events = Events::open(&mut connection, "topic=a", &[])
        .await
        .opened()
        .await;
    edge.until_metric(&line, 1).await;
    if protocol != Protocol::Http1 {
        // The stream alone, while its connection stays.
        let other = Events::open(&mut connection, "topic=b", &[])
            .await
            .opened()
            .await;
        drop(other);
        edge.until_metric(&line, 1).await;
        assert_eq!(edge.subscribers("b").await, 0);
        assert_eq!(edge.subscribers("a").await, 1);
    }
    drop((events, connection));
    edge.until_metric(&line, 0).await;
    assert_eq!(edge.subscribers("a").await, 0);
    edge.until_metric(
        &format!("seventh_connections{{protocol=\"{protocol}\"}}"),
        0,
    )
    .await;
}

async fn ordinary_requests_are_answered(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut connection = edge.connect(protocol).await;
    for _ in 0..3 {
        let mut page = connection.get("/").await.expect("an answer");
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
        assert!(
            page.headers["content-security-policy"]
                .to_str()
                .expect("text")
                .starts_with("default-src 'none'")
        );
        assert!(
            page.bytes()
                .await
                .expect("a body")
                .starts_with(b"<!doctype html>")
        );
    }
}
