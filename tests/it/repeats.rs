//! Publishes that are sent again: the publisher heard no answer and cannot know whether they were
//! taken.

use http::{Request, StatusCode};
use serde_json::{Value, json};
use seventh::client::{Connection, Protocol, full};

use crate::harness::{Answer, TestEdge, every_protocol};

const PUBLISHER: &str = "Bearer 0123456789abcdef";

every_protocol!(a_publish_that_is_sent_again_is_published_once);

/// Over each protocol, by publishers outside as well as by the operator's own.
async fn a_publish_that_is_sent_again_is_published_once(protocol: Protocol) {
    let edge = TestEdge::with("access.publish = [\"0123456789abcdef\"]");
    let mut events = edge.events(protocol, "topic=a").await.opened().await;
    let mut publisher = edge.connect(protocol).await;
    let mut post = async |path: &str, key: Option<&str>, body: &str| -> Answer {
        send(&mut publisher, path, key, body).await
    };
    let first = post("/topics/a", Some("k"), "1").await.json();
    assert_eq!(
        (&first["receivers"], &first["duplicate"]),
        (&json!(1), &Value::Null)
    );
    let again = post("/topics/a", Some("k"), "1").await.json();
    assert_eq!(
        again,
        json!({"id": first["id"], "receivers": 0, "duplicate": true, "stored": "memory"})
    );
    for (path, body) in [
        ("/topics/a", "2"),
        ("/topics/b", "1"),
        ("/topics/a?event=e", "1"),
    ] {
        let other = post(path, Some("k"), body).await;
        assert_eq!(
            other.status,
            StatusCode::CONFLICT,
            "{path} {body}: {}",
            other.text
        );
    }

    // An id of the publisher's own is as good, as long as all else is the same.
    let first = post("/topics/a?id=7", None, "2").await.json();
    let again = post("/topics/a?id=7", None, "2").await.json();
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&first["id"], &json!(true))
    );
    let json = r#"{"topic": ["b", "a"], "id": "7", "data": "2", "retry": 1000}"#;
    assert_eq!(post("/publish", None, json).await.json()["duplicate"], true);
    assert_eq!(
        post("/topics/a?id=7", None, "3").await.json()["receivers"],
        1
    );
    assert_eq!(
        post("/topics/a?id=8", None, "3").await.json()["receivers"],
        1
    );
    // Without either nobody can know.
    assert_eq!(post("/topics/a", None, "3").await.json()["receivers"], 1);
    assert_eq!(events.data(5).await, ["1", "2", "3", "3", "3"]);
    assert_eq!(edge.metric("seventh_duplicates_total").await, 3);
    assert_eq!(edge.metric("seventh_events_published_total").await, 5);
}

async fn send(connection: &mut Connection, path: &str, key: Option<&str>, body: &str) -> Answer {
    let mut request = Request::post(path).header("authorization", PUBLISHER);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(full(body.to_owned())).expect("a request");
    Answer::of(connection, request).await
}

#[tokio::test]
async fn people_are_sent_to_once_and_lines_are_known_by_their_ids() {
    let edge = TestEdge::start();
    let mut control = edge.control(Protocol::Http1).await;
    for (path, body) in [
        ("/broadcast", r#"{"data": 1, "anonymous": true}"#),
        ("/send", r#"{"data": 1, "users": ["ann"]}"#),
    ] {
        let first = send(&mut control, path, Some(path), body).await.json();
        assert_eq!(first["delivered"], false);
        let again = send(&mut control, path, Some(path), body).await.json();
        // Whether the first was delivered is not known any more, and is not made up.
        assert_eq!(
            again,
            json!({"id": first["id"], "receivers": 0, "duplicate": true, "stored": "memory"})
        );
    }
    let line = "{\"topic\":\"a\",\"id\":\"1\",\"data\":1}\n";
    let request = |key: &str| {
        Request::post("/publish")
            .header("content-type", "application/x-ndjson")
            .header(key, "k")
            .body(full(line.repeat(2)))
            .expect("a request")
    };
    let refused = Answer::of(&mut control, request("idempotency-key")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text.contains("`id`"), "{}", refused.text);
    let taken = Answer::of(&mut control, request("x")).await;
    assert_eq!(
        taken.text.matches("\"duplicate\":true").count(),
        1,
        "{}",
        taken.text
    );
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let edge = TestEdge::start();
    let mut control = edge.control(Protocol::Http1).await;
    let too_long = "k".repeat(256);
    for keys in [&["a", "b"][..], &[""], &[too_long.as_str()]] {
        let mut request = Request::post("/topics/a");
        for key in keys {
            request = request.header("idempotency-key", *key);
        }
        let answer = Answer::of(&mut control, request.body(full("x")).expect("a request")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{keys:?}");
        assert_eq!(answer.json()["field"], "Idempotency-Key");
    }
    assert_eq!(edge.metric("seventh_events_published_total").await, 0);
}

#[tokio::test]
async fn how_long_and_how_many_are_known_is_the_operators() {
    let edge = TestEdge::with("history.duplicates = 1");
    for (path, known) in [("1", false), ("1", true), ("2", false), ("1", false)] {
        let answer = edge.ask("POST", &format!("/topics/a?id={path}"), "x").await;
        assert_eq!(answer.json()["duplicate"] == true, known, "{path}");
    }
    let edge = TestEdge::with("history.duplicates_age = \"0s\"\nhistory.duplicates = 0");
    for _ in 0..2 {
        let answer = edge.ask("POST", "/topics/a?id=1", "x").await;
        assert_eq!(answer.json()["duplicate"], Value::Null);
    }
}
