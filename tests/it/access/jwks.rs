//! Keys come from a set at a URL (JWKS) too, beside those of the configuration: what is no key for
//! signatures is passed over, and keys that are known survive the absence of the set.

use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::KeyPair;
use serde_json::json;
use seventh::client::Protocol;

use super::{SECRET, b64, claims, now, poll_as, sign_raw, sign_with, token, with_secret};
use crate::app::App;

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_a_set_too_and_survive_its_absence() {
    let app = App::start().await;
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let point = pair.public_key_raw();
    let set = json!({ "keys": [
        { "kty": "oct", "kid": "evil", "k": b64(SECRET) },
        { "kty": "unheard-of", "kid": "odd" },
        { "kty": "EC", "crv": "P-256", "kid": "e1", "use": "sig", "alg": "ES256", "x": b64(&point[1..33]), "y": b64(&point[33..]) },
    ]});
    let edge = with_secret(&format!("access.jwks = \"http://{}/keys\"", app.address));
    let mut connection = edge.connect(Protocol::Http2).await;
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
    let signed = |kid: &str| {
        sign_with(
            &format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#),
            &claims().to_string(),
            &key,
            Algorithm::ES256,
        )
    };
    edge.publish("a", "news").await;
    app.answer("200 OK", "", &set.to_string());
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
