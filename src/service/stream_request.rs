//! What a request for an event stream asks for, in all of its spellings: query, `Accept`, cursor.
//!
//! Pure.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, StatusCode, header, request::Parts};

use crate::{exchange::Problem, hub::Resume, limits::Bound, sse::EventId, topic::Topic};

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

/// The shortest age that a stream may have.
pub(crate) const SHORTEST_AGE: Duration = Duration::from_secs(10);
/// The longest that a client may ask for where none is configured.
const LONGEST_AGE: Duration = Duration::from_secs(3600);

/// `[[events.stream]]`: a path of the operator's own for topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedStream {
    /// Its path, without a final `/`.
    pub path: String,
    /// What is read there.
    pub topics: Vec<Topic>,
    /// How many of the last events a first visit gets.
    pub last: Option<usize>,
}

/// What a request for an event stream asks for.
#[derive(Debug, Default)]
pub(super) struct StreamRequest<'a> {
    /// The topics that it names.
    pub(super) topics: Vec<Topic>,
    /// Without the priming event.
    pub(super) quiet: bool,
    /// With keepalives that a page can see.
    pub(super) heartbeat: bool,
    /// Told when the replay is over.
    pub(super) sync: bool,
    /// With the topics of each event before it.
    pub(super) topics_told: bool,
    /// To end at this age.
    pub(super) max_age: Option<Duration>,
    /// Answered with the first events there are, for clients that can do no better.
    pub(super) poll: Option<Poll>,
    /// With a comment that old browsers need before they pass anything on.
    pub(super) padding: bool,
    /// What says who asks, where no cookie does.
    pub(super) ticket: Option<Cow<'a, str>>,
    cursor: Option<Cow<'a, str>>,
    last: Option<usize>,
}

/// How a client that polls wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poll {
    /// As an event stream, which it asks for by name.
    EventStream,
    /// As plain text.
    Text,
}

