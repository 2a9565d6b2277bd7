//! The program as people start it: its words, its exit status, its signals.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::Uri;
use seventh::{
    client::{ClientError, Connection, Origin, Protocol, Trust},
    sse::Item,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::harness::{Answer, Events, patiently, raise_open_files, tls_over};

pub fn program() -> Command {
    bare(Command::new(env!("CARGO_BIN_EXE_seventh")))
}

/// Without what the environment would say to the program.
pub fn bare(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SEVENTH_")) {
        command.env_remove(name);
    }
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// The program with a socket that is bound already, as systemd passes it (sd_listen_fds(3)).
fn activated(socket: OwnedFd) -> Command {
    let mut shell = bare(Command::new("sh"));
    let pass = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
    shell.args(["-c", pass, env!("CARGO_BIN_EXE_seventh")]);
    shell.stdin(socket);
    shell
}

fn folder_with(text: &str) -> tempfile::TempDir {
    raise_open_files();
    let folder = tempfile::tempdir().expect("a folder");
    // A machine that is busy with tests may be as late as it likes, unless that is what is tested.
    let patient = if text.contains("limits.lag") {
        ""
    } else {
        "limits.lag = \"24h\"\n"
    };
    let text = format!("{patient}{text}");
    std::fs::write(folder.path().join("seventh.toml"), text).expect("it is written");
    folder
}

/// Asks for something on a connection to the control listener.
pub async fn ask(
    control: &mut Connection,
    method: &str,
    path: &str,
    body: impl Into<Bytes>,
) -> Answer {
    let request = http::Request::builder().method(method).uri(path);
    let request = request.body(seventh::client::full(body));
    Answer::of(control, request.expect("a request")).await
}

/// An edge in a process of its own, in a folder of its own.
pub struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
    folder: tempfile::TempDir,
    pub https: SocketAddr,
    control: SocketAddr,
}

impl Server {
    /// With a `seventh.toml` of this text.
    pub async fn start(text: &str) -> Self {
        Self::start_in(folder_with(text), program(), "127.0.0.1:0").await
    }

    /// With a CA that it trusts as it trusts the system's.
    pub async fn start_trusting(ca: &Path, text: &str) -> Self {
        let mut command = program();
        command.env("SSL_CERT_FILE", ca);
        Self::start_in(folder_with(text), command, "127.0.0.1:0").await
    }

