//! The private listener: what it tells, and whom it keeps out.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use http::{Request, StatusCode};
use serde_json::json;
use seventh::{
    client::{Connection, Origin, Protocol, Trust, full},
    config::Config,
    edge::Edge,
};

use crate::harness::{Answer, TestEdge, patiently};

#[tokio::test]
async fn topics_are_listed_shown_and_deleted() {
    let edge = TestEdge::start();
    let id = edge.publish_id("b", "1").await;
    edge.ask("POST", "/topics/b?id=own", "2").await;
    edge.publish("c%20d", "1").await;
    let _events = edge
        .events(Protocol::Http2, "topic=a&topic=b")
        .await
        .opened()
        .await;

    let page = edge.ask("GET", "/topics?limit=2", "").await.json();
    assert_eq!(page["next"], "b");
    assert_eq!(
        (
            &page["topics"][0]["topic"],
            &page["topics"][0]["subscribers"]
        ),
        (&json!("a"), &json!(1))
    );
    let b = &page["topics"][1];
    assert_eq!(
        (&b["events"], &b["oldest"], &b["newest"]),
        (&json!(2), &json!(id), &json!("own"))
    );
    assert!(b["bytes"].as_u64() > Some(20));
    let page = edge.ask("GET", "/topics?after=b", "").await.json();
    assert_eq!(
        (&page["topics"][0]["topic"], &page["next"]),
        (&json!("c d"), &json!(null))
    );

    assert_eq!(edge.ask("GET", "/topics/b", "").await.json(), *b);
    assert_eq!(
        edge.ask("DELETE", "/topics/c%20d", "").await.json(),
        json!({"deleted": 1})
    );
    assert_eq!(
        edge.ask("GET", "/topics/c%20d", "").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        edge.ask("DELETE", "/topics/c%20d", "").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        edge.ask("GET", "/topics?limit=0", "").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        edge.ask("PUT", "/topics/b", "").await.header("allow"),
        "GET, HEAD, POST, DELETE"
    );
}

