//! Flow control: clients that open their windows slowly, and connections whose windows are full.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes};
use futures_util::future::poll_fn;
use http::Request;
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use seventh::{
    client::Protocol,
    sse::{Item, Message, Parser},
};
use tokio::{net::TcpStream, task::JoinHandle};

use crate::harness::{Events, TestEdge, every_protocol, patiently};

every_protocol!(multiplexed:
    an_event_to_all_streams_of_a_connection_leaves_nothing_unsent,
    a_reader_that_crawls_gets_it_all_and_is_not_cut,
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
    let edge = TestEdge::with("limits.stall = \"1s\"\nevents.keepalive = \"200s\"");
    let mut crawler = Crawler::open(&edge, protocol, WINDOW, "/events?topic=a").await;
    assert_eq!(crawler.message(Duration::ZERO).await.event, "edge-open");
    let data = "x".repeat(100 * WINDOW as usize);
    edge.publish("a", data.clone()).await;
    edge.publish("a", "and on").await;
    // It takes twice as long as it may take nothing, a little at a time.
    let message = crawler.message(Duration::from_millis(20)).await;
    assert!(message.data == data, "{} bytes", message.data.len());
    assert_eq!(crawler.message(Duration::ZERO).await.data, "and on");
    let stalls = "seventh_limit_hits_total{limit=\"limits.stall\"}";
    assert_eq!(edge.metric(stalls).await, 0);
}

/// A client with a small window for each stream, which it opens as it reads.
pub struct Crawler {
    body: Body,
    parser: Parser,
    items: Vec<Item>,
    connection: JoinHandle<()>,
}

enum Body {
    Http2(h2::RecvStream),
    Http3(
        Box<h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>>,
        #[expect(dead_code, reason = "held open")] quinn::Endpoint,
    ),
}

impl Crawler {
    pub async fn open(edge: &TestEdge, protocol: Protocol, window: u32, path: &str) -> Self {
        let url = format!("https://localhost:{}{path}", edge.https.port());
        let request = Request::get(url).body(()).expect("a request");
        let opened = async {
            match protocol {
                Protocol::Http2 => http2(edge, window, request).await,
                Protocol::Http3 => http3(edge, window, request).await,
                Protocol::Http1 => panic!("it has no windows"),
            }
        };
        let (body, connection) = patiently("a crawler", opened).await;
        Self {
            body,
            parser: Parser::new(usize::MAX),
            items: Vec::new(),
            connection,
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
            let part = patiently("more", self.part()).await.expect("it is not cut");
            self.parser.push(&part, &mut self.items).expect("no limit");
            tokio::time::sleep(pause).await;
        }
    }

    async fn part(&mut self) -> Option<Bytes> {
        match &mut self.body {
            Body::Http2(stream) => {
                let part = stream.data().await?.ok()?;
                let flow = stream.flow_control();
                flow.release_capacity(part.len()).expect("it was taken");
                Some(part)
            }
            Body::Http3(stream, _) => {
                let mut part = stream.recv_data().await.ok()??;
                Some(part.copy_to_bytes(part.remaining()))
            }
        }
    }
}

impl Drop for Crawler {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn tls(edge: &TestEdge, alpn: &[u8]) -> rustls::ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(edge.ca()).expect("a certificate");
    roots.add(ca).expect("a root");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls
}

async fn http2(edge: &TestEdge, window: u32, request: Request<()>) -> (Body, JoinHandle<()>) {
    let stream = TcpStream::connect(edge.https).await.expect("it listens");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(edge, b"h2")));
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = connector.connect(name, stream).await.expect("TLS");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    let handshake = builder.handshake::<_, Bytes>(stream).await;
    let (mut sender, connection) = handshake.expect("HTTP/2");
    let connection = tokio::spawn(async {
        let _: Result<(), h2::Error> = connection.await;
    });
    let (response, _) = sender.send_request(request, true).expect("it is sent");
    let body = response.await.expect("an answer").into_body();
    (Body::Http2(body), connection)
}

async fn http3(edge: &TestEdge, window: u32, request: Request<()>) -> (Body, JoinHandle<()>) {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls(edge, b"h3"));
    let mut config = quinn::ClientConfig::new(Arc::new(crypto.expect("TLS 1.3")));
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(window.into());
    config.transport_config(Arc::new(transport));
    let any = "127.0.0.1:0".parse().expect("an address");
    let endpoint = quinn::Endpoint::client(any).expect("a socket");
    let connecting = endpoint.connect_with(config, edge.https, "localhost");
    let quic = connecting.expect("it is right").await.expect("QUIC");
    let connection = h3_quinn::Connection::new(quic);
    let (mut driver, mut sender) = h3::client::new(connection).await.expect("HTTP/3");
    let connection = tokio::spawn(async move {
        let _ = poll_fn(|cx| driver.poll_close(cx)).await;
    });
    let mut stream = sender.send_request(request).await.expect("it is sent");
    stream.finish().await.expect("it is sent");
    stream.recv_response().await.expect("an answer");
    // The last sender that is dropped ends the connection.
    let connection = tokio::spawn(async move {
        let _sender = sender;
        let _: Result<(), _> = connection.await;
    });
    (Body::Http3(Box::new(stream), endpoint), connection)
}