    /// With few open files, as a shell's `ulimit` has it.
    pub async fn start_with_files(soft: u32, hard: u32, text: &str) -> Self {
        let mut shell = bare(Command::new("sh"));
        let limits = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$0\" \"$@\"");
        shell.args(["-c", &limits, env!("CARGO_BIN_EXE_seventh")]);
        Self::start_in(folder_with(text), shell, "127.0.0.1:0").await
    }

    /// By another program, which is given this one to start.
    pub async fn start_by(mut command: Command, text: &str) -> Self {
        command.arg(env!("CARGO_BIN_EXE_seventh"));
        Self::start_in(folder_with(text), bare(command), "127.0.0.1:0").await
    }

    /// With a socket that is bound already, as systemd passes it.
    async fn start_with_socket(socket: OwnedFd, https: &str, text: &str) -> Self {
        Self::start_in(folder_with(text), activated(socket), https).await
    }

    /// Ends it as a crash would, and starts it again in its place.
    pub async fn crash_and_restart(mut self) -> Self {
        self.child.kill().await.expect("it runs");
        let address = self.https.to_string();
        Self::start_in(self.folder, program(), &address).await
    }

    async fn start_in(folder: tempfile::TempDir, mut command: Command, https: &str) -> Self {
        let mut child = command
            .args(["--https", https, "--control", "127.0.0.1:0"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut said = Vec::new();
        while !said
            .last()
            .is_some_and(|line: &String| line.starts_with("publish"))
        {
            let line = patiently("a line", lines.next_line()).await.expect("text");
            said.push(line.expect("it says where it listens"));
        }
        let address = |word: &str, scheme: &str| -> SocketAddr {
            let line = said
                .iter()
                .find(|line| line.starts_with(word))
                .expect("a line");
            let address = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix(scheme));
            address.expect("an address").parse().expect("an address")
        };
        Self {
            https: address("listening", "https://"),
            control: address("control", "http://"),
            child,
            lines,
            said,
            folder,
        }
    }

    /// Where it listens, without a path.
    pub fn address(&self) -> String {
        format!("https://{}", self.https)
    }

    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("certs/ca.pem")
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.https.port())
    }

    pub async fn connect(&self, protocol: Protocol) -> Connection {
        self.try_connect(protocol).await.expect("it connects")
    }

    pub async fn try_connect(&self, protocol: Protocol) -> Result<Connection, ClientError> {
        let url: Uri = self.url("/").parse().expect("a URL");
        let mut target = Origin::of(&url, Trust::Ca(self.ca())).expect("a target");
        target.address = Some(self.https);
        Connection::open(&target, protocol).await
    }

    pub async fn control(&self) -> Connection {
        let url: Uri = format!("http://{}", self.control).parse().expect("a URL");
        let target = Origin::of(&url, Trust::System).expect("a target");
        Connection::open(&target, Protocol::Http1)
            .await
            .expect("it connects")
    }

    pub async fn publish(&self, path: &str, data: impl Into<Bytes>) -> Answer {
        ask(&mut self.control().await, "POST", path, data).await
    }

    pub async fn events(&self, protocol: Protocol, query: &str) -> Events {
        let mut connection = self.connect(protocol).await;
        Events::open(&mut connection, query, &[])
            .await
            .owning(connection)
    }

    pub async fn until_metric(&self, line: &str, value: u64) {
        patiently(&format!("{line} {value}"), async {
            while self.metric(line).await != value {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// How often each limit bit, of those that did.
    pub async fn all_hits(&self) -> BTreeMap<String, u64> {
        let answer = ask(&mut self.control().await, "GET", "/metrics", "").await;
        let lines = answer.text.lines().filter_map(|line| {
            let line = line.strip_prefix("seventh_limit_hits_total{limit=\"")?;
            let (limit, hits) = line.split_once("\"} ")?;
            Some((limit.to_owned(), hits.parse().expect("a number")))
        });
        lines.filter(|(_, hits)| *hits > 0).collect()
    }

    /// How often a limit bit.
    pub async fn hits(&self, limit: &str) -> u64 {
        let line = format!("seventh_limit_hits_total{{limit=\"{limit}\"}}");
        self.metric(&line).await
    }

    pub async fn metric(&self, line: &str) -> u64 {
        let answer = ask(&mut self.control().await, "GET", "/metrics", "").await;
        answer.metric(line).expect("it is there")
    }

    pub fn signal(&self, name: &str) {
        let status = std::process::Command::new("kill")
            .args([name, &self.pid().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// Ends it in good order; its status and what it logged.
    pub async fn stopped(self) -> (Option<i32>, String) {
        self.signal("-TERM");
        self.ended().await
    }

    /// Waits for its end; its status and what it logged.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        patiently("its end", stderr.read_to_string(&mut log))
            .await
            .expect("text");
        let status = patiently("its end", self.child.wait())
            .await
            .expect("a status");
        while let Ok(Some(_)) = self.lines.next_line().await {}
        (status.code(), log)
    }
}

/// Runs the program to its end, in an empty folder.
async fn run(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    run_in(folder.path(), args).await
}

async fn run_in(folder: &Path, args: &[&str]) -> Output {
    patiently("its end", program().args(args).current_dir(folder).output())
        .await
        .expect("it runs")
}

/// A failure is one or more clear lines and a non-zero status, never a backtrace.
pub fn refused(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    assert!(matches!(code, Some(1 | 3 | 4 | 5)), "{code:?}: {text}");
    assert!(
        !text.contains("panicked") && !text.contains("backtrace"),
        "{text}"
    );
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_it_listens_and_how_to_publish() {
    let server = Server::start("").await;
    let port = server.https.port();
    let said = server.said.join("\n");
    assert!(
        said.contains(&format!("open           https://localhost:{port}/")),
        "{said}"
    );
    assert!(said.contains("certs/ca.pem"), "{said}");
    assert!(
        said.contains(&format!(
            "curl -d hello http://{}/topics/demo/0",
            server.control
        )),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_in_good_order_on_sigterm_and_on_sigint() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::start("drain.spread = \"100ms\"").await;
        let mut events = server
            .events(Protocol::Http2, "topic=a")
            .await
            .opened()
            .await;
        server.signal(signal);
        assert!(matches!(events.item().await, Some(Item::Retry(_))));
        assert_eq!(events.item().await, None);
        drop(events);
        let (status, log) = server.ended().await;
        assert_eq!(status, Some(0), "{log}");
        assert!(log.contains("ended in good order"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_about_a_connection_says_whose_it_is() {
    let server = Server::start("log.filter = \"debug\"\ndrain.spread = \"100ms\"").await;
    // Neither TLS nor anything else that is expected.
    let mut stranger = tokio::net::TcpStream::connect(server.https)
        .await
        .expect("it listens");
    let address = stranger.local_addr().expect("an address");
    stranger
        .write_all(b"hello, is anybody there?\r\n")
        .await
        .expect("it is sent");
    let read = patiently("its end", stranger.read_to_end(&mut Vec::new())).await;
    drop(read);
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
        let mut connection = server.connect(protocol).await;
        let response = connection.get("/nothing").await.expect("an answer");
        assert_eq!(response.status, 404);
    }
    let mut connection = server.connect(Protocol::Http2).await;
    let response = connection.get("/events?topic=$seKret&last=seKret").await;
    assert_eq!(response.expect("an answer").status, 400);
    server.signal("-TERM");
    let (_, log) = server.ended().await;
    assert!(!log.contains("seKret"), "{log}");
    let of = |what: &str| {
        let line = log.lines().find(|line| line.contains(what));
        line.unwrap_or_else(|| panic!("{what}: {log}")).to_owned()
    };
    let failed = of("handshake failed");
    assert!(failed.contains(&format!("client={address}")), "{failed}");
    for protocol in ["h1", "h2", "h3"] {
        let span = format!("protocol=\"{protocol}\"}}: refused");
        assert!(of(&span).contains("client=127.0.0.1:"), "{log}");
    }
}

/// Nothing that may be a secret is in the log, whatever becomes of the request.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log() {
    let app = crate::app::App::start().await;
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    let server = Server::start(&format!(
        "log.filter = \"debug\"\ndrain.spread = \"100ms\"\naccess.session = \"http://{}/session\"\n\
         access.publish_claim = true\naccess.audience = \"here\"\n[[access.key]]\nalgorithm = \"HS256\"\n\
         secret = \"seKret-seKret-seKret-seKret-seKret\"\n[[route]]\npath = \"/app/**\"\nupstream = \"http://{}\"\n",
        app.address, app.address
    ))
    .await;
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
        for (method, path, name, value) in [
            (
                "GET",
                "/events?topic=seKret&ticket=seKret&lastEventId=seKret",
                "accept",
                "*/*",
            ),
            (
                "GET",
                "/events?topic=seKret&poll=1&last=seKret",
                "cookie",
                "seventh=seKret; sid=seKret",
            ),
            ("HEAD", "/events?topic=seKret", "cookie", "sid=seKret"),
            (
                "HEAD",
                "/events?topic=seKret",
                "authorization",
                "Bearer seKret.seKret.seKret",
            ),
            (
                "POST",
                "/publish?seKret",
                "authorization",
                "Bearer seKret-seKret-seKret",
            ),
            ("POST", "/tickets?seKret", "authorization", "Bearer seKret"),
            (
                "GET",
                "/topics/a/events?after=seKret&more=seKret",
                "origin",
                "https://seKret.example",
            ),
            ("GET", "/app/?seKret=1", "cookie", "sid=seKret"),
            (
                "GET",
                "/app/../seKret",
                "referer",
                "https://example.org/?seKret",
            ),
        ] {
            let mut connection = server.connect(protocol).await;
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header(name, value);
            let request = request
                .body(seventh::client::full("seKret"))
                .expect("a request");
            Answer::of(&mut connection, request).await;
        }
    }
    let path = "/tickets?seKret=1";
    ask(
        &mut server.control().await,
        "POST",
        path,
        "{\"user\":\"seKret\",\"seKret\":1}",
    )
    .await;
    server.signal("-TERM");
    let (_, log) = server.ended().await;
    assert!(log.contains("refused"), "{log}");
    let leak = log.lines().find(|line| line.contains("seKret"));
    assert_eq!(leak, None);
}

/// Who connects while nobody serves is served by the next: the socket is another's, and stays open.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_passed_turns_nobody_away_at_a_restart() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let passed = || socket.try_clone().expect("a handle").into();
    let text = "drain.spread = \"100ms\"";
    let first = Server::start_with_socket(passed(), &address.to_string(), text).await;
    assert_eq!(first.https, address);
    for protocol in [Protocol::Http2, Protocol::Http3] {
        let mut connection = first.connect(protocol).await;
        assert_eq!(connection.get("/").await.expect("an answer").status, 200);
    }
    first.signal("-TERM");
    let (status, log) = first.ended().await;
    assert_eq!(status, Some(0), "{log}");
    let between = tokio::net::TcpStream::connect(address).await;
    let second = Server::start_with_socket(passed(), &address.to_string(), text).await;
    let (between, ca) = (between.expect("it waits"), second.ca());
    patiently("TLS", tls_over(between, &ca, b"http/1.1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_udp_is_taken_too() {
    // An address that no other test uses: its port is free over TCP too.
    let socket = UdpSocket::bind("127.0.0.3:0").expect("a port");
    let address = socket.local_addr().expect("an address").to_string();
    let server = Server::start_with_socket(socket.into(), &address, "").await;
    let mut connection = server.connect(Protocol::Http3).await;
    assert_eq!(connection.get("/").await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_for_which_nothing_listens_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let end = async |socket: OwnedFd| {
        let mut program = activated(socket);
        let program = program.args(["--https", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
        let output = program.current_dir(folder.path()).output();
        refused(&patiently("its end", output).await.expect("it runs"))
    };
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let said = end(socket.into()).await;
    let expected = format!("a socket on {address} was passed over TCP, and nothing listens there");
    assert!(said.contains(&expected), "{said}");
    let file = std::fs::File::open("/dev/null").expect("it is there");
    let said = end(file.into()).await;
    assert!(said.contains("socket 1 of 1 cannot be used"), "{said}");
}

/// The soft limit is no bound at all, and the hard one leaves room for the operator.
#[tokio::test(flavor = "multi_thread")]
async fn open_files_do_not_run_out() {
    let text = "limits.handshake = \"60s\"\nlimits.connections = 10000";
    let server = Server::start_with_files(100, 200, text).await;
    let mut connections = Vec::new();
    for _ in 0..200 {
        let connection = tokio::net::TcpStream::connect(server.https).await;
        connections.push(connection.expect("it connects"));
    }
    let turned_away = "seventh_limit_hits_total{limit=\"limits.connections\"}";
    server.until_metric(turned_away, 64).await;
    server.until_metric("seventh_accept_errors_total", 0).await;
    drop(connections);
    server.signal("-TERM");
    let (status, log) = server.ended().await;
    assert_eq!(status, Some(0), "{log}");
    assert!(
        log.contains("limits.connections = 10000 is lowered to 136"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_does_not_end_it() {
    let server = Server::start("log.filter = \"info\"\ndrain.spread = \"100ms\"").await;
    server.signal("-HUP");
    let mut events = server
        .events(Protocol::Http2, "topic=a")
        .await
        .opened()
        .await;
    let mut control = server.control().await;
    let request = http::Request::post("/topics/a").body(seventh::client::full("still here"));
    Answer::of(&mut control, request.expect("a request")).await;
    assert_eq!(events.data(1).await, ["still here"]);
    server.signal("-TERM");
    drop(events);
    let (status, log) = server.ended().await;
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("SIGHUP: nothing is reloaded"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let server = Server::start("drain.spread = \"1h\"\ndrain.grace = \"2h\"").await;
    let _events = server
        .events(Protocol::Http1, "topic=a")
        .await
        .opened()
        .await;
    server.signal("-TERM");
    let mut control = server.control().await;
    patiently("the drain to begin", async {
        while control.get("/readyz").await.expect("an answer").status != 503 {
            control = server.control().await;
        }
    })
    .await;
    server.signal("-TERM");
    let (status, log) = server.ended().await;
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("ended at once"), "{log}");
}

/// A port that a listener may have over TCP, and not over UDP.
///
/// The TCP socket, bound but not listening, keeps it from the tests beside this one, whose port 0
/// is never one that is bound, and not from a listener that asks for it by number: both have
/// SO_REUSEADDR.
fn free_for_tcp_taken_for_udp() -> (socket2::Socket, UdpSocket, String) {
    use socket2::{Domain, Socket, Type};
    loop {
        let tcp = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        tcp.set_reuse_address(true).expect("an option");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        tcp.bind(&any.into()).expect("a port");
        let bound = tcp.local_addr().expect("an address").as_socket();
        let bound = bound.expect("an IP address");
        if let Ok(udp) = UdpSocket::bind(bound) {
            return (tcp, udp, bound.to_string());
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let https = refused(&run(&["--https", &address, "--control", "127.0.0.1:0"]).await);
    assert!(
        https.contains(&format!("https.listen: cannot listen on {address} (TCP)")),
        "{https}"
    );
    assert!(https.contains("another program has the port"), "{https}");
    assert_eq!(https.lines().count(), 1, "{https}");
    assert_eq!(https.matches("in use").count(), 1, "said once: {https}");
    let control = refused(&run(&["--https", "127.0.0.1:0", "--control", &address]).await);
    assert!(
        control.contains("control.listen: cannot listen on"),
        "{control}"
    );
    let (_tcp, _udp, address) = free_for_tcp_taken_for_udp();
    let quic = refused(&run(&["--https", &address, "--control", "127.0.0.1:0"]).await);
    assert!(quic.contains("(UDP)"), "{quic}");
}

#[tokio::test]
async fn every_mistake_of_a_configuration_is_reported_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "[history]\nevnts = 1\nage = \"x\"\n[control]\nlisten = \"0.0.0.0:1\"\n";
    std::fs::write(folder.path().join("seventh.toml"), text).expect("it is written");
    let said = refused(&run_in(folder.path(), &["--https", "nowhere"]).await);
    for key in [
        "history.evnts: unknown key",
        "history.age: `x`",
        "control.listen: 0.0.0.0:1",
        "https.listen: `nowhere`",
    ] {
        assert!(said.contains(key), "{said}");
    }
    let missing = run(&["--config", "missing.toml"]).await;
    assert_eq!(missing.status.code(), Some(3), "the configuration");
    let missing = refused(&missing);
    assert!(
        missing.contains("missing.toml: cannot be read"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_configuration_is_checked_without_a_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |text: &str| {
        std::fs::write(folder.path().join("seventh.toml"), text).expect("it is written");
    };
    write("history.events = 5");
    let good = run_in(folder.path(), &["check"]).await;
    assert!(good.status.success());
    assert_eq!(good.stdout, b"the configuration is good\n");
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 1, "nothing was made");
    write("history.evnts = 5");
    let said = refused(&run_in(folder.path(), &["check"]).await);
    assert!(said.contains("history.evnts: unknown key"), "{said}");
    write("tls.cert = \"a.pem\"\ntls.key = \"a.pem\"");
    let said = refused(&run_in(folder.path(), &["check"]).await);
    assert!(said.contains("tls.cert a.pem: No such file"), "{said}");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_one_clear_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = ["--https", "127.0.0.1:0", "--control", "127.0.0.1:0"];
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("it is written");
    };
    write("seventh.toml", "tls.cert = \"a.pem\"\ntls.key = \"a.pem\"");
    let said = refused(&run_in(folder.path(), &start).await);
    assert!(said.contains("tls.cert a.pem: No such file"), "{said}");
    write("a.pem", "nothing");
    let said = refused(&run_in(folder.path(), &start).await);
    assert!(
        said.contains("tls.cert a.pem: it holds none; it must be PEM"),
        "{said}"
    );
    write("seventh.toml", "tls.directory = \"a.pem\"");
    let said = refused(&run_in(folder.path(), &start).await);
    assert!(
        said.contains("set tls.directory to a folder that can be written"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_and_listen_work_together() {
    let server = Server::start("").await;
    let url = server.url("/events?topic=news");
    let control = format!("http://{}", server.control);
    let ca = server.ca().display().to_string();
    for http in ["1.1", "2", "3"] {
        let mut listen = program()
            .args([
                "listen", "--http", http, "--ca", &ca, "--json", "--count", "4", &url,
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(listen.stdout.take().expect("it is piped")).lines();
        let mut next = async || -> serde_json::Value {
            let line = patiently("a line", lines.next_line())
                .await
                .expect("text")
                .expect("a line");
            serde_json::from_str(&line).expect("JSON")
        };
        assert_eq!(next().await["signal"], "open");
        assert_eq!(next().await["event"], "edge-open");
        let args = [
            "publish",
            "news",
            "hello",
            "--event",
            "greeting",
            "--id",
            http,
            "--idempotency-key",
            http,
            "--control",
            &control,
        ];
        assert!(run(&args).await.status.success());
        let again = String::from_utf8(run(&args).await.stdout).expect("text");
        assert!(again.contains("\"duplicate\":true"), "{again}");
        let message = next().await;
        assert_eq!(
            (&message["event"], &message["data"], &message["id"]),
            (&"greeting".into(), &"hello".into(), &http.into())
        );

        let mut publish = program()
            .args(["publish", "news", "-", "--control", &control])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut input = publish.stdin.take().expect("it is piped");
        for line in ["one\n", "two\n"] {
            // Each arrives before the next is written.
            input.write_all(line.as_bytes()).await.expect("it is read");
            assert_eq!(next().await["data"], line.trim());
        }
        drop(input);
        let answers = patiently("its end", publish.wait_with_output())
            .await
            .expect("it ends");
        assert!(answers.status.success());
        assert_eq!(String::from_utf8_lossy(&answers.stdout).lines().count(), 2);
        assert!(
            patiently("its end", listen.wait())
                .await
                .expect("it ends")
                .success()
        );
    }
    let wrong = run(&["publish", "$x", "data", "--control", &control]).await;
    assert_eq!(wrong.status.code(), Some(5), "it was refused");
    let wrong = refused(&wrong);
    assert!(wrong.contains("topic begins with `$`"), "{wrong}");
    let wrong = run(&["listen", "--ca", &ca, &server.url("/nothing")]).await;
    assert_eq!(wrong.status.code(), Some(5), "it was refused");
    let wrong = refused(&wrong);
    assert!(
        wrong.contains("the server answered 404 Not Found: there is nothing at this path"),
        "{wrong}"
    );
    let wrong = run(&["publish", "a", "b", "--control", "http://127.0.0.1:1"]).await;
    assert_eq!(wrong.status.code(), Some(4), "it cannot be reached");
    let wrong = refused(&wrong);
    assert!(wrong.contains("cannot connect to 127.0.0.1:1"), "{wrong}");
    let wrong = run(&["publish", "a", "b", "--no-such-flag"]).await;
    assert_eq!(wrong.status.code(), Some(2), "it is not an argument");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_reached_and_seen_from_the_command_line() {
    let secret = "0123456789abcdef0123456789abcdef";
    let server = Server::start(&format!(
        "control.token = \"correct-horse-battery\"\naccess.audience = \"here\"\n\
         [[access.key]]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n[groups]\nstaff = [\"editors\"]\n"
    ))
    .await;
    let control = server.control_url();
    let file = server.folder.path().join("token");
    std::fs::write(&file, "correct-horse-battery\n").expect("it is written");
    let token = run_in(
        server.folder.path(),
        &["token", "--sub", "bob", "--group", "editors"],
    )
    .await;
    let token = String::from_utf8(token.stdout).expect("text");
    let ca = server.ca().display().to_string();
    let url = server.url("/events?topic=news");
    let header = format!("Authorization: Bearer {}", token.trim());
    // With the token, and with a field of one's own that holds it.
    for auth in [["--token", token.trim()], ["--header", &header]] {
        let mut listen = program()
            .args(["listen", "--ca", &ca, "--json", &url])
            .args(auth)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(listen.stdout.take().expect("it is piped")).lines();
        let mut next = async || -> serde_json::Value {
            let line = patiently("a line", lines.next_line()).await;
            serde_json::from_str(&line.expect("text").expect("a line")).expect("JSON")
        };
        assert_eq!(next().await["signal"], "open");
        let open = next().await;
        assert!(
            open["data"]
                .as_str()
                .expect("text")
                .contains("\"user\":\"bob\""),
            "{open}"
        );
        let ask = async |args: &[&str]| -> serde_json::Value {
            let file = file.display().to_string();
            let args = [args, &["--control", &control, "--token-file", &file]].concat();
            let output = run(&args).await;
            assert!(
                output.status.success(),
                "{args:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            serde_json::from_slice(&output.stdout).unwrap_or_default()
        };
        for (args, data) in [
            (
                &["broadcast", "to all", "--all", "--event", "note"][..],
                "to all",
            ),
            (&["send", "to bob", "--user", "bob"], "to bob"),
            (&["send", "to staff", "--group", "staff"], "to staff"),
        ] {
            assert_eq!(ask(args).await["receivers"], 1, "{args:?}");
            assert_eq!(next().await["data"], data);
        }
        assert_eq!(
            ask(&["streams", "--user", "bob"]).await["topics"][0],
            "news"
        );
        assert_eq!(
            ask(&["streams", "--topic", "none"]).await,
            serde_json::Value::Null
        );
        assert_eq!(ask(&["groups"]).await["group"], "staff");
        assert_eq!(
            ask(&["groups", "staff"]).await["effective"]["users"][0],
            "bob"
        );
        assert_eq!(
            ask(&["groups", "staff", "--add", "user:ann"]).await["added"],
            true
        );
        assert_eq!(
            ask(&["groups", "staff", "--remove", "user:ann"]).await["removed"],
            true
        );
        assert_eq!(ask(&["disconnect", "bob"]).await["streams"], 1);
        assert_eq!(next().await["signal"], "reconnecting");
        drop(listen);
    }
    let wrong = run(&["streams", "--control", &control]).await;
    assert_eq!(wrong.status.code(), Some(5), "it takes the token");
}

#[tokio::test]
async fn shells_and_man_learn_of_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]).await;
        let script = String::from_utf8(output.stdout).expect("text");
        assert!(
            script.contains("broadcast") && script.contains("last-event-id"),
            "{shell}"
        );
    }
    let pages = folder.path().join("man1");
    let written = run(&["man", &pages.display().to_string()]).await;
    assert!(written.status.success());
    for page in ["seventh.1", "seventh-publish.1", "seventh-bench.1"] {
        let text = std::fs::read_to_string(pages.join(page)).expect(page);
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
}

#[tokio::test]
async fn cert_says_how_to_trust_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run_in(folder.path(), &["cert"]).await;
    let said = String::from_utf8(output.stdout).expect("text");
    for part in [
        "SPKI hash",
        "--ignore-certificate-errors-spki-list=",
        "certutil",
        "Firefox",
        "update-ca-certificates",
        "certs/ca.pem",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let again = run_in(folder.path(), &["cert"]).await;
    assert_eq!(
        String::from_utf8(again.stdout).expect("text"),
        said,
        "the same certificate"
    );
}

#[tokio::test]
async fn token_makes_a_token_and_explains_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = |text: &str| {
        std::fs::write(folder.path().join("seventh.toml"), text).expect("it is written");
    };
    config("");
    let said = refused(&run_in(folder.path(), &["token", "--sub", "bob"]).await);
    assert!(said.contains("there is no key"), "{said}");
    let secret = "0123456789abcdef0123456789abcdef";
    config(&format!(
        "access.audience = \"here\"\n[[access.key]]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n"
    ));
    let args = [
        "token", "--sub", "bob", "--group", "editors", "--topic", "news/*", "--ttl", "1h",
    ];
    let minted = run_in(folder.path(), &args).await;
    let token = String::from_utf8(minted.stdout)
        .expect("text")
        .trim()
        .to_owned();
    assert_eq!(token.split('.').count(), 3);
    let checked = run_in(folder.path(), &["token", "--check", &token]).await;
    let said = String::from_utf8(checked.stdout).expect("text");
    for part in [
        "user      bob",
        "groups    editors",
        "reads     news/*",
        "publishes nothing",
        "ends      in 59m",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = refused(&run_in(folder.path(), &["token", "--check", &format!("{token}x")]).await);
    assert!(
        said.contains("signature is wrong") || said.contains("not a JSON Web Token"),
        "{said}"
    );
    assert!(!said.contains(&token), "a token is never shown");
    // A bad one is explained, from standard input too.
    config(&format!(
        "access.audience = \"there\"\n[[access.key]]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n"
    ));
    let mut check = bare(Command::new(env!("CARGO_BIN_EXE_seventh")));
    check
        .args(["token", "--check", "-"])
        .current_dir(folder.path());
    let mut check = check
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = check.stdin.take().expect("it is piped");
    input
        .write_all(format!("{token}\n").as_bytes())
        .await
        .expect("it is read");
    drop(input);
    let output = patiently("its end", check.wait_with_output())
        .await
        .expect("it ends");
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8(output.stdout).expect("text");
    for part in [
        "alg = \"HS256\"",
        "aud = \"here\"",
        "sub = \"bob\"",
        "HS256, kid none, iss any, aud there",
        "now  2",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let exp = said
        .lines()
        .find(|line| line.trim_start().starts_with("exp = "))
        .expect("its end");
    assert!(exp.ends_with("Z)"), "{exp}");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("claim `aud` is missing or wrong"), "{said}");
    config(
        "[[access.key]]\nalgorithm = \"HS256\"\nsecret = \"short\"\n[[access.key]]\nalgorithm = \"RS256\"\nsecret = \"x\"\n",
    );
    let said = refused(&run_in(folder.path(), &["token", "--sub", "bob"]).await);
    assert!(
        said.contains("access.key, number 1: the secret is 5 bytes long"),
        "{said}"
    );
    assert!(
        said.contains("access.key, number 2: RS256 takes `public_key`"),
        "{said}"
    );
}
