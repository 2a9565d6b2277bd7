//! Over HTTP/2, frame by frame.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::beside_a_good_client;
use crate::{
    commands::Server,
    h2_frames::{
        ACK, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, HTTPS, PING, POST, PREFACE,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, head, read_frame,
    },
    harness::{patiently, tls_stream},
};

/// One connection at a time, and what it sends in the time that it takes to see it.
const MEMORY: u64 = 32 << 20;
const PRIORITY: u8 = 0x2;
const CONTINUATION: u8 = 0x9;
/// RFC 9113 7.
const ENHANCE_YOUR_CALM: u32 = 0xb;

fn get(path: &str) -> Vec<u8> {
    head(GET, HTTPS, "localhost", path)
}

fn post(path: &str) -> Vec<u8> {
    head(POST, HTTPS, "localhost", path)
}

fn headers(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, block)
}

fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// What comes of a flood.
#[derive(Debug)]
struct End {
    /// The code of the last GOAWAY.
    code: Option<u32>,
    /// What was sent until then, in bytes.
    sent: usize,
}

/// Sends `first`, and then what `more` makes of the number of its turn until the connection ends, reading
/// all the while and acknowledging nothing.
async fn flood(edge: &Server, first: &[u8], more: impl Fn(u32) -> Vec<u8>) -> End {
    let io = tls_stream(edge.https, &edge.ca(), b"h2").await;
    let (mut read, mut write) = tokio::io::split(io);
    let reading = tokio::spawn(async move {
        let mut code = None;
        while let Some(frame) = read_frame(&mut read).await {
            if frame.kind == GOAWAY {
                let said = frame.payload[4..8].try_into().expect("it has a code");
                code = Some(u32::from_be_bytes(said));
            }
        }
        code
    });
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), first].concat();
    let mut sent = 0;
    let _: std::io::Result<()> = write.write_all(&hello).await;
    let mut turn = 0;
    patiently("the end of a flood", async {
        while !reading.is_finished() {
            let bytes: Vec<u8> = (0..32).flat_map(|n| more(turn + n)).collect();
            turn += 32;
            if bytes.is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            } else if write.write_all(&bytes).await.is_err() {
                break;
            }
            sent += bytes.len();
        }
    })
    .await;
    let code = patiently("the end of a flood", reading).await;
    let code = code.expect("it does not panic");
    End { code, sent }
}

