//! Events as publishers describe them: as a plain body, or in one of three kinds of JSON.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{audience::To, one_or_many::OneOrMany};
use crate::{
    access::Standing,
    exchange::Problem,
    hub::{Entry, Identity, Key, Target},
    limits::Bound,
    service::context::{Context, MIN_RETRY},
    sse::{self, Draft},
    topic::Topic,
};

/// The longest time a publisher may have clients wait before they reconnect.
const MAX_RETRY: Duration = Duration::from_secs(24 * 3600);

/// The longest time that an event is given to anyone: far longer than history is kept.
const MAX_TTL: Duration = Duration::from_secs(31_557_600);
/// The shortest.
const MIN_TTL: Duration = Duration::from_millis(1);

/// An event as a publisher describes it, checked.
#[derive(Default)]
pub(super) struct Event {
    topics: Vec<Topic>,
    /// Only for readers of one of these as well.
    to: Option<Vec<Topic>>,
    event: Option<String>,
    data: String,
    id: Option<String>,
    retry: Option<Duration>,
    lasting: Lasting,
    /// Of what it is the newest state.
    key: Option<String>,
    /// What tells its request from others.
    request: Option<Key>,
}

/// How long an event is of use.
#[derive(Clone, Copy, Default)]
struct Lasting {
    ttl: Option<Duration>,
    is_live_only: bool,
}

impl Lasting {
    /// Of the fields `ttl` and `history`.
    fn parse(ttl: Option<&str>, history: Option<bool>) -> Result<Self, Problem> {
        Ok(Self {
            ttl: ttl.map(parse_ttl).transpose()?,
            is_live_only: history == Some(false),
        })
    }
}

fn parse_ttl(text: &str) -> Result<Duration, Problem> {
    let wrong = "is not a time; write a number and a unit, such as 30s, 500ms or 1h";
    let ttl = humantime::parse_duration(text)
        .map_err(|_| Problem::field("ttl", text, format!("ttl {wrong}")))?;
    if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
        let detail =
            "ttl is not between 1ms and 1year; leave it out for an event that does not end";
        return Err(Problem::field("ttl", text, detail));
    }
    Ok(ttl)
}

/// The JSON of `POST /publish`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json<'a> {
    topic: OneOrMany,
    event: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    id: Option<String>,
    retry: Option<u64>,
    key: Option<String>,
    ttl: Option<String>,
    history: Option<bool>,
    /// `null` is not the same as nothing: a publisher that computed it meant somebody.
    #[serde(default, deserialize_with = "present")]
    to: Option<To>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<To>, D::Error> {
    To::deserialize(deserializer).map(Some)
}

/// The JSON of `POST /broadcast`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Broadcast {
    event: Option<String>,
    data: Box<RawValue>,
    id: Option<String>,
    retry: Option<u64>,
    ttl: Option<String>,
    history: Option<bool>,
    #[serde(default = "yes")]
    authenticated: bool,
    #[serde(default)]
    anonymous: bool,
}

fn yes() -> bool {
    true
}

/// The JSON of `POST /send`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    event: Option<String>,
    data: Box<RawValue>,
    id: Option<String>,
    retry: Option<u64>,
    ttl: Option<String>,
    history: Option<bool>,
    #[serde(default)]
    users: OneOrMany,
    #[serde(default)]
    groups: OneOrMany,
}

impl Event {
    /// Reads the JSON of `POST /publish`.
    pub(super) fn from_json(
        json: &[u8],
        context: &Context,
        topics: Bound<usize>,
    ) -> Result<Self, Problem> {
        let json: Json<'_> = parse(json)?;
        let names = json.topic.as_slice();
        if names.is_empty() || names.len() > topics.value {
            let (n, most, key) = (names.len(), topics.value, topics.limit.key());
            let detail = format!("{n} topics are named; name 1 to {most} ({key})");
            return Err(Problem::field("topic", &n.to_string(), detail).by(topics));
        }
        let topics = names
            .iter()
            .map(|name| parse_topic(name))
            .collect::<Result<_, _>>()?;
        let event = Self::of_parts(topics, json.event, json.data, json.id, json.retry)?;
        let event = Self {
            to: json.to.map(|to| to.topics(&context.access)).transpose()?,
            lasting: Lasting::parse(json.ttl.as_deref(), json.history)?,
            key: json.key,
            ..event
        };
        event.check(context)?;
        Ok(event)
    }

    /// Reads the JSON of `POST /broadcast`.
    pub(super) fn from_broadcast(json: &[u8], context: &Context) -> Result<Self, Problem> {
        let asked: Broadcast = parse(json)?;
        let standings = [
            asked.authenticated.then_some(Standing::Authenticated),
            asked.anonymous.then_some(Standing::Anonymous),
        ];
        let standings = standings.into_iter().flatten();
        let topics: Vec<Topic> = standings.map(Standing::topic).collect();
        if topics.is_empty() {
            let detail = "authenticated and anonymous are both false: it is for nobody";
            return Err(Problem::field("authenticated", "false", detail));
        }
        let event = Self {
            lasting: Lasting::parse(asked.ttl.as_deref(), asked.history)?,
            ..Self::of_parts(topics, asked.event, &asked.data, asked.id, asked.retry)?
        };
        event.check(context)?;
        Ok(event)
    }

    /// Reads the JSON of `POST /send`.
    pub(super) fn from_send(json: &[u8], context: &Context) -> Result<Self, Problem> {
        let asked: Send = parse(json)?;
        let to = To {
            users: asked.users,
            groups: asked.groups,
        };
        let topics = to.topics(&context.access)?;
        let event = Self {
            lasting: Lasting::parse(asked.ttl.as_deref(), asked.history)?,
            ..Self::of_parts(topics, asked.event, &asked.data, asked.id, asked.retry)?
        };
        event.check(context)?;
        Ok(event)
    }

