//! What each edge knows alone, of all of them.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use seventh::client::Protocol;

use super::{edge_with, nats::Nats, until_two};
use crate::harness::{TestEdge, patiently};

const OPEN: &str = "access.subscribe = [\"anonymous\"]\n\
     [[access.rule]]\ntopic = \"a\"\nallow = [\"anonymous\"]\npresence = true\n";

/// What an edge says, once it has heard all others.
async fn whole(edge: &TestEdge, path: &str) -> Value {
    patiently("all edges", async {
        loop {
            // One that was silent for long is not missed any more, until it is heard again.
            Box::pin(until_two(edge)).await;
            let said = edge.ask("GET", path, "").await.json();
            if said["missing"] == json!([]) {
                return said;
            }
            assert_eq!(said["missing"].as_array().map(Vec::len), Some(1), "{said}");
        }
    })
    .await
}

/// The pages of a list, each of so many entries.
async fn pages(edge: &TestEdge, list: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = whole(edge, &format!("/{list}?limit={limit}{after}")).await;
        let entries = page[list].as_array().expect("a list");
        assert!(entries.len() <= limit, "{page}");
        all.extend(entries.iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_of_all_edges() {
    let nats = Nats::one().await;
    let (one, two) = (edge_with(&nats, "one", OPEN), edge_with(&nats, "two", OPEN));
    until_two(&one).await;
    until_two(&two).await;
    let mut streams = Vec::new();
    for (edge, topics) in [
        (&one, "topic=a"),
        (&two, "topic=a&topic=b"),
        (&two, "topic=a"),
    ] {
        streams.push(edge.events(Protocol::Http2, topics).await.opened().await);
    }
    one.publish("a", "x").await;
    for edge in [&one, &two] {
        for limit in [1, 2, 100] {
            let all = pages(edge, "streams", limit).await;
            let ids: Vec<&Value> = all.iter().map(|stream| &stream["id"]).collect();
            assert_eq!(ids, ["one:1", "two:1", "two:2"]);
            let all = pages(edge, "topics", limit).await;
            let counts = all
                .iter()
                .map(|topic| (&topic["topic"], &topic["subscribers"]));
            let counts: Vec<_> = counts
                .map(|(name, count)| (name.clone(), count.clone()))
                .collect();
            assert_eq!(counts, [(json!("a"), json!(3)), (json!("b"), json!(1))]);
            assert_eq!(all[0]["events"], 1);
        }
        let readers = whole(edge, "/presence?topic=a").await;
        assert_eq!(readers["anonymous"], 3);
        assert_eq!(whole(edge, "/topics/a").await["subscribers"], 3);
        let of_two = whole(edge, "/streams?topic=b").await;
        assert_eq!(of_two["streams"][0]["id"], "two:1");
    }
    // A stream is ended wherever it is.
    patiently("its end", async {
        loop {
            let gone = one.ask("DELETE", "/streams/two:1", "").await;
            // A machine that is busy answers late, and has ended it all the same.
            if gone.status != StatusCode::SERVICE_UNAVAILABLE {
                let is_done = gone.json() == json!({"streams": 1});
                assert!(
                    is_done || gone.status == StatusCode::NOT_FOUND,
                    "{}",
                    gone.text
                );
                return;
            }
        }
    })
    .await;
    let mut ended = streams.remove(1);
    while patiently("the end", ended.item()).await.is_some() {}
    let left = pages(&one, "streams", 100).await;
    let left: Vec<&Value> = left.iter().map(|stream| &stream["id"]).collect();
    assert_eq!(left, ["one:1", "two:2"]);
    for id in ["two:1", "three:1", "one:77"] {
        patiently("an answer", async {
            loop {
                let none = one.ask("DELETE", &format!("/streams/{id}"), "").await;
                // It did not answer in time.
                if none.status != StatusCode::SERVICE_UNAVAILABLE {
                    assert_eq!(none.status, StatusCode::NOT_FOUND, "{}", none.text);
                    return;
                }
            }
        })
        .await;
    }
    // Whoever sends many to people is told of those at every edge.
    let each = json!({"data": "x", "anonymous": true});
    let all = patiently("all edges", async {
        loop {
            let sent = one.ask("POST", "/broadcast", json!([each, each]).to_string());
            let sent = sent.await.json();
            let answers = sent.as_array().expect("two answers").clone();
            if answers.iter().all(|answer| answer["answered"] == 2) {
                return answers;
            }
        }
    })
    .await;
    for answer in all {
        assert_eq!(
            [&answer["receivers"], &answer["nodes"]],
            [&json!(2), &json!(2)],
            "{answer}"
        );
    }
}

/// Who publishes to topics is told of the readers of all edges if asked for, and of none otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receivers_of_all_edges_are_told_on_demand() {
    let nats = Nats::one().await;
    let (one, two) = (edge_with(&nats, "one", OPEN), edge_with(&nats, "two", OPEN));
    until_two(&one).await;
    let mut readers = Vec::new();
    for edge in [&one, &two, &two] {
        readers.push(edge.events(Protocol::Http2, "topic=a").await.opened().await);
    }
    assert_eq!(one.publish("a", "x").await["receivers"], Value::Null);
    let said = patiently("all edges", async {
        loop {
            let said = one.ask("POST", "/topics/a?receivers=cluster", "x").await;
            let said = said.json();
            if said["answered"] == 2 {
                return said;
            }
        }
    })
    .await;
    assert_eq!([&said["receivers"], &said["nodes"]], [&json!(3), &json!(2)]);
    assert_eq!(said["delivered"], Value::Null);
    let wrong = one.ask("POST", "/topics/a?receivers=all", "x").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{}", wrong.text);
    // An edge on its own tells it anyway.
    let alone = TestEdge::with("");
    let said = alone
        .ask("POST", "/topics/a?receivers=cluster", "x")
        .await
        .json();
    assert_eq!(said["receivers"], 0);
}

/// An edge that says nothing is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_answer_is_named() {
    let mut nats = Nats::one().await;
    let (one, two) = (edge_with(&nats, "one", OPEN), edge_with(&nats, "two", OPEN));
    until_two(&one).await;
    until_two(&two).await;
    nats.kill(0);
    let said = one.ask("GET", "/streams", "").await.json();
    assert_eq!(said["missing"], json!(["two"]), "{said}");
    let silent = one.ask("DELETE", "/streams/two:1", "").await;
    assert_eq!(silent.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(silent.json()["code"], "cluster-away");
    nats.begin(0).await;
    drop(two);
    // One that is gone is no part of it after a while.
    patiently("one edge", async {
        while whole_or_not(&one).await != json!([]) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn whole_or_not(edge: &TestEdge) -> Value {
    edge.ask("GET", "/streams", "").await.json()["missing"].clone()
}
