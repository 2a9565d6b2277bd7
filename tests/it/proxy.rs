//! In front of an app: what the app sees, and what comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::Value;
use seventh::client::{Protocol, Upload, full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Answer, TestEdge, every_protocol, patiently, streaming};
use crate::upstream::{Sent, Upstream, read_head, whole};

every_protocol!(
    an_app_sees_the_request_as_it_came,
    the_hub_steps_aside_and_keeps_its_own,
    bodies_go_both_ways_as_they_come,
    an_answer_cut_short_is_cut_short,
    failures_are_told_and_event_sources_come_back,
    answers_without_a_body_have_none,
    what_is_safe_is_sent_again_and_nothing_else,
    an_upload_is_not_held_and_may_not_pause,
    files_are_served_whole_and_in_part,
    trailers_come_through_both_ways,
);

async fn get(edge: &TestEdge, protocol: Protocol, path: &str) -> Answer {
    let request = Request::get(path).body(full("")).expect("a request");
    Answer::of(&mut edge.connect(protocol).await, request).await
}

fn fields<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = seen["fields"].as_array().expect("fields");
    let named = fields.iter().filter(|field| field[0] == name);
    named
        .map(|field| field[1].as_str().expect("text"))
        .collect()
}

async fn an_app_sees_the_request_as_it_came(protocol: Protocol) {
    let app = Upstream::echo().await;
    let edge = TestEdge::with(&app.route());
    let request = Request::put("/a%2Fb/%7Ec;d?e=%20&f")
        .header("x-mine", "1")
        .header("x-mine", "2")
        .header("remote-user", "admin")
        .header("x-forwarded-for", "10.0.0.1")
        .header("cookie", "a=b")
        .header("te", "trailers")
        .body(full("data"))
        .expect("a request");
    let mut connection = edge.connect(protocol).await;
    let answer = Answer::of(&mut connection, request).await;
    assert_eq!(answer.status, StatusCode::OK);
    let seen = answer.json();
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["target"], "/a%2Fb/%7Ec;d?e=%20&f");
    assert_eq!(seen["body"], "data");
    assert_eq!(fields(&seen, "x-mine"), ["1", "2"]);
    assert_eq!(fields(&seen, "remote-user"), [""; 0]);
    assert_eq!(fields(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(fields(&seen, "x-forwarded-proto"), ["https"]);
    assert_eq!(fields(&seen, "cookie"), ["a=b"]);
    assert_eq!(fields(&seen, "te"), ["trailers"]);
    let host = format!("localhost:{}", edge.https.port());
    assert_eq!(fields(&seen, "host"), [host.as_str()]);
    assert_eq!(fields(&seen, "x-forwarded-host"), [host.as_str()]);
    assert_eq!(fields(&seen, "x-request-id")[0].len(), 32);
    // The same connection goes on.
    let get = Request::get("/").body(full("")).expect("a request");
    let seen = Answer::of(&mut connection, get).await.json();
    assert_eq!(
        (&seen["method"], &seen["length"]),
        (&"GET".into(), &0.into())
    );
    assert_eq!(fields(&seen, "transfer-encoding"), [""; 0]);
}

async fn the_hub_steps_aside_and_keeps_its_own(protocol: Protocol) {
    let app = Upstream::echo().await;
    let edge = TestEdge::with(&app.route());
    for path in [
        "/",
        "/events",
        "/publish",
        "/topics/a",
        "/demo/publish",
        "/.seventhx",
    ] {
        let answer = get(&edge, protocol, path).await;
        assert_eq!(answer.json()["target"], path, "{}", answer.text);
    }
    let mut connection = edge.connect(protocol).await;
    let asked = Request::get("/.seventh/events?topic=a")
        .body(full(""))
        .expect("a request");
    let response = patiently("a response", connection.send(asked))
        .await
        .expect("one");
    assert_eq!(response.headers["content-type"], "text/event-stream");
    for path in ["/.seventh", "/.seventh/", "/.seventh/x"] {
        assert_eq!(
            get(&edge, protocol, path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    // A route that covers nothing of the hub's moves nothing; an exact one wins.
    let route = format!("upstream = \"{}\"", app.url());
    let edge = TestEdge::with(&format!(
        "[[route]]\npath = \"/api/**\"\n{route}\n[[route]]\npath = \"/topics/mine\"\n{route}"
    ));
    let _events = edge.events(protocol, "topic=a").await.opened().await;
    assert_eq!(
        get(&edge, protocol, "/api/x").await.json()["target"],
        "/api/x"
    );
    assert_eq!(
        get(&edge, protocol, "/x").await.status,
        StatusCode::NOT_FOUND
    );
}

async fn bodies_go_both_ways_as_they_come(protocol: Protocol) {
    // Each part comes back before the next is sent.
    let app = Upstream::start(|request| async {
        let body = request.into_body();
        Response::new(http_body_util::BodyExt::map_err(body, Into::into).boxed_unsync())
    })
    .await;
    let edge = TestEdge::with(&app.route());
    let mut connection = edge.connect(protocol).await;
    let (sender, body) = streaming();
    let request = Request::post("/").body(body).expect("a request");
    let mut response = patiently("a response", connection.send(request))
        .await
        .expect("one");
    for n in 0..20 {
        let part = format!("part {n}");
        sender.send(part.clone().into()).await.expect("it is taken");
        let mut got = Vec::new();
        while got.len() < part.len() {
            let chunk = patiently("the part", response.chunk())
                .await
                .expect("no error");
            got.extend_from_slice(&chunk.expect("it goes on"));
        }
        assert_eq!(got, part.as_bytes());
    }
    drop(sender);
    let rest = patiently("the end", response.bytes()).await.expect("clean");
    assert!(rest.is_empty());
}

async fn an_answer_cut_short_is_cut_short(protocol: Protocol) {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\n",
    ] {
        let app = Upstream::raw(answer).await;
        let edge = TestEdge::with(&app.route());
        let mut connection = edge.connect(protocol).await;
        let sent = patiently("an answer", connection.get("/")).await;
        // Over HTTP/1.1 the end may come with the head.
        if let Ok(mut response) = sent {
            let body = patiently("the body", response.bytes()).await;
            assert!(body.is_err(), "{body:?}");
        }
        edge.until_metric("seventh_upstream_cut_answers_total", 1)
            .await;
    }
}

async fn failures_are_told_and_event_sources_come_back(protocol: Protocol) {
    let nobody = "http://127.0.0.1:1";
    let silent = Upstream::accepting("127.0.0.1:0", |mut stream| async move {
        let _head = read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let closes = Upstream::raw("").await;
    let babbles = Upstream::raw("SMTP ready\r\n\r\n").await;
    let changes = Upstream::raw(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    )
    .await;
    let busy =
        Upstream::raw("HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy").await;
    let gone = Upstream::raw("HTTP/1.1 404 No\r\ncontent-length: 4\r\n\r\ngone").await;
    let cases = [
        (nobody.to_owned(), 502),
        (silent.url(), 504),
        (closes.url(), 502),
        (babbles.url(), 502),
        (changes.url(), 502),
        (busy.url(), 503),
        (gone.url(), 404),
    ];
    for (url, status) in cases {
        // Whoever answers may do so late, on a machine that is busy.
        let head = if status == 504 { "300ms" } else { "30s" };
        let edge = TestEdge::with(&format!(
            "proxy.upstream = \"{url}\"\nlimits.upstream_head = \"{head}\"\nlimits.upstream_connect = \"1s\""
        ));
        let answer = get(&edge, protocol, "/x").await;
        assert_eq!(answer.status, status, "{url}: {}", answer.text);
        if status == 502 || status == 504 {
            assert_eq!(
                answer.header("content-type"),
                "application/problem+json",
                "{url}"
            );
            assert!(answer.json()["detail"].is_string());
        }
        let mut connection = edge.connect(protocol).await;
        let ask = |accept: &str| Request::get("/x").header("accept", accept).body(full(""));
        let event_source = ask("text/event-stream").expect("a request");
        let answer = Answer::of(&mut connection, event_source).await;
        if status == 404 {
            assert_eq!(
                (answer.status.as_u16(), answer.text.as_str()),
                (404, "gone")
            );
            continue;
        }
        assert_eq!(answer.status, StatusCode::OK, "{url}");
        assert!(answer.text.starts_with("retry:"), "{url}: {}", answer.text);
        if status == 503 {
            assert!(
                answer.text.starts_with("retry: 7000\n") || answer.text.starts_with("retry:7000\n"),
                "{}",
                answer.text
            );
        }
        // Whoever takes anything else too is told what it is.
        let other = ask("text/event-stream, */*").expect("a request");
        let answer = Answer::of(&mut edge.connect(protocol).await, other).await;
        assert_eq!(answer.status, status, "{url}");
    }
}

async fn answers_without_a_body_have_none(protocol: Protocol) {
    let app = Upstream::start(|request| async move {
        let response = Response::builder();
        match request.uri().path() {
            "/204" => response.status(204).body(whole("")),
            "/304" => response.status(304).header("etag", "\"a\"").body(whole("")),
            "/empty" => response.body(whole("")),
            _ => response.header("content-length", "5").body(whole("hello")),
        }
        .expect("a response")
    })
    .await;
    let edge = TestEdge::with(&app.route());
    let mut connection = edge.connect(protocol).await;
    for (method, path, status, length) in [
        (Method::HEAD, "/x", 200, "5"),
        (Method::GET, "/204", 204, ""),
        (Method::GET, "/304", 304, ""),
        (Method::GET, "/empty", 200, "0"),
        (Method::GET, "/x", 200, "5"),
    ] {
        let request = Request::builder().method(&method).uri(path);
        let request = request.body(full("")).expect("a request");
        let answer = Answer::of(&mut connection, request).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("content-length"), length, "{method} {path}");
        let body = if (method, path) == (Method::GET, "/x") {
            "hello"
        } else {
            ""
        };
        assert_eq!(answer.text, body, "{path}");
    }
}

async fn what_is_safe_is_sent_again_and_nothing_else(protocol: Protocol) {
    let times = Arc::new(AtomicUsize::new(0));
    let counted = times.clone();
    // It has closed before the first byte of an answer.
    let closes = Upstream::accepting("127.0.0.1:0", move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let _head = read_head(&mut stream).await;
        }
    })
    .await;
    let edge = TestEdge::with(&closes.route());
    let mut connection = edge.connect(protocol).await;
    for (method, body, tries) in [
        (Method::GET, "", 3),
        (Method::DELETE, "", 3),
        (Method::POST, "", 1),
        (Method::POST, "data", 1),
    ] {
        times.store(0, Ordering::SeqCst);
        let request = Request::builder().method(&method).uri("/").body(full(body));
        let answer = Answer::of(&mut connection, request.expect("a request")).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(times.load(Ordering::SeqCst), tries, "{method}");
    }
    // Where nobody listens nothing was sent: another one may have it, whatever it is.
    let app = Upstream::echo().await;
    let edge = TestEdge::with(&format!(
        "proxy.upstream = [\"http://127.0.0.1:1\", \"{}\"]",
        app.url()
    ));
    let mut connection = edge.connect(protocol).await;
    for _ in 0..8 {
        let request = Request::post("/").body(full("data")).expect("a request");
        let answer = Answer::of(&mut connection, request).await;
        assert_eq!(answer.json()["body"], "data", "{}", answer.text);
    }
    // It was found out once, and is left alone.
    assert!(
        edge.metric("seventh_upstream_requests_total{outcome=\"unreachable\"}")
            .await
            <= 2
    );
}

async fn an_upload_is_not_held_and_may_not_pause(protocol: Protocol) {
    let app = Upstream::echo().await;
    let edge_with = |pause: &str| {
        TestEdge::with(&format!(
            "{}\nlimits.request_body = \"{pause}\"",
            app.route()
        ))
    };
    let edge = edge_with("30s");
    let mut connection = edge.connect(protocol).await;
    let parts = stream::iter((0..64).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 64 << 10])))));
    let body: Upload = StreamBody::new(parts).boxed_unsync();
    let request = Request::post("/").body(body).expect("a request");
    let answer = Answer::of(&mut connection, request).await;
    assert_eq!(answer.json()["length"], 4 << 20);
    let edge = edge_with("300ms");
    let (sender, body) = streaming();
    sender.send("half".into()).await.expect("it is taken");
    let request = Request::post("/").body(body).expect("a request");
    let answer = Answer::of(&mut edge.connect(protocol).await, request).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
    assert!(
        answer.text.contains("limits.request_body"),
        "{}",
        answer.text
    );
    drop(sender);
}

