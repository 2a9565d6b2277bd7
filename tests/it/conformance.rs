//! HTTP/2 as h2spec has it, RFC 9113 and RFC 7541, with its strict tests. `make conformance` runs it, as
//! it takes a program that is built with Go.

use std::path::Path;

use tokio::process::Command;

use crate::{commands::Server, harness::patiently};

/// What an event stream cannot pass: these wait for its end, or ask for its length first.
const NEEDS_AN_END: &[&str] = &[
    "2.5: Sends a PRIORITY frame on closed stream",
    "5.1.11: closed: Sends a DATA frame",
    "5.1.12: closed: Sends a HEADERS frame",
    "5.1.13: closed: Sends a CONTINUATION frame",
    "6.5.3.1: Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE",
    "6.9.1.1: Sends SETTINGS frame to set the initial window size to 1 and sends HEADERS frame",
    "6.9.2.1: Changes SETTINGS_INITIAL_WINDOW_SIZE after sending HEADERS frame",
    "6.9.2.2: Sends a SETTINGS frame for window size to be negative",
];

#[tokio::test]
#[ignore = "takes h2spec"]
async fn http2_is_what_its_standard_says() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/bin/h2spec");
    assert!(
        program.exists(),
        "h2spec is not there: `make tools` installs it where Go is"
    );
    let server = Server::start("").await;
    // It reads the body before it answers; the first answers before the body has come.
    for (path, expected) in [
        ("/demo/publish", &[][..]),
        ("/", &[]),
        ("/events?topic=a", NEEDS_AN_END),
    ] {
        let mut command = Command::new(&program);
        command
            .kill_on_drop(true)
            .args(["-h", "localhost", "-t", "-k", "-S"]);
        let port = server.https.port().to_string();
        command.args(["-p", &port, "-P", path]);
        let output = tokio::time::timeout(std::time::Duration::from_secs(300), command.output());
        let output = output.await.expect("it ends").expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let run = text.lines().last().unwrap_or_default();
        println!("{path}: {run}");
        assert!(run.starts_with("146 tests, "), "{text}");
        assert_eq!(failures(&text), expected, "{path}: {text}");
        patiently("an answer", server.publish("/topics/a", "well")).await;
    }
}

/// The tests that failed, by the numbers of their section and their own.
fn failures(text: &str) -> Vec<String> {
    let Some((_, failures)) = text.split_once("Failures:") else {
        return Vec::new();
    };
    let mut section = String::new();
    let mut all = Vec::new();
    for line in failures.lines() {
        let line = line.trim();
        if let Some(test) = line.strip_prefix("× ") {
            all.push(format!("{section}.{test}"));
        } else if let Some((number, _)) = line.split_once(' ')
            && number.ends_with('.')
            && number.starts_with(|c: char| c.is_ascii_digit())
        {
            section = number.trim_end_matches('.').to_owned();
        }
    }
    all
}
