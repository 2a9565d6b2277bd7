//! The private listener: what it tells, and whom it keeps out.

use http::{Request, StatusCode};
use serde_json::json;
use seventh::{
    client::{Protocol, full},
    config::Config,
};

use crate::harness::{Answer, TestEdge};

#[tokio::test]
async fn topics_are_listed_shown_and_deleted() {
    let edge = TestEdge::start();
    let id = edge.publish_id("b", "1").await;
    edge.ask("POST", "/topics/b?id=own", "2").await;
    edge.publish("c%20d", "1").await;
    let _events = edge
        .events(Protocol::Http2, "topic=a&topic=b")
        .await
        .opened()
        .await;

    let page = edge.ask("GET", "/topics?limit=2", "").await.json();
    assert_eq!(page["next"], "b");
    assert_eq!(
        (
            &page["topics"][0]["topic"],
            &page["topics"][0]["subscribers"]
        ),
        (&json!("a"), &json!(1))
    );
    let b = &page["topics"][1];
    assert_eq!(
        (&b["events"], &b["oldest"], &b["newest"]),
        (&json!(2), &json!(id), &json!("own"))
    );
    assert!(b["bytes"].as_u64() > Some(20));
    let page = edge.ask("GET", "/topics?after=b", "").await.json();
    assert_eq!(
        (&page["topics"][0]["topic"], &page["next"]),
        (&json!("c d"), &json!(null))
    );

    assert_eq!(edge.ask("GET", "/topics/b", "").await.json(), *b);
    assert_eq!(
        edge.ask("DELETE", "/topics/c%20d", "").await.json(),
        json!({"deleted": 1})
    );
    assert_eq!(
        edge.ask("GET", "/topics/c%20d", "").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        edge.ask("DELETE", "/topics/c%20d", "").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        edge.ask("GET", "/topics?limit=0", "").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        edge.ask("PUT", "/topics/b", "").await.header("allow"),
        "GET, HEAD, POST, DELETE"
    );
}

#[tokio::test]
async fn a_topic_that_nobody_reads_or_wrote_to_is_forgotten() {
    let edge = TestEdge::start();
    let events = edge.events(Protocol::Http2, "topic=a").await.opened().await;
    assert_eq!(edge.subscribers("a").await, 1);
    drop(events);
    edge.until_metric("seventh_event_streams{protocol=\"h2\"}", 0)
        .await;
    assert_eq!(
        edge.ask("GET", "/topics", "").await.json()["topics"],
        json!([])
    );
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let edge = TestEdge::start();
    assert_eq!(edge.ask("GET", "/healthz", "").await.text, "ok\n");
    assert_eq!(edge.ask("GET", "/readyz", "").await.text, "ready\n");
    let metrics = edge.ask("GET", "/metrics", "").await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    for name in [
        "connections",
        "event_streams",
        "events_published_total",
        "events_delivered_total",
        "replays_total",
        "keepalives_total",
    ] {
        assert!(
            metrics.text.contains(&format!("\nseventh_{name}")),
            "{name}"
        );
    }
    assert_eq!(
        edge.ask("POST", "/metrics", "").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(edge.ask("GET", "/", "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn web_pages_cannot_reach_it() {
    let edge = TestEdge::start();
    let port = edge.control.port();
    let own = format!("localhost:{port}");
    let address = format!("127.0.0.1:{port}");
    let page = format!("http://{own}");
    for (host, name, value, allowed) in [
        (own.as_str(), "accept", "*/*", true),
        (&address, "accept", "*/*", true),
        (&own.to_uppercase(), "accept", "*/*", true),
        (&own, "origin", &page, true),
        (&own, "sec-fetch-site", "same-origin", true),
        (&own, "sec-fetch-site", "none", true),
        // DNS rebinding: the page's own name leads here.
        ("evil.example", "accept", "*/*", false),
        (&format!("evil.example:{port}"), "accept", "*/*", false),
        ("localhost", "accept", "*/*", false),
        ("localhost:1", "accept", "*/*", false),
        (&format!("localhost.:{port}"), "accept", "*/*", false),
        // Cross-site posts.
        (&own, "origin", "https://evil.example", false),
        (&own, "origin", "null", false),
        (&own, "origin", &format!("https://{own}"), false),
        (
            &own,
            "origin",
            &format!("http://localhost:{}", port ^ 1),
            false,
        ),
        (&own, "sec-fetch-site", "cross-site", false),
        (&own, "sec-fetch-site", "same-site", false),
    ] {
        let mut connection = edge.control(Protocol::Http1).await;
        let request = Request::post("/topics/a")
            .header("host", host)
            .header(name, value)
            .body(full("x"));
        let answer = Answer::of(&mut connection, request.expect("a request")).await;
        let expected = if allowed {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        };
        assert_eq!(
            answer.status, expected,
            "{host} {name}: {value}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_token_is_asked_for_when_there_is_one() {
    let edge = TestEdge::with("control.token = \"correct-horse-battery\"");
    let token = "correct-horse-battery";
    for (given, status) in [
        (None, 401),
        (Some("Bearer wrong".to_owned()), 401),
        (Some(format!("Bearer {token}x")), 401),
        (Some(format!("Basic {token}")), 401),
        (Some(token.to_owned()), 401),
        (Some(format!("Bearer {token}")), 200),
        (Some(format!("bearer {token}")), 200),
    ] {
        let mut connection = edge.control(Protocol::Http1).await;
        let mut request = Request::get("/topics");
        if let Some(given) = &given {
            request = request.header("authorization", given);
        }
        let answer = Answer::of(&mut connection, request.body(full("")).expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{given:?}");
        assert!(!answer.text.contains("horse"));
    }
    // Probes need none.
    assert_eq!(edge.ask("GET", "/readyz", "").await.status, StatusCode::OK);
}

#[test]
fn it_is_not_bound_beyond_loopback_by_accident() {
    for text in [
        "control.listen = \"0.0.0.0:0\"",
        "control.listen = \"0.0.0.0:0\"\ncontrol.allow_remote = true",
    ] {
        let error = Config::from_text(text)
            .expect_err("it is refused")
            .to_string();
        assert!(
            error.contains("control.listen") && error.contains("control.token"),
            "{error}"
        );
    }
}
