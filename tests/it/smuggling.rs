//! Requests that say two things at once, and fields that say who asks: what an app sees is what the edge
//! meant, whatever the app is. nginx, an app on hyper, and Python's `http.server` stand behind it.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use http::Request;
use hyper::body::Incoming;
use seventh::client::{Protocol, full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{TestEdge, every_protocol, patiently};
use crate::upstream::{Upstream, whole};
use crate::{h2_frames, h3_frames};

every_protocol!(an_app_sees_what_was_meant);

/// What must never come of what a test sends.
const FORBIDDEN: &str = "forged";

/// Targets, and whether they are for an app at all.
const TARGETS: &[(&str, bool)] = &[
    ("/a", true),
    ("/A", true),
    ("/a//b", true),
    ("/a%2fb", true),
    ("/a%2Fb", true),
    ("/a;b=c", true),
    ("/a?b=/../c", true),
    ("/a?b=//c", true),
    ("/a?%0d%0aremote-user:%20forged", true),
    ("/a%0d%0aremote-user:%20forged", true),
    ("/a%41", true),
    ("/a%5cb", true),
    ("/.hidden", true),
    ("/..a", true),
    ("/a..", true),
    ("/a/...", true),
    ("/a+b", true),
    ("/%E2%82%AC", true),
    ("/a/", true),
    ("/a?", true),
    ("/a??", true),
    ("/~a", true),
    ("/a:b", true),
    ("/a@b", true),
    ("/http://b/", true),
    ("//a", false),
    ("/a/../b", false),
    ("/a/./b", false),
    ("/..", false),
    ("/%2e%2e/b", false),
    ("/a/%2E./b", false),
    ("/a%00b", false),
    ("/a%", false),
    ("/a%zz", false),
    ("/a%u0041", false),
    ("/.seventh/%2e%2e/a", false),
    ("/.seventh/events/../../a", false),
];

/// Names of fields that say who asks or who forwarded what, as a client may spell them.
const SPOOFED: &[&str] = &[
    "remote-user",
    "Remote-User",
    "REMOTE-USER",
    "remote_user",
    "Remote_User",
    "remote-groups",
    "Remote_Groups",
    "remote-name",
    "remote-email",
    "remote_email",
    "remote-expires",
    "seventh-subscribe",
    "Seventh_Subscribe",
    "forwarded",
    "x-forwarded-for",
    "X-Forwarded-For",
    "x_forwarded_for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-real-ip",
    "X_Real_IP",
    "x-request-id",
    "proxy-authorization",
    "any_thing",
];

/// Fields that are of one connection.
const HOP_BY_HOP: &[(&str, &str)] = &[
    ("connection", "close"),
    ("connection", "keep-alive, x-forged"),
    ("connection", "host"),
    ("connection", "content-length"),
    ("connection", "remote-user, upgrade"),
    ("keep-alive", "timeout=forged"),
    ("proxy-connection", "forged"),
    ("te", "forged"),
    ("te", "trailers, chunked"),
    ("trailer", "forged"),
    ("upgrade", "forged"),
    ("upgrade", "websocket"),
    ("upgrade", "h2c"),
    ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
    ("transfer-encoding", "chunked"),
    ("transfer-encoding", "forged"),
    ("expect", "100-continue"),
    ("expect", "forged"),
];

const LENGTHS: &[&str] = &[
    "",
    "content-length: 0\r\n",
    "content-length: 5\r\n",
    "content-length: +5\r\n",
    "content-length: 5, 5\r\n",
    "content-length: 0x5\r\n",
    "content-length: -1\r\n",
    "content-length: 5 \r\n",
    "content-length : 5\r\n",
    "content-length: 5\r\ncontent-length: 5\r\n",
    "content-length: 5\r\ncontent-length: 6\r\n",
    "content-length: 99999999999999999999\r\n",
    "Content-Length:5\r\n",
    "content-length:\r\n",
];
const ENCODINGS: &[&str] = &[
    "",
    "transfer-encoding: chunked\r\n",
    "Transfer-Encoding: Chunked\r\n",
    "transfer-encoding: xchunked\r\n",
    "transfer-encoding: chunked, identity\r\n",
    "transfer-encoding: identity\r\n",
    "transfer-encoding: gzip, chunked\r\n",
    "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
    "transfer-encoding:\tchunked\r\n",
    "transfer-encoding: \x0bchunked\r\n",
    "transfer-encoding : chunked\r\n",
    "transfer-encoding: chunked;x=1\r\n",
    "transfer-encoding\r\n: chunked\r\n",
    " transfer-encoding: chunked\r\n",
    "x: y\r\n transfer-encoding: chunked\r\n",
    "transfer_encoding: chunked\r\n",
];
/// Lines and hosts as HTTP/1.1 has them; `{host}` is the right one.
const HEADS: &[&str] = &[
    "GET /a HTTP/1.1\r\nhost: {host}\r\nhost: forged\r\n",
    "GET /a HTTP/1.1\r\nhost: forged@{host}\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}/forged\r\n",
    "GET /a HTTP/1.1\r\nhost:\r\n",
    "GET /a HTTP/1.1\r\n",
    "GET http://forged/a HTTP/1.1\r\nhost: {host}\r\n",
    "GET https://{host}/a HTTP/1.1\r\nhost: {host}\r\n",
    "GET http://{host}@forged/a HTTP/1.1\r\nhost: {host}\r\n",
    "GET a HTTP/1.1\r\nhost: {host}\r\n",
    "GET * HTTP/1.1\r\nhost: {host}\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: {host}\r\n",
    "CONNECT forged:80 HTTP/1.1\r\nhost: forged:80\r\n",
    "TRACE /a HTTP/1.1\r\nhost: {host}\r\n",
    "GET /a HTTP/1.0\r\nhost: {host}\r\n",
    "GET /a HTTP/1.0\r\n",
    "GET /a HTTP/2.0\r\nhost: {host}\r\n",
    "GET /a HTTP/1.1 forged\r\nhost: {host}\r\n",
    "GET  /a HTTP/1.1\r\nhost: {host}\r\n",
    "GET\t/a HTTP/1.1\r\nhost: {host}\r\n",
    "GET /a\r\nhost: {host}\r\n",
    "get /a HTTP/1.1\r\nhost: {host}\r\n",
    "G\x00T /a HTTP/1.1\r\nhost: {host}\r\n",
    "GET /a HTTP/1.1\nhost: {host}\n",
    "GET /a HTTP/1.1\rhost: {host}\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\nx-y : z\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\nx y: z\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\nremote-user : forged\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\nx: a\rremote-user: forged\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\nx: a\nremote-user: forged\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\nx: a\x00b\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\nx: a\r\n remote-user: forged\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\n: forged\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 5\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
    "GET /a HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade, remote-user\r\nupgrade: forged\r\n",
];

/// Names of fields as no client crate sends them.
const NAMES: &[&str] = &[
    "Remote-User",
    "REMOTE-USER",
    "remote-user ",
    " remote-user",
    "remote-user\t",
    "remote-user:",
    ":remote-user",
    "remote user",
    "remote-user\r\nx",
    "x\r\nremote-user",
    "x\nremote-user",
    "x: y\r\nremote-user",
    "remote-user\0",
    "(remote-user)",
    "remote-us\u{e9}r",
    "",
];
/// Fields that pass, and values that do not.
const CARRIERS: &[&str] = &["x-a", "cookie", "user-agent", "accept", "referer", "range"];
const VALUES: &[&str] = &[
    "a\r\nremote-user: forged",
    "a\nremote-user: forged",
    "a\rremote-user: forged",
    "a\0remote-user: forged",
    "a\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n",
];
/// Pseudo-header fields as they are not to be.
const PSEUDO: &[(&str, &[&str])] = &[
    (
        ":method",
        &[
            "",
            "G T",
            "GET\0",
            "GET\r\nx: forged",
            "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\nGET",
            "CONNECT",
            "TRACE",
            "PRI",
            "get",
        ],
    ),
    (
        ":scheme",
        &[
            "",
            "http",
            "ftp",
            "https://forged/smuggled",
            "https\r\nremote-user: forged",
            "1",
        ],
    ),
    (
        ":path",
        &[
            "",
            "*",
            "a",
            "?a",
            "http://forged/smuggled",
            "//forged/smuggled",
            "/a b",
            "/a\tb",
            "/a\0b",
            "/a#forged",
            "/a\\b",
            "/\u{e9}",
            "/a\r\nremote-user: forged",
            "/a HTTP/1.1\r\nremote-user: forged\r\nx: ",
            "/a HTTP/1.1\r\nhost: localhost\r\n\r\nGET /smuggled",
        ],
    ),
    (
        ":authority",
        &[
            "",
            "forged@localhost",
            "localhost/smuggled",
            "localhost?forged",
            "localhost#forged",
            "localhost:99999",
            "localhost:443:443",
            "[::1",
            "local host",
            "localhost\r\nremote-user: forged",
            "localhost\0",
        ],
    ),
    (":status", &["200"]),
    (":protocol", &["websocket", "forged"]),
    (":forged", &["forged"]),
];
/// Lengths beside four bytes of data.
const DATA_LENGTHS: &[&[&str]] = &[
    &["3"],
    &["5"],
    &["0"],
    &["4", "4"],
    &["4", "5"],
    &["4, 4"],
    &["+4"],
    &["-1"],
    &["0x4"],
    &["4\r\nremote-user: forged"],
    &["99999999999999999999"],
    &[""],
];

/// An app that writes down what it sees: method, target, host, and any field of those it should not see.
struct App {
    address: String,
    seen: Seen,
    _keeps: Box<dyn std::any::Any>,
}

enum Seen {
    Here(Arc<Mutex<Vec<String>>>),
    File(PathBuf),
}

impl App {
    fn seen(&self) -> Vec<String> {
        match &self.seen {
            Seen::Here(seen) => seen.lock().expect("no panic").clone(),
            Seen::File(path) => {
                let text = fs::read(path).unwrap_or_default();
                String::from_utf8_lossy(&text)
                    .lines()
                    .map(str::to_owned)
                    .collect()
            }
        }
    }

    async fn on_hyper() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let lines = seen.clone();
        let app = Upstream::start(move |request: Request<Incoming>| {
            let line = format!(
                "{} {} {:?}",
                request.method(),
                request.uri(),
                request.headers()
            );
            lines.lock().expect("no panic").push(line);
            async move {
                let _: Result<_, hyper::Error> =
                    http_body_util::BodyExt::collect(request.into_body()).await;
                http::Response::new(whole("seen"))
            }
        })
        .await;
        Self {
            address: app.url(),
            seen: Seen::Here(seen),
            _keeps: Box::new(app),
        }
    }

    async fn program(
        name: &str,
        program: &str,
        arguments: &[&str],
        folder: tempfile::TempDir,
    ) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = Process(
            child.unwrap_or_else(|_| panic!("{program} is missing: `make tools` installs it")),
        );
        let socket = folder.path().join(format!("{name}.sock"));
        patiently(name, async {
            while tokio::net::UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
        Self {
            address: format!("unix:{}", socket.display()),
            seen: Seen::File(folder.path().join("seen")),
            _keeps: Box::new((child, folder)),
        }
    }

    async fn on_nginx() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display();
        let config = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n\
             log_format seen '$request_method $request_uri $http_host $http_remote_user $http_remote_groups \
             $http_remote_name $http_remote_email $http_seventh_subscribe $http_forwarded $http_x_forwarded_for \
             $http_x_forwarded_host $http_x_real_ip $http_te $http_upgrade $http_keep_alive $http_x_forwarded_port';\n\
             access_log {at}/seen seen; underscores_in_headers on;\n\
             client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{ listen unix:{at}/nginx.sock; location / {{ return 200 seen; }} }} }}"
        );
        fs::write(folder.path().join("nginx.conf"), config).expect("it is written");
        let path = folder.path().join("nginx.conf").display().to_string();
        // Not on the path of everybody.
        let program = if PathBuf::from("/usr/sbin/nginx").exists() {
            "/usr/sbin/nginx"
        } else {
            "nginx"
        };
        Self::program("nginx", program, &["-c", &path], folder).await
    }

    async fn on_python() -> Self {
        const SCRIPT: &str = r#"
import http.server, socketserver
class Seen(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def see(self):
        with open("seen", "a") as seen:
            seen.write(self.command + " " + self.path + " " + repr(self.headers.items()) + "\n")
        length = self.headers.get("content-length")
        if self.headers.get("transfer-encoding"):
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                self.rfile.read(size)
                self.rfile.readline()
                if size == 0: break
        elif length:
            self.rfile.read(int(length))
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(b"seen")
    def __getattr__(self, name):
        if name.startswith("do_"): return self.see
        raise AttributeError(name)
    def log_message(self, *rest): pass
    def address_string(self): return "edge"
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
Server("python.sock", Seen).serve_forever()
"#;
        let folder = tempfile::tempdir().expect("a folder");
        Self::program("python", "python3", &["-c", SCRIPT], folder).await
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _: std::io::Result<()> = self.0.kill();
        let _: std::io::Result<_> = self.0.wait();
    }
}

