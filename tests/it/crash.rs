//! An edge that is killed and started again: its clients come back.

use seventh::client::{EventSource, Protocol, Signal, Trust};
use tokio::task::JoinSet;

use crate::{
    commands::Server,
    harness::{every_protocol, patiently},
};

every_protocol!(clients_of_one_that_was_killed_come_back);

const CLIENTS: usize = 200;

/// They are told by the new one, long before they would give up on a silent one: that takes the
/// keepalive, which is far longer here than the test waits.
async fn clients_of_one_that_was_killed_come_back(protocol: Protocol) {
    let text = "events.keepalive = \"200s\"\nevents.retry = \"500ms\"\nlimits.handshake = \"60s\"";
    let server = Server::start(text).await;
    let url = format!("https://{}/events?topic=a", server.https);
    let url: http::Uri = url.parse().expect("a URL");
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let trust = Trust::Ca(server.ca());
        let mut source = EventSource::new(url.clone(), protocol, trust, String::new());
        clients.spawn(async move {
            until_open(&mut source).await;
            source
        });
    }
    let sources = patiently("all streams", clients.join_all()).await;
    let server = server.crash_and_restart().await;
    let mut clients = JoinSet::new();
    for mut source in sources {
        clients.spawn(async move {
            until_open(&mut source).await;
            source
        });
    }
    let _back = patiently("all to come back", clients.join_all()).await;
    let line = format!("seventh_event_streams{{protocol=\"{protocol}\"}}");
    server.until_metric(&line, CLIENTS as u64).await;
}

async fn until_open(source: &mut EventSource) {
    loop {
        match source.next().await.expect("it goes on") {
            Signal::Open => return,
            Signal::Message(_) | Signal::Reconnecting { .. } => {}
            Signal::Closed { why } => panic!("closed: {why}"),
        }
    }
}
