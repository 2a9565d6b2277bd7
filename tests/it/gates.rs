//! What an event costs, counted and not timed: calls of the system, bytes, memory. A change that makes it dearer
//! has to say so here.

use std::{collections::BTreeMap, path::Path};

use seventh::client::{Connection, Protocol};
use tokio::process::Command;

use crate::{
    commands::{Server, ask},
    harness::{Events, every_protocol, memory_of, patiently},
};

const EVENTS: usize = 20;
const DATA: usize = 100;

/// The calls of the system that an edge has made, as strace wrote them down: of each name how many, and the
/// sum of what they returned.
fn calls(log: &Path) -> BTreeMap<String, (u64, u64)> {
    let text = std::fs::read_to_string(log).expect("it is written");
    let mut calls = BTreeMap::new();
    // A thread that was interrupted in the middle of a call has it on two lines.
    for line in text.lines().filter(|line| !line.contains("unfinished")) {
        let line = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let line = line.strip_prefix("<... ").unwrap_or(line);
        let name: String = line
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let returned = line.rsplit_once("= ").and_then(|(_, value)| {
            let number = value.split_whitespace().next()?;
            number.parse::<u64>().ok()
        });
        // A thread wakes another by eight bytes to an eventfd.
        let name = if name == "write" && returned == Some(8) {
            "wake".into()
        } else {
            name
        };
        let (count, sum) = calls.entry(name).or_insert((0, 0));
        *count += 1;
        *sum += returned.unwrap_or(0);
    }
    calls
}

/// How many calls there were of these names since `before`, and the sum of what they returned.
fn since(
    before: &BTreeMap<String, (u64, u64)>,
    after: &BTreeMap<String, (u64, u64)>,
    names: &[&str],
) -> (u64, u64) {
    let of = |calls: &BTreeMap<String, (u64, u64)>| {
        let chosen = calls
            .iter()
            .filter(|(name, _)| names.is_empty() || names.contains(&name.as_str()));
        chosen.fold((0, 0), |sum, (_, call)| (sum.0 + call.0, sum.1 + call.1))
    };
    let (before, after) = (of(before), of(after));
    (after.0 - before.0, after.1 - before.1)
}

/// Opens so many streams on each of two connections, or ten connections of HTTP/1.1.
async fn readers(server: &Server, protocol: Protocol, each: usize) -> Vec<Vec<Events>> {
    let connections = if protocol == Protocol::Http1 { 10 } else { 2 };
    let mut all = Vec::new();
    for _ in 0..connections {
        let mut connection: Connection = server.connect(protocol).await;
        let count = if protocol == Protocol::Http1 { 1 } else { each };
        let opening = Events::open_many(&mut connection, "topic=a", count);
        let mut streams = patiently("the streams", opening).await;
        streams[0].own(connection);
        all.push(streams);
    }
    all
}

every_protocol!(
    an_event_is_one_write_to_each_connection,
    a_stream_takes_little_memory,
);

async fn an_event_is_one_write_to_each_connection(protocol: Protocol) {
    const STREAMS: usize = 50;
    const WRITES: &[&str] = &["write", "writev", "sendto", "sendmsg", "sendmmsg"];
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("calls");
    let mut strace = Command::new("strace");
    strace
        .args(["-D", "-f", "-qq", "-e", "signal=none", "-o"])
        .arg(&log);
    let server = Server::start_by(strace, "events.keepalive = \"4m\"").await;
    let mut all = readers(&server, protocol, STREAMS).await;
    let mut control = server.control().await;
    let data = "x".repeat(DATA);
    // The first makes what is made once.
    let mut before = BTreeMap::new();
    for number in 0..=EVENTS {
        ask(&mut control, "POST", "/topics/a", data.clone()).await;
        for stream in all.iter_mut().flatten() {
            assert_eq!(patiently("an event", stream.message()).await.data, data);
        }
        if number == 0 {
            before = calls(&log);
        }
    }
    let after = calls(&log);
    let events = EVENTS as u64;
    let connections = all.len() as u64;
    let deliveries = events * all.iter().flatten().count() as u64;
    let (writes, bytes) = since(&before, &after, WRITES);
    let (system, _) = since(&before, &after, &[]);
    // One of each event is the answer to the publisher.
    let per_connection = (writes as f64 / events as f64 - 1.0) / connections as f64;
    let overhead = bytes as f64 / deliveries as f64 - DATA as f64;
    let calls = system as f64 / events as f64 / connections as f64;
    println!(
        "{protocol}: {per_connection:.2} writes, {calls:.1} calls a connection and event, {overhead:.0} bytes beside the data of a delivery"
    );
    // QUIC acknowledges what it is sent.
    let (most_writes, most_calls, most_overhead) = match protocol {
        Protocol::Http1 => (1.1, 3.5, 80.0),
        Protocol::Http2 => (1.1, 10.0, 45.0),
        Protocol::Http3 => (1.6, 16.0, 60.0),
    };
    assert!(per_connection <= most_writes, "{per_connection} writes");
    assert!(calls <= most_calls, "{calls} calls");
    assert!(overhead <= most_overhead, "{overhead} bytes");
}

async fn a_stream_takes_little_memory(protocol: Protocol) {
    const STREAMS: usize = 200;
    let server = Server::start("").await;
    // What an edge takes once.
    let first = readers(&server, protocol, STREAMS).await;
    let before = memory_of(server.pid());
    let mut more = Vec::new();
    for _ in 0..10 {
        more.extend(readers(&server, protocol, STREAMS).await);
    }
    let grown = memory_of(server.pid()).saturating_sub(before);
    let streams: usize = more.iter().map(Vec::len).sum();
    let connection = grown / more.len() as u64;
    println!(
        "{protocol}: {} bytes a connection of {} streams",
        connection,
        streams / more.len()
    );
    // With what an unoptimized build wastes.
    let most = match protocol {
        Protocol::Http1 => 80 << 10,
        Protocol::Http2 => (60 << 10) + 200 * 2000,
        Protocol::Http3 => (120 << 10) + 200 * 3000,
    };
    assert!(connection < most, "{connection} bytes");
    drop(first);
}
