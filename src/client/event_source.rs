//! An `EventSource` as the HTML standard has it (section 9.2), without a browser.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};

use super::{
    connection::{Connection, Response},
    error::ClientError,
    target::Origin,
    tls::Trust,
    upload::{Upload, full},
};
use crate::{
    backoff,
    protocol::Protocol,
    sse::{Item, Message, Parser},
};

/// The reconnection time until the server sends one.
const RETRY: Duration = Duration::from_secs(3);
/// The longest wait between failed attempts, unless the server asks for a longer one.
const MAX_RETRY: Duration = Duration::from_secs(30);
/// The largest event it takes.
const MAX_EVENT: usize = 16 << 20;
const MAX_REDIRECTS: u32 = 10;
/// How long it is waited for what a refusal says.
const DETAIL: Duration = Duration::from_secs(2);

/// What happens to an event source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The stream is open.
    Open,
    /// An event.
    Message(Message),
    /// The stream ended or could not be opened; it will be tried again after this time.
    Reconnecting {
        /// How long it waits.
        after: Duration,
        /// Why.
        why: String,
    },
    /// The server wants no reconnect: the end.
    Closed {
        /// Why.
        why: String,
    },
}

/// An event source. [`next`](Self::next) drives it.
#[derive(Debug)]
pub struct EventSource {
    url: Uri,
    trust: Trust,
    protocol: Protocol,
    retry: Duration,
    last_event_id: String,
    failures: u32,
    /// What it sends beside its own fields.
    fields: HeaderMap,
    state: Phase,
    signals: VecDeque<Signal>,
}

#[derive(Debug)]
enum Phase {
    Waiting(Duration),
    Open(Box<(Connection, Response, Parser)>),
    Closed,
}

enum Refused {
    /// The standard: fail the connection, and do not reconnect.
    ForGood(String),
    ForNow(ClientError),
}

impl From<ClientError> for Refused {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Url(_) | ClientError::Protocol { .. } | ClientError::Trust { .. } => {
                Self::ForGood(error.to_string())
            }
            _ => Self::ForNow(error),
        }
    }
}

impl EventSource {
    /// An event source of `url`, resuming after `last_event_id` unless that is empty.
    #[must_use]
    pub fn new(url: Uri, protocol: Protocol, trust: Trust, last_event_id: String) -> Self {
        Self {
            url,
            trust,
            protocol,
            retry: RETRY,
            last_event_id,
            failures: 0,
            fields: HeaderMap::new(),
            state: Phase::Waiting(Duration::ZERO),
            signals: VecDeque::new(),
        }
    }

    /// The same, which sends these fields with each request to the host of its URL.
    #[must_use]
    pub fn with_fields(self, fields: HeaderMap) -> Self {
        Self { fields, ..self }
    }

