//! Three edges and three servers, of which something is killed, paused or started again all the time.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use seventh::{
    client::{Connection, Origin, Protocol, Trust, full},
    process::Process,
};
use tokio::{task::JoinSet, time::Instant};

use super::nats::Nats;
use crate::{
    commands::Server,
    durable::read_to_end,
    harness::{Answer, patiently},
};

/// Where the edges take what is published.
type Controls = Arc<Mutex<Vec<String>>>;

/// Sends a request to one edge; `None` if that is not there.
async fn try_publish(controls: &Controls, edge: usize, data: &str) -> Option<Answer> {
    let url = controls.lock().expect("no panic")[edge].clone();
    let origin = Origin::of(&url.parse().expect("a URL"), Trust::System).expect("an origin");
    let mut connection = Connection::open(&origin, Protocol::Http1).await.ok()?;
    let request = http::Request::post("/topics/a").header("idempotency-key", format!("\"{data}\""));
    let request = request.body(full(data.to_owned())).expect("a request");
    let mut response = connection.send(request).await.ok()?;
    let bytes = response.bytes().await.ok()?;
    Some(Answer {
        status: response.status,
        headers: response.headers.clone(),
        text: String::from_utf8(bytes.into()).expect("text"),
    })
}

/// Publishes one after the other, each at any edge until it is taken. What was taken, in its order.
async fn publish(
    controls: Controls,
    name: usize,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut taken = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        publish_in_the_end(&controls, name, &format!("{name}.{n}")).await;
        taken.push(format!("{name}.{n}"));
        count.fetch_add(1, Ordering::Relaxed);
    }
    taken
}

