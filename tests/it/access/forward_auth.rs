//! The app says who someone is (forward auth): it is asked with the very request, believed, not
//! asked more than needed, and an app that is down or talks nonsense lets nobody in as someone.

use http::StatusCode;
use serde_json::json;
use seventh::client::{Connection, Protocol};

use super::{get, head};
use crate::{
    app::App,
    harness::{Answer, Events, TestEdge, every_protocol},
};

every_protocol!(the_app_says_who_someone_is);

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
        "access.session_cache = \"0s\"\naccess.session_timeout = \"300ms\"\n\
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
        (
            "200 OK",
            "Content-Type: text/html\r\n",
            "<h1>Error</h1>",
            200,
            "news",
        ),
        ("401 Unauthorized", "", "", 401, "not good"),
        ("403 Forbidden", "", "", 401, "not good"),
        (
            "302 Found",
            "Location: /login\r\nRemote-User: bob\r\n",
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
    let edge = edge_that_asks(&app, "");
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
}
