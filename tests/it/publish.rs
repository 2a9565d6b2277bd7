//! Taking events from publishers, over HTTP/1.1 and HTTP/2 on the control listener.

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use seventh::client::{Connection, Protocol, full};

use crate::harness::{Answer, Events, TestEdge, lines, patiently, streaming};

macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        mod h1 { $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name(super::Protocol::Http1).await; } )+ }
        mod h2c { $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name(super::Protocol::Http2).await; } )+ }
    };
}

both!(
    a_plain_body_is_the_data,
    json_takes_text_and_any_other_json,
    lines_are_published_and_answered_as_they_come,
    what_is_over_a_limit_is_named_and_nothing_is_half_published,
    a_line_that_is_wrong_does_not_stop_the_others,
    an_array_is_published_whole_or_not_at_all,
    people_are_sent_lines_and_arrays_too,
);

mod outside {
    use super::{
        a_line_that_breaks_off_is_told_and_harms_nobody,
        a_refusal_is_read_while_the_body_is_on_its_way,
    };
    use crate::harness::every_protocol;

    every_protocol!(
        a_line_that_breaks_off_is_told_and_harms_nobody,
        a_refusal_is_read_while_the_body_is_on_its_way,
    );
}

async fn an_array_is_published_whole_or_not_at_all(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge
        .events(Protocol::Http2, "topic=a&topic=b")
        .await
        .opened()
        .await;
    let mut control = edge.control(protocol).await;
    let good = json!([{ "topic": "a", "data": 1 }, { "topic": "b", "data": "two" }, { "topic": "a", "data": 3 }]);
    let mut bad = good.clone();
    bad[1]["topic"] = json!("$b");
    let answer = post(
        &mut control,
        "/publish",
        "application/json",
        bad.to_string(),
    )
    .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let problem = answer.json();
    assert_eq!(problem["code"], "topic-reserved");
    assert_eq!(problem["type"], "urn:seventh:problem:topic-reserved");
    let detail = problem["detail"].as_str().expect("text");
    assert!(
        detail.starts_with("event 2 of 3, none of which was published: "),
        "{detail}"
    );
    let answer = post(
        &mut control,
        "/publish",
        "application/json",
        good.to_string(),
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let answers = answer.json();
    assert_eq!(answers.as_array().expect("a list").len(), 3);
    assert_eq!(answers[2]["receivers"], 1);
    // The first that comes is the first of those that were right.
    assert_eq!(events.data(3).await, ["1", "two", "3"]);
    for (body, code) in [
        ("[]", "wrong-events"),
        ("[1]", "bad-request"),
        ("[", "bad-request"),
    ] {
        let answer = post(
            &mut control,
            "/publish",
            "application/json",
            body.to_owned(),
        )
        .await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some(code))
        );
    }
    let many = format!("[{}]", vec!["{\"topic\":\"a\",\"data\":1}"; 1001].join(","));
    let answer = post(&mut control, "/publish", "application/json", many).await;
    assert_eq!(answer.json()["limit"], 1000);
}

