//! Hand-made HTTP/2 frames, on the control listener: there the same driver speaks without TLS.

use bytes::Bytes;
use http::Request;
use seventh::client::Protocol;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    app::App,
    harness::{TestEdge, lines, patiently, tls_stream},
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const GOAWAY: u8 = 0x7;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

/// A field of a request, whatever it holds; each part shorter than 127 bytes.
pub type Field<'a> = (&'a [u8], &'a [u8]);

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Of the table that HPACK begins with (RFC 7541 A).
pub const GET: u8 = 0x82;
pub const POST: u8 = 0x83;
pub const HTTP: u8 = 0x86;
pub const HTTPS: u8 = 0x87;

/// The header of a request; host and path shorter than 127 bytes.
pub fn head(method: u8, scheme: u8, host: &str, path: &str) -> Vec<u8> {
    [
        &[method, scheme, 0x04, path.len() as u8][..],
        path.as_bytes(),
        &[0x01, host.len() as u8],
        host.as_bytes(),
    ]
    .concat()
}

/// A `cookie` of such a header; its value shorter than 127 bytes.
pub fn cookie(value: &str) -> Vec<u8> {
    // Its name is number 32 of the static table (RFC 7541 6.2.2, appendix A).
    [&[0x0f, 32 - 15, value.len() as u8], value.as_bytes()].concat()
}

/// A frame that came.
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

/// The next frame; `None` once the connection has ended.
pub async fn read_frame(io: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    io.read_exact(&mut payload).await.ok()?;
    Some(Frame {
        kind: head[3],
        flags: head[4],
        payload,
    })
}

/// A client that does just what it is told.
struct Raw(TcpStream);

impl Raw {
    async fn connect(edge: &TestEdge, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(edge.control).await.expect("it connects");
        let hello = [
            PREFACE,
            &frame(SETTINGS, 0, 0, settings),
            &frame(SETTINGS, ACK, 0, &[]),
        ]
        .concat();
        stream.write_all(&hello).await.expect("it is read");
        Self(stream)
    }

    /// A GET on stream 1.
    async fn ask(&mut self, edge: &TestEdge, path: &str) {
        let block = head(GET, HTTP, &edge.control.to_string(), path);
        let headers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
        self.0.write_all(&headers).await.expect("it is read");
    }

    /// The next frame's type and payload; `None` once the connection has ended.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let frame = patiently("a frame", read_frame(&mut self.0)).await?;
        Some((frame.kind, frame.payload))
    }
}

/// Sends a request of these fields as they are, on a connection of its own, and waits for what comes of it.
pub async fn send(edge: &TestEdge, fields: &[Field<'_>], data: &[u8], trailers: &[Field<'_>]) {
    let mut io = tls_stream(edge.https, &edge.ca(), b"h2").await;
    let block = |fields: &[Field<'_>]| -> Vec<u8> {
        // Literals without Huffman coding that no table takes (RFC 7541 6.2.2).
        let literal = |text: &[u8]| [&[text.len() as u8], text].concat();
        let fields = fields
            .iter()
            .map(|(name, value)| [&[0][..], &literal(name), &literal(value)].concat());
        fields.collect::<Vec<_>>().concat()
    };
    let (no_data, no_trailers) = (data.is_empty(), trailers.is_empty());
    let ends = |last| END_HEADERS | if last { END_STREAM } else { 0 };
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    bytes.extend(frame(
        HEADERS,
        ends(no_data && no_trailers),
        1,
        &block(fields),
    ));
    if !no_data {
        bytes.extend(frame(DATA, u8::from(no_trailers), 1, data));
    }
    if !no_trailers {
        bytes.extend(frame(HEADERS, ends(true), 1, &block(trailers)));
    }
    let _: std::io::Result<()> = io.write_all(&bytes).await;
    while let Some(frame) = patiently("a frame", read_frame(&mut io)).await {
        if matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY) {
            break;
        }
    }
}

