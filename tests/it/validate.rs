//! Requests that must not reach the service, as a careless or hostile client writes them.

use std::sync::Arc;

use http::{Request, StatusCode};
use seventh::client::{Protocol, full};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{Answer, TestEdge, every_protocol, patiently};

every_protocol!(headers_are_bounded, odd_paths_are_refused);

async fn headers_are_bounded(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut many = Request::get("/events?topic=a");
    for n in 0..80 {
        many = many.header(format!("x-{n}"), "y");
    }
    let mut connection = edge.connect(protocol).await;
    let answer = Answer::of(&mut connection, many.body(full("")).expect("a request")).await;
    assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let mut connection = edge.connect(protocol).await;
    let long = Request::get("/events?topic=a")
        .header("cookie", "x".repeat(15_000))
        .header("x-more", "y".repeat(1_500));
    match connection
        .send(long.body(full("")).expect("a request"))
        .await
    {
        Ok(response) => assert_eq!(response.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        // h3 closes the connection: a field section of this size is over what was announced.
        Err(_) => assert_eq!(protocol, Protocol::Http3),
    }
    let mut connection = edge.connect(protocol).await;
    connection
        .get("/")
        .await
        .expect("the edge is alive")
        .bytes()
        .await
        .expect("a body");
}

async fn odd_paths_are_refused(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut connection = edge.connect(protocol).await;
    for path in [
        "//evil/x",
        "/a/../events?topic=a",
        "/%2e%2e/",
        "/%00",
        "/%zz",
    ] {
        let request = Request::get(path).body(full("")).expect("a request");
        let answer = Answer::of(&mut connection, request).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
}

/// What the edge answers to bytes on a fresh HTTP/1.1 connection to the control listener, where
/// the same validator stands without TLS.
async fn raw(edge: &TestEdge, bytes: &str) -> String {
    let mut stream = TcpStream::connect(edge.control).await.expect("it connects");
    stream
        .write_all(bytes.as_bytes())
        .await
        .expect("it is read");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        match patiently("an answer", stream.read(&mut buffer))
            .await
            .expect("an answer")
        {
            0 => break,
            n => answer.extend_from_slice(&buffer[..n]),
        }
    }
    String::from_utf8_lossy(&answer)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn malformed_http1_requests_are_refused() {
    let edge = TestEdge::start();
    let host = format!("localhost:{}", edge.control.port());
    let right = raw(
        &edge,
        &format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    )
    .await;
    assert_eq!(right, "HTTP/1.1 200 OK");
    for wrong in [
        "GET /healthz HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
        format!("GET http://other/healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET //evil/healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!(
            "POST /topics/a HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"
        ),
        format!(
            "POST /topics/a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"
        ),
        format!("POST /topics/a HTTP/1.1\r\nHost: {host}\r\nContent-Length: +1\r\n\r\nx"),
        format!("GET /healthz HTTP/1.1\r\nHost: user@{host}\r\n\r\n"),
        format!("GET /he\tlthz HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    ] {
        let answer = raw(&edge, &wrong).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{wrong:?}: {answer}");
    }
    let connect = raw(
        &edge,
        &format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    )
    .await;
    assert!(connect.starts_with("HTTP/1.1 501"), "{connect}");
}

/// h3 takes what HTTP/3 forbids; the validator does not.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_http3_requests_are_refused() {
    let edge = TestEdge::start();
    let mut connection = edge.connect(Protocol::Http3).await;
    for fields in [
        vec![("transfer-encoding", "chunked")],
        vec![("connection", "keep-alive")],
        vec![("keep-alive", "5")],
        vec![("upgrade", "websocket")],
        vec![("te", "gzip")],
        vec![("content-length", "1"), ("content-length", "2")],
        vec![("content-length", "x")],
        vec![("host", "a"), ("host", "b")],
    ] {
        let mut request = Request::get("/");
        for (name, value) in &fields {
            request = request.header(*name, *value);
        }
        let sent = connection
            .send(request.body(full("")).expect("a request"))
            .await;
        match sent {
            Ok(response) => assert_eq!(response.status, StatusCode::BAD_REQUEST, "{fields:?}"),
            // The client itself refuses a Host that is not the authority.
            Err(_) => assert_eq!(fields[0].0, "host"),
        }
    }
}

/// Connections over the limit are turned away; the control listener stays reachable.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    let edge = TestEdge::with("limits.connections = 2");
    // Those on which something is under way stay.
    let first = edge.events(Protocol::Http2, "topic=a").await.opened().await;
    let _second = edge.events(Protocol::Http3, "topic=a").await.opened().await;
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
        let refused = seventh::client::Connection::open(&edge.target(), protocol).await;
        assert!(refused.is_err(), "{protocol}");
    }
    let line = "seventh_limit_hits_total{limit=\"limits.connections\"}";
    assert_eq!(edge.metric(line).await, 3);
    drop(first);
    edge.until_metric("seventh_connections{protocol=\"h2\"}", 0)
        .await;
    patiently("room", async {
        while seventh::client::Connection::open(&edge.target(), Protocol::Http1)
            .await
            .is_err()
        {}
    })
    .await;
}

/// Neither a handshake nor a request that never comes keeps a connection.
#[tokio::test]
async fn clients_that_only_connect_are_let_go() {
    let edge = TestEdge::with("limits.handshake = \"200ms\"\nlimits.idle = \"200ms\"");
    for (address, hello) in [
        (edge.https, &b""[..]),
        (edge.https, b"\x16\x03\x01"),
        (edge.control, b""),
        (edge.control, b"PRI * HT"),
        (edge.control, b"GET / HTTP/1.1\r\n"),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("it connects");
        stream.write_all(hello).await.expect("it is read");
        let mut rest = Vec::new();
        // Whatever it says, it ends.
        let _: std::io::Result<usize> = patiently("the end", stream.read_to_end(&mut rest)).await;
    }
    let idle = Arc::new(edge);
    for protocol in [Protocol::Http2, Protocol::Http3] {
        let mut connection = idle.connect(protocol).await;
        connection
            .get("/")
            .await
            .expect("an answer")
            .bytes()
            .await
            .expect("a body");
        idle.until_metric(
            &format!("seventh_connections{{protocol=\"{protocol}\"}}"),
            0,
        )
        .await;
    }
}
