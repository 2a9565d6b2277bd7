//! Which pages may read an answer (CORS): those of the origins on the list, to the letter.

use serde_json::json;
use seventh::client::Protocol;

use super::send;
use crate::{
    app::App,
    harness::{Events, TestEdge, every_protocol},
};

every_protocol!(
    origins_on_the_list_and_no_others,
    who_comes_from_any_other_site_is_nobody,
    a_page_of_another_site_is_sent_away_before_anyone_is_asked,
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
        // One that is not on the list is told so before anything else.
        let read = if listed { 200 } else { 403 };
        for (method, status) in [("HEAD", read), ("OPTIONS", 204), ("POST", 405)] {
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

async fn a_page_of_another_site_is_sent_away_before_anyone_is_asked(protocol: Protocol) {
    let app = App::start().await;
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let edge = TestEdge::with(&format!(
        "access.session = \"http://{}/session\"\naccess.origins = [\"https://app.example\"]\n\
         access.publish = [\"a-key-for-publishers\"]",
        app.address
    ));
    let own = format!("https://localhost:{}", edge.https.port());
    let mut connection = edge.connect(protocol).await;
    let cookie = ("cookie", "sid=1");
    for fields in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "iframe"),
        ],
        &[
            ("sec-fetch-site", "same-site"),
            ("origin", "https://sibling.example"),
        ],
        &[("origin", own.as_str()), ("origin", "https://evil.example")],
    ] {
        for (method, path) in [
            ("GET", "/events?topic=a"),
            ("HEAD", "/events?topic=a"),
            ("POST", "/topics/a"),
        ] {
            let fields = [fields, &[cookie]].concat();
            let answer = send(&mut connection, method, path, &fields, "").await;
            assert_eq!(answer.status, 403, "{method} {fields:?}");
            if method != "HEAD" {
                assert_eq!(answer.json()["code"], "origin-foreign");
            }
        }
    }
    assert_eq!(app.asked().0, 0);
    // Pages of its own, of those on the list, what is no page, and whoever follows a link.
    for fields in [
        &[("origin", own.as_str())][..],
        &[("origin", "https://app.example")],
        &[
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://front.example"),
        ],
        &[],
        &[
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ],
    ] {
        let fields = [fields, &[cookie]].concat();
        let answer = send(&mut connection, "HEAD", "/events?topic=a", &fields, "").await;
        assert_eq!(answer.status, 200, "{fields:?}");
    }
    // Whoever asks first is told what may be sent, and the answers may be read.
    let asked = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization,content-type,idempotency-key",
        ),
    ];
    let answer = send(&mut connection, "OPTIONS", "/publish", &asked, "").await;
    assert_eq!(answer.status, 204);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert_eq!(answer.header("access-control-allow-methods"), "POST");
    let allowed = answer.header("access-control-allow-headers");
    assert_eq!(allowed, "authorization, content-type, idempotency-key");
    for (key, status) in [
        ("a-key-for-publishers", 200),
        ("another-key-than-that", 401),
    ] {
        let bearer = format!("Bearer {key}");
        let fields = [
            ("origin", "https://app.example"),
            ("authorization", bearer.as_str()),
        ];
        let body = json!({ "topic": "a", "data": 1 }).to_string();
        let answer = send(&mut connection, "POST", "/publish", &fields, body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "https://app.example"
        );
        assert_eq!(answer.header("vary"), "Origin");
    }
    let stranger = [("origin", "https://evil.example"), asked[1], asked[2]];
    let answer = send(&mut connection, "OPTIONS", "/publish", &stranger, "").await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}
