//! A good token lets someone in, of whatever algorithm, in a field or in a cookie; a bad one never
//! does, and is never taken for none.

use http::{HeaderValue, Request, StatusCode};
use jsonwebtoken::Header;
use serde_json::json;
use seventh::client::{Protocol, full};

use super::{
    BadTokens, bad_claims, claims, forged_tokens, get, keyring, open_as, poll_as, poll_request,
    token, with_secret,
};
use crate::harness::{Answer, every_protocol};

every_protocol!(
    good_tokens_of_every_algorithm_are_taken,
    bad_tokens_are_refused,
    a_token_comes_in_a_cookie_too,
);

async fn good_tokens_of_every_algorithm_are_taken(protocol: Protocol) {
    let ring = keyring();
    ring.edge.publish("a", "for bob").await;
    for (kid, algorithm, key) in &ring.signers {
        for named in [Some(*kid), None] {
            // Without a key id, keys of one algorithm are tried in turn.
            let header = Header {
                kid: named.map(Into::into),
                ..Header::new(*algorithm)
            };
            let token = jsonwebtoken::encode(&header, &claims(), key).expect("it signs");
            let answer = poll_as(&mut ring.edge.connect(protocol).await, &token).await;
            assert!(
                answer.text.contains("for bob"),
                "{kid} {named:?}: {} {}",
                answer.status,
                answer.text
            );
        }
    }
}

async fn bad_tokens_are_refused(protocol: Protocol) {
    let ring = keyring();
    let mut connection = ring.edge.connect(protocol).await;
    ring.edge.publish("a", "for bob").await;
    let mut bad = BadTokens::default();
    forged_tokens::add_to(&mut bad, &ring);
    bad_claims::add_to(&mut bad);
    let BadTokens(bad) = bad;
    assert!(bad.len() >= 150, "{} bad tokens", bad.len());
    assert!(
        poll_as(&mut ring.edge.connect(protocol).await, &token(&claims()))
            .await
            .text
            .contains("for bob")
    );
    for (what, token) in bad {
        // Trailing blanks of a field are not part of it (RFC 9110 5.5).
        // What cannot stand in a header does not reach the edge at all.
        let Ok(request) = poll_request(&token) else {
            continue;
        };
        let answer = Answer::of(&mut ring.edge.connect(protocol).await, request).await;
        let gentle = answer.status == StatusCode::OK && answer.text.contains("event: edge-auth\n");
        assert!(
            answer.status == StatusCode::UNAUTHORIZED || gentle,
            "{what}: {} {}",
            answer.status,
            answer.text
        );
        assert!(
            !answer.text.contains("for bob") && !answer.text.contains("edge-open"),
            "{what}"
        );
        // Expired and signed: the only one that may come back.
        assert_eq!(
            gentle,
            what.strip_prefix("exp ")
                .is_some_and(|exp| exp.parse::<u64>().is_ok()),
            "{what}"
        );
        assert!(
            token.len() < 20 || !answer.text.contains(&token),
            "a token is never shown"
        );
    }
    for other in ["Basic Ym9iOmJvYg==", "Bearer", "Token x"] {
        let fields = [("authorization", other)];
        let answer = get(&mut connection, "/events?topic=a", &fields).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{other}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    // None at all is anonymous, which with keys in the configuration is not enough.
    assert_eq!(
        get(&mut connection, "/events?topic=a", &[]).await.status,
        StatusCode::UNAUTHORIZED
    );
}

async fn a_token_comes_in_a_cookie_too(protocol: Protocol) {
    let edge = with_secret("access.subscribe = [\"authenticated\", \"anonymous\"]");
    let mut claims = claims();
    claims["groups"] = json!(["sales"]);
    let _bob = open_as(&edge, protocol, "topic=a", &token(&claims))
        .await
        .opened()
        .await;
    let _nobody = edge.events(protocol, "topic=b").await.opened().await;
    let streams = edge.ask("GET", "/streams", "").await.json();
    let (bob, nobody) = (&streams["streams"][0], &streams["streams"][1]);
    assert_eq!(
        (&bob["user"], &bob["groups"], &bob["topics"]),
        (&json!("bob"), &json!(["sales"]), &json!(["a"]))
    );
    assert_eq!(
        (&nobody["user"], &nobody["protocol"]),
        (&json!(null), &json!(protocol.as_str()))
    );
    assert!(
        nobody["address"]
            .as_str()
            .expect("an address")
            .starts_with("127.0.0.1:")
    );
    let filtered = edge
        .ask("GET", "/streams?user=bob&group=sales&topic=a&limit=1", "")
        .await
        .json();
    assert_eq!(filtered["streams"].as_array().map(Vec::len), Some(1));
    // A bad one is never treated as none, although none would do.
    let mut connection = edge.connect(protocol).await;
    let fields = [("cookie", "seventh=x.y.z")];
    let answer = get(&mut connection, "/events?topic=a", &fields).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_cookies_may_hold_what_they_like() {
    let edge = with_secret("");
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut cookie = b"name=J\xc3\xbcrgen; seventh=".to_vec();
    cookie.extend(token(&claims()).bytes());
    let cookie = HeaderValue::from_bytes(&cookie).expect("a value");
    let request = Request::head("/events?topic=a")
        .header("cookie", cookie)
        .body(full(""));
    let answer = Answer::of(&mut connection, request.expect("a request")).await;
    assert_eq!(answer.status, StatusCode::OK);
}
