//! What befalls a machine: no open files, no time, a clock that jumps.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use seventh::{client::Protocol, sse::Item};
use tokio::process::Command;

use crate::{
    access,
    commands::{Server, ask},
    harness::{Events, patiently},
};

/// The system may have none to give, whatever was granted: accepting pauses, and those who are there are
/// served.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_without_open_files_goes_on() {
    let server = Server::start("").await;
    let events = server.events(Protocol::Http2, "topic=a").await;
    let mut events = events.opened().await;
    // Opened before, as a new connection to the control listener would wait as others do.
    let mut control = server.control().await;
    let limit = async |files: u32| {
        let status = Command::new("prlimit")
            .args(["--pid", &server.pid().to_string()])
            .arg(format!("--nofile={files}:"))
            .status();
        assert!(status.await.expect("prlimit runs").success());
    };
    limit(10).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let connection = tokio::net::TcpStream::connect(server.https).await;
        waiting.push(connection.expect("the kernel takes it"));
    }
    let failed = async {
        loop {
            let metrics = ask(&mut control, "GET", "/metrics", "").await;
            if metrics.metric("seventh_accept_errors_total") > Some(0) {
                break;
            }
        }
    };
    patiently("accepting to fail", failed).await;
    let answer = ask(&mut control, "POST", "/topics/a", "x").await;
    assert_eq!(answer.json()["receivers"], 1);
    assert_eq!(events.data(1).await, ["x"]);
    limit(1000).await;
    let mut more = server
        .events(Protocol::Http1, "topic=a")
        .await
        .opened()
        .await;
    ask(&mut control, "POST", "/topics/a", "x").await;
    assert_eq!(more.data(1).await, ["x"]);
    drop((waiting, events, more));
    server.signal("-TERM");
    let (status, log) = server.ended().await;
    assert_eq!(status, Some(0), "{log}");
    // Once, and not for each that waited.
    assert_eq!(log.matches("accepting pauses").count(), 1, "{log}");
}

/// Late with everything, as on a machine with no time for it: that is said, and new streams are refused.
#[tokio::test]
async fn an_edge_that_is_late_refuses_new_streams_and_says_so() {
    let server = Server::start("limits.lag = \"1s\"").await;
    let events = server.events(Protocol::Http2, "topic=a").await;
    let mut open = events.opened().await;
    let mut connection = server.connect(Protocol::Http2).await;
    // What a stream says after its `retry`: that it is open, or why it is not.
    let mut second = async || {
        let mut events = Events::open(&mut connection, "topic=a", &[]).await;
        events.retry().await;
        events.any_item().await
    };
    let refusal = Some(Item::Comment(" limits.lag is reached".into()));
    let refused = async {
        loop {
            server.signal("-STOP");
            tokio::time::sleep(Duration::from_secs(5)).await;
            server.signal("-CONT");
            if second().await == refusal {
                break;
            }
        }
    };
    patiently("a refusal", refused).await;
    // Who comes waits in the queue of the socket, a while for every few.
    patiently("a pause", async {
        let mut come = Vec::new();
        while server.metric("seventh_accept_pauses_total").await == 0 {
            for _ in 0..32 {
                let connection = tokio::net::TcpStream::connect(server.https).await;
                come.push(connection.expect("it waits"));
            }
            if come.len() > 1000 {
                // Too late: it is in time again.
                come.clear();
                server.signal("-STOP");
                tokio::time::sleep(Duration::from_secs(5)).await;
                server.signal("-CONT");
            }
        }
    })
    .await;
    // Those that are open go on, and others get in again.
    server.publish("/topics/a", "x").await;
    assert_eq!(open.data(1).await, ["x"]);
    let let_in = async { while !matches!(second().await, Some(Item::Message(_))) {} };
    patiently("a place", let_in).await;
}

/// What has these calls of the system befall this, of every thread.
fn strace(calls: &str, what: &str) -> Command {
    let mut strace = Command::new("strace");
    // A process of its own for it, so that the edge is the child that is waited for.
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    strace.args(["-e", &format!("trace={calls}")]);
    strace.args(["-e", &format!("inject={calls}:{what}")]);
    strace
}

