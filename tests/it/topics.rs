//! What publishers say of their events: how long they are of use.

use serde_json::json;
use seventh::client::Protocol;

use crate::harness::{TestEdge, every_protocol, patiently};

every_protocol!(
    what_is_not_kept_is_for_who_reads_now,
    what_is_over_is_given_to_nobody,
);

async fn what_is_not_kept_is_for_who_reads_now(protocol: Protocol) {
    let edge = TestEdge::with("history.events = 3");
    let first = edge.publish_id("a", "1").await;
    let mut now = edge.events(protocol, "topic=a").await.opened().await;
    for n in 0..20 {
        let answer = edge
            .ask("POST", "/topics/a?history=false", format!("cursor {n}"))
            .await;
        assert_eq!(answer.json()["receivers"], 1);
        assert_eq!(now.data(1).await, [format!("cursor {n}")]);
    }
    edge.publish("a", "2").await;
    let line = json!({"topic": "a", "data": "cursor", "history": false});
    edge.ask("POST", "/publish", line.to_string()).await;
    edge.publish("a", "3").await;
    assert_eq!(now.data(3).await, ["2", "cursor", "3"]);
    assert_eq!(edge.ask("GET", "/topics/a", "").await.json()["events"], 3);

    let mut back = edge.events_after(protocol, "topic=a", &first).await;
    assert_eq!(back.edge_event("edge-open").await.0["replay"], true);
    assert_eq!(back.data(2).await, ["2", "3"]);
    let mut newcomer = edge.events(protocol, "topic=a&last=9").await.opened().await;
    assert_eq!(newcomer.data(3).await, ["1", "2", "3"]);
}

async fn what_is_over_is_given_to_nobody(protocol: Protocol) {
    let edge = TestEdge::start();
    let first = edge.publish_id("a", "1").await;
    let mut now = edge.events(protocol, "topic=a").await.opened().await;
    edge.ask("POST", "/topics/a?ttl=1h", "offer").await;
    assert_eq!(now.data(1).await, ["offer"]);
    for (data, ttl) in [("typing", "50ms"), ("last offer", "1h")] {
        let event = json!({"topic": "a", "data": data, "ttl": ttl});
        edge.ask("POST", "/publish", event.to_string()).await;
    }
    patiently("the event ends", async {
        while edge.ask("GET", "/topics/a", "").await.json()["events"] != 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut back = edge.events_after(protocol, "topic=a", &first).await;
    assert_eq!(back.edge_event("edge-open").await.0["replay"], true);
    assert_eq!(back.data(2).await, ["offer", "last offer"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_time_is_said() {
    let edge = TestEdge::start();
    for (query, field) in [
        ("ttl=soon", "ttl"),
        ("ttl=0s", "ttl"),
        ("ttl=2years", "ttl"),
        ("history=no", "history"),
        ("key=%0A", "key"),
    ] {
        let answer = edge.ask("POST", &format!("/topics/a?{query}"), "x").await;
        let problem = answer.json();
        assert_eq!(
            (answer.status.as_u16(), problem["field"].as_str()),
            (400, Some(field)),
            "{query}: {problem}"
        );
    }
    let event = json!({"topic": "a", "data": "x", "ttl": 30});
    let answer = edge.ask("POST", "/publish", event.to_string()).await;
    assert_eq!(answer.status, 400);
}
