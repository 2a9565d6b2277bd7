//! Event streams by the million, over HTTP/2: the client is made of frames, so that it costs next to
//! nothing beside the edge.

use std::time::{Duration, Instant};

use seventh::clock;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};
use tokio_rustls::client::TlsStream;

use crate::{
    app::App,
    commands::Server,
    h2_frames::{
        ACK, DATA, END_HEADERS, END_STREAM, Frame, GET, HEADERS, HTTPS, PING, PREFACE, SETTINGS,
        WINDOW_UPDATE, cookie, frame, head, read_frame,
    },
    harness::{memory_of, patiently, tls_stream},
};

/// How many streams are asked for before their answers are read.
const BURST: u32 = 100;
const EVERYONE: &[u8] = b"data: everyone\n";

#[tokio::test]
async fn thousands_of_event_streams_get_what_is_for_all() {
    told(20, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn a_million_event_streams_get_what_is_for_all() {
    told(1000, 1000).await;
}

/// Opens so many connections with so many streams each, publishes once, and says what that took.
async fn told(connections: usize, streams: u32) {
    let text = format!(
        "limits.http2_streams = {}\nlimits.event_streams = {}\nlimits.idle = \"1h\"\n\
         events.keepalive = \"4m\"\nlimits.handshake = \"1h\"",
        streams + 32,
        connections * streams as usize + 1,
    );
    let server = Server::start(&text).await;
    let before = memory_of(server.pid());
    let began = clock::now();
    let mut readers = Vec::new();
    for _ in 0..connections {
        let mut reader = Reader::connect(&server).await;
        reader.open(streams, None).await;
        readers.push(reader);
    }
    let opened = clock::now() - began;
    let all = connections * streams as usize;
    let line = "seventh_event_streams{protocol=\"h2\"}";
    server.until_metric(line, all as u64).await;
    let held = memory_of(server.pid()) - before;

    let mut reading = JoinSet::new();
    for mut reader in readers {
        reading.spawn(async move {
            reader.until_all(streams).await;
            (reader, clock::now())
        });
    }
    let published = clock::now();
    let answer = server.publish("/topics/all", "everyone").await;
    assert_eq!(answer.json()["receivers"], all);
    let ends: Vec<(Reader, Instant)> = reading.join_all().await;
    let last = ends
        .iter()
        .map(|(_, at)| *at)
        .max()
        .expect("there are some");
    let after = memory_of(server.pid()) - before;
    println!(
        "{all} event streams on {connections} connections: opened in {:.1} s, {} MiB held, {} bytes a stream; one \
         event reached all of them in {:.2} s, {} MiB after it",
        opened.as_secs_f64(),
        held >> 20,
        held / all as u64,
        (last - published).as_secs_f64(),
        after >> 20,
    );
    drop(ends);
    server.until_metric(line, 0).await;
    // What a crowd took is given back, but for what is little beside the process itself.
    let little = (held / 4).max(32 << 20);
    patiently("the memory", async {
        while memory_of(server.pid()) > before + little {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn users_who_come_back_at_once_are_asked_about_once_each() {
    come_back(20, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn users_with_a_hundred_thousand_streams_are_asked_about_once_each() {
    come_back(500, 200).await;
}

/// So many users come at once, with so many streams each; the app takes 50 ms to say who one is.
async fn come_back(users: usize, streams: u32) {
    let app = App::start().await;
    app.answer("200 OK", "Remote-User: bob\r\n", "");
    app.take(Duration::from_millis(50));
    let all = users * streams as usize;
    let server = Server::start(&format!(
        "access.session = \"http://{}/session\"\nlimits.event_streams = {}\nlimits.user_event_streams = {}\n\
         access.session_timeout = \"30s\"\naccess.session_cache = \"1h\"\nlimits.idle = \"1h\"\nlimits.handshake = \"1h\"\nlimits.lag = \"1m\"\n\
         events.keepalive = \"4m\"",
        app.address,
        all + 1,
        all + 1,
    ))
    .await;
    let mut readers = Vec::new();
    for _ in 0..users {
        readers.push(Reader::connect(&server).await);
    }
    let began = clock::now();
    let mut opening = JoinSet::new();
    for (user, mut reader) in readers.into_iter().enumerate() {
        opening.spawn(async move {
            reader.open(streams, Some(&format!("sid={user}"))).await;
            reader
        });
    }
    let readers = opening.join_all().await;
    let opened = clock::now() - began;
    // None of them was told to come again later.
    let line = "seventh_event_streams{protocol=\"h2\"}";
    server.until_metric(line, all as u64).await;
    let (asked, at_a_time) = app.asked();
    println!(
        "{all} streams of {users} users: {asked} questions, {at_a_time} at a time; all were in after {:.2} s",
        opened.as_secs_f64()
    );
    assert_eq!(asked, users);
    drop(readers);
}

/// A connection that only counts.
struct Reader {
    io: TlsStream<TcpStream>,
    host: String,
    next: u32,
    /// Answers that have begun, and events that have come.
    answered: u32,
    events: u32,
}

impl Reader {
    async fn connect(server: &Server) -> Self {
        let mut io = tls_stream(server.https, &server.ca(), b"h2").await;
        let window = frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes());
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &window].concat();
        io.write_all(&hello).await.expect("it is read");
        Self {
            io,
            host: server.https.to_string(),
            next: 1,
            answered: 0,
            events: 0,
        }
    }

    async fn open(&mut self, streams: u32, session: Option<&str>) {
        let mut block = head(GET, HTTPS, &self.host, "/events?topic=all&edge=quiet");
        block.extend(session.map(cookie).unwrap_or_default());
        let mut asked = 0;
        while asked < streams {
            let mut burst = Vec::new();
            for _ in 0..BURST.min(streams - asked) {
                burst.extend(frame(HEADERS, END_STREAM | END_HEADERS, self.next, &block));
                self.next += 2;
                asked += 1;
            }
            self.io.write_all(&burst).await.expect("it is read");
            while self.answered < asked {
                patiently("an answer", self.step()).await;
            }
        }
    }

    async fn until_all(&mut self, streams: u32) {
        while self.events < streams {
            self.step().await;
        }
    }

    /// Reads a frame.
    async fn step(&mut self) {
        let Frame {
            kind,
            flags,
            payload,
        } = read_frame(&mut self.io).await.expect("it goes on");
        match kind {
            HEADERS => self.answered += 1,
            DATA => {
                let said = String::from_utf8_lossy(&payload);
                assert_eq!(flags & END_STREAM, 0, "a stream ends: {said}");
                self.events += u32::from(payload.starts_with(EVERYONE));
            }
            SETTINGS if flags & ACK == 0 => self.say(&frame(SETTINGS, ACK, 0, &[])).await,
            PING if flags & ACK == 0 => self.say(&frame(PING, ACK, 0, &payload)).await,
            SETTINGS | PING | WINDOW_UPDATE => {}
            other => panic!("a frame of type {other}"),
        }
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("it is read");
    }
}
