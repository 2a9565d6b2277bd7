//! Tokens that are taken back before their time: those that were issued before, streams that they opened, and
//! publishers that come with them.

use serde_json::{Value, json};
use seventh::client::Protocol;

use super::{bearer, claims, get, head, open_as, send, token, with_secret};
use crate::harness::{every_protocol, patiently, streaming};

every_protocol!(what_was_issued_before_opens_nothing_more);

async fn what_was_issued_before_opens_nothing_more(protocol: Protocol) {
    let edge = with_secret("");
    let issued = |iat: Option<u64>, user: &str| {
        let mut claims = claims();
        claims["sub"] = json!(user);
        match iat {
            Some(iat) => claims["iat"] = json!(iat),
            None => drop(claims.as_object_mut().expect("an object").remove("iat")),
        }
        token(&claims)
    };
    let old = issued(Some(super::now() - 10), "bob");
    let mut stream = open_as(&edge, protocol, "topic=a", &old)
        .await
        .opened()
        .await;
    let mut other = open_as(&edge, protocol, "topic=a", &issued(None, "ann"))
        .await
        .opened()
        .await;
    let asked = super::now();
    let answer = edge.ask("POST", "/users/bob/revoke", "").await.json();
    assert_eq!(answer["streams"], 1);
    let before = answer["before"].as_u64().expect("a moment");
    assert!((asked + 1..=super::now() + 1).contains(&before), "{before}");
    // It ends with its reconnection time, and comes back in vain.
    assert!(matches!(
        stream.item().await,
        Some(seventh::sse::Item::Retry(_))
    ));
    assert_eq!(stream.item().await, None);
    for (token, status) in [
        (&old, 401),
        (&issued(None, "bob"), 401),
        (&issued(Some(before - 1), "bob"), 401),
        (&issued(Some(before), "bob"), 200),
        (&issued(Some(super::now() - 10), "ann"), 200),
    ] {
        let mut connection = edge.connect(protocol).await;
        let fields = [("authorization", bearer(token))];
        let fields = fields
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let path = "/events?topic=a";
        assert_eq!(
            head(&mut connection, path, &fields).await.as_u16(),
            status,
            "{token}"
        );
        if status == 401 {
            let answer = get(&mut connection, path, &fields).await;
            assert_eq!(answer.json()["code"], "token-revoked");
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge, "Bearer error=\"invalid_token\"");
        }
    }
    edge.publish("a", "x").await;
    assert_eq!(other.data(1).await, ["x"]);
}

/// A publisher that sends lines for hours is looked at anew for each.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_is_stopped_in_the_middle() {
    let edge = with_secret("access.publish_claim = true");
    let mut claims = claims();
    claims["publish"] = json!(["orders/*"]);
    let mut connection = edge.connect(Protocol::Http2).await;
    let (parts, body) = streaming();
    let request = http::Request::post("/publish")
        .header("authorization", bearer(&token(&claims)))
        .header("content-type", "application/jsonl");
    let mut response = patiently(
        "an answer",
        connection.send(request.body(body).expect("a request")),
    )
    .await
    .expect("an answer");
    let line = "{\"topic\":\"orders/1\",\"data\":1}\n";
    let mut answer = async || -> Value {
        parts.send(line.into()).await.expect("it is read");
        let answer = patiently("an answer", response.chunk())
            .await
            .expect("it goes on");
        serde_json::from_slice(&answer.expect("a line")).expect("JSON")
    };
    assert_eq!(answer().await["receivers"], 0);
    edge.ask("POST", "/users/bob/revoke", "").await;
    assert_eq!(answer().await["code"], "token-revoked");
    let answer = send(
        &mut connection,
        "POST",
        "/topics/orders/1",
        &[("authorization", &bearer(&token(&claims)))],
        "x",
    )
    .await;
    assert_eq!(answer.status, 401);
}
