//! Attacks, a family a module: each gets its end, a counter says which it was, what it took is given back,
//! and a good client on another connection is served all the while.

mod application;
mod http1_tls;
mod http2;
mod http3;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use seventh::{
    client::{Connection, Protocol},
    clock,
};

use crate::{
    commands::Server,
    harness::{Events, memory_of, patiently},
};

/// What an edge may have more after an attack than before it: what it makes on its first request of a kind.
/// And of what it cost a part, which the allocator keeps.
const SLACK: u64 = 8 << 20;
const KEPT: u64 = 16;
/// How long what an attack took may be kept.
const GIVEN_BACK: Duration = Duration::from_secs(30);
/// How long a round of the good client may take at most.
const SERVED: Duration = Duration::from_secs(30);

/// A good client: it asks for a page, publishes, and reads what was published.
struct Good {
    server: Arc<Server>,
    events: Events,
    connection: Connection,
}

impl Good {
    async fn new(server: &Arc<Server>) -> Self {
        let events = server.events(Protocol::Http2, "topic=good").await;
        Self {
            server: server.clone(),
            events: events.opened().await,
            connection: server.connect(Protocol::Http2).await,
        }
    }

    /// How long it takes.
    async fn round(&mut self) -> Duration {
        let began = clock::now();
        let round = async {
            let mut answer = self.connection.get("/").await.expect("it is served");
            answer.bytes().await.expect("a body");
            // Where memory is short a publisher waits, and then it goes on.
            let answer = self.server.publish("/topics/good", "x").await;
            assert_eq!(answer.status, 200);
            assert_eq!(self.events.data(1).await, ["x"]);
        };
        let served = tokio::time::timeout(SERVED, round).await;
        served.expect("the good client is served in time");
        clock::now() - began
    }

    /// Until it is `over`, and so many times at least.
    async fn rounds(&mut self, times: usize, over: &AtomicBool) -> Vec<Duration> {
        let mut rounds = Vec::new();
        while rounds.len() < times || !over.load(Ordering::Relaxed) {
            rounds.push(self.round().await);
        }
        rounds
    }
}

fn p99(mut rounds: Vec<Duration>) -> Duration {
    rounds.sort();
    rounds[(rounds.len() * 99 / 100).min(rounds.len() - 1)]
}

/// The most memory that a process had since it was asked to begin anew (proc(5)).
pub fn begin_anew(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("it is our own");
}

pub fn most_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.expect("a line").parse::<u64>().expect("a number") << 10
}

/// Runs `attacks` on an edge of this configuration, beside a good client. They may cost so much memory
/// while they go on, and hardly any afterwards.
async fn beside_a_good_client(text: &str, memory: u64, attacks: impl AsyncFnOnce(&Server)) {
    let server = Arc::new(Server::start(text).await);
    let mut good = Good::new(&server).await;
    let over = Arc::new(AtomicBool::new(true));
    let quiet = good.rounds(50, &over).await;
    let before = memory_of(server.pid());
    begin_anew(server.pid());
    over.store(false, Ordering::Relaxed);
    let done = over.clone();
    let good = tokio::spawn(async move { good.rounds(1, &done).await });
    attacks(&server).await;
    over.store(true, Ordering::Relaxed);
    let ended = clock::now();
    let during = patiently("the good client", good)
        .await
        .expect("it is served");
    let cost = most_memory(server.pid()).saturating_sub(before);
    assert!(cost < memory, "it cost {cost} bytes");
    let slack = SLACK + cost / KEPT;
    let given_back = async {
        while memory_of(server.pid()) > before + slack {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let given_back = tokio::time::timeout(GIVEN_BACK, given_back).await;
    let left = memory_of(server.pid()).saturating_sub(before);
    assert!(
        given_back.is_ok(),
        "{left} bytes of {cost} are not given back"
    );
    println!(
        "the good client: p99 {:?} in quiet, {:?} in {} rounds beside the attack; memory {} KiB before, {} KiB more at \
         most, less than {} KiB more {:.1} s after the end",
        p99(quiet),
        p99(during.clone()),
        during.len(),
        before >> 10,
        cost >> 10,
        slack >> 10,
        (clock::now() - ended).as_secs_f64(),
    );
}
