//! Hand-made HTTP/3 frames: memory stays bounded, the right code closes what must be closed, and
//! the edge lives on.

use std::sync::Arc;

use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt,
    crypto::rustls::QuicClientConfig,
};
use seventh::{client::Protocol, process::Process};

use crate::{
    commands::Server,
    h2_frames::Field,
    harness::{TestEdge, patiently, tls},
};

pub const EXCESSIVE_LOAD: u64 = 0x107;
const MESSAGE_ERROR: u64 = 0x10e;
pub const DATA: u64 = 0x0;
pub const HEADERS: u64 = 0x1;

pub fn varint(value: u64) -> Vec<u8> {
    match value {
        0..64 => vec![value as u8],
        64..16_384 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
        16_384..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}

pub fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [varint(kind), varint(payload.len() as u64), payload.to_vec()].concat()
}

/// `GET https://localhost/`, with more fields behind.
pub fn request(more: &[&[u8]]) -> Vec<u8> {
    let head: &[&[u8]] = &[
        &[0, 0, 0xc0 | 17, 0xc0 | 23, 0xc0 | 1],
        b"\x50\x09localhost",
    ];
    frame(HEADERS, &[head.concat(), more.concat()].concat())
}

pub struct Raw {
    pub quic: Connection,
    _endpoint: Endpoint,
    control: Option<SendStream>,
}

impl Raw {
    pub async fn connect(server: std::net::SocketAddr, ca: &std::path::Path) -> Self {
        let mut raw = Self::without_control(server, ca).await;
        let mut control = raw.quic.open_uni().await.expect("a stream");
        control
            .write_all(&[&[0][..], &frame(0x4, &[])].concat())
            .await
            .expect("it is read");
        raw.control = Some(control);
        raw
    }

    /// The same, but it opens no control stream.
    pub async fn without_control(server: std::net::SocketAddr, ca: &std::path::Path) -> Self {
        let crypto = QuicClientConfig::try_from(tls(ca, b"h3")).expect("TLS 1.3");
        let endpoint =
            Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
        let config = ClientConfig::new(Arc::new(crypto));
        let quic = endpoint
            .connect_with(config, server, "localhost")
            .expect("it is right")
            .await
            .expect("it connects");
        Self {
            quic,
            _endpoint: endpoint,
            control: None,
        }
    }

    pub fn control(&mut self) -> &mut SendStream {
        self.control.as_mut().expect("it has one")
    }

    pub async fn send(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) = self.quic.open_bi().await.expect("a stream");
        // The edge may close the connection while this is written.
        let _: Result<(), _> = send.write_all(bytes).await;
        (send, recv)
    }

    pub async fn closed_with(&self) -> u64 {
        match patiently("the close", self.quic.closed()).await {
            ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("closed by {other:?}"),
        }
    }

    /// Waits for the end of a flood.
    pub async fn drowned(&self) {
        match patiently("the close", self.quic.closed()).await {
            ConnectionError::ApplicationClosed(close) => {
                assert_eq!(close.error_code.into_inner(), EXCESSIVE_LOAD);
            }
            // The flood may drown the close; what comes after it is answered with a reset.
            ConnectionError::Reset => {}
            other => panic!("closed by {other:?}"),
        }
    }

    /// Whether a plain request is answered.
    pub async fn answers(&self) -> bool {
        let (mut send, mut recv) = self.send(&request(&[])).await;
        send.finish().expect("it is open");
        let answer = patiently("an answer", recv.read_to_end(1 << 20)).await;
        answer.is_ok_and(|bytes| bytes.starts_with(&[HEADERS as u8]))
    }
}

