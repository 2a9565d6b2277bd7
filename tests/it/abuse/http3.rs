//! Over HTTP/3 and QUIC: what `h3_frames` does not send.

use std::{path::Path, sync::Arc, time::Duration};

use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use seventh::client::Protocol;
use tokio::net::UdpSocket;

use super::beside_a_good_client;
use crate::{
    commands::Server,
    h3_frames::{DATA, Raw, frame, request},
    harness::{TestEdge, patiently, plain_answer, tcp_from, tls},
};

const MEMORY: u64 = 48 << 20;
/// RFC 9114 8.1.
const CLOSED_CRITICAL_STREAM: u64 = 0x104;
const FRAME_UNEXPECTED: u64 = 0x105;
const REQUEST_CANCELLED: u32 = 0x10c;

async fn connect(server: &Server) -> Raw {
    Raw::connect(server.https, &server.ca()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_must_not_be_end_the_connection() {
    let text = "limits.handshake = \"1s\"\nlimits.idle = \"5s\"";
    beside_a_good_client(text, MEMORY, async |server| {
        let raw = connect(server).await;
        let data_first = raw.send(&frame(DATA, b"x")).await;
        assert_eq!(raw.closed_with().await, FRAME_UNEXPECTED);
        drop(data_first);

        let mut raw = connect(server).await;
        assert!(raw.answers().await);
        raw.control().finish().expect("it is open");
        assert_eq!(raw.closed_with().await, CLOSED_CRITICAL_STREAM);

        let mut raw = connect(server).await;
        assert!(raw.answers().await);
        raw.control().reset(0u32.into()).expect("it is open");
        assert_eq!(raw.closed_with().await, CLOSED_CRITICAL_STREAM);

        // Streams on which nothing is asked have as long as a handshake, and then there are none.
        let before = server.hits("limits.handshake").await;
        let raw = connect(server).await;
        let mut begun = Vec::new();
        for _ in 0..50 {
            begun.push(raw.send(&request(&[])[..1]).await);
        }
        patiently("the end", raw.quic.closed()).await;
        assert!(server.hits("limits.handshake").await >= before + 50);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_reset_at_once_are_too_many() {
    beside_a_good_client("", MEMORY, async |server| {
        for _ in 0..3 {
            let before = server.hits("cancelled_requests").await;
            let raw = connect(server).await;
            let asked = request(&[]);
            patiently("the end of a flood", async {
                while let Ok((mut send, mut recv)) = raw.quic.open_bi().await {
                    let _: Result<(), _> = send.write_all(&asked).await;
                    let _: Result<(), _> = send.reset(REQUEST_CANCELLED.into());
                    let _: Result<(), _> = recv.stop(REQUEST_CANCELLED.into());
                }
            })
            .await;
            raw.drowned().await;
            assert_eq!(server.hits("cancelled_requests").await, before + 1);
        }
    })
    .await;
}

/// The first packets of handshakes, each from a client of its own, for a server that never answers. The key
/// share after the quantum takes two packets.
async fn initials(ca: &Path, count: usize) -> Vec<[Vec<u8>; 2]> {
    let crypto = QuicClientConfig::try_from(tls(ca, b"h3")).expect("TLS 1.3");
    let config = ClientConfig::new(Arc::new(crypto));
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    let mut initials = Vec::new();
    for _ in 0..count {
        // Of its own, so that nothing comes there that another client says.
        let deaf = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = deaf.local_addr().expect("an address");
        let connecting = endpoint.connect_with(config.clone(), address, "localhost");
        let connecting = connecting.expect("it is right");
        let mut packets = [const { Vec::new() }; 2];
        for packet in &mut packets {
            let mut buffer = [0; 2048];
            let received = patiently("an Initial", deaf.recv(&mut buffer)).await;
            packet.extend(&buffer[..received.expect("it comes")]);
        }
        initials.push(packets);
        drop(connecting);
    }
    initials
}

/// Whoever sends with an address that is not its own has the edge send to that address: at most three
/// times as much as it sent (RFC 9000 8.1), to each that it may take for a client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_initial_is_answered_with_three_times_as_much_at_most() {
    let text = "limits.handshake = \"2s\"";
    beside_a_good_client(text, MEMORY, async |server| {
        let before = server.hits("limits.handshake").await;
        let mut sockets = Vec::new();
        for initial in initials(&server.ca(), 50).await {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            let mut sent = 0;
            for packet in initial {
                let is_sent = socket.send_to(&packet, server.https).await;
                sent += is_sent.expect("it is sent");
            }
            sockets.push((socket, sent));
        }
        // Until they are given up, which is when nothing more can come.
        patiently("the end of the handshakes", async {
            while server.hits("limits.handshake").await < before + 50 {}
        })
        .await;
        for (socket, sent) in sockets {
            let (mut received, mut buffer) = (0, [0; 2048]);
            while let Ok(bytes) = socket.try_recv(&mut buffer) {
                received += bytes;
            }
            assert!(
                sent / 2 < received && received <= 3 * sent,
                "{received} of {sent}"
            );
        }
    })
    .await;
}

/// Of many at a time most are asked to show that their address is theirs, and cost nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_initials_is_answered_with_retry() {
    beside_a_good_client("limits.handshake = \"4s\"", MEMORY, async |server| {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let mut buffer = [0; 2048];
        for initial in initials(&server.ca(), 500).await {
            for packet in initial {
                let is_sent = socket.send_to(&packet, server.https).await;
                is_sent.expect("it is sent");
            }
            // One by one, as sockets drop what comes in a rush; one may be lost all the same.
            let answer = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut buffer));
            let _: Result<_, _> = answer.await;
        }
        let asked = server.hits("pending_handshakes").await;
        assert!(asked >= 300, "{asked}");
        assert!(connect(server).await.answers().await);
    })
    .await;
}

/// An address that others pretend to have is none the worse for it.
#[tokio::test]
async fn initials_cost_nobody_a_rate() {
    let edge = TestEdge::with(
        "limits.connection_rate = 1\nlimits.exempt = []\nhttp.listen = [\"127.0.0.1:0\"]",
    );
    let socket = UdpSocket::bind("127.0.0.5:0").await.expect("a socket");
    for initial in initials(&edge.ca(), 30).await {
        for packet in initial {
            let is_sent = socket.send_to(&packet, edge.https).await;
            is_sent.expect("it is sent");
        }
        let mut buffer = [0; 2048];
        let answered = patiently("an answer", socket.recv(&mut buffer)).await;
        answered.expect("an answer");
    }
    // Ten at once, as if nobody had come.
    let mut held = Vec::new();
    for _ in 0..10 {
        let stream = tcp_from(edge.http()[0], 5).await;
        held.push(plain_answer(stream).await.expect("it is let in"));
    }
}

/// A client that never opens its control stream may ask for things; one that takes nothing is reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_is_let_go() {
    let text = "limits.stall = \"1s\"";
    beside_a_good_client(text, MEMORY, async |server| {
        let bare = Raw::without_control(server.https, &server.ca()).await;
        assert!(bare.answers().await);
        let mut stuck = Vec::new();
        for _ in 0..20 {
            stuck.push(server.events(Protocol::Http3, "topic=big").await);
        }
        patiently("the end of all", async {
            while server.hits("limits.stall").await < 20 {
                server.publish("/topics/big", vec![b'x'; 200 << 10]).await;
            }
        })
        .await;
        let line = "seventh_event_streams{protocol=\"h3\"}";
        server.until_metric(line, 0).await;
    })
    .await;
}
