//! What is asked of the NATS servers: the stream with the order, its frames, and the epoch.
//!
//! By the JetStream API in JSON (ADR-1, ADR-13, ADR-8), over a plain client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, Message, RequestErrorKind, Subject, Subscriber,
    connection::State,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::watch;

use super::{
    frame::{BYTES, FrameId, LARGEST},
    settings::ClusterSettings,
};
use crate::{clock, sse::Epoch};

/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether a server is there.
const PING: Duration = Duration::from_secs(2);
/// What is asked for in one pull: so many frames, so many bytes, for so long; and how often the server says that it is
/// there.
const PULL_FRAMES: usize = 500;
const PULL_BYTES: usize = 4 << 20;
const PULL_EXPIRES: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_millis(500);
/// What a consumer is for whom nobody asks any more.
const INACTIVE: Duration = Duration::from_secs(30);
/// The window in which a frame that comes again is known.
const DUPLICATES: Duration = Duration::from_secs(120);
/// The most bytes of the epoch, and of the facts.
const META_BYTES: u64 = 1 << 20;
const FACTS_BYTES: u64 = 256 << 20;
/// What a frame takes besides its entries, at most: its head, and the headers of its message.
const AROUND: usize = 1 << 10;
/// The longest message of the order, with its headers.
const LONGEST: usize = BYTES + (64 << 10);
/// What this program calls the form of its frames.
const FORMAT: &str = "1";
/// Under which name it is noted which stream of its name one is.
const MADE: &str = "seventh.made";
const MESSAGE_ID: &str = "Nats-Msg-Id";
const TTL: &str = "Nats-TTL";
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// The error codes of the JetStream API that are told apart.
const NO_STREAM: u64 = 10059;
const NO_MESSAGE: u64 = 10037;
const WRONG_LAST: [u64; 2] = [10071, 10164];
const IN_USE: u64 = 10058;
const TOO_LARGE: u64 = 10054;
const FULL: [u64; 4] = [10023, 10028, 10047, 10077];
/// Too few servers are there yet.
const NO_PEERS: u64 = 10005;
/// What passes, whatever its code is: no leader, an election, a stream that is not there yet, or a copy of the message that
/// is on its way.
const LATER: [u64; 8] = [NO_PEERS, 10008, 10009, 10075, 10118, 10158, 10167, 10177];

/// Why something was not done.
#[derive(Clone, Debug, Error)]
pub(super) enum BrokerError {
    /// Nobody answers: it may be done later.
    #[error("{0}")]
    Away(String),
    /// A server refuses.
    #[error("{text} (NATS error {error})")]
    Refused {
        /// `err_code`
        error: u64,
        text: String,
    },
    /// There is something that does not fit what is asked for.
    #[error("{0}")]
    Misfit(String),
}

impl BrokerError {
    /// Whether there is no room for more.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if FULL.contains(error))
    }

    /// Whether the servers take no frame of this size.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if *error == TOO_LARGE)
    }

    /// Whether the key was written to since the revision that was expected.
    fn is_behind(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if WRONG_LAST.contains(error))
    }

    /// The same, with what was to be made.
    fn in_making(self, what: &str) -> Self {
        match self {
            Self::Refused { error, text } => Self::Refused {
                error,
                text: format!("{what} cannot be made: {text}"),
            },
            other => other,
        }
    }

    fn is(&self, code: u64) -> bool {
        matches!(self, Self::Refused { error, .. } if *error == code)
    }
}

/// What a stream is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamInfo {
    /// The number of the first frame that is kept, and that of the last there was.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// How many bytes of it are kept at most.
    pub(super) max_bytes: i64,
    pub(super) replicas: u8,
    pub(super) leader: Option<String>,
    /// Drawn at random when it was made: another stream of the same name has another.
    pub(super) made: String,
    /// What of it is not as it should be.
    pub(super) misfit: Option<String>,
}

/// A message as a stream has it.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) sequence: u64,
    pub(super) subject: Subject,
    /// Which of the consumer's it is, from 1.
    pub(super) nth: u64,
    /// How many are to come that there were when it was sent.
    pub(super) pending: u64,
    /// By what the servers know it, if it was sent with a name.
    pub(super) id: Option<String>,
    /// When it was stored, in unix ms.
    pub(super) millis: u64,
    pub(super) payload: Bytes,
}

