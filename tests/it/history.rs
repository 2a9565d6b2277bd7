//! History as JSON, what is taken back of it, and who may read what was sent when.

use http::Request;
use serde_json::{Value, json};
use seventh::client::{Protocol, full};

use crate::{
    access::{SECRET, claims, token, with_secret},
    harness::{Answer, Events, TestEdge, every_protocol},
};

every_protocol!(
    history_is_read_as_json,
    what_is_taken_back_is_given_to_nobody_more,
    members_who_come_go_and_come_back,
);

async fn get(edge: &TestEdge, protocol: Protocol, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut connection = edge.connect(protocol).await;
    let mut request = Request::get(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    Answer::of(&mut connection, request.body(full("")).expect("a request")).await
}

fn data(page: &Value) -> Vec<&str> {
    let events = page["events"].as_array().expect("a list");
    events
        .iter()
        .map(|event| event["data"].as_str().expect("text"))
        .collect()
}

async fn history_is_read_as_json(protocol: Protocol) {
    let edge = with_secret(
        "access.subscribe = [\"authenticated\", \"anonymous\"]\naccess.origins = [\"https://app.example\"]\n\
         history.events = 5\n[[access.rule]]\ntopic = \"closed/*\"\nallow = [\"authenticated\"]\n\
         [[topic]]\npattern = \"latest\"\nreplay = \"latest\"\n[[topic]]\npattern = \"none\"\nreplay = \"none\"",
    );
    for n in 1..=3 {
        edge.ask(
            "POST",
            &format!("/topics/a%2Fb?event=n&id=own{n}"),
            format!("line {n}\nmore"),
        )
        .await;
    }
    let fourth = edge.publish_id("a%2Fb", "4").await;
    edge.ask("POST", "/topics/a%2Fb?history=false", "not kept")
        .await;
    let path = "/topics/a%2Fb/events";
    let page = get(&edge, protocol, &format!("{path}?limit=2"), &[]).await;
    assert_eq!(page.header("cache-control"), "no-store");
    let page = page.json();
    assert_eq!(data(&page), ["line 1\nmore", "line 2\nmore"]);
    let first = &page["events"][0];
    assert_eq!(
        (&first["id"], &first["event"]),
        (&json!("own1"), &json!("n"))
    );
    let at = first["at"].as_str().expect("text");
    assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
    let next = page["next"].as_str().expect("there is more");
    let page = get(&edge, protocol, &format!("{path}?after={next}"), &[])
        .await
        .json();
    assert_eq!(data(&page), ["line 3\nmore", "4"]);
    assert_eq!(
        (&page["next"], &page["gap"], &page["events"][1]["id"]),
        (&Value::Null, &Value::Null, &json!(fourth))
    );
    let page = get(&edge, protocol, &format!("{path}?after=own2"), &[])
        .await
        .json();
    assert_eq!(data(&page).len(), 2);
    assert_eq!(
        edge.ask("GET", path, "").await.json()["events"]
            .as_array()
            .expect("a list")
            .len(),
        4
    );
    // Nothing is left out without a word.
    for n in 5..=8 {
        edge.publish("a%2Fb", n.to_string()).await;
    }
    for (after, gap) in [
        ("own1", "unknown"),
        (next, "trimmed"),
        ("zzzzzzzz-1", "restart"),
    ] {
        let page = get(&edge, protocol, &format!("{path}?after={after}"), &[])
            .await
            .json();
        assert_eq!(
            (page["gap"].as_str(), data(&page).len()),
            (Some(gap), 5),
            "{after}"
        );
    }
    // It is what a stream would be given again.
    for (topic, expected) in [("latest", vec!["2", "3"]), ("none", vec![])] {
        for (key, value) in [("k", 1), ("k", 2), ("l", 3)] {
            edge.ask(
                "POST",
                &format!("/topics/{topic}?key={key}"),
                value.to_string(),
            )
            .await;
        }
        let page = get(&edge, protocol, &format!("/topics/{topic}/events"), &[])
            .await
            .json();
        assert_eq!(data(&page), expected, "{topic}");
    }
    // And for whoever may open one.
    edge.publish("closed/1", "secret").await;
    let to = json!({ "topic": "a/b", "data": "for bob", "to": { "users": "bob" } });
    edge.ask("POST", "/publish", to.to_string()).await;
    let refused = get(&edge, protocol, "/topics/closed/1/events", &[]).await;
    assert_eq!(
        (refused.status.as_u16(), refused.json()["code"].as_str()),
        (401, Some("token-missing"))
    );
    assert!(!data(&get(&edge, protocol, path, &[]).await.json()).contains(&"for bob"));
    let bearer = format!("Bearer {}", token(&claims()));
    let fields = [
        ("authorization", bearer.as_str()),
        ("origin", "https://app.example"),
    ];
    let page = get(&edge, protocol, "/topics/closed/1/events", &fields).await;
    assert_eq!(
        page.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert_eq!(page.header("cache-control"), "private, no-store");
    assert_eq!(data(&page.json()), ["secret"]);
    assert!(data(&get(&edge, protocol, path, &fields).await.json()).contains(&"for bob"));
    let fields = [fields[0], ("origin", "https://evil.example")];
    assert_eq!(get(&edge, protocol, path, &fields).await.status, 403);
    for (query, code) in [
        ("limit=0", "wrong-limit"),
        ("limit=1001", "wrong-limit"),
        ("first=1", "wrong-query"),
    ] {
        let answer = get(&edge, protocol, &format!("{path}?{query}"), &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["code"].as_str()),
            (400, Some(code))
        );
    }
    // Of a topic that is forgotten, too, it is told what is gone.
    let gone = edge.publish_id("gone", "1").await;
    edge.publish("gone", "2").await;
    edge.ask("DELETE", "/topics/gone", "").await;
    let page = get(
        &edge,
        protocol,
        &format!("/topics/gone/events?after={gone}"),
        &[],
    )
    .await
    .json();
    assert_eq!(
        (&page["events"], &page["gap"]),
        (&json!([]), &json!("deleted"))
    );
    // Whoever has the newest of each key misses nothing of what it took the place of.
    let path = "/topics/latest/events";
    let newest = get(&edge, protocol, path, &[]).await.json()["events"][0]["id"].clone();
    for n in 0..9 {
        edge.ask("POST", "/topics/latest?key=k", n.to_string())
            .await;
    }
    let newest = newest.as_str().expect("an id");
    let page = get(&edge, protocol, &format!("{path}?after={newest}"), &[])
        .await
        .json();
    assert_eq!(
        (page["gap"].as_str(), data(&page)),
        (Some("trimmed"), vec!["8"])
    );
    let page = edge
        .ask("GET", &format!("/topics/none/events?after={newest}"), "")
        .await
        .json();
    assert_eq!(page["gap"], Value::Null);
    // What is beside it is not there.
    assert_eq!(get(&edge, protocol, "/topics/a%2Fb", &[]).await.status, 404);
    assert_eq!(
        get(&edge, protocol, "/topics/nothing/events", &[])
            .await
            .json()["events"],
        json!([])
    );
}

async fn what_is_taken_back_is_given_to_nobody_more(protocol: Protocol) {
    let edge = with_secret("access.subscribe = [\"authenticated\", \"anonymous\"]");
    let mut live = edge.events(protocol, "topic=a&topic=b").await;
    let (_, begin) = live.edge_event("edge-open").await;
    let both = json!({ "topic": ["a", "b"], "data": "both" }).to_string();
    let id = edge.ask("POST", "/publish", both).await.json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    edge.ask("POST", "/topics/a?id=own", "own").await;
    edge.publish("a", "last").await;
    assert_eq!(live.data(3).await, ["both", "own", "last"]);
    // Named by one of its topics it goes from all of them.
    assert_eq!(
        edge.ask("DELETE", &format!("/topics/b/events/{id}"), "")
            .await
            .json()["retracted"],
        json!(id)
    );
    assert_eq!(
        edge.ask("DELETE", "/topics/a/events/own", "").await.status,
        200
    );
    let mut back = edge
        .events_after(protocol, "topic=a&topic=b", &begin)
        .await
        .opened()
        .await;
    // No gap is told of it.
    assert_eq!(back.data(1).await, ["last"]);
    for path in [
        format!("/topics/a/events/{id}"),
        "/topics/a/events/own".into(),
        "/topics/b/events/none".into(),
    ] {
        assert_eq!(edge.ask("DELETE", &path, "").await.status, 404, "{path}");
    }
    // People too: what was sent to several is gone for all of them.
    let bearer = |user: &str| {
        let mut claims = claims();
        (claims["sub"], claims["groups"]) = (json!(user), json!(["staff"]));
        format!("Bearer {}", token(&claims))
    };
    for (path, body, whose) in [
        (
            "/send",
            json!({ "users": ["bob", "ann"], "data": "1" }),
            "users/bob",
        ),
        (
            "/send",
            json!({ "groups": "staff", "data": "2" }),
            "groups/staff",
        ),
        (
            "/broadcast",
            json!({ "data": "3", "anonymous": true }),
            "broadcast",
        ),
    ] {
        let id = edge.ask("POST", path, body.to_string()).await.json()["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let answer = edge
            .ask("DELETE", &format!("/{whose}/events/{id}"), "")
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        for user in ["bob", "ann"] {
            let bearer = bearer(user);
            let mut connection = edge.connect(protocol).await;
            let fields = [
                ("authorization", bearer.as_str()),
                ("last-event-id", begin.as_str()),
            ];
            let topic = format!("{whose}/{user}");
            let mut back = Events::open(&mut connection, &format!("topic={topic}"), &fields)
                .await
                .opened()
                .await;
            edge.publish(&topic, "now").await;
            assert_eq!(back.data(1).await, ["now"], "{whose}");
        }
    }
}

/// What was sent to a group is for those who were in it then.
async fn members_who_come_go_and_come_back(protocol: Protocol) {
    let edge = TestEdge::with(&format!(
        "access.settling = \"0s\"\naccess.subscribe = [\"authenticated\", \"anonymous\"]\naccess.audience = \"seventh\"\n\
         [[access.key]]\nkid = \"h\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\""
    ));
    // Of a token without `iat` nobody knows since when it holds.
    let open = async |who: Option<(&str, &[&str])>, after: Option<&str>, more: &str| {
        let bearer = who.map(|(user, groups)| {
            let mut claims = claims();
            (claims["sub"], claims["groups"]) = (json!(user), json!(groups));
            claims.as_object_mut().expect("an object").remove("iat");
            format!("Bearer {}", token(&claims))
        });
        let mut fields = Vec::new();
        fields.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        fields.extend(after.map(|id| ("last-event-id", id)));
        let mut connection = edge.connect(protocol).await;
        let events = Events::open(&mut connection, &format!("topic=own{more}"), &fields).await;
        let mut events = events.owning(connection);
        let (_, id) = events.edge_event("edge-open").await;
        (events, id)
    };
    let gone = async || {
        let line = format!("seventh_event_streams{{protocol=\"{protocol}\"}}");
        edge.until_metric(&line, 0).await;
    };
    let send = async |groups: &str, data: &str| {
        let body = json!({ "groups": groups, "data": data }).to_string();
        edge.ask("POST", "/send", body).await;
    };
    let (visitor, begin) = open(None, None, "").await;
    drop(visitor);
    gone().await;
    send("staff", "before bob was there").await;
    // Who was nobody then is given nothing of it, and told that there was something.
    let staff: &[&str] = &["staff"];
    let (mut bob, _) = open(Some(("bob", staff)), Some(&begin), "").await;
    let (gap, _) = bob.edge_event("edge-gap").await;
    assert_eq!(
        gap,
        json!({ "reason": "audience", "missed": null, "topics": [] })
    );
    send("staff", "1").await;
    let first = bob.message().await;
    assert_eq!(first.data, "1");
    // He is cut and comes back: nothing is lost.
    drop(bob);
    gone().await;
    send("staff", "2").await;
    let (mut bob, _) = open(Some(("bob", staff)), Some(&first.id), "").await;
    assert_eq!(bob.data(1).await, ["2"]);
    // What he asks the last of is what he names.
    let (mut last, _) = open(Some(("bob", staff)), None, "&last=9").await;
    edge.publish("own", "now").await;
    assert_eq!(
        (last.data(1).await, bob.data(1).await),
        (vec!["now".to_owned()], vec!["now".to_owned()])
    );
    drop((last, bob));
    gone().await;
    // He leaves the group, and comes back to it: what was sent meanwhile is not his.
    let (bob, without) = open(Some(("bob", &[])), Some(&first.id), "").await;
    drop(bob);
    gone().await;
    send("staff", "without bob").await;
    let (mut bob, _) = open(Some(("bob", staff)), Some(&without), "").await;
    assert_eq!(bob.edge_event("edge-gap").await.0["reason"], "audience");
    assert_eq!(bob.data(1).await, ["now"]);
    send("staff", "with bob").await;
    assert_eq!(bob.data(1).await, ["with bob"]);
    drop(bob);
    gone().await;
    // Whoever the operator puts into a group was not in it before either.
    send("editors", "before").await;
    edge.ask("PUT", "/groups/editors/members/user:bob", "")
        .await;
    send("editors", "since").await;
    let (mut bob, _) = open(Some(("bob", staff)), Some(&without), "").await;
    assert_eq!(bob.edge_event("edge-gap").await.0["reason"], "audience");
    assert_eq!(bob.data(3).await, ["now", "with bob", "since"]);
    drop(bob);
    gone().await;
    // An event of a topic that is for a group only is no other, also where it is read as JSON.
    let to = json!({ "topic": "own", "data": "to sales", "to": { "groups": "sales" } });
    edge.ask("POST", "/publish", to.to_string()).await;
    let sales: &[&str] = &["sales"];
    let (mut bob, id) = open(Some(("bob", sales)), Some(&without), "").await;
    assert_eq!(bob.edge_event("edge-gap").await.0["reason"], "audience");
    assert_eq!(bob.data(2).await, ["now", "since"]);
    let again = json!({ "topic": "own", "data": "to sales again", "to": { "groups": "sales" } });
    edge.ask("POST", "/publish", again.to_string()).await;
    assert_eq!(bob.data(1).await, ["to sales again"]);
    // As one of the last of a named topic it is given too.
    let (mut last, _) = open(Some(("bob", sales)), None, "&last=1").await;
    assert_eq!(last.data(1).await, ["to sales again"]);
    drop((bob, last, id));
    gone().await;
    // And as nobody he is given nothing of all that.
    let (mut nobody, _) = open(None, Some(&first.id), "").await;
    assert_eq!(nobody.data(1).await, ["now"]);
    edge.publish("own", "end").await;
    assert_eq!(nobody.data(1).await, ["end"]);
}

/// A token that was issued before says since when.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_since_when_it_holds() {
    let edge = with_secret(
        "access.settling = \"0s\"\naccess.subscribe = [\"authenticated\", \"anonymous\"]",
    );
    let mut visitor = edge.events(Protocol::Http2, "topic=own").await;
    let (_, begin) = visitor.edge_event("edge-open").await;
    edge.ask(
        "POST",
        "/send",
        json!({ "groups": "staff", "data": "1" }).to_string(),
    )
    .await;
    let mut claims = claims();
    claims["groups"] = json!(["staff"]);
    claims["iat"] = json!(claims["exp"].as_u64().expect("a number") - 86_400);
    let bearer = format!("Bearer {}", token(&claims));
    let fields = [
        ("authorization", bearer.as_str()),
        ("last-event-id", begin.as_str()),
    ];
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut bob = Events::open(&mut connection, "topic=own", &fields)
        .await
        .opened()
        .await;
    assert_eq!(bob.data(1).await, ["1"]);
}
