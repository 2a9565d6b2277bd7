//! `GET /events`: opening an event stream.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use serde_json::json;

use super::{
    Context, EventStream, StreamInfo,
    event_stream::{Counted, Pace, TokenEnd},
};
use crate::{
    access::{Denied, Identity},
    clock,
    exchange::{Body, EventBody as _, Peer, Problem, Reply},
    hub::{Opening, Resume},
    limits::{Bound, Slot},
    sse::Draft,
    topic::Topic,
};

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

/// How long a client that polls is kept waiting for an event: less than proxies wait.
const POLL: Duration = Duration::from_secs(25);
/// What old polyfills ask for before the first event: some browsers pass nothing on before 2 KiB.
const PADDING: usize = 2 << 10;

/// What the query of an event stream asks for.
struct Query<'a> {
    topics: Vec<Topic>,
    cursor: Option<Cow<'a, str>>,
    last: Option<usize>,
    quiet: bool,
    poll: bool,
    padding: bool,
}

/// Answers a request to the event stream's path, with what pages of other sites need to see.
pub(super) async fn answer(context: &Arc<Context>, parts: &Parts, peer: &Peer) -> Reply {
    let origins = context.access.origins();
    if parts.method == Method::OPTIONS {
        let mut reply = Reply::new(StatusCode::NO_CONTENT, Body::Full(Bytes::new()));
        reply.headers.remove(header::CONTENT_LENGTH);
        reply
            .headers
            .extend(origins.preflight_fields(&parts.headers));
        return reply.with(header::ALLOW, ALLOWED);
    }
    let mut reply = match open(context, parts, peer).await {
        Ok(reply) => reply,
        Err(Refused::Problem(problem)) => problem.into(),
        Err(Refused::Denied(denied)) => refuse(context, denied),
    };
    reply.headers.extend(origins.reply_fields(&parts.headers));
    reply
}

const ALLOWED: &str = "GET, HEAD, OPTIONS";

enum Refused {
    Problem(Problem),
    Denied(Denied),
}

impl<T: Into<Problem>> From<T> for Refused {
    fn from(problem: T) -> Self {
        Self::Problem(problem.into())
    }
}

/// The refusal that fits: for good where that is meant, gently where another attempt may succeed.
fn refuse(context: &Context, denied: Denied) -> Reply {
    let reason = match denied {
        Denied::Unauthorized(_) | Denied::Forbidden(_) => return Problem::from(denied).into(),
        Denied::Expired => "expired",
        Denied::Unavailable => "unavailable",
    };
    let data = json!({ "reason": reason });
    let retry = Some(context.long_retry());
    let draft = Draft::new(Some("edge-auth"), &data.to_string(), retry);
    Reply::short_stream(draft.finish_without_id())
}

async fn open(context: &Arc<Context>, parts: &Parts, peer: &Peer) -> Result<Reply, Refused> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Problem::method(&parts.method, ALLOWED).into());
    }
    let query = Query::parse(
        parts.uri.query().unwrap_or_default(),
        context.limits.stream_topics,
    )?;
    let poll = query.poll
        || parts
            .headers
            .get("x-requestor")
            .is_some_and(|value| value == "XHR");
    if !poll && !accepts_event_stream(&parts.headers) {
        return Err(Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "what is here is text/event-stream, which the request's Accept leaves out",
        )
        .into());
    }
    let generation = context.access.generation();
    let (now, wall) = (clock::now(), clock::wall());
    let identified = context
        .access
        .identify(&parts.headers, &parts.uri, now, wall)
        .await;
    let identity = identified.map_err(Refused::Denied)?;
    context
        .access
        .may_subscribe(&identity, query.topics.iter())
        .map_err(Refused::Denied)?;
    if parts.method == Method::HEAD {
        return Ok(Reply::new(StatusCode::OK, Body::Full("".into())).into_event_stream_head());
    }
    if context.drain.is_draining() {
        return Ok(Reply::gentle_refusal(context.drain_retry()));
    }
    let place = match peer.places.take() {
        Ok(place) => place,
        Err(limit) => {
            return Ok(Reply::gentle_refusal(context.long_retry()).bitten_by(limit));
        }
    };
    let mut stream = subscribe(context, parts, peer, query, identity, place);
    if context.access.generation() != generation {
        // Someone was disconnected meanwhile: who this is has to be settled anew.
        stream.end_at(clock::now(), context.retry());
    }
    Ok(match poll {
        true => {
            let stream = stream.answer_poll_by(clock::now() + POLL);
            let reply =
                Reply::new(StatusCode::OK, Body::Events(Box::new(stream))).into_event_stream();
            match wants_event_stream(&parts.headers) {
                true => reply,
                false => reply.with(header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            }
        }
        false => Reply::new(StatusCode::OK, Body::Events(Box::new(stream))).into_event_stream(),
    })
}

