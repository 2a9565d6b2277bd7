//! Who is let in, and who is not.

mod bad_claims; // tokens well signed that say something wrong
mod expiry; // a stream ends with its token, and goes on with a new one
mod forged_tokens; // tokens of no key or another, with odd headers, in odd forms
mod forward_auth; // the app says who someone is
mod jwks; // keys from a set
mod origins; // the pages that may read
mod polls; // polls in place of streams, and no streams at all
mod publishing; // publishing from outside
mod revoking; // tokens that were taken back
mod rules; // who may read which topic
mod tickets; // what stands in a URL where no cookie comes along
mod tokens; // good ones and bad ones, in a field or in a cookie

use std::time::UNIX_EPOCH;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::KeyPair;
use serde_json::{Value, json};
use seventh::client::{Connection, Protocol, Upload, full};

use crate::harness::{Answer, Events, TestEdge};

/// The secret of the HS256 key.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The header of a token that it signs.
const HEADER: &str = r#"{"alg":"HS256","kid":"h"}"#;

pub fn now() -> u64 {
    seventh::clock::wall()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs any header and any payload, sensible or not, with the secret.
fn sign_raw(header: &str, payload: &str) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    sign_with(header, payload, &key, Algorithm::HS256)
}

fn sign_with(header: &str, payload: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("it signs");
    format!("{message}.{signature}")
}

/// A good token of the HS256 key.
pub fn token(claims: &Value) -> String {
    sign_raw(HEADER, &claims.to_string())
}

pub fn claims() -> Value {
    json!({ "sub": "bob", "exp": now() + 3600, "iss": "app", "aud": "seventh" })
}

/// Tokens that must be refused, each with what is wrong with it.
#[derive(Default)]
struct BadTokens(Vec<(String, String)>);

impl BadTokens {
    fn add(&mut self, what: &str, token: String) {
        self.0.push((what.to_owned(), token));
    }
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

/// An edge with the HS256 key.
pub fn with_secret(more: &str) -> TestEdge {
    // Of tokens with `aud`, as all here have it unless a test says otherwise.
    let audience = if more.contains("access.audience") {
        ""
    } else {
        "access.audience = \"seventh\""
    };
    TestEdge::with(&format!(
        "{audience}\n{more}\n[[access.key]]\nkid = \"h\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
    ))
}

/// A request with these fields; an error when a value cannot stand in a field.
fn request(
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> http::Result<Request<Upload>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(full(body))
}

/// Sends a request and waits for the whole answer.
async fn send(
    connection: &mut Connection,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let request = request(method, path, fields, body).expect("a request");
    Answer::of(connection, request).await
}

async fn get(connection: &mut Connection, path: &str, fields: &[(&str, &str)]) -> Answer {
    send(connection, "GET", path, fields, "").await
}

async fn head(connection: &mut Connection, path: &str, fields: &[(&str, &str)]) -> StatusCode {
    send(connection, "HEAD", path, fields, "").await.status
}

/// The value of `authorization` that shows a token.
fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A request for the last event of topic `a` with a token, if it can stand in a field at all.
fn poll_request(token: &str) -> http::Result<Request<Upload>> {
    request(
        "GET",
        "/events?topic=a&poll=1&last=1",
        &[
            ("accept", "text/event-stream"),
            ("authorization", &bearer(token)),
        ],
        "",
    )
}

/// Asks for the last event of topic `a` with a token.
async fn poll_as(connection: &mut Connection, token: &str) -> Answer {
    Answer::of(connection, poll_request(token).expect("it can be sent")).await
}

/// Opens a stream with a token in a cookie.
async fn open_as(edge: &TestEdge, protocol: Protocol, query: &str, token: &str) -> Events {
    let mut connection = edge.connect(protocol).await;
    let cookie = format!("theme=dark; seventh={token}; other=1");
    Events::open(&mut connection, query, &[("cookie", &cookie)])
        .await
        .owning(connection)
}
