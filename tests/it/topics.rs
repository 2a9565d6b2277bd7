//! What publishers say of their events, and operators of topics: how long events are of use, which take
//! the place of others, and which are given again.

use serde_json::json;
use seventh::client::Protocol;

use crate::harness::{TestEdge, every_protocol, patiently};

every_protocol!(
    what_is_not_kept_is_for_who_reads_now,
    what_is_over_is_given_to_nobody,
    a_pattern_says_what_is_given_again,
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

async fn a_pattern_says_what_is_given_again(protocol: Protocol) {
    let edge = TestEdge::with(
        r#"
        [[topic]]
        pattern = "ticker/*"
        replay = "latest"
        [[topic]]
        pattern = "noise/**"
        replay = "none"
        "#,
    );
    let start = edge.publish_id("other", "0").await;
    let state = async |topic: &str, key: &str, data: &'static str| {
        let path = format!("/topics/{topic}?key={key}");
        edge.ask("POST", &path, data).await;
    };
    state("ticker/1", "a", "a1").await;
    state("ticker/1", "b", "b1").await;
    state("noise/1/2", "b", "noise").await;
    state("ticker/1", "a", "a2").await;
    let query = "topic=ticker/1&topic=noise/1/2&edge=sync";
    let mut back = edge.events_after(protocol, query, &start).await;
    assert_eq!(back.edge_event("edge-open").await.0["replay"], true);
    assert_eq!(back.data(2).await, ["b1", "a2"]);
    let (sync, _) = back.edge_event("edge-sync").await;
    assert_eq!(sync, json!({"replayed": 2, "missed": 0}));
    state("noise/1/2", "", "now").await;
    state("ticker/1", "a", "a3").await;
    assert_eq!(back.data(2).await, ["now", "a3"]);
    let query = "topic=ticker/1&topic=noise/1/2&last=9";
    let mut newcomer = edge.events(protocol, query).await.opened().await;
    assert_eq!(newcomer.data(2).await, ["b1", "a3"]);
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
