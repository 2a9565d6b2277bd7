//! The bench harness as people start it: what it measures is what went on, and what goes wrong is said.

use std::{
    path::Path,
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use seventh::{load::Report, process::Process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::broadcast,
};

use crate::{
    commands::{Server, program, refused},
    harness::{patiently, raise_open_files},
};

/// `seventh bench`, in a folder.
fn bench(folder: &Path, args: &[&str]) -> Command {
    raise_open_files();
    let mut command = program();
    // A machine that is busy with tests may be as late as it likes.
    command.env("SEVENTH_LIMITS_LAG", "24h");
    command.current_dir(folder).arg("bench").args(args);
    command
}

async fn run(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    patiently("its end", bench(folder.path(), args).output())
        .await
        .expect("it runs")
}

/// Starts it.
fn start(folder: &Path, args: &[&str]) -> Child {
    bench(folder, args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// Runs it to its good end.
async fn report(args: &[&str]) -> Report {
    let output = run(&[args, &["--json", "-"]].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
    let check = &report.check;
    assert_eq!(report.void, None, "{args:?}");
    assert_eq!(check.delivered, check.expected, "{args:?}");
    assert_eq!(
        (check.lost, check.repeated, check.disordered),
        (0, 0, 0),
        "{args:?}"
    );
    report
}

fn count(report: &Report, stage: &str) -> u64 {
    let found = report.stages.iter().find(|one| one.name == stage);
    found.unwrap_or_else(|| panic!("{stage}: {report:?}")).count
}

/// Each protocol, and what makes ten streams on it.
const TEN: [[&str; 6]; 3] = [
    ["--http", "1.1", "-c", "10", "-s", "1"],
    ["--http", "2", "-c", "2", "-s", "5"],
    ["--http", "3", "-c", "2", "-s", "5"],
];

#[tokio::test(flavor = "multi_thread")]
async fn fanout_delivers_to_all() {
    for ten in TEN {
        let report = report(&[&["fanout", "-r", "50", "-d", "1s"], &ten[..]].concat()).await;
        assert_eq!(report.check.published, 50);
        assert_eq!(report.check.delivered, 500);
        assert_eq!(
            (count(&report, "open"), count(&report, "deliver")),
            (10, 500)
        );
        assert!(report.memory.expect("it is seen").streaming > 1 << 20);
        let deliver = report.stages.last().expect("it is there");
        let latency = deliver.latency.as_ref().expect("it is there");
        assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.max);
        assert!(deliver.cpu.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_share_streams_and_events() {
    let shared = report(&[
        "-c", "2", "-s", "5", "--topics", "5", "-r", "50", "-d", "1s",
    ])
    .await;
    assert_eq!(shared.check.delivered, 100, "each event has two readers");
    let own = report(&["-c", "2", "-s", "5", "--own-topics", "-r", "50", "-d", "1s"]).await;
    assert_eq!(own.check.delivered, 50, "each event has one reader");
    let paced = report(&["--open", "paced", "-c", "2", "-s", "5", "-d", "1s"]).await;
    assert_eq!(count(&paced, "open"), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_is_even_above_a_thousand_a_second() {
    let report = report(&["-c", "1", "-s", "1", "-r", "3000", "-d", "1s"]).await;
    assert_eq!(report.check.published, 3000);
    assert_eq!(report.setup.publishers, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_publishes_flat_out() {
    let few = report(&["-r", "max", "-c", "2", "-s", "5", "-d", "1s"]).await;
    assert!(few.check.published > 10);
    let eight = report(&["publish", "-d", "1s"]).await;
    assert_eq!(eight.setup.publishers, 8);
    assert!(count(&eight, "publish") > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_counts_keepalives_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = bench(folder.path(), &["hold", "-c", "2", "-s", "5", "-d", "3s"]);
    command.env("SEVENTH_EVENTS_KEEPALIVE", "1s");
    let output = patiently("its end", command.args(["--json", "-"]).output()).await;
    let report: Report = serde_json::from_slice(&output.expect("it runs").stdout).expect("JSON");
    assert_eq!((report.void, report.check.published), (None, 0));
    assert!(report.check.keepalives >= 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_back_get_what_they_missed() {
    for ten in TEN {
        let replay = ["replay", "--missed", "70"];
        let report = report(&[&replay, &ten[..]].concat()).await;
        assert_eq!(report.check.published, 71, "one to come back with");
        assert_eq!(
            (report.check.expected, count(&report, "replay")),
            (700, 700)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_comes_back_and_misses_nothing() {
    for ten in TEN {
        let herd = ["herd", "-r", "50", "-d", "3s"];
        let report = report(&[&herd, &ten[..]].concat()).await;
        assert_eq!(report.check.delivered, 1500);
        assert_eq!(count(&report, "come back"), 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_has_requests_beside_the_streams() {
    for ten in TEN {
        let mixed = ["mixed", "--requests", "50", "--topics", "5", "-d", "1s"];
        let report = report(&[&mixed, &ten[..]].concat()).await;
        assert_eq!(count(&report, "request"), 50);
        assert_eq!(report.check.delivered, 200, "two readers of each topic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_come_and_go() {
    for protocol in ["1.1", "2", "3"] {
        let report = report(&["connect", "-c", "2", "-d", "1s", "--http", protocol]).await;
        for name in ["full", "resumed"] {
            let connections = count(&report, &format!("connect, {name}"));
            assert!(connections > 0, "{protocol} {name}");
            assert_eq!(connections, count(&report, &format!("open, {name}")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_through_to_an_app() {
    for ten in TEN {
        let proxy = ["proxy", "--size", "1000", "-d", "1s"];
        let report = report(&[&proxy, &ten[..]].concat()).await;
        assert!(report.check.requests > 10);
        assert_eq!(report.check.requests_failed, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_may_be_large() {
    let large = [
        "--size", "300000", "-c", "1", "-s", "2", "-r", "5", "-d", "1s",
    ];
    assert_eq!(report(&large).await.check.delivered, 10);
}

#[tokio::test]
async fn nonsense_is_refused() {
    for wrong in [
        &["-c", "0"][..],
        &["-s", "0"],
        &["-r", "NaN"],
        &["-r", "-1"],
        &["--publish-body", "x"],
        &["--preset", "nchan"],
        &["--url", "https://localhost/", "--pin"],
        &["nothing"],
    ] {
        let output = run(wrong).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    for (wrong, why) in [
        (&["--http", "1.1", "-s", "2"][..], "one stream a connection"),
        (
            &["--url", "https://localhost/x", "--topics", "2"],
            "{topic}",
        ),
        (&["--url", "https://localhost/x"], "--publish-url"),
        (&["--url", "nowhere", "-r", "0"], "not a URL"),
        (&["compare", "a.json", "b.json"], "a.json"),
    ] {
        let said = refused(&run(wrong).await);
        assert!(said.contains(why), "{wrong:?}: {said}");
    }
}

/// A server of event streams over plain HTTP/1.1 that does what the harness must notice.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Loss,
    Repeat,
    Disorder,
    End,
    Refusal,
    Silence,
    NoPublishing,
    WrongPublishing,
    Page,
    SilentRequests,
    WrongRequests,
    Stranger,
}

/// Where it streams, and where it is published to.
async fn server_with(fault: Fault) -> [String; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let events = broadcast::Sender::new(1024);
    let published = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, fault, events.clone(), published.clone()));
        }
    });
    ["events", "publish"].map(|path| format!("http://{address}/{path}"))
}

/// Three connections to such a server, and ten events.
fn to([events, publish]: &[String; 2]) -> [&str; 12] {
    [
        "--url",
        events,
        "--publish-url",
        publish,
        "--http",
        "1.1",
        "-c",
        "3",
        "-r",
        "10",
        "-d",
        "1s",
    ]
}

async fn serve(
    stream: TcpStream,
    fault: Fault,
    events: broadcast::Sender<String>,
    published: Arc<AtomicUsize>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        stream.read_line(&mut line).await.ok()?;
        let is_publish = line.starts_with("POST");
        loop {
            let mut field = String::new();
            stream.read_line(&mut field).await.ok().filter(|n| *n > 0)?;
            if let Some(value) = field.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if field.trim().is_empty() {
                break;
            }
        }
        if line.starts_with("GET / ") {
            match fault {
                Fault::SilentRequests => return std::future::pending().await,
                Fault::WrongRequests => {
                    let gone = b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(gone).await.ok()?;
                    continue;
                }
                _ => {}
            }
        }
        if !is_publish {
            return stream_events(stream, fault, events.subscribe()).await;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let event = format!("data: {}\n\n", String::from_utf8(body).expect("text"));
        let number = published.fetch_add(1, Ordering::Relaxed);
        let status = match fault {
            Fault::NoPublishing => return std::future::pending().await,
            Fault::WrongPublishing => "HTTP/1.1 403 Forbidden\r\ncontent-length: 7\r\n\r\nno key\n",
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        };
        let text = match (fault, number) {
            // What another harness has published, and what nobody has.
            (Fault::Stranger, _) => format!("data: ~1.0.7.7~\n\ndata: ~1~\n\n{event}"),
            (Fault::Loss, 3) => String::new(),
            (Fault::Repeat, 3) => event.repeat(2),
            _ => event,
        };
        let _ = events.send(text);
        stream.write_all(status.as_bytes()).await.ok()?;
    }
}

async fn stream_events(
    mut stream: BufReader<TcpStream>,
    fault: Fault,
    mut events: broadcast::Receiver<String>,
) -> Option<()> {
    let head = match fault {
        Fault::Silence => return std::future::pending().await,
        Fault::Refusal => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\ntoo many\n",
        Fault::Page => "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
        _ => "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
    };
    stream.write_all(head.as_bytes()).await.ok()?;
    if matches!(fault, Fault::Refusal | Fault::Page) {
        return None;
    }
    for number in 0.. {
        let mut event = events.recv().await.ok()?;
        if fault == Fault::Disorder && number == 3 {
            event = events.recv().await.ok()? + &event;
        }
        if fault == Fault::End && number == 3 {
            stream.write_all(b": closing time\n\n").await.ok()?;
            return None;
        }
        stream.write_all(event.as_bytes()).await.ok()?;
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_does_wrong_is_said_and_makes_a_run_void() {
    for (fault, why) in [
        (Fault::Loss, "of 30 deliveries 3 lost"),
        (Fault::Repeat, "3 delivered twice"),
        (Fault::Disorder, "3 out of order"),
        (Fault::End, "it had said `closing time` (3 streams ended)"),
        (Fault::NoPublishing, "publishing: no answer in 1 s"),
        (
            Fault::WrongPublishing,
            "publishing: the server answered 403: no key",
        ),
        (Fault::Refusal, "503: too many (0 of 3 streams were open)"),
        (Fault::Silence, "1 s pass without an answer (0 of 3"),
        (Fault::Page, "no event stream"),
    ] {
        let server = server_with(fault).await;
        // Only where nothing comes is that what is waited for.
        let is_silent = matches!(fault, Fault::Silence | Fault::NoPublishing);
        let timeout = if is_silent { "1s" } else { "20s" };
        let output = run(&[&to(&server)[..], &["--timeout", timeout]].concat()).await;
        let said = refused(&output);
        assert!(said.contains(why), "{fault:?}: {said}");
    }
    for (fault, why) in [
        (Fault::SilentRequests, "ordinary request"),
        (Fault::WrongRequests, "answered with an error"),
    ] {
        let server = server_with(fault).await;
        let mixed = [
            "mixed",
            "--topics",
            "1",
            "--requests",
            "50",
            "--timeout",
            "1s",
        ];
        let mixed = [&mixed[..], &to(&server)].concat();
        let said = refused(&run(&mixed).await);
        assert!(said.contains(why), "{fault:?}: {said}");
    }
    let server = server_with(Fault::Stranger).await;
    let any = to(&server);
    assert_eq!(report(&any).await.check.delivered, 30);
    let replay = refused(&run(&[&["replay"], &any[..]].concat()).await);
    assert!(replay.contains("no id"), "{replay}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_vanishes_or_grants_too_little_ends_the_run() {
    for protocol in ["2", "3"] {
        let server = Server::start("").await;
        let (url, control) = (server.address(), server.control_url());
        let pid = server.pid().to_string();
        let known = [
            "--preset",
            "seventh",
            "--url",
            &url,
            "--publish-url",
            &control,
            "--http",
            protocol,
            "--pid",
            &pid,
        ];
        let more = [&known[..], &["-c", "1", "-s", "1100", "-d", "1s"]].concat();
        let said = refused(&run(&more).await);
        let why = match protocol {
            "2" => "the server grants 512 streams a connection",
            _ => "limits.event_streams_http3",
        };
        assert!(said.contains(why), "{said}");
        let folder = tempfile::tempdir().expect("a folder");
        let long = [&known[..], &["-c", "2", "-s", "5", "-d", "1h"]].concat();
        let running = start(folder.path(), &long);
        server
            .until_metric(
                &format!("seventh_event_streams{{protocol=\"h{protocol}\"}}"),
                10,
            )
            .await;
        server.signal("-KILL");
        let output = patiently("its end", running.wait_with_output()).await;
        let said = refused(&output.expect("it ends"));
        assert!(said.contains("count for nothing"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_shows_what_it_has_and_leaves_no_edge() {
    for signal in ["-INT", "-TERM"] {
        // Beginning takes CPU time too, more on some machines than on others.
        let mut begun = 50;
        while !interrupted(signal, begun).await {
            begun *= 2;
        }
    }
}

/// Interrupts a run whose edge has worked for so many milliseconds of CPU time. `false` when that was before
/// anything was measured.
async fn interrupted(signal: &str, begun: u128) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("report.html");
    let args = ["-c", "1", "-s", "2", "-d", "1h", "--html", "report.html"];
    let running = start(folder.path(), &args);
    let id = running.id().expect("it runs");
    let family = patiently("its edge", async {
        loop {
            let family = Process::with_children(id);
            // The edge works as soon as events go out.
            if let [edge] = family.children()
                && Process::new(*edge)
                    .cpu()
                    .is_ok_and(|cpu| cpu.total().as_millis() > begun)
            {
                return family;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let kill = std::process::Command::new("kill")
        .args([signal, &id.to_string()])
        .status();
    assert!(kill.expect("kill runs").success());
    let output = patiently("its end", running.wait_with_output()).await;
    let said = refused(&output.expect("it ends"));
    for edge in family.children() {
        assert!(Process::new(*edge).cpu().is_err(), "the edge is left");
    }
    if said.contains("before anything was measured") {
        return false;
    }
    assert!(said.contains("interrupted"), "{said}");
    assert!(page.exists(), "the report is of a part of the run");
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_can_be_kept_looked_at_and_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["a.json", "b.json"] {
        let args = [
            "-c",
            "2",
            "-s",
            "5",
            "-d",
            "1s",
            "--json",
            file,
            "--html",
            "page.html",
        ];
        let output = patiently("its end", bench(folder.path(), &args).output()).await;
        let table = String::from_utf8(output.expect("it runs").stdout).expect("text");
        assert!(table.contains(" 1000 events"), "{table}");
    }
    let page = std::fs::read_to_string(folder.path().join("page.html")).expect("it is written");
    assert!(page.matches("<svg").count() >= 3);
    for elsewhere in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere} is not in the page");
    }
    let args = ["compare", "a.json", "b.json"];
    let output = patiently("its end", bench(folder.path(), &args).output()).await;
    let table = String::from_utf8(output.expect("it runs").stdout).expect("text");
    let row = table
        .lines()
        .find(|line| line.starts_with("deliver: a second"));
    let ratio = row.and_then(|row| row.split_whitespace().last());
    let ratio: f64 = ratio.expect("a ratio").parse().expect("a number");
    assert!(ratio.is_finite() && ratio > 0.0, "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_growing_loads_make_a_plot() {
    let folder = tempfile::tempdir().expect("a folder");
    for streams in ["2", "20"] {
        let file = format!("{streams}.json");
        let args = ["-c", "1", "-s", streams, "-d", "1s", "--json", &file];
        let output = patiently("its end", bench(folder.path(), &args).output()).await;
        assert!(output.expect("it runs").status.success());
    }
    let plot = async |args: &[&str]| {
        let args = [&["plot"], args].concat();
        let output = patiently("its end", bench(folder.path(), &args).output()).await;
        output.expect("it runs")
    };
    for figure in ["cpu", "p99", "memory"] {
        let along = ["--along", "streams", "--figure", figure];
        let output = plot(&[&["2.json", "20.json"], &along[..]].concat()).await;
        let svg = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && svg.starts_with("<svg"), "{svg}");
        // Two points, each with its mark.
        assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
    }
    let said = refused(&plot(&["2.json", "20.json", "--along", "connections"]).await);
    assert!(said.contains("all of the same connections"), "{said}");
    let said = refused(&plot(&["2.json", "none.json", "--along", "streams"]).await);
    assert!(said.contains("none.json"), "{said}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn server_and_harness_keep_to_cores_of_their_own() {
    if std::thread::available_parallelism()
        .expect("it says so")
        .get()
        < 2
    {
        let said = refused(&run(&["--pin", "-d", "1s"]).await);
        assert!(said.contains("needs two cores"), "{said}");
        return;
    }
    assert!(
        report(&["--pin", "-c", "1", "-s", "2", "-d", "1s"])
            .await
            .setup
            .pinned
    );
}