/// The longest name that is remembered of a message: those of edges are far shorter.
const LONGEST_ID: usize = 255;

/// What comes for a pull.
#[derive(Debug)]
pub(super) enum Pulled {
    Message(Delivered),
    /// The server is there.
    Heartbeat,
    /// The pull is over; the next is due.
    Over,
    /// The consumer is gone, or does not answer.
    Gone(String),
}

/// The servers.
#[derive(Clone, Debug)]
pub(super) struct Broker {
    client: watch::Sender<Client>,
    settings: Arc<ClusterSettings>,
    connected: watch::Sender<bool>,
    /// Which client it is that says whether there is a connection.
    which: Arc<AtomicU64>,
    /// Noted with a stream that it makes: asked for again, it is the same.
    made: Arc<str>,
}

#[derive(Deserialize)]
struct ApiError {
    err_code: Option<u64>,
    code: Option<u64>,
    description: Option<String>,
}

/// Connects to one of the servers. Whether there is a connection is told from then on by this client and no other.
async fn open(
    settings: &ClusterSettings,
    connected: &watch::Sender<bool>,
    which: &Arc<AtomicU64>,
) -> Result<Client, BrokerError> {
    let (told, last) = (connected.clone(), which.clone());
    let this = fastrand::u64(1..);
    let mut options = ConnectOptions::new()
        .name(format!("seventh {}", settings.node))
        .request_timeout(Some(PATIENCE))
        .connection_timeout(PATIENCE)
        .ping_interval(PING)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            Duration::from_millis(100 << attempts.min(4)).min(Duration::from_secs(1))
        })
        .event_callback(move |event| {
            if last.load(Ordering::Acquire) == this {
                match event {
                    Event::Connected => drop(told.send_replace(true)),
                    Event::Disconnected | Event::Closed => drop(told.send_replace(false)),
                    // Such as that this edge may not do something.
                    Event::ServerError(error) => tracing::warn!("NATS: {error}"),
                    other => tracing::debug!("NATS: {other}"),
                }
            }
            std::future::ready(())
        });
    if let Some(file) = &settings.credentials {
        options = options.credentials_file(file).await.map_err(|error| {
            let file = file.display();
            BrokerError::Misfit(format!("{file} (cluster.credentials): {error}"))
        })?;
    }
    if let Some(ca) = &settings.ca {
        tokio::fs::File::open(ca).await.map_err(|error| {
            BrokerError::Misfit(format!("{} (cluster.ca): {error}", ca.display()))
        })?;
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    let client = options.connect(&settings.servers[..]).await;
    let client = client.map_err(|error| BrokerError::Away(error.to_string()))?;
    which.store(this, Ordering::Release);
    connected.send_replace(client.connection_state() == State::Connected);
    Ok(client)
}

/// What is said under a subject.
pub(super) struct Heard {
    messages: Subscriber,
    renewed: watch::Receiver<Client>,
}

impl Heard {
    /// What is said next; `None` once another client has to listen.
    pub(super) async fn next(&mut self) -> Option<Message> {
        tokio::select! {
            biased;
            _ = self.renewed.changed() => None,
            message = self.messages.next() => message,
        }
    }
}

impl Broker {
    /// Connects to one of the servers.
    pub(super) async fn connect(settings: Arc<ClusterSettings>) -> Result<Self, BrokerError> {
        let (connected, which) = (watch::Sender::new(false), Arc::default());
        let client = open(&settings, &connected, &which).await?;
        Ok(Self {
            client: watch::Sender::new(client),
            settings,
            connected,
            which,
            made: format!("{:016x}", fastrand::u64(..)).into(),
        })
    }

    /// Connects anew, with what the files have by now: a client that was refused once does not come back.
    pub(super) async fn connect_anew(&self) -> Result<(), BrokerError> {
        let client = open(&self.settings, &self.connected, &self.which).await?;
        self.client.send_replace(client);
        Ok(())
    }

    /// Whether there is a connection.
    pub(super) fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    pub(super) fn client(&self) -> Client {
        self.client.borrow().clone()
    }

