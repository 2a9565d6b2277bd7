//! History that outlives the process: killed, full, failing, damaged, and read by those who were away for long.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::StatusCode;
use serde_json::Value;
use seventh::{
    client::{Connection, EventSource, Origin, Protocol, Signal, Trust},
    process::Process,
};
use tokio::{process::Command, task::JoinSet};

use crate::{
    abuse::{begin_anew, most_memory},
    access::{SECRET, claims, token},
    commands::{Server, ask, program, refused},
    harness::{Events, TestEdge, every_protocol, patiently},
};

every_protocol!(
    who_was_away_for_long_is_given_all_that_came_meanwhile,
    a_restart_is_no_gap,
);

const LOG: &str = "history.directory = \"history\"\n";

/// An edge in this process with a log in a folder, and rings that hold little.
fn edge_in(folder: &Path, more: &str) -> TestEdge {
    let directory = folder.display();
    TestEdge::with(&format!("history.directory = \"{directory}\"\n{more}"))
}

async fn who_was_away_for_long_is_given_all_that_came_meanwhile(protocol: Protocol) {
    const EVENTS: usize = 3000;
    let folder = tempfile::tempdir().expect("a folder");
    let edge = edge_in(folder.path(), "history.events = 10\nlimits.exempt = []");
    let first = edge.publish_id("a", "first").await;
    let mut sent = Vec::new();
    for part in 0..EVENTS / 500 {
        let numbers = (0..500).map(|n| (part * 500 + n).to_string());
        let numbers: Vec<String> = numbers.collect();
        let lines: String = numbers
            .iter()
            .map(|n| format!("{{\"topic\":\"a\",\"data\":\"{n}\"}}\n"))
            .collect();
        let mut control = edge.control(Protocol::Http1).await;
        let request =
            http::Request::post("/publish").header("content-type", "application/x-ndjson");
        let request = request
            .body(seventh::client::full(lines))
            .expect("a request");
        let answer = crate::harness::Answer::of(&mut control, request).await;
        assert_eq!(answer.text.matches("\"stored\":\"disk\"").count(), 500);
        sent.extend(numbers);
    }
    // Live events come meanwhile; the second of two readers is as well off as the first.
    let mut live = edge.events(protocol, "topic=a").await.opened().await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        readers.push(edge.events_after(protocol, "topic=a", &first).await);
    }
    edge.publish("a", "live").await;
    sent.push("live".into());
    assert_eq!(live.data(1).await, ["live"]);
    for reader in &mut readers {
        let (open, _) = reader.edge_event("edge-open").await;
        assert_eq!(open["replay"], true);
        assert_eq!(reader.data(sent.len()).await, sent);
    }
    assert!(edge.metric("seventh_history_deep_reads_total").await > 0);
    assert_eq!(
        edge.metric("seventh_gaps_total{reason=\"trimmed\"}").await,
        0
    );
    edge.drain().await;
}

async fn a_restart_is_no_gap(protocol: Protocol) {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = edge_in(folder.path(), "");
    let first = edge.publish_id("a", "1").await;
    edge.ask("POST", "/topics/a?id=own", "2").await;
    edge.publish("a", "3").await;
    edge.drain().await;
    let edge = edge_in(folder.path(), "");
    for (id, after) in [(first.as_str(), &["2", "3"][..]), ("own", &["3"])] {
        let mut events = edge
            .events_after(protocol, "topic=a", id)
            .await
            .opened()
            .await;
        assert_eq!(events.data(after.len()).await, after);
    }
    let last = edge.publish_id("a", "4").await;
    assert!(
        last.split('-').next() == first.split('-').next(),
        "{last} after {first}"
    );
    edge.drain().await;
}

/// What a publisher was acknowledged.
type Acked = Vec<String>;

