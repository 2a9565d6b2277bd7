//! What publishers say of their events, and operators of topics: how long events are of use, which take
//! the place of others, and which are given again.

use http::Request;
use serde_json::json;
use seventh::{
    client::{Protocol, full},
    sse::Item,
};

use crate::harness::{Answer, TestEdge, every_protocol, patiently};

every_protocol!(
    what_is_not_kept_is_for_who_reads_now,
    what_is_over_is_given_to_nobody,
    a_pattern_says_what_is_given_again,
    of_what_changes_too_fast_the_newest_comes_in_time,
    what_waits_comes_before_the_end_of_its_topic,
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

async fn of_what_changes_too_fast_the_newest_comes_in_time(protocol: Protocol) {
    const STATES: usize = 300;
    let edge = TestEdge::with(
        r#"
        [[topic]]
        pattern = "ticker/*"
        interval = "50ms"
        [[topic]]
        pattern = "slow"
        interval = "1h"
        "#,
    );
    let query = "topic=ticker/1&topic=slow&topic=chat";
    let mut events = edge.events(protocol, query).await.opened().await;
    let first = edge.publish("slow", "first").await;
    assert_eq!(
        (&first["receivers"], &first["deferred"]),
        (&json!(1), &json!(null))
    );
    let second = edge.publish("slow", "second").await;
    assert_eq!(
        (&second["receivers"], &second["deferred"]),
        (&json!(0), &json!(true))
    );
    let lines: String = (0..STATES)
        .flat_map(|n| ["a", "b"].map(|key| (n, key)))
        .map(|(n, key)| {
            let line = json!({"topic": "ticker/1", "key": key, "data": format!("{key} {n}")});
            format!("{line}\n")
        })
        .collect();
    let request = Request::post("/publish").header("content-type", "application/x-ndjson");
    let request = request.body(full(lines)).expect("a request");
    let mut control = edge.control(Protocol::Http1).await;
    let answers = Answer::of(&mut control, request).await;
    assert_eq!(answers.status, 200);
    // What is published elsewhere meanwhile does not wait.
    let chat = edge.publish("chat", "hello").await;
    assert_eq!(chat["receivers"], 1);

    let (mut ticks, mut all) = ([Vec::new(), Vec::new()], Vec::new());
    while ticks.iter().any(|got| got.last() != Some(&(STATES - 1)))
        || !all.contains(&"hello".into())
    {
        let data = events.data(1).await.remove(0);
        if let Some((key, n)) = data.split_once(' ') {
            ticks[usize::from(key == "b")].push(n.parse().expect("a number"));
        }
        all.push(data);
    }
    assert_eq!(all[0], "first");
    assert!(!all.contains(&"second".into()));
    for got in &ticks {
        assert_eq!(got[0], 0);
        assert!(got.is_sorted_by(|a, b| a < b), "{got:?}");
    }
    // What did not come was passed over, and is history.
    let passed_over = edge.metric("seventh_events_passed_over_total").await;
    let came: usize = ticks.iter().map(Vec::len).sum();
    assert_eq!(came as u64 + passed_over, 2 * STATES as u64);
    let held = edge.ask("GET", "/topics/ticker%2F1", "").await.json();
    assert_eq!(held["events"], 2 * STATES);
}

/// The last event of a topic that is closed, in the middle of its interval.
async fn what_waits_comes_before_the_end_of_its_topic(protocol: Protocol) {
    let edge = TestEdge::with("[[topic]]\npattern = \"**\"\ninterval = \"1h\"");
    let mut events = edge.events(protocol, "topic=a").await.opened().await;
    edge.publish("a", "1").await;
    edge.ask("POST", "/topics/a?key=other", "2").await;
    assert_eq!(edge.publish("a", "3").await["deferred"], true);
    assert_eq!(events.data(2).await, ["1", "2"]);
    let closed = edge.ask("POST", "/topics/a/close", "last").await;
    assert_eq!(closed.json()["last"]["deferred"], true);
    assert_eq!(events.data(1).await, ["last"]);
    assert!(matches!(events.item().await, Some(Item::Retry(_))));
    assert!(events.item().await.is_none());
    // It stays closed.
    let mut connection = edge.connect(protocol).await;
    let answer = connection.get("/events?topic=a").await.expect("an answer");
    assert_eq!(answer.status, 204);
}

#[tokio::test]
async fn what_is_wrong_with_a_time_is_said() {
    let edge = TestEdge::start();
    for (query, field) in [
        ("ttl=soon", "ttl"),
        ("ttl=0s", "ttl"),
        ("ttl=100us", "ttl"),
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
