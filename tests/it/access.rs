//! Who is let in, and who is not.

use std::time::{Duration, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use seventh::client::{Connection, Protocol, full};

use crate::{
    app::App,
    harness::{Answer, Events, TestEdge, every_protocol},
};

every_protocol!(
    good_tokens_of_every_algorithm_are_taken,
    bad_tokens_are_refused,
    a_token_comes_in_a_cookie_too,
    a_stream_ends_with_its_token_and_goes_on_with_a_new_one,
    rules_say_who_reads_what,
    origins_on_the_list_and_no_others,
    the_app_says_who_someone_is,
);

pub const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub fn now() -> u64 {
    seventh::clock::wall()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs any header and any payload, sensible or not, with HS256.
fn sign_raw(header: &str, payload: &str, secret: &[u8]) -> String {
    sign_with(
        header,
        payload,
        &EncodingKey::from_secret(secret),
        Algorithm::HS256,
    )
}

fn sign_with(header: &str, payload: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("it signs");
    format!("{message}.{signature}")
}

/// A good token of the HS256 key.
pub fn token(claims: &Value) -> String {
    sign_raw(
        r#"{"alg":"HS256","kid":"h"}"#,
        &claims.to_string(),
        SECRET.as_bytes(),
    )
}

pub fn claims() -> Value {
    json!({ "sub": "bob", "exp": now() + 3600, "iss": "app", "aud": "seventh" })
}

/// An edge with a key of each algorithm, and the private halves.
struct Keyring {
    edge: TestEdge,
    signers: Vec<(&'static str, Algorithm, EncodingKey)>,
    rsa_public: String,
}

fn keyring() -> Keyring {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = String::from("access.issuer = \"app\"\naccess.audience = \"seventh\"\n");
    let mut signers = Vec::new();
    for (kid, algorithm) in [
        ("h", Algorithm::HS256),
        ("h384", Algorithm::HS384),
        ("h512", Algorithm::HS512),
    ] {
        config += &format!(
            "[[access.key]]\nkid = \"{kid}\"\nalgorithm = \"{algorithm:?}\"\nsecret = \"{SECRET}\"\n"
        );
        signers.push((kid, algorithm, EncodingKey::from_secret(SECRET.as_bytes())));
    }
    let make = |algorithm| KeyPair::generate_for(algorithm).expect("a key");
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
        .expect("a key");
    let p256 = make(&rcgen::PKCS_ECDSA_P256_SHA256);
    let p384 = make(&rcgen::PKCS_ECDSA_P384_SHA384);
    let ed = make(&rcgen::PKCS_ED25519);
    let mut add = |kid: &'static str, algorithm: Algorithm, pair: &KeyPair| {
        let file = folder.path().join(format!("{kid}.pem"));
        std::fs::write(&file, pair.public_key_pem()).expect("it is written");
        config += &format!(
            "[[access.key]]\nkid = \"{kid}\"\nalgorithm = \"{algorithm:?}\"\npublic_key = \"{}\"\n",
            file.display()
        );
        let pem = pair.serialize_pem();
        let key = match kid.as_bytes()[0] {
            b'e' => EncodingKey::from_ec_pem(pem.as_bytes()),
            b'd' => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        signers.push((kid, algorithm, key.expect("a key")));
    };
    add("r256", Algorithm::RS256, &rsa);
    add("r384", Algorithm::RS384, &rsa);
    add("r512", Algorithm::RS512, &rsa);
    add("p256", Algorithm::PS256, &rsa);
    add("p384", Algorithm::PS384, &rsa);
    add("p512", Algorithm::PS512, &rsa);
    add("e256", Algorithm::ES256, &p256);
    add("e384", Algorithm::ES384, &p384);
    add("d", Algorithm::EdDSA, &ed);
    let any = "127.0.0.1:0".parse().expect("an address");
    Keyring {
        edge: TestEdge::in_folder(folder, any, &config).expect("it starts"),
        signers,
        rsa_public: rsa.public_key_pem(),
    }
}

async fn ask(connection: &mut Connection, token: &str) -> Result<Answer, String> {
    let request = Request::get("/events?topic=a&poll=1&last=1")
        .header("accept", "text/event-stream")
        .header("authorization", format!("Bearer {token}"))
        .body(full(""));
    // What cannot stand in a header does not reach the edge at all.
    let request = request.map_err(|error| error.to_string())?;
    Ok(Answer::of(connection, request).await)
}

async fn good_tokens_of_every_algorithm_are_taken(protocol: Protocol) {
    let ring = keyring();
    ring.edge.publish("a", "for bob").await;
    let mut connection = ring.edge.connect(protocol).await;
    for (kid, algorithm, key) in &ring.signers {
        for named in [Some(*kid), None] {
            // Without a key id, keys of one algorithm are tried in turn.
            let header = Header {
                kid: named.map(Into::into),
                ..Header::new(*algorithm)
            };
            let token = jsonwebtoken::encode(&header, &claims(), key).expect("it signs");
            let answer = ask(&mut connection, &token).await.expect("it is sent");
            assert!(
                answer.text.contains("for bob"),
                "{kid} {named:?}: {} {}",
                answer.status,
                answer.text
            );
        }
    }
}

/// Each with what is wrong with it.
fn bad_tokens(ring: &Keyring) -> Vec<(String, String)> {
    let good = token(&claims());
    let header = r#"{"alg":"HS256","kid":"h"}"#;
    let payload = claims().to_string();
    let secret = SECRET.as_bytes();
    let mut bad: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, token: String| bad.push((what.to_owned(), token));

    for alg in [
        "none", "None", "NONE", "nOnE", "", "hs256", "HS1", "RS1", "ES256K", "dir", "A128KW",
    ] {
        let unsigned = format!("{}.{}", b64(format!(r#"{{"alg":"{alg}"}}"#)), b64(&payload));
        add(&format!("alg {alg}, no signature"), format!("{unsigned}."));
        add(
            &format!("alg {alg}, a signature"),
            sign_raw(&format!(r#"{{"alg":"{alg}"}}"#), &payload, secret),
        );
    }
    // A public key is no secret, whatever the header says.
    for (alg, algorithm) in [
        ("HS256", Algorithm::HS256),
        ("HS384", Algorithm::HS384),
        ("HS512", Algorithm::HS512),
    ] {
        for kid in ["r256", "p256", "e256", "d"] {
            let key = EncodingKey::from_secret(ring.rsa_public.as_bytes());
            let header = format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
            add(
                "HS signed with the RSA public key",
                sign_with(&header, &payload, &key, algorithm),
            );
        }
        let key = EncodingKey::from_secret(b"another secret of the same length");
        add(
            "another secret",
            sign_with(&format!(r#"{{"alg":"{alg}"}}"#), &payload, &key, algorithm),
        );
    }
    // Each key is for one algorithm.
    for (kid, algorithm, key) in &ring.signers {
        for other in &ring.signers {
            if other.0 != *kid
                && std::mem::discriminant(algorithm) != std::mem::discriminant(&other.1)
            {
                let header = format!(r#"{{"alg":"{algorithm:?}","kid":"{}"}}"#, other.0);
                add(
                    "a key id of another algorithm",
                    sign_with(&header, &payload, key, *algorithm),
                );
            }
        }
    }
    for (alg, key) in [
        (
            "ES256",
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key"),
        ),
        (
            "EdDSA",
            KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key"),
        ),
    ] {
        let pem = key.serialize_pem();
        let (key, algorithm) = match alg {
            "ES256" => (EncodingKey::from_ec_pem(pem.as_bytes()), Algorithm::ES256),
            _ => (EncodingKey::from_ed_pem(pem.as_bytes()), Algorithm::EdDSA),
        };
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        add(
            "a stranger's key",
            sign_with(&header, &payload, &key.expect("a key"), algorithm),
        );
    }
    for (name, values) in [
        (
            "exp",
            vec![
                json!(null),
                json!("9999999999"),
                json!(-1),
                json!(true),
                json!([9999999999u64]),
                json!({}),
                json!(1e300),
                json!(0),
                json!(now() - 1),
            ],
        ),
        (
            "nbf",
            vec![json!(now() + 600), json!("0"), json!(null), json!(-5)],
        ),
        ("iat", vec![json!("x"), json!([])]),
        (
            "iss",
            vec![
                json!(null),
                json!("App"),
                json!("app "),
                json!(["app"]),
                json!(1),
                json!(""),
            ],
        ),
        (
            "aud",
            vec![
                json!(null),
                json!("Seventh"),
                json!([]),
                json!(["x"]),
                json!(["seventh", 1]),
                json!(7),
                json!({"seventh": 1}),
            ],
        ),
        (
            "sub",
            vec![
                json!(null),
                json!(""),
                json!(5),
                json!(["bob"]),
                json!("x".repeat(256)),
                json!("a\nb"),
                json!("a\u{0}"),
            ],
        ),
        (
            "groups",
            vec![
                json!("editors"),
                json!(5),
                json!([5]),
                json!({}),
                json!([""]),
                json!(["a\u{7}"]),
                json!(vec!["g"; 257]),
                json!(null),
            ],
        ),
        (
            "topics",
            vec![json!("a"), json!([1]), json!([""]), json!(null), json!({})],
        ),
        ("publish", vec![json!("**"), json!([null])]),
    ] {
        for value in values {
            let mut claims = claims();
            claims[name] = value.clone();
            add(&format!("{name} {value}"), token(&claims));
        }
        if matches!(name, "exp" | "iss" | "aud" | "sub") {
            let mut claims = claims();
            claims.as_object_mut().expect("an object").remove(name);
            add(&format!("no {name}"), token(&claims));
        }
    }
    for parameter in [
        r#""jku":"https://evil.example/keys""#,
        r#""jwk":{"kty":"oct","k":"AAAA"}"#,
        r#""x5u":"https://evil.example""#,
        r#""x5c":["AAAA"]"#,
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""enc":"A128GCM""#,
        r#""zip":"DEF""#,
        r#""b64":false"#,
        r#""kid":"unknown""#,
        r#""kid":"../../h""#,
        r#""kid":"r256""#,
        r#""kid":5"#,
        r#""kid":null"#,
        r#""kid":["h"]"#,
        r#""typ":"JWE""#,
        r#""typ":5"#,
        r#""typ":null"#,
        r#""alg":"HS256""#,
        r#""alg":"none""#,
    ] {
        add(
            parameter,
            sign_raw(
                &format!(r#"{{"alg":"HS256",{parameter}}}"#),
                &payload,
                secret,
            ),
        );
        add(
            parameter,
            sign_raw(
                &format!(r#"{{{parameter},"alg":"HS256"}}"#),
                &payload,
                secret,
            ),
        );
    }
    for odd in [
        "[]",
        "\"x\"",
        "null",
        "{}",
        "{",
        "",
        "{\"alg\":5}",
        "\u{feff}{\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\"}x",
    ] {
        add("an odd header", sign_raw(odd, &payload, secret));
    }
    for odd in [
        "[]",
        "\"x\"",
        "null",
        "{}",
        "{",
        "",
        "5",
        &format!("{payload}x"),
    ] {
        add("an odd payload", sign_raw(header, odd, secret));
    }
    for (name, value) in [
        ("exp", "9999999999"),
        ("sub", "\"eve\""),
        ("iss", "\"app\""),
        ("x", "1"),
    ] {
        let twice = payload.replacen('{', &format!("{{\"{name}\":{value},\"{name}\":{value},"), 1);
        add(&format!("{name} twice"), sign_raw(header, &twice, secret));
    }
    let parts: Vec<&str> = good.split('.').collect();
    let (h, p, s) = (parts[0], parts[1], parts[2]);
    for odd in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        h.into(),
        format!("{h}.{p}"),
        format!("{h}.{p}."),
        format!("{h}..{s}"),
        format!(".{p}.{s}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.x"),
        format!("{good}x"),
        format!("{good}="),
        format!("{good}=="),
        format!("{good} x"),
        format!("{good},{good}"),
        format!("{p}.{h}.{s}"),
        format!("{h}.{h}.{s}"),
        format!("{h}=.{p}.{s}"),
        format!("{h}.{p}=.{s}"),
        format!("{h}.{p}.{}", &s[1..]),
        format!("{h}.{p}.{s}AAAA"),
        format!("{h}.{p}.{}", s.to_uppercase()),
        format!("{h}.{p}.{}", "A".repeat(s.len())),
        "x".repeat(9000),
        format!("{h}.{}.{s}", "A".repeat(9000)),
        format!("\"{good}\""),
        format!("Bearer {good}"),
        format!("{h}.{p}+.{s}"),
        format!("{h}.{p}/.{s}"),
    ] {
        add("an odd form", odd);
    }
    // Any other character anywhere makes it another token.
    for at in (0..good.len()).step_by(5) {
        let mut other = good.clone().into_bytes();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        add(
            "one character is another",
            String::from_utf8(other).expect("ASCII"),
        );
    }
    bad
}

async fn bad_tokens_are_refused(protocol: Protocol) {
    let ring = keyring();
    ring.edge.publish("a", "for bob").await;
    let bad = bad_tokens(&ring);
    assert!(bad.len() >= 150, "{} bad tokens", bad.len());
    let mut connection = ring.edge.connect(protocol).await;
    assert!(
        ask(&mut connection, &token(&claims()))
            .await
            .expect("it is sent")
            .text
            .contains("for bob")
    );
    for (what, token) in bad {
        // Trailing blanks of a field are not part of it (RFC 9110 5.5).
        let Ok(answer) = ask(&mut connection, &token).await else {
            continue;
        };
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
        let request = Request::get("/events?topic=a")
            .header("authorization", other)
            .body(full(""));
        let answer = Answer::of(&mut connection, request.expect("a request")).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{other}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    // None at all is anonymous, which with keys in the configuration is not enough.
    let request = Request::get("/events?topic=a")
        .body(full(""))
        .expect("a request");
    assert_eq!(
        Answer::of(&mut connection, request).await.status,
        StatusCode::UNAUTHORIZED
    );
}

fn with_secret(more: &str) -> TestEdge {
    TestEdge::with(&format!(
        "{more}\n[[access.key]]\nkid = \"h\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
    ))
}

async fn open_as(edge: &TestEdge, protocol: Protocol, query: &str, token: &str) -> Events {
    let mut connection = edge.connect(protocol).await;
    let cookie = format!("theme=dark; seventh={token}; other=1");
    Events::open(&mut connection, query, &[("cookie", &cookie)])
        .await
        .owning(connection)
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
    let request = Request::get("/events?topic=a")
        .header("cookie", "seventh=x.y.z")
        .body(full(""));
    let answer = Answer::of(&mut connection, request.expect("a request")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

async fn a_stream_ends_with_its_token_and_goes_on_with_a_new_one(protocol: Protocol) {
    let edge = with_secret("access.expiry_notice = \"1h\"");
    let mut short = claims();
    short["exp"] = json!(now() + 2);
    let mut events = open_as(&edge, protocol, "topic=a", &token(&short))
        .await
        .opened()
        .await;
    let message = events.message().await;
    assert_eq!(
        (message.event.as_str(), message.id.ends_with("-0")),
        ("edge-auth", true)
    );
    let data: Value = serde_json::from_str(&message.data).expect("JSON");
    assert_eq!(data["reason"], "expiring");
    assert!(data["seconds"].as_u64() <= Some(2));
    let id = edge.publish_id("a", "1").await;
    assert_eq!(events.data(1).await, ["1"]);
    assert!(matches!(
        events.item().await,
        Some(seventh::sse::Item::Retry(_))
    ));
    assert_eq!(events.item().await, None, "a clean end");
    edge.publish("a", "2").await;
    // The old token: gently, as it may be renewed. The new one goes on where the stream was.
    let mut connection = edge.connect(protocol).await;
    let late = ask(&mut connection, &token(&short))
        .await
        .expect("it is sent");
    assert!(
        late.text.contains("\"reason\":\"expired\"") && late.text.contains("retry: "),
        "{}",
        late.text
    );
    let bearer = format!("Bearer {}", token(&claims()));
    let headers = [
        ("authorization", bearer.as_str()),
        ("last-event-id", id.as_str()),
    ];
    let mut connection = edge.connect(protocol).await;
    let mut events = Events::open(&mut connection, "topic=a", &headers)
        .await
        .opened()
        .await;
    loop {
        let message = events.message().await;
        if message.event != "edge-auth" {
            break assert_eq!(message.data, "2");
        }
    }
}

async fn rules_say_who_reads_what(protocol: Protocol) {
    let edge = with_secret(
        "access.subscribe = [\"authenticated\", \"anonymous\"]
         [groups]
         staff = [\"sales\", \"user:zoe\"]
         [[access.rule]]
         topic = \"orders/*\"
         allow = [\"user:bob\", \"group:staff\"]
         [[access.rule]]
         topic = \"members/**\"
         allow = [\"authenticated\"]",
    );
    let as_user = |sub: &str, more: Value| {
        let mut claims = claims();
        claims["sub"] = json!(sub);
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        Some(token(&claims))
    };
    let mut connection = edge.connect(protocol).await;
    for (who, topic, status) in [
        (None, "news", 200),
        (None, "orders/eu", 401),
        (None, "members/a/b", 401),
        (None, "orders/eu/1", 200),
        (as_user("bob", json!({})), "orders/eu", 200),
        (as_user("eve", json!({})), "orders/eu", 403),
        (as_user("eve", json!({})), "members/a/b", 200),
        // Nested: sales is in staff, and zoe is by the operator's word.
        (
            as_user("eve", json!({"groups": ["sales"]})),
            "orders/eu",
            200,
        ),
        (
            as_user("eve", json!({"groups": ["staff"]})),
            "orders/eu",
            200,
        ),
        (as_user("zoe", json!({})), "orders/eu", 200),
        (
            as_user("eve", json!({"groups": ["sale"]})),
            "orders/eu",
            403,
        ),
        // A token may narrow what is allowed, and never widen it.
        (
            as_user("bob", json!({"topics": ["news", "team/*"]})),
            "news",
            200,
        ),
        (
            as_user("bob", json!({"topics": ["news", "team/*"]})),
            "team/a",
            200,
        ),
        (
            as_user("bob", json!({"topics": ["news", "team/*"]})),
            "orders/eu",
            403,
        ),
        (as_user("eve", json!({"topics": ["**"]})), "orders/eu", 403),
        (as_user("bob", json!({"topics": []})), "news", 403),
    ] {
        let mut request = Request::head(format!("/events?topic={topic}"));
        if let Some(token) = &who {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = Answer::of(&mut connection, request.body(full("")).expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{topic}");
    }
}

async fn origins_on_the_list_and_no_others(protocol: Protocol) {
    let edge =
        TestEdge::with("access.origins = [\"https://app.example\", \"http://localhost:3000\"]");
    let mut connection = edge.connect(protocol).await;
    for (origin, listed) in [
        ("https://app.example", true),
        ("http://localhost:3000", true),
        ("null", false),
        ("https://APP.example", false),
        ("https://app.example:443", false),
        ("https://app.example.evil", false),
        ("https://evil-app.example", false),
        ("http://app.example", false),
    ] {
        for (method, status) in [("HEAD", 200), ("OPTIONS", 204), ("POST", 405)] {
            let request = Request::builder()
                .method(method)
                .uri("/events?topic=a")
                .header("origin", origin);
            let answer =
                Answer::of(&mut connection, request.body(full("")).expect("a request")).await;
            assert_eq!(answer.status.as_u16(), status);
            assert_eq!(answer.header("vary"), "Origin");
            let (allowed, credentials) = if listed { (origin, "true") } else { ("", "") };
            assert_eq!(
                answer.header("access-control-allow-origin"),
                allowed,
                "{method} {origin}"
            );
            assert_eq!(
                answer.header("access-control-allow-credentials"),
                credentials,
                "{method} {origin}"
            );
            let preflight = listed && method == "OPTIONS";
            assert_eq!(
                answer.headers.contains_key("access-control-allow-headers"),
                preflight
            );
        }
    }
}

async fn the_app_says_who_someone_is(protocol: Protocol) {
    let app = App::start().await;
    let edge = TestEdge::with(&format!(
        "access.session = \"http://{}/session\"\naccess.session_cache = \"0s\"\naccess.session_timeout = \"300ms\"\n\
         access.subscribe = [\"authenticated\", \"anonymous\"]\nevents.retry = \"500ms\"",
        app.address
    ));
    let mut connection = edge.connect(protocol).await;
    let ask = async |connection: &mut Connection, cookie: Option<&str>| {
        let mut request =
            Request::get("/events?topic=a%20b&poll=1&last=1").header("accept", "text/event-stream");
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        Answer::of(connection, request.body(full("")).expect("a request")).await
    };
    edge.publish("a%20b", "news").await;
    app.answer(
        "200 OK",
        "Remote-User: bob\r\nRemote-Groups: editors, sales\r\n",
        "",
    );
    assert!(
        ask(&mut connection, Some("sid=1; x=2"))
            .await
            .text
            .contains("news")
    );
    let asked = app.last_request();
    assert!(asked.starts_with("GET /session HTTP/1.1\r\n"), "{asked}");
    for field in [
        "cookie: sid=1; x=2",
        "x-forwarded-uri: /events?topic=a%20b&poll=1&last=1",
        "x-forwarded-method: GET",
    ] {
        assert!(
            asked.to_lowercase().contains(&field.to_lowercase()),
            "{field}: {asked}"
        );
    }
    // Whoever shows nothing is not asked about.
    app.forget();
    assert!(ask(&mut connection, None).await.text.contains("news"));
    assert_eq!(app.last_request(), "");
    for (status, headers, body, expected, says) in [
        ("200 OK", "", "", 200, "news"),
        (
            "200 OK",
            "Content-Type: text/html\r\n",
            "<h1>Error</h1>",
            200,
            "news",
        ),
        ("401 Unauthorized", "", "", 401, "not good"),
        ("403 Forbidden", "", "", 401, "not good"),
        (
            "302 Found",
            "Location: /login\r\nRemote-User: bob\r\n",
            "",
            200,
            "unavailable",
        ),
        (
            "500 Internal Server Error",
            "Remote-User: bob\r\n",
            "",
            200,
            "unavailable",
        ),
        (
            "200 OK",
            "Remote-User: bob\r\nRemote-User: eve\r\n",
            "",
            200,
            "unavailable",
        ),
        (
            "200 OK",
            "Remote-User: bob\r\nRemote-Groups: a\u{1},b\r\n",
            "",
            200,
            "unavailable",
        ),
        ("nonsense", "", "", 200, "unavailable"),
        ("slow", "", "", 200, "unavailable"),
        ("200 OK", "Remote-User: bob\r\n", "", 200, "news"),
    ] {
        app.answer(status, headers, body);
        let answer = ask(&mut connection, Some("sid=1")).await;
        assert_eq!(
            answer.status.as_u16(),
            expected,
            "{status}: {}",
            answer.text
        );
        assert!(
            answer.text.contains(says),
            "{status} {headers}: {}",
            answer.text
        );
        if says == "unavailable" {
            assert!(
                answer.text.contains("retry: ") && !answer.text.contains("edge-open"),
                "{}",
                answer.text
            );
        }
    }
    // Down altogether, and up again.
    let address = app.address;
    app.stop().await;
    assert!(
        ask(&mut connection, Some("sid=1"))
            .await
            .text
            .contains("unavailable")
    );
    let app = App::at(address).await;
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    assert!(
        ask(&mut connection, Some("sid=1"))
            .await
            .text
            .contains("news")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apps_answer_is_remembered_for_the_very_same_credentials() {
    let app = App::start().await;
    let edge = TestEdge::with(&format!(
        "access.session = \"http://{}/session\"",
        app.address
    ));
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut ask = async |cookie: &str| {
        let request = Request::head("/events?topic=a")
            .header("cookie", cookie)
            .body(full(""));
        Answer::of(&mut connection, request.expect("a request"))
            .await
            .status
    };
    assert_eq!(ask("sid=1").await, StatusCode::OK);
    app.answer("401 Unauthorized", "", "");
    app.forget();
    assert_eq!(ask("sid=1").await, StatusCode::OK);
    assert_eq!(app.last_request(), "", "it is remembered");
    assert_eq!(ask("sid=2").await, StatusCode::UNAUTHORIZED);
}

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
        ask(&mut connection, &signed("e1"))
            .await
            .expect("it is sent")
            .text
            .contains("news")
    );
    // A secret in a public set is no key.
    let hs = sign_raw(
        r#"{"alg":"HS256","kid":"evil"}"#,
        &claims().to_string(),
        SECRET.as_bytes(),
    );
    let answer = ask(&mut connection, &hs).await.expect("it is sent");
    assert!(!answer.text.contains("news"), "{}", answer.text);
    // One that a key here has signed is judged here: expired, it may come back.
    let mut late = claims();
    late["exp"] = json!(now() - 1);
    let answer = ask(&mut connection, &token(&late))
        .await
        .expect("it is sent");
    assert!(
        answer.text.contains("\"reason\":\"expired\""),
        "{}",
        answer.text
    );
    // Made-up key ids do not become a flood of fetches, and what is known stays so.
    app.stop().await;
    for n in 0..20 {
        let answer = ask(&mut connection, &signed(&format!("made-up-{n}")))
            .await
            .expect("it is sent");
        // It may be one of a set that is new: that cannot be said just now.
        assert!(
            answer.text.contains("\"reason\":\"unavailable\""),
            "{}",
            answer.text
        );
    }
    assert!(
        ask(&mut connection, &signed("e1"))
            .await
            .expect("it is sent")
            .text
            .contains("news")
    );
}

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
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    for (field, path, status) in [
        (bearer("a-key-for-publishers"), "/topics/any", 200),
        (bearer("a-key-for-publishers"), "/broadcast", 200),
        (bearer("a-key-for-publisherz"), "/topics/any", 401),
        (bearer(&orders), "/topics/orders/eu", 200),
        (bearer(&orders), "/topics/orders/eu/1", 403),
        (bearer(&orders), "/topics/any", 403),
        (bearer(&orders), "/broadcast", 403),
        (bearer(&nothing), "/topics/orders/eu", 403),
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
        let request = Request::post(path)
            .header(field.0, &field.1)
            .body(full(body));
        let answer = Answer::of(&mut connection, request.expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
    }
    let lines = "{\"topic\":\"orders/a\",\"data\":1}\n{\"topic\":\"other\",\"data\":1}\n";
    let (name, value) = bearer(&orders);
    let request = Request::post("/publish")
        .header(name, value)
        .header("content-type", "application/x-ndjson");
    let answer = Answer::of(
        &mut connection,
        request.body(full(lines)).expect("a request"),
    )
    .await;
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
    let request = Request::post("/topics/a")
        .body(full("x"))
        .expect("a request");
    assert_eq!(
        Answer::of(&mut connection, request).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_can_be_switched_off() {
    let edge = TestEdge::with("events.enabled = false");
    let answer = edge
        .connect(Protocol::Http2)
        .await
        .get("/events?topic=a")
        .await
        .expect("an answer");
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_is_answered_with_what_is_there() {
    let edge = TestEdge::start();
    let first = edge.publish_id("a", "1").await;
    edge.publish("a", "2").await;
    for protocol in Protocol::ALL {
        let mut connection = edge.connect(protocol).await;
        let request = Request::get("/events?topic=a&padding=true")
            .header("x-requestor", "XHR")
            .header("last-event-id", &first)
            .body(full(""));
        let answer = Answer::of(&mut connection, request.expect("a request")).await;
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        let (padding, rest) = answer.text.split_once('\n').expect("a line");
        assert!(
            padding.len() == 2049 && padding.starts_with(':') && padding[1..].trim().is_empty()
        );
        assert!(
            rest.contains("event: edge-open")
                && rest.contains("data: 2")
                && !rest.contains("data: 1\n"),
            "{rest}"
        );
        // With nothing there it waits until there is.
        let request = Request::get("/events?topic=b&poll=1")
            .header("accept", "text/event-stream")
            .body(full(""));
        let (answer, ()) = tokio::join!(
            Answer::of(&mut connection, request.expect("a request")),
            async {
                while edge.subscribers("b").await == 0 {}
                edge.publish("b", "at last").await;
            }
        );
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert!(answer.text.contains("data: at last"), "{}", answer.text);
    }
    // No token: that is told apart from a wait.
    tokio::time::timeout(Duration::from_secs(10), edge.drain())
        .await
        .expect("nothing is left open");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_disconnected_is_asked_about_anew() {
    let app = App::start().await;
    let edge = TestEdge::with(&format!(
        "access.session = \"http://{}/session\"\nevents.retry = \"500ms\"",
        app.address
    ));
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let mut connection = edge.connect(Protocol::Http2).await;
    let headers = [("cookie", "sid=1")];
    let mut bob = Events::open(&mut connection, "topic=a", &headers)
        .await
        .opened()
        .await;
    // The app logs bob out, and says so to the edge.
    app.answer("401 Unauthorized", "", "");
    let ended = edge.ask("POST", "/users/bob/disconnect", "").await.json();
    assert_eq!(ended, json!({"streams": 1}));
    while bob.item().await.is_some() {}
    let request = Request::get("/events?topic=a")
        .header("cookie", "sid=1")
        .body(full(""));
    let answer = Answer::of(&mut connection, request.expect("a request")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_app_says_of_one_request_is_not_said_of_another() {
    let app = App::start().await;
    let edge = TestEdge::with(&format!(
        "access.session = \"http://{}/session\"",
        app.address
    ));
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut ask = async |topic: &str| {
        let request = Request::head(format!("/events?topic={topic}")).header("cookie", "sid=1");
        Answer::of(&mut connection, request.body(full("")).expect("a request"))
            .await
            .status
    };
    assert_eq!(ask("public").await, StatusCode::OK);
    app.answer("403 Forbidden", "", "");
    assert_eq!(ask("public").await, StatusCode::OK, "it is remembered");
    assert_eq!(ask("secret").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_cookies_may_hold_what_they_like() {
    let edge = with_secret("");
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut cookie = b"name=J\xc3\xbcrgen; seventh=".to_vec();
    cookie.extend(token(&claims()).bytes());
    let cookie = http::HeaderValue::from_bytes(&cookie).expect("a value");
    let request = Request::head("/events?topic=a")
        .header("cookie", cookie)
        .body(full(""));
    let answer = Answer::of(&mut connection, request.expect("a request")).await;
    assert_eq!(answer.status, StatusCode::OK);
}
