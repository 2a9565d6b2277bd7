//! Every failure as the reply a client gets: `application/problem+json` (RFC 9457).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Serialize;

use super::{
    Body, Reply,
    code::{Code, Named},
    validate::Malformed,
};
use crate::{
    access::Denied,
    history::NotStored,
    limits::{Bound, Limit},
    sse::InvalidField,
    topic::InvalidTopic,
};

/// What went wrong, for the one who can do something about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    /// What programs know it by, if that is neither its limit nor its field nor its status.
    named: Option<Named>,
    /// The field of the request that is wrong.
    field: Option<&'static str>,
    /// What it is, or how large.
    value: Option<Box<str>>,
    /// What would be taken.
    limit: Option<u64>,
    /// Nobody knows whether it was done all the same.
    is_unknown: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The limit of the edge that it comes from, to be counted.
    bitten: Option<Limit>,
}

/// A problem as it is written (RFC 9457 3.1), with members of our own (3.2).
#[derive(Serialize)]
struct Written<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: String,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

/// The challenge to one whose token is no good (RFC 6750 3.1).
const INVALID: &str = "Bearer error=\"invalid_token\"";

/// The longest part of a value that is repeated in a problem, in characters.
const SHOWN: usize = 80;

impl Problem {
    /// A problem with `status`; `detail` names the value, the limit and the remedy.
    #[must_use]
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            title: status.canonical_reason().unwrap_or("Error"),
            detail: detail.into(),
            named: None,
            field: None,
            value: None,
            limit: None,
            is_unknown: false,
            headers: Vec::new(),
            bitten: None,
        }
    }

    /// 400 for a field of the request.
    #[must_use]
    pub(crate) fn field(field: &'static str, value: &str, detail: impl Into<String>) -> Self {
        Self {
            field: Some(field),
            value: Some(value.chars().take(SHOWN).collect::<String>().into()),
            ..Self::new(StatusCode::BAD_REQUEST, detail)
        }
    }

    /// The same, but 403.
    #[must_use]
    pub(crate) fn forbidden(self) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            title: "Forbidden",
            ..self
        }
    }

    /// 413 for a field of the request.
    #[must_use]
    pub(crate) fn too_large(field: &'static str, bytes: usize, bound: Bound<usize>) -> Self {
        let (limit, key) = (bound.value, bound.limit.key());
        let detail = format!("{field} is {bytes} bytes long, the limit is {limit} ({key})");
        let problem = Self {
            field: Some(field),
            value: Some(bytes.to_string().into()),
            ..Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        };
        problem.by(bound)
    }

    /// 400 for a body that paused for too long.
    #[must_use]
    pub(crate) fn too_slow(bound: Bound<Duration>) -> Self {
        let (seconds, key) = (bound.value.as_secs_f64(), bound.limit.key());
        Self::new(
            StatusCode::BAD_REQUEST,
            format!("the body paused for over {seconds} s ({key})"),
        )
    }

    /// 429: so often a second is too often (RFC 6585 4).
    #[must_use]
    pub(crate) fn too_often(bound: Bound<usize>) -> Self {
        let (value, key) = (bound.value, bound.limit.key());
        let detail = format!("that is more than {value} a second ({key}); wait and send it again");
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
            .by(bound)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 503: there is not the memory for it.
    #[must_use]
    pub(crate) fn no_memory(bound: Bound<usize>) -> Self {
        let (value, key) = (bound.value, bound.limit.key());
        let detail =
            format!("more than {value} bytes of memory are taken ({key}); wait and send it again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            .by(bound)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// 500: a bug of the edge.
    #[must_use]
    pub(crate) fn internal() -> Self {
        let detail = "the edge has a bug here; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// 404.
    #[must_use]
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 405, naming what is allowed.
    #[must_use]
    pub(crate) fn method(method: &Method, allow: &str) -> Self {
        let detail = format!("{method} is not offered here; use {allow}");
        let allow = HeaderValue::try_from(allow).expect("methods are tokens");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail).with_header(header::ALLOW, allow)
    }

    /// What programs know it by.
    #[must_use]
    pub(crate) fn named(mut self, named: Named) -> Self {
        self.named = Some(named);
        self
    }

    /// The same, of a part of what was sent.
    #[must_use]
    pub(crate) fn within(mut self, part: &str) -> Self {
        self.detail = format!("{part}: {}", self.detail);
        self
    }

    /// The limit that was passed.
    #[must_use]
    pub(crate) fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit as u64);
        self
    }

    /// The limit of the edge that was passed, which is counted when the client is told.
    #[must_use]
    pub(crate) fn by(mut self, bound: Bound<usize>) -> Self {
        self.bitten = Some(bound.limit);
        self.with_limit(bound.value)
    }

    /// The limit of the edge that it comes from.
    #[must_use]
    pub(crate) fn bitten(&self) -> Option<Limit> {
        self.bitten
    }

    /// Adds a header field to the reply.
    #[must_use]
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    #[must_use]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, in words.
    #[must_use]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The field of the request that is wrong.
    #[must_use]
    pub(crate) fn of_field(&self) -> Option<&'static str> {
        self.field
    }

    /// Why it is, if that is who or what sent the request.
    #[must_use]
    pub(crate) fn is_of_sender(&self) -> Option<Named> {
        self.named.filter(|named| named.is_of_sender())
    }

    /// What programs know it by.
    #[must_use]
    pub(crate) fn code(&self) -> Code {
        let named = self.named.map(Code::Of);
        let named = named.or(self.bitten.map(Code::Limit));
        let named = named.or(self.field.map(Code::Field));
        named.unwrap_or(Code::Status(self.title))
    }

    /// As a line of JSON.
    #[must_use]
    pub(crate) fn json(&self) -> String {
        let code = self.code();
        let written = Written {
            r#type: code.uri(),
            title: self.title,
            status: self.status.as_u16(),
            code: code.to_string(),
            detail: &self.detail,
            field: self.field,
            value: self.value.as_deref(),
            limit: self.limit,
            outcome: self.is_unknown.then_some("unknown"),
        };
        serde_json::to_string(&written).expect("strings and numbers only")
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let mut text = problem.json();
        text.push('\n');
        let mut reply = Reply::new(problem.status, Body::Full(Bytes::from(text)));
        reply.headers.extend(problem.headers);
        reply.bitten = problem.bitten;
        reply
            .with(header::CONTENT_TYPE, "application/problem+json")
            .with(header::CACHE_CONTROL, "no-store")
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        let bitten = match &malformed {
            Malformed::TooManyFields(..) => Some(Limit::HeaderCount),
            Malformed::TooLong(..) => Some(Limit::HeaderBytes),
            _ => None,
        };
        Self {
            bitten,
            ..Self::new(malformed.status(), malformed.to_string())
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        // RFC 6750 3: whoever shows nothing is told no error.
        let challenged = |named, status, detail: &str, challenge| {
            let challenge = HeaderValue::from_static(challenge);
            let problem = Self::new(status, detail).named(named);
            problem.with_header(header::WWW_AUTHENTICATE, challenge)
        };
        let unauthorized = |named, detail, challenge| {
            challenged(named, StatusCode::UNAUTHORIZED, detail, challenge)
        };
        let forbidden = |named, detail: &str| {
            let challenge = "Bearer error=\"insufficient_scope\"";
            challenged(named, StatusCode::FORBIDDEN, detail, challenge)
        };
        match denied {
            Denied::Unauthorized(detail) => unauthorized(Named::TokenMissing, detail, "Bearer"),
            Denied::BadCredential(detail) => unauthorized(Named::TokenInvalid, detail, INVALID),
            Denied::Revoked => unauthorized(Named::TokenRevoked, "the token was revoked", INVALID),
            Denied::Ticket => unauthorized(
                Named::TicketSpent,
                "the ticket has opened what it opens; get a new one",
                INVALID,
            ),
            Denied::Expired => unauthorized(Named::TokenExpired, "the token has expired", INVALID),
            Denied::Forbidden(detail) => forbidden(Named::NotAllowed, &detail),
            Denied::Topic(topic) => {
                let detail = format!("the topic `{topic}` is not yours to read");
                forbidden(Named::TopicForbidden, &detail)
            }
            Denied::Unavailable => {
                let detail = "whoever could say who you are cannot be asked just now";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
                    .named(Named::IdentityUnavailable)
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("10"))
            }
        }
    }
}

