//! The vocabulary of the tests: an edge on free ports, a stream of one, and its publisher.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use seventh::{
    client::{ClientError, Connection, Origin, Protocol, Response, Trust, Upload, full},
    config::{Config, ControlAt},
    edge::{Drained, Edge, StartError},
    process::Process,
    sse::{Item, Message, Parser},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};
use tokio_rustls::client::TlsStream;

/// How long anything that is waited for may take before the test fails. It decides nothing else.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a test of a function for each protocol: `h1::name`, `h2::name` and `h3::name`.
macro_rules! every_protocol {
    ($($name:ident),+ $(,)?) => {
        every_protocol!(@module h1, Http1, $($name),+);
        every_protocol!(@module h2, Http2, $($name),+);
        every_protocol!(@module h3, Http3, $($name),+);
    };
    (multiplexed: $($name:ident),+ $(,)?) => {
        every_protocol!(@module h2_multiplexed, Http2, $($name),+);
        every_protocol!(@module h3_multiplexed, Http3, $($name),+);
    };
    (@module $module:ident, $protocol:ident, $($name:ident),+) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(seventh::client::Protocol::$protocol).await;
                }
            )+
        }
    };
}
pub(crate) use every_protocol;

/// Fails the test when `future` takes too long.
pub async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// An edge in this process, on free ports of loopback.
pub struct TestEdge {
    edge: Edge,
    pub https: SocketAddr,
    pub control: SocketAddr,
    config: Config,
    folder: tempfile::TempDir,
}

impl TestEdge {
    pub fn start() -> Self {
        Self::with("")
    }