/// Publishes until the connection breaks: one by one.
async fn publish_each(mut control: Connection, name: String, count: Arc<AtomicUsize>) -> Acked {
    let mut acked = Vec::new();
    for n in 0.. {
        let data = format!("{name}.{n}");
        let request = http::Request::post("/topics/a").body(seventh::client::full(data.clone()));
        let Ok(mut response) = control.send(request.expect("a request")).await else {
            break;
        };
        match response.bytes().await {
            Ok(_) if response.status == StatusCode::OK => {
                acked.push(data);
                count.fetch_add(1, Ordering::Relaxed);
            }
            _ => break,
        }
    }
    acked
}

/// The same with lines, many to a request.
async fn publish_lines(mut control: Connection, name: String, count: Arc<AtomicUsize>) -> Acked {
    let mut acked = Vec::new();
    for n in 0.. {
        let data: Vec<String> = (0..40).map(|line| format!("{name}.{n}.{line}")).collect();
        let lines = data
            .iter()
            .map(|data| format!("{{\"topic\":\"a\",\"data\":\"{data}\"}}\n"));
        let request =
            http::Request::post("/publish").header("content-type", "application/x-ndjson");
        let request = request.body(seventh::client::full(lines.collect::<String>()));
        let Ok(mut response) = control.send(request.expect("a request")).await else {
            break;
        };
        let Ok(bytes) = response.bytes().await else {
            break;
        };
        let text = String::from_utf8(bytes.into()).expect("text");
        assert_eq!(text.matches("\"stored\":").count(), data.len(), "{text}");
        count.fetch_add(data.len(), Ordering::Relaxed);
        acked.extend(data);
    }
    acked
}

/// All that a client gets that comes back whenever it is cut, up to the end.
pub async fn read_to_end(server: String, protocol: Protocol) -> Vec<(u64, String)> {
    let url = format!("{server}/events?topic=a").parse().expect("a URL");
    let mut source = EventSource::new(url, protocol, Trust::Anyone, String::new());
    let mut got = Vec::new();
    loop {
        match source.next().await.expect("it goes on") {
            Signal::Message(message) if message.data == "end" => return got,
            Signal::Message(message) if message.event.starts_with("edge-") => {
                assert_ne!(message.event, "edge-gap", "{}", message.data);
            }
            Signal::Message(message) => {
                let (_, number) = message.id.split_once('-').expect("an id of the edge's");
                got.push((number.parse().expect("a number"), message.data));
            }
            Signal::Open | Signal::Reconnecting { .. } => {}
            Signal::Closed { why } => panic!("closed: {why}"),
        }
    }
}

async fn control(server: &Server, protocol: Protocol) -> Connection {
    let url = server.control_url().parse().expect("a URL");
    let origin = Origin::of(&url, Trust::System).expect("an origin");
    Connection::open(&origin, protocol)
        .await
        .expect("it connects")
}