    /// The parts that every JSON has.
    fn of_parts(
        topics: Vec<Topic>,
        event: Option<String>,
        data: &RawValue,
        id: Option<String>,
        retry: Option<u64>,
    ) -> Result<Self, Problem> {
        let data = data.get();
        Ok(Self {
            topics,
            event,
            data: if data.starts_with('"') {
                let text = serde_json::from_str(data);
                text.map_err(|error| {
                    Problem::field("data", "", format!("data is not text: {error}"))
                })?
            } else {
                // Any other JSON goes as the publisher wrote it: no number loses a digit.
                data.to_owned()
            },
            id,
            retry: retry.map(Duration::from_millis),
            ..Self::default()
        })
    }

    pub(super) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Whether only some of the readers of its topics get it.
    pub(super) fn is_for_some(&self) -> bool {
        self.to.is_some()
    }

    pub(super) fn with_key(self, key: Option<Key>) -> Self {
        Self {
            request: key,
            ..self
        }
    }

    /// Leaves what other visitors would feel, or what would tell of them: the id, how long they
    /// wait to reconnect, and for whom it is.
    pub(super) fn plain(self) -> Self {
        Self {
            to: None,
            id: None,
            retry: None,
            request: None,
            ..self
        }
    }

    fn check(&self, context: &Context) -> Result<(), Problem> {
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
        if let Some(key) = &self.key {
            sse::validate_key(key).map_err(|error| (error, key.as_str()))?;
        }
        self.check_retry(MAX_RETRY)
    }

    /// Whether it has clients wait no longer than `most`.
    pub(super) fn check_retry(&self, most: Duration) -> Result<(), Problem> {
        match self.retry {
            Some(retry) if retry < MIN_RETRY || retry > most => {
                let ms = retry.as_millis();
                let (least, most) = (MIN_RETRY.as_millis(), most.as_millis());
                let detail = format!("retry is {ms} ms, it must be {least} to {most}");
                Err(Problem::field("retry", &ms.to_string(), detail))
            }
            _ => Ok(()),
        }
    }

    /// As an entry of the order.
    pub(super) fn into_entry(self) -> Entry {
        let identity = Identity::of_key(self.request);
        let identity = match &self.id {
            Some(id) => identity.with_id(id, &self.topics, self.event.as_deref(), &self.data),
            None => identity,
        };
        Entry::Event {
            draft: Draft::new(self.event.as_deref(), &self.data, self.retry),
            target: Target {
                topics: self.topics,
                to: self.to,
                id: self.id.map(Into::into),
                identity,
                key: self.key.map(Into::into),
                ttl: self.lasting.ttl,
                is_live_only: self.lasting.is_live_only,
            },
        }
    }
}

/// What `POST /topics/{topic}` says before its body, which is the data.
pub(super) struct Head {
    event: Event,
    asks_all: bool,
}

impl Head {
    pub(super) fn parse(topic: &str, query: &str) -> Result<Self, Problem> {
        let mut event = Event {
            topics: vec![parse_topic(topic)?],
            ..Event::default()
        };
        if percent_decode_str(query).decode_utf8().is_err() {
            let detail = "the query is not UTF-8, percent-encoded";
            return Err(Problem::field("query", "", detail));
        }
        let mut seen: Vec<String> = Vec::new();
        let mut asks_all = false;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if seen.iter().any(|seen| *seen == name) {
                let detail = format!("`{name}` is given twice; give it once");
                return Err(Problem::field("query", &name, detail));
            }
            seen.push(name.clone().into_owned());
            match &*name {
                "event" => event.event = Some(value.into_owned()),
                "id" => event.id = Some(value.into_owned()),
                "retry" => {
                    let wrong = "retry is not a whole number of milliseconds";
                    let ms = value.parse();
                    let ms = ms.map_err(|_| Problem::field("retry", &value, wrong))?;
                    event.retry = Some(Duration::from_millis(ms));
                }
                "key" => event.key = Some(value.into_owned()),
                "ttl" => event.lasting.ttl = Some(parse_ttl(&value)?),
                "history" => {
                    let wrong = "history is neither true nor false";
                    let kept: Result<bool, _> = value.parse();
                    let kept = kept.map_err(|_| Problem::field("history", &value, wrong))?;
                    event.lasting.is_live_only = !kept;
                }
                "receivers" if value == "cluster" => asks_all = true,
                "receivers" => {
                    let detail =
                        "receivers is nothing but cluster: those of all edges are to be told";
                    return Err(Problem::field("receivers", &value, detail));
                }
                other => {
                    let detail = format!(
                        "`{other}` is not known here; event, id, retry, key, ttl, history and receivers are"
                    );
                    return Err(Problem::field("query", other, detail));
                }
            }
        }
        Ok(Self { event, asks_all })
    }

    /// The event as far as it is known.
    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    /// Whether its publisher wants to know how many event streams of all edges it went to.
    pub(super) fn asks_all(&self) -> bool {
        self.asks_all
    }

    pub(super) fn with(self, data: Bytes, context: &Context) -> Result<Event, Problem> {
        let event = Event {
            data: text(data)?,
            ..self.event
        };
        event.check(context)?;
        Ok(event)
    }
}

/// Reads JSON that a publisher wrote.
pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(json).map_err(|error| {
        let detail = format!("the event is not as expected: {error}");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })
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