async fn an_app_sees_what_was_meant(protocol: Protocol) {
    for app in [
        App::on_hyper().await,
        App::on_nginx().await,
        App::on_python().await,
    ] {
        let edge = TestEdge::with(&format!(
            "proxy.upstream = \"{}\"\nlimits.request_body = \"1s\"\nlimits.idle = \"1s\"",
            app.address
        ));
        let mut variants = 0;
        for (target, passes) in TARGETS {
            let answered = send(&edge, protocol, "GET", target, &[], "").await;
            assert_eq!(answered == Some(200), *passes, "{target}: {answered:?}");
            variants += 1;
        }
        for (at, name) in SPOOFED.iter().enumerate() {
            for method in ["GET", "POST", "OPTIONS"] {
                let target = format!("/spoofed/{at}/{method}");
                let answered = send(
                    &edge,
                    protocol,
                    method,
                    &target,
                    &[(name, FORBIDDEN)],
                    "data",
                )
                .await;
                assert_eq!(answered, Some(200), "{name}");
                variants += 1;
            }
            // Named for the connection, it is gone too, and nothing else comes of it.
            if protocol == Protocol::Http1 {
                let fields = [("connection", *name), (*name, FORBIDDEN), ("x-kept", "yes")];
                send(&edge, protocol, "GET", "/named", &fields, "").await;
                variants += 1;
            }
        }
        for (name, value) in HOP_BY_HOP {
            for (method, body) in [("GET", ""), ("POST", "data"), ("DELETE", "")] {
                send(
                    &edge,
                    protocol,
                    method,
                    "/hop",
                    &[(name, value), ("x-forged", FORBIDDEN)],
                    body,
                )
                .await;
                variants += 1;
            }
        }
        variants += match protocol {
            Protocol::Http1 => raw(&edge).await,
            _ => raw_fields(&edge, protocol).await,
        };
        // Its connections are in order: what is asked is answered.
        for _ in 0..20 {
            assert_eq!(
                send(&edge, protocol, "GET", "/after", &[], "").await,
                Some(200)
            );
        }
        let answered = edge
            .metric("seventh_upstream_requests_total{outcome=\"answered\"}")
            .await;
        let broken = edge
            .metric("seventh_upstream_requests_total{outcome=\"broken\"}")
            .await;
        assert_eq!(broken, 0, "{} has not understood some", app.address);
        let abandoned = edge
            .metric("seventh_upstream_requests_total{outcome=\"abandoned\"}")
            .await;
        // One for one: nothing was taken for two. Of those whose own body was broken the app may have seen
        // the head.
        patiently("the app's own account", async {
            while app.seen().len() < answered as usize {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
        let seen = app.seen();
        let most = (answered + abandoned) as usize;
        assert!(seen.len() <= most, "{} of {most}", seen.len());
        for line in &seen {
            // In a target it is data; so is what a field of the app's own holds.
            let mut parts = line.splitn(3, ' ');
            let (_, target, fields) = (
                parts.next(),
                parts.next().unwrap_or_default(),
                parts.next().unwrap_or_default(),
            );
            assert!(!target.starts_with("/smuggled"), "{line}");
            let forged = fields.contains(FORBIDDEN) && !fields.contains("x-forged");
            assert!(!forged, "{}: {line}", app.address);
        }
        let passing = TARGETS.iter().filter(|(_, passes)| *passes);
        for (target, _) in passing {
            assert!(
                seen.iter()
                    .any(|line| line.split(' ').nth(1) == Some(target)),
                "{target}"
            );
        }
        // What raw frames carry does come through where it is right.
        let raw_one = |line: &String| line.split(' ').nth(1) == Some("/raw");
        assert!(protocol == Protocol::Http1 || seen.iter().any(raw_one));
        assert!(variants >= 300, "{variants}");
    }
}

/// Sends a request as a client would who does not care; the status, if there was an answer.
async fn send(
    edge: &TestEdge,
    protocol: Protocol,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> Option<u16> {
    if protocol == Protocol::Http1 {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() && !fields.iter().any(|(name, _)| *name == "transfer-encoding") {
            head += &format!("content-length: {}\r\n", body.len());
        }
        return send_raw(edge, &format!("{head}\r\n{body}")).await;
    }
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(name.to_ascii_lowercase(), *value);
    }
    // What a client's own crate refuses cannot be sent.
    let request = request.body(full(body.to_owned())).ok()?;
    let mut connection = edge.connect(protocol).await;
    let mut response = patiently("an answer", connection.send(request))
        .await
        .ok()?;
    let _: Result<_, _> = patiently("its body", response.bytes()).await;
    Some(response.status.as_u16())
}

/// Sends these bytes and nothing more; the status of the first answer, if there was one.
async fn send_raw(edge: &TestEdge, bytes: &str) -> Option<u16> {
    let mut io = edge.raw_http1().await;
    io.write_all(bytes.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // At its end, or once the answer is whole: a connection may stay open.
    loop {
        match patiently("an answer", io.read(&mut buffer)).await {
            Ok(n) if n > 0 => answer.extend_from_slice(&buffer[..n]),
            _ => break,
        }
        let text = String::from_utf8_lossy(&answer);
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let head = head.to_ascii_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            head.starts_with("http/1.1 100")
                || length.is_some_and(|length: usize| body.len() >= length)
        });
        if whole && !text.starts_with("HTTP/1.1 100") {
            break;
        }
        if whole {
            answer = text
                .split_once("\r\n\r\n")
                .expect("it is whole")
                .1
                .as_bytes()
                .to_vec();
        }
    }
    String::from_utf8_lossy(&answer)
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

/// What only HTTP/1.1 can say; how many of them.
async fn raw(edge: &TestEdge) -> usize {
    let mut count = 0;
    for length in LENGTHS {
        for encoding in ENCODINGS {
            // Whoever goes by the length sees a request in the rest, whoever goes by the chunks another.
            let head = format!(
                "POST /framed HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{length}{encoding}\r\n"
            );
            let body =
                "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: localhost\r\nremote-user: forged\r\n\r\n";
            send_raw(edge, &format!("{head}{body}")).await;
            count += 1;
        }
    }
    for head in HEADS {
        let head = head.replace("{host}", "localhost");
        send_raw(edge, &format!("{head}connection: close\r\n\r\nhello")).await;
        count += 1;
    }
    count
}

/// What only raw frames can say; how many of them.
async fn raw_fields(edge: &TestEdge, protocol: Protocol) -> usize {
    type Fields<'a> = Vec<(&'a str, &'a str)>;
    let right = |method| -> Fields<'_> {
        vec![
            (":method", method),
            (":scheme", "https"),
            (":path", "/raw"),
            (":authority", "localhost"),
        ]
    };
    // Fields, data, trailers.
    let mut variants: Vec<(Fields<'_>, &str, Fields<'_>)> = Vec::new();
    // Whoever takes data for what comes next sees a request in it.
    const NEXT: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (method, data) in [("GET", ""), ("POST", NEXT)] {
        let with = |more: &[(&'static str, &'static str)]| [&right(method), more].concat();
        for name in NAMES {
            variants.push((with(&[(name, FORBIDDEN)]), data, vec![]));
        }
        for name in CARRIERS {
            for value in VALUES {
                variants.push((with(&[(name, value)]), data, vec![]));
            }
        }
        for (name, values) in PSEUDO {
            let at = right(method).iter().position(|(known, _)| known == name);
            for value in *values {
                // In its place, once more, behind the others, and among the trailers.
                if let Some(at) = at {
                    let mut other = right(method);
                    other[at].1 = value;
                    variants.push((other, data, vec![]));
                }
                variants.push((with(&[(name, value)]), data, vec![]));
                variants.push((with(&[("x-a", "b"), (name, value)]), data, vec![]));
            }
            if let Some(at) = at {
                let mut without = right(method);
                let taken = without.remove(at);
                variants.push((without, data, vec![]));
                variants.push((with(&[taken]), data, vec![]));
            }
        }
        for hosts in [
            &["forged"][..],
            &["localhost", "forged"],
            &["forged@localhost"],
            &[""],
        ] {
            let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            variants.push((with(&hosts), data, vec![]));
        }
        for (name, value) in HOP_BY_HOP {
            variants.push((with(&[(name, value), ("x-forged", "x")]), data, vec![]));
        }
        for lengths in DATA_LENGTHS {
            let lengths: Vec<_> = lengths.iter().map(|l| ("content-length", *l)).collect();
            let data = if data.is_empty() { "" } else { "data" };
            variants.push((with(&lengths), data, vec![]));
        }
    }
    for (name, value) in [
        ("remote-user", FORBIDDEN),
        ("Remote-User", FORBIDDEN),
        ("x-forwarded-for", FORBIDDEN),
        (":path", "/smuggled"),
        (":method", "GET"),
        ("content-length", "4"),
        ("transfer-encoding", "chunked"),
        ("host", FORBIDDEN),
        ("x", "a\r\nremote-user: forged"),
    ] {
        let announced = [right("POST"), vec![("trailer", name)]].concat();
        for fields in [right("POST"), announced] {
            variants.push((fields, "data", vec![(name, value)]));
        }
    }
    let bytes = |fields: &Fields<'static>| -> Vec<(&'static [u8], &'static [u8])> {
        let fields = fields.iter();
        fields
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect()
    };
    for (fields, data, trailers) in &variants {
        let (fields, trailers) = (bytes(fields), bytes(trailers));
        match protocol {
            Protocol::Http3 => h3_frames::send(edge, &fields, data.as_bytes(), &trailers).await,
            _ => h2_frames::send(edge, &fields, data.as_bytes(), &trailers).await,
        }
    }
    variants.len()
}
