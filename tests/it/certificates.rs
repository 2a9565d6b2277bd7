//! The certificate that handshakes get.

use seventh::client::{Connection, Protocol, Trust};

use crate::harness::{TestEdge, every_protocol, patiently};

every_protocol!(a_new_certificate_is_served_and_open_streams_stay);

async fn a_new_certificate_is_served_and_open_streams_stay(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge.events(protocol, "topic=a").await.opened().await;
    let [before, after] = edge.renew_certificate();
    let connect = async |ca| {
        let target = edge.target_trusting(Trust::Ca(ca));
        patiently("a connection", Connection::open(&target, protocol)).await
    };
    assert!(
        connect(before).await.is_err(),
        "the old one is still served"
    );
    connect(after).await.expect("the new one is served");
    edge.publish("a", "still here").await;
    assert_eq!(events.data(1).await, ["still here"]);
}
