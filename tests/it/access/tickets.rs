//! Tickets in the URL of an event stream, for pages of other sites whose browsers send no cookie.

use std::time::Duration;

use serde_json::json;
use seventh::client::Protocol;

use super::{bearer, claims, send, token, with_secret};
use crate::harness::{Events, TestEdge, every_protocol};

every_protocol!(a_ticket_opens_streams_and_goes_on_with_them);

async fn reason(edge: &TestEdge, protocol: Protocol, query: &str, after: Option<&str>) -> String {
    let mut connection = edge.connect(protocol).await;
    let fields = after.map(|id| ("last-event-id", id));
    let mut events = Events::open(&mut connection, query, fields.as_slice()).await;
    let (told, _) = events.edge_event("edge-auth").await;
    told["reason"].as_str().expect("text").to_owned()
}

async fn a_ticket_opens_streams_and_goes_on_with_them(protocol: Protocol) {
    let edge = with_secret("access.subscribe = [\"authenticated\"]");
    let ticket = async |body: serde_json::Value| {
        let answer = edge.ask("POST", "/tickets", body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    let given =
        ticket(json!({ "user": "bob", "groups": ["staff"], "topics": ["news/*"], "expires": 600 }))
            .await;
    assert_eq!(
        (&given["opens"], &given["expires"]),
        (&json!(30), &json!(600))
    );
    let text = given["ticket"].as_str().expect("text").to_owned();
    let query = format!("topic=news/1&ticket={text}");
    let mut events = edge.events(protocol, &query).await;
    let (open, id) = events.edge_event("edge-open").await;
    assert_eq!(open["user"], "bob");
    edge.ask(
        "POST",
        "/send",
        json!({ "groups": "staff", "data": "to staff" }).to_string(),
    )
    .await;
    assert_eq!(events.data(1).await, ["to staff"]);
    let mut connection = edge.connect(protocol).await;
    let other = format!("/events?topic=other&ticket={text}");
    assert_eq!(
        send(&mut connection, "GET", &other, &[], "").await.json()["code"],
        "topic-forbidden"
    );
    drop(events);
    // It goes on with what it has read, and what is none of this life is refused gently.
    let mut events = edge
        .events_after(protocol, &query, &id)
        .await
        .opened()
        .await;
    assert_eq!(events.data(1).await, ["to staff"]);
    assert_eq!(
        reason(&edge, protocol, "topic=news/1&ticket=made.up.here", None).await,
        "ticket"
    );
    // With a token on the public side, there is one too.
    let mut connection = edge.connect(protocol).await;
    for (fields, status) in [
        (vec![("authorization", bearer(&token(&claims())))], 200),
        (vec![], 401),
    ] {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = send(&mut connection, "POST", "/tickets", &fields, "").await;
        assert_eq!(answer.status, status, "{}", answer.text);
        if status == 200 {
            let own = answer.json()["ticket"].as_str().expect("text").to_owned();
            let (open, _) = edge
                .events(protocol, &format!("ticket={own}"))
                .await
                .edge_event("edge-open")
                .await;
            assert_eq!(open["user"], "bob");
        }
    }
    // It ends with the tokens of its user.
    edge.ask("POST", "/users/bob/revoke", "").await;
    assert_eq!(reason(&edge, protocol, &query, Some(&id)).await, "ticket");
    let again = ticket(json!({ "user": "bob" })).await;
    let query = format!("topic=a&ticket={}", again["ticket"].as_str().expect("text"));
    edge.events(protocol, &query).await.opened().await;
}

/// Afterwards it is good only with what a stream of it has read.
#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_is_found_in_a_log_opens_nothing() {
    let edge = with_secret("access.ticket_opens = \"4s\"\naccess.subscribe = [\"authenticated\"]");
    let before = edge.publish_id("a", "before").await;
    edge.publish("a", "the last before").await;
    let ticket = edge
        .ask("POST", "/tickets", json!({ "user": "bob" }).to_string())
        .await
        .json();
    let query = format!(
        "topic=a&ticket={}",
        ticket["ticket"].as_str().expect("text")
    );
    let mut events = edge.events(Protocol::Http2, &query).await;
    let (_, opened) = events.edge_event("edge-open").await;
    edge.ask("POST", "/topics/a?id=own", "with an id of its own")
        .await;
    assert_eq!(events.data(1).await, ["with an id of its own"]);
    // Until it opens nothing by itself.
    loop {
        let mut connection = edge.connect(Protocol::Http2).await;
        let mut events = Events::open(&mut connection, &query, &[]).await;
        let first = events.message().await;
        if first.event == "edge-auth" {
            assert_eq!(first.data, "{\"reason\":\"ticket\"}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nor with what was there before it, of another life, or made up.
    for id in [before.as_str(), "zzzzzzzz-1", "made-up"] {
        assert_eq!(
            reason(&edge, Protocol::Http2, &query, Some(id)).await,
            "ticket",
            "{id}"
        );
    }
    for (id, data) in [
        (opened, Some("with an id of its own")),
        ("own".to_owned(), None),
    ] {
        let after = edge.events_after(Protocol::Http2, &query, &id);
        let mut events = after.await.opened().await;
        if let Some(data) = data {
            assert_eq!(events.data(1).await, [data]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_ends_takes_its_ticket_along() {
    let edge = with_secret("");
    let body = json!({ "user": "bob", "expires": 4 }).to_string();
    let ticket = edge.ask("POST", "/tickets", body).await.json();
    let query = format!(
        "topic=a&ticket={}",
        ticket["ticket"].as_str().expect("text")
    );
    let mut events = edge.events(Protocol::Http2, &query).await.opened().await;
    assert_eq!(events.edge_event("edge-auth").await.0["reason"], "expiring");
    while events.item().await.is_some() {}
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(
        reason(&edge, Protocol::Http2, &query, None).await,
        "expired"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_what_is_asked_is_said() {
    let edge = with_secret("");
    let groups: Vec<String> = (0..200)
        .map(|n| format!("a group with a rather long name {n}"))
        .collect();
    for (body, code) in [
        (json!({}), "bad-request"),
        (json!({ "user": "" }), "wrong-user"),
        (json!({ "user": "bob", "expires": 0 }), "wrong-expires"),
        (json!({ "user": "bob", "expires": 86_401 }), "wrong-expires"),
        (json!({ "user": "bob", "topics": [""] }), "wrong-topics"),
        (json!({ "user": "bob", "groups": groups }), "wrong-groups"),
        (json!({ "user": "bob", "whatever": 1 }), "bad-request"),
    ] {
        let answer = edge.ask("POST", "/tickets", body.to_string()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["code"].as_str()),
            (400, Some(code)),
            "{body}"
        );
    }
}