async fn files_are_served_whole_and_in_part(protocol: Protocol) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = folder.path().join("site");
    std::fs::create_dir_all(site.join("sub")).expect("a folder");
    for (name, text) in [
        ("index.html", "<p>home"),
        ("a.txt", "0123456789"),
        ("sub/index.html", "sub"),
        (".env", "secret"),
    ] {
        std::fs::write(site.join(name), text).expect("a file");
    }
    std::fs::write(folder.path().join("outside.txt"), "secret").expect("a file");
    let edge = TestEdge::with(&format!(
        "[[route]]\npath = \"/static/**\"\nfiles = \"{}\"",
        site.display()
    ));
    let home = get(&edge, protocol, "/static/").await;
    assert_eq!(
        (home.text.as_str(), home.header("content-type")),
        ("<p>home", "text/html")
    );
    let whole = get(&edge, protocol, "/static/a.txt").await;
    assert_eq!(whole.text, "0123456789");
    let ask = |fields: &[(&str, &str)]| {
        let mut request = Request::get("/static/a.txt");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(full("")).expect("a request")
    };
    let mut connection = edge.connect(protocol).await;
    let part = Answer::of(&mut connection, ask(&[("range", "bytes=2-4")])).await;
    assert_eq!((part.status.as_u16(), part.text.as_str()), (206, "234"));
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    let etag = whole.header("etag");
    assert!(!etag.is_empty());
    let same = Answer::of(&mut connection, ask(&[("if-none-match", etag)])).await;
    assert_eq!((same.status.as_u16(), same.text.as_str()), (304, ""));
    let moved = get(&edge, protocol, "/static/sub").await;
    assert_eq!(moved.header("location"), "/static/sub/");
    for path in [
        "/static/.env",
        "/static/%2eenv",
        "/static/none",
        "/static/..%2foutside.txt",
        "/static/sub%2f..%2f..%2foutside.txt",
    ] {
        let answer = get(&edge, protocol, path).await;
        assert!(
            answer.status.is_client_error() && !answer.text.contains("secret"),
            "{path}: {answer:?}"
        );
    }
    let post = Request::post("/static/a.txt")
        .body(full("x"))
        .expect("a request");
    let answer = Answer::of(&mut connection, post).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, "GET, HEAD")
    );
}

