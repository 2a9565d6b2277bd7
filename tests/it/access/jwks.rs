//! Keys come from a set at a URL (JWKS) too, beside those of the configuration: what is no key for
//! signatures is passed over, and keys that are known survive the absence of the set.

use futures_util::FutureExt as _;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::KeyPair;
use serde_json::json;
use seventh::client::Protocol;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, task::JoinSet};

use super::{SECRET, b64, claims, now, poll_as, sign_raw, sign_with, token, with_secret};
use crate::{app::App, harness::patiently};

/// A key, and what a set says of it: its id is `e1`.
fn pair() -> (KeyPair, serde_json::Value) {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let point = pair.public_key_raw();
    let public = json!({
        "kty": "EC", "crv": "P-256", "kid": "e1", "use": "sig", "alg": "ES256",
        "x": b64(&point[1..33]), "y": b64(&point[33..]),
    });
    (pair, public)
}

fn signed(pair: &KeyPair, kid: &str) -> String {
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
    let header = format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#);
    sign_with(&header, &claims().to_string(), &key, Algorithm::ES256)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_a_set_too_and_survive_its_absence() {
    let app = App::start().await;
    let (pair, public) = pair();
    let set = json!({ "keys": [
        { "kty": "oct", "kid": "evil", "k": b64(SECRET) },
        { "kty": "unheard-of", "kid": "odd" },
        public,
    ]});
    app.answer("200 OK", "", &set.to_string());
    let edge = with_secret(&format!("access.jwks = \"http://{}/keys\"", app.address));
    let mut connection = edge.connect(Protocol::Http2).await;
    let signed = |kid: &str| signed(&pair, kid);
    edge.publish("a", "news").await;
    assert!(
        poll_as(&mut connection, &signed("e1"))
            .await
            .text
            .contains("news")
    );
    // A secret in a public set is no key.
    let hs = sign_raw(r#"{"alg":"HS256","kid":"evil"}"#, &claims().to_string());
    let answer = poll_as(&mut connection, &hs).await;
    assert!(!answer.text.contains("news"), "{}", answer.text);
    // One that a key here has signed is judged here: expired, it may come back.
    let mut late = claims();
    late["exp"] = json!(now() - 1);
    let answer = poll_as(&mut connection, &token(&late)).await;
    assert!(
        answer.text.contains("\"reason\":\"expired\""),
        "{}",
        answer.text
    );
    // Made-up key ids do not become a flood of fetches, and what is known stays so.
    app.stop().await;
    for n in 0..20 {
        let answer = poll_as(&mut connection, &signed(&format!("made-up-{n}"))).await;
        // It may be one of a set that is new: that cannot be said just now.
        assert!(
            answer.text.contains("\"reason\":\"unavailable\""),
            "{}",
            answer.text
        );
    }
    assert!(
        poll_as(&mut connection, &signed("e1"))
            .await
            .text
            .contains("news")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_fetched_at_start_and_all_who_need_it_wait_for_it() {
    let issuer = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = issuer.local_addr().expect("an address");
    let edge = with_secret(&format!("access.jwks = \"http://{address}/keys\""));
    edge.publish("a", "news").await;
    // Nobody has come yet.
    let (mut asker, _) = patiently("the fetch", issuer.accept())
        .await
        .expect("a peer");
    let (pair, public) = pair();
    let mut visitors = JoinSet::new();
    for _ in 0..8 {
        let (mut connection, token) = (edge.connect(Protocol::Http2).await, signed(&pair, "e1"));
        visitors.spawn(async move { poll_as(&mut connection, &token).await });
    }
    // Who needs no set does not wait for it; by then those before have asked too.
    let mut connection = edge.connect(Protocol::Http2).await;
    for _ in 0..8 {
        let answer = poll_as(&mut connection, &token(&claims())).await;
        assert!(answer.text.contains("news"), "{}", answer.text);
    }
    let set = json!({ "keys": [public] }).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", set.len());
    let answer = format!("{head}{set}");
    asker
        .write_all(answer.as_bytes())
        .await
        .expect("it is read");
    for answer in patiently("all visitors", visitors.join_all()).await {
        assert!(answer.text.contains("news"), "{}", answer.text);
    }
    assert!(
        issuer.accept().now_or_never().is_none(),
        "one fetch for all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_set_is_not_taken_for_one() {
    let app = App::start().await;
    let (pair, public) = pair();
    let set = json!({ "keys": [public] }).to_string();
    let too_long = json!({ "keys": [public], "more": "x".repeat(256 << 10) }).to_string();
    for (status, fields, body) in [
        ("302 Found", "Location: /elsewhere\r\n", set.as_str()),
        ("404 Not Found", "", &set),
        ("200 OK", "", &too_long),
        ("200 OK", "", "<h1>Keys</h1>"),
        ("200 OK", "", "[]"),
        ("200 OK", "", "{\"keys\": 7}"),
    ] {
        app.answer(status, fields, body);
        let edge = with_secret(&format!("access.jwks = \"http://{}/keys\"", app.address));
        edge.publish("a", "news").await;
        let mut connection = edge.connect(Protocol::Http2).await;
        let answer = poll_as(&mut connection, &signed(&pair, "e1")).await;
        let is_gentle = answer.text.contains("\"reason\":\"unavailable\"");
        assert!(is_gentle, "{status} {body:.20}: {}", answer.text);
        let metrics = edge.ask("GET", "/metrics", "").await.text;
        assert!(metrics.contains("\nseventh_jwks_age_seconds -1.0\n"));
    }
}
