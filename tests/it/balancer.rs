//! Behind a balancer that says by the PROXY protocol whose connections it passes on.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{TestEdge, patiently, plain_answer, tcp_from, tls_over};

const BALANCER: u8 = 2;

/// The header of a version for a client in 203.0.113.0/24, as the standard has it.
fn header(version: u8, client: u8) -> Vec<u8> {
    if version == 1 {
        return format!("PROXY TCP4 203.0.113.{client} 192.0.2.1 5000 443\r\n").into();
    }
    // Version 2 and PROXY; TCP over IPv4; then 12 bytes: both addresses and both ports.
    let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c";
    [
        &head[..],
        &[203, 0, 113, client],
        &[192, 0, 2, 1],
        &[0x13, 0x88],
        &[0x01, 0xbb],
    ]
    .concat()
}

fn edge() -> TestEdge {
    TestEdge::with(
        "trusted.proxy_protocol = [\"127.0.0.2\"]\nhttp.listen = [\"127.0.0.1:0\"]\n\
         limits.exempt = []\nlimits.address_connections = 2",
    )
}

/// A connection from 127.0.0.`from` that begins with `first`, if it is let in.
async fn plain(edge: &TestEdge, from: u8, first: &[u8]) -> Option<TcpStream> {
    let mut stream = tcp_from(edge.http()[0], from).await;
    stream.write_all(first).await.expect("it is sent");
    plain_answer(stream).await
}

#[tokio::test]
async fn a_client_is_whom_the_balancer_names() {
    let edge = edge();
    for version in [1, 2] {
        let mut stream = tcp_from(edge.https, BALANCER).await;
        let header = header(version, version);
        // In two parts, as it may come.
        let (first, rest) = header.split_at(14);
        stream.write_all(first).await.expect("it is sent");
        stream.write_all(rest).await.expect("it is sent");
        let mut stream = tls_over(stream, &edge.ca(), b"http/1.1").await;
        let request = b"GET /events?topic=a HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 192.0.2.66\r\n\r\n";
        stream.write_all(request).await.expect("it is sent");
        let mut answer = [0; 12];
        patiently("an answer", stream.read_exact(&mut answer))
            .await
            .expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let listed = edge.ask("GET", "/streams", "").await.json();
        let address = format!("203.0.113.{version}:5000");
        assert_eq!(listed["streams"][0]["address"], address);
        drop(stream);
        edge.until_metric("seventh_event_streams{protocol=\"h1\"}", 0)
            .await;
    }
}

/// Each client has its share, and not the balancer.
#[tokio::test]
async fn limits_by_address_are_those_of_the_client() {
    let edge = edge();
    let mut held = Vec::new();
    for client in 0..4 {
        for version in [1, 2] {
            let let_in = plain(&edge, BALANCER, &header(version, client)).await;
            held.push(let_in.expect("it is let in"));
        }
        let third = plain(&edge, BALANCER, &header(2, client)).await;
        assert!(third.is_none());
    }
    assert_eq!(edge.hits("limits.address_connections").await, 4);
}

#[tokio::test]
async fn only_a_balancer_says_so_and_it_always_does() {
    let edge = edge();
    // It looks whether the edge is there.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    assert!(plain(&edge, BALANCER, local).await.is_some());
    assert!(plain(&edge, BALANCER, b"").await.is_none());
    for version in [1, 2] {
        let pretended = plain(&edge, 3, &header(version, 7)).await;
        let mut answered = Vec::new();
        let mut pretended = pretended.expect("an answer");
        let read = patiently("an end", pretended.read_to_end(&mut answered));
        let _: std::io::Result<usize> = read.await;
        // Of HTTP/1.1 it is no request; what comes after it would be sent on to HTTPS.
        let answered = String::from_utf8_lossy(&answered);
        assert!(answered.starts_with("TTP/1.1 400"), "{answered}");
    }
    assert!(plain(&edge, 3, b"").await.is_some());
    // Who says nothing holds a place no longer than others.
    let edge =
        TestEdge::with("trusted.proxy_protocol = [\"127.0.0.2\"]\nlimits.handshake = \"100ms\"");
    let mut silent = tcp_from(edge.https, BALANCER).await;
    let end = patiently("its end", silent.read(&mut [0; 1])).await;
    assert_eq!(end.expect("an end"), 0);
    assert_eq!(edge.hits("limits.handshake").await, 1);
}