async fn trailers_come_through_both_ways(protocol: Protocol) {
    let app = Upstream::start(|_| async {
        let mut sums = http::HeaderMap::new();
        sums.insert("x-sum", http::HeaderValue::from_static("7"));
        let frames = stream::iter([
            Ok(Frame::data(Bytes::from("data"))),
            Ok(Frame::trailers(sums)),
        ]);
        let body: Sent = StreamBody::new(frames.boxed()).boxed_unsync();
        let response = Response::builder().header("trailer", "x-sum").body(body);
        response.expect("a response")
    })
    .await;
    let edge = TestEdge::with(&app.route());
    let mut connection = edge.connect(protocol).await;
    let request = Request::get("/")
        .header("te", "trailers")
        .body(full(""))
        .expect("a request");
    let mut response = patiently("a response", connection.send(request))
        .await
        .expect("one");
    assert_eq!(
        patiently("the body", response.bytes())
            .await
            .expect("a body"),
        "data"
    );
    assert_eq!(response.trailers["x-sum"], "7");
    // Of the fields that do not belong there none passes (RFC 9110 6.5.1).
    let app = Upstream::echo().await;
    let edge = TestEdge::with(&app.route());
    let mut sums = http::HeaderMap::new();
    for (name, value) in [
        ("x-sum", "8"),
        ("remote-user", "forged"),
        ("host", "forged"),
    ] {
        sums.insert(name, http::HeaderValue::from_static(value));
    }
    let frames = stream::iter([
        Ok(Frame::data(Bytes::from("data"))),
        Ok(Frame::trailers(sums)),
    ]);
    let body: Upload = StreamBody::new(frames).boxed_unsync();
    let request = Request::post("/").header("trailer", "x-sum, remote-user, host");
    let request = request.body(body).expect("a request");
    let seen = Answer::of(&mut edge.connect(protocol).await, request)
        .await
        .json();
    assert_eq!(seen["body"], "data");
    assert_eq!(seen["trailers"], serde_json::json!({ "x-sum": "8" }));
}