    /// Has what is said under a subject be heard.
    pub(super) async fn listen(&self, subject: String) -> Result<Heard, BrokerError> {
        let mut renewed = self.client.subscribe();
        let client = renewed.borrow_and_update().clone();
        let messages = client.subscribe(subject).await;
        let messages = messages.map_err(|error| BrokerError::Away(error.to_string()))?;
        Ok(Heard { messages, renewed })
    }

    /// The most bytes that the entries of a frame may take, so that the server takes it.
    pub(super) fn largest(&self) -> usize {
        let info = self.client().server_info();
        info.max_payload.saturating_sub(AROUND).min(LARGEST)
    }

    /// The server that is asked.
    pub(super) fn server(&self) -> String {
        self.client().server_info().server_name
    }

    /// Stores a message; its number in the stream.
    async fn put(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<u64, BrokerError> {
        let asked = self
            .client()
            .request_with_headers(subject, headers, payload)
            .await;
        let acked = answer(asked.map(|message| message.payload))?;
        acked["seq"]
            .as_u64()
            .ok_or_else(|| BrokerError::Away("an answer without a number".into()))
    }

    async fn api(&self, what: &str, body: &Value) -> Result<Value, BrokerError> {
        let subject = format!("$JS.API.{what}");
        let asked = self
            .client()
            .request(subject, body.to_string().into())
            .await;
        answer(asked.map(|message| message.payload))
    }

    /// The stream, which is made if it is not there. One that is there is checked, and left as it is.
    pub(super) async fn stream(&self) -> Result<StreamInfo, BrokerError> {
        let settings = &*self.settings;
        let name = settings.stream();
        let info = self.api(&format!("STREAM.INFO.{name}"), &json!({})).await;
        let info = match info {
            Err(error) if error.is(NO_STREAM) => {
                let config = json!({
                    "name": name, "subjects": [settings.subject()], "retention": "limits", "discard": "old",
                    "storage": "file", "num_replicas": settings.replicas, "max_bytes": settings.bytes,
                    "max_age": nanos(settings.age), "duplicate_window": nanos(DUPLICATES), "max_msgs": -1,
                    "max_msgs_per_subject": -1, "max_consumers": -1, "max_msg_size": LONGEST, "allow_direct": true,
                    "metadata": { "seventh.format": FORMAT, MADE: *self.made },
                });
                match self.api(&format!("STREAM.CREATE.{name}"), &config).await {
                    // Another edge was first.
                    Err(error) if error.is(IN_USE) => {
                        let info = format!("STREAM.INFO.{name}");
                        let info = self.api(&info, &json!({})).await;
                        let is_made = |error: BrokerError| match error {
                            error if error.is(NO_STREAM) => {
                                BrokerError::Away("another edge is just making the stream".into())
                            }
                            error => error,
                        };
                        info.map_err(is_made)?
                    }
                    made => {
                        let what = format!(
                            "the stream {name} of {} bytes (history.disk.bytes) with {} replicas (cluster.replicas)",
                            settings.bytes, settings.replicas
                        );
                        let made = made.map_err(|error| error.in_making(&what))?;
                        tracing::info!("{what} was made");
                        made
                    }
                }
            }
            info => info?,
        };
        let state = &info["state"];
        let number = |name: &str| state[name].as_u64().unwrap_or_default();
        Ok(StreamInfo {
            misfit: self.check(&info["config"]).err(),
            first: number("first_seq"),
            last: number("last_seq"),
            frames: number("messages"),
            bytes: number("bytes"),
            max_bytes: info["config"]["max_bytes"].as_i64().unwrap_or(-1),
            replicas: u8::try_from(info["config"]["num_replicas"].as_u64().unwrap_or(1))
                .unwrap_or(u8::MAX),
            leader: info["cluster"]["leader"].as_str().map(Into::into),
            made: info["config"]["metadata"][MADE]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        })
    }

    /// Whether a stream is one that the order can be kept in.
    fn check(&self, config: &Value) -> Result<(), String> {
        let settings = &*self.settings;
        let (name, subject) = (settings.stream(), settings.subject());
        let misfit = |what: &str, is: &Value, wanted: &Value| {
            Err(format!(
                "the stream {name} has {what} {is}, and {wanted} is needed; change it with `nats stream edit`, or remove \
                 it if it is of something else"
            ))
        };
        for (what, wanted) in [
            ("subjects", json!([subject])),
            ("retention", json!("limits")),
            ("discard", json!("old")),
            ("num_replicas", json!(settings.replicas)),
            ("max_msgs_per_subject", json!(-1)),
        ] {
            if config[what] != wanted {
                return misfit(what, &config[what], &wanted);
            }
        }
        let format = &config["metadata"]["seventh.format"];
        if *format != json!(FORMAT) {
            return misfit("metadata seventh.format", format, &json!(FORMAT));
        }
        Ok(())
    }

    /// The epoch of the order in a stream, and at which revision: drawn at random if there is none, or that of a stream that
    /// was there before.
    pub(super) async fn epoch(&self, info: &StreamInfo) -> Result<(Epoch, u64), BrokerError> {
        let stream = format!("KV_{}", self.settings.bucket());
        let key = json!({ "last_by_subj": self.epoch_key() });
        for _ in 0..3 {
            let get = self.api(&format!("STREAM.MSG.GET.{stream}"), &key).await;
            match get {
                Ok(found) => {
                    let message = &found["message"];
                    let data = decoded(&message["data"]);
                    let (number, of) = data.split_once(' ').unwrap_or((&data, ""));
                    let number = number.parse().map_err(|_| {
                        BrokerError::Misfit(format!("the key {} holds no epoch", self.epoch_key()))
                    })?;
                    let revision = message["seq"].as_u64().unwrap_or_default();
                    // One without has lost what was noted with it, or is of before.
                    if !info.made.is_empty() && of != info.made {
                        self.draw_epoch(revision, info).await?;
                        continue;
                    }
                    return Ok((Epoch::from_random(number), revision));
                }
                Err(error) if error.is(NO_STREAM) => {
                    self.make_bucket(&self.settings.bucket(), META_BYTES)
                        .await?;
                }
                Err(error) if error.is(NO_MESSAGE) => self.draw_epoch(0, info).await?,
                Err(error) => return Err(error),
            }
        }
        Err(BrokerError::Away("the epoch cannot be agreed upon".into()))
    }

    /// Draws a new epoch of a stream, unless another edge has since this revision.
    pub(super) async fn draw_epoch(
        &self,
        revision: u64,
        info: &StreamInfo,
    ) -> Result<(), BrokerError> {
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED, revision.to_string());
        let number = Epoch::from_random(fastrand::u64(..)).number();
        let epoch = format!("{number} {}", info.made);
        let epoch = epoch.trim_end().to_owned();
        match self.put(self.epoch_key(), headers, epoch.into()).await {
            Err(error) if error.is_behind() => Ok(()),
            drawn => drawn.map(drop),
        }
    }

