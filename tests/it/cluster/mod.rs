//! One order over many edges.

mod chaos;
mod gathered;
mod guarded;
mod kept;
mod nats;
mod wire;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};
use seventh::{
    client::{Protocol, full},
    sse::Item,
};

use crate::{
    access::{SECRET, claims, token},
    harness::{Answer, Events, PATIENCE, TestEdge, every_protocol, patiently},
};
use nats::Nats;

every_protocol!(
    what_is_published_at_one_edge_reaches_the_readers_of_all,
    who_goes_from_edge_to_edge_misses_nothing,
);

fn edge(nats: &Nats, node: &str) -> TestEdge {
    edge_with(nats, node, "")
}

fn edge_with(nats: &Nats, node: &str, more: &str) -> TestEdge {
    TestEdge::with(&format!(
        "{}limits.exempt = [\"127.0.0.1/32\"]\n{more}",
        nats.config(node)
    ))
}

/// What the cluster says, once it is so.
async fn until(edge: &TestEdge, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    patiently(what, async {
        loop {
            let status = edge.ask("GET", "/cluster", "").await.json();
            if is_so(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// Returns once an edge knows another.
async fn until_two(edge: &TestEdge) {
    until(edge, "two edges", |status| {
        status["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.len() == 2)
    })
    .await;
}

/// Publishes until it is taken. What nobody knows of is known if it comes again.
async fn publish_in_the_end(edge: &TestEdge, topic: &str, data: &str) -> Answer {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let key = format!("\"the end {}\"", NEXT.fetch_add(1, Ordering::Relaxed));
    patiently("the order", async {
        loop {
            let request = http::Request::post(format!("/topics/{topic}"));
            let request = request.header("idempotency-key", &key);
            let request = request.body(full(data.to_owned())).expect("a request");
            let mut connection = edge.control(Protocol::Http1).await;
            let answer = Answer::of(&mut connection, request).await;
            if answer.status == StatusCode::OK {
                return answer;
            }
            assert_eq!(
                answer.status,
                StatusCode::SERVICE_UNAVAILABLE,
                "{}",
                answer.text
            );
        }
    })
    .await
}

async fn what_is_published_at_one_edge_reaches_the_readers_of_all(protocol: Protocol) {
    let nats = Nats::one().await;
    let (one, two) = (edge(&nats, "one"), edge(&nats, "two"));
    let mut readers = Vec::new();
    for edge in [&one, &two] {
        readers.push(edge.events(protocol, "topic=a").await.opened().await);
    }
    let first = one.publish("a", "1").await;
    assert_eq!(first["stored"], "written");
    // Of the readers at other edges nothing is known, so it is not said.
    assert_eq!(first["receivers"], Value::Null);
    two.publish("a", "2").await;
    let array = json!([{"topic": "a", "data": "3"}, {"topic": "b", "data": "other"}, {"topic": "a", "data": "4"}]);
    let answer = two.ask("POST", "/publish", array.to_string()).await;
    let ids: Vec<&str> = ["1", "2", "3"].to_vec();
    assert_eq!(
        answer.json().as_array().map(Vec::len),
        Some(ids.len()),
        "{}",
        answer.text
    );
    for reader in &mut readers {
        assert_eq!(reader.data(4).await, ["1", "2", "3", "4"]);
    }
    // Whoever comes later has it from any of them.
    let id = first["id"].as_str().expect("an id");
    for edge in [&one, &two] {
        let mut late = edge
            .events_after(protocol, "topic=a", id)
            .await
            .opened()
            .await;
        assert_eq!(late.data(3).await, ["2", "3", "4"]);
    }
    // And from one that is started later.
    let three = edge(&nats, "three");
    let mut late = three
        .events_after(protocol, "topic=a", id)
        .await
        .opened()
        .await;
    assert_eq!(late.data(3).await, ["2", "3", "4"]);
    let status = until(&three, "three edges", |status| {
        status["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.len() == 3)
    })
    .await;
    assert_eq!(status["node"], "three");
    assert_eq!(three.metric("seventh_cluster_connected").await, 1);
}

/// Reads until there are so many events, or the stream ends, and nothing but events; the last id.
async fn read_on(events: &mut Events, got: &mut Vec<String>, id: &mut String, until: usize) {
    while got.len() < until {
        match patiently("an event", events.item()).await {
            Some(Item::Message(message)) if message.event == "message" => {
                got.push(message.data);
                *id = message.id;
            }
            Some(Item::Message(message)) => assert_eq!(message.event, "edge-open"),
            Some(_) => {}
            None => break,
        }
    }
}

/// A client with one cursor that is never long at one edge, while events come.
async fn who_goes_from_edge_to_edge_misses_nothing(protocol: Protocol) {
    const EVENTS: usize = 300;
    let nats = Nats::one().await;
    let edges = [edge(&nats, "one"), edge(&nats, "two"), edge(&nats, "three")];
    let mut id = edges[0].publish_id("a", "before").await;
    let publishing = async {
        for n in 0..EVENTS {
            let answer = publish_in_the_end(&edges[n % 2], "a", &n.to_string()).await;
            assert_eq!(answer.status, StatusCode::OK);
        }
    };
    let reading = async {
        let (mut got, mut hop) = (Vec::new(), 0);
        while got.len() < EVENTS {
            let mut events = edges[hop % 3].events_after(protocol, "topic=a", &id).await;
            // Some stay for one event, some for several.
            let until = (got.len() + 1 + hop % 7).min(EVENTS);
            read_on(&mut events, &mut got, &mut id, until).await;
            hop += 1;
        }
        (got, hop)
    };
    let ((), (got, hops)) = tokio::join!(publishing, reading);
    let expected: Vec<String> = (0..EVENTS).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
    assert!(hops > 40, "{hops}");
}

async fn keyed(edge: &TestEdge, data: &str) -> Answer {
    let request = http::Request::post("/topics/a").header("idempotency-key", "\"k\"");
    let request = request.body(full(data.to_owned()));
    let mut control = edge.control(Protocol::Http1).await;
    Answer::of(&mut control, request.expect("a request")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_known_at_every_edge() {
    let nats = Nats::one().await;
    let (one, two) = (edge(&nats, "one"), edge(&nats, "two"));
    let mut reader = two.events(Protocol::Http2, "topic=a").await.opened().await;
    let first = keyed(&one, "x").await.json();
    let again = keyed(&two, "x").await.json();
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&first["id"], &json!(true))
    );
    let other = keyed(&two, "y").await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    two.publish("a", "next").await;
    assert_eq!(reader.data(2).await, ["x", "next"]);
}

/// A publisher that heard no answer sends the same to an edge that was started meanwhile, with rings that hold next to
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_known_at_an_edge_that_comes_later() {
    let nats = Nats::one().await;
    let one = edge(&nats, "one");
    let first = keyed(&one, "x").await.json();
    for n in 0..40 {
        one.publish("b", n.to_string()).await;
    }
    let two = edge_with(&nats, "two", "history.total_bytes = \"1 KiB\"\n");
    let again = keyed(&two, "x").await.json();
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&first["id"], &json!(true))
    );
}

/// What is said of who is there is each edge's own, and stands in nobody's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_the_moment_is_each_edges_own() {
    let nats = Nats::one().await;
    let rules = "access.subscribe = [\"anonymous\"]\n\
         [[access.rule]]\ntopic = \"a\"\nallow = [\"anonymous\"]\npresence = true\n";
    let (one, two) = (
        edge_with(&nats, "one", rules),
        edge_with(&nats, "two", rules),
    );
    let mut watching = one
        .events(Protocol::Http2, "topic=$presence/a&topic=a")
        .await
        .opened()
        .await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(one.events(Protocol::Http2, "topic=a").await.opened().await);
    }
    let (_, id) = watching.edge_event("edge-presence").await;
    one.publish("a", "1").await;
    // It goes on at another edge, with the id of an event that is none there.
    let mut moved = two
        .events_after(Protocol::Http2, "topic=a", &id)
        .await
        .opened()
        .await;
    assert_eq!(moved.data(1).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_disconnected_goes_at_every_edge() {
    let nats = Nats::one().await;
    let (one, two) = (guarded(&nats, "one"), guarded(&nats, "two"));
    let bearer = bobs_bearer();
    let headers = [("authorization", bearer.as_str())];
    let mut connection = two.connect(Protocol::Http2).await;
    let mut bob = Events::open(&mut connection, "topic=a", &headers)
        .await
        .opened()
        .await;
    for edge in [&one, &two] {
        until_two(edge).await;
    }
    // Who sends to people is told of those at every edge.
    let send = json!({"data": "x", "users": ["bob"]});
    let sent = ask_both(&one, "/send", &send.to_string()).await;
    assert_eq!(
        [
            &sent["receivers"],
            &sent["delivered"],
            &sent["nodes"],
            &sent["answered"]
        ],
        [&json!(1), &json!(true), &json!(2), &json!(2)],
        "{sent}"
    );
    assert_eq!(bob.data(1).await, ["x"]);
    let nobody = json!({"data": "x", "users": ["ann"]});
    let sent = ask_both(&one, "/send", &nobody.to_string()).await;
    assert_eq!(
        [&sent["receivers"], &sent["delivered"]],
        [&json!(0), &json!(false)]
    );
    // It may have been ended by one that answered late, and is counted no more then.
    let ended = ask_both(&one, "/users/bob/disconnect", "").await;
    assert!(ended["streams"].as_u64() <= Some(1), "{ended}");
    while bob.item().await.is_some() {}
}

/// What an edge says of both, asked until the other has answered in time: on a busy machine that may take a while.
async fn ask_both(edge: &TestEdge, path: &str, body: &str) -> Value {
    patiently("both edges", async {
        loop {
            let answer = edge.ask("POST", path, body.to_owned()).await;
            let said = answer.json();
            if said["answered"] == json!(2) {
                return said;
            }
            let is_away = answer.status == StatusCode::SERVICE_UNAVAILABLE;
            assert!(is_away || answer.status == StatusCode::OK, "{said}");
        }
    })
    .await
}

/// An edge that takes tokens, and how it is asked as somebody.
fn guarded(nats: &Nats, node: &str) -> TestEdge {
    guarded_edge(&nats.config(node))
}

fn guarded_edge(config: &str) -> TestEdge {
    TestEdge::with(&format!(
        "{config}limits.exempt = [\"127.0.0.1/32\"]\naccess.subscribe = [\"authenticated\"]\naccess.audience = \"seventh\"\n\
         [[access.rule]]\ntopic = \"staff/*\"\nallow = [\"group:staff\"]\n\
         [[access.key]]\nkid = \"h\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
    ))
}

/// What bob comes with.
fn bobs_bearer() -> String {
    let mut claims = claims();
    claims["sub"] = json!("bob");
    format!("Bearer {}", token(&claims))
}

/// Whether bob may read what is for the staff at an edge.
async fn is_staff(edge: &TestEdge) -> bool {
    let request = http::Request::get("/topics/staff/1/events");
    let request = request.header("authorization", bobs_bearer());
    let request = request.body(full("")).expect("a request");
    let mut connection = edge.connect(Protocol::Http2).await;
    Answer::of(&mut connection, request).await.status == StatusCode::OK
}

async fn until_staff(edge: &TestEdge, is_so: bool) {
    patiently("what the other edge was told", async {
        while is_staff(edge).await != is_so {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_a_group_is_known_to_every_edge() {
    let nats = Nats::one().await;
    let (one, two) = (guarded(&nats, "one"), guarded(&nats, "two"));
    let put = one.ask("PUT", "/groups/staff/members/user:bob", "").await;
    assert_eq!(put.json(), json!({"added": true}));
    // Where it was asked it is so at once.
    assert!(is_staff(&one).await);
    until_staff(&two, true).await;
    let again = two.ask("PUT", "/groups/staff/members/user:bob", "").await;
    assert_eq!(again.json(), json!({"added": false}));
    // One that comes later knows it before it lets anyone in.
    let three = guarded(&nats, "three");
    assert!(is_staff(&three).await);
    let gone = two
        .ask("DELETE", "/groups/staff/members/user:bob", "")
        .await;
    assert_eq!(gone.json(), json!({"removed": true}));
    assert!(!is_staff(&two).await);
    until_staff(&one, false).await;
    until_staff(&three, false).await;
}

/// Groups in groups by the configuration too, which an operator's word outlasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_nested_alike_at_every_edge() {
    let nats = Nats::one().await;
    let groups = "groups.staff = [\"editors\"]\n";
    let members = |edge: TestEdge, expected: Value| async move {
        patiently("the members", async {
            while edge.ask("GET", "/groups/staff", "").await.json()["members"] != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        edge
    };
    let one = edge_with(&nats, "one", groups);
    let two = edge_with(&nats, "two", groups);
    let put = one
        .ask("PUT", "/groups/staff/members/group:sales", "")
        .await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.text);
    let two = members(two, json!(["group:editors", "group:sales"])).await;
    for gone in ["sales", "editors"] {
        let path = format!("/groups/staff/members/group:{gone}");
        let taken = two.ask("DELETE", &path, "").await;
        assert_eq!(taken.json(), json!({"removed": true}), "{}", taken.text);
    }
    let put = two
        .ask("PUT", "/groups/staff/members/group:board", "")
        .await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.text);
    let _one = members(one, json!(["group:board"])).await;
    let three = edge_with(&nats, "three", groups);
    let _three = members(three, json!(["group:board"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_edges_make_no_cycle_of_groups_together() {
    let nats = Nats::one().await;
    let (one, two) = (edge(&nats, "one"), edge(&nats, "two"));
    for round in 0..5 {
        let (there, back) = (
            format!("/groups/a{round}/members/group:b{round}"),
            format!("/groups/b{round}/members/group:a{round}"),
        );
        let both = tokio::join!(one.ask("PUT", &there, ""), two.ask("PUT", &back, ""));
        let mut statuses = [both.0.status, both.1.status];
        statuses.sort_unstable();
        assert_eq!(
            statuses,
            [StatusCode::OK, StatusCode::CONFLICT],
            "{} {}",
            both.0.text,
            both.1.text
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_taken_back_is_so_at_every_edge() {
    let nats = Nats::one().await;
    let (one, two) = (guarded(&nats, "one"), guarded(&nats, "two"));
    one.ask("PUT", "/groups/staff/members/user:bob", "").await;
    until_staff(&two, true).await;
    let revoked = one.ask("POST", "/users/bob/revoke", "").await;
    assert_eq!(revoked.status, StatusCode::OK, "{}", revoked.text);
    assert!(!is_staff(&one).await);
    until_staff(&two, false).await;
    // After a restart too, of all of them.
    drop((one, two));
    let again = guarded(&nats, "again");
    assert!(!is_staff(&again).await);
    let groups = again.ask("GET", "/groups/staff", "").await.json();
    assert_eq!(groups["members"], json!(["user:bob"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_servers_readers_stay_and_publishers_are_told() {
    let mut nats = Nats::one().await;
    let edge = edge(&nats, "one");
    let first = edge.publish_id("a", "1").await;
    edge.publish("a", "2").await;
    let mut reader = edge.events(Protocol::Http2, "topic=a").await.opened().await;
    nats.kill(0);
    // The first may be on its way when that is found out: nobody knows what came of it.
    let refused = patiently("a refusal", async {
        loop {
            let answer = edge.ask("POST", "/topics/a", "x").await;
            assert_eq!(
                answer.status,
                StatusCode::SERVICE_UNAVAILABLE,
                "{}",
                answer.text
            );
            if answer.json()["code"] == "cluster-away" {
                return answer;
            }
            assert_eq!(answer.json()["outcome"], "unknown");
        }
    })
    .await;
    assert!(!refused.header("retry-after").is_empty());
    // Who comes now is served from what there is.
    let mut late = edge
        .events_after(Protocol::Http3, "topic=a", &first)
        .await
        .opened()
        .await;
    assert_eq!(late.data(1).await, ["2"]);
    patiently("an edge that is not ready", async {
        while edge.ask("GET", "/readyz", "").await.status == StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(edge.metric("seventh_cluster_connected").await, 0);
    nats.begin(0).await;
    publish_in_the_end(&edge, "a", "3").await;
    publish_in_the_end(&edge, "a", "4").await;
    for reader in [&mut reader, &mut late] {
        let mut got = reader.data(2).await;
        // What nobody knew of may be there, once.
        if got[0] == "x" {
            got = vec![got[1].clone(), reader.data(1).await[0].clone()];
        }
        assert_eq!(got, ["3", "4"]);
    }
    let ready = edge.ask("GET", "/readyz", "").await;
    assert_eq!(ready.status, StatusCode::OK, "{}", ready.text);
}

/// Another stream of the same name is another order, whoever made it, and though nobody came to say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_made_anew_is_another_order() {
    let nats = Nats::one().await;
    let one = edge(&nats, "one");
    let first = one.publish_id("a", "first").await;
    let mut reader = one.events(Protocol::Http2, "topic=a").await.opened().await;
    // The edge makes it again.
    nats.ask("STREAM.DELETE.seventh_test", json!({})).await;
    while patiently("the end", reader.item()).await.is_some() {}
    let second = publish_in_the_end(&one, "a", "second").await.json();
    assert_eq!(one.metric("seventh_cluster_forks_total").await, 1);
    one.drain().await;
    // Somebody else does, who was killed right behind.
    let mut config = nats.ask("STREAM.INFO.seventh_test", json!({})).await["config"].take();
    config["metadata"]["seventh.made"] = json!("another");
    nats.ask("STREAM.DELETE.seventh_test", json!({})).await;
    nats.ask("STREAM.CREATE.seventh_test", config).await;
    let one = edge(&nats, "one");
    let third = one.publish_id("a", "third").await;
    let second = second["id"].as_str().expect("an id").to_owned();
    let ids = [first, second, third];
    let epochs = ids
        .each_ref()
        .map(|id| id.split_once('-').expect("an epoch").0);
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2], "{ids:?}");
    for id in &ids[..2] {
        let mut back = one.events_after(Protocol::Http2, "topic=a", id).await;
        back.edge_event("edge-open").await;
        let (gap, _) = back.edge_event("edge-gap").await;
        assert_eq!(gap["reason"], "restart");
        assert_eq!(back.data(1).await, ["third"]);
    }
}

/// The order is removed, or put back to what it was: whoever has an id from before is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_another_than_before_is_found_out() {
    let mut nats = Nats::one().await;
    let edge = edge(&nats, "one");
    for n in 0..5 {
        edge.publish("a", n.to_string()).await;
    }
    nats.kill(0);
    let old = tempfile::tempdir().expect("a folder");
    copy(&nats.store(0), old.path());
    nats.begin(0).await;
    let mut last = String::new();
    for n in 5..9 {
        let answer = publish_in_the_end(&edge, "a", &n.to_string()).await.json();
        last = answer["id"].as_str().expect("an id").to_owned();
    }
    let mut reader = edge.events(Protocol::Http2, "topic=a").await.opened().await;
    nats.kill(0);
    std::fs::remove_dir_all(nats.store(0)).expect("it is there");
    copy(old.path(), &nats.store(0));
    nats.begin(0).await;
    // Its stream ends, as it was of a history that is none any more.
    while patiently("the end", reader.item()).await.is_some() {}
    publish_in_the_end(&edge, "a", "new").await;
    let mut back = edge.events_after(Protocol::Http2, "topic=a", &last).await;
    back.edge_event("edge-open").await;
    let (gap, _) = back.edge_event("edge-gap").await;
    assert_eq!(gap["reason"], "restart");
    let mut got = Vec::new();
    while got.last().is_none_or(|last| last != "new") {
        got.extend(back.data(1).await);
    }
    assert_eq!(got, ["0", "1", "2", "3", "4", "new"]);
    assert_eq!(edge.metric("seventh_cluster_forks_total").await, 1);
    // All of it is removed.
    nats.kill(0);
    std::fs::remove_dir_all(nats.store(0)).expect("it is there");
    nats.begin(0).await;
    while patiently("the end", back.item()).await.is_some() {}
    publish_in_the_end(&edge, "a", "newest").await;
    let mut back = edge.events_after(Protocol::Http2, "topic=a", &last).await;
    back.edge_event("edge-open").await;
    let (gap, _) = back.edge_event("edge-gap").await;
    assert_eq!(gap["reason"], "restart");
    assert_eq!(back.data(1).await, ["newest"]);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("a file");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it is there").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("it is copied");
        }
    }
}

/// What an operator takes out, or what is too old, holds nobody up and hides nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_gone_hold_no_edge_up() {
    let nats = Nats::one().await;
    let one = edge(&nats, "one");
    let first = one.publish_id("a", "1").await;
    for n in 2..=6 {
        one.publish("a", n.to_string()).await;
    }
    let remove = |seq: u64| nats.ask("STREAM.MSG.DELETE.seventh_test", json!({"seq": seq}));
    // From the middle, and the last of all.
    remove(4).await;
    remove(6).await;
    let two = edge(&nats, "two");
    let mut late = two
        .events_after(Protocol::Http2, "topic=a", &first)
        .await
        .opened()
        .await;
    assert_eq!(late.data(3).await, ["2", "3", "5"]);
    let mut reader = one.events(Protocol::Http2, "topic=a").await.opened().await;
    two.publish("a", "7").await;
    assert_eq!(reader.data(1).await, ["7"]);
    assert_eq!(late.data(1).await, ["7"]);
    assert_eq!(one.metric("seventh_cluster_forks_total").await, 0);
    // All but the last: an edge that comes with an id from before is told.
    nats.ask("STREAM.PURGE.seventh_test", json!({"keep": 1}))
        .await;
    let three = edge(&nats, "three");
    let mut late = three.events_after(Protocol::Http2, "topic=a", &first).await;
    late.edge_event("edge-open").await;
    late.edge_event("edge-gap").await;
    assert_eq!(late.data(1).await, ["7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_ends_for_an_edge_that_comes_later_too() {
    let nats = Nats::one().await;
    let one = edge(&nats, "one");
    let first = one.publish_id("a", "1").await;
    let ended = one.ask("POST", "/topics/a?ttl=1s", "ends").await;
    assert_eq!(ended.status, StatusCode::OK, "{}", ended.text);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    one.publish("a", "2").await;
    let two = edge(&nats, "two");
    for edge in [&one, &two] {
        let mut late = edge
            .events_after(Protocol::Http2, "topic=a", &first)
            .await
            .opened()
            .await;
        assert_eq!(late.data(1).await, ["2"]);
    }
}

/// What a later version has put into the order is not passed over: an edge that does not know it waits, and nobody new is
/// to come to it. What is none of an edge is in nobody's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_later_version_wrote_is_not_passed_over() {
    let nats = Nats::one().await;
    let one = edge(&nats, "one");
    let first = one.publish_id("a", "1").await;
    let mut reader = one
        .events_after(Protocol::Http2, "topic=a", &first)
        .await
        .opened()
        .await;
    nats.publish(b"hello".to_vec()).await;
    one.publish("a", "2").await;
    assert_eq!(reader.data(1).await, ["2"]);
    let later = [&b"7thF\x02"[..], &[0; 18]].concat();
    nats.publish(later).await;
    patiently("an edge that is not ready", async {
        while one.ask("GET", "/readyz", "").await.status == StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let refused = one.ask("POST", "/topics/a", "3").await;
    assert_eq!(refused.json()["code"], "cluster-away", "{}", refused.text);
    // Once it is gone, all goes on.
    nats.ask("STREAM.MSG.DELETE.seventh_test", json!({"seq": 4}))
        .await;
    publish_in_the_end(&one, "a", "4").await;
    assert_eq!(reader.data(1).await, ["4"]);
}

/// What waits for its turn, and what goes out, is the same at all edges, whoever published where, and when an edge came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_turn_is_the_same_at_every_edge() {
    let nats = Nats::one().await;
    let paced = "[[topic]]\npattern = \"**\"\ninterval = \"200ms\"\nreplay = \"latest\"\n";
    let one = edge_with(&nats, "one", paced);
    one.publish("t/0", "first").await;
    tokio::time::sleep(Duration::from_millis(70)).await;
    let two = edge_with(&nats, "two", paced);
    for n in 0..400 {
        let edge = [&one, &two][n % 2];
        edge.publish(&format!("t/{}", n % 5), n.to_string()).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What waited last has gone out.
    for topic in 0..5 {
        let path = format!("/topics/t%2F{topic}/events?limit=1000");
        let last = patiently("the last of all", async {
            loop {
                let mut both = Vec::new();
                for edge in [&one, &two] {
                    both.push(edge.ask("GET", &path, "").await.json()["events"].clone());
                }
                let last = |events: &Value| {
                    let last = events.as_array().and_then(|events| events.last().cloned());
                    last.map(|last| last["data"].clone())
                };
                if both
                    .iter()
                    .all(|events| last(events) == Some(json!((395 + topic).to_string())))
                {
                    return both;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let ids = last.iter().map(|events| {
            let events = events.as_array().expect("a list").iter();
            events
                .map(|event| (event["id"].clone(), event["data"].clone()))
                .collect::<Vec<_>>()
        });
        let ids: Vec<_> = ids.collect();
        assert_eq!(ids[0], ids[1]);
    }
}

/// The order is made anew while no edge is there to see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_made_anew_is_of_another_history() {
    let nats = Nats::one().await;
    let one = edge(&nats, "one");
    one.publish("a", "1").await;
    let last = one.publish_id("a", "2").await;
    one.drain().await;
    nats.ask("STREAM.DELETE.seventh_test", json!({})).await;
    let two = edge(&nats, "two");
    for n in 3..6 {
        two.publish("a", n.to_string()).await;
    }
    let mut late = two.events_after(Protocol::Http2, "topic=a", &last).await;
    late.edge_event("edge-open").await;
    let (gap, _) = late.edge_event("edge-gap").await;
    assert_eq!(gap["reason"], "restart");
    assert_eq!(late.data(3).await, ["3", "4", "5"]);
}

/// Three servers, one of which is killed after the other while events come: none is lost, doubled or moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_servers_may_go() {
    let mut nats = Nats::three().await;
    let (one, two) = (edge(&nats, "one"), edge(&nats, "two"));
    let mut reader = two.events(Protocol::Http2, "topic=a").await.opened().await;
    let mut acked = Vec::new();
    for n in 0..60 {
        if n % 20 == 10 {
            nats.kill(n / 20);
        }
        if n % 20 == 19 {
            nats.begin(n / 20).await;
        }
        let data = n.to_string();
        let answer = publish_in_the_end(&one, "a", &data).await;
        assert_eq!(answer.json()["stored"], "replicated");
        acked.push(data);
    }
    let mut got = Vec::new();
    let all = async {
        while got.last() != acked.last() {
            got.extend(reader.data(1).await);
        }
    };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "{got:?}");
    // What was answered `unknown` was sent again without a key: it may be there twice, one after the other.
    got.dedup();
    assert_eq!(got, acked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_a_frame_is_told() {
    let nats = Nats::one().await;
    let edge = edge_with(&nats, "one", "limits.event_bytes = \"1 MiB\"\n");
    let large = edge.ask("POST", "/topics/a", "x".repeat(600 << 10)).await;
    assert_eq!(
        large.status,
        StatusCode::PAYLOAD_TOO_LARGE,
        "{}",
        large.text
    );
    assert_eq!(large.json()["code"], "cluster-too-large");
    let mut reader = edge.events(Protocol::Http2, "topic=a").await.opened().await;
    // None of an array is published that has such a one.
    let event = |data: String| json!({"topic": "a", "data": data});
    let array = json!([
        event("small".into()),
        event("x".repeat(600 << 10)),
        event("small".into())
    ]);
    let refused = edge.ask("POST", "/publish", array.to_string()).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.json()["code"], "cluster-too-large");
    let detail = refused.json()["detail"].to_string();
    assert!(detail.contains("event 2 of 3"), "{detail}");
    // Several that are large go one after the other.
    let lines: String = (0..4)
        .map(|n| {
            format!(
                "{{\"topic\":\"a\",\"data\":\"{n}{}\"}}\n",
                "x".repeat(300 << 10)
            )
        })
        .collect();
    let request = http::Request::post("/publish").header("content-type", "application/x-ndjson");
    let request = request.body(full(lines)).expect("a request");
    let answer = Answer::of(&mut edge.control(Protocol::Http1).await, request).await;
    assert_eq!(
        answer.text.matches("\"stored\":\"written\"").count(),
        4,
        "{}",
        answer.text
    );
    let firsts: Vec<String> = reader
        .data(4)
        .await
        .iter()
        .map(|data| data[..1].to_owned())
        .collect();
    assert_eq!(firsts, ["0", "1", "2", "3"]);
}

/// That a replay is over is told once it is known whether there is what the client has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_replay_is_not_told_before_it_is_known() {
    let nats = Nats::one().await;
    let one = edge(&nats, "one");
    let id = one.publish_id("a", "1").await;
    let (epoch, _) = id.split_once('-').expect("an epoch");
    let far = format!("{epoch}-99999999");
    let back = one.events_after(Protocol::Http2, "topic=a&edge=sync", &far);
    let mut back = back.await.opened().await;
    let (gap, _) = back.edge_event("edge-gap").await;
    assert_eq!(gap["reason"], "unknown");
    assert_eq!(back.data(1).await, ["1"]);
    let (sync, _) = back.edge_event("edge-sync").await;
    assert_eq!(sync, json!({"replayed": 1, "missed": null}));
}

/// Where there is nothing yet, each of those that start at once would make it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_that_start_together_make_one_order() {
    let nats = Nats::three().await;
    let edges = ["one", "two", "three"].map(|node| {
        let config = nats.config(node);
        tokio::task::spawn_blocking(move || TestEdge::with(&config))
    });
    let edges = futures_util::future::join_all(edges).await;
    let edges: Vec<TestEdge> = edges
        .into_iter()
        .map(|edge| edge.expect("it starts"))
        .collect();
    let mut epochs = Vec::new();
    for edge in &edges {
        let answer = publish_in_the_end(edge, "a", "x").await.json();
        let id = answer["id"].as_str().expect("an id").to_owned();
        epochs.push(id.split_once('-').expect("an epoch").0.to_owned());
        assert_eq!(edge.metric("seventh_cluster_forks_total").await, 0);
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 1);
}
