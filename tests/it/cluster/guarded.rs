//! Servers that take nobody without a certificate of their own, and a user's credentials.

use std::{net::Ipv4Addr, path::Path};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};
use seventh::client::Protocol;

use super::{edge_with, nats::Nats};
use crate::{
    access::now,
    commands::{program, refused},
    harness::patiently,
};

/// Why an edge does not start.
async fn refusal_of(text: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("seventh.toml");
    std::fs::write(&file, text).expect("it is written");
    let mut serve = program();
    serve.arg("serve").arg("--config").arg(&file);
    refused(
        &serve
            .current_dir(folder.path())
            .output()
            .await
            .expect("it runs"),
    )
}

/// What `kind` of somebody is, as `by` says: a JWT as NATS has it.
fn jwt(by: &KeyPair, of: &KeyPair, name: &str, kind: &str, mut what: Value) -> String {
    (what["type"], what["version"]) = (kind.into(), 2.into());
    let head = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let claims = json!({
        "jti": name, "iat": now(), "iss": by.public_key(), "name": name,
        "sub": of.public_key(), "nats": what,
    });
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let said = format!("{}.{}", part(&head), part(&claims));
    let signature = by.sign(said.as_bytes()).expect("it has a seed");
    format!("{said}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// What an edge may do, as docs/cluster.md says.
const SUBJECTS: [&str; 5] = [
    "seventh.test.>",
    "$KV.seventh_test_meta.>",
    "$KV.seventh_test_facts.>",
    "$JS.API.>",
    "_INBOX.>",
];

/// Has a server take a user, whose credentials are written into a folder, over TLS by a certificate which is there too.
fn guard(folder: &Path, address: Ipv4Addr) -> String {
    let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
    let (system, user) = (KeyPair::new_account(), KeyPair::new_user());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_operator = jwt(&operator, &operator, "operator", "operator", json!({}));
    let of_account = jwt(
        &operator,
        &account,
        "shop",
        "account",
        json!({"limits": limits}),
    );
    let of_system = jwt(&operator, &system, "system", "account", json!({}));
    let may = json!({"allow": SUBJECTS});
    let of_user = json!({"pub": may, "sub": may, "subs": -1, "data": -1, "payload": -1});
    let of_user = jwt(&account, &user, "edge", "user", of_user);
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().expect("it has one")
    );
    std::fs::write(folder.join("edge.creds"), credentials).expect("it is written");

    let key = rcgen::KeyPair::generate().expect("a key");
    let names = rcgen::CertificateParams::new(vec![address.to_string()]).expect("an address");
    let certificate = names.self_signed(&key).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), certificate.pem()).expect("it is written");
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).expect("it is written");
    let folder = folder.display();
    format!(
        "tls {{ cert_file: \"{folder}/cert.pem\", key_file: \"{folder}/key.pem\" }}\n\
         operator: {of_operator}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload: {{ {account}: {of_account}, {system}: {of_system} }}\n",
        system = system.public_key(),
        account = account.public_key(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_has_credentials_and_trusts_whom_it_is_told_to() {
    let nats = Nats::one_with(guard).await;
    let folder = nats.folder().display().to_string();
    let known = format!(
        "cluster.ca = \"{folder}/cert.pem\"\ncluster.credentials = \"{folder}/edge.creds\"\n"
    );
    let (one, two) = (
        edge_with(&nats, "one", &known),
        edge_with(&nats, "two", &known),
    );
    let mut reader = two.events(Protocol::Http2, "topic=a").await.opened().await;
    one.publish("a", "1").await;
    assert_eq!(reader.data(1).await, ["1"]);
    one.ask("PUT", "/groups/staff/members/user:bob", "").await;
    let groups = one.ask("GET", "/groups/staff", "").await.json();
    assert_eq!(groups["members"], json!(["user:bob"]));
    let send = json!({"data": "x", "users": ["ann"]});
    patiently("both edges", async {
        loop {
            let sent = one.ask("POST", "/send", send.to_string()).await.json();
            if sent["answered"] == json!(2) {
                return;
            }
        }
    })
    .await;
    // Whoever has not both is told what is missing.
    let (nothing, no_user) = (
        nats.config("three"),
        format!(
            "{}cluster.ca = \"{folder}/cert.pem\"\n",
            nats.config("four")
        ),
    );
    let (nothing, no_user) = tokio::join!(refusal_of(&nothing), refusal_of(&no_user));
    assert!(nothing.contains("cluster.nats"), "{nothing}");
    assert!(nothing.to_lowercase().contains("certificate"), "{nothing}");
    assert!(
        no_user.to_lowercase().contains("authorization"),
        "{no_user}"
    );
}