#[tokio::test]
async fn a_websocket_goes_through() {
    let app = Upstream::start(|mut request| async move {
        assert_eq!(request.headers()["upgrade"], "websocket");
        assert_eq!(request.headers()["sec-websocket-key"], "x");
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(upgraded.await.expect("it is agreed"));
            let (mut read, mut write) = tokio::io::split(io);
            let _: std::io::Result<u64> = tokio::io::copy(&mut read, &mut write).await;
        });
        let response = Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", "y");
        response.body(whole("")).expect("a response")
    })
    .await;
    let edge = TestEdge::with(&app.route());
    let mut io = edge.raw_http1().await;
    let head = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-key: x\r\n\r\n";
    io.write_all(head.as_bytes()).await.expect("it is sent");
    let answer = patiently("an answer", read_head(&mut io)).await;
    let answer = answer.expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("sec-websocket-accept: y\r\n"), "{answer}");
    for n in 0..100u32 {
        let sent = vec![n as u8; 1 + 997 * n as usize];
        io.write_all(&sent).await.expect("it is sent");
        let mut got = vec![0; sent.len()];
        patiently("it back", io.read_exact(&mut got))
            .await
            .expect("it comes back");
        assert_eq!(got, sent);
    }
    assert_eq!(edge.metric("seventh_upstream_tunnels_total").await, 1);
    drop(io);
    // The tunnel ends with its client, and with it the connection's place.
    edge.until_metric("seventh_connections{protocol=\"h1\"}", 0)
        .await;
}