    fn epoch_key(&self) -> String {
        format!("$KV.{}.epoch", self.settings.bucket())
    }

    /// Makes a bucket (ADR-8), in which messages may have an end of their own.
    async fn make_bucket(&self, bucket: &str, bytes: u64) -> Result<(), BrokerError> {
        let stream = format!("KV_{bucket}");
        let config = json!({
            "name": stream, "subjects": [format!("$KV.{bucket}.>")], "retention": "limits", "max_msgs_per_subject": 1,
            "discard": "new", "storage": "file", "num_replicas": self.settings.replicas, "max_msgs": -1, "max_bytes": bytes,
            "max_age": 0, "max_consumers": -1, "max_msg_size": -1, "allow_rollup_hdrs": true, "deny_delete": true,
            "allow_direct": true, "allow_msg_ttl": true,
        });
        match self.api(&format!("STREAM.CREATE.{stream}"), &config).await {
            Err(error) if error.is(IN_USE) => Ok(()),
            Err(error) => Err(error.in_making(&format!("the bucket {bucket} of {bytes} bytes"))),
            Ok(_) => Ok(()),
        }
    }

    /// Stores a frame; its number in the stream. Sent again, it is stored once.
    pub(super) async fn store(&self, id: FrameId, frame: Bytes) -> Result<u64, BrokerError> {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, id.to_string());
        self.put(self.settings.subject(), headers, frame).await
    }

    /// The first message of a stream that is there from this number on: `None` if there is none. The leader says so, who has
    /// all that was ever stored.
    async fn first_from(
        &self,
        stream: &str,
        subject: &str,
        sequence: u64,
    ) -> Result<Option<Value>, BrokerError> {
        let asked = json!({ "seq": sequence, "next_by_subj": subject });
        let what = format!("STREAM.MSG.GET.{stream}");
        match self.api(&what, &asked).await {
            Ok(mut found) => Ok(Some(found["message"].take())),
            Err(error) if error.is(NO_MESSAGE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first frame that is there from this number on, and when it was stored, in unix ms.
    pub(super) async fn frame_from(
        &self,
        sequence: u64,
    ) -> Result<Option<(u64, u64)>, BrokerError> {
        let (stream, subject) = (self.settings.stream(), self.settings.subject());
        let Some(message) = self.first_from(&stream, &subject, sequence).await? else {
            return Ok(None);
        };
        let time = message["time"].as_str().unwrap_or_default();
        let time = humantime::parse_rfc3339(time)
            .map_err(|error| BrokerError::Away(format!("a time that is none: {error}")))?;
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(millis.as_millis()).unwrap_or(u64::MAX);
        Ok(Some((message["seq"].as_u64().unwrap_or(sequence), millis)))
    }

    /// The first frame of those up to this one that was stored since a moment, in unix ms; this one if that was before.
    pub(super) async fn first_since(
        &self,
        first: u64,
        up_to: u64,
        since: u64,
    ) -> Result<u64, BrokerError> {
        let (mut from, mut to) = (first, up_to);
        while from < to {
            let middle = from + (to - from) / 2;
            match self.frame_from(middle).await? {
                Some((found, millis)) if millis < since => from = (found + 1).min(to),
                // Or those from there on are gone by now.
                _ => to = middle,
            }
        }
        Ok(to)
    }

    /// What the frame with this number is known by; `None` when it is not there.
    pub(super) async fn frame_id(&self, sequence: u64) -> Result<Option<String>, BrokerError> {
        let what = format!("STREAM.MSG.GET.{}", self.settings.stream());
        let found = match self.api(&what, &json!({ "seq": sequence })).await {
            Err(error) if error.is(NO_MESSAGE) => return Ok(None),
            found => found?,
        };
        let headers = decoded(&found["message"]["hdrs"]);
        let id = headers
            .lines()
            .find_map(|line| line.strip_prefix(MESSAGE_ID)?.strip_prefix(':'));
        Ok(Some(id.unwrap_or_default().trim().to_owned()))
    }

    /// The stream with the order, and the one with the facts.
    pub(super) fn order_stream(&self) -> String {
        self.settings.stream()
    }

    /// The key of the fact in a message with this subject.
    pub(super) fn fact_key(subject: &str) -> &str {
        subject.splitn(3, '.').nth(2).unwrap_or_default()
    }

    pub(super) fn facts_stream(&self) -> String {
        format!("KV_{}", self.settings.facts())
    }

    /// How many facts there ever were; what they are kept in is made if it is not there.
    pub(super) async fn facts(&self) -> Result<u64, BrokerError> {
        let stream = self.facts_stream();
        let info = format!("STREAM.INFO.{stream}");
        let info = match self.api(&info, &json!({})).await {
            Err(error) if error.is(NO_STREAM) => {
                self.make_bucket(&self.settings.facts(), FACTS_BYTES)
                    .await?;
                self.api(&info, &json!({})).await?
            }
            info => info?,
        };
        if info["config"]["allow_msg_ttl"] != json!(true) {
            let text = format!("the stream {stream} does not have allow_msg_ttl; remove it");
            return Err(BrokerError::Misfit(text));
        }
        Ok(info["state"]["last_seq"].as_u64().unwrap_or_default())
    }

    /// Whether there is any fact from this revision on.
    pub(super) async fn is_fact_from(&self, revision: u64) -> Result<bool, BrokerError> {
        let all = format!("$KV.{}.>", self.settings.facts());
        let found = self
            .first_from(&self.facts_stream(), &all, revision)
            .await?;
        Ok(found.is_some())
    }

    /// Tells a fact, which is forgotten after a while if that is given; its revision. `None` if its key was told of since the
    /// revision that is expected.
    pub(super) async fn tell(
        &self,
        key: &str,
        value: Bytes,
        expected: Option<u64>,
        kept: Option<Duration>,
    ) -> Result<Option<u64>, BrokerError> {
        let mut headers = HeaderMap::new();
        if let Some(expected) = expected {
            headers.insert(EXPECTED, expected.to_string());
        }
        if let Some(kept) = kept {
            headers.insert(TTL, format!("{}s", kept.as_secs().max(1)));
        }
        let subject = format!("$KV.{}.{key}", self.settings.facts());
        match self.put(subject, headers, value).await {
            Err(error) if error.is_behind() => Ok(None),
            told => told.map(Some),
        }
    }

    /// Makes what brings the messages of a stream from this number on.
    pub(super) async fn consume(&self, stream: String, from: u64) -> Result<Consumer, BrokerError> {
        let inbox = self.client().new_inbox();
        let messages = self.client().subscribe(inbox.clone()).await;
        let messages = messages.map_err(|error| BrokerError::Away(error.to_string()))?;
        let name = format!("edge-{:016x}", fastrand::u64(..));
        let config = json!({
            "stream_name": stream,
            "config": {
                "name": name, "deliver_policy": "by_start_sequence", "opt_start_seq": from, "ack_policy": "none",
                "replay_policy": "instant", "num_replicas": 1, "mem_storage": true,
                "inactive_threshold": nanos(INACTIVE), "description": self.settings.node,
            },
        });
        let asked = clock::now();
        let made = self
            .api(&format!("CONSUMER.CREATE.{stream}.{name}"), &config)
            .await?;
        Ok(Consumer {
            pending: made["num_pending"].as_u64().unwrap_or_default(),
            broker: self.clone(),
            stream,
            name,
            inbox,
            messages,
            round_trip: clock::now().saturating_duration_since(asked),
            left: 0,
        })
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The text of a field that is in base64; nothing if it is none.
fn decoded(field: &Value) -> String {
    let bytes = BASE64_STANDARD.decode(field.as_str().unwrap_or_default());
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

/// What a server answered.
fn answer(asked: Result<Bytes, async_nats::RequestError>) -> Result<Value, BrokerError> {
    let payload = asked.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => {
            BrokerError::Away("no server has the stream just now, or none has JetStream".into())
        }
        // It was not sent.
        RequestErrorKind::MaxPayloadExceeded => BrokerError::Refused {
            error: TOO_LARGE,
            text: error.to_string(),
        },
        _ => BrokerError::Away(error.to_string()),
    })?;
    let value: Value = serde_json::from_slice(&payload)
        .map_err(|error| BrokerError::Away(format!("an answer that is no JSON: {error}")))?;
    let Some(error) = value.get("error") else {
        return Ok(value);
    };
    let error: ApiError = serde_json::from_value(error.clone())
        .map_err(|error| BrokerError::Away(format!("an answer that is no error: {error}")))?;
    let text = error.description.unwrap_or_default();
    match (error.code, error.err_code) {
        (_, Some(code)) if LATER.contains(&code) => Err(BrokerError::Away(text)),
        // A server that is just now no leader, or has none: unless it says that there is no room.
        (Some(503), Some(code)) if !FULL.contains(&code) => Err(BrokerError::Away(text)),
        (Some(503), None) => Err(BrokerError::Away(text)),
        (_, code) => Err(BrokerError::Refused {
            error: code.unwrap_or_default(),
            text,
        }),
    }
}

/// What brings the frames of a stream to one edge.
#[derive(Debug)]
pub(super) struct Consumer {
    broker: Broker,
    stream: String,
    name: String,
    inbox: String,
    messages: Subscriber,
    /// How many messages there were when it was made.
    pub(super) pending: u64,
    /// How long it took until it was made: what is asked for takes about as long to come.
    pub(super) round_trip: Duration,
    /// How many messages may come yet for the pull.
    left: usize,
}

impl Consumer {
    /// Asks for more frames.
    pub(super) async fn pull(&mut self) -> Result<(), BrokerError> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name);
        let body = json!({
            "batch": PULL_FRAMES, "max_bytes": PULL_BYTES, "expires": nanos(PULL_EXPIRES), "idle_heartbeat": nanos(HEARTBEAT),
        });
        self.left = PULL_FRAMES;
        let asked = self
            .broker
            .client()
            .publish_with_reply(subject, self.inbox.clone(), body.to_string().into())
            .await;
        asked.map_err(|error| BrokerError::Away(error.to_string()))
    }

    /// What comes next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Pulled {
        let Some(message) = self.messages.next().await else {
            return Pulled::Gone("the connection is closed".into());
        };
        if let Some(status) = message.status {
            let text = message.description.unwrap_or_default();
            return match status.as_u16() {
                100 => Pulled::Heartbeat,
                404 | 408 => Pulled::Over,
                409 if text.contains("MaxBytes") && self.left == PULL_FRAMES => Pulled::Gone(
                    format!("the next message is longer than {PULL_BYTES} bytes"),
                ),
                // The end of a pull for its bytes is one like others.
                409 if text.contains("MaxBytes") => Pulled::Over,
                // All of it has come, and is counted: the next was asked for. All else is of the consumer.
                409 if text.contains("Batch Completed") => Pulled::Heartbeat,
                code => Pulled::Gone(format!("{code} {text}")),
            };
        }
        let place = message.reply.as_ref().and_then(|reply| place(reply));
        let Some(Place {
            sequence,
            nth,
            millis,
            pending,
        }) = place
        else {
            return Pulled::Gone("a message that does not say which it is".into());
        };
        self.left = self.left.saturating_sub(1);
        Pulled::Message(Delivered {
            sequence,
            subject: message.subject,
            nth,
            pending,
            id: message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(MESSAGE_ID))
                .map(ToString::to_string)
                .filter(|id| id.len() <= LONGEST_ID),
            millis,
            payload: message.payload,
        })
    }

    /// Whether the pull has brought all that it may.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// What a reply subject says of a message (ADR-15).
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Its number in the stream, and for the consumer.
    sequence: u64,
    nth: u64,
    /// When it was stored, in unix ms.
    millis: u64,
    /// How many are to come.
    pending: u64,
}

