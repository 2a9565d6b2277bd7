//! A stream ends with its token: announced, and cleanly; a new token goes on where it was.

use serde_json::{Value, json};
use seventh::{client::Protocol, sse::Item};

use super::{bearer, claims, now, open_as, poll_as, token, with_secret};
use crate::harness::{Events, every_protocol};

every_protocol!(a_stream_ends_with_its_token_and_goes_on_with_a_new_one);

async fn a_stream_ends_with_its_token_and_goes_on_with_a_new_one(protocol: Protocol) {
    let edge = with_secret("access.expiry_notice = \"1h\"");
    let mut short = claims();
    short["exp"] = json!(now() + 8);
    let mut events = open_as(&edge, protocol, "topic=a", &token(&short))
        .await
        .opened()
        .await;
    let message = events.message().await;
    assert_eq!(
        (message.event.as_str(), message.id.ends_with("-0")),
        ("edge-auth", true)
    );
    let data: Value = serde_json::from_str(&message.data).expect("JSON");
    assert_eq!(data["reason"], "expiring");
    assert!(data["seconds"].as_u64() <= Some(8));
    let id = edge.publish_id("a", "1").await;
    assert_eq!(events.data(1).await, ["1"]);
    assert!(matches!(events.item().await, Some(Item::Retry(_))));
    assert_eq!(events.item().await, None, "a clean end");
    edge.publish("a", "2").await;
    // The old token: gently, as it may be renewed. The new one goes on where the stream was.
    let mut connection = edge.connect(protocol).await;
    let late = poll_as(&mut connection, &token(&short)).await;
    assert!(
        late.text.contains("\"reason\":\"expired\"") && late.text.contains("retry: "),
        "{}",
        late.text
    );
    let bearer = bearer(&token(&claims()));
    let headers = [
        ("authorization", bearer.as_str()),
        ("last-event-id", id.as_str()),
    ];
    let mut connection = edge.connect(protocol).await;
    let mut events = Events::open(&mut connection, "topic=a", &headers)
        .await
        .opened()
        .await;
    loop {
        let message = events.message().await;
        if message.event != "edge-auth" {
            break assert_eq!(message.data, "2");
        }
    }
}