#[tokio::test]
async fn a_window_held_at_zero_resets_the_stream_in_the_end() {
    let edge = TestEdge::with("limits.stall = \"200ms\"");
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    let mut raw = Raw::connect(&edge, &[0, 4, 0, 0, 0, 0]).await;
    raw.ask(&edge, "/topics").await;
    loop {
        match raw.next().await.expect("the connection lives") {
            (RST_STREAM, code) => break assert_eq!(code, [0, 0, 0, 8], "CANCEL"),
            (DATA, _) => panic!("there is no window"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_let_go_when_it_is_idle() {
    let edge = TestEdge::with("limits.idle = \"200ms\"\nlimits.stall = \"200ms\"");
    let mut raw = Raw::connect(&edge, &[]).await;
    raw.ask(&edge, "/healthz").await;
    let mut told = false;
    while let Some((kind, _)) = raw.next().await {
        told |= kind == GOAWAY;
    }
    assert!(told, "it is told to go before it is cut");
}

/// A page that is left while it opens its streams must not take others down with it.
#[tokio::test(flavor = "multi_thread")]
async fn many_streams_cancelled_at_once_leave_the_connection_alone() {
    let edge = TestEdge::start();
    let stream = TcpStream::connect(edge.control).await.expect("it connects");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.expect("it is ready");
    let url = format!("http://{}/healthz", edge.control);
    let get = || Request::get(&url).body(()).expect("a request");
    let opened: Vec<_> = (0..80)
        .map(|_| sender.send_request(get(), true).expect("it is sent"))
        .collect();
    // Dropping them resets them, all in one flight.
    drop(opened);
    let mut sender = patiently("the connection", sender.ready())
        .await
        .expect("it lives");
    let (answer, _) = sender.send_request(get(), true).expect("it is sent");
    assert_eq!(
        patiently("an answer", answer)
            .await
            .expect("an answer")
            .status(),
        200
    );
    connection.abort();
}

/// Bytes that a publisher hands in are of use.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_of_lines_is_no_flood() {
    const LINES: usize = 3_500;
    let edge = TestEdge::start();
    let mut control = edge.control(Protocol::Http2).await;
    let (lines, request) = lines();
    let mut response = control.send(request).await.expect("an answer");
    let padding = "x".repeat(4096);
    let send = async {
        for n in 0..LINES {
            let line = format!("{{\"topic\":\"a\",\"data\":\"{n} {padding}\"}}\n");
            lines.send(Bytes::from(line)).await.expect("it is read");
        }
        drop(lines);
    };
    let (answers, ()) = tokio::join!(patiently("the answers", response.bytes()), send);
    let answers = answers.expect("a clean end");
    assert_eq!(answers.iter().filter(|&&b| b == b'\n').count(), LINES);
}

/// h2 visits every stream at each change of the initial window, and answers each PING; who sends
/// nothing but that is told to calm down, in the middle of what one read brings.
#[tokio::test(flavor = "multi_thread")]
async fn settings_and_pings_have_their_pace() {
    let settings: Vec<u8> = (0..100u8)
        .flat_map(|n| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, n % 2]))
        .collect();
    let pings: Vec<u8> = frame(PING, 0, 0, &[7; 8]).repeat(2000);
    for (flood, limit) in [(settings, "http2_settings"), (pings, "http2_pings")] {
        let edge = TestEdge::start();
        let mut raw = Raw::connect(&edge, &[]).await;
        raw.ask(&edge, "/healthz").await;
        // It may be cut while this is written.
        let _: Result<(), _> = raw.0.write_all(&flood).await;
        let told = loop {
            match raw.next().await {
                Some((GOAWAY, payload)) => break payload[4..8].to_vec(),
                Some(_) => {}
                None => panic!("it is told"),
            }
        };
        assert_eq!(told, [0, 0, 0, 0xb], "ENHANCE_YOUR_CALM");
        let line = format!("seventh_limit_hits_total{{limit=\"{limit}\"}}");
        edge.until_metric(&line, 1).await;
    }
}

/// Whoever resets a stream does not have the edge go on with it: the stream's place is another's.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_is_not_worked_on() {
    let app = App::start().await;
    app.answer("slow", "", "");
    let edge = TestEdge::with(&format!(
        "access.session = \"http://{}/\"\naccess.session_timeout = \"1m\"",
        app.address
    ));
    let stream = tls_stream(edge.https, &edge.ca(), b"h2").await;
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.expect("it is ready");
    let line = "seventh_requests_in_progress{protocol=\"h2\"}";
    let get = Request::get("https://localhost/events?topic=a").header("cookie", "sid=1");
    let get = get.body(()).expect("a request");
    let (answer, _) = sender.send_request(get, true).expect("it is sent");
    edge.until_metric(line, 1).await;
    drop(answer);
    edge.until_metric(line, 0).await;
    connection.abort();
}
