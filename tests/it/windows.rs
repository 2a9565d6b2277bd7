//! Flow control: clients that open their windows slowly, and connections whose windows are full.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes};
use futures_util::future::poll_fn;
use http::Request;
use seventh::{
    client::{Protocol, full},
    process::Process,
    sse::{Item, Message, Parser},
};
use tokio::task::JoinHandle;

use crate::commands::Server;
use crate::harness::{Answer, Events, TestEdge, every_protocol, patiently, tls, tls_stream};

every_protocol!(multiplexed:
    an_event_to_all_streams_of_a_connection_leaves_nothing_unsent,
    a_reader_that_crawls_gets_it_all_and_is_not_cut,
    a_backlog_behind_a_small_window_costs_a_cursor,
);

async fn an_event_to_all_streams_of_a_connection_leaves_nothing_unsent(protocol: Protocol) {
    // No keepalive comes within the test's patience, to push out what was left behind.
    let edge = TestEdge::with("limits.http2_streams = 1024\nevents.keepalive = \"200s\"");
    let mut connection = edge.connect(protocol).await;
    let mut streams = Events::open_many(&mut connection, "topic=a", 1000).await;
    // More than a connection has in flight or waiting.
    let data = "x".repeat(600);
    for _ in 0..3 {
        edge.publish("a", data.clone()).await;
        for events in &mut streams {
            assert_eq!(events.data(1).await, [data.as_str()]);
        }
    }
}

async fn a_reader_that_crawls_gets_it_all_and_is_not_cut(protocol: Protocol) {
    const WINDOW: u32 = 1024;
    let edge = TestEdge::with("limits.stall = \"5s\"\nevents.keepalive = \"200s\"");
    let mut crawler = Crawler::open(&edge, protocol, WINDOW, "/events?topic=a").await;
    assert_eq!(crawler.message(Duration::ZERO).await.event, "edge-open");
    let data = "x".repeat(100 * WINDOW as usize);
    edge.publish("a", data.clone()).await;
    edge.publish("a", "and on").await;
    // It takes twice as long as it may take nothing, a little at a time.
    let message = crawler.message(Duration::from_millis(100)).await;
    assert!(message.data == data, "{} bytes", message.data.len());
    assert_eq!(crawler.message(Duration::ZERO).await.data, "and on");
    let stalls = "seventh_limit_hits_total{limit=\"limits.stall\"}";
    assert_eq!(edge.metric(stalls).await, 0);
}

/// Clients ask for a thousand events on each of their streams, and take 600 bytes.
async fn a_backlog_behind_a_small_window_costs_a_cursor(protocol: Protocol) {
    const CONNECTIONS: usize = 5;
    const STREAMS: usize = 490;
    let server = Server::start("events.keepalive = \"100s\"\nlimits.stall = \"100s\"").await;
    let event = serde_json::json!({"topic": "a", "data": "x".repeat(1000)});
    let request = Request::post("/publish")
        .header("content-type", "application/x-ndjson")
        .body(full(format!("{event}\n").repeat(1000)));
    let mut control = server.control().await;
    let answer = Answer::of(&mut control, request.expect("a request")).await;
    assert_eq!(answer.text.lines().count(), 1000);
    let process = Process::new(server.pid());
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = Narrow::connect(server.https, &server.ca(), protocol, 600).await;
        clients.push((client, Vec::new()));
    }
    let before = process.memory().expect("it runs");
    for (client, bodies) in &mut clients {
        for _ in 0..STREAMS {
            bodies.push(client.get("/events?topic=a&last=1000").await);
        }
        for body in bodies {
            let opening = patiently("its opening", body.part(false)).await;
            opening.expect("it is not cut");
        }
    }
    let grown = process.memory().expect("it runs").saturating_sub(before);
    let each = grown / (CONNECTIONS * STREAMS) as u64;
    // A chunk of its own for each would be 16 KiB.
    assert!(each < 7 << 10, "{each} bytes a stream");
}

/// Of what idle streams keep for their next event nobody else can send.
#[tokio::test]
async fn idle_streams_leave_the_window_to_an_answer() {
    // As every client has it that says nothing (RFC 9113 6.9.2).
    const WINDOW: u32 = 65_535;
    let edge = TestEdge::with("events.keepalive = \"200s\"");
    let (sender, connection) = http2(edge.https, &edge.ca(), WINDOW, WINDOW).await;
    let sender = Sender::Http2(sender);
    let mut client = Narrow { sender, connection };
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut body = client.get("/events?topic=idle").await;
        patiently("its opening", body.part(true)).await.expect("it");
        idle.push(body);
    }
    for _ in 0..2 {
        edge.publish("idle", "x".repeat(100)).await;
        for body in &mut idle {
            patiently("the event", body.part(true)).await.expect("it");
        }
    }
    edge.publish("big", "x".repeat(60 << 10)).await;
    let mut answer = client.get("/events?topic=big&last=1&poll=1").await;
    let mut got = 0;
    while let Some(part) = patiently("the answer", answer.part(true)).await {
        got += part.len();
    }
    assert!(got > 60 << 10, "{got} bytes");
}