    /// What happens next; `None` once it is closed. Cancel-safe but for an attempt to connect,
    /// which starts over.
    pub async fn next(&mut self) -> Option<Signal> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Some(signal);
            }
            match &mut self.state {
                Phase::Closed => return None,
                Phase::Waiting(after) => {
                    tokio::time::sleep(*after).await;
                    *after = Duration::ZERO;
                    self.open().await;
                }
                Phase::Open(open) => {
                    let chunk = open.1.chunk().await;
                    self.take(chunk);
                }
            }
        }
    }

    async fn open(&mut self) {
        match self.try_open().await {
            Ok(open) => {
                self.failures = 0;
                self.state = Phase::Open(Box::new(open));
                self.signals.push_back(Signal::Open);
            }
            Err(Refused::ForGood(why)) => {
                self.state = Phase::Closed;
                self.signals.push_back(Signal::Closed { why });
            }
            Err(Refused::ForNow(error)) => self.reconnect(error.to_string()),
        }
    }

    async fn try_open(&mut self) -> Result<(Connection, Response, Parser), Refused> {
        let mut url = self.url.clone();
        for _ in 0..MAX_REDIRECTS {
            let target = Origin::of(&url, self.trust.clone())?;
            let mut connection = Connection::open(&target, self.protocol).await?;
            let mut response = connection.send(self.request(&url)?).await?;
            match location(&response, &url) {
                Some(next) => url = next,
                None => {
                    accept(&mut response).await?;
                    let parser = Parser::resuming(MAX_EVENT, self.last_event_id.clone());
                    return Ok((connection, response, parser));
                }
            }
        }
        Err(Refused::ForGood(format!(
            "more than {MAX_REDIRECTS} redirects"
        )))
    }

    fn request(&self, url: &Uri) -> Result<Request<Upload>, Refused> {
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path)
            .header(header::ACCEPT, "text/event-stream")
            .header(header::CACHE_CONTROL, "no-store");
        if !self.last_event_id.is_empty() {
            let id = HeaderValue::from_bytes(self.last_event_id.as_bytes()).map_err(|_| {
                Refused::ForGood("the last event id cannot stand in a header".into())
            })?;
            request = request.header("last-event-id", id);
        }
        let mut request = request
            .body(full(Bytes::new()))
            .map_err(|_| ClientError::Url(url.to_string()))?;
        // Whoever it is sent on to is not to learn its secrets.
        if url.authority() == self.url.authority() && url.scheme() == self.url.scheme() {
            request.headers_mut().extend(self.fields.clone());
        }
        Ok(request)
    }

    fn take(&mut self, chunk: Result<Option<Bytes>, ClientError>) {
        let Phase::Open(open) = &mut self.state else {
            return;
        };
        let parser = &mut open.2;
        let bytes = match chunk {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return self.reconnect("the stream ended".into()),
            Err(error) => return self.reconnect(error.to_string()),
        };
        let mut items = Vec::new();
        let parsed = parser.push(&bytes, &mut items);
        parser.last_id().clone_into(&mut self.last_event_id);
        for item in items {
            match item {
                Item::Message(message) => self.signals.push_back(Signal::Message(message)),
                Item::Retry(retry) => self.retry = retry,
                Item::Comment(_) => {}
            }
        }
        if let Err(error) = parsed {
            self.reconnect(error.to_string());
        }
    }

    fn reconnect(&mut self, why: String) {
        let most = MAX_RETRY.max(self.retry);
        self.failures += 1;
        let after = match self.failures {
            1 => self.retry,
            failures => backoff::exponential(self.retry, most, failures, fastrand::f64()),
        };
        self.state = Phase::Waiting(after);
        self.signals.push_back(Signal::Reconnecting { after, why });
    }
}

fn location(response: &Response, url: &Uri) -> Option<Uri> {
    use StatusCode as S;
    let redirects = [
        S::MOVED_PERMANENTLY,
        S::FOUND,
        S::SEE_OTHER,
        S::TEMPORARY_REDIRECT,
        S::PERMANENT_REDIRECT,
    ];
    if !redirects.contains(&response.status) {
        return None;
    }
    let location = response.headers.get(header::LOCATION)?.to_str().ok()?;
    if !location.starts_with('/') || location.starts_with("//") {
        return location.parse().ok();
    }
    let base = Uri::builder()
        .scheme(url.scheme()?.clone())
        .authority(url.authority()?.clone());
    base.path_and_query(location).build().ok()
}

/// What a problem (RFC 9457) says is wrong, if the answer is one that is not long.
async fn detail(response: &mut Response) -> Option<String> {
    if response.headers.get(header::CONTENT_TYPE)? != "application/problem+json" {
        return None;
    }
    let chunk = tokio::time::timeout(DETAIL, response.chunk()).await;
    let chunk = chunk.ok()?.ok().flatten()?;
    let problem: serde_json::Value = serde_json::from_slice(&chunk).ok()?;
    problem["detail"].as_str().map(str::to_owned)
}

/// The standard, 9.2.3: anything but 200 and `text/event-stream` fails the connection.
async fn accept(response: &mut Response) -> Result<(), Refused> {
    if response.status != StatusCode::OK {
        let status = response.status;
        let why = match detail(response).await {
            Some(detail) => format!("the server answered {status}: {detail}"),
            None => format!("the server answered {status}"),
        };
        return Err(Refused::ForGood(why));
    }
    let content_type = response
        .headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let essence = content_type
        .split(|&b| b == b';')
        .next()
        .unwrap_or_default();
    if essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"text/event-stream")
    {
        Ok(())
    } else {
        let content_type = String::from_utf8_lossy(content_type).into_owned();
        Err(Refused::ForGood(format!(
            "the answer is `{content_type}`, not text/event-stream"
        )))
    }
}
