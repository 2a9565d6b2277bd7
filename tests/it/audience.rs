//! Delivering to people: to all of a standing, to users, to nested groups.

use http::StatusCode;
use serde_json::{Value, json};
use seventh::client::Protocol;

use crate::{
    access::{SECRET, claims, token},
    harness::{Events, TestEdge, every_protocol},
};

every_protocol!(
    a_broadcast_reaches_those_of_a_standing,
    a_message_reaches_exactly_those_who_are_meant
);

fn edge(more: &str) -> TestEdge {
    TestEdge::with(&format!(
        "access.subscribe = [\"authenticated\", \"anonymous\"]\naccess.audience = \"seventh\"\n{more}\n\
         [[access.key]]\nkid = \"h\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
    ))
}

async fn open(
    edge: &TestEdge,
    protocol: Protocol,
    user: &str,
    groups: &[&str],
    after: Option<&str>,
) -> Events {
    let mut claims = claims();
    (claims["sub"], claims["groups"]) = (json!(user), json!(groups));
    let bearer = format!("Bearer {}", token(&claims));
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(after.map(|id| ("last-event-id", id)));
    let mut connection = edge.connect(protocol).await;
    let events = Events::open(&mut connection, &format!("topic=own/{user}"), &headers).await;
    events.owning(connection).opened().await
}

