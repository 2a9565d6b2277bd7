//! More than there is memory for: whoever comes is refused, and of those who are there go first those
//! who take nothing.

use crate::{
    commands::Server,
    harness::{Events, patiently},
};
use seventh::{client::Protocol, sse::Item};

const MIB: u64 = 1 << 20;
const MEMORY: &str = "seventh_memory_bytes";
const HITS: &str = "seventh_limit_hits_total{limit=\"limits.memory\"}";

fn open(protocol: Protocol) -> String {
    format!("seventh_event_streams{{protocol=\"{protocol}\"}}")
}

/// The memory of one that does nothing.
async fn idle_memory() -> u64 {
    let server = Server::start("").await;
    patiently("a look at its memory", async {
        loop {
            let taken = server.metric(MEMORY).await;
            if taken > 0 {
                return taken;
            }
        }
    })
    .await
}

/// The comment that a refused stream has, if it is refused.
async fn refusal(events: &mut Events) -> Option<String> {
    events.retry().await;
    match events.any_item().await {
        Some(Item::Comment(comment)) => Some(comment),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn laggards_over_http1_end_first() {
    memory_that_runs_short_stays_with_those_who_read(Protocol::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn laggards_over_http3_end_first() {
    memory_that_runs_short_stays_with_those_who_read(Protocol::Http3).await;
}

/// Over HTTP/1.1 and HTTP/3, where who takes nothing holds up its connection.
async fn memory_that_runs_short_stays_with_those_who_read(protocol: Protocol) {
    let budget = idle_memory().await + 24 * MIB;
    let text = format!(
        "limits.memory = \"{} KiB\"\nlimits.stall = \"10m\"\nevents.keepalive = \"4m\"",
        budget >> 10
    );
    let server = Server::start(&text).await;
    let mut good = server
        .events(Protocol::Http2, "topic=good")
        .await
        .opened()
        .await;

    // They ask for what is large, and take nothing of it.
    let mut laggards = Vec::new();
    for _ in 0..3 {
        laggards.push(server.events(protocol, "topic=big").await);
    }

    // Until there is no room for more; those who were let in read on.
    let mut readers = Vec::new();
    let mut asking = good.take_connection().expect("it has one");
    let refused = patiently("a refusal", async {
        loop {
            // A connection that is turned away says nothing.
            let mut own = server.try_connect(Protocol::Http2).await.ok();
            let connection = own.as_mut().unwrap_or(&mut asking);
            let mut events = Events::open(connection, "topic=good", &[]).await;
            if let Some(refused) = refusal(&mut events).await {
                return refused;
            }
            readers.push(match own {
                Some(own) => events.owning(own),
                None => events,
            });
        }
    })
    .await;
    assert!(refused.contains("limits.memory"), "{refused}");
    assert!(readers.len() > 50, "{}", readers.len());
    let alone = server.metric(HITS).await;
    assert!(alone > 0);

    // And what is published takes the rest, until the laggards have ended.
    let mut asked_to_wait = 0;
    patiently("the end of the laggards", async {
        let mut n = 0;
        while server.metric(&open(protocol)).await > 0 {
            n += 1;
            let topic = format!("/topics/{}", ["big", &format!("other/{n}")][n % 2]);
            let answer = server.publish(&topic, vec![b'x'; 200 << 10]).await;
            match answer.status.as_u16() {
                200 => {}
                503 => asked_to_wait += 1,
                other => panic!("{other}: {}", answer.text),
            }
        }
    })
    .await;
    assert!(server.metric(HITS).await >= alone + 3 + asked_to_wait);
    let streams = server.metric(&open(Protocol::Http2)).await;
    assert_eq!(streams, readers.len() as u64 + 1);

    // There is some again, if for less history; and those who read have what is for them.
    patiently("room", async {
        while server.publish("/topics/good", "at last").await.status != 200 {}
    })
    .await;
    for events in readers.iter_mut().chain([&mut good]) {
        while events.message().await.data != "at last" {}
    }
}
