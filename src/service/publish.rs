//! Taking events from publishers: one as a plain body, one as JSON, or many as lines of JSON.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use http::{Method, StatusCode, header, request::Parts};
use http_body_util::BodyExt as _;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{
    Context,
    audience::{self, To},
};
use crate::{
    access::{Denied, Pattern, Publisher},
    clock,
    exchange::{Body, Problem, Reply, Request, RequestBody},
    hub::{Entry, Target},
    limits::Bound,
    sse::{self, Draft},
    topic::Topic,
};

/// The shortest time a publisher may have clients wait before they reconnect: Chromium spins on
/// less.
const MIN_RETRY: Duration = Duration::from_millis(500);
/// The longest.
const MAX_RETRY: Duration = Duration::from_secs(24 * 3600);
/// How many lines are published before readers get their turn: the ring is their queue.
const BATCH: usize = 32;

/// An event as a publisher describes it, checked.
pub(super) struct Event {
    topics: Vec<Topic>,
    /// Only for readers of one of these as well.
    to: Option<Vec<Topic>>,
    event: Option<String>,
    data: String,
    id: Option<String>,
    retry: Option<Duration>,
}

/// What a publisher is told.
#[derive(Serialize)]
pub(super) struct Published {
    pub(super) id: String,
    pub(super) receivers: usize,
}

/// The JSON of `POST /publish`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json<'a> {
    topic: Topics,
    event: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    id: Option<String>,
    retry: Option<u64>,
    /// `null` is not the same as nothing: a publisher that computed it meant somebody.
    #[serde(default, deserialize_with = "present")]
    to: Option<To>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<To>, D::Error> {
    To::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a topic or a list of topics")]
enum Topics {
    One(String),
    Many(Vec<String>),
}

/// What a publisher may publish to: everything, or what its token names.
#[derive(Clone, Debug)]
pub(super) struct Permit(Option<(Arc<[Pattern]>, SystemTime)>);

impl Permit {
    /// That of the control listener.
    pub(super) fn everything() -> Self {
        Self(None)
    }

    fn check(&self, topics: &[Topic]) -> Result<(), Problem> {
        let Some((patterns, expires)) = &self.0 else {
            return Ok(());
        };
        if *expires <= clock::wall() {
            return Err(Denied::Expired.into());
        }
        let matches = |topic: &&Topic| {
            patterns
                .iter()
                .any(|pattern| pattern.matches(topic.as_str()))
        };
        match topics.iter().find(|topic| !matches(topic)) {
            None => Ok(()),
            Some(topic) => {
                let detail = format!("the token does not let you publish to `{topic}`");
                Err(Problem::field("topic", topic.as_str(), detail).forbidden())
            }
        }
    }
}

/// Whether publishers outside may mean this path.
pub(super) fn is_path(path: &str) -> bool {
    matches!(path, "/publish" | "/broadcast" | "/send") || path.starts_with("/topics/")
}

/// The public listener's way in for publishers: by `Authorization: Bearer` and nothing else.
pub(super) async fn from_outside(
    context: &Arc<Context>,
    request: Request,
) -> Result<Reply, Problem> {
    let method = &request.parts.method;
    if method != Method::POST {
        return Err(Problem::method(method, "POST"));
    }
    let headers = &request.parts.headers;
    let publisher = context
        .access
        .publisher(headers, clock::now(), clock::wall())
        .await?;
    let permit = match publisher {
        Publisher::Everything => Permit::everything(),
        Publisher::Topics(patterns, expires) => Permit(Some((patterns.into(), expires))),
    };
    let path = request.parts.uri.path().to_owned();
    match path.as_str() {
        "/publish" => json(context, request, permit).await,
        "/broadcast" | "/send" if permit.0.is_some() => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "a token's `publish` claim is for topics; this takes a publisher's key",
        )),
        "/broadcast" => audience::broadcast(context, request).await,
        "/send" => audience::send(context, request).await,
        path => {
            let name = path.strip_prefix("/topics/").unwrap_or_default();
            to_topic(context, &decode(name)?, request, &permit).await
        }
    }
}

/// A part of a path, decoded.
pub(super) fn decode(part: &str) -> Result<String, Problem> {
    let decoded = percent_decode_str(part).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| Problem::field("path", part, "the path is not UTF-8, percent-encoded"))
}

/// `POST /topics/{topic}`: the body is the data.
pub(super) async fn to_topic(
    context: &Context,
    topic: &str,
    request: Request,
    permit: &Permit,
) -> Result<Reply, Problem> {
    let mut event = Event {
        topics: vec![parse_topic(topic)?],
        to: None,
        event: None,
        data: String::new(),
        id: None,
        retry: None,
    };
    let query = request.parts.uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "event" => event.event = Some(value.into_owned()),
            "id" => event.id = Some(value.into_owned()),
            "retry" => {
                let ms = value.parse().map_err(|_| {
                    Problem::field(
                        "retry",
                        &value,
                        "retry is not a whole number of milliseconds",
                    )
                })?;
                event.retry = Some(Duration::from_millis(ms));
            }
            other => {
                let detail = format!("`{other}` is not known here; event, id and retry are");
                return Err(Problem::field("query", other, detail));
            }
        }
    }
    permit.check(&event.topics)?;
    let limit = context.limits.event_bytes;
    let body = collect(context, request.body, "data", limit).await?;
    event.data = text(body)?;
    event.check(context)?;
    Ok(Reply::json(&event.publish(context).await?))
}