/// Sends a request of these fields as they are, on a connection of its own, and waits for what comes of it.
pub async fn send(edge: &TestEdge, fields: &[Field<'_>], data: &[u8], trailers: &[Field<'_>]) {
    let raw = Raw::connect(edge.https, &edge.ca()).await;
    let section = |fields: &[Field<'_>]| -> Vec<u8> {
        // Literals with literal names (RFC 9204 4.5.6), whose lengths have 3 bits and 7 of their own.
        let literal = |(name, value): &Field<'_>| {
            let length = match name.len() {
                short @ 0..7 => vec![0x20 | short as u8],
                long => vec![0x27, (long - 7) as u8],
            };
            [&length, *name, &[value.len() as u8], *value].concat()
        };
        let fields: Vec<_> = fields.iter().map(literal).collect();
        frame(HEADERS, &[&[0, 0][..], &fields.concat()].concat())
    };
    let mut bytes = section(fields);
    if !data.is_empty() {
        bytes.extend(frame(DATA, data));
    }
    if !trailers.is_empty() {
        bytes.extend(section(trailers));
    }
    let (mut send, mut recv) = raw.send(&bytes).await;
    // The edge may have closed the connection.
    let _: Result<(), _> = send.finish();
    let _: Result<_, _> = patiently("an answer", recv.read_to_end(1 << 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_announce_too_much_close_the_connection() {
    let server = Server::start("").await;
    let process = Process::new(server.pid());
    let before = process.memory().expect("it runs");
    for (what, bytes) in [
        (
            "a field section of 2^40 bytes",
            [varint(HEADERS), varint(1 << 40)].concat(),
        ),
        (
            "an unknown frame of 2^40 bytes",
            [varint(0x21), varint(1 << 40)].concat(),
        ),
        ("settings of 1 MiB", [varint(0x4), varint(1 << 20)].concat()),
        // One byte each: a reference to the static table.
        (
            "26,000 header names",
            frame(HEADERS, &[&[0, 0][..], &[0xc0 | 29; 26_000]].concat()),
        ),
    ] {
        let raw = Raw::connect(server.https, &server.ca()).await;
        let (mut send, _recv) = raw.send(&bytes).await;
        // As much as it will take of what was announced.
        let flood = async { while send.write_all(&[0; 16 << 10]).await.is_ok() {} };
        patiently("the close", flood).await;
        assert_eq!(raw.closed_with().await, EXCESSIVE_LOAD, "{what}");
    }
    let line = "seventh_limit_hits_total{limit=\"http3_frame_bytes\"}";
    server.until_metric(line, 4).await;
    let raw = Raw::connect(server.https, &server.ca()).await;
    let mut control = raw.quic.open_uni().await.expect("a stream");
    control
        .write_all(&[varint(0x54), vec![0; 100]].concat())
        .await
        .expect("it is read");
    assert!(
        raw.answers().await,
        "an unknown unidirectional stream is no harm"
    );
    let grown = process.memory().expect("it runs").saturating_sub(before);
    assert!(grown < 32 << 20, "it cost {grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_stream_is_guarded_too() {
    let server = Server::start("").await;
    let mut raw = Raw::connect(server.https, &server.ca()).await;
    assert!(raw.answers().await);
    raw.control()
        .write_all(&[varint(0x21), varint(1 << 30)].concat())
        .await
        .expect("it is read");
    let closed = patiently("the close", raw.quic.closed()).await;
    let ConnectionError::ApplicationClosed(close) = closed else {
        panic!("{closed:?}")
    };
    assert_eq!(close.error_code.into_inner(), EXCESSIVE_LOAD);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_field_sections_reset_their_stream_alone() {
    let server = Server::start("").await;
    let raw = Raw::connect(server.https, &server.ca()).await;
    for (what, more) in [
        (":method twice", &[0xc0 | 17][..]),
        (":path twice", &[0xc0 | 1]),
        (":status in a request", &[0xc0 | 25]),
        (":authority twice", b"\x50\x01a"),
        ("a late pseudo-header field", b"\x23x-y\x01z\xd1"),
        ("an unknown pseudo-header field", b"\x22:x\x01y"),
    ] {
        let (_send, mut recv) = raw.send(&request(&[more])).await;
        let reset = patiently("the reset", recv.received_reset())
            .await
            .expect("the connection lives");
        assert_eq!(reset.map(VarInt::into_inner), Some(MESSAGE_ERROR), "{what}");
        assert!(raw.answers().await, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_or_resets_in_the_middle_harms_nobody() {
    let edge = TestEdge::start();
    let server = Server::start("").await;
    let raw = Raw::connect(server.https, &server.ca()).await;
    let post = frame(
        HEADERS,
        &[
            &[0, 0, 0xc0 | 20, 0xc0 | 23, 0x51, 13][..],
            b"/demo/publish",
            b"\x50\x09localhost",
        ]
        .concat(),
    );
    for bytes in [request(&[]), post, request(&[])[..5].to_vec(), Vec::new()] {
        // STOP_SENDING while the edge reads the request, then a reset; and the other way round.
        let (mut send, mut recv) = raw.send(&bytes).await;
        recv.stop(0x10cu32.into()).expect("it is open");
        let _: Result<(), _> = send.write_all(&[0x21, 0x01, 0x00]).await;
        let _: Result<(), _> = send.reset(0x10cu32.into());
        let (mut send, mut recv) = raw.send(&bytes).await;
        let _: Result<(), _> = send.reset(0x10cu32.into());
        let _: Result<(), _> = recv.stop(0x10cu32.into());
        assert!(raw.answers().await);
    }
    drop(edge);
    // An event stream that its client stops is gone, though nothing is sent.
    let events = b"\x51\x0f/events?topic=a";
    let get = frame(
        HEADERS,
        &[
            &[0, 0, 0xc0 | 17, 0xc0 | 23][..],
            events,
            b"\x50\x09localhost",
        ]
        .concat(),
    );
    let (mut send, mut recv) = raw.send(&get).await;
    send.finish().expect("it is open");
    recv.read(&mut [0; 16]).await.expect("the head");
    server
        .until_metric("seventh_event_streams{protocol=\"h3\"}", 1)
        .await;
    recv.stop(0x10cu32.into()).expect("it is open");
    server
        .until_metric("seventh_event_streams{protocol=\"h3\"}", 0)
        .await;
    server
        .connect(Protocol::Http3)
        .await
        .get("/")
        .await
        .expect("the edge is alive");
}

/// What none of the streams is too much for, all of them together are: QUIC and h3 count nothing.
#[tokio::test(flavor = "multi_thread")]
async fn floods_are_counted_over_all_streams_of_a_connection() {
    let server = Server::start("").await;
    let reserved = frame(0x21, &[]);
    let large = frame(0x21, &[0; 4096]);
    // A part of a field section that announces more.
    let part = [varint(HEADERS), varint(17 << 10), vec![0; 16 << 10]].concat();
    for (limit, flood) in [
        (
            "http3_unidirectional_streams",
            Flood::Unidirectional(&[0x54, 0]),
        ),
        ("http3_frames", Flood::OneStream(&reserved)),
        ("useless_bytes", Flood::OneStream(&large)),
        ("http3_half_sent", Flood::ManyStreams(&part)),
    ] {
        let raw = Raw::connect(server.https, &server.ca()).await;
        assert!(raw.answers().await);
        let mut open = Vec::new();
        let send = async {
            let (mut one, recv) = raw.quic.open_bi().await.expect("a stream");
            open.push(recv);
            loop {
                let sent = match flood {
                    Flood::Unidirectional(bytes) => match raw.quic.open_uni().await {
                        Ok(mut stream) => stream.write_all(bytes).await.is_ok(),
                        Err(_) => false,
                    },
                    Flood::OneStream(bytes) => one.write_all(bytes).await.is_ok(),
                    Flood::ManyStreams(bytes) => match raw.quic.open_bi().await {
                        Ok((mut stream, recv)) => {
                            open.push(recv);
                            stream.write_all(bytes).await.is_ok()
                        }
                        Err(_) => false,
                    },
                };
                if !sent {
                    break;
                }
            }
        };
        patiently(limit, send).await;
        raw.drowned().await;
        let line = format!("seventh_limit_hits_total{{limit=\"{limit}\"}}");
        server.until_metric(&line, 1).await;
    }
    let raw = Raw::connect(server.https, &server.ca()).await;
    assert!(raw.answers().await);
}

enum Flood<'a> {
    Unidirectional(&'a [u8]),
    OneStream(&'a [u8]),
    ManyStreams(&'a [u8]),
}
