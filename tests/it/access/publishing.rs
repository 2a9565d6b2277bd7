//! Publishing from outside takes a key of the configuration or a token that names the topic; a
//! cookie, which pages of others send too, is never enough.

use http::StatusCode;
use serde_json::{Value, json};
use seventh::client::Protocol;

use super::{bearer, claims, send, token, with_secret};
use crate::harness::TestEdge;

#[tokio::test(flavor = "multi_thread")]
async fn publishers_outside_need_a_key_and_a_cookie_is_none() {
    let edge =
        with_secret("access.publish = [\"a-key-for-publishers\"]\naccess.publish_claim = true");
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut claims = claims();
    claims["publish"] = json!(["orders/*"]);
    let orders = token(&claims);
    claims.as_object_mut().expect("an object").remove("publish");
    let nothing = token(&claims);
    let key = |token: &str| ("authorization", bearer(token));
    for ((name, value), path, status) in [
        (key("a-key-for-publishers"), "/topics/any", 200),
        (key("a-key-for-publishers"), "/broadcast", 200),
        (key("a-key-for-publisherz"), "/topics/any", 401),
        (key(&orders), "/topics/orders/eu", 200),
        (key(&orders), "/topics/orders/eu/1", 403),
        (key(&orders), "/topics/any", 403),
        (key(&orders), "/broadcast", 403),
        (key(&nothing), "/topics/orders/eu", 403),
        (
            ("cookie", format!("seventh={orders}")),
            "/topics/orders/eu",
            401,
        ),
        (("x-none", String::new()), "/topics/orders/eu", 401),
    ] {
        let body = if path == "/broadcast" {
            "{\"data\":1}"
        } else {
            "x"
        };
        let answer = send(&mut connection, "POST", path, &[(name, &value)], body).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
    }
    let lines = "{\"topic\":\"orders/a\",\"data\":1}\n{\"topic\":\"other\",\"data\":1}\n";
    let shown = bearer(&orders);
    let fields = [
        ("authorization", shown.as_str()),
        ("content-type", "application/x-ndjson"),
    ];
    let answer = send(&mut connection, "POST", "/publish", &fields, lines).await;
    let answers: Vec<Value> = answer
        .text
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(
        (&answers[0]["receivers"], &answers[1]["status"]),
        (&json!(0), &json!(403))
    );
    // Without keys there is nothing there.
    let closed = TestEdge::start();
    let mut connection = closed.connect(Protocol::Http2).await;
    let answer = send(&mut connection, "POST", "/topics/a", &[], "x").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_with_a_name_publish_what_is_theirs() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("news.key");
    std::fs::write(&file, "the-key-of-the-newsroom\n").expect("it is written");
    let edge = with_secret(&format!(
        "access.publish_claim = true\n\
         [[access.publisher]]\nname = \"newsroom\"\nkey_file = \"{}\"\ntopics = [\"news/**\"]\n\
         [[access.publisher]]\nname = \"app\"\nkey = \"the-key-of-the-app-itself\"\ntopics = [\"**\"]\naudience = true",
        file.display()
    ));
    let bob = super::open_as(&edge, Protocol::Http2, "topic=news/a", &token(&claims())).await;
    let _bob = bob.opened().await;
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut named = claims();
    named["publish"] = json!(["news/*"]);
    let claim = token(&named);
    let (news, app) = ("the-key-of-the-newsroom", "the-key-of-the-app-itself");
    let to_bob = json!({ "topic": "news/a", "data": 1, "to": { "users": ["bob"] } }).to_string();
    let long = json!({ "topic": "news/a", "data": 1, "retry": 60_001 }).to_string();
    let short = json!({ "topic": "news/a", "data": 1, "retry": 60_000 }).to_string();
    let elsewhere = json!({ "topic": "other", "data": 1 }).to_string();
    let people = json!({ "users": ["bob"], "data": 1 }).to_string();
    for (key, path, body, status, code) in [
        (news, "/publish", &short, 200, ""),
        (news, "/publish", &long, 400, "wrong-retry"),
        (&claim, "/publish", &long, 400, "wrong-retry"),
        (app, "/publish", &long, 200, ""),
        (news, "/publish", &elsewhere, 403, "publisher-topic"),
        (app, "/publish", &elsewhere, 200, ""),
        (news, "/send", &people, 403, "publisher-audience"),
        (&claim, "/send", &people, 403, "publisher-audience"),
        (app, "/send", &people, 200, ""),
    ] {
        let bearer = bearer(key);
        let fields = [("authorization", bearer.as_str())];
        let answer = send(&mut connection, "POST", path, &fields, body.clone()).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text);
        assert_eq!(answer.json()["code"].as_str().unwrap_or_default(), code);
    }
    // Only who may send to people learns who of them is there.
    for (key, receivers) in [(news, Value::Null), (&claim, Value::Null), (app, json!(1))] {
        let bearer = bearer(key);
        let fields = [("authorization", bearer.as_str())];
        let answer = send(&mut connection, "POST", "/publish", &fields, to_bob.clone()).await;
        assert_eq!(answer.json()["receivers"], receivers, "{}", answer.text);
    }
}

/// An array is counted as so many events, all of them or none.
#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_as_many_events_as_it_holds() {
    let edge = with_secret("access.publish = [\"a-key-for-publishers\"]\nlimits.publish_rate = 10");
    let bearer = bearer("a-key-for-publishers");
    let array = |n: usize| {
        let event = json!({ "topic": "a", "data": 1 });
        Value::Array(vec![event; n]).to_string()
    };
    let mut connection = edge.connect(Protocol::Http2).await;
    let fields = [("authorization", bearer.as_str())];
    for (events, status, code) in [
        (101, 400, "limit-publish-rate"),
        (90, 200, ""),
        (99, 429, "limit-publish-rate"),
    ] {
        let answer = send(&mut connection, "POST", "/publish", &fields, array(events)).await;
        assert_eq!(answer.status, status, "{events}: {}", answer.text);
        assert_eq!(answer.json()["code"].as_str().unwrap_or_default(), code);
    }
    assert_eq!(edge.ask("GET", "/topics/a", "").await.json()["events"], 90);
    let fields = [fields[0], ("idempotency-key", "1")];
    let answer = send(&mut connection, "POST", "/publish", &fields, array(2)).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
}
