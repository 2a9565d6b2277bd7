//! A wire between an edge and a server, which can be slow or cut; and what edges do that are late, or cut off.

use std::{net::Ipv4Addr, time::Duration};

use http::StatusCode;
use serde_json::json;
use seventh::{client::Protocol, sse::Item};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    bobs_bearer, edge, guarded_edge,
    nats::{Nats, own_address},
    publish_in_the_end, read_on, until_two,
};
use crate::harness::{Answer, Events, TestEdge, patiently};

/// How a wire is.
#[derive(Clone, Copy, Default)]
struct State {
    /// How late what the server says arrives.
    late: Duration,
    /// Nothing arrives, either way, until it is mended.
    is_cut: bool,
}

/// A wire to a server.
struct Wire {
    address: Ipv4Addr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Wire {
    async fn to(server: Ipv4Addr) -> Self {
        let address = own_address();
        let listener = TcpListener::bind((address, 4222)).await.expect("its own");
        let state = watch::Sender::new(State::default());
        let of_all = state.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let (edge, _) = listener.accept().await.expect("a connection");
                let Ok(server) = TcpStream::connect((server, 4222)).await else {
                    continue;
                };
                let (from_edge, to_edge) = edge.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_edge, to_server, of_all.clone(), false));
                tokio::spawn(carry(from_server, to_edge, of_all.clone(), true));
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    fn is_late(&self, late: Duration) {
        self.state.send_modify(|state| state.late = late);
    }

    fn is_cut(&self, is_cut: bool) {
        self.state.send_modify(|state| state.is_cut = is_cut);
    }

    /// The configuration of an edge that comes over it.
    fn config(&self, nats: &Nats, node: &str) -> String {
        let direct = nats.address(0).to_string();
        nats.config(node)
            .replace(&direct, &self.address.to_string())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries what comes one way.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    may_be_late: bool,
) {
    let (sent, mut taken) = mpsc::channel::<(Instant, Vec<u8>)>(100_000);
    let reading = async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count) = from.read(&mut bytes).await
            && count > 0
            && sent
                .send((Instant::now(), bytes[..count].to_vec()))
                .await
                .is_ok()
        {}
    };
    let writing = async move {
        while let Some((at, bytes)) = taken.recv().await {
            let late = state.borrow().late;
            if may_be_late {
                tokio::time::sleep_until(at + late).await;
            }
            let mended = state.wait_for(|state| !state.is_cut).await.map(drop);
            if mended.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    // Whichever side goes takes the other with it.
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

/// A client that goes to and fro between an edge and one that is more than a second behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_to_an_edge_that_is_late_waits_for_it() {
    const EVENTS: usize = 60;
    let nats = Nats::one().await;
    let wire = Wire::to(nats.address(0)).await;
    let (one, two) = (
        edge(&nats, "one"),
        TestEdge::with(&wire.config(&nats, "two")),
    );
    let mut id = one.publish_id("a", "before").await;
    wire.is_late(Duration::from_millis(1200));
    let publishing = async {
        for n in 0..EVENTS {
            one.publish("a", n.to_string()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let reading = async {
        let mut got = Vec::new();
        for hop in 0.. {
            if got.len() == EVENTS {
                break;
            }
            let edge = if hop % 2 == 0 { &one } else { &two };
            let mut events = edge.events_after(Protocol::Http2, "topic=a", &id).await;
            let until = (got.len() + 1 + hop % 9).min(EVENTS);
            read_on(&mut events, &mut got, &mut id, until).await;
        }
        got
    };
    let ((), got) = tokio::join!(publishing, reading);
    let expected: Vec<String> = (0..EVENTS).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
}

/// An edge that is cut off from the others gives no numbers, serves what it has, and obeys once it is back what it was told
/// meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_catches_up_in_order() {
    let nats = Nats::one().await;
    let wire = Wire::to(nats.address(0)).await;
    let one = guarded_edge(&nats.config("one"));
    let two = guarded_edge(&wire.config(&nats, "two"));
    let bearer = bobs_bearer();
    let headers = [("authorization", bearer.as_str())];
    let mut connection = two.connect(Protocol::Http2).await;
    let mut bob = Events::open(&mut connection, "topic=a", &headers)
        .await
        .opened()
        .await;
    one.publish("a", "0").await;
    assert_eq!(bob.data(1).await, ["0"]);
    until_two(&one).await;
    wire.is_cut(true);
    for n in 1..20 {
        one.publish("a", n.to_string()).await;
    }
    // Nobody there is told that it was stored.
    let refused = patiently("a refusal", async {
        loop {
            let answer = two.ask("POST", "/topics/a", "lost").await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            if answer.json()["code"] == "cluster-away" {
                return answer;
            }
        }
    })
    .await;
    assert!(!refused.header("retry-after").is_empty());
    let ended = one.ask("POST", "/users/bob/disconnect", "").await.json();
    assert_eq!(ended["streams"], 0, "{ended}");
    wire.is_cut(false);
    publish_in_the_end(&two, "a", "end").await;
    // It ends where it was disconnected, with all that was before.
    let mut got = Vec::new();
    while let Some(item) = patiently("the end", bob.item()).await {
        if let Item::Message(message) = item
            && message.event == "message"
            && message.data != "lost"
        {
            got.push(message.data);
        }
    }
    let expected: Vec<String> = (1..20).map(|n| n.to_string()).collect();
    assert!(expected.starts_with(&got), "{got:?}");
    // Who comes after it stays, and has one order with the others.
    let ids = [&one, &two].map(|edge| async {
        let mut connection = edge.connect(Protocol::Http2).await;
        let mut request = http::Request::get("/topics/a/events?limit=100");
        request = request.header("authorization", bearer.as_str());
        let request = request.body(seventh::client::full("")).expect("a request");
        let answer = Answer::of(&mut connection, request).await.json();
        answer["events"].clone()
    });
    let [first, second] = futures_util::future::join_all(ids)
        .await
        .try_into()
        .expect("two");
    assert_eq!(first, second);
    assert_ne!(first, json!(null));
}
