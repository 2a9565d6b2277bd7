//! NATS servers, each on an address of its own, so that they come back where they were.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::net::TcpStream;

use crate::harness::patiently;

/// Of the test's own servers.
pub struct Nats {
    folder: tempfile::TempDir,
    servers: Vec<(Ipv4Addr, Option<Child>)>,
    replicas: usize,
    /// What is in the configuration of each server besides.
    more: String,
}

fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/venv/bin/nats-server");
    assert!(program.exists(), "`make tools` installs nats-server");
    program
}

/// An address of loopback that no other test has.
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let [.., process] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + (high & 63), process, low)
}

impl Nats {
    /// One server, which keeps each frame once.
    pub async fn one() -> Self {
        Self::start(1).await
    }

    /// Three, each of which has each frame.
    pub async fn three() -> Self {
        Self::start(3).await
    }

    /// One server, whose configuration has more in it, which is made of a folder and its address.
    pub async fn one_with(more: impl FnOnce(&Path, Ipv4Addr) -> String) -> Self {
        Self::start_with(1, more).await
    }

    async fn start(count: usize) -> Self {
        Self::start_with(count, |_, _| String::new()).await
    }

    async fn start_with(count: usize, more: impl FnOnce(&Path, Ipv4Addr) -> String) -> Self {
        let servers: Vec<_> = (0..count).map(|_| (own_address(), None)).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let mut nats = Self {
            more: more(folder.path(), servers[0].0),
            folder,
            servers,
            replicas: count,
        };
        for server in 0..count {
            nats.begin(server).await;
        }
        nats
    }

    /// Where a server listens.
    pub fn address(&self, server: usize) -> Ipv4Addr {
        self.servers[server].0
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where a server keeps what it has.
    pub fn store(&self, server: usize) -> PathBuf {
        self.folder.path().join(format!("store{server}"))
    }

    /// The configuration of an edge.
    pub fn config(&self, node: &str) -> String {
        let servers = self.servers.iter();
        let servers: Vec<String> = servers
            .map(|(address, _)| format!("\"nats://{address}:4222\""))
            .collect();
        format!(
            "cluster.name = \"test\"\ncluster.node = \"{node}\"\ncluster.nats = [{}]\ncluster.replicas = {}\n\
             history.disk.bytes = \"64 MiB\"\n",
            servers.join(", "),
            self.replicas
        )
    }

    /// Has servers that are started from now on have this in their configuration besides.
    pub fn is_with(&mut self, more: String) {
        self.more = more;
    }

    /// Starts a server that does not run.
    pub async fn begin(&mut self, server: usize) {
        let address = self.servers[server].0;
        let routes = self
            .servers
            .iter()
            .map(|(address, _)| format!("nats://{address}:6222"));
        let routes: Vec<String> = routes.collect();
        let cluster = if self.replicas > 1 {
            format!(
                "cluster {{ name: test, host: \"{address}\", port: 6222, no_advertise: true, routes: [{}] }}\n",
                routes.join(", ")
            )
        } else {
            String::new()
        };
        let config = format!(
            "server_name: n{server}\nhost: \"{address}\"\nport: 4222\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always }}\n{cluster}{}",
            self.store(server).display(),
            self.more
        );
        let file = self.folder.path().join(format!("n{server}.conf"));
        std::fs::write(&file, config).expect("it is written");
        let log = std::fs::File::create(self.folder.path().join(format!("n{server}.log")))
            .expect("a log");
        let child = Command::new(program())
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.servers[server].1 = Some(child.expect("nats-server runs"));
        patiently("a NATS server", async {
            while TcpStream::connect((address, 4222)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Asks a server as its operator does, by the JetStream API.
    pub async fn ask(&self, what: &str, body: Value) -> Value {
        let client = async_nats::connect(format!("nats://{}:4222", self.servers[0].0)).await;
        let asked = client
            .expect("it is there")
            .request(format!("$JS.API.{what}"), body.to_string().into())
            .await;
        let answer = asked.expect("it answers").payload;
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert!(answer["error"].is_null(), "{answer}");
        answer
    }

    /// Puts a message into the order as an edge does.
    pub async fn publish(&self, message: Vec<u8>) {
        let client = async_nats::connect(format!("nats://{}:4222", self.servers[0].0)).await;
        let client = client.expect("it is there");
        let stored = client.request("seventh.test.e", message.into()).await;
        let stored: Value =
            serde_json::from_slice(&stored.expect("it answers").payload).expect("JSON");
        assert!(stored["error"].is_null(), "{stored}");
    }

    /// Puts a message into the order many times, as fast as it goes.
    pub async fn publish_many(&self, message: Vec<u8>, count: usize) {
        let client = async_nats::connect(format!("nats://{}:4222", self.servers[0].0)).await;
        let client = client.expect("it is there");
        for _ in 0..count {
            let published = client.publish("seventh.test.e", message.clone().into());
            published.await.expect("it is there");
        }
        client.flush().await.expect("it is there");
        patiently("all messages", async {
            let info = || self.ask("STREAM.INFO.seventh_test", Value::Null);
            while info().await["state"]["last_seq"].as_u64() < Some(count as u64) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// Kills a server.
    pub fn kill(&mut self, server: usize) {
        if let Some(mut child) = self.servers[server].1.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// Has a server stop for a while, or go on.
    pub fn signal(&self, server: usize, signal: &str) {
        let child = self.servers[server].1.as_ref().expect("it runs");
        let killed = Command::new("kill")
            .args([format!("-{signal}"), child.id().to_string()])
            .status();
        assert!(killed.expect("kill runs").success());
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        for server in 0..self.servers.len() {
            self.kill(server);
        }
    }
}