fn place(reply: &str) -> Option<Place> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    // stream, consumer, delivered, stream sequence, consumer sequence, time, pending; newer ones have a domain and an account
    // before, and a token behind.
    let first = match tokens.len() {
        7 => 3,
        9.. => 5,
        _ => return None,
    };
    let number = |at: usize| tokens.get(first + at)?.parse::<u64>().ok();
    Some(Place {
        sequence: number(0)?,
        nth: number(1)?,
        millis: number(2)? / 1_000_000,
        pending: number(3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_says_which_message_it_is_of() {
        let old = "$JS.ACK.seventh_shop.edge-1.1.41.7.1764230000123456789.3";
        let new = "$JS.ACK._.acc.seventh_shop.edge-1.1.41.7.1764230000123456789.3.tok";
        for reply in [old, new] {
            let said = Place {
                sequence: 41,
                nth: 7,
                millis: 1_764_230_000_123,
                pending: 3,
            };
            assert_eq!(place(reply), Some(said));
        }
        for bad in ["$JS.ACK.a.b", "x", "$JS.ACK.a.b.1.x.7.9.0"] {
            assert_eq!(place(bad), None);
        }
    }

    #[test]
    fn what_is_refused_and_what_may_be_done_later_are_told_apart() {
        let said = |json: &'static str| answer(Ok(json.into()));
        let full = said(
            r#"{"error":{"code":503,"err_code":10023,"description":"insufficient resources"}}"#,
        );
        assert!(full.is_err_and(|error| error.is_full()));
        let away = said(r#"{"error":{"code":503,"err_code":10008,"description":"no leader"}}"#);
        assert!(matches!(away, Err(BrokerError::Away(_))));
        let missing =
            said(r#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#);
        assert!(missing.is_err_and(|error| error.is(NO_STREAM)));
        assert!(said("[").is_err());
        assert_eq!(said(r#"{"seq":7}"#).expect("an answer")["seq"], 7);
    }
}
