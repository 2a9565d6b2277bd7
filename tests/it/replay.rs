//! Resuming, gaps and history.

use serde_json::json;
use seventh::client::Protocol;

use crate::harness::{TestEdge, every_protocol};

every_protocol!(
    resumes_after_an_id_by_header,
    resumes_after_an_id_in_every_spelling_of_the_query,
    resumes_where_a_cut_stream_stood_though_it_got_no_event,
    resumes_after_a_publishers_own_id,
    a_first_visit_gets_the_last_events,
    a_gap_is_told_and_what_is_held_follows,
    an_id_that_history_never_knew_is_told,
    a_restart_is_told,
    a_deleted_topic_is_told,
    nothing_is_lost_or_doubled_at_the_seam,
);

async fn resumes_after_an_id_by_header(protocol: Protocol) {
    let edge = TestEdge::start();
    let first = edge.publish_id("a", "1").await;
    edge.publish("b", "2").await;
    edge.publish("c", "not ours").await;
    edge.publish("a", "3").await;
    // The header wins over the query.
    let mut events = edge
        .events_after(protocol, "topic=a&topic=b&lastEventId=x", &first)
        .await;
    let (data, id) = events.edge_event("edge-open").await;
    assert_eq!((&data["replay"], id), (&json!(true), first));
    assert_eq!(events.data(2).await, ["2", "3"]);
    edge.publish("b", "4").await;
    assert_eq!(events.data(1).await, ["4"]);
    assert_eq!(edge.metric("seventh_replays_total").await, 1);
}

async fn resumes_after_an_id_in_every_spelling_of_the_query(protocol: Protocol) {
    let edge = TestEdge::start();
    let first = edge.publish_id("a", "1").await;
    edge.publish("a", "2").await;
    for name in [
        "lastEventId",
        "lastEventID",
        "last_event_id",
        "Last-Event-ID",
        "evs_last_event_id",
    ] {
        let mut events = edge
            .events(protocol, &format!("topic=a&{name}={first}"))
            .await
            .opened()
            .await;
        assert_eq!(events.data(1).await, ["2"], "{name}");
    }
}

async fn resumes_where_a_cut_stream_stood_though_it_got_no_event(protocol: Protocol) {
    let edge = TestEdge::start();
    edge.publish("other", "0").await;
    let mut events = edge.events(protocol, "topic=a").await;
    let (_, id) = events.edge_event("edge-open").await;
    drop(events);
    edge.publish("a", "missed").await;
    let mut events = edge
        .events_after(protocol, "topic=a", &id)
        .await
        .opened()
        .await;
    assert_eq!(events.data(1).await, ["missed"]);
}

async fn resumes_after_a_publishers_own_id(protocol: Protocol) {
    let edge = TestEdge::start();
    edge.ask("POST", "/topics/a?id=09:41", "1").await;
    edge.ask("POST", "/topics/a?id=09:42", "2").await;
    let mut events = edge
        .events_after(protocol, "topic=a", "09:41")
        .await
        .opened()
        .await;
    let message = events.message().await;
    assert_eq!((message.data.as_str(), message.id.as_str()), ("2", "09:42"));
}

async fn a_first_visit_gets_the_last_events(protocol: Protocol) {
    let edge = TestEdge::start();
    for n in 1..=5 {
        edge.publish(if n % 2 == 0 { "even" } else { "odd" }, n.to_string())
            .await;
    }
    let mut events = edge
        .events(protocol, "topic=even&topic=odd&last=3")
        .await
        .opened()
        .await;
    assert_eq!(events.data(3).await, ["3", "4", "5"]);
}

/// What a gap says, but for its times.
fn untimed(mut gap: serde_json::Value) -> serde_json::Value {
    let fields = gap.as_object_mut().expect("an object");
    for name in ["from", "to"] {
        fields.remove(name);
    }
    gap
}