/// Begins the stream. From here on nothing can be refused.
fn subscribe(
    context: &Arc<Context>,
    parts: &Parts,
    peer: &Peer,
    query: Query<'_>,
    identity: Identity,
    place: Slot,
) -> EventStream {
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
    // Audience is topics: everyone also reads those of their standing, user and groups.
    let mut reads = query.topics.clone();
    reads.extend(identity.reserved_topics());

    let now = clock::now();
    let (subscription, opening) = context.hub.subscribe(&reads, resume, &peer.mailbox, now);
    let pace = Pace {
        keepalive: context.events.keepalive,
        retry: context.retry(),
        phase: fastrand::f64(),
    };
    let token = identity.expires().map(|at| TokenEnd {
        at,
        notice: context.access.expiry_notice(),
        told: false,
    });
    let mut named: Vec<Topic> = subscription
        .topics()
        .filter(|topic| !topic.is_reserved())
        .cloned()
        .collect();
    named.shrink_to_fit();
    let first = first_bytes(&query, &named, &opening, pace.retry);
    let handle = subscription.handle();
    let info = StreamInfo::new(
        Arc::new(identity),
        named.into(),
        peer.protocol,
        peer.remote,
        clock::wall(),
        (handle.mailbox().clone(), handle.key()),
    );
    let counted = Counted {
        _open: context.metrics.event_streams.guard(peer.protocol),
        _place: place,
        registration: context.streams.register(info),
    };
    EventStream::new(
        subscription,
        first,
        pace,
        token,
        now,
        context.clone(),
        counted,
    )
}

fn first_bytes(query: &Query<'_>, topics: &[Topic], opening: &Opening, retry: Duration) -> Bytes {
    let mut first = Vec::new();
    if query.padding {
        first.push(b':');
        first.resize(1 + PADDING, b' ');
        first.push(b'\n');
    }
    if query.quiet {
        first.extend_from_slice(crate::sse::retry(retry).as_bytes());
        return first.into();
    }
    let topics: Vec<_> = topics.iter().map(Topic::as_str).collect();
    let data = json!({ "topics": topics, "replay": opening.behind });
    let draft = Draft::new(Some("edge-open"), &data.to_string(), Some(retry));
    let open = match opening.id {
        Some(id) => draft.finish(id),
        None => draft.finish_without_id(),
    };
    if first.is_empty() {
        return open;
    }
    first.extend_from_slice(&open);
    first.into()
}

/// Whether the type is asked for by its name: what polls may get plain text.
fn wants_event_stream(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    values.into_iter().any(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        value
            .split(',')
            .any(|range| range.trim().starts_with("text/event-stream"))
    })
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
    fn parse(query: &'a str, topics: Bound<usize>) -> Result<Self, Problem> {
        let mut parsed = Self {
            topics: Vec::new(),
            cursor: None,
            last: None,
            quiet: false,
            poll: false,
            padding: false,
        };
        let mut named = 0;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "topic" => {
                    named += 1;
                    if named <= topics.value {
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
                "poll" => parsed.poll = matches!(&*value, "1" | "true"),
                "padding" => parsed.padding = matches!(&*value, "1" | "true"),
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
            0 => Err(Problem::field(
                "topic",
                "",
                "no topic is named; add ?topic=NAME, once for each",
            )),
            n if n > topics.value => {
                let (most, key) = (topics.value, topics.limit.key());
                let detail = format!(
                    "{n} topics are named, the limit is {most} ({key}); open another stream"
                );
                Err(Problem::field("topic", &n.to_string(), detail).by(topics))
            }
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

    fn topics(value: usize) -> Bound<usize> {
        let limit = crate::limits::Limit::StreamTopics;
        Bound { limit, value }
    }

    #[test]
    fn every_spelling_of_the_cursor() {
        for name in CURSOR_NAMES {
            let text = format!("topic=a&{name}=x%201");
            let query = Query::parse(&text, topics(9)).expect("it is right");
            assert_eq!(query.cursor.as_deref(), Some("x 1"), "{name}");
        }
        assert!(
            Query::parse("topic=a&lastEventId=", topics(9))
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
            let problem = Query::parse(query, topics(1))
                .err()
                .expect("it is wrong")
                .json();
            assert!(
                problem.contains(&format!("\"field\":\"{field}\"")),
                "{query}: {problem}"
            );
        }
    }
}