async fn post(edge: &TestEdge, path: &str, body: Value) -> Value {
    let answer = edge.ask("POST", path, body.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()
}

async fn a_broadcast_reaches_those_of_a_standing(protocol: Protocol) {
    let edge = edge("");
    let mut bob = open(&edge, protocol, "bob", &[], None).await;
    let mut nobody = edge.events(protocol, "topic=x").await.opened().await;
    // Without a topic there is still what is for everybody, or for the visitor.
    let mut bare = edge.events(protocol, "").await;
    let (opened, _) = bare.edge_event("edge-open").await;
    assert_eq!(opened["topics"], json!([]));
    post(
        &edge,
        "/broadcast",
        json!({"data": "0", "authenticated": false, "anonymous": true}),
    )
    .await;
    assert_eq!(
        (bare.data(1).await, nobody.data(1).await),
        (vec!["0".to_owned()], vec!["0".to_owned()])
    );
    drop(bare);
    edge.until_metric(
        &format!("seventh_event_streams{{protocol=\"{protocol}\"}}"),
        2,
    )
    .await;
    // The authenticated and not the anonymous, unless told otherwise.
    let answer = post(&edge, "/broadcast", json!({"event": "note", "data": "1"})).await;
    assert_eq!(
        (&answer["receivers"], &answer["delivered"]),
        (&json!(1), &json!(true))
    );
    post(
        &edge,
        "/broadcast",
        json!({"data": "2", "authenticated": false, "anonymous": true}),
    )
    .await;
    assert_eq!(
        post(
            &edge,
            "/broadcast",
            json!({"data": {"n": 3}, "anonymous": true})
        )
        .await["receivers"],
        2
    );
    let first = bob.message().await;
    assert_eq!((first.event.as_str(), first.data.as_str()), ("note", "1"));
    assert_eq!(bob.data(1).await, ["{\"n\": 3}".replace(' ', "")]);
    assert_eq!(nobody.data(2).await, ["2", "{\"n\":3}"]);
    // Replayed to the same person, as any event.
    let mut again = open(&edge, protocol, "bob", &[], Some(&first.id)).await;
    assert_eq!(again.data(1).await, ["{\"n\":3}"]);
    let nobody = edge
        .ask("POST", "/broadcast", "{\"data\":1,\"authenticated\":false}")
        .await;
    assert_eq!(nobody.status, StatusCode::BAD_REQUEST);
}

async fn a_message_reaches_exactly_those_who_are_meant(protocol: Protocol) {
    let edge = edge("[groups]\nstaff = [\"editors\", \"sales\"]\neditors = [\"interns\"]");
    let mut bob = open(&edge, protocol, "bob", &["editors", "staff"], None).await;
    let mut ann = open(&edge, protocol, "ann", &["interns"], None).await;
    let mut eve = open(&edge, protocol, "eve", &["guests"], None).await;

    // bob is addressed three times over and gets it once; ann by two levels of nesting.
    let answer = post(
        &edge,
        "/send",
        json!({"data": "1", "users": ["bob"], "groups": ["staff", "editors"]}),
    )
    .await;
    assert_eq!(
        (&answer["receivers"], &answer["delivered"]),
        (&json!(2), &json!(true))
    );
    let offline = post(&edge, "/send", json!({"data": "later", "users": "zoe"})).await;
    assert_eq!(
        (&offline["receivers"], &offline["delivered"]),
        (&json!(0), &json!(false))
    );

    // A topic's event for some of its readers only.
    let mut shared = Vec::new();
    for (user, groups) in [("bob", vec!["editors"]), ("eve", vec!["guests"])] {
        let mut claims = claims();
        (claims["sub"], claims["groups"]) = (json!(user), json!(groups));
        let bearer = format!("Bearer {}", token(&claims));
        let mut connection = edge.connect(protocol).await;
        let events =
            Events::open(&mut connection, "topic=room", &[("authorization", &bearer)]).await;
        shared.push(events.owning(connection).opened().await);
    }
    let to = json!({"topic": "room", "data": "secret", "to": {"groups": ["staff"]}});
    assert_eq!(post(&edge, "/publish", to).await["receivers"], 1);
    edge.publish("room", "for all").await;
    assert_eq!(shared[0].data(2).await, ["secret", "for all"]);
    assert_eq!(shared[1].data(1).await, ["for all"]);
    // Not by replay, either.
    let mut late = edge
        .events(protocol, "topic=room&last=9")
        .await
        .opened()
        .await;
    assert_eq!(late.data(1).await, ["for all"]);

    // Nesting changes at once, for streams that are open.
    assert_eq!(
        edge.ask("PUT", "/groups/staff/members/group:guests", "")
            .await
            .json(),
        json!({"added": true})
    );
    assert_eq!(
        post(&edge, "/send", json!({"data": "2", "groups": ["staff"]})).await["receivers"],
        5
    );
    assert_eq!(
        edge.ask("DELETE", "/groups/staff/members/group:guests", "")
            .await
            .json(),
        json!({"removed": true})
    );
    edge.ask("PUT", "/groups/vip/members/user:eve", "").await;
    assert_eq!(
        post(&edge, "/send", json!({"data": "3", "groups": ["vip"]})).await["receivers"],
        2
    );
    assert_eq!(bob.data(2).await, ["1", "2"]);
    assert_eq!(ann.data(2).await, ["1", "2"]);
    assert_eq!(eve.data(2).await, ["2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_shown_and_never_nest_in_a_cycle() {
    let edge =
        TestEdge::with("[groups]\nstaff = [\"editors\"]\neditors = [\"interns\", \"user:bob\"]");
    let shown = edge.ask("GET", "/groups/staff", "").await.json();
    assert_eq!(shown["members"], json!(["group:editors"]));
    assert_eq!(
        shown["effective"],
        json!({"groups": ["editors", "interns"], "users": ["bob"]})
    );
    let cycle = edge
        .ask("PUT", "/groups/interns/members/group:staff", "")
        .await;
    assert_eq!(cycle.status, StatusCode::CONFLICT);
    assert!(
        cycle.text.contains("interns > staff > editors > interns"),
        "{}",
        cycle.text
    );
    let odd = edge
        .ask("PUT", "/groups/a%2Fb/members/user:x%20y", "")
        .await;
    assert_eq!(odd.json(), json!({"added": true}));
    assert_eq!(
        edge.ask("GET", "/groups/a%2Fb", "").await.json()["members"],
        json!(["user:x y"])
    );
    for (method, path, status) in [
        ("PUT", "/groups/a/members/b", 400),
        ("DELETE", "/groups/a/members/user:b", 404),
        ("GET", "/groups/a/members/user:b", 405),
    ] {
        assert_eq!(
            edge.ask(method, path, "").await.status.as_u16(),
            status,
            "{method} {path}"
        );
    }
    let error = seventh::config::Config::from_text("[groups]\na = [\"b\"]\nb = [\"a\"]")
        .expect_err("a cycle");
    assert!(
        error
            .to_string()
            .contains("groups.b: the groups would be nested in a cycle: b > a > b"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_can_be_disconnected() {
    let edge = edge("");
    for protocol in Protocol::ALL {
        let mut bob = open(&edge, protocol, "bob", &[], None).await;
        let mut ann = open(&edge, protocol, "ann", &[], None).await;
        assert_eq!(
            edge.ask("POST", "/users/bob/disconnect", "").await.json(),
            json!({"streams": 1})
        );
        assert!(matches!(
            bob.item().await,
            Some(seventh::sse::Item::Retry(_))
        ));
        assert_eq!(bob.item().await, None);
        post(
            &edge,
            "/send",
            json!({"data": "still here", "users": ["ann"]}),
        )
        .await;
        assert_eq!(ann.data(1).await, ["still here"]);
        drop((bob, ann));
        edge.until_metric(
            &format!("seventh_event_streams{{protocol=\"{protocol}\"}}"),
            0,
        )
        .await;
    }
    assert_eq!(
        edge.ask("GET", "/streams", "").await.json(),
        json!({"streams": [], "next": null})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_group_let_in_ends_with_the_membership() {
    let edge = edge(
        "[groups]\nstaff = [\"user:bob\"]\n[[access.rule]]\ntopic = \"own/*\"\nallow = [\"group:staff\", \"user:ann\"]",
    );
    let mut bob = open(&edge, Protocol::Http2, "bob", &[], None).await;
    let mut ann = open(&edge, Protocol::Http2, "ann", &[], None).await;
    edge.ask("DELETE", "/groups/staff/members/user:bob", "")
        .await;
    assert!(matches!(
        bob.item().await,
        Some(seventh::sse::Item::Retry(_))
    ));
    assert_eq!(bob.item().await, None);
    edge.publish("own/ann", "still here").await;
    assert_eq!(ann.data(1).await, ["still here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_for_nobody_in_particular_says_so() {
    let edge = TestEdge::start();
    for body in [
        json!({"topic": "a", "data": 1, "to": null}),
        json!({"topic": "a", "data": 1, "to": {}}),
        json!({"topic": "a", "data": 1, "to": {"user": ["bob"]}}),
    ] {
        let answer = edge.ask("POST", "/publish", body.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
    }
    assert_eq!(edge.metric("seventh_events_published_total").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_there_is_seen_and_one_stream_can_be_ended() {
    let edge = edge("[groups]\nstaff = [\"editors\", \"user:zoe\"]");
    let show = async |path: &str| edge.ask("GET", path, "").await.json();
    let nobody = show("/users/bob").await;
    assert_eq!(nobody["connected"], false);
    assert_eq!(nobody["streams"], json!([]));
    let mut first = open(&edge, Protocol::Http2, "bob", &["editors"], None).await;
    let mut second = open(&edge, Protocol::Http3, "bob", &["editors"], None).await;
    let bob = show("/users/bob").await;
    assert_eq!(
        (&bob["user"], &bob["connected"]),
        (&json!("bob"), &json!(true))
    );
    assert_eq!(bob["since"], bob["streams"][0]["since"]);
    let protocols: Vec<_> = bob["streams"].as_array().expect("a list").iter().collect();
    assert_eq!(protocols.len(), 2);
    assert_eq!(
        (&protocols[0]["protocol"], &protocols[1]["protocol"]),
        (&json!("h2"), &json!("h3"))
    );
    // Members by identity are effective ones too, of the groups above as well.
    for group in ["staff", "editors"] {
        let shown = show(&format!("/groups/{group}")).await;
        let users = shown["effective"]["users"].as_array().expect("a list");
        assert!(users.contains(&json!("bob")), "{shown}");
    }
    let ended = edge
        .ask("DELETE", &format!("/streams/{}", protocols[0]["id"]), "")
        .await;
    assert_eq!(ended.json(), json!({"streams": 1}));
    while first.item().await.is_some() {}
    post(
        &edge,
        "/send",
        json!({"data": "still here", "users": ["bob"]}),
    )
    .await;
    assert_eq!(second.data(1).await, ["still here"]);
    for (path, status) in [("/streams/999999", 404), ("/streams/x", 400)] {
        let refused = edge.ask("DELETE", path, "").await;
        assert_eq!(refused.status.as_u16(), status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_by_pages() {
    let edge = TestEdge::with("[groups]\na = [\"b\"]\nc = [\"user:bob\"]\nd = [\"a\"]");
    let show = async |path: &str| edge.ask("GET", path, "").await.json();
    let first = show("/groups?limit=2").await;
    assert_eq!(
        first,
        json!({
            "groups": [
                { "group": "a", "members": ["group:b"] },
                { "group": "c", "members": ["user:bob"] },
            ],
            "next": "c",
        })
    );
    let second = show("/groups?limit=2&after=c").await;
    assert_eq!(second["groups"][0]["group"], "d");
    assert_eq!(second["next"], json!(null));
    let odd = edge.ask("GET", "/groups?page=2", "").await;
    assert_eq!(odd.status, StatusCode::BAD_REQUEST);
}

/// `/send` itself, to members by identity and by an operator's word, nested any way: it reaches exactly those whom a
/// plain walk of the graph names, each stream once.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_meant_is_who_gets_it() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let edge = edge("");
    let group = |n: usize| format!("g{n}");
    for case in 0..8 {
        // Groups below others have higher numbers: there is no cycle.
        let mut nested: Vec<Vec<usize>> = vec![Vec::new(); 6];
        for _ in 0..random.usize(..10) {
            let (above, below) = (random.usize(..5), random.usize(1..6));
            if above < below {
                let path = format!("/groups/{case}-g{above}/members/group:{case}-g{below}");
                assert_eq!(edge.ask("PUT", &path, "").await.status, 200);
                nested[above].push(below);
            }
        }
        let mut made: Vec<(usize, usize)> = Vec::new();
        for _ in 0..random.usize(..5) {
            let (of, user) = (random.usize(..6), random.usize(..5));
            let path = format!("/groups/{case}-g{of}/members/user:{case}-u{user}");
            assert_eq!(edge.ask("PUT", &path, "").await.status, 200);
            made.push((of, user));
        }
        let mut streams = Vec::new();
        for _ in 0..random.usize(1..10) {
            let user = random.usize(..5);
            let own: Vec<usize> = (0..6).filter(|_| random.f64() < 0.2).collect();
            let names: Vec<String> = own
                .iter()
                .map(|of| format!("{case}-{}", group(*of)))
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let events = open(
                &edge,
                Protocol::Http2,
                &format!("{case}-u{user}"),
                &names,
                None,
            )
            .await;
            streams.push((user, own, events));
        }
        for _ in 0..5 {
            let users: Vec<usize> = (0..5).filter(|_| random.f64() < 0.2).collect();
            let groups: Vec<usize> = (0..6).filter(|_| random.f64() < 0.25).collect();
            if users.is_empty() && groups.is_empty() {
                continue;
            }
            let mut reached = groups.clone();
            let mut at = 0;
            while at < reached.len() {
                let below = nested[reached[at]]
                    .iter()
                    .filter(|below| !reached.contains(below));
                let below: Vec<usize> = below.copied().collect();
                reached.extend(below);
                at += 1;
            }
            let is_meant = |user: &usize, own: &[usize]| {
                let is_made = made
                    .iter()
                    .any(|(of, who)| who == user && reached.contains(of));
                users.contains(user) || is_made || own.iter().any(|of| reached.contains(of))
            };
            let body = json!({
                "users": users.iter().map(|n| format!("{case}-u{n}")).collect::<Vec<_>>(),
                "groups": groups.iter().map(|n| format!("{case}-g{n}")).collect::<Vec<_>>(),
                "data": "meant",
            });
            let answer = post(&edge, "/send", body.clone()).await;
            post(&edge, "/broadcast", json!({ "data": "all" })).await;
            let mut got = 0;
            for (user, own, events) in &mut streams {
                let first = events.data(1).await.remove(0);
                assert_eq!(first == "meant", is_meant(user, own), "seed {seed}: {body}");
                if first == "meant" {
                    got += 1;
                    assert_eq!(events.data(1).await, ["all"], "seed {seed}: {body}");
                }
            }
            assert_eq!(answer["receivers"], got, "seed {seed}: {body}");
        }
    }
}