impl From<NotStored> for Problem {
    fn from(error: NotStored) -> Self {
        let (status, named, retry) = match error {
            NotStored::KeyReused => (StatusCode::CONFLICT, Named::KeyReused, None),
            NotStored::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                Named::HistoryBusy,
                Some("1"),
            ),
            NotStored::Full => (
                StatusCode::INSUFFICIENT_STORAGE,
                Named::HistoryFull,
                Some("10"),
            ),
            NotStored::Failed(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                Named::HistoryFailed,
                Some("10"),
            ),
            NotStored::Unknown => (
                StatusCode::SERVICE_UNAVAILABLE,
                Named::HistoryUnknown,
                Some("10"),
            ),
            NotStored::Away => (
                StatusCode::SERVICE_UNAVAILABLE,
                Named::ClusterAway,
                Some("2"),
            ),
            NotStored::TooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, Named::ClusterTooLarge, None)
            }
            NotStored::Ending => (
                StatusCode::SERVICE_UNAVAILABLE,
                Named::EdgeEnding,
                Some("1"),
            ),
        };
        let mut problem = Self::new(status, error.to_string()).named(named);
        problem.is_unknown = error == NotStored::Unknown;
        match retry {
            Some(seconds) => {
                problem.with_header(header::RETRY_AFTER, HeaderValue::from_static(seconds))
            }
            None => problem,
        }
    }
}

impl From<(InvalidTopic, &str)> for Problem {
    fn from((error, topic): (InvalidTopic, &str)) -> Self {
        let problem = Self::field("topic", topic, error.to_string());
        match error {
            InvalidTopic::TooLong(_) => problem.with_limit(crate::topic::MAX_BYTES),
            InvalidTopic::Reserved => problem.named(Named::TopicReserved),
            _ => problem,
        }
    }
}

impl From<(InvalidField, &str)> for Problem {
    fn from((error, value): (InvalidField, &str)) -> Self {
        match error {
            InvalidField::TooLong { field, limit, .. } => {
                Self::field(field, value, error.to_string()).with_limit(limit)
            }
            InvalidField::Reserved => Self::field("event", value, error.to_string()),
            InvalidField::OwnShape | InvalidField::OuterSpace => {
                Self::field("id", value, error.to_string())
            }
            InvalidField::Control { field, .. } => Self::field(field, value, error.to_string()),
        }
    }
}