/// Kills an edge so many times while three publish and three read.
async fn killed(policy: &str, rounds: usize) {
    let text = format!(
        "{LOG}history.sync = \"{policy}\"\nhistory.events = 30\nevents.retry = \"500ms\"\nlimits.exempt = [\"127.0.0.0/8\"]"
    );
    let mut server = Server::start(&text).await;
    let mut readers = JoinSet::new();
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
        readers.spawn(read_to_end(server.address(), protocol));
    }
    for protocol in ["h1", "h2", "h3"] {
        let line = format!("seventh_event_streams{{protocol=\"{protocol}\"}}");
        server.until_metric(&line, 1).await;
    }
    let mut acked = Vec::new();
    for round in 0..rounds {
        let count = Arc::new(AtomicUsize::new(0));
        let mut publishers = JoinSet::new();
        let each = control(&server, Protocol::Http1).await;
        publishers.spawn(publish_each(each, format!("{round}.h1"), count.clone()));
        let each = control(&server, Protocol::Http2).await;
        publishers.spawn(publish_each(each, format!("{round}.h2"), count.clone()));
        let lines = control(&server, Protocol::Http1).await;
        publishers.spawn(publish_lines(
            lines,
            format!("{round}.lines"),
            count.clone(),
        ));
        let enough = fastrand::usize(50..400);
        patiently("publishers", async {
            while count.load(Ordering::Relaxed) < enough {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        })
        .await;
        server = server.crash_and_restart().await;
        while let Some(one) = publishers.join_next().await {
            acked.extend(one.expect("it does not panic"));
        }
    }
    let end = server.publish("/topics/a", "end").await;
    assert_eq!(end.status, StatusCode::OK, "{}", end.text);
    while let Some(got) = patiently("the end", readers.join_next()).await {
        let got = got.expect("no gap");
        let is_in_order = got.windows(2).all(|two| two[0].0 < two[1].0);
        assert!(is_in_order, "in order, and none twice");
        let data: HashSet<&String> = got.iter().map(|(_, data)| data).collect();
        assert_eq!(data.len(), got.len(), "none under two numbers");
        let lost = acked.iter().filter(|acked| !data.contains(acked));
        let lost: Vec<&String> = lost.collect();
        assert!(
            lost.is_empty(),
            "{} of {} lost: {lost:?}",
            lost.len(),
            acked.len()
        );
    }
    println!(
        "{policy}: {} acknowledged in {rounds} lives, none lost",
        acked.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_killed_loses_nothing_that_is_synced_always() {
    killed("always", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_killed_loses_nothing_that_is_synced_at_times() {
    killed("100ms", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_killed_loses_nothing_that_is_never_synced() {
    killed("never", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn who_is_killed_two_hundred_times_loses_nothing() {
    for policy in ["always", "100ms", "never"] {
        killed(policy, 200).await;
    }
}

/// Has a system call fail from some time on.
fn failing(call: &str, error: &str, from: usize) -> Command {
    let mut strace = Command::new("strace");
    let inject = format!("inject={call}:error={error}:when={from}+");
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "signal=none"]);
    strace.args(["-e", &format!("trace={call}"), "-e", &inject]);
    strace
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_is_told_and_streams_go_on() {
    let config = format!(
        "{LOG}access.subscribe = [\"authenticated\", \"anonymous\"]\naccess.audience = \"seventh\"\n\
         [[access.key]]\nkid = \"h\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
    );
    // The first is of the directory's first segment.
    let server = Server::start_by(failing("fdatasync", "EIO", 4), &config).await;
    let mut events = server
        .events(Protocol::Http2, "topic=a")
        .await
        .opened()
        .await;
    let mut claims = claims();
    claims["sub"] = "bob".into();
    let bearer = format!("Bearer {}", token(&claims));
    let headers = [("authorization", bearer.as_str())];
    let mut connection = server.connect(Protocol::Http2).await;
    let mut bobs = Events::open(&mut connection, "topic=b", &headers)
        .await
        .opened()
        .await;
    let mut acked = Vec::new();
    let unknown = loop {
        let data = acked.len().to_string();
        let answer = server.publish("/topics/a", data.clone()).await;
        if answer.status != StatusCode::OK {
            break answer;
        }
        acked.push(data);
    };
    assert_eq!(unknown.status, StatusCode::SERVICE_UNAVAILABLE);
    let problem = unknown.json();
    assert_eq!(
        (&problem["code"], &problem["outcome"]),
        (&"history-unknown".into(), &"unknown".into())
    );
    let failed = server.publish("/topics/a", "x").await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(failed.json()["code"], "history-failed");
    assert!(!failed.header("retry-after").is_empty());
    assert!(!acked.is_empty());
    assert_eq!(events.data(acked.len()).await, acked);
    assert_eq!(server.metric("seventh_history_failed").await, 1);
    // Who is to go goes, though no order takes it.
    let mut control = server.control().await;
    let ended = ask(&mut control, "POST", "/users/bob/disconnect", "").await;
    assert_eq!(ended.json()["streams"], 1);
    while bobs.item().await.is_some() {}
    // Streams are let in still, and given what there is.
    let mut late = server
        .events(Protocol::Http1, "topic=a&last=100")
        .await
        .opened()
        .await;
    assert_eq!(late.data(acked.len()).await, acked);
    drop((events, late));
    let (_, log) = server.stopped().await;
    assert!(log.contains("history takes nothing more"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_is_told() {
    let server = Server::start_by(failing("pwrite64", "ENOSPC", 4), LOG).await;
    let mut refused = None;
    for n in 0..9 {
        let answer = server.publish("/topics/a", n.to_string()).await;
        if answer.status != StatusCode::OK {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("it is full");
    assert_eq!(refused.status, StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(refused.json()["code"], "history-full");
    let ready = ask(&mut server.control().await, "GET", "/readyz", "").await;
    assert_eq!(ready.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_edges_do_not_share_a_directory_and_others_are_told_why_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = edge_in(folder.path(), "");
    let directory = folder.path().to_str().expect("text");
    let start = |directory: &str| {
        let mut command = program();
        command.env("SEVENTH_HISTORY_DIRECTORY", directory);
        command.args(["--https", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
        command.current_dir(folder.path());
        async move {
            patiently("its end", command.output())
                .await
                .expect("it runs")
        }
    };
    let said = refused(&start(directory).await);
    assert!(
        said.contains("another process has it") && said.contains(directory),
        "{said}"
    );
    let mut check = program();
    check.args(["history", "check", directory]);
    let said = refused(&check.output().await.expect("it runs"));
    assert!(said.contains("another process has it"), "{said}");
    std::fs::write(folder.path().join("file"), "").expect("it is written");
    let said = refused(&start("file").await);
    assert!(
        said.contains("history in file cannot be used (history.directory)"),
        "{said}"
    );
    edge.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_named_and_cut_out_and_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().to_str().expect("text").to_owned();
    let edge = edge_in(folder.path(), "");
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(
            edge.publish_id("a", format!("{n} {}", "x".repeat(100)))
                .await,
        );
    }
    edge.drain().await;
    let file = folder.path().join("00000000000000000001.seg");
    let mut bytes = std::fs::read(&file).expect("it is there");
    let middle = 4096 + (bytes.len() - 4096) / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("it is written");

    let mut start = program();
    start.env("SEVENTH_HISTORY_DIRECTORY", &directory);
    start.args(["--https", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
    let said = refused(&patiently("its end", start.output()).await.expect("it runs"));
    assert!(
        said.contains("00000000000000000001.seg is damaged at byte"),
        "{said}"
    );
    assert!(
        said.contains(&format!("seventh history cut {directory}")),
        "{said}"
    );
    let command = async |what: &str| {
        let mut command = program();
        command.args(["history", what, &directory]);
        patiently("its end", command.output())
            .await
            .expect("it runs")
    };
    let check = command("check").await;
    assert!(refused(&check).contains("damaged in 1 place"));
    // A directory of something else is not taken for a history that is whole.
    let other = tempfile::tempdir().expect("a folder");
    let mut elsewhere = program();
    elsewhere.args(["history", "check"]).arg(other.path());
    let said = refused(
        &patiently("its end", elsewhere.output())
            .await
            .expect("it runs"),
    );
    assert!(said.contains("there is no history in it"), "{said}");
    assert_eq!(
        std::fs::read_dir(other.path())
            .expect("it is there")
            .count(),
        0
    );
    let cut = command("cut").await;
    assert!(cut.status.success());
    let told = String::from_utf8_lossy(&cut.stdout).into_owned();
    assert!(told.contains("00000000000000000001.seg.damaged"), "{told}");
    assert!(command("check").await.status.success());
    let show = String::from_utf8_lossy(&command("show").await.stdout).into_owned();
    assert!(show.contains("cut out") && show.contains(" a\n"), "{show}");

    let edge = edge_in(folder.path(), "");
    let next = edge.publish_id("a", "next").await;
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http3] {
        let mut events = edge
            .events_after(protocol, "topic=a", &ids[0])
            .await
            .opened()
            .await;
        assert!(events.data(3).await[2].starts_with("3 "));
        let gap: Value = loop {
            let message = events.message().await;
            if message.event == "edge-gap" {
                break serde_json::from_str(&message.data).expect("JSON");
            }
        };
        assert_eq!(gap["reason"], "lost");
        assert_eq!(events.data(1).await, ["next"]);
        // Whoever had seen what is lost is told too.
        let mut events = edge
            .events_after(protocol, "topic=a", &ids[19])
            .await
            .opened()
            .await;
        let (gap, _) = events.edge_event("edge-gap").await;
        assert_eq!(gap["reason"], "lost");
    }
    let number = |id: &str| -> u64 {
        let (_, number) = id.split_once('-').expect("an id of the edge's");
        number.parse().expect("a number")
    };
    assert!(number(&next) > number(&ids[19]), "{next} after {}", ids[19]);
    edge.drain().await;
}

/// Readers who come from long ago, each of a topic of its own, while events come live.
async fn deep_beside_live(readers: usize, events: usize, live: usize) {
    const STREAMS: usize = 100;
    let text = format!(
        "{LOG}history.events = 1\nlimits.exempt = [\"127.0.0.0/8\"]\nlimits.topics = 100000"
    );
    let server = Server::start(&text).await;
    let mut publisher = control(&server, Protocol::Http1).await;
    let mut first = None;
    for n in 0..events {
        // A part of them at a time: the lines of a request are as many as its body may be long.
        let lines: String = (0..readers)
            .map(|topic| {
                format!(
                    "{{\"topic\":\"t/{topic}\",\"data\":\"{n} {}\"}}\n",
                    "x".repeat(280)
                )
            })
            .collect();
        let request =
            http::Request::post("/publish").header("content-type", "application/x-ndjson");
        let request = request
            .body(seventh::client::full(lines))
            .expect("a request");
        let answer = crate::harness::Answer::of(&mut publisher, request).await;
        assert_eq!(answer.text.matches("\"stored\":\"disk\"").count(), readers);
        first.get_or_insert_with(|| {
            let line = answer.text.lines().next().expect("a line");
            let id: Value = serde_json::from_str(line).expect("JSON");
            let (epoch, _) = id["id"]
                .as_str()
                .and_then(|id| id.split_once('-'))
                .expect("an id");
            format!("{epoch}-0")
        });
    }
    let first = first.expect("something was published");
    let mut looking = server
        .events(Protocol::Http2, "topic=live")
        .await
        .opened()
        .await;
    let before = Process::new(server.pid()).resident().expect("it runs");
    begin_anew(server.pid());
    let mut all = JoinSet::new();
    let mut connections = Vec::new();
    for from in (0..readers).step_by(STREAMS) {
        let mut connection = server.connect(Protocol::Http2).await;
        for topic in from..(from + STREAMS).min(readers) {
            let query = format!("topic=t/{topic}");
            let id = [("last-event-id", first.as_str())];
            let mut stream = Events::open(&mut connection, &query, &id)
                .await
                .opened()
                .await;
            all.spawn(async move {
                for n in 0..events {
                    let got = stream.message().await;
                    assert_eq!(got.event, "message", "{}", got.data);
                    assert_eq!(got.data.split(' ').next(), Some(n.to_string().as_str()));
                }
            });
        }
        connections.push(connection);
    }
    let mut late = Vec::new();
    for n in 0..live {
        let at = seventh::clock::now();
        let answer = ask(&mut publisher, "POST", "/topics/live", n.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(looking.data(1).await, [n.to_string()]);
        late.push(seventh::clock::now() - at);
    }
    let left = all.len();
    while let Some(reader) = patiently("a reader", all.join_next()).await {
        reader.expect("each event once, in its order");
    }
    let more = most_memory(server.pid()).saturating_sub(before);
    late.sort_unstable();
    println!(
        "{readers} readers, {events} events behind each: a live event took {:?} at most, {:?} half of the time; {left} were \
         at it still after {live}; {} MiB more at most",
        late.last().expect("some"),
        late[late.len() / 2],
        more >> 20
    );
    // A slice for each that is open, and what is on its way.
    assert!(
        more < (64 << 20) + (readers as u64) * (96 << 10),
        "{more} bytes"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_readers_are_served_beside_those_from_long_ago() {
    deep_beside_live(100, 100, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak"]
async fn a_thousand_readers_come_back_a_million_events_behind() {
    deep_beside_live(1000, 1000, 2000).await;
}