async fn publish_in_the_end(controls: &Controls, name: usize, data: &str) {
    let mut edge = name;
    loop {
        match try_publish(controls, edge % 3, data).await {
            Some(answer) if answer.status == StatusCode::OK => return,
            Some(answer) => {
                let is_later = answer.status == StatusCode::SERVICE_UNAVAILABLE;
                assert!(is_later, "{} {}", answer.status, answer.text);
            }
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        edge += 1;
    }
}

/// So many publishers, what ends them, and how much is taken of them.
fn publishers(
    controls: &Controls,
    count: usize,
) -> (JoinSet<Vec<String>>, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (stop, taken) = (Arc::default(), Arc::default());
    let mut publishers = JoinSet::new();
    for name in 0..count {
        let (stop, taken) = (Arc::clone(&stop), Arc::clone(&taken));
        publishers.spawn(publish(controls.clone(), name, stop, taken));
    }
    (publishers, stop, taken)
}

/// Returns once somebody reads over a protocol.
async fn until_read(server: &Server, protocol: Protocol) {
    let line = format!("seventh_event_streams{{protocol=\"{protocol}\"}}");
    server.until_metric(&line, 1).await;
}

/// For so long, with something done every so often.
async fn storm(lasts: Duration, every: Duration) {
    let mut nats = Nats::three().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut edges = Vec::new();
    for node in ["one", "two", "three"] {
        // One has all of it in memory, the others next to nothing of it there, and the rest on disk.
        let history = match node {
            "one" => "history.events = 1000000\n".to_owned(),
            _ => format!(
                "history.events = 100\nhistory.total_bytes = \"16 MiB\"\nhistory.directory = \"{}\"\n",
                folder.path().join(node).display()
            ),
        };
        let text = format!(
            "{}{history}events.retry = \"500ms\"\nlimits.exempt = [\"127.0.0.0/8\"]\n",
            nats.config(node)
        );
        edges.push(Some(Server::start(&text).await));
    }
    let address = |edge: &Option<Server>| edge.as_ref().expect("it runs").control_url();
    let controls: Controls = Arc::new(Mutex::new(edges.iter().map(address).collect()));
    let mut readers = JoinSet::new();
    for (edge, protocol) in edges.iter().zip(Protocol::ALL) {
        let server = edge.as_ref().expect("it runs");
        readers.spawn(read_to_end(server.address(), protocol));
        until_read(server, protocol).await;
    }
    let (mut publishers, stop, count) = publishers(&controls, 3);
    let (until, mut round) = (Instant::now() + lasts, 0);
    while Instant::now() < until {
        let before = count.load(Ordering::Relaxed);
        let which = (round / 4) % 3;
        match round % 4 {
            0 => {
                nats.kill(which);
                tokio::time::sleep(every / 3).await;
                nats.begin(which).await;
            }
            1 => {
                nats.signal(which, "STOP");
                tokio::time::sleep(every / 2).await;
                nats.signal(which, "CONT");
            }
            2 => {
                let edge = edges[which].take().expect("it runs");
                let edge = edge.crash_and_restart().await;
                controls.lock().expect("no panic")[which] = edge.control_url();
                edges[which] = Some(edge);
            }
            _ => {
                for server in 0..3 {
                    nats.kill(server);
                }
                for server in 0..3 {
                    nats.begin(server).await;
                }
            }
        }
        // It goes on before the next.
        patiently("events to be taken again", async {
            while count.load(Ordering::Relaxed) < before + 20 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        tokio::time::sleep(every / 4).await;
        round += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let mut taken = Vec::new();
    while let Some(one) = publishers.join_next().await {
        taken.push(one.expect("it does not panic"));
    }
    publish_in_the_end(&controls, 0, "end").await;
    let mut orders = Vec::new();
    while let Some(got) = patiently("the end", readers.join_next()).await {
        let got = got.expect("no gap");
        assert!(got.windows(2).all(|two| two[0].0 < two[1].0), "in order");
        let data: HashSet<&String> = got.iter().map(|(_, data)| data).collect();
        assert_eq!(data.len(), got.len(), "none twice");
        for taken in &taken {
            let lost: Vec<&String> = taken.iter().filter(|taken| !data.contains(taken)).collect();
            assert!(lost.is_empty(), "lost: {lost:?}");
            let mut in_order = got.iter().map(|(_, data)| data);
            assert!(
                taken.iter().all(|one| in_order.any(|other| other == one)),
                "moved"
            );
        }
        orders.push(got);
    }
    assert!(orders.windows(2).all(|two| two[0] == two[1]), "one order");
    let all: usize = taken.iter().map(Vec::len).sum();
    println!("{all} taken by three edges in {round} rounds: none lost, none twice, none moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_storm_takes_nothing() {
    storm(Duration::from_secs(12), Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten minutes"]
async fn ten_minutes_of_storm_take_nothing() {
    storm(Duration::from_secs(600), Duration::from_secs(10)).await;
}

/// All servers are away for a while: event streams stay, publishers are told, and nothing is kept for later.
async fn outage(lasts: Duration) {
    let mut nats = Nats::three().await;
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "{}events.retry = \"500ms\"\nevents.keepalive = \"1s\"\nlimits.exempt = [\"127.0.0.0/8\"]\n\
         history.total_bytes = \"16 MiB\"\nhistory.directory = \"{}\"\n",
        nats.config("one"),
        folder.path().display()
    );
    let edge = Server::start(&text).await;
    let controls: Controls = Arc::new(Mutex::new(vec![edge.control_url(); 3]));
    let mut readers = JoinSet::new();
    for protocol in Protocol::ALL {
        readers.spawn(read_to_end(edge.address(), protocol));
        until_read(&edge, protocol).await;
    }
    let (mut publishers, stop, count) = publishers(&controls, 8);
    patiently("events", async {
        while count.load(Ordering::Relaxed) < 500 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for server in 0..3 {
        nats.kill(server);
    }
    edge.until_metric("seventh_cluster_connected", 0).await;
    let resident = || Process::new(edge.pid()).resident().expect("it runs");
    tokio::time::sleep(lasts / 4).await;
    let (before, taken) = (resident(), count.load(Ordering::Relaxed));
    tokio::time::sleep(lasts * 3 / 4).await;
    assert_eq!(count.load(Ordering::Relaxed), taken, "taken by nobody");
    for protocol in Protocol::ALL {
        until_read(&edge, protocol).await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more than {before}");
    for server in 0..3 {
        nats.begin(server).await;
    }
    patiently("events to be taken again", async {
        while count.load(Ordering::Relaxed) < taken + 100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let mut all = HashSet::new();
    while let Some(one) = publishers.join_next().await {
        all.extend(one.expect("it does not panic"));
    }
    publish_in_the_end(&controls, 0, "end").await;
    while let Some(got) = patiently("the end", readers.join_next()).await {
        let got: Vec<String> = got
            .expect("no gap")
            .into_iter()
            .map(|(_, data)| data)
            .collect();
        let set: HashSet<String> = got.iter().cloned().collect();
        assert_eq!(set.len(), got.len(), "none twice");
        assert!(all.is_subset(&set), "lost: {:?}", all.difference(&set));
    }
    println!(
        "away for {lasts:?}: {} taken, none lost; {grown} bytes more than {before}",
        all.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_outage_costs_nothing() {
    outage(Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute"]
async fn a_minute_without_servers_costs_nothing() {
    outage(Duration::from_secs(60)).await;
}