async fn a_gap_is_told_and_what_is_held_follows(protocol: Protocol) {
    let edge = TestEdge::with("history.events = 3");
    let first = edge.publish_id("a", "1").await;
    for n in 2..=7 {
        edge.publish("a", n.to_string()).await;
    }
    let mut events = edge
        .events_after(protocol, "topic=a", &first)
        .await
        .opened()
        .await;
    let (gap, id) = events.edge_event("edge-gap").await;
    assert_eq!(
        untimed(gap),
        json!({"reason": "trimmed", "missed": 3, "topics": ["a"]})
    );
    assert_eq!(events.data(3).await, ["5", "6", "7"]);
    assert_eq!(
        edge.metric("seventh_gaps_total{reason=\"trimmed\"}").await,
        1
    );
    // Cut right after the gap: the next attempt goes on from there.
    let mut events = edge
        .events_after(protocol, "topic=a", &id)
        .await
        .opened()
        .await;
    assert_eq!(events.data(3).await, ["5", "6", "7"]);
}

async fn an_id_that_history_never_knew_is_told(protocol: Protocol) {
    let edge = TestEdge::start();
    edge.publish("a", "1").await;
    let mut events = edge
        .events_after(protocol, "topic=a", "nonsense")
        .await
        .opened()
        .await;
    let (gap, _) = events.edge_event("edge-gap").await;
    assert_eq!(
        (&gap["reason"], &gap["missed"]),
        (&json!("unknown"), &json!(null))
    );
    assert_eq!(events.data(1).await, ["1"]);
}

async fn a_restart_is_told(protocol: Protocol) {
    let before = TestEdge::start();
    let id = before.publish_id("a", "before").await;
    drop(before);
    let edge = TestEdge::start();
    edge.publish("a", "after").await;
    let mut events = edge
        .events_after(protocol, "topic=a", &id)
        .await
        .opened()
        .await;
    let (gap, _) = events.edge_event("edge-gap").await;
    assert_eq!(
        (&gap["reason"], &gap["missed"]),
        (&json!("restart"), &json!(null))
    );
    assert_eq!(events.data(1).await, ["after"]);
}

async fn a_deleted_topic_is_told(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge.events(protocol, "topic=a").await.opened().await;
    edge.publish("a", "1").await;
    assert_eq!(events.data(1).await, ["1"]);
    let answer = edge.ask("DELETE", "/topics/a", "").await;
    assert_eq!(answer.json(), json!({"deleted": 1}));
    let (gap, _) = events.edge_event("edge-gap").await;
    assert_eq!(
        untimed(gap),
        json!({"reason": "deleted", "missed": 0, "topics": ["a"]})
    );
    edge.publish("a", "2").await;
    assert_eq!(events.data(1).await, ["2"]);
}

/// A reader leaves and comes back, again and again, while events keep coming.
async fn nothing_is_lost_or_doubled_at_the_seam(protocol: Protocol) {
    const EVENTS: usize = 600;
    let edge = TestEdge::start();
    let mut events = edge.events(protocol, "topic=t/0&topic=t/1&topic=t/2").await;
    let (_, mut id) = events.edge_event("edge-open").await;
    drop(events);
    let publish = async {
        for n in 0..EVENTS {
            edge.publish(&format!("t/{}", n % 3), n.to_string()).await;
        }
    };
    let read = async {
        let mut seen = Vec::new();
        let mut connection = edge.connect(protocol).await;
        while seen.len() < EVENTS {
            if protocol == Protocol::Http1 {
                connection = edge.connect(protocol).await;
            }
            let headers = [("last-event-id", id.as_str())];
            let query = "topic=t/0&topic=t/1&topic=t/2";
            let mut events = crate::harness::Events::open(&mut connection, query, &headers)
                .await
                .opened()
                .await;
            for _ in 0..(1 + seen.len() % 17).min(EVENTS - seen.len()) {
                let message = events.message().await;
                seen.push(message.data.parse::<usize>().expect("a number"));
                id = message.id;
            }
        }
        seen
    };
    let ((), seen) = tokio::join!(publish, read);
    assert_eq!(seen, (0..EVENTS).collect::<Vec<_>>());
}