#[tokio::test]
async fn floods_of_frames_end_and_are_counted() {
    beside_a_good_client("demo.enabled = true", MEMORY, async |edge| {
        let stream = |turn: u32| 2 * turn + 1;
        let opened = headers(0, 1, &post("/demo/publish"));
        let begun = frame(HEADERS, 0, 1, &get("/"));
        let none: &[u8] = &[];
        type More<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
        let floods: Vec<(&str, &[u8], More, &str)> = vec![
            (
                "rapid reset",
                none,
                Box::new(move |turn| {
                    let asked = headers(END_STREAM, stream(turn), &get("/events?topic=a"));
                    [
                        asked,
                        frame(RST_STREAM, 0, stream(turn), &8u32.to_be_bytes()),
                    ]
                    .concat()
                }),
                "cancelled_requests",
            ),
            // The server is made to reset, which costs what a reset by the client does.
            (
                "resets for windows over 2^31",
                none,
                Box::new(move |turn| {
                    let asked = headers(END_STREAM, stream(turn), &get("/events?topic=a"));
                    [asked, window_update(stream(turn), 0x7fff_ffff)].concat()
                }),
                "cancelled_requests",
            ),
            (
                "settings",
                none,
                Box::new(|_| frame(SETTINGS, 0, 0, &[])),
                "http2_settings",
            ),
            (
                "pings",
                none,
                Box::new(|_| frame(PING, 0, 0, &[7; 8])),
                "http2_pings",
            ),
            (
                "window updates",
                &opened,
                Box::new(|_| window_update(1, 1)),
                "useless_bytes",
            ),
            (
                "priorities",
                none,
                Box::new(|turn| frame(PRIORITY, 0, 2 * (turn % 1000) + 1, &[0, 0, 0, 0, 1])),
                "useless_bytes",
            ),
            (
                "empty data",
                &opened,
                Box::new(|_| frame(DATA, 0, 1, &[])),
                "http2_frames",
            ),
            (
                "data of a byte",
                &opened,
                Box::new(|_| frame(DATA, 0, 1, b"x")),
                "http2_frames",
            ),
            (
                "continuations",
                &begun,
                Box::new(|_| frame(CONTINUATION, 0, 1, &[0x00, 0x01, b'x', 0x01, b'y'])),
                "http2_frames",
            ),
        ];
        for (name, first, more, limit) in floods {
            let mut hits = edge.all_hits().await;
            let end = flood(edge, first, more).await;
            assert_eq!(end.code, Some(ENHANCE_YOUR_CALM), "{name}: {end:?}");
            assert!(end.sent < 32 << 20, "{name}: {end:?}");
            // That one and no other.
            *hits.entry(limit.to_owned()).or_default() += 1;
            assert_eq!(edge.all_hits().await, hits, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn frames_that_must_not_be_end_the_connection() {
    beside_a_good_client("limits.handshake = \"1s\"", MEMORY, async |edge| {
        let asked = headers(END_STREAM, 3, &get("/"));
        let connection_error: [(&str, Vec<u8>); 7] = [
            (
                "data after the end",
                [asked.clone(), frame(DATA, 0, 3, b"x")].concat(),
            ),
            (
                "a window update of nothing",
                [asked.clone(), window_update(3, 0)].concat(),
            ),
            ("an even stream", headers(END_STREAM, 2, &get("/"))),
            (
                "a stream below the last",
                [asked.clone(), headers(END_STREAM, 1, &get("/"))].concat(),
            ),
            ("a window over 2^31", window_update(0, 0x7fff_ffff)),
            ("settings on a stream", frame(SETTINGS, 0, 1, &[])),
            ("a push", frame(0x5, END_HEADERS, 1, &[0, 0, 0, 2])),
        ];
        for (name, bytes) in connection_error {
            let end = flood(edge, &bytes, |_| Vec::new()).await;
            let code = end.code.expect(name);
            assert!(code != 0 && code <= ENHANCE_YOUR_CALM, "{name}: {code}");
        }
        // Half a preface: it has as long as a handshake.
        let before = edge.hits("limits.handshake").await;
        let mut half = tls_stream(edge.https, &edge.ca(), b"h2").await;
        half.write_all(&PREFACE[..10]).await.expect("it is read");
        let mut rest = Vec::new();
        let _: std::io::Result<usize> = patiently("the end", half.read_to_end(&mut rest)).await;
        assert!(edge.hits("limits.handshake").await > before);
    })
    .await;
}

/// What came of requests on a connection of their own.
#[derive(Debug, Default)]
struct Answers {
    /// Heads that say 200, and others.
    ok: usize,
    refused: usize,
    resets: usize,
    goaway: Option<u32>,
}

/// Sends requests, and reads until all are answered or the connection has ended.
async fn answers(server: &Server, settings: &[u8], requests: &[Vec<u8>]) -> Answers {
    let io = tls_stream(server.https, &server.ca(), b"h2").await;
    let (mut read, mut write) = tokio::io::split(io);
    let hello = [
        PREFACE,
        &frame(SETTINGS, 0, 0, settings),
        &requests.concat(),
    ]
    .concat();
    let sending = async {
        let _: std::io::Result<()> = write.write_all(&hello).await;
        let _: std::io::Result<()> = write.flush().await;
    };
    let reading = async {
        let mut answers = Answers::default();
        while answers.ok + answers.refused + answers.resets < requests.len()
            && let Some(frame) = read_frame(&mut read).await
        {
            match frame.kind {
                HEADERS if frame.payload.first() == Some(&OK) => answers.ok += 1,
                HEADERS => answers.refused += 1,
                RST_STREAM => answers.resets += 1,
                GOAWAY => {
                    let code = frame.payload[4..8].try_into().expect("it has a code");
                    answers.goaway = Some(u32::from_be_bytes(code));
                }
                _ => {}
            }
        }
        answers
    };
    patiently("answers", async { tokio::join!(sending, reading).1 }).await
}

/// A request for `path` with more in its header.
fn asking(stream: u32, path: &str, more: &[u8]) -> Vec<u8> {
    headers(END_STREAM, stream, &[&get(path), more].concat())
}

/// `:status: 200`, RFC 7541 A.
const OK: u8 = 0x88;

#[tokio::test]
async fn headers_that_grow_when_they_are_read_are_refused() {
    beside_a_good_client("", MEMORY, async |server| {
        // A field of 4,000 bytes goes into the table, and is then referred to by a byte each time: 16 MiB.
        let field = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000]].concat();
        let bomb = [field, vec![0xbe; 4000]].concat();
        let stream = |n: u32| 2 * n + 1;
        let bombs: Vec<_> = (0..100).map(|n| asking(stream(n), "/", &bomb)).collect();
        let refused = answers(server, &[], &bombs).await;
        assert_eq!((refused.ok, refused.goaway), (0, Some(ENHANCE_YOUR_CALM)));
        let hits = server.all_hits().await;
        assert_eq!(hits, [("http2_frames".to_owned(), 1)].into());
        // More fields than there may be, each a byte.
        let before = server.hits("limits.header_count").await;
        let crumbs: Vec<_> = (0..100)
            .map(|n| asking(stream(n), "/", &[0x90; 100]))
            .collect();
        let refused = answers(server, &[], &crumbs).await;
        assert_eq!((refused.refused, refused.goaway), (100, None));
        assert!(server.hits("limits.header_count").await >= before + 100);
    })
    .await;
}

/// As large a header as there may be on as many streams as there may be, whose peer has no room for what is said
/// to them and answers each PING: what was asked with is not kept, and the streams end.
#[tokio::test]
async fn streams_without_a_window_keep_nothing_of_their_requests() {
    const STREAMS: u32 = 490;
    const CONNECTIONS: usize = 4;
    let text = "limits.stall = \"3s\"\nlimits.http2_streams = 1000";
    // Kept, their headers were 30 MiB.
    let memory = 16 << 20;
    beside_a_good_client(text, memory, async |server| {
        // A field of 230 bytes goes into the table, and is then referred to by a byte each time.
        let field = [&[0x40, 1, b'x', 0x7f, 0x67][..], &[b'y'; 230]].concat();
        let first = [field, vec![0xbe; 54]].concat();
        let path = "/events?topic=good&last=10";
        // SETTINGS_INITIAL_WINDOW_SIZE of 0, RFC 9113 6.5.2.
        let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let mut hello = [PREFACE, &no_window, &asking(1, path, &first)].concat();
        for n in 1..STREAMS {
            hello.extend(asking(2 * n + 1, path, &[0xbe; 55]));
        }
        let ends = (0..CONNECTIONS).map(|_| async {
            let mut io = tls_stream(server.https, &server.ca(), b"h2").await;
            io.write_all(&hello).await.expect("it is read");
            io.flush().await.expect("it is read");
            let (mut opened, mut reset) = (0, 0);
            while reset < STREAMS {
                let got = patiently("an end", read_frame(&mut io)).await;
                let got = got.expect("it goes on");
                match got.kind {
                    HEADERS if got.payload.first() == Some(&OK) => opened += 1,
                    RST_STREAM => reset += 1,
                    PING if got.flags & ACK == 0 => {
                        let answer = frame(PING, ACK, 0, &got.payload);
                        io.write_all(&answer).await.expect("it is read");
                        io.flush().await.expect("it is read");
                    }
                    GOAWAY => panic!("it is no flood: {:?}", got.payload),
                    _ => {}
                }
            }
            assert_eq!(opened, STREAMS);
        });
        futures_util::future::join_all(ends).await;
        let stalled = server.hits("limits.stall").await;
        assert_eq!(stalled, u64::from(STREAMS) * CONNECTIONS as u64);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_tunnelled_that_was_not_asked_for() {
    beside_a_good_client("", MEMORY, async |server| {
        // CONNECT has an authority and no path, RFC 9113 8.5; with a protocol it has all, RFC 8441 4.
        let method = b"\x02\x07CONNECT";
        let plain = [&method[..], b"\x01\x0alocalhost:"].concat();
        let extended = [
            &method[..],
            &[HTTPS, 0x04, 1, b'/'],
            b"\x01\x09localhost",
            b"\x00\x09:protocol\x09websocket",
        ]
        .concat();
        for block in [plain, extended] {
            let refused = answers(server, &[], &[headers(END_STREAM, 1, &block)]).await;
            assert_eq!((refused.ok, refused.refused + refused.resets), (0, 1));
        }
    })
    .await;
}
