//! Who reads a topic, and who is told.

use serde_json::{Value, json};
use seventh::client::Protocol;

use crate::{
    access::{claims, token, with_secret},
    harness::{Answer, Events, TestEdge, every_protocol, patiently},
};

every_protocol!(who_comes_and_goes_is_told_to_those_who_may_see_it);

const RULES: &str = "access.subscribe = [\"authenticated\", \"anonymous\"]\n\
    [[access.rule]]\ntopic = \"room/*\"\nallow = [\"authenticated\"]\npresence = true\n\
    [[access.rule]]\ntopic = \"open/*\"\nallow = [\"authenticated\", \"anonymous\"]\npresence = true";

fn bearer(user: &str) -> String {
    let mut claims = claims();
    claims["sub"] = json!(user);
    format!("Bearer {}", token(&claims))
}

async fn open(edge: &TestEdge, protocol: Protocol, user: &str, query: &str) -> Events {
    let mut connection = edge.connect(protocol).await;
    let bearer = bearer(user);
    let events = Events::open(&mut connection, query, &[("authorization", &bearer)]).await;
    events.owning(connection).opened().await
}

/// What is told until everything has been said that is waited for.
async fn told(events: &mut Events, is_all: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let mut told = Vec::new();
    patiently("who is there", async {
        while !is_all(&told) {
            told.push(events.edge_event("edge-presence").await.0);
        }
    })
    .await;
    told
}

fn names(told: &[Value], what: &str) -> Vec<String> {
    let all = told.iter().filter_map(|event| event[what].as_array());
    let mut names: Vec<String> = all
        .flatten()
        .map(|name| name.as_str().expect("text").to_owned())
        .collect();
    names.sort();
    names
}

async fn get(edge: &TestEdge, protocol: Protocol, path: &str, user: Option<&str>) -> Answer {
    let mut connection = edge.connect(protocol).await;
    let mut request = http::Request::get(path);
    if let Some(user) = user {
        request = request.header("authorization", bearer(user));
    }
    Answer::of(
        &mut connection,
        request.body(seventh::client::full("")).expect("a request"),
    )
    .await
}

async fn who_comes_and_goes_is_told_to_those_who_may_see_it(protocol: Protocol) {
    let edge = with_secret(RULES);
    let mut eve = open(
        &edge,
        protocol,
        "eve",
        "topic=$presence/room/1&topic=room/1",
    )
    .await;
    let first = told(&mut eve, |told| names(told, "join").len() == 1).await;
    assert_eq!(names(&first, "join"), ["eve"]);
    let bob = [
        open(&edge, protocol, "bob", "topic=room/1").await,
        open(&edge, protocol, "bob", "topic=room/1").await,
    ];
    let ann = open(&edge, protocol, "ann", "topic=room/1&topic=room/2").await;
    let joined = told(&mut eve, |told| names(told, "join").len() == 2).await;
    assert_eq!(names(&joined, "join"), ["ann", "bob"]);
    assert_eq!(joined.last().expect("one")["users"], 3);
    // The list is for whoever may see it, by pages.
    let path = "/presence?topic=room/1";
    let list = get(&edge, protocol, path, Some("ann")).await.json();
    assert_eq!(
        list["users"],
        json!([
            { "user": "ann", "streams": 1 }, { "user": "bob", "streams": 2 }, { "user": "eve", "streams": 1 },
        ])
    );
    let page = get(
        &edge,
        protocol,
        "/presence?topic=room/1&limit=1&after=ann",
        Some("ann"),
    )
    .await
    .json();
    assert_eq!(
        (&page["users"][0]["user"], &page["next"]),
        (&json!("bob"), &json!("bob"))
    );
    assert_eq!(get(&edge, protocol, path, None).await.status, 401);
    assert_eq!(edge.ask("GET", path, "").await.json(), list);
    // One of two streams is not the last; a second of absence is none.
    let [one, other] = bob;
    drop(one);
    drop(ann);
    let left = told(&mut eve, |told| !names(told, "leave").is_empty()).await;
    assert_eq!(names(&left, "leave"), ["ann"]);
    drop(other);
    let left = told(&mut eve, |told| !names(told, "leave").is_empty()).await;
    assert_eq!(
        (names(&left, "leave"), names(&left, "join")),
        (vec!["bob".to_owned()], vec![])
    );
    // It is no event of the topic, and not kept.
    edge.publish("room/1", "hello").await;
    let message = patiently("the event", async {
        loop {
            let message = eve.message().await;
            if message.event == "message" {
                return message;
            }
        }
    })
    .await;
    assert_eq!(message.data, "hello");
    let mut late = open(&edge, protocol, "late", "topic=$presence/room/1&last=99").await;
    let _here = open(&edge, protocol, "here", "topic=room/1").await;
    assert_eq!(
        names(&told(&mut late, |told| !told.is_empty()).await, "join"),
        ["here"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_of_no_other_topic_and_to_nobody_else() {
    let edge = with_secret(RULES);
    let ask = async |topic: &str, user: Option<&str>| {
        get(
            &edge,
            Protocol::Http2,
            &format!("/events?topic=$presence/{topic}"),
            user,
        )
        .await
        .status
        .as_u16()
    };
    for (topic, user, status) in [
        ("room/1", None, 401),
        ("other", Some("bob"), 403),
        ("other", None, 401),
        ("$edge/stats", Some("bob"), 400),
        ("", Some("bob"), 400),
    ] {
        assert_eq!(ask(topic, user).await, status, "{topic}");
    }
    // Nobody is counted too, where nobody may come.
    let mut eve = open(&edge, Protocol::Http2, "eve", "topic=$presence/open/1").await;
    let anonymous = edge
        .events(Protocol::Http2, "topic=open/1")
        .await
        .opened()
        .await;
    let first = told(&mut eve, |told| !told.is_empty()).await;
    assert_eq!(
        first[0],
        json!({ "join": [], "leave": [], "users": 0, "anonymous": 1 })
    );
    drop(anonymous);
    let last = told(&mut eve, |told| !told.is_empty()).await;
    assert_eq!(last[0]["anonymous"], 0);
    // The operator sees who reads any topic.
    let _bob = open(&edge, Protocol::Http2, "bob", "topic=other").await;
    let list = edge.ask("GET", "/presence?topic=other", "").await.json();
    assert_eq!(list["users"], json!([{ "user": "bob", "streams": 1 }]));
    for (query, code) in [
        ("", "wrong-topic"),
        ("?topic=$x", "topic-reserved"),
        ("?topic=a&x=1", "wrong-query"),
    ] {
        let answer = edge.ask("GET", &format!("/presence{query}"), "").await;
        assert_eq!(answer.json()["code"], code, "{query}");
    }
}
