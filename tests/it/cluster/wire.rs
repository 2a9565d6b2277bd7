//! A wire between an edge and a server, which can be slow or cut; and what edges do that are late, or cut off.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

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
    publish_in_the_end, read_on, until, until_two,
};
use crate::{
    commands::{program, refused},
    harness::{Answer, Events, TestEdge, patiently},
};

/// How a wire is.
#[derive(Clone, Copy, Default)]
struct State {
    /// How late what the server says arrives.
    late: Duration,
    /// Nothing arrives, either way, until it is mended.
    is_cut: bool,
}

/// What goes over a wire beside what it carries.
#[derive(Debug, Default)]
struct Overheard {
    /// How often whoever is to bring the order says yet that there is none of it, as one does that is behind the others.
    lies: AtomicUsize,
    /// How often frames were asked for.
    pulls: AtomicUsize,
}

impl Overheard {
    fn hear_server(&self, bytes: &mut [u8]) {
        const CONSUMER: &[u8] = b"\"stream_name\":\"seventh_test\"";
        const PENDING: &[u8] = b"\"num_pending\":";
        let Some(consumer) = memmem(bytes, CONSUMER) else {
            return;
        };
        let Some(pending) = memmem(&bytes[consumer..], PENDING) else {
            return;
        };
        let count = &mut bytes[consumer + pending + PENDING.len()..];
        let one_less = |lies: usize| lies.checked_sub(1);
        let is_digit = count.len() > 1 && !count[1].is_ascii_digit();
        if is_digit && { &self.lies }
            .fetch_update(Relaxed, Relaxed, one_less)
            .is_ok()
        {
            count[0] = b'0';
        }
    }

    fn hear_edge(&self, bytes: &[u8]) {
        const PULL: &[u8] = b"PUB $JS.API.CONSUMER.MSG.NEXT.seventh_test.";
        let pulls = bytes.windows(PULL.len()).filter(|part| *part == PULL);
        self.pulls.fetch_add(pulls.count(), Relaxed);
    }
}

fn memmem(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|found| found == part)
}

/// A wire to a server.
struct Wire {
    address: Ipv4Addr,
    state: watch::Sender<State>,
    overheard: Arc<Overheard>,
    task: JoinHandle<()>,
}

impl Wire {
    async fn to(server: Ipv4Addr) -> Self {
        let address = own_address();
        let listener = TcpListener::bind((address, 4222)).await.expect("its own");
        let state = watch::Sender::new(State::default());
        let of_all = state.subscribe();
        let overheard = Arc::<Overheard>::default();
        let hears = overheard.clone();
        let task = tokio::spawn(async move {
            loop {
                let (edge, _) = listener.accept().await.expect("a connection");
                let Ok(server) = TcpStream::connect((server, 4222)).await else {
                    continue;
                };
                let (from_edge, to_edge) = edge.into_split();
                let (from_server, to_server) = server.into_split();
                let (one, other) = (hears.clone(), hears.clone());
                let hear_edge = move |bytes: &mut [u8]| one.hear_edge(bytes);
                let hear_server = move |bytes: &mut [u8]| other.hear_server(bytes);
                tokio::spawn(carry(
                    from_edge,
                    to_server,
                    of_all.clone(),
                    false,
                    hear_edge,
                ));
                tokio::spawn(carry(
                    from_server,
                    to_edge,
                    of_all.clone(),
                    true,
                    hear_server,
                ));
            }
        });
        Self {
            address,
            state,
            overheard,
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
    hear: impl Fn(&mut [u8]) + Send,
) {
    let (sent, mut taken) = mpsc::channel::<(Instant, Vec<u8>)>(100_000);
    let reading = async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count) = from.read(&mut bytes).await
            && count > 0
        {
            hear(&mut bytes[..count]);
            let came = (Instant::now(), bytes[..count].to_vec());
            if sent.send(came).await.is_err() {
                return;
            }
        }
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

/// A server that comes back, and is asked to bring the order before it has all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_brought_the_order_by_a_server_that_is_behind_misses_nothing() {
    let nats = Nats::one().await;
    let one = edge(&nats, "one");
    let id = one.publish_id("a", "before").await;
    for n in 0..5 {
        one.publish("a", n.to_string()).await;
    }
    let wire = Wire::to(nats.address(0)).await;
    wire.overheard.lies.store(2, Relaxed);
    let two = TestEdge::with(&wire.config(&nats, "two"));
    assert_eq!(wire.overheard.lies.load(Relaxed), 0);
    let mut events = two
        .events_after(Protocol::Http2, "topic=a", &id)
        .await
        .opened()
        .await;
    assert_eq!(events.data(5).await, ["0", "1", "2", "3", "4"]);
}

/// What is on its way to an edge that has much to read is bounded: it asks for more once it has what it asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_much_to_read_asks_for_a_part_at_a_time() {
    const FRAMES: usize = 20_000;
    let nats = Nats::one().await;
    drop(edge(&nats, "one"));
    // Frames of nothing: magic, format, of whom, which, how many entries.
    let frame = [&b"7thF\x01"[..], &[0; 8], &[0; 8], &[0; 2]].concat();
    nats.publish_many(frame, FRAMES).await;
    let (wire, began) = (Wire::to(nats.address(0)).await, Instant::now());
    let two = TestEdge::with(&wire.config(&nats, "two"));
    until(&two, "all of it", |status| {
        status["stream"]["last"] == json!(FRAMES) && status["behind"] == json!(0)
    })
    .await;
    // 40 are needed, and one more each two seconds, as that is how long one is asked for. Two at once would be 80.
    let pulls = wire.overheard.pulls.load(Relaxed);
    let most = 45 + began.elapsed().as_secs() as usize / 2;
    assert!((30..=most).contains(&pulls), "{pulls} of {most}");
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

/// Who lists what there is at all edges is told whose is not in the list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_missing_in_a_list_is_named_by_the_command_too() {
    let nats = Nats::one().await;
    let wire = Wire::to(nats.address(0)).await;
    let (one, two) = (
        edge(&nats, "one"),
        TestEdge::with(&wire.config(&nats, "two")),
    );
    let _reader = two.events(Protocol::Http2, "topic=a").await.opened().await;
    let list = async || {
        let mut streams = program();
        streams.args(["streams", "--control", &format!("http://{}", one.control)]);
        let output = patiently("its end", streams.output()).await;
        output.expect("it runs")
    };
    let said = patiently("a refusal", async {
        loop {
            Box::pin(until_two(&one)).await;
            wire.is_cut(true);
            let listed = list().await;
            wire.is_cut(false);
            // It may be taken for gone by then, or not be cut off yet.
            if !listed.status.success() {
                return refused(&listed);
            }
        }
    })
    .await;
    assert!(
        said.contains("did not answer") && said.contains("two"),
        "{said}"
    );
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
