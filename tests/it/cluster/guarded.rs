//! Servers that take nobody without a certificate of their own, and a user's credentials.

use std::{net::Ipv4Addr, path::Path, process::Stdio};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;
use nkeys::KeyPair;
use serde_json::{Value, json};
use seventh::client::Protocol;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{ask_both, edge, edge_with, nats::Nats, publish_in_the_end};
use crate::{
    access::now,
    commands::{program, refused},
    harness::{Events, TestEdge, patiently},
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

/// Of which all edges are asked to whom it went.
const SEND: &str = r#"{"data": "x", "users": ["ann"]}"#;

/// What an edge may do, as docs/cluster.md says.
const SUBJECTS: [&str; 5] = [
    "seventh.test.>",
    "$KV.seventh_test_meta.>",
    "$KV.seventh_test_facts.>",
    "$JS.API.>",
    "_INBOX.>",
];

/// Who may use a server.
struct Keys {
    operator: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Keys {
    fn new() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
            system: KeyPair::new_account(),
        }
    }

    /// Has a server take a user, whose credentials are written into a folder, and nobody from before; over TLS by a certificate
    /// which is there too.
    fn guard(
        &self,
        before: Option<&KeyPair>,
        folder: &Path,
        address: Ipv4Addr,
    ) -> (String, KeyPair) {
        let Self {
            operator,
            account,
            system,
        } = self;
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
        });
        let mut of_account = json!({"limits": limits});
        if let Some(before) = before {
            of_account["revocations"] = json!({before.public_key(): now() + 60});
        }
        let of_operator = jwt(operator, operator, "operator", "operator", json!({}));
        let of_account = jwt(operator, account, "shop", "account", of_account);
        let of_system = jwt(operator, system, "system", "account", json!({}));
        let user = KeyPair::new_user();
        let may = json!({"allow": SUBJECTS});
        let of_user = json!({"pub": may, "sub": may, "subs": -1, "data": -1, "payload": -1});
        let of_user = jwt(account, &user, "edge", "user", of_user);
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
        let config = format!(
            "tls {{ cert_file: \"{folder}/cert.pem\", key_file: \"{folder}/key.pem\" }}\n\
             operator: {of_operator}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {account}: {of_account}, {system}: {of_system} }}\n",
            system = system.public_key(),
            account = account.public_key(),
        );
        (config, user)
    }
}

/// Two edges that a server that is guarded lets in, and a reader at the other of what was published at one.
async fn let_in(nats: &Nats) -> (TestEdge, TestEdge, Events) {
    let folder = nats.folder().display();
    let known = format!(
        "cluster.ca = \"{folder}/cert.pem\"\ncluster.credentials = \"{folder}/edge.creds\"\n"
    );
    let [one, two] = ["one", "two"].map(|node| edge_with(nats, node, &known));
    let reader = two.events(Protocol::Http2, "topic=a").await.opened().await;
    one.publish("a", "1").await;
    (one, two, reader)
}

/// The credentials of all edges are renewed, and those from before are of no use any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_renewed_are_used() {
    let keys = Keys::new();
    let mut before = None;
    let mut nats = Nats::one_with(|folder, address| {
        let (config, user) = keys.guard(None, folder, address);
        before = Some(user);
        config
    })
    .await;
    let (one, two, mut reader) = let_in(&nats).await;
    ask_both(&one, "/send", SEND).await;
    nats.kill(0);
    let (config, _) = keys.guard(before.as_ref(), nats.folder(), nats.address(0));
    nats.is_with(config);
    nats.begin(0).await;
    publish_in_the_end(&one, "a", "2").await;
    assert_eq!(reader.data(2).await, ["1", "2"]);
    ask_both(&one, "/send", SEND).await;
    ask_both(&two, "/send", SEND).await;
}

/// Servers that take less than an edge would send at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_sent_at_once_than_the_servers_take() {
    let nats = Nats::one_with(|_, _| "max_payload: 65536\n".into()).await;
    let one = edge(&nats, "one");
    let many: Vec<Value> = (0..30)
        .map(|n| json!({"topic": "a", "data": format!("{n} {}", "x".repeat(10_000))}))
        .collect();
    let sent = one.ask("POST", "/publish", json!(many).to_string()).await;
    assert_eq!(sent.status, StatusCode::OK, "{}", sent.text);
    let large = one.ask("POST", "/topics/a", "x".repeat(100_000)).await;
    assert!(large.status.is_server_error(), "{}", large.text);
    assert!(large.text.contains("max_payload"), "{}", large.text);
    one.publish("a", "the next").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_has_credentials_and_trusts_whom_it_is_told_to() {
    let nats = Nats::one_with(|folder, address| Keys::new().guard(None, folder, address).0).await;
    let folder = nats.folder().display().to_string();
    let (one, _two, mut reader) = let_in(&nats).await;
    assert_eq!(reader.data(1).await, ["1"]);
    one.ask("PUT", "/groups/staff/members/user:bob", "").await;
    let groups = one.ask("GET", "/groups/staff", "").await.json();
    assert_eq!(groups["members"], json!(["user:bob"]));
    ask_both(&one, "/send", SEND).await;
    // What is wrong with the configuration is said at once.
    let no_file = format!("{}cluster.ca = \"/none.pem\"\n", nats.config("three"));
    let said = refusal_of(&no_file).await;
    assert!(said.contains("/none.pem (cluster.ca)"), "{said}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_servers_cannot_make_is_said_with_its_key() {
    let nats = Nats::one().await;
    let config = nats.config("one").replace("replicas = 1", "replicas = 3");
    let said = refusal_of(&config).await;
    assert!(said.contains("3 replicas (cluster.replicas)"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_to_end_while_it_looks_for_the_servers_ends() {
    let mut nats = Nats::one().await;
    nats.kill(0);
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("seventh.toml"), nats.config("one")).expect("it is written");
    let mut serve = program();
    serve.arg("serve").current_dir(folder.path());
    serve.args(["--https", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
    let mut child = serve.stderr(Stdio::piped()).spawn().expect("it runs");
    let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let mut is_told = false;
    let text = patiently("its end", async {
        let mut text = String::new();
        while let Some(line) = said.next_line().await.expect("text") {
            if line.contains("is not there yet") && !std::mem::replace(&mut is_told, true) {
                let id = child.id().expect("it runs").to_string();
                let killed = std::process::Command::new("kill").arg(id).status();
                assert!(killed.expect("kill runs").success());
            }
            text += &line;
        }
        text
    })
    .await;
    assert!(text.contains("SIGTERM before it was started"), "{text}");
    assert!(child.wait().await.expect("a status").success());
}
