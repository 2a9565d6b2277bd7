//! Which pages may read an answer (CORS): those of the origins on the list, to the letter.

use seventh::client::Protocol;

use super::send;
use crate::harness::{Events, TestEdge, every_protocol};

every_protocol!(
    origins_on_the_list_and_no_others,
    who_comes_from_any_other_site_is_nobody,
);

async fn origins_on_the_list_and_no_others(protocol: Protocol) {
    let edge =
        TestEdge::with("access.origins = [\"https://app.example\", \"http://localhost:3000\"]");
    let mut connection = edge.connect(protocol).await;
    for (origin, listed) in [
        ("https://app.example", true),
        ("http://localhost:3000", true),
        ("null", false),
        ("https://APP.example", false),
        ("https://app.example:443", false),
        ("https://app.example.evil", false),
        ("https://evil-app.example", false),
        ("http://app.example", false),
    ] {
        for (method, status) in [("HEAD", 200), ("OPTIONS", 204), ("POST", 405)] {
            let fields = [("origin", origin)];
            let answer = send(&mut connection, method, "/events?topic=a", &fields, "").await;
            assert_eq!(answer.status.as_u16(), status);
            assert_eq!(answer.header("vary"), "Origin");
            let (allowed, credentials) = if listed { (origin, "true") } else { ("", "") };
            assert_eq!(
                answer.header("access-control-allow-origin"),
                allowed,
                "{method} {origin}"
            );
            assert_eq!(
                answer.header("access-control-allow-credentials"),
                credentials,
                "{method} {origin}"
            );
            let preflight = listed && method == "OPTIONS";
            assert_eq!(
                answer.headers.contains_key("access-control-allow-headers"),
                preflight
            );
        }
    }
}

/// A public scoreboard: whatever a page of another site brings along says nothing.
async fn who_comes_from_any_other_site_is_nobody(protocol: Protocol) {
    let edge = TestEdge::with(&format!(
        "access.origins = [\"*\", \"https://app.example\"]\n\
         access.subscribe = [\"authenticated\", \"anonymous\"]\n\
         access.audience = \"seventh\"\n[[access.key]]\nalgorithm = \"HS256\"\nkid = \"h\"\nsecret = \"{}\"",
        super::SECRET
    ));
    let token = super::token(&super::claims());
    let bearer = format!("Bearer {token}");
    let own = format!("https://localhost:{}", edge.https.port());
    for (origin, allowed, user) in [
        ("https://other.example", "*", serde_json::Value::Null),
        ("null", "*", serde_json::Value::Null),
        ("https://app.example", "https://app.example", "bob".into()),
        (own.as_str(), "*", "bob".into()),
    ] {
        for token in [bearer.as_str(), "Bearer of.nobody.atall"] {
            let fields = [("origin", origin), ("authorization", token)];
            let mut connection = edge.connect(protocol).await;
            if token != bearer && !user.is_null() {
                let answer = send(&mut connection, "GET", "/events?topic=a", &fields, "").await;
                assert_eq!(answer.status, 401, "{origin}");
                continue;
            }
            let events = Events::open(&mut connection, "topic=a", &fields).await;
            let headers = &events.response.headers;
            assert_eq!(headers["access-control-allow-origin"], allowed);
            let _events = events.opened().await;
            let open = edge.ask("GET", "/streams", "").await.json();
            let last = open["streams"]
                .as_array()
                .and_then(|s| s.last())
                .expect("one");
            assert_eq!(last["user"], user, "{origin}");
        }
    }
    // What an old reader sends is allowed: it asks first.
    let asked = [
        ("origin", "https://other.example"),
        ("access-control-request-method", "GET"),
        (
            "access-control-request-headers",
            "cache-control,last-event-id,x-requested-with",
        ),
    ];
    let mut connection = edge.connect(protocol).await;
    let answer = send(&mut connection, "OPTIONS", "/events", &asked, "").await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let allowed = answer.header("access-control-allow-headers");
    for name in ["cache-control", "last-event-id", "x-requested-with"] {
        assert!(allowed.split(", ").any(|known| known == name), "{name}");
    }
}