impl<'a> StreamRequest<'a> {
    /// Reads the head of a request for the event streams, or for one that has its topics, which may name so
    /// many topics. The edge's streams may be so old.
    ///
    /// # Errors
    ///
    /// A [`Problem`] names the part of the query that is wrong; 406 when an event stream is not
    /// what is asked for.
    pub(super) fn parse(
        parts: &'a Parts,
        topics: Bound<usize>,
        max_age: Option<Duration>,
        named: Option<&NamedStream>,
    ) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let mut asked = Self::of_query(parts.uri.query().unwrap_or_default(), topics)?;
        if let Some(named) = named {
            if let Some(topic) = asked.topics.first() {
                let detail = "what is at this path has its topics; leave `topic` out";
                return Err(Problem::field("topic", topic.as_str(), detail));
            }
            asked.topics.clone_from(&named.topics);
            asked.last = asked.last.or(named.last);
        }
        asked.limit_age(max_age)?;
        if asked.poll.is_some() || headers.get("x-requestor").is_some_and(|v| v == "XHR") {
            asked.poll = Some(if names_event_stream(headers) {
                Poll::EventStream
            } else {
                Poll::Text
            });
        } else if !accepts_event_stream(headers) {
            return Err(Problem::new(
                StatusCode::NOT_ACCEPTABLE,
                "what is here is text/event-stream, which the request's Accept leaves out",
            ));
        }
        // A browser's own header knows better than the query of the page's first visit.
        if let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) {
            asked.cursor = Some(String::from_utf8_lossy(id.as_bytes()));
        }
        Ok(asked)
    }

    /// For the topics that an app names, with commas, on behalf of whoever sent these fields: from their
    /// cursor on, or from this one.
    ///
    /// # Errors
    ///
    /// A [`Problem`] names the topic that is none.
    pub(super) fn handed(
        topics: &str,
        fields: &'a HeaderMap,
        cursor: EventId,
    ) -> Result<Self, Problem> {
        let parse = |name: &str| Topic::parse(name).map_err(|error| (error, name).into());
        let topics: Result<_, Problem> = topics.split(',').map(parse).collect();
        let own = fields.get("last-event-id").filter(|id| !id.is_empty());
        let own = own.map(|id| String::from_utf8_lossy(id.as_bytes()));
        Ok(Self {
            topics: topics?,
            cursor: Some(own.unwrap_or_else(|| cursor.to_string().into())),
            ..Self::default()
        })
    }

    /// Whether it comes with an id of the edge's: its client has had a stream before.
    pub(super) fn comes_back(&self) -> bool {
        let cursor = self.cursor.as_deref();
        cursor.is_some_and(|cursor| EventId::parse(cursor).is_some())
    }

    /// The id that it comes back with.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// For what the edge says of itself.
    pub(super) fn stats() -> Self {
        Self {
            topics: vec![Topic::stats()],
            last: Some(1),
            ..Self::default()
        }
    }

    /// Where it wants to begin.
    pub(super) fn resume(&self) -> Resume<'_> {
        match (&self.cursor, self.last) {
            (Some(id), _) => Resume::After(id),
            (None, Some(events)) => Resume::Last(events),
            (None, None) => Resume::Live,
        }
    }

    /// Reads the query alone.
    fn of_query(query: &'a str, topics: Bound<usize>) -> Result<Self, Problem> {
        let mut parsed = Self::default();
        let mut named = 0;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if name == "topic" {
                named += 1;
                if named <= topics.value {
                    let parse = || Topic::parse(&value).map_err(|error| (error, &*value));
                    let topic = Topic::of_edge(&value).map_or_else(parse, Ok)?;
                    parsed.topics.push(topic);
                }
            } else {
                parsed.take(&name, value)?;
            }
        }
        if named > topics.value {
            let (most, key) = (topics.value, topics.limit.key());
            let detail = format!(
                "{named} topics are named, the limit is {most} ({key}); open another stream"
            );
            return Err(Problem::field("topic", &named.to_string(), detail).by(topics));
        }
        Ok(parsed)
    }

    /// Settles the age at which it is to end, where the edge's streams may be so old.
    fn limit_age(&mut self, max_age: Option<Duration>) -> Result<(), Problem> {
        let Some(asked) = self.max_age else {
            self.max_age = max_age;
            return Ok(());
        };
        let longest = max_age.unwrap_or(LONGEST_AGE);
        if (SHORTEST_AGE..=longest).contains(&asked) {
            return Ok(());
        }
        let told = |age| humantime::format_duration(age).to_string();
        let (least, most) = (told(SHORTEST_AGE), told(longest));
        let detail =
            format!("max_age is out of range; it can be {least} to {most} (events.max_age)");
        Err(Problem::field("max_age", &told(asked), detail))
    }

    /// Takes one parameter of the query. What is not known is left to others.
    fn take(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), Problem> {
        let yes = matches!(&*value, "1" | "true");
        match name {
            "last" => {
                let wrong = "last is not a whole number; say how many events";
                let last = value.parse();
                self.last = Some(last.map_err(|_| Problem::field("last", &value, wrong))?);
            }
            "poll" => self.poll = yes.then_some(Poll::Text),
            "padding" => self.padding = yes,
            "edge" => {
                for word in value.split(',').map(str::trim) {
                    match word {
                        "quiet" => self.quiet = true,
                        "heartbeat" => self.heartbeat = true,
                        "sync" => self.sync = true,
                        "topics" => self.topics_told = true,
                        _ => {
                            let wrong = "edge can be `quiet`, `heartbeat`, `sync`, `topics`, several with commas, or left out";
                            return Err(Problem::field("edge", word, wrong));
                        }
                    }
                }
            }
            "max_age" => {
                let wrong = "max_age is not a time; write it as `20s` or `5m`";
                let age = humantime::parse_duration(&value);
                self.max_age = Some(age.map_err(|_| Problem::field("max_age", &value, wrong))?);
            }
            "ticket" => self.ticket = Some(value),
            name if CURSOR_NAMES.contains(&name) && !value.is_empty() => {
                self.cursor = Some(value);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether the type is asked for by its name: what polls may get plain text.
fn names_event_stream(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    values.into_iter().any(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        value
            .split(',')
            .any(|range| range.trim().starts_with("text/event-stream"))
    })
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
            let query = StreamRequest::of_query(&text, topics(9)).expect("it is right");
            assert_eq!(query.cursor.as_deref(), Some("x 1"), "{name}");
        }
        assert!(
            StreamRequest::of_query("topic=a&lastEventId=", topics(9))
                .expect("it is right")
                .cursor
                .is_none()
        );
    }

    #[test]
    fn an_age_is_no_longer_than_the_edge_allows() {
        let settled = |query: &str, longest: Option<u64>| {
            let mut asked = StreamRequest::of_query(query, topics(9)).expect("it is right");
            let settled = asked.limit_age(longest.map(Duration::from_secs));
            settled
                .ok()
                .map(|()| asked.max_age.map(|age| age.as_secs()))
        };
        assert_eq!(settled("topic=a", None), Some(None));
        assert_eq!(settled("topic=a", Some(60)), Some(Some(60)));
        assert_eq!(settled("topic=a&max_age=10s", Some(60)), Some(Some(10)));
        assert_eq!(settled("topic=a&max_age=1h", None), Some(Some(3600)));
        for (query, longest) in [
            ("topic=a&max_age=61s", Some(60)),
            ("topic=a&max_age=9999ms", None),
            ("topic=a&max_age=2h", None),
        ] {
            assert_eq!(settled(query, longest), None, "{query}");
        }
    }

    #[test]
    fn a_wrong_query_is_named() {
        for (query, field) in [
            ("topic=", "topic"),
            ("topic=a&topic=b", "topic"),
            ("topic=a&last=x", "last"),
            ("topic=a&edge=loud", "edge"),
            ("topic=a&edge=quiet,", "edge"),
            ("topic=a&max_age=soon", "max_age"),
        ] {
            let problem = StreamRequest::of_query(query, topics(1))
                .expect_err("it is wrong")
                .json();
            assert!(
                problem.contains(&format!("\"field\":\"{field}\"")),
                "{query}: {problem}"
            );
        }
    }
}