/// Whatever the system says of a connection that it does not give, those that come later are served.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_whose_accept_fails_goes_on() {
    for (error, is_counted) in [("EMFILE", true), ("ENOBUFS", true), ("ECONNABORTED", false)] {
        let strace = strace("accept4", &format!("error={error}:when=2..5"));
        let server = Server::start_by(strace, "").await;
        // One after another: each is another call.
        for _ in 0..10 {
            let mut connection = server.connect(Protocol::Http2).await;
            let answer = connection.get("/").await.expect("it is served");
            assert_eq!(answer.status, 200, "{error}");
        }
        let failed = server.metric("seventh_accept_errors_total").await;
        assert_eq!(failed > 0, is_counted, "{error}: {failed}");
        let (status, log) = server.stopped().await;
        assert_eq!(status, Some(0), "{error}: {log}");
        assert_eq!(
            log.contains("accepting pauses"),
            is_counted,
            "{error}: {log}"
        );
    }
}

/// What has an edge do nothing is seen by a thread that does not depend on it.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_does_nothing_says_so() {
    // Whoever waits for events waits longer than it should, the twentieth time and some times after.
    let strace = strace("?epoll_wait,?epoll_pwait", "delay_enter=5s:when=20..22");
    let server = Server::start_by(strace, "").await;
    patiently("it to be seen", async {
        while server.metric("seventh_stalls_total").await == 0 {}
    })
    .await;
    let mut connection = server.connect(Protocol::Http2).await;
    let answer = connection.get("/").await.expect("it goes on");
    assert_eq!(answer.status, 200);
    let (status, log) = server.stopped().await;
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("every worker is blocked"), "{log}");
}

/// The library that has a process see another time, as Debian's faketime brings it.
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("a folder").flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let found = found.into_iter().find(|library| library.exists());
    found.expect("faketime is installed: tests/browser/install.sh")
}

/// Has the wall clock of the process jump to so far from the right time.
fn jump(file: &Path, to: &str) {
    // Whole at once, as it is read all the time.
    let new = file.with_extension("new");
    fs::write(&new, to).expect("it is written");
    fs::rename(&new, file).expect("it is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ends_nothing_but_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let offset = folder.path().join("offset");
    jump(&offset, "+0");
    let mut faked = Command::new("env");
    faked
        .arg(format!("LD_PRELOAD={}", faketime().display()))
        .arg(format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()))
        .args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]);
    let text = format!(
        "access.subscribe = [\"authenticated\", \"anonymous\"]\naccess.audience = \"seventh\"\n[[access.key]]\nkid = \"h\"\nalgorithm = \"HS256\"\nsecret = \"{}\"",
        access::SECRET
    );
    let server = Server::start_by(faked, &text).await;
    let mut claims = access::claims();
    claims["exp"] = (claims["exp"].as_u64().expect("a time") + 3600).into();
    let token = format!("Bearer {}", access::token(&claims));
    let mut open = server
        .events(Protocol::Http2, "topic=a")
        .await
        .opened()
        .await;
    for (n, to) in ["+0", "+1h", "+1d", "+400d", "-1h", "-400d", "+0"]
        .into_iter()
        .enumerate()
    {
        jump(&offset, to);
        let data = n.to_string();
        let answer = server.publish("/topics/a", data.clone()).await;
        assert_eq!(answer.status, 200, "{to}");
        assert_eq!(open.data(1).await, [data], "{to}");
        let mut connection = server.connect(Protocol::Http3).await;
        let query = format!("topic=a&last={}", n + 1);
        let mut all = Events::open(&mut connection, &query, &[])
            .await
            .opened()
            .await;
        let expected: Vec<String> = (0..=n).map(|n| n.to_string()).collect();
        assert_eq!(all.data(n + 1).await, expected, "{to}");
        // It ends within two hours, by the wall clock.
        let fields = [("authorization", &*token)];
        let mut known = Events::open(&mut connection, "topic=a", &fields).await;
        let is_over = ["+1d", "+400d"].contains(&to);
        let said = ["edge-open", "edge-auth"][usize::from(is_over)];
        known.edge_event(said).await;
    }
    assert_eq!(server.metric("seventh_stalls_total").await, 0);
}