    /// With more lines of configuration.
    pub fn with(text: &str) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), text).expect("it starts")
    }

    /// On a certain port.
    pub fn at(https: SocketAddr, text: &str) -> Result<Self, StartError> {
        Self::in_folder(tempfile::tempdir().expect("a folder"), https, text)
    }

    /// With a folder that holds files which the configuration names.
    pub fn in_folder(
        folder: tempfile::TempDir,
        https: SocketAddr,
        text: &str,
    ) -> Result<Self, StartError> {
        let directory = folder.path().display();
        // A test may block the edge that is in its process.
        let text = format!(
            "https.listen = [\"{https}\"]\ncontrol.listen = \"127.0.0.1:0\"\ntls.directory = \"{directory}\"\n\
             limits.lag = \"24h\"\n{text}"
        );
        let config = Config::from_text(&text).expect("it is right");
        let edge = Edge::start(&config)?;
        Ok(Self {
            https: edge.https()[0],
            control: match edge.control() {
                ControlAt::Tcp(address) => *address,
                ControlAt::Unix(_) => ([127, 0, 0, 1], 0).into(),
            },
            edge,
            config,
            folder,
        })
    }

    pub fn http(&self) -> &[SocketAddr] {
        self.edge.http()
    }

    pub fn target(&self) -> Origin {
        self.target_trusting(Trust::Anyone)
    }

    pub fn target_trusting(&self, trust: Trust) -> Origin {
        let url = self.url("/");
        let mut target = Origin::of(&url, trust).expect("a target");
        target.address = Some(self.https);
        target
    }

    /// The CA of its certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A new development certificate, served from now on; the CA before it and its own.
    pub fn renew_certificate(&self) -> [PathBuf; 2] {
        let [ca, before] = ["ca.pem", "before.pem"].map(|name| self.folder.path().join(name));
        std::fs::rename(&ca, &before).expect("it is there");
        self.edge
            .reload_certificate(&self.config.tls)
            .expect("it can be made");
        [before, ca]
    }

    pub fn url(&self, path: &str) -> Uri {
        format!("https://localhost:{}{path}", self.https.port())
            .parse()
            .expect("a URL")
    }

    pub async fn connect(&self, protocol: Protocol) -> Connection {
        patiently("a connection", Connection::open(&self.target(), protocol))
            .await
            .expect("it connects")
    }

    /// The bytes of an HTTP/1.1 connection, for what no client would send.
    pub async fn raw_http1(&self) -> TlsStream<TcpStream> {
        tls_stream(self.https, &self.ca(), b"http/1.1").await
    }

    /// A connection to the control listener.
    pub async fn control(&self, protocol: Protocol) -> Connection {
        let url: Uri = format!("http://{}/", self.control).parse().expect("a URL");
        let target = Origin::of(&url, Trust::System).expect("a target");
        Connection::open(&target, protocol)
            .await
            .expect("it connects")
    }

    /// A stream on a connection of its own.
    pub async fn events(&self, protocol: Protocol, query: &str) -> Events {
        let mut connection = self.connect(protocol).await;
        Events::open(&mut connection, query, &[])
            .await
            .owning(connection)
    }

    /// The same, resuming after `id`.
    pub async fn events_after(&self, protocol: Protocol, query: &str, id: &str) -> Events {
        let mut connection = self.connect(protocol).await;
        Events::open(&mut connection, query, &[("last-event-id", id)])
            .await
            .owning(connection)
    }

    /// Asks the control listener for something.
    pub async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let mut connection = self.control(Protocol::Http1).await;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(full(body))
            .expect("a request");
        Answer::of(&mut connection, request).await
    }

    /// Publishes an event and returns what the edge answers.
    pub async fn publish(&self, topic: &str, data: impl Into<Bytes>) -> Value {
        let answer = self.ask("POST", &format!("/topics/{topic}"), data).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    /// Publishes an event and returns its id.
    pub async fn publish_id(&self, topic: &str, data: impl Into<Bytes>) -> String {
        self.publish(topic, data).await["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    /// The value of one line of the metrics, such as `seventh_event_streams{protocol="h2"}`.
    pub async fn metric(&self, line: &str) -> u64 {
        let answer = self.ask("GET", "/metrics", "").await;
        answer.metric(line).unwrap_or(0)
    }

    /// How often a limit bit.
    pub async fn hits(&self, limit: &str) -> u64 {
        let line = format!("seventh_limit_hits_total{{limit=\"{limit}\"}}");
        self.metric(&line).await
    }

    /// Waits until a metric has a value.
    pub async fn until_metric(&self, line: &str, value: u64) {
        patiently(&format!("{line} {value}"), async {
            while self.metric(line).await != value {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// How many streams read a topic.
    pub async fn subscribers(&self, topic: &str) -> u64 {
        let answer = self.ask("GET", &format!("/topics/{topic}"), "").await;
        answer.json()["subscribers"].as_u64().unwrap_or(0)
    }

    /// Ends the edge in good order.
    pub async fn drain(self) -> Drained {
        patiently("the drain", self.edge.drain()).await
    }
}

/// An answer that has come whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(connection: &mut Connection, request: Request<Upload>) -> Self {
        let mut response = patiently("an answer", connection.send(request))
            .await
            .expect("an answer");
        let bytes = patiently("a body", response.bytes()).await.expect("a body");
        Self {
            status: response.status,
            headers: response.headers,
            text: String::from_utf8(bytes.into()).expect("text"),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// What a line of metrics says, if it is there.
    pub fn metric(&self, line: &str) -> Option<u64> {
        let mut lines = self.text.lines();
        let value = lines.find_map(|text| text.strip_prefix(line)?.strip_prefix(' '));
        value.map(|value| value.parse().expect("a number"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text"))
    }
}

/// An open event stream.
pub struct Events {
    pub response: Response,
    connection: Option<Connection>,
    parser: Parser,
    items: VecDeque<Item>,
}

impl Events {
    /// Opens one on a connection.
    pub async fn open(connection: &mut Connection, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = Request::get(format!("/events?{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let events = Self::ask(connection, request.body(full("")).expect("a request")).await;
        assert_eq!(events.response.headers["content-type"], "text/event-stream");
        events
    }

    /// Opens the one that a request asks for.
    pub async fn ask(connection: &mut Connection, request: Request<Upload>) -> Self {
        let response = patiently("a response", connection.send(request))
            .await
            .expect("a response");
        assert_eq!(response.status, StatusCode::OK);
        Self {
            response,
            connection: None,
            parser: Parser::new(usize::MAX),
            items: VecDeque::new(),
        }
    }

    /// Opens so many on a connection, and reads past the `edge-open` event of each.
    pub async fn open_many(connection: &mut Connection, query: &str, count: usize) -> Vec<Self> {
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(Self::open(connection, query, &[]).await);
        }
        for events in &mut streams {
            events.edge_event("edge-open").await;
        }
        streams
    }

    /// What comes next but for comments, which may come at any time; `None` at a clean end.
    pub async fn item(&mut self) -> Option<Item> {
        loop {
            match self.any_item().await {
                Some(Item::Comment(_)) => {}
                item => return item,
            }
        }
    }

    /// What comes next, comments too; `None` at a clean end.
    pub async fn any_item(&mut self) -> Option<Item> {
        self.try_item().await.expect("the stream is not cut")
    }

    pub async fn try_item(&mut self) -> Result<Option<Item>, ClientError> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            let Some(chunk) = patiently("the stream", self.response.chunk()).await? else {
                return Ok(None);
            };
            let mut items = Vec::new();
            self.parser
                .push(&chunk, &mut items)
                .expect("there is no limit");
            self.items.extend(items);
        }
    }

    /// The next event of any kind.
    pub async fn message(&mut self) -> Message {
        // Comments keep coming, whether there are events or not.
        patiently("an event", async {
            loop {
                match self.item().await {
                    Some(Item::Message(message)) => return message,
                    Some(_) => {}
                    None => panic!("the stream has ended"),
                }
            }
        })
        .await
    }

    /// The `retry` that each stream of the edge begins with.
    pub async fn retry(&mut self) -> Duration {
        match self.any_item().await {
            Some(Item::Retry(retry)) => retry,
            other => panic!("it begins with its retry: {other:?}"),
        }
    }

    /// The next event, which must be the edge's own of this type; its JSON, and its id.
    pub async fn edge_event(&mut self, kind: &str) -> (Value, String) {
        let message = self.message().await;
        assert_eq!(message.event, kind, "{message:?}");
        (
            serde_json::from_str(&message.data).expect("JSON"),
            message.id,
        )
    }

    /// Reads past the `edge-open` event.
    pub async fn opened(mut self) -> Self {
        self.edge_event("edge-open").await;
        self
    }

    /// The data of the next events.
    pub async fn data(&mut self, count: usize) -> Vec<String> {
        let mut data = Vec::new();
        for _ in 0..count {
            data.push(self.message().await.data);
        }
        data
    }

    /// Keeps its connection open as long as it is.
    pub fn owning(mut self, connection: Connection) -> Self {
        self.connection = Some(connection);
        self
    }

    /// Takes a connection that is to live as long as it.
    pub fn own(&mut self, connection: Connection) {
        self.connection = Some(connection);
    }

    /// Gives up the stream's own connection.
    pub fn take_connection(&mut self) -> Option<Connection> {
        self.connection.take()
    }
}

/// Raises the soft limit of open files to the hard one: a crowd of clients takes as many as an edge.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Where it cannot be raised a crowd says so itself.
    let _: rustix::io::Result<()> = setrlimit(Resource::Nofile, raised);
}

/// The resident memory of a process, in bytes.
pub fn memory_of(pid: u32) -> u64 {
    Process::new(pid).memory().expect("it runs")
}

/// TLS settings that trust a CA and speak one protocol.
pub fn tls(ca: &Path, alpn: &[u8]) -> rustls::ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).expect("a certificate");
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

/// What is spoken over is the test's to say.
pub async fn tls_stream(address: SocketAddr, ca: &Path, alpn: &[u8]) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    tls_over(stream, ca, alpn).await
}

/// TLS over a connection that has begun.
pub async fn tls_over(stream: TcpStream, ca: &Path, alpn: &[u8]) -> TlsStream<TcpStream> {
    try_tls(stream, ca, alpn).await.expect("TLS")
}

/// The same, which may fail.
pub async fn try_tls(
    stream: TcpStream,
    ca: &Path,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(ca, alpn)));
    let name = ServerName::try_from("localhost").expect("a name");
    connector.connect(name, stream).await
}

/// Asks for something without TLS; `None` when the connection is not let in.
pub async fn plain_answer(mut stream: TcpStream) -> Option<TcpStream> {
    // One that is turned away is closed at once; one that is let in is answered.
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.ok();
    let mut first = [0; 1];
    let read = patiently("an end or an answer", stream.read(&mut first)).await;
    read.is_ok_and(|read| read == 1).then_some(stream)
}

/// A connection from 127.0.0.`last`.
pub async fn tcp_from(to: SocketAddr, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(([127, 0, 0, last], 0).into())
        .expect("an address of this machine");
    socket.connect(to).await.expect("it connects")
}

/// A request's body that is written as the test goes on.
pub fn streaming() -> (mpsc::Sender<Bytes>, Upload) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = stream::unfold(receiver, |mut receiver| async {
        let bytes = receiver.recv().await?;
        Some((Ok(Frame::data(bytes)), receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// A request that publishes lines, also from outside where this key is known, and what they are
/// written to as the test goes on.
pub fn lines() -> (mpsc::Sender<Bytes>, Request<Upload>) {
    let (lines, body) = streaming();
    let request = Request::post("/publish")
        .header("content-type", "application/x-ndjson")
        .header("authorization", "Bearer 0123456789abcdef")
        .body(body);
    (lines, request.expect("a request"))
}
