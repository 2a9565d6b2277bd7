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