/// `POST /publish`: JSON, or lines of JSON answered as they come.
pub(super) async fn json(
    context: &Arc<Context>,
    request: Request,
    permit: Permit,
) -> Result<Reply, Problem> {
    match content_type(&request.parts).as_str() {
        "application/x-ndjson" => Ok(lines(context.clone(), permit, request.body)),
        // curl says the last of these of whatever it is given.
        "application/json" | "" | "application/x-www-form-urlencoded" => {
            let body = collect(context, request.body, "body", json_limit(context)).await?;
            let event = Event::from_json(&body, context, context.limits.stream_topics.value)?;
            permit.check(&event.topics)?;
            Ok(Reply::json(&event.publish(context).await?))
        }
        other => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "`{}` is not taken here; send application/json or application/x-ndjson",
                other.chars().take(80).collect::<String>()
            ),
        )),
    }
}

impl Event {
    pub(super) fn from_json(
        json: &[u8],
        context: &Context,
        most_topics: usize,
    ) -> Result<Self, Problem> {
        let json: Json<'_> = serde_json::from_slice(json).map_err(|error| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                format!("the event is not as expected: {error}"),
            )
        })?;
        let names = match json.topic {
            Topics::One(name) => vec![name],
            Topics::Many(names) => names,
        };
        if names.is_empty() || names.len() > most_topics {
            let n = names.len();
            let detail = format!("{n} topics are named; name 1 to {most_topics} (events.topics)");
            return Err(Problem::field("topic", &n.to_string(), detail).with_limit(most_topics));
        }
        let topics = names
            .iter()
            .map(|name| parse_topic(name))
            .collect::<Result<_, _>>()?;
        let event = Self::of_parts(topics, json.event, json.data, json.id, json.retry)?;
        let to = json.to.map(|to| to.topics(context)).transpose()?;
        let event = Self { to, ..event };
        event.check(context)?;
        Ok(event)
    }

    /// The parts that every JSON has.
    pub(super) fn of_parts(
        topics: Vec<Topic>,
        event: Option<String>,
        data: &RawValue,
        id: Option<String>,
        retry: Option<u64>,
    ) -> Result<Self, Problem> {
        let data = data.get();
        Ok(Self {
            topics,
            to: None,
            event,
            data: match data.starts_with('"') {
                true => serde_json::from_str(data).map_err(|error| {
                    Problem::field("data", "", format!("data is not text: {error}"))
                })?,
                // Any other JSON goes as the publisher wrote it: no number loses a digit.
                false => data.to_owned(),
            },
            id,
            retry: retry.map(Duration::from_millis),
        })
    }

    pub(super) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Leaves what other visitors would feel, or what would tell of them: the id, how long they
    /// wait to reconnect, and for whom it is.
    pub(super) fn plain(self) -> Self {
        Self {
            to: None,
            id: None,
            retry: None,
            ..self
        }
    }

    pub(super) fn check(&self, context: &Context) -> Result<(), Problem> {
        let limit = context.limits.event_bytes;
        if self.data.len() > limit.value {
            return Err(Problem::too_large("data", self.data.len(), limit));
        }
        if let Some(event) = &self.event {
            sse::validate_type(event).map_err(|error| (error, event.as_str()))?;
        }
        if let Some(id) = &self.id {
            sse::validate_id(id).map_err(|error| (error, id.as_str()))?;
            if id.is_empty() {
                return Err(Problem::field(
                    "id",
                    "",
                    "id is empty; leave it out to have one made",
                ));
            }
        }
        match self.retry {
            Some(retry) if retry < MIN_RETRY || retry > MAX_RETRY => {
                let ms = retry.as_millis();
                let (least, most) = (MIN_RETRY.as_millis(), MAX_RETRY.as_millis());
                let detail = format!("retry is {ms} ms, it must be {least} to {most}");
                Err(Problem::field("retry", &ms.to_string(), detail))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn publish(self, context: &Context) -> Result<Published, Problem> {
        let entry = Entry::Event {
            draft: Draft::new(self.event.as_deref(), &self.data, self.retry),
            target: Target {
                topics: self.topics,
                to: self.to,
                id: self.id.map(Into::into),
            },
        };
        let receipt = context.order.put(entry, clock::now()).await?;
        Ok(Published {
            id: receipt.id,
            receivers: receipt.receivers,
        })
    }
}

/// Reads the whole body, at most `bound` of it; it may pause for `limits.request_body`.
pub(super) async fn collect(
    context: &Context,
    body: Option<RequestBody>,
    field: &'static str,
    bound: Bound<usize>,
) -> Result<Bytes, Problem> {
    let Some(mut body) = body else {
        return Ok(Bytes::new());
    };
    let mut whole = BytesMut::new();
    while let Some(chunk) = in_time(context, next_chunk(&mut body)).await? {
        if whole.len() + chunk.len() > bound.value {
            let bytes = whole.len() + chunk.len();
            return Err(Problem::too_large(field, bytes, bound));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

async fn in_time<T>(
    context: &Context,
    read: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let pause = context.limits.request_body;
    match context.within(pause, read).await {
        Ok(read) => read,
        Err(_) => Err(Problem::too_slow(pause)),
    }
}

async fn next_chunk(body: &mut RequestBody) -> Result<Option<Bytes>, Problem> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => {
                let detail = format!("the body ended early: {error}");
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
        }
    }
}

pub(super) fn json_limit(context: &Context) -> Bound<usize> {
    // Escapes can make six bytes of one; the rest is for the other fields.
    let Bound { limit, value } = context.limits.event_bytes;
    Bound {
        limit,
        value: 6 * value + (256 << 10),
    }
}

fn text(body: Bytes) -> Result<String, Problem> {
    String::from_utf8(body.into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let detail =
            format!("data is not UTF-8 at byte {at}; encode binary data, in Base64 for example");
        Problem::field("data", "", detail)
    })
}

fn parse_topic(name: &str) -> Result<Topic, Problem> {
    Topic::parse(name).map_err(|error| (error, name).into())
}

fn content_type(parts: &Parts) -> String {
    let value = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Publishes line by line, as the lines come, and answers line by line.
struct Lines {
    context: Arc<Context>,
    permit: Permit,
    body: Option<RequestBody>,
    /// What came and was not published yet.
    buffer: BytesMut,
    /// `buffer` holds no line end before this.
    searched: usize,
}

fn lines(context: Arc<Context>, permit: Permit, body: Option<RequestBody>) -> Reply {
    let lines = Lines {
        context,
        permit,
        body,
        buffer: BytesMut::new(),
        searched: 0,
    };
    let answers = stream::unfold(lines, |mut lines| async {
        let answers = lines.answers().await?;
        Some((Ok(answers), lines))
    });
    Reply::new(StatusCode::OK, Body::Stream(Box::pin(answers)))
        .with(header::CONTENT_TYPE, "application/x-ndjson")
        .with(header::CACHE_CONTROL, "no-store")
}

impl Lines {
    /// The answers to the next lines, one or more; `None` at the end.
    async fn answers(&mut self) -> Option<Bytes> {
        let mut answers = String::new();
        loop {
            let mut answered = 0;
            while answered < BATCH
                && let Some(line) = self.line()
            {
                answered += usize::from(self.answer(&line, &mut answers).await);
            }
            if !answers.is_empty() {
                // Readers take what was published before more comes: the ring is their queue.
                tokio::task::yield_now().await;
                return Some(answers.into());
            }
            let limit = json_limit(&self.context);
            let body = self.body.as_mut()?;
            // Between two lines a publisher may think as long as it likes, but not within one.
            let chunk = match self.buffer.is_empty() {
                true => next_chunk(body).await,
                false => in_time(&self.context, next_chunk(body)).await,
            };
            let ended = match chunk {
                Ok(Some(chunk)) if self.buffer.len() + chunk.len() > limit.value + (64 << 10) => {
                    Err(Problem::too_large(
                        "line",
                        self.buffer.len() + chunk.len(),
                        limit,
                    ))
                }
                Ok(Some(chunk)) => {
                    self.buffer.extend_from_slice(&chunk);
                    continue;
                }
                Ok(None) => Ok(()),
                Err(problem) => Err(problem),
            };
            self.body = None;
            match ended {
                // The last line need not end in a line end.
                Ok(()) if !self.buffer.is_empty() => self.buffer.extend_from_slice(b"\n"),
                Ok(()) => return None,
                Err(problem) => {
                    self.buffer.clear();
                    return Some((self.refuse(&problem) + "\n").into());
                }
            }
        }
    }

    /// The answer to a line that is refused.
    fn refuse(&self, problem: &Problem) -> String {
        if let Some(limit) = problem.bitten() {
            self.context.hits.count(limit);
        }
        problem.json()
    }

    fn line(&mut self) -> Option<BytesMut> {
        let found = self.buffer[self.searched..]
            .iter()
            .position(|&b| b == b'\n');
        let Some(end) = found else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end);
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }

    /// Publishes a line. `false` for a blank one, which has no answer.
    async fn answer(&mut self, line: &[u8], answers: &mut String) -> bool {
        let line = line.trim_ascii();
        if line.is_empty() {
            return false;
        }
        let answer = match publish_line(&self.context, &self.permit, line).await {
            Ok(published) => serde_json::to_string(&published).expect("strings and numbers only"),
            Err(problem) => self.refuse(&problem),
        };
        answers.push_str(&answer);
        answers.push('\n');
        true
    }
}

async fn publish_line(
    context: &Context,
    permit: &Permit,
    line: &[u8],
) -> Result<Published, Problem> {
    let event = Event::from_json(line, context, context.limits.stream_topics.value)?;
    permit.check(&event.topics)?;
    event.publish(context).await
}
