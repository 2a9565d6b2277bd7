//! An edge that is killed and started again: its clients come back.

use std::time::{Duration, Instant};

use seventh::{
    client::{EventSource, Protocol, Signal, Trust},
    clock,
};
use tokio::task::JoinSet;

use crate::{commands::Server, harness::every_protocol};

every_protocol!(clients_of_one_that_was_killed_come_back);

/// They are told by the new one, long before they would give up on a silent one: that takes the
/// keepalive, which is far longer here than the test waits.
async fn clients_of_one_that_was_killed_come_back(protocol: Protocol) {
    come_back(protocol, 200, "").await;
}

/// A new connection costs a signature: a herd comes no faster than is configured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn ten_thousand_clients_of_one_that_was_killed_come_back() {
    let rate = format!("limits.exempt = []\nlimits.connection_rate = {RATE}");
    let rooms = "limits.handshakes = 20000\nlimits.address_handshakes = 20000";
    let (server, started, mut coming) =
        come_back(Protocol::Http2, 10_000, &format!("{rate}\n{rooms}")).await;
    coming.sort_unstable();
    // Ten seconds' worth at once, and then so many a second, from the start on.
    for (n, at) in coming.iter().enumerate() {
        let seconds = 10.0 + (*at - started).as_secs_f64();
        assert!(n as f64 <= seconds * RATE as f64, "{n} within {seconds} s");
    }
    let all = *coming.last().expect("there are some") - started;
    assert!(all < Duration::from_secs(30), "{all:?}");
    let refused = server.hits("limits.connection_rate").await;
    assert!(refused > 0);
    let second = Duration::from_secs(1);
    let fastest = (coming.iter()).map(|from| {
        coming
            .iter()
            .filter(|at| **at >= *from && **at < *from + second)
            .count()
    });
    println!(
        "10,000 came back within {all:?}, {} in the busiest second, {refused} times refused",
        fastest.max().unwrap_or(0)
    );
}

/// As long as a herd may take.
const LONG: Duration = Duration::from_secs(60);
/// How many connections an address may begin a second.
const RATE: usize = 450;

/// Has so many clients open a stream, kills the edge, starts it again, and waits for all to be back; when it
/// was started again, and when each was back.
async fn come_back(
    protocol: Protocol,
    count: usize,
    more: &str,
) -> (Server, Instant, Vec<Instant>) {
    let text = format!(
        "events.keepalive = \"200s\"\nevents.retry = \"500ms\"\nlimits.handshake = \"60s\"\n{more}"
    );
    let server = Server::start(&text).await;
    let url = format!("https://{}/events?topic=a", server.https);
    let url: http::Uri = url.parse().expect("a URL");
    let mut clients = JoinSet::new();
    for _ in 0..count {
        // Reading whom the system trusts costs ten times what a handshake does.
        let source = EventSource::new(url.clone(), protocol, Trust::Anyone, String::new());
        clients.spawn(until_open(source));
    }
    let opened = tokio::time::timeout(LONG, clients.join_all()).await;
    let sources = opened.expect("all streams open");
    let started = clock::now();
    let server = server.crash_and_restart().await;
    let mut clients = JoinSet::new();
    for (source, _) in sources {
        clients.spawn(until_open(source));
    }
    let back = tokio::time::timeout(LONG, clients.join_all()).await;
    let back = back.expect("all come back");
    let line = format!("seventh_event_streams{{protocol=\"{protocol}\"}}");
    server.until_metric(&line, count as u64).await;
    let coming = back.iter().map(|(_, at)| *at).collect();
    (server, started, coming)
}

/// Until its stream is open, which one that is refused is not.
async fn until_open(mut source: EventSource) -> (EventSource, Instant) {
    loop {
        match source.next().await.expect("it goes on") {
            Signal::Message(message) if message.event == "edge-open" => {
                return (source, clock::now());
            }
            Signal::Open | Signal::Message(_) | Signal::Reconnecting { .. } => {}
            Signal::Closed { why } => panic!("closed: {why}"),
        }
    }
}