#[tokio::test]
async fn a_topic_that_nobody_reads_or_wrote_to_is_forgotten() {
    let edge = TestEdge::start();
    let events = edge.events(Protocol::Http2, "topic=a").await.opened().await;
    assert_eq!(edge.subscribers("a").await, 1);
    drop(events);
    edge.until_metric("seventh_event_streams{protocol=\"h2\"}", 0)
        .await;
    assert_eq!(
        edge.ask("GET", "/topics", "").await.json()["topics"],
        json!([])
    );
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let edge = TestEdge::start();
    assert_eq!(edge.ask("GET", "/healthz", "").await.text, "ok\n");
    assert_eq!(edge.ask("GET", "/readyz", "").await.text, "ready\n");
    let metrics = edge.ask("GET", "/metrics", "").await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    for name in [
        "connections",
        "event_streams",
        "events_published_total",
        "events_delivered_total",
        "replays_total",
        "keepalives_total",
    ] {
        assert!(
            metrics.text.contains(&format!("\nseventh_{name}")),
            "{name}"
        );
    }
    assert_eq!(
        edge.ask("POST", "/metrics", "").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(edge.ask("GET", "/", "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn web_pages_cannot_reach_it() {
    let edge = TestEdge::start();
    let port = edge.control.port();
    let own = format!("localhost:{port}");
    let address = format!("127.0.0.1:{port}");
    let page = format!("http://{own}");
    for (host, name, value, allowed) in [
        (own.as_str(), "accept", "*/*", true),
        (&address, "accept", "*/*", true),
        (&own.to_uppercase(), "accept", "*/*", true),
        (&own, "origin", &page, true),
        (&own, "sec-fetch-site", "same-origin", true),
        (&own, "sec-fetch-site", "none", true),
        // DNS rebinding: the page's own name leads here.
        ("evil.example", "accept", "*/*", false),
        (&format!("evil.example:{port}"), "accept", "*/*", false),
        ("localhost", "accept", "*/*", false),
        ("localhost:1", "accept", "*/*", false),
        (&format!("localhost.:{port}"), "accept", "*/*", false),
        // Cross-site posts.
        (&own, "origin", "https://evil.example", false),
        (&own, "origin", "null", false),
        (&own, "origin", &format!("https://{own}"), false),
        (
            &own,
            "origin",
            &format!("http://localhost:{}", port ^ 1),
            false,
        ),
        (&own, "sec-fetch-site", "cross-site", false),
        (&own, "sec-fetch-site", "same-site", false),
    ] {
        let mut connection = edge.control(Protocol::Http1).await;
        let request = Request::post("/topics/a")
            .header("host", host)
            .header(name, value)
            .body(full("x"));
        let answer = Answer::of(&mut connection, request.expect("a request")).await;
        let expected = if allowed {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        };
        assert_eq!(
            answer.status, expected,
            "{host} {name}: {value}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_token_is_asked_for_when_there_is_one() {
    let edge = TestEdge::with("control.token = \"correct-horse-battery\"");
    let token = "correct-horse-battery";
    for (given, status) in [
        (None, 401),
        (Some("Bearer wrong".to_owned()), 401),
        (Some(format!("Bearer {token}x")), 401),
        (Some(format!("Basic {token}")), 401),
        (Some(token.to_owned()), 401),
        (Some(format!("Bearer {token}")), 200),
        (Some(format!("bearer {token}")), 200),
    ] {
        let mut connection = edge.control(Protocol::Http1).await;
        let mut request = Request::get("/topics");
        if let Some(given) = &given {
            request = request.header("authorization", given);
        }
        let answer = Answer::of(&mut connection, request.body(full("")).expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{given:?}");
        assert!(!answer.text.contains("horse"));
    }
    // Probes need none.
    assert_eq!(edge.ask("GET", "/readyz", "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_second_token_reads_metrics_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "correct-horse-battery\n").expect("it is written");
    let edge = TestEdge::with(&format!(
        "control.token_file = \"{}\"\ncontrol.metrics_token = \"only-for-the-metrics\"",
        file.display()
    ));
    for (token, method, path, status) in [
        ("only-for-the-metrics", "GET", "/metrics", 200),
        ("only-for-the-metrics", "GET", "/topics", 401),
        ("only-for-the-metrics", "GET", "/streams", 401),
        ("only-for-the-metrics", "POST", "/topics/a", 401),
        ("correct-horse-battery", "GET", "/metrics", 200),
        ("correct-horse-battery", "GET", "/topics", 200),
        ("neither-of-the-two-here", "GET", "/metrics", 401),
    ] {
        let mut connection = edge.control(Protocol::Http1).await;
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {token}"));
        let request = request.body(full("")).expect("a request");
        let answer = Answer::of(&mut connection, request).await;
        assert_eq!(answer.status.as_u16(), status, "{token} {path}");
        let challenge = answer.header("www-authenticate");
        let expected = if status == 401 {
            "Bearer error=\"invalid_token\""
        } else {
            ""
        };
        assert_eq!(challenge, expected);
    }
}

/// Whatever is asked for, and over both protocols: the gate comes first.
#[tokio::test(flavor = "multi_thread")]
async fn the_gate_stands_before_everything() {
    let edge = TestEdge::with("control.token = \"correct-horse-battery\"");
    let document: serde_json::Value =
        serde_json::from_str(include_str!("../../docs/openapi.json")).expect("JSON");
    let own = format!("localhost:{}", edge.control.port());
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().expect("an object") {
        let path = path.replace(['{', '}'], "");
        for (method, operation) in methods.as_object().expect("an object") {
            let listeners = operation["x-listeners"].as_array().expect("a list");
            if !listeners.iter().any(|listener| listener == "control") {
                continue;
            }
            let is_probe = ["/healthz", "/readyz"].contains(&path.as_str());
            for protocol in [Protocol::Http1, Protocol::Http2] {
                for (host, name, value, status, code) in [
                    (
                        own.as_str(),
                        "accept",
                        "*/*",
                        if is_probe { 200 } else { 401 },
                        "token-missing",
                    ),
                    (
                        &own,
                        "authorization",
                        "Bearer wrong-horse-battery",
                        if is_probe { 200 } else { 401 },
                        "token-invalid",
                    ),
                    (
                        &own,
                        "origin",
                        "https://evil.example",
                        403,
                        "origin-foreign",
                    ),
                    (&own, "sec-fetch-site", "cross-site", 403, "origin-foreign"),
                    (
                        "evil.example",
                        "authorization",
                        "Bearer correct-horse-battery",
                        403,
                        "host-unknown",
                    ),
                ] {
                    let url = format!("http://{host}/").parse().expect("a URL");
                    let mut target = Origin::of(&url, Trust::System).expect("a target");
                    target.address = Some(edge.control);
                    let connected = Connection::open(&target, protocol).await;
                    let mut connection = connected.expect("it connects");
                    let request = Request::builder().method(method.to_uppercase().as_str());
                    let request = request.uri(&path);
                    let request = request
                        .header(name, value)
                        .body(full("{}"))
                        .expect("a request");
                    let answer = Answer::of(&mut connection, request).await;
                    assert_eq!(
                        answer.status.as_u16(),
                        status,
                        "{protocol} {method} {path} {name}: {value}"
                    );
                    if status != 200 {
                        assert_eq!(answer.json()["code"], code, "{method} {path}");
                    }
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 250, "{asked}");
}

#[tokio::test]
async fn it_goes_by_the_names_it_is_given() {
    let edge = TestEdge::with("control.hosts = [\"seventh\", \"edge.internal:81\"]");
    let port = edge.control.port();
    for (host, status) in [
        ("seventh".to_owned(), 200),
        (format!("Seventh:{port}"), 200),
        ("edge.internal:81".to_owned(), 200),
        (format!("localhost:{port}"), 200),
        ("edge.internal".to_owned(), 403),
        ("seventh.evil.example".to_owned(), 403),
        ("evil.example".to_owned(), 403),
    ] {
        let mut connection = edge.control(Protocol::Http1).await;
        let request = Request::get("/topics").header("host", &host);
        let request = request.body(full("")).expect("a request");
        let answer = Answer::of(&mut connection, request).await;
        assert_eq!(answer.status.as_u16(), status, "{host}");
        if status == 403 {
            assert_eq!(answer.json()["code"], "host-unknown");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_may_be_a_socket_in_the_file_system() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.sock");
    let with = |mode: &str| {
        format!(
            "https.listen = [\"127.0.0.1:0\"]\ncontrol.listen = \"unix:{}\"\ncontrol.socket_mode = \"{mode}\"\n\
             tls.directory = \"{}\"",
            path.display(),
            folder.path().display()
        )
    };
    let start = |mode: &str| Edge::start(&Config::from_text(&with(mode)).expect("it is right"));
    let mode = || {
        std::fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };
    let edge = start("0660").expect("it starts");
    assert_eq!(mode(), 0o660);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let target = Origin::of_socket(path.clone());
        let mut connection = Connection::open(&target, protocol)
            .await
            .expect("it connects");
        let request = Request::post("/topics/a")
            .body(full("hello"))
            .expect("a request");
        let answer = Answer::of(&mut connection, request).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    // A second one says so, and leaves the first alone.
    let error = start("0600").expect_err("it is taken").to_string();
    assert!(
        error.contains("control.listen") && error.contains("another program listens there"),
        "{error}"
    );
    drop(edge);
    patiently("its end", async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // What another has put there meanwhile is its own.
    let edge = start("0600").expect("it starts");
    std::fs::remove_file(&path).expect("it is there");
    let other = std::os::unix::net::UnixListener::bind(&path).expect("it is bound");
    patiently("the drain", edge.drain()).await;
    assert!(path.exists());
    drop(other);
    // One that was left by a life before is replaced.
    let edge = start("0600").expect("it starts");
    assert_eq!(mode(), 0o600);
    patiently("the drain", edge.drain()).await;
    assert!(!path.exists());
    // What is no socket is not touched.
    std::fs::write(&path, "something of somebody's").expect("it is written");
    let error = start("0600").expect_err("something is there").to_string();
    assert!(
        error.contains("something that is no socket stands there"),
        "{error}"
    );
    assert!(path.exists());
}

#[test]
fn it_is_not_bound_beyond_loopback_by_accident() {
    for text in [
        "control.listen = \"0.0.0.0:0\"",
        "control.listen = \"0.0.0.0:0\"\ncontrol.allow_remote = true",
    ] {
        let error = Config::from_text(text)
            .expect_err("it is refused")
            .to_string();
        assert!(
            error.contains("control.listen") && error.contains("control.token"),
            "{error}"
        );
    }
}

/// Beyond loopback it has addresses that nobody here knows.
#[tokio::test]
async fn it_goes_by_its_addresses_where_it_is_open() {
    let edge = TestEdge::with(
        "control.allow_remote = true\ncontrol.token = \"correct-horse-battery\"\ncontrol.hosts = [\"seventh\"]",
    );
    let open = Config::from_text(
        "https.listen = [\"127.0.0.1:0\"]\ncontrol.listen = \"0.0.0.0:0\"\ncontrol.allow_remote = true\n\
         control.token = \"correct-horse-battery\"\ncontrol.hosts = [\"seventh\"]",
    );
    let mut open = open.expect("it is right");
    let folder = tempfile::tempdir().expect("a folder");
    open.tls.directory = folder.path().into();
    let open = Edge::start(&open).expect("it starts");
    let seventh::config::ControlAt::Tcp(at) = *open.control() else {
        panic!("it has an address");
    };
    for (port, host, status) in [
        (at.port(), "10.1.2.3:7070", 200),
        (at.port(), "[fd00::1]:7070", 200),
        (at.port(), "seventh", 200),
        (at.port(), "evil.example", 403),
        (edge.control.port(), "10.1.2.3:7070", 403),
        (edge.control.port(), "seventh:7070", 200),
    ] {
        let url = format!("http://127.0.0.1:{port}/").parse().expect("a URL");
        let target = Origin::of(&url, Trust::System).expect("a target");
        let connected = Connection::open(&target, Protocol::Http1).await;
        let request = Request::get("/healthz").header("host", host);
        let request = request.body(full("")).expect("a request");
        let answer = Answer::of(&mut connected.expect("it connects"), request).await;
        assert_eq!(answer.status.as_u16(), status, "{host}");
    }
}

/// The environment comes before the file, whichever of the two it has.
#[test]
fn a_secret_of_a_stronger_source_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "correct-horse-battery\n").expect("it is written");
    let path = file.display();
    let config = folder.path().join("seventh.toml");
    for (text, name, value, taken) in [
        (
            format!("control.token_file = \"{path}\""),
            "SEVENTH_CONTROL_TOKEN",
            "of-the-environment".to_owned(),
            "of-the-environment",
        ),
        (
            "control.token = \"of-the-file-itself\"".to_owned(),
            "SEVENTH_CONTROL_TOKEN_FILE",
            path.to_string(),
            "correct-horse-battery",
        ),
    ] {
        std::fs::write(&config, text).expect("it is written");
        let environment = [(name.to_owned(), value)].into_iter();
        let loaded = Config::load(Some(&config), environment, Default::default());
        let token = loaded
            .expect("it is right")
            .control
            .token
            .expect("there is one");
        assert_eq!(token.expose(), taken);
    }
}

#[test]
fn what_is_wrong_with_its_settings_is_said() {
    for (text, key, said) in [
        (
            "control.listen = \"unix:\"",
            "control.listen",
            "names no path",
        ),
        (
            "control.listen = \"here\"",
            "control.listen",
            "unix:/run/seventh/control.sock",
        ),
        (
            "control.socket_mode = \"rw\"",
            "control.socket_mode",
            "`rw` is not a mode",
        ),
        (
            "control.socket_mode = \"7777\"",
            "control.socket_mode",
            "is not a mode",
        ),
        (
            "control.hosts = [\"a/b\"]",
            "control.hosts",
            "`a/b` is not a name",
        ),
        (
            "control.metrics_token = \"only-for-the-metrics\"",
            "control.metrics_token",
            "control.token",
        ),
        (
            "control.token = \"correct-horse-battery\"\ncontrol.metrics_token = \"correct-horse-battery\"",
            "control.metrics_token",
            "make another",
        ),
        (
            "control.token_file = \"/nowhere/at/all\"",
            "control.token_file",
            "/nowhere/at/all",
        ),
        (
            "control.token = \"correct-horse-battery\"\ncontrol.token_file = \"x\"",
            "control.token_file",
            "keep one of them",
        ),
        (
            "[[access.publisher]]\nname = \"a\"\nkey = \"a-key-for-publishers\"",
            "access.publisher, number 1",
            "topics is empty",
        ),
        (
            "[[access.publisher]]\nname = \"a\"\ntopics = [\"b\"]",
            "access.publisher, number 1",
            "takes a key",
        ),
        (
            "[[access.key]]\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\nsecret_file = \"x\"",
            "access.key, number 1",
            "both given",
        ),
    ] {
        let error = Config::from_text(text)
            .expect_err("it is refused")
            .to_string();
        assert!(
            error.contains(&format!("{key}: ")) && error.contains(said),
            "{text}: {error}"
        );
        assert!(
            !error.contains("correct-horse") && !error.contains("123456789012"),
            "{error}"
        );
    }
}
