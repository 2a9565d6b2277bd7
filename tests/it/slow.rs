//! Readers that do not read, beside those that do.

use std::time::Duration;

use seventh::{client::Protocol, process::Process};

use crate::{
    commands::Server,
    harness::{Events, every_protocol, lines, patiently},
};

every_protocol!(a_reader_that_stops_costs_a_cursor_and_is_told_when_it_reads_again);

const EVENTS: usize = 100_000;
/// Under the 1,000 events of the ring, so that a reader that reads misses nothing.
const BATCH: usize = 500;

async fn a_reader_that_stops_costs_a_cursor_and_is_told_when_it_reads_again(protocol: Protocol) {
    // In a process of its own, whose memory is nobody else's. A debug build on a busy machine may
    // take longer than the 15 s for which a client may take nothing.
    let server = Server::start("events.keepalive = \"60s\"\nlimits.stall = \"60s\"").await;
    let process = Process::new(server.pid());
    let mut stopped = server.events(protocol, "topic=a").await.opened().await;
    // Over HTTP/2 and HTTP/3 the one that reads shares the connection of the one that does not.
    let mut connection = match protocol {
        Protocol::Http1 => server.connect(protocol).await,
        _ => stopped.take_connection().expect("it has one"),
    };
    let mut reader = Events::open(&mut connection, "topic=a", &[])
        .await
        .opened()
        .await;

    let (lines, request) = lines();
    let mut control = server.control().await;
    let mut answers = control.send(request).await.expect("an answer");
    let before = process.memory().expect("it runs");
    let padding = "x".repeat(200);
    for first in (0..EVENTS).step_by(BATCH) {
        let batch: String = (first..first + BATCH)
            .map(|n| format!("{{\"topic\":\"a\",\"data\":\"{n} {padding}\"}}\n"))
            .collect();
        lines.send(batch.into()).await.expect("it is read");
        for n in first..first + BATCH {
            let message = reader.message().await;
            assert!(message.data.starts_with(&format!("{n} ")), "{message:?}");
        }
        // The answers are read, so that the publisher is not a slow reader itself.
        while let Ok(Ok(Some(_))) = tokio::time::timeout(Duration::ZERO, answers.chunk()).await {}
    }
    let grown = process.memory().expect("it runs").saturating_sub(before);
    assert!(
        grown < 24 << 20,
        "100,000 events cost {grown} bytes of memory"
    );

    // What was under way still comes, then the gap, then what the ring holds. The kernel's buffers
    // grow as they please, so there may be more than one gap; all of it adds up.
    let (mut next, mut missed) = (0, 0);
    while next < EVENTS {
        let message = stopped.message().await;
        if message.event == "edge-gap" {
            let gap: serde_json::Value = serde_json::from_str(&message.data).expect("JSON");
            assert_eq!(gap["reason"], "slow");
            let count = gap["missed"].as_u64().expect("a count") as usize;
            missed += count;
            next += count;
        } else {
            assert!(
                message.data.starts_with(&format!("{next} ")),
                "{next}: {message:?}"
            );
            next += 1;
        }
    }
    assert!(missed > EVENTS / 2, "it missed only {missed}");
    drop(lines);
    patiently("the end", answers.bytes())
        .await
        .expect("a clean end");
}
