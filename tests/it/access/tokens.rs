//! A good token lets someone in, of whatever algorithm, in a field or in a cookie; a bad one never
//! does, and is never taken for none.

use http::{HeaderValue, Request, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use seventh::client::{Protocol, full};

use super::{
    BadTokens, SECRET, bad_claims, bearer, claims, forged_tokens, get, head, keyring, now, open_as,
    poll_as, poll_request, sign_with, token, with_secret,
};
use crate::harness::{Answer, TestEdge, every_protocol};

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
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, "Bearer error=\"invalid_token\"");
    }
    // None at all is anonymous, which with keys in the configuration is not enough.
    let answer = get(&mut connection, "/events?topic=a", &[]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.header("www-authenticate"), "Bearer");
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

#[tokio::test(flavor = "multi_thread")]
async fn keys_may_have_issuers_and_audiences_of_their_own() {
    const OTHER: &str = "fedcba9876543210fedcba9876543210";
    let edge = TestEdge::with(&format!(
        "access.issuer = \"app\"
         access.audience = \"seventh\"
         [[access.key]]
         kid = \"h\"
         algorithm = \"HS256\"
         secret = \"{SECRET}\"
         [[access.key]]
         kid = \"o\"
         algorithm = \"HS256\"
         secret = \"{OTHER}\"
         issuer = \"partner\"
         audience = \"events\""
    ));
    let other = EncodingKey::from_secret(OTHER.as_bytes());
    let partner = |claims: &Value| {
        let header = r#"{"alg":"HS256","kid":"o"}"#;
        sign_with(header, &claims.to_string(), &other, Algorithm::HS256)
    };
    let mut of_partner = claims();
    (of_partner["iss"], of_partner["aud"]) = (json!("partner"), json!("events"));
    let mut connection = edge.connect(Protocol::Http2).await;
    for (token, status) in [
        (token(&claims()), 200),
        (partner(&of_partner), 200),
        // What one of them may say the other may not.
        (partner(&claims()), 401),
        (token(&of_partner), 401),
    ] {
        let field = bearer(&token);
        let fields = [("authorization", field.as_str())];
        assert_eq!(
            head(&mut connection, "/events?topic=a", &fields).await,
            status
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_meant_for_others_is_refused_and_clocks_may_differ_a_little() {
    let edge = TestEdge::with(&format!(
        "[[access.key]]\nkid = \"h\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
    ));
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut nobodys = claims();
    nobodys.as_object_mut().expect("an object").remove("aud");
    let mut ahead = nobodys.clone();
    ahead["nbf"] = json!(now() + 3);
    for (claims, status) in [(nobodys, 200), (claims(), 401), (ahead, 200)] {
        let field = bearer(&token(&claims));
        let fields = [("authorization", field.as_str())];
        assert_eq!(
            head(&mut connection, "/events?topic=a", &fields).await,
            status,
            "{claims}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_cookies_that_differ_are_not_chosen_between() {
    let edge = with_secret("");
    let mut connection = edge.connect(Protocol::Http2).await;
    let good = token(&claims());
    let mut eves = claims();
    eves["sub"] = json!("eve");
    let eves = token(&eves);
    for (cookie, status) in [
        (format!("a=1; seventh={good}; b=2; seventh={good}"), 200),
        (format!("seventh={good}; seventh={eves}"), 401),
        (format!("seventh={good}; seventh="), 401),
    ] {
        let fields = [("cookie", cookie.as_str())];
        assert_eq!(
            head(&mut connection, "/events?topic=a", &fields).await,
            status
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_without_a_cookie_is_not_closed_for_good() {
    let edge = with_secret("");
    let mut connection = edge.connect(Protocol::Http2).await;
    let id = edge.publish_id("a", "news").await;
    let accept = ("accept", "text/event-stream");
    let answer = get(&mut connection, "/events?topic=a", &[accept]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let back = [accept, ("last-event-id", id.as_str())];
    let answer = get(&mut connection, "/events?topic=a", &back).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer.text.contains("\"reason\":\"expired\""),
        "{}",
        answer.text
    );
    assert!(answer.text.contains("retry: ") && !answer.text.contains("news"));
    // With a bad token it is refused as ever, and so is an id that is not the edge's.
    let bad = [back[0], back[1], ("authorization", "Bearer x")];
    let answer = get(&mut connection, "/events?topic=a", &bad).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let odd = [accept, ("last-event-id", "17")];
    let answer = get(&mut connection, "/events?topic=a", &odd).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_someone_is_kept_by_nobody_on_the_way() {
    let edge = with_secret("access.subscribe = [\"authenticated\", \"anonymous\"]");
    let mut connection = edge.connect(Protocol::Http2).await;
    let bob = bearer(&token(&claims()));
    let bob = [("authorization", bob.as_str())];
    for method in ["GET", "HEAD"] {
        for (fields, says) in [
            (&bob[..], "private, no-store, no-transform"),
            (&[], "no-cache, no-transform"),
        ] {
            let request = Request::builder().method(method).uri("/events?topic=a");
            let request = fields.iter().fold(request, |request, (name, value)| {
                request.header(*name, *value)
            });
            let request = request.body(full("")).expect("a request");
            let response = connection.send(request).await.expect("a response");
            assert_eq!(response.headers["cache-control"], says, "{method}");
        }
    }
}