/// One rule for all that takes JSON.
async fn people_are_sent_lines_and_arrays_too(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge.events(Protocol::Http2, "topic=a").await.opened().await;
    let mut control = edge.control(protocol).await;
    let lines = "{\"data\":1,\"anonymous\":true}\n{\"data\":2}\n{\"date\":3}\n";
    for content_type in ["application/x-ndjson", "application/jsonl; charset=utf-8"] {
        let answer = post(&mut control, "/broadcast", content_type, lines.to_owned()).await;
        assert_eq!(answer.header("content-type"), "application/x-ndjson");
        let answers: Vec<Value> = answer
            .text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(
            (&answers[0]["delivered"], &answers[1]["delivered"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(answers[2]["status"], 400);
        assert_eq!(events.data(1).await, ["1"]);
    }
    let both = json!([{ "data": 4, "users": "nobody" }, { "data": 5, "groups": ["none"] }]);
    let answer = post(&mut control, "/send", "application/json", both.to_string()).await;
    assert_eq!(answer.json()[1]["delivered"], false, "{}", answer.text);
    for path in ["/publish", "/broadcast", "/send"] {
        let answer = post(&mut control, path, "application/xml", "<x/>".to_owned()).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(answer.json()["code"], "unsupported-media-type");
    }
}

/// A publisher whose body ends in the middle of a line, beside an event stream that shares its
/// connection where that can be.
async fn a_line_that_breaks_off_is_told_and_harms_nobody(protocol: Protocol) {
    let edge =
        TestEdge::with("limits.request_body = \"3s\"\naccess.publish = [\"0123456789abcdef\"]");
    let mut connection = edge.connect(protocol).await;
    let mut events = match protocol {
        Protocol::Http1 => edge.events(protocol, "topic=a").await,
        _ => Events::open(&mut connection, "topic=a", &[]).await,
    }
    .opened()
    .await;
    let (lines, request) = lines();
    let sent = connection.send(request);
    let mut response = patiently("an answer", sent).await.expect("an answer");
    let whole_and_a_part = "{\"topic\":\"a\",\"data\":\"1\"}\n{\"topic\":";
    lines
        .send(whole_and_a_part.into())
        .await
        .expect("it is read");
    let answers = patiently("the end", response.bytes())
        .await
        .expect("a clean end");
    let answers = String::from_utf8(answers.into()).expect("text");
    assert_eq!(answers.lines().count(), 2, "{answers}");
    assert!(answers.contains("limits.request_body"), "{answers}");
    edge.publish("a", "2").await;
    assert_eq!(events.data(2).await, ["1", "2"]);
    assert_eq!(edge.metric("seventh_panics_total").await, 0);
    drop(lines);
}

/// The client has sent the half of its body when it is answered; the other half harms nobody.
async fn a_refusal_is_read_while_the_body_is_on_its_way(protocol: Protocol) {
    let edge = TestEdge::with("access.publish = [\"0123456789abcdef\"]");
    let mut connection = edge.connect(protocol).await;
    for authorization in ["Bearer wrong", "Bearer 0123456789abcdef"] {
        let (parts, body) = streaming();
        let request = Request::post("/topics/a")
            .header("authorization", authorization)
            .body(body)
            .expect("a request");
        let large: Bytes = vec![b'x'; 300_000].into();
        let (sent, answer) = tokio::join!(
            parts.send(large.clone()),
            Answer::of(&mut connection, request)
        );
        sent.expect("it is read");
        assert!(
            [401, 413].contains(&answer.status.as_u16()),
            "{}",
            answer.text
        );
        assert_eq!(answer.json()["status"], answer.status.as_u16());
        // The client may have stopped sending, as it has its answer.
        let _: Result<_, _> = parts.send(large).await;
        drop(parts);
        let request = Request::get("/nothing").body(full("")).expect("a request");
        assert_eq!(Answer::of(&mut connection, request).await.status, 404);
    }
}

async fn post(
    connection: &mut Connection,
    path: &str,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Answer {
    let request = Request::post(path).header("content-type", content_type);
    Answer::of(connection, request.body(full(body)).expect("a request")).await
}

async fn a_plain_body_is_the_data(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge
        .events(Protocol::Http2, "topic=a%20b/c")
        .await
        .opened()
        .await;
    let mut control = edge.control(protocol).await;
    // As `curl -d` sends it.
    let answer = post(
        &mut control,
        "/topics/a%20b/c",
        "application/x-www-form-urlencoded",
        "x=1&y=%20",
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json()["receivers"], 1);
    let message = events.message().await;
    assert_eq!(
        (message.data.as_str(), message.event.as_str()),
        ("x=1&y=%20", "message")
    );
    assert_eq!(answer.json()["id"], json!(message.id));
}

async fn json_takes_text_and_any_other_json(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge.events(Protocol::Http2, "topic=a").await.opened().await;
    let mut control = edge.control(protocol).await;
    for (data, arrives) in [
        (r#""two\nlines \u2603""#, "two\nlines ☃"),
        (
            r#"{"b": 1, "a": 123456789012345678901234567890}"#,
            r#"{"b": 1, "a": 123456789012345678901234567890}"#,
        ),
        ("[1,\n2]", "[1,\n2]"),
        ("null", "null"),
        (r#""""#, ""),
    ] {
        let body = format!(r#"{{"topic": "a", "event": "e", "data": {data}}}"#);
        let answer = post(
            &mut control,
            "/publish",
            "application/json; charset=utf-8",
            body,
        )
        .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let message = events.message().await;
        assert_eq!(
            (message.event.as_str(), message.data.as_str()),
            ("e", arrives)
        );
    }
}

async fn lines_are_published_and_answered_as_they_come(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut events = edge
        .events(Protocol::Http2, "topic=tokens")
        .await
        .opened()
        .await;
    let mut control = edge.control(protocol).await;
    let (lines, request) = lines();
    let mut response = control.send(request).await.expect("an answer");
    assert_eq!(response.headers["content-type"], "application/x-ndjson");
    // Each line is out, and answered, before the next is written; one comes in two parts.
    for (n, parts) in [
        vec!["{\"topic\":\"tokens\",\"data\":\"0\"}\n"],
        vec!["\n{\"topic\":\"tok", "ens\",\"data\":\"1\"}\r\n"],
    ]
    .into_iter()
    .enumerate()
    {
        for part in parts {
            lines.send(part.into()).await.expect("it is read");
        }
        assert_eq!(events.data(1).await, [n.to_string()]);
        let answer = patiently("an answer", response.chunk())
            .await
            .expect("an answer")
            .expect("an answer");
        let answer: Value = serde_json::from_slice(&answer).expect("a line of JSON");
        assert_eq!(answer["receivers"], 1);
    }
    // The last line needs no end.
    lines
        .send("{\"topic\":\"tokens\",\"data\":\"2\"}".into())
        .await
        .expect("it is read");
    drop(lines);
    assert_eq!(events.data(1).await, ["2"]);
    let rest = patiently("the end", response.bytes())
        .await
        .expect("a clean end");
    assert_eq!(rest.iter().filter(|&&b| b == b'\n').count(), 1);
}

async fn what_is_over_a_limit_is_named_and_nothing_is_half_published(protocol: Protocol) {
    let edge = TestEdge::with("limits.event_bytes = \"1 KiB\"");
    let mut control = edge.control(protocol).await;
    let large = "x".repeat(1025);
    let json = "application/json";
    let cases = [
        (
            "/topics/a",
            "text/plain",
            large.clone(),
            413,
            "data",
            Some(1024),
        ),
        (
            "/publish",
            json,
            json!({"topic": ["a"], "data": large}).to_string(),
            413,
            "data",
            Some(1024),
        ),
        (
            "/topics/a?id=x%0Ay",
            "text/plain",
            "x".into(),
            400,
            "id",
            None,
        ),
        ("/topics/a?id=", "text/plain", "x".into(), 400, "id", None),
        (
            "/topics/a?id=%FF",
            "text/plain",
            "x".into(),
            400,
            "query",
            None,
        ),
        (
            "/topics/a?id=1&id=2",
            "text/plain",
            "x".into(),
            400,
            "query",
            None,
        ),
        (
            "/topics/a?id=%20x",
            "text/plain",
            "x".into(),
            400,
            "id",
            None,
        ),
        (
            "/topics/a?id=x%20",
            "text/plain",
            "x".into(),
            400,
            "id",
            None,
        ),
        // It would be taken for one of the edge's own.
        (
            "/topics/a?id=k3f9x2ab-7",
            "text/plain",
            "x".into(),
            400,
            "id",
            None,
        ),
        (
            "/topics/a?retry=0",
            "text/plain",
            "x".into(),
            400,
            "retry",
            None,
        ),
        (
            "/topics/a?retry=x",
            "text/plain",
            "x".into(),
            400,
            "retry",
            None,
        ),
        (
            "/topics/a?evnt=x",
            "text/plain",
            "x".into(),
            400,
            "query",
            None,
        ),
        ("/topics/$all", "text/plain", "x".into(), 400, "topic", None),
        (
            "/publish",
            json,
            json!({"topic": "a", "data": "", "id": "x".repeat(256)}).to_string(),
            400,
            "id",
            Some(255),
        ),
        (
            "/publish",
            json,
            json!({"topic": "a", "data": "", "event": "x".repeat(256)}).to_string(),
            400,
            "event",
            Some(255),
        ),
        (
            "/publish",
            json,
            json!({"topic": "a", "data": "", "event": "a\rb"}).to_string(),
            400,
            "event",
            None,
        ),
        (
            "/publish",
            json,
            json!({"topic": [], "data": ""}).to_string(),
            400,
            "topic",
            Some(100),
        ),
        // The first topic is right: it must not get the event.
        (
            "/publish",
            json,
            json!({"topic": ["a", "\u{0}"], "data": ""}).to_string(),
            400,
            "topic",
            None,
        ),
        (
            "/publish",
            json,
            json!({"topic": "a"}).to_string(),
            400,
            "",
            None,
        ),
        (
            "/publish",
            json,
            json!({"topic": "a", "data": "", "dta": 1}).to_string(),
            400,
            "",
            None,
        ),
        ("/publish", json, "{".into(), 400, "", None),
        ("/publish", "text/xml", "<a/>".into(), 415, "", None),
    ];
    for (path, content_type, body, status, field, limit) in cases {
        let answer = post(&mut control, path, content_type, body.clone()).await;
        let problem = answer.json();
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {problem}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(
            problem["field"].as_str().unwrap_or_default(),
            field,
            "{path} {body}: {problem}"
        );
        assert_eq!(problem["limit"].as_u64(), limit, "{problem}");
    }
    let coded = Request::post("/topics/a").header("content-encoding", "gzip");
    let coded = coded.body(full(&b"\x1f\x8b"[..])).expect("a request");
    let answer = Answer::of(&mut control, coded).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let as_curl = "application/x-www-form-urlencoded";
    let wrong = post(&mut control, "/publish", as_curl, "topic=a&data=b").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let binary = post(&mut control, "/topics/a", "text/plain", &b"a\xff"[..]).await;
    assert_eq!(binary.status, StatusCode::BAD_REQUEST);
    assert_eq!(edge.metric("seventh_events_published_total").await, 0);
    assert_eq!(
        edge.ask("GET", "/topics", "").await.json(),
        json!({"topics": [], "next": null})
    );
    let fits = post(&mut control, "/topics/a", "text/plain", "x".repeat(1024)).await;
    assert_eq!(fits.status, StatusCode::OK);
}

async fn a_line_that_is_wrong_does_not_stop_the_others(protocol: Protocol) {
    let edge = TestEdge::start();
    let mut control = edge.control(protocol).await;
    let lines = "{\"topic\":\"a\",\"data\":1}\nnot json\n\n{\"topic\":\"a\",\"data\":2}\n";
    let answer = post(&mut control, "/publish", "application/x-ndjson", lines).await;
    let answers: Vec<Value> = answer
        .text
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[1]["status"], 400);
    assert_eq!(
        (&answers[0]["receivers"], &answers[2]["receivers"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(edge.ask("GET", "/topics/a", "").await.json()["events"], 2);
}
