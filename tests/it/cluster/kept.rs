//! What an edge of a cluster keeps of the order on its own disk.

use std::path::Path;

use seventh::client::Protocol;

use super::{copy, edge, edge_with, nats::Nats, publish_in_the_end};
use crate::harness::{TestEdge, every_protocol};

every_protocol!(who_comes_from_further_back_than_the_rings_is_given_all);

/// An edge whose rings hold next to nothing, with a directory.
fn keeping(nats: &Nats, node: &str, directory: &Path) -> TestEdge {
    let more = format!(
        "history.events = 4\nhistory.total_bytes = \"1 MiB\"\nhistory.directory = \"{}\"\n",
        directory.display()
    );
    edge_with(nats, node, &more)
}

/// What a reader is given who comes with an id, so many events.
async fn after(edge: &TestEdge, protocol: Protocol, id: &str, count: usize) -> Vec<String> {
    let reader = edge.events_after(protocol, "topic=a", id).await;
    reader.opened().await.data(count).await
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| n.to_string()).collect()
}

async fn who_comes_from_further_back_than_the_rings_is_given_all(protocol: Protocol) {
    let nats = Nats::one().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (edge(&nats, "one"), keeping(&nats, "two", folder.path()));
    let first = one.publish_id("a", "0").await;
    for n in 1..50 {
        one.publish("a", n.to_string()).await;
        one.publish("b", "other").await;
    }
    assert_eq!(after(&two, protocol, &first, 49).await, numbers(1, 50));
    assert!(two.metric("seventh_history_deep_reads_total").await > 0);
    // It need not be asked for again by an edge that comes back, and what it missed comes behind it.
    two.drain().await;
    for n in 50..60 {
        one.publish("a", n.to_string()).await;
    }
    nats.ask("STREAM.PURGE.seventh_test", serde_json::json!({"keep": 10}))
        .await;
    let two = keeping(&nats, "two", folder.path());
    assert_eq!(after(&two, protocol, &first, 59).await, numbers(1, 60));
    assert_eq!(two.metric("seventh_cluster_forks_total").await, 0);
}

/// What is damaged is read again, and nobody is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_is_read_from_the_servers_again() {
    let nats = Nats::one().await;
    let folder = tempfile::tempdir().expect("a folder");
    let one = keeping(&nats, "one", folder.path());
    let first = one.publish_id("a", "0").await;
    for n in 1..20 {
        one.publish("a", n.to_string()).await;
    }
    one.drain().await;
    let files = std::fs::read_dir(folder.path()).expect("a folder");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "seg"));
    for file in files {
        let mut bytes = std::fs::read(&file).expect("it is there");
        bytes[20] ^= 1;
        std::fs::write(&file, bytes).expect("it is written");
    }
    let one = keeping(&nats, "one", folder.path());
    assert_eq!(
        after(&one, Protocol::Http2, &first, 19).await,
        numbers(1, 20)
    );
}

/// The servers have lost the end of the order while no edge ran: this one has read it, and knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_was_put_back_while_no_edge_ran_is_found_out() {
    let mut nats = Nats::one().await;
    let folder = tempfile::tempdir().expect("a folder");
    let one = keeping(&nats, "one", folder.path());
    for n in 0..5 {
        one.publish("a", n.to_string()).await;
    }
    nats.kill(0);
    let old = tempfile::tempdir().expect("a folder");
    copy(&nats.store(0), old.path());
    nats.begin(0).await;
    let answer = publish_in_the_end(&one, "a", "lost").await.json();
    let last = answer["id"].as_str().expect("an id").to_owned();
    one.drain().await;
    nats.kill(0);
    std::fs::remove_dir_all(nats.store(0)).expect("it is there");
    copy(old.path(), &nats.store(0));
    nats.begin(0).await;
    let one = keeping(&nats, "one", folder.path());
    publish_in_the_end(&one, "a", "new").await;
    let mut back = one.events_after(Protocol::Http2, "topic=a", &last).await;
    back.edge_event("edge-open").await;
    let (gap, _) = back.edge_event("edge-gap").await;
    assert_eq!(gap["reason"], "restart");
    let expected = [numbers(2, 5), vec!["new".to_owned()]].concat();
    assert_eq!(back.data(4).await, expected, "what the rings hold");
}