/// A client with a small window for each stream.
struct Narrow {
    sender: Sender,
    connection: JoinHandle<()>,
}

enum Sender {
    Http2(h2::client::SendRequest<Bytes>),
    Http3(
        h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
        #[expect(dead_code, reason = "held open")] quinn::Endpoint,
    ),
}

enum Body {
    Http2(h2::RecvStream),
    Http3(Box<h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>>),
}

impl Narrow {
    async fn connect(address: SocketAddr, ca: &Path, protocol: Protocol, window: u32) -> Self {
        let connected = async {
            match protocol {
                Protocol::Http2 => {
                    let (sender, connection) = http2(address, ca, window, 1 << 30).await;
                    (Sender::Http2(sender), connection)
                }
                Protocol::Http3 => http3(address, ca, window).await,
                Protocol::Http1 => panic!("it has no windows"),
            }
        };
        let (sender, connection) = patiently("a connection", connected).await;
        Self { sender, connection }
    }

    async fn get(&mut self, path: &str) -> Body {
        let url = format!("https://localhost{path}");
        let request = Request::get(url).body(()).expect("a request");
        let got = async {
            match &mut self.sender {
                Sender::Http2(sender) => {
                    let mut ready = sender.clone().ready().await.expect("it is open");
                    let (response, _) = ready.send_request(request, true).expect("it is sent");
                    Body::Http2(response.await.expect("an answer").into_body())
                }
                Sender::Http3(sender, _) => {
                    let mut stream = sender.send_request(request).await.expect("it is sent");
                    stream.finish().await.expect("it is sent");
                    stream.recv_response().await.expect("an answer");
                    Body::Http3(Box::new(stream))
                }
            }
        };
        patiently("an answer", got).await
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Body {
    /// The next part; the window stays as small as it is by then, if it is to.
    async fn part(&mut self, opens: bool) -> Option<Bytes> {
        match self {
            Self::Http2(stream) => {
                let part = stream.data().await?.ok()?;
                if opens {
                    let flow = stream.flow_control();
                    flow.release_capacity(part.len()).expect("it was taken");
                }
                Some(part)
            }
            Self::Http3(stream) => {
                let mut part = stream.recv_data().await.ok()??;
                Some(part.copy_to_bytes(part.remaining()))
            }
        }
    }
}

/// A reader that opens its window as it reads.
struct Crawler {
    body: Body,
    parser: Parser,
    items: Vec<Item>,
    _client: Narrow,
}

impl Crawler {
    async fn open(edge: &TestEdge, protocol: Protocol, window: u32, path: &str) -> Self {
        let mut client = Narrow::connect(edge.https, &edge.ca(), protocol, window).await;
        Self {
            body: client.get(path).await,
            parser: Parser::new(usize::MAX),
            items: Vec::new(),
            _client: client,
        }
    }

    /// The next event, read with a pause after each part.
    pub async fn message(&mut self, pause: Duration) -> Message {
        loop {
            while !self.items.is_empty() {
                if let Item::Message(message) = self.items.remove(0) {
                    return message;
                }
            }
            let part = patiently("more", self.body.part(true))
                .await
                .expect("it is not cut");
            self.parser.push(&part, &mut self.items).expect("no limit");
            tokio::time::sleep(pause).await;
        }
    }
}

async fn http2(
    address: SocketAddr,
    ca: &Path,
    window: u32,
    of_connection: u32,
) -> (h2::client::SendRequest<Bytes>, JoinHandle<()>) {
    let stream = tls_stream(address, ca, b"h2").await;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(window)
        .initial_connection_window_size(of_connection);
    let handshake = builder.handshake::<_, Bytes>(stream).await;
    let (sender, connection) = handshake.expect("HTTP/2");
    let connection = tokio::spawn(async {
        let _: Result<(), h2::Error> = connection.await;
    });
    (sender, connection)
}

async fn http3(address: SocketAddr, ca: &Path, window: u32) -> (Sender, JoinHandle<()>) {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls(ca, b"h3"));
    let mut config = quinn::ClientConfig::new(Arc::new(crypto.expect("TLS 1.3")));
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(window.into());
    config.transport_config(Arc::new(transport));
    let any = "127.0.0.1:0".parse().expect("an address");
    let endpoint = quinn::Endpoint::client(any).expect("a socket");
    let connecting = endpoint.connect_with(config, address, "localhost");
    let quic = connecting.expect("it is right").await.expect("QUIC");
    let connection = h3_quinn::Connection::new(quic);
    let (mut driver, sender) = h3::client::new(connection).await.expect("HTTP/3");
    let connection = tokio::spawn(async move {
        let _ = poll_fn(|cx| driver.poll_close(cx)).await;
    });
    (Sender::Http3(sender, endpoint), connection)
}
