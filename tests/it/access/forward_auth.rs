//! The app says who someone is (forward auth): it is asked with the very request, believed, not
//! asked more than needed, and an app that is down or talks nonsense lets nobody in as someone.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::json;
use seventh::{
    client::{Connection, Protocol},
    sse::Item,
};

use super::{get, head};
use crate::{
    app::App,
    harness::{Answer, Events, TestEdge, every_protocol, patiently},
};

every_protocol!(
    the_app_says_who_someone_is,
    who_is_logged_out_is_not_there_for_long
);

/// An edge that asks the app's session endpoint.
fn edge_that_asks(app: &App, more: &str) -> TestEdge {
    TestEdge::with(&format!(
        "access.session = \"http://{}/session\"\n{more}",
        app.address
    ))
}

/// Asks for the last event of a topic that has a blank in its name.
async fn poll(connection: &mut Connection, cookie: Option<&str>) -> Answer {
    let mut fields = vec![("accept", "text/event-stream")];
    fields.extend(cookie.map(|cookie| ("cookie", cookie)));
    get(connection, "/events?topic=a%20b&poll=1&last=1", &fields).await
}

async fn the_app_says_who_someone_is(protocol: Protocol) {
    let app = App::start().await;
    let edge = edge_that_asks(
        &app,
        "access.session_cache = \"0s\"\naccess.session_timeout = \"3s\"\n\
         access.subscribe = [\"authenticated\", \"anonymous\"]\nevents.retry = \"500ms\"",
    );
    let mut connection = edge.connect(protocol).await;
    edge.publish("a%20b", "news").await;
    app.answer(
        "200 OK",
        "Remote-User: bob\r\nRemote-Groups: editors, sales\r\n",
        "",
    );
    assert!(
        poll(&mut edge.connect(protocol).await, Some("sid=1; x=2"))
            .await
            .text
            .contains("news")
    );
    let asked = app.last_request();
    assert!(asked.starts_with("GET /session HTTP/1.1\r\n"), "{asked}");
    for field in [
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: https",
        "cookie: sid=1; x=2",
        "x-forwarded-uri: /events?topic=a%20b&poll=1&last=1",
        "x-forwarded-method: GET",
    ] {
        assert!(
            asked.to_lowercase().contains(&field.to_lowercase()),
            "{field}: {asked}"
        );
    }
    // Browsers split what they send over HTTP/2 and HTTP/3; the app reads one field.
    let split = [("cookie", "theme=dark"), ("cookie", "sid=1")];
    let path = "/events?topic=a%20b&poll=1&last=1";
    assert_eq!(head(&mut connection, path, &split).await, 200);
    let asked = app.last_request().to_lowercase();
    assert!(asked.contains("cookie: theme=dark; sid=1\r\n"), "{asked}");
    // What its answer has for a body does not matter, nor how much of it there is.
    let page = "x".repeat(200 << 10);
    app.answer("200 OK", "Remote-User: bob\r\n", &page);
    assert!(
        poll(&mut edge.connect(protocol).await, Some("sid=1"))
            .await
            .text
            .contains("news")
    );
    // Whoever shows nothing is not asked about.
    app.forget();
    assert!(
        poll(&mut edge.connect(protocol).await, None)
            .await
            .text
            .contains("news")
    );
    assert_eq!(app.last_request(), "");
    for (status, headers, body, expected, says) in [
        ("200 OK", "", "", 200, "news"),
        ("200 OK", "Remote-User: \r\n", "<h1>Hello</h1>", 200, "news"),
        // A page that says nothing of who it is for is no answer to the question.
        (
            "200 OK",
            "Content-Type: text/html\r\n",
            "<h1>Error</h1>",
            200,
            "unavailable",
        ),
        ("401 Unauthorized", "", "", 401, "not good"),
        ("403 Forbidden", "", "", 401, "not good"),
        (
            "302 Found",
            "Location: /login?next=/session\r\nRemote-User: bob\r\n",
            "",
            200,
            "news",
        ),
        (
            "301 Moved Permanently",
            "Location: https://app.example/session\r\n",
            "",
            200,
            "unavailable",
        ),
        (
            "500 Internal Server Error",
            "Remote-User: bob\r\n",
            "",
            200,
            "unavailable",
        ),
        (
            "200 OK",
            "Remote-User: bob\r\nRemote-User: eve\r\n",
            "",
            200,
            "unavailable",
        ),
        (
            "200 OK",
            "Remote-User: bob\r\nRemote-Groups: a\u{1},b\r\n",
            "",
            200,
            "unavailable",
        ),
        ("nonsense", "", "", 200, "unavailable"),
        ("slow", "", "", 200, "unavailable"),
        ("200 OK", "Remote-User: bob\r\n", "", 200, "news"),
    ] {
        app.answer(status, headers, body);
        let answer = poll(&mut edge.connect(protocol).await, Some("sid=1")).await;
        assert_eq!(
            answer.status.as_u16(),
            expected,
            "{status}: {}",
            answer.text
        );
        assert!(
            answer.text.contains(says),
            "{status} {headers}: {}",
            answer.text
        );
        if says == "unavailable" {
            assert!(
                answer.text.contains("retry: ") && !answer.text.contains("edge-open"),
                "{}",
                answer.text
            );
        }
    }
    // Down altogether, and up again.
    let address = app.address;
    app.stop().await;
    assert!(
        poll(&mut connection, Some("sid=1"))
            .await
            .text
            .contains("unavailable")
    );
    let app = App::at(address).await;
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    assert!(
        poll(&mut connection, Some("sid=1"))
            .await
            .text
            .contains("news")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apps_answer_is_remembered_for_the_very_same_credentials() {
    let app = App::start().await;
    let edge = edge_that_asks(&app, "");
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut ask =
        async |cookie: &str| head(&mut connection, "/events?topic=a", &[("cookie", cookie)]).await;
    assert_eq!(ask("sid=1").await, StatusCode::OK);
    app.answer("401 Unauthorized", "", "");
    app.forget();
    assert_eq!(ask("sid=1").await, StatusCode::OK);
    assert_eq!(app.last_request(), "", "it is remembered");
    assert_eq!(ask("sid=2").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_disconnected_is_asked_about_anew() {
    let app = App::start().await;
    let edge = edge_that_asks(&app, "events.retry = \"500ms\"");
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let mut connection = edge.connect(Protocol::Http2).await;
    let headers = [("cookie", "sid=1")];
    let mut bob = Events::open(&mut connection, "topic=a", &headers)
        .await
        .opened()
        .await;
    // The app logs bob out, and says so to the edge.
    app.answer("401 Unauthorized", "", "");
    let ended = edge.ask("POST", "/users/bob/disconnect", "").await.json();
    assert_eq!(ended, json!({"streams": 1}));
    while bob.item().await.is_some() {}
    let answer = get(&mut connection, "/events?topic=a", &headers).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_app_says_of_one_request_is_not_said_of_another() {
    let app = App::start().await;
    let edge = edge_that_asks(&app, "access.session_by_uri = true");
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut ask = async |topic: &str| {
        let path = format!("/events?topic={topic}");
        head(&mut connection, &path, &[("cookie", "sid=1")]).await
    };
    assert_eq!(ask("public").await, StatusCode::OK);
    app.answer("403 Forbidden", "", "");
    assert_eq!(ask("public").await, StatusCode::OK, "it is remembered");
    assert_eq!(ask("secret").await, StatusCode::UNAUTHORIZED);
    // The time of each question is counted, and each refusal by what it is.
    assert_eq!(edge.metric("seventh_session_seconds_count").await, 2);
    let refused = "seventh_refused_total{reason=\"token-invalid\"}";
    assert_eq!(edge.metric(refused).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_many_streams_is_asked_about_once() {
    const STREAMS: usize = 200;
    let app = App::start().await;
    let edge = edge_that_asks(&app, "access.session_cache = \"1h\"");
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    app.take(Duration::from_millis(50));
    for protocol in [Protocol::Http2, Protocol::Http3] {
        app.forget();
        // Another credential than before, of whom nothing is remembered.
        let cookie = format!("sid={protocol:?}");
        let connection = edge.connect(protocol).await;
        let opening = (0..STREAMS).map(|n| {
            let (mut connection, cookie) = (connection.share().expect("it is"), cookie.clone());
            async move {
                let fields = [("cookie", cookie.as_str())];
                let query = format!("topic=a/{n}");
                let events = Events::open(&mut connection, &query, &fields).await;
                events.opened().await
            }
        });
        let opened = patiently("all streams", join_all(opening)).await;
        assert_eq!(app.asked(), (1, 1), "{protocol:?}");
        drop(opened);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_comes_back_is_let_in() {
    const USERS: usize = 500;
    let app = App::start().await;
    let edge = edge_that_asks(&app, "access.session_cache = \"1h\"");
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    app.take(Duration::from_millis(50));
    let coming = (0..USERS).map(|user| {
        let edge = &edge;
        async move {
            let mut connection = edge.connect(Protocol::Http2).await;
            let cookie = format!("sid={user}");
            let (one, two) = ("/events?topic=a", "/events?topic=b");
            let fields = [("cookie", cookie.as_str())];
            for path in [one, two] {
                assert_eq!(head(&mut connection, path, &fields).await, StatusCode::OK);
            }
        }
    });
    patiently("all of them", join_all(coming)).await;
    let (asked, at_a_time) = app.asked();
    assert_eq!(asked, USERS);
    assert!(at_a_time <= 64, "{at_a_time} at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_makes_up_cookies_shuts_nobody_out() {
    let app = App::start().await;
    let edge = edge_that_asks(
        &app,
        "trusted.networks = [\"127.0.0.1\"]\naccess.session_timeout = \"60s\"",
    );
    app.answer("401 Unauthorized", "", "");
    // None of these is answered while this test runs.
    app.take(Duration::from_secs(50));
    let ask = async |cookie: &str, from: &str| {
        let fields = [("cookie", cookie), ("x-forwarded-for", from)];
        head(
            &mut edge.connect(Protocol::Http2).await,
            "/events?topic=a",
            &fields,
        )
        .await
    };
    let made_up: Vec<String> = (0..200).map(|n| format!("sid=made-up-{n}")).collect();
    let eve = made_up.iter().map(|cookie| ask(cookie, "203.0.113.1"));
    let eve = join_all(eve);
    let bob = async {
        while app.asked().1 < 50 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        app.take(Duration::ZERO);
        app.answer("200 OK", "Remote-User: bob\r\n", "");
        let status = ask("sid=bob", "203.0.113.2").await;
        assert_eq!(status, StatusCode::OK);
        assert!(app.asked().0 <= 51, "{} were asked about", app.asked().0);
    };
    tokio::select! {
        () = patiently("bob is let in", bob) => {}
        _ = eve => unreachable!("she waits"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_cookies_that_are_named_say_who_someone_is() {
    let app = App::start().await;
    let edge = edge_that_asks(
        &app,
        "access.session_cookies = [\"sid\"]\naccess.session_cache = \"1h\"",
    );
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut ask = async |cookie: &str| {
        let fields = [("cookie", cookie)];
        head(&mut connection, "/events?topic=a", &fields).await
    };
    assert_eq!(ask("_ga=1; sid=1; theme=dark").await, StatusCode::OK);
    let asked = app.last_request();
    assert!(asked.contains("cookie: sid=1\r\n"), "{asked}");
    assert_eq!(ask("_ga=2; sid=1").await, StatusCode::OK);
    assert_eq!(app.asked().0, 1);
    // Nothing that counts: the app is not asked, and only others may come.
    assert_eq!(ask("_ga=3").await, StatusCode::UNAUTHORIZED);
    assert_eq!(app.asked().0, 1);
    assert_eq!(ask("sid=2").await, StatusCode::OK);
    assert_eq!(app.asked().0, 2);
}

async fn who_is_logged_out_is_not_there_for_long(protocol: Protocol) {
    let app = App::start().await;
    let edge = edge_that_asks(
        &app,
        "access.session_recheck = \"1s\"\naccess.session_cache = \"0s\"",
    );
    const BOB: &str = "Remote-User: bob\r\nRemote-Groups: sales\r\n";
    app.answer("200 OK", BOB, "");
    let mut connection = edge.connect(protocol).await;
    let mut bob = Events::open(&mut connection, "topic=a", &[("cookie", "sid=1")]).await;
    let (open, _) = bob.edge_event("edge-open").await;
    assert_eq!(open["user"], "bob");
    assert_eq!(open["authenticated"], true);
    // Two more questions: the answer to the first has been read then.
    let asked_again = async || {
        let so_far = app.asked().0;
        app.until_asked(so_far + 2).await;
    };
    // The same again, and an app that is down, end nothing.
    asked_again().await;
    edge.publish("a", "still there").await;
    assert_eq!(bob.message().await.data, "still there");
    drop(bob);
    connection = edge.connect(protocol).await;
    // Other groups are another answer, as is none at all.
    for (status, fields) in [
        ("200 OK", "Remote-User: bob\r\nRemote-Groups: editors\r\n"),
        ("200 OK", ""),
        ("302 Found", "Location: /login\r\n"),
        ("401 Unauthorized", ""),
    ] {
        app.answer("200 OK", BOB, "");
        let bob = Events::open(&mut connection, "topic=a", &[("cookie", "sid=1")]).await;
        let mut bob = bob.opened().await;
        app.answer(status, fields, "");
        let (data, _) = bob.edge_event("edge-auth").await;
        assert_eq!(data, json!({ "reason": "changed" }), "{status}");
        assert!(bob.item().await.is_none(), "{status}: it ends");
        if protocol == Protocol::Http1 {
            connection = edge.connect(protocol).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_says_how_long_a_session_lasts_and_what_may_be_read() {
    let app = App::start().await;
    let edge = edge_that_asks(&app, "access.expiry_notice = \"10s\"");
    let mut connection = edge.connect(Protocol::Http2).await;
    app.answer(
        "200 OK",
        "Remote-User: bob\r\nRemote-Expires: 2\r\nRemote-Topics: orders/*\r\n",
        "",
    );
    let fields = [("cookie", "sid=1")];
    let bob = Events::open(&mut connection, "topic=orders/1", &fields).await;
    let mut bob = bob.opened().await;
    let (data, _) = bob.edge_event("edge-auth").await;
    assert_eq!(data["reason"], "expiring");
    // It says when to come back, and ends.
    assert!(matches!(bob.item().await, Some(Item::Retry(_))));
    assert_eq!(bob.item().await, None);
    let answer = get(&mut connection, "/events?topic=news", &fields).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_down_ends_nothing() {
    let app = App::start().await;
    let edge = edge_that_asks(&app, "access.session_recheck = \"1s\"");
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut bob = Events::open(&mut connection, "topic=a", &[("cookie", "sid=1")])
        .await
        .opened()
        .await;
    app.answer("503 Service Unavailable", "", "");
    let so_far = app.asked().0;
    app.until_asked(so_far + 2).await;
    edge.publish("a", "still there").await;
    assert_eq!(bob.message().await.data, "still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_one_request_holds_for_the_streams_before_it() {
    let app = App::start().await;
    // They are not asked about again while this test runs.
    let edge = edge_that_asks(
        &app,
        "access.session_recheck = \"1h\"\naccess.session_cache = \"0s\"",
    );
    let fields = [("cookie", "sid=1")];
    for (status, headers) in [
        ("401 Unauthorized", ""),
        ("200 OK", "Remote-User: eve\r\n"),
        ("200 OK", "Remote-User: bob\r\nRemote-Expires: 3600\r\n"),
        ("302 Found", "Location: /login\r\n"),
    ] {
        let mut connection = edge.connect(Protocol::Http2).await;
        app.answer("200 OK", "Remote-User: bob\r\n", "");
        let bob = Events::open(&mut connection, "topic=a", &fields).await;
        let mut bob = bob.opened().await;
        // He logs out, and another tab of his comes.
        app.answer(status, headers, "");
        head(&mut connection, "/events?topic=b", &fields).await;
        let (data, _) = bob.edge_event("edge-auth").await;
        assert_eq!(data, json!({ "reason": "changed" }), "{status}");
        assert_eq!(bob.item().await, None, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_outlives_no_answer_that_is_remembered_or_on_its_way() {
    let app = App::start().await;
    let edge = edge_that_asks(
        &app,
        "access.session_cache = \"1h\"\nevents.retry = \"500ms\"",
    );
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let fields = [("cookie", "sid=1")];
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut ask = async || head(&mut connection, "/events?topic=a", &fields).await;
    assert_eq!(ask().await, StatusCode::OK);
    edge.ask("POST", "/users/bob/disconnect", "").await;
    // What is said then is remembered for as long as it is good, not as what was before it.
    app.answer("401 Unauthorized", "", "");
    assert_eq!(ask().await, StatusCode::UNAUTHORIZED);
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    patiently("another answer", async {
        while ask().await != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // One that comes while the app is asked gets an end, and nothing of it is remembered.
    app.take(Duration::from_millis(500));
    app.forget();
    let other = [("cookie", "sid=2")];
    let mut opening = edge.connect(Protocol::Http2).await;
    let opening = tokio::spawn(async move {
        let mut stream = Events::open(&mut opening, "topic=a", &other).await;
        while stream.item().await.is_some() {}
        (opening, stream)
    });
    app.until_asked(1).await;
    edge.ask("POST", "/users/bob/disconnect", "").await;
    patiently("its end", opening).await.expect("no panic");
    app.answer("401 Unauthorized", "", "");
    let mut connection = edge.connect(Protocol::Http2).await;
    let status = head(&mut connection, "/events?topic=a", &other).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_takes_no_question_along() {
    let app = App::start().await;
    let edge = edge_that_asks(&app, "access.session_timeout = \"60s\"");
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    app.take(Duration::from_secs(3));
    // More than two hundred of them come with one cookie, and leave while the app works.
    for _ in 0..3 {
        let connection = edge.connect(Protocol::Http2).await;
        let asking = (0..80).map(|_| {
            let mut connection = connection.share().expect("it is");
            async move {
                let fields = [("cookie", "sid=1")];
                head(&mut connection, "/events?topic=a", &fields).await
            }
        });
        tokio::select! {
            () = app.until_asked(1) => {}
            _ = join_all(asking) => unreachable!("the app takes longer"),
        }
    }
    let mut connection = edge.connect(Protocol::Http2).await;
    let status = head(&mut connection, "/events?topic=a", &[("cookie", "sid=1")]).await;
    assert_eq!((status, app.asked().0), (StatusCode::OK, 1));
    assert_eq!(edge.metric("seventh_panics_total").await, 0);
}
