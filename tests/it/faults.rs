//! Apps that fail in every way, two users at once, and bodies of any size: nobody gets what is another's.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::Request;
use seventh::{
    client::{Connection, Protocol, full},
    process::Process,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::commands::Server;
use crate::harness::{Events, TestEdge, every_protocol, patiently};
use crate::upstream::{Upstream, read_head, whole};

every_protocol!(
    nobody_gets_what_is_anothers,
    a_long_body_takes_no_memory,
    an_app_that_hangs_in_its_answer_is_cut,
);

/// The ways in which the app answers, by the number of the request.
const FAULTS: usize = 10;

/// Answers on one connection; `/USER/N` says who asks, and which fault is wanted.
async fn fail(mut stream: TcpStream) {
    while let Some(head) = read_head(&mut stream).await {
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default();
        let n: usize = target
            .rsplit('/')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        let length = target.len();
        let right = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{target}");
        let (bytes, closes) = match n % FAULTS {
            0 | 1 => (right, false),
            2 => (String::new(), true),
            // Cut at each byte in turn.
            3 => (right[..(n / FAULTS) % right.len()].to_owned(), true),
            // An answer nobody has asked for comes after it.
            4 => (
                format!("{right}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"),
                false,
            ),
            5 => (
                right.replace(
                    &format!("length: {length}"),
                    &format!("length: {}", length + 7),
                ),
                true,
            ),
            6 => (
                right.replace(
                    &format!("length: {length}"),
                    &format!("length: {}", length - 2),
                ),
                false,
            ),
            7 => (
                format!(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{target}\r\n0\r\n\r\n"
                ),
                false,
            ),
            8 => ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), false),
            _ => {
                // A byte at a time.
                for byte in right.bytes() {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                continue;
            }
        };
        if stream.write_all(bytes.as_bytes()).await.is_err() {
            return;
        }
        if closes {
            if n.is_multiple_of(2) {
                // With a reset.
                let _: std::io::Result<()> = stream.set_zero_linger();
            }
            return;
        }
    }
}

/// Has two users send so many requests, side by side on the same edge.
async fn ask_all(protocol: Protocol, requests: usize) {
    let app = Upstream::accepting("127.0.0.1:0", fail).await;
    let edge = TestEdge::with(&app.route());
    let right = Arc::new(AtomicUsize::new(0));
    let mut users = JoinSet::new();
    for user in 0..8 {
        let target = edge.target();
        let right = right.clone();
        users.spawn(async move {
            let mut connection: Option<Connection> = None;
            for n in 0..requests / 8 {
                let open = match connection.take() {
                    Some(open) => open,
                    None => patiently("a connection", Connection::open(&target, protocol))
                        .await
                        .expect("it connects"),
                };
                let mut open = open;
                let path = format!("/user-{}/{user}/{n}", user % 2);
                let request = Request::get(&path).body(full("")).expect("a request");
                let Ok(mut response) = patiently("an answer", open.send(request)).await else {
                    // Over HTTP/1.1 an answer that is cut takes its connection along.
                    continue;
                };
                let status = response.status;
                let Ok(body) = patiently("its body", response.bytes()).await else {
                    continue;
                };
                connection = Some(open);
                let fault = n % FAULTS;
                if status == 200 {
                    let whole = if fault == 6 {
                        &path[..path.len() - 2]
                    } else {
                        path.as_str()
                    };
                    assert_eq!(body, whole, "{path}");
                    right.fetch_add(1, Ordering::Relaxed);
                } else {
                    assert_eq!(status, 502, "{path}");
                    assert!(!matches!(fault, 0 | 1 | 4 | 6 | 7 | 9), "{path}: {body:?}");
                }
            }
        });
    }
    while let Some(user) = users.join_next().await {
        user.expect("no panic");
    }
    // Those that the app has answered well were answered, but for what a connection took along.
    let least = requests * 5 / 10;
    assert!(
        right.load(Ordering::Relaxed) >= least,
        "{right:?} of {requests}"
    );
}

async fn nobody_gets_what_is_anothers(protocol: Protocol) {
    ask_all(protocol, 1600).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn nobody_gets_what_is_anothers_in_100_000_requests() {
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
        ask_all(protocol, 100_000).await;
    }
}

/// Has so many bytes go down and up again, in an edge of its own; it grows by less than its bounds.
async fn stream(protocol: Protocol, bytes: u64) {
    const CHUNK: usize = 64 << 10;
    let app = Upstream::accepting("127.0.0.1:0", move |mut stream| async move {
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        if head.starts_with(b"POST") {
            let mut buffer = vec![0; CHUNK];
            let mut left = bytes;
            while left > 0 {
                match stream.read(&mut buffer).await {
                    Ok(n) if n > 0 => left -= n as u64,
                    _ => return,
                }
            }
            let _: std::io::Result<()> = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
                .await;
            return;
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
        let _: std::io::Result<()> = stream.write_all(head.as_bytes()).await;
        let chunk = vec![b'x'; CHUNK];
        for _ in 0..bytes / CHUNK as u64 {
            if stream.write_all(&chunk).await.is_err() {
                return;
            }
        }
    })
    .await;
    let server = Server::start(&app.route()).await;
    let process = Process::new(server.pid());
    let mut connection = server.connect(protocol).await;
    let before = process.memory().expect("it runs");
    let mut response = patiently("an answer", connection.get("/down"))
        .await
        .expect("an answer");
    let mut most = 0;
    let mut got = 0;
    while let Some(chunk) = patiently("more", response.chunk())
        .await
        .expect("it is not cut")
    {
        got += chunk.len() as u64;
        most = most.max(process.memory().expect("it runs"));
    }
    assert_eq!(got, bytes);
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let chunks = futures_util::stream::iter(
        (0..bytes / CHUNK as u64).map(move |_| Ok(http_body::Frame::data(chunk.clone()))),
    );
    let body = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(chunks));
    let request = Request::post("/up")
        .header("content-length", bytes)
        .body(body)
        .expect("a request");
    let answered = async {
        let mut response = connection.send(request).await.expect("an answer");
        response.bytes().await.expect("a body")
    };
    let mut answered = std::pin::pin!(answered);
    let answer = loop {
        most = most.max(process.memory().expect("it runs"));
        let tick = std::time::Duration::from_millis(20);
        if let Ok(answer) = tokio::time::timeout(tick, answered.as_mut()).await {
            break answer;
        }
    };
    assert_eq!(answer, "done");
    let grown = most.saturating_sub(before);
    assert!(grown < 32 << 20, "{} MiB", grown >> 20);
}

