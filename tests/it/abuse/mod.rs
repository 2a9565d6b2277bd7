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

use seventh::{client::Protocol, clock};

use crate::{
    commands::Server,
    harness::{memory_of, patiently},
};

/// What an edge may have more after an attack than before it: what it makes on its first request of a kind.
/// And of what it cost a part, which the allocator keeps.
const SLACK: u64 = 24 << 20;
const KEPT: u64 = 16;

/// How a good client is served.
#[derive(Default)]
struct Service {
    rounds: Vec<Duration>,
    most_memory: u64,
}

impl Service {
    fn p99(&mut self) -> Duration {
        self.rounds.sort();
        self.rounds[(self.rounds.len() * 99 / 100).min(self.rounds.len() - 1)]
    }
}

/// Asks for a page, publishes, and reads what was published, until it is `over` and so many times at least.
async fn served(server: &Server, times: usize, over: &AtomicBool) -> Service {
    let events = server.events(Protocol::Http2, "topic=good").await;
    let mut events = events.opened().await;
    let mut connection = server.connect(Protocol::Http2).await;
    let mut service = Service::default();
    while service.rounds.len() < times || !over.load(Ordering::Relaxed) {
        let began = clock::now();
        let mut answer = connection.get("/").await.expect("it is served");
        answer.bytes().await.expect("a body");
        server.publish("/topics/good", "x").await;
        assert_eq!(events.data(1).await, ["x"]);
        service.rounds.push(clock::now() - began);
        service.most_memory = service.most_memory.max(memory_of(server.pid()));
    }
    service
}

/// Runs `attacks` on an edge of this configuration, beside a good client. They may cost so much memory
/// while they go on, and hardly any afterwards.
async fn beside_a_good_client(text: &str, memory: u64, attacks: impl AsyncFnOnce(&Server)) {
    let server = Arc::new(Server::start(text).await);
    let mut quiet = served(&server, 50, &AtomicBool::new(true)).await;
    let before = memory_of(server.pid());
    let over = Arc::new(AtomicBool::new(false));
    let (good, done) = (server.clone(), over.clone());
    let good = tokio::spawn(async move { served(&good, 1, &done).await });
    attacks(&server).await;
    over.store(true, Ordering::Relaxed);
    let mut during = patiently("the good client", good)
        .await
        .expect("it is served");
    let cost = during.most_memory.saturating_sub(before);
    assert!(cost < memory, "it cost {cost} bytes");
    let ended = clock::now();
    let slack = SLACK + cost / KEPT;
    patiently("the memory", async {
        while memory_of(server.pid()) > before + slack {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    println!(
        "the good client: p99 {:?} in quiet, {:?} in {} rounds beside the attack; memory {} KiB before, {} KiB more at \
         most, less than {} KiB more {:.1} s after the end",
        quiet.p99(),
        during.p99(),
        during.rounds.len(),
        before >> 10,
        cost >> 10,
        slack >> 10,
        (clock::now() - ended).as_secs_f64(),
    );
}
