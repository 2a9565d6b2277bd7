//! Who cannot hold a stream open polls, and is answered with what is there or comes next; where
//! event streams are switched off there is nothing to ask.

use std::time::Duration;

use http::StatusCode;
use seventh::client::Protocol;

use super::get;
use crate::harness::TestEdge;

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_can_be_switched_off() {
    let edge = TestEdge::with("events.enabled = false");
    let answer = edge
        .connect(Protocol::Http2)
        .await
        .get("/events?topic=a")
        .await
        .expect("an answer");
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_is_answered_with_what_is_there() {
    let edge = TestEdge::start();
    let first = edge.publish_id("a", "1").await;
    edge.publish("a", "2").await;
    for protocol in Protocol::ALL {
        let mut connection = edge.connect(protocol).await;
        let fields = [("x-requestor", "XHR"), ("last-event-id", first.as_str())];
        let answer = get(&mut connection, "/events?topic=a&padding=true", &fields).await;
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        let (padding, rest) = answer.text.split_once('\n').expect("a line");
        assert!(
            padding.len() == 2049 && padding.starts_with(':') && padding[1..].trim().is_empty()
        );
        assert!(
            rest.contains("event: edge-open")
                && rest.contains("data: 2")
                && !rest.contains("data: 1\n"),
            "{rest}"
        );
        // Over HTTP/1.1 its connection ends with it; elsewhere no such field is sent.
        let closes = if protocol == Protocol::Http1 {
            "close"
        } else {
            ""
        };
        assert_eq!(answer.header("connection"), closes);
        let mut connection = edge.connect(protocol).await;
        // With nothing there it waits until there is.
        let fields = [("accept", "text/event-stream")];
        let (answer, ()) = tokio::join!(
            get(&mut connection, "/events?topic=b&poll=1", &fields),
            async {
                while edge.subscribers("b").await == 0 {}
                edge.publish("b", "at last").await;
            }
        );
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert!(answer.text.contains("data: at last"), "{}", answer.text);
    }
    // No token: that is told apart from a wait.
    tokio::time::timeout(Duration::from_secs(10), edge.drain())
        .await
        .expect("nothing is left open");
}