#[tokio::test]
async fn an_app_may_listen_on_a_socket_or_speak_http2() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request| async {
                Ok::<_, std::convert::Infallible>(crate::upstream::echo(request).await)
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    let edge = TestEdge::with(&format!("proxy.upstream = \"unix:{}\"", path.display()));
    let seen = get(&edge, Protocol::Http2, "/a").await.json();
    assert_eq!(seen["target"], "/a");
    // An edge is an app that speaks HTTP/2.
    let behind = TestEdge::start();
    let url = format!("h2c://{}", behind.control);
    let edge = TestEdge::with(&format!(
        "[[route]]\npath = \"/healthz\"\nupstream = \"{url}\"\nsend_host = \"upstream\""
    ));
    let answer = get(&edge, Protocol::Http2, "/healthz").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

#[tokio::test]
async fn only_a_trusted_proxy_says_who_its_client_is() {
    let app = Upstream::echo().await;
    for (trusted, addresses, id) in [
        ("", vec!["127.0.0.1"], 32),
        (
            "trusted.networks = [\"127.0.0.0/8\"]\n",
            vec!["192.0.2.7, 127.0.0.1"],
            4,
        ),
    ] {
        let edge = TestEdge::with(&format!("{trusted}{}", app.route()));
        let request = Request::get("/")
            .header("x-forwarded-for", "192.0.2.7")
            .header("x-request-id", "mine")
            .body(full(""))
            .expect("a request");
        let seen = Answer::of(&mut edge.connect(Protocol::Http2).await, request)
            .await
            .json();
        assert_eq!(fields(&seen, "x-forwarded-for"), addresses);
        assert_eq!(fields(&seen, "x-request-id")[0].len(), id);
    }
}

#[tokio::test]
async fn the_app_is_told_who_asks_where_its_route_says_so() {
    let app = Upstream::echo().await;
    let text = format!(
        "access.audience = \"seventh\"\n[[access.key]]\nalgorithm = \"HS256\"\nkid = \"h\"\nsecret = \"{1}\"\n\
         [[route]]\npath = \"/told/**\"\nidentity = true\nupstream = \"{0}\"\n\
         [[route]]\nupstream = \"{0}\"",
        app.url(),
        crate::access::SECRET
    );
    let edge = TestEdge::with(&text);
    let mut claims = crate::access::claims();
    claims["groups"] = serde_json::json!(["sales"]);
    let token = crate::access::token(&claims);
    let ask = |path: &str, token: Option<&str>| {
        let mut request = Request::get(path).header("remote-user", "admin");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(full("")).expect("a request")
    };
    let mut connection = edge.connect(Protocol::Http2).await;
    let seen = Answer::of(&mut connection, ask("/told/a", Some(&token)))
        .await
        .json();
    assert_eq!(fields(&seen, "remote-user"), ["bob"]);
    assert_eq!(fields(&seen, "remote-groups"), ["sales"]);
    for (path, token) in [("/told/a", None), ("/x", Some(token.as_str()))] {
        let seen = Answer::of(&mut connection, ask(path, token)).await.json();
        assert_eq!(fields(&seen, "remote-user"), [""; 0], "{path}");
    }
    let forged = Answer::of(&mut connection, ask("/told/a", Some("x.y.z"))).await;
    assert_eq!(forged.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_least_busy_is_asked_and_the_unwell_left_alone() {
    let held = |_| async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Response::new(whole(""))
    };
    let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut apps = Vec::new();
    for count in counts.clone() {
        apps.push(
            Upstream::start(move |request| {
                count.fetch_add(1, Ordering::SeqCst);
                let held = held(());
                async move {
                    match request.uri().path() {
                        "/hold" => held.await,
                        _ => Response::new(whole("ok")),
                    }
                }
            })
            .await,
        );
    }
    let edge = TestEdge::with(&format!(
        "proxy.upstream = [\"{}\", \"{}\"]",
        apps[0].url(),
        apps[1].url()
    ));
    let mut connection = edge.connect(Protocol::Http2).await;
    let mut other = edge.connect(Protocol::Http2).await;
    let hold = tokio::spawn(async move { connection.get("/hold").await });
    while counts.iter().all(|count| count.load(Ordering::SeqCst) == 0) {
        tokio::task::yield_now().await;
    }
    let holds = usize::from(counts[1].load(Ordering::SeqCst) == 1);
    for _ in 0..10 {
        let request = Request::get("/").body(full("")).expect("a request");
        assert_eq!(Answer::of(&mut other, request).await.text, "ok");
    }
    assert_eq!(counts[holds].load(Ordering::SeqCst), 1);
    assert_eq!(counts[1 - holds].load(Ordering::SeqCst), 10);
    hold.abort();
    // Events of the hub are there all the while.
    let mut events = edge.connect(Protocol::Http2).await;
    let opened = patiently("a stream", events.get("/.seventh/events?topic=a")).await;
    assert_eq!(opened.expect("it opens").status, StatusCode::OK);
}

#[tokio::test]
async fn who_comes_without_tls_is_sent_to_it() {
    let edge = TestEdge::with("http.listen = [\"127.0.0.1:0\"]\nhttps.hsts = \"365d\"");
    let port = edge.https.port();
    for address in [edge.http()[0], edge.https] {
        let ask = |head: &'static str| async move {
            let mut stream = tokio::net::TcpStream::connect(address)
                .await
                .expect("it listens");
            stream.write_all(head.as_bytes()).await.expect("it is read");
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            patiently("an answer", read).await.expect("an answer");
            answer
        };
        let answer =
            ask("GET /a%20b?c HTTP/1.1\r\nhost: localhost:80\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        let location = format!("location: https://localhost:{port}/a%20b?c\r\n");
        assert!(answer.contains(&location), "{answer}");
        let answer = ask(
            "POST / HTTP/1.1\r\nhost: [::1]\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndata",
        )
        .await;
        assert!(
            answer.contains(&format!("location: https://[::1]:{port}/\r\n")),
            "{answer}"
        );
        let answer = ask("GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    let answer = get(&edge, Protocol::Http2, "/").await;
    assert_eq!(
        answer.header("strict-transport-security"),
        "max-age=31536000"
    );
}
