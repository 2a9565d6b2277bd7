//! `GET /events`: opening an event stream.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, Method, StatusCode, header};
use serde_json::json;

use super::{Body, EventStream, Problem, Reply, Request, Shared, event_stream::Counted};
use crate::{clock, hub::Resume, sse::Draft, topic::Topic};

/// The spellings of the cursor in a query, for clients that cannot set a header: the HTML
/// standard's polyfills and the peers of this edge each have their own.
const CURSOR_NAMES: [&str; 6] = [
    "lastEventId",
    "lastEventID",
    "last_event_id",
    "Last-Event-ID",
    "evs_last_event_id",
    "last-event-id",
];

/// How many times as long as usual a client waits that asks for more streams than its connection
/// may have.
const REFUSED_RETRY: u32 = 6;

/// What the query of an event stream asks for.
struct Query<'a> {
    topics: Vec<Topic>,
    cursor: Option<Cow<'a, str>>,
    last: Option<usize>,
    quiet: bool,
}

pub(super) fn answer(shared: &Arc<Shared>, request: &Request) -> Result<Reply, Problem> {
    let parts = &request.parts;
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Problem::method(&parts.method, "GET, HEAD"));
    }
    if !accepts_event_stream(&parts.headers) {
        return Err(Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "what is here is text/event-stream, which the request's Accept leaves out",
        ));
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default(), shared.events.topics)?;
    if parts.method == Method::HEAD {
        return Ok(Reply::new(StatusCode::OK, Body::Full("".into())).into_event_stream_head());
    }
    if shared.drain.is_draining() {
        return Ok(Reply::gentle_refusal(shared.drain_retry()));
    }
    let Some(place) = request.peer.places.take() else {
        shared.metrics.limit(request.peer.places.limit);
        let retry = shared.retry() * REFUSED_RETRY;
        return Ok(Reply::gentle_refusal(retry));
    };
    let header = parts.headers.get("last-event-id");
    let cursor = match header {
        Some(id) if !id.is_empty() => Some(String::from_utf8_lossy(id.as_bytes())),
        _ => query.cursor.clone(),
    };
    let resume = match (&cursor, query.last) {
        (Some(id), _) => Resume::After(id),
        (None, Some(events)) => Resume::Last(events),
        (None, None) => Resume::Live,
    };

    let now = clock::now();
    let peer = &request.peer;
    let counted = Counted {
        _open: shared.metrics.event_stream(peer.protocol),
        _place: place,
    };
    let (subscription, opening) = shared
        .hub
        .subscribe(&query.topics, resume, &peer.mailbox, now);
    let first = if query.quiet {
        crate::sse::retry(shared.retry()).into()
    } else {
        let topics: Vec<_> = subscription.topics().map(Topic::as_str).collect();
        let data = json!({ "topics": topics, "replay": opening.behind });
        let draft = Draft::new(Some("edge-open"), &data.to_string(), Some(shared.retry()));
        match opening.id {
            Some(id) => draft.finish(id),
            None => draft.finish_without_id(),
        }
    };
    let stream = EventStream::new(
        subscription,
        first,
        shared.events.keepalive,
        now,
        fastrand::f64(),
        shared.metrics.clone(),
        counted,
    );
    Ok(Reply::new(StatusCode::OK, Body::Events(Box::new(stream))).into_event_stream())
}

impl Reply {
    /// The head of an event stream without one: it has no length.
    fn into_event_stream_head(self) -> Self {
        let mut reply = self.into_event_stream();
        reply.headers.remove(header::CONTENT_LENGTH);
        reply
    }
}

impl<'a> Query<'a> {
    fn parse(query: &'a str, most_topics: usize) -> Result<Self, Problem> {
        let mut parsed = Self {
            topics: Vec::new(),
            cursor: None,
            last: None,
            quiet: false,
        };
        let mut named = 0;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "topic" => {
                    named += 1;
                    if named <= most_topics {
                        let topic = Topic::parse(&value).map_err(|error| (error, &*value))?;
                        parsed.topics.push(topic);
                    }
                }
                "last" => {
                    let last = value.parse().map_err(|_| {
                        Problem::field(
                            "last",
                            &value,
                            "last is not a whole number; say how many events",
                        )
                    })?;
                    parsed.last = Some(last);
                }
                "edge" => match &*value {
                    "quiet" => parsed.quiet = true,
                    _ => {
                        return Err(Problem::field(
                            "edge",
                            &value,
                            "edge can be `quiet` or left out",
                        ));
                    }
                },
                name if CURSOR_NAMES.contains(&name) && !value.is_empty() => {
                    parsed.cursor = Some(value);
                }
                _ => {}
            }
        }
        match named {
            0 => Err(Problem::field("topic", "", "no topic is named; add ?topic=NAME, once for each")),
            n if n > most_topics => Err(Problem::field(
                "topic",
                &n.to_string(),
                format!("{n} topics are named, the limit is {most_topics} (events.topics); open another stream"),
            )
            .with_limit(most_topics)),
            _ => Ok(parsed),
        }
    }
}

/// RFC 9110 12.5.1, as far as one type needs it: the most specific range that matches decides.
fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let mut best = None;
    for value in headers.get_all(header::ACCEPT) {
        for range in String::from_utf8_lossy(value.as_bytes()).split(',') {
            let mut parts = range.split(';').map(str::trim);
            let specific = match parts
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
                .as_str()
            {
                "text/event-stream" => 2,
                "text/*" => 1,
                "*/*" => 0,
                "" => continue,
                _ => {
                    best = best.max(Some((-1, false)));
                    continue;
                }
            };
            let weight = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
            let refused = weight.is_some_and(|q| q.parse() == Ok(0.0));
            best = best.max(Some((specific, !refused)));
        }
    }
    best.is_none_or(|(_, accepted)| accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.parse().expect("a value"));
        accepts_event_stream(&headers)
    }

    #[test]
    fn what_leaves_event_streams_out_and_what_does_not() {
        assert!(accepts_event_stream(&HeaderMap::new()));
        for yes in [
            "text/event-stream",
            "*/*",
            "text/*;q=0.1",
            "application/json, */*",
            "",
            "Text/Event-Stream;q=1",
        ] {
            assert!(accepts(yes), "{yes}");
        }
        for no in [
            "application/json",
            "text/html, image/*",
            "text/event-stream;q=0",
            "*/*;q=0",
            "*/*, text/event-stream;q=0.0",
        ] {
            assert!(!accepts(no), "{no}");
        }
    }

    #[test]
    fn every_spelling_of_the_cursor() {
        for name in CURSOR_NAMES {
            let text = format!("topic=a&{name}=x%201");
            let query = Query::parse(&text, 9).expect("it is right");
            assert_eq!(query.cursor.as_deref(), Some("x 1"), "{name}");
        }
        assert!(
            Query::parse("topic=a&lastEventId=", 9)
                .expect("it is right")
                .cursor
                .is_none()
        );
    }

    #[test]
    fn a_wrong_query_is_named() {
        for (query, field) in [
            ("", "topic"),
            ("topic=", "topic"),
            ("topic=a&topic=b", "topic"),
            ("topic=a&last=x", "last"),
            ("topic=a&edge=loud", "edge"),
        ] {
            let problem = Query::parse(query, 1).err().expect("it is wrong").json();
            assert!(
                problem.contains(&format!("\"field\":\"{field}\"")),
                "{query}: {problem}"
            );
        }
    }
}