async fn a_long_body_takes_no_memory(protocol: Protocol) {
    stream(protocol, 128 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn ten_gigabytes_take_no_memory() {
    stream(Protocol::Http2, 10 << 30).await;
}

async fn an_app_that_hangs_in_its_answer_is_cut(protocol: Protocol) {
    let app = Upstream::accepting("127.0.0.1:0", |mut stream| async move {
        let _head = read_head(&mut stream).await;
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf";
        let _: std::io::Result<()> = stream.write_all(half.as_bytes()).await;
        // Until the edge lets go of it.
        let _: std::io::Result<usize> = stream.read(&mut [0]).await;
    })
    .await;
    let edge = TestEdge::with(&format!(
        "{}\nlimits.upstream_idle = \"200ms\"",
        app.route()
    ));
    let mut connection = edge.connect(protocol).await;
    // Over HTTP/3 what has come is lost with the stream that is reset, if nobody has read it yet.
    match patiently("an answer", connection.get("/")).await {
        Ok(mut response) => {
            let cut = patiently("the cut", response.bytes()).await;
            assert!(cut.is_err(), "{cut:?}");
        }
        Err(error) => assert_eq!(protocol, Protocol::Http3, "{error}"),
    }
    edge.until_metric(
        "seventh_limit_hits_total{limit=\"limits.upstream_idle\"}",
        1,
    )
    .await;
    edge.until_metric("seventh_upstream_cut_answers_total", 1)
        .await;
}

/// Whoever says of itself that it is unwell is left alone until it says otherwise.
#[tokio::test]
async fn an_app_says_whether_it_is_well() {
    let well = [true, false].map(|well| Arc::new(AtomicBool::new(well)));
    let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut apps = Vec::new();
    for (well, count) in std::iter::zip(well.clone(), counts.clone()) {
        apps.push(
            Upstream::start(move |request| {
                let is_check = request.uri().path() == "/up";
                count.fetch_add(usize::from(!is_check), Ordering::SeqCst);
                let unwell = is_check && !well.load(Ordering::SeqCst);
                let status = if unwell { 503 } else { 200 };
                let response = http::Response::builder().status(status).body(whole("ok"));
                async { response.expect("a response") }
            })
            .await,
        );
    }
    let edge = TestEdge::with(&format!(
        "[[route]]\nhealth = \"/up\"\nupstream = [\"{}\", \"{}\"]",
        apps[0].url(),
        apps[1].url()
    ));
    let mut connection = edge.connect(Protocol::Http2).await;
    let count = |at: usize| counts[at].load(Ordering::SeqCst);
    // The one that is asked for in place of the other, and only that.
    for (wanted, other) in [(0, 1), (1, 0)] {
        well[wanted].store(true, Ordering::SeqCst);
        well[other].store(false, Ordering::SeqCst);
        patiently("the check", async {
            let mut in_a_row = 0;
            while in_a_row < 20 {
                let before = count(wanted);
                let answer = connection.get("/").await.expect("an answer");
                assert_eq!(answer.status, 200);
                in_a_row = if count(wanted) > before {
                    in_a_row + 1
                } else {
                    0
                };
            }
        })
        .await;
    }
    // With none that is well any of them is better than nobody.
    well[1].store(false, Ordering::SeqCst);
    let answer = connection.get("/").await.expect("an answer");
    assert_eq!(answer.status, 200);
}

/// Over TLS an app must be who it says.
#[tokio::test]
async fn an_app_over_https_is_trusted_or_not_asked() {
    let behind = TestEdge::start();
    let text = format!(
        "proxy.upstream = \"https://localhost:{}\"",
        behind.https.port()
    );
    let trusting = Server::start_trusting(&behind.ca(), &text).await;
    let mut connection = trusting.connect(Protocol::Http2).await;
    let request = Request::get("/events?topic=a")
        .header("accept", "text/event-stream")
        .body(full(""));
    let events = Events::ask(&mut connection, request.expect("a request")).await;
    let mut events = events.opened().await;
    behind.publish("a", "over TLS twice").await;
    assert_eq!(events.data(1).await, ["over TLS twice"]);
    let strict = Server::start(&text).await;
    let mut connection = strict.connect(Protocol::Http2).await;
    let answer = patiently("an answer", connection.get("/")).await;
    assert_eq!(answer.expect("an answer").status, 502);
}
