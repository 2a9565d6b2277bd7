//! Over TCP, TLS and HTTP/1.1: whoever is slow, and what is no request at all.

use std::time::Duration;

use seventh::client::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};

use super::beside_a_good_client;
use crate::{
    commands::Server,
    harness::{patiently, tls_stream, try_tls},
};

const SLOW: &str = "limits.handshake = \"2s\"\nlimits.request_body = \"1s\"\nlimits.stall = \"1s\"\n\
                    limits.address_handshakes = 100000\nlimits.handshakes = 100000\n\
                    demo.enabled = true\n\
                    access.publish = [\"0123456789abcdef\"]";

/// How somebody is slow.
#[derive(Clone, Copy)]
enum Slow {
    Handshake,
    Header,
    Body,
    Read,
}

/// Reads until its end, whatever comes and however it ends.
async fn until_end(mut io: impl tokio::io::AsyncRead + Unpin) {
    let mut rest = Vec::new();
    let read = io.read_to_end(&mut rest);
    let _: std::io::Result<usize> = patiently("the end of one who is slow", read).await;
}

/// Begins, and does not go on.
async fn be_slow(slow: Slow, server: &Server, coming: &Semaphore) {
    // Not all at the same moment: who comes has as long as who is slow.
    let turn = coming.acquire().await.expect("it is never closed");
    if matches!(slow, Slow::Handshake) {
        let mut stream = TcpStream::connect(server.https).await.expect("it listens");
        stream
            .write_all(b"\x16\x03\x01\x02")
            .await
            .expect("it is sent");
        drop(turn);
        return until_end(stream).await;
    }
    let mut stream = tls_stream(server.https, &server.ca(), b"http/1.1").await;
    let begun: &[u8] = match slow {
        Slow::Header => b"GET / HTTP/1.1\r\nhost: loc",
        Slow::Body => {
            b"POST /topics/a HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer 0123456789abcdef\r\n\
              content-length: 1000\r\n\r\n{"
        }
        _ => b"GET /events?topic=big HTTP/1.1\r\nhost: localhost\r\n\r\n",
    };
    // Where the machine is slower still, it was let go of by then.
    let begun = stream.write_all(begun).await;
    drop(turn);
    if begun.is_err() {
        return;
    }
    if matches!(slow, Slow::Read) {
        // It takes nothing, so that it does not see its end either.
        return std::future::pending().await;
    }
    until_end(stream).await;
}

/// So many of each kind at once, while good clients come and are served.
async fn slow_ones(each: usize) {
    let memory = 100 * 1024 * each as u64 + (64 << 20);
    let patience = Duration::from_secs(30 + each as u64 / 10);
    beside_a_good_client(SLOW, memory, async |server| {
        let all = async {
            let at_once = Semaphore::new(16);
            let kinds = [Slow::Handshake, Slow::Header, Slow::Body, Slow::Read];
            let each = (0..each).flat_map(|_| kinds);
            futures_util::future::join_all(each.map(|kind| be_slow(kind, server, &at_once))).await;
        };
        let hits = async || {
            let limits = ["limits.handshake", "limits.request_body", "limits.stall"];
            let mut hits = [0; 3];
            for (hits, limit) in hits.iter_mut().zip(limits) {
                *hits = server.hits(limit).await;
            }
            hits
        };
        let coming = async {
            // One whose turn comes late may be let go of before it can be slow in its own way.
            while hits().await.iter().sum::<u64>() < 4 * each as u64 {
                for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
                    let mut connection = server.connect(protocol).await;
                    let answer = connection.get("/").await.expect("it is served");
                    assert_eq!(answer.status, 200);
                }
                server.publish("/topics/big", vec![b'x'; 200 << 10]).await;
            }
        };
        tokio::select! {
            _ = all => unreachable!("those who do not read see no end"),
            in_time = tokio::time::timeout(patience, coming) => in_time.expect("all end"),
        }
        let hits = hits().await;
        assert!(hits.iter().all(|hits| *hits > 0), "{hits:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_is_let_go() {
    slow_ones(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn two_thousand_of_each_who_are_slow_are_let_go() {
    slow_ones(2000).await;
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    beside_a_good_client("limits.handshake = \"1h\"", 16 << 20, async |server| {
        let answer = async |bytes: &[u8]| {
            let mut stream = tls_stream(server.https, &server.ca(), b"http/1.1").await;
            let _: std::io::Result<()> = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer);
            let _: std::io::Result<usize> = patiently("an answer", read).await;
            String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned()
        };
        let field = b"x-a: b\r\n".repeat(100_000);
        let many = [&b"GET / HTTP/1.1\r\nhost: localhost\r\n"[..], &field].concat();
        assert_eq!(answer(&many).await, "HTTP/1.1 431");
        let long = [&b"GET / HTTP/1.1\r\nx: "[..], &vec![b'y'; 4 << 20]].concat();
        assert_eq!(answer(&long).await, "HTTP/1.1 431");
        assert_eq!(answer(&[0x80; 4096]).await, "HTTP/1.1 400");
        // Before TLS too; and a protocol that nobody speaks.
        let mut stream = TcpStream::connect(server.https).await.expect("it listens");
        stream.write_all(&[0x80; 4096]).await.expect("it is sent");
        until_end(stream).await;
        let stream = TcpStream::connect(server.https).await.expect("it listens");
        let error = try_tls(stream, &server.ca(), b"spdy/3").await.err();
        let error = error.expect("there is no such protocol").to_string();
        assert!(error.contains("NoApplicationProtocol"), "{error}");
    })
    .await;
}
