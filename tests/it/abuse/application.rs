//! What requests say: topics, ids, bodies, and readers who do not read.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use seventh::client::{Connection, Protocol, full};
use tokio::io::AsyncWriteExt as _;

use super::beside_a_good_client;
use crate::{
    commands::Server,
    harness::{Answer, Events, memory_of, patiently, tls_stream},
};

/// An answer to a request with these fields, whose body is not waited for.
async fn status(connection: &mut Connection, path: &str, fields: &[(&str, Vec<u8>)]) -> StatusCode {
    let mut request = Request::get(path);
    for (name, value) in fields {
        request = request.header(*name, &value[..]);
    }
    let request = request.body(full("")).expect("a request");
    let response = patiently("an answer", connection.send(request)).await;
    response.expect("an answer").status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_may_be_anything() {
    beside_a_good_client("", 24 << 20, async |server| {
        for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
            // Visible, and what is not: whatever a field may hold. The codes of the latter have up to 26 bits.
            for (set, most) in [(0x21..=0x7e, 14), (0x80..=0xff_u8, 12)] {
                for bytes in (0..most).map(|power| 1 << power) {
                    let id = (0..bytes).map(|_| fastrand::u8(set.clone())).collect();
                    let mut connection = server.connect(protocol).await;
                    let fields = [("last-event-id", id)];
                    let status = status(&mut connection, "/events?topic=a", &fields).await;
                    assert_eq!(status, 200);
                }
            }
        }
    })
    .await;
}

/// Each time all of the history, and gone before it has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_in_a_loop_is_too_much_in_the_end() {
    let text = "limits.http2_streams = 32\nlimits.event_streams_http3 = 8";
    beside_a_good_client(text, 48 << 20, async |server| {
        for _ in 0..20 {
            server.publish("/topics/big", vec![b'x'; 50 << 10]).await;
        }
        for protocol in [Protocol::Http2, Protocol::Http3] {
            let before = server.hits("stream_opens").await;
            let mut connection = server.connect(protocol).await;
            patiently("the end of a loop", async {
                while let Ok(mut response) = connection.get("/events?topic=big&last=1000").await {
                    assert_eq!(response.status, 200);
                    if response.chunk().await.is_err() {
                        break;
                    }
                }
            })
            .await;
            assert_eq!(server.hits("stream_opens").await, before + 1);
        }
    })
    .await;
}

/// Streams of a hundred topics each, whose names nobody has heard of.
async fn random_topics(connections: usize, streams: usize, text: &str, memory: u64) {
    beside_a_good_client(text, memory, async |server| {
        let mut held = Vec::new();
        for _ in 0..connections {
            let mut connection = server.connect(Protocol::Http2).await;
            for _ in 0..streams {
                let topics = (0..100).map(|_| format!("topic={:x}", fastrand::u128(..)));
                let query = topics.collect::<Vec<_>>().join("&");
                held.push(Events::open(&mut connection, &query, &[]).await);
            }
            held.last_mut().expect("there is one").own(connection);
        }
        assert!(server.hits("limits.topics").await > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_nobody_has_heard_of_are_bounded() {
    random_topics(20, 10, "limits.topics = 5000", 24 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn a_million_topics_that_nobody_has_heard_of_are_bounded() {
    random_topics(250, 40, "", 512 << 20).await;
}

/// They ask for everything and take nothing, while others read all of it.
async fn stalled_readers(count: usize, published: usize) {
    // A socket holds what its system gives it; the edge itself a chunk for each.
    let text = "limits.stall = \"1h\"\nlimits.handshake = \"1m\"\nevents.keepalive = \"4m\"";
    let memory = 160 * 1024 * count as u64 + (32 << 20);
    beside_a_good_client(text, memory, async |server| {
        let mut stalled = Vec::new();
        for _ in 0..count {
            let mut stream = tls_stream(server.https, &server.ca(), b"http/1.1").await;
            let request = b"GET /events?topic=fast HTTP/1.1\r\nhost: localhost\r\n\r\n";
            stream.write_all(request).await.expect("it is sent");
            stalled.push(stream);
        }
        let line = "seventh_event_streams{protocol=\"h1\"}";
        server.until_metric(line, count as u64).await;
        let idle = memory_of(server.pid());
        let mut reader = server
            .events(Protocol::Http2, "topic=fast")
            .await
            .opened()
            .await;
        // 10 MB/s, if the machine is as fast.
        let data = Bytes::from(vec![b'x'; 10_000]);
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..published {
            ticks.tick().await;
            server.publish("/topics/fast", data.clone()).await;
            assert_eq!(reader.message().await.data.len(), data.len());
        }
        assert_eq!(server.metric(line).await, count as u64);
        // Two records of TLS, hyper's buffer and a chunk, and the ring.
        let more = memory_of(server.pid()).saturating_sub(idle);
        let most = 96 * 1024 * count as u64 + (12 << 20);
        assert!(more < most, "{} bytes each", more / count as u64);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_who_take_nothing_cost_a_chunk_each() {
    stalled_readers(200, 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn ten_thousand_readers_who_take_nothing_cost_a_chunk_each() {
    stalled_readers(10_000, 5000).await;
}

/// A bomb is not even looked at.
#[tokio::test]
async fn bodies_that_are_coded_are_not_taken() {
    let text = "access.publish = [\"0123456789abcdef\"]";
    beside_a_good_client(text, 16 << 20, async |server| {
        let mut control = server.control().await;
        let mut public = server.connect(Protocol::Http2).await;
        for coding in ["gzip", "br", "zstd", "deflate", "GZIP, identity"] {
            for connection in [&mut control, &mut public] {
                let request = Request::post("/topics/a")
                    .header("content-encoding", coding)
                    .header("authorization", "Bearer 0123456789abcdef");
                let request = request.body(full(vec![0; 1 << 10])).expect("a request");
                let answer = Answer::of(connection, request).await;
                assert_eq!(answer.status, 415, "{coding}");
            }
        }
    })
    .await;
}

/// What a client says stays what it said, in the log and in header fields.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_the_log_or_a_header_field() {
    let server = Server::start("log.filter = \"debug\"").await;
    let forged = "%0d%0a2026-01-01T00:00:00Z%20ERROR%20forged:%20yes%1b[31m";
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
        for path in [
            format!("/events?topic={forged}"),
            format!("/{forged}"),
            format!("/events?topic=a&{forged}=1"),
        ] {
            let mut connection = server.connect(protocol).await;
            let request = Request::get(path).header("user-agent", "a\tforged: yes");
            let request = request.body(full("")).expect("a request");
            let response = patiently("an answer", connection.send(request)).await;
            let response = response.expect("an answer");
            assert!(!response.status.is_server_error(), "{}", response.status);
            assert!(!response.headers.contains_key("forged"));
        }
    }
    for body in [
        r#"{"topic":"a","data":"x","id":"1\r\nforged: yes"}"#,
        r#"{"topic":"a","data":"x","event":"1\nforged: yes"}"#,
        r#"{"topic":"a\r\nforged: yes","data":"x"}"#,
    ] {
        assert_eq!(server.publish("/publish", body).await.status, 400, "{body}");
    }
    let (_, log) = server.stopped().await;
    // Each refusal has its line, which begins with the time and has what is said behind its level.
    assert!(log.matches(": refused").count() >= 6, "{log}");
    let wrong = |line: &&str| {
        let level = line.get(28..33).unwrap_or_default();
        let is_right = ["DEBUG", " INFO", " WARN"].contains(&level);
        !is_right || line.contains("forged") || line.contains('\u{1b}')
    };
    assert_eq!(log.lines().find(wrong), None);
}
