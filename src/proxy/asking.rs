//! Asking an app: the request as every attempt sends it, and how often it is tried.

use std::{
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, StatusCode, header,
    uri::PathAndQuery,
};
use hyper::body::Incoming;

use super::{
    headers::{self, Facts},
    metrics::{Outcome, ProxyMetrics},
    route::SendHost,
    table::Route,
    upload::{Failure, Progress},
    upstream::{Busy, Upstream, pick},
};
use crate::{
    access::Identity,
    clock,
    exchange::{Request, authority},
    limits::{Bound, Hits, Limit, Limits},
    networks::Networks,
    outbound::Unanswered,
};

/// How often a request is sent that may be sent again.
const ATTEMPTS: usize = 3;

/// What asking takes.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) trusted: Networks,
    pub(super) limits: Limits,
    pub(super) hits: Arc<Hits>,
    pub(super) metrics: ProxyMetrics,
}

/// Why there is no answer to pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    App(Unanswered),
    /// There was none in time.
    Late(Limit),
    /// The client's own body is to blame.
    Client(Failure),
    /// It changed the protocol, and nobody had asked.
    Changed,
}

/// An app's answer, which keeps it busy until its body has ended.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: http::Response<Incoming>,
    pub(super) busy: Busy,
}

/// A request as every attempt sends it.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    /// The client's fields.
    pub(super) fields: HeaderMap,
    has_body: bool,
    progress: Progress,
    pub(super) upgrade: Option<HeaderValue>,
    told: Told,
}

/// What the edge says of a request.
#[derive(Clone, Debug)]
struct Told {
    peer: IpAddr,
    trusted: bool,
    host: Box<str>,
    request_id: Box<str>,
    identity: Option<Identity>,
}

impl Errand {
    /// That of a request which comes from `peer`.
    pub(super) fn new(
        request: Request,
        peer: IpAddr,
        trusted: bool,
        identity: Option<Identity>,
    ) -> Self {
        let Request { parts, body, .. } = request;
        let has_body = body.is_some();
        let target = parts.uri.path_and_query().cloned();
        Self {
            upgrade: headers::upgrade(&parts, has_body),
            told: Told {
                peer,
                trusted,
                host: authority(&parts).into(),
                request_id: format!("{:032x}", fastrand::u128(..)).into(),
                identity,
            },
            target: target.unwrap_or_else(|| PathAndQuery::from_static("/")),
            method: parts.method,
            fields: parts.headers,
            has_body,
            progress: Progress::new(body),
        }
    }

    /// The same once more, without a body and with other fields.
    pub(super) fn again(&self, fields: HeaderMap) -> Self {
        Self {
            method: self.method.clone(),
            target: self.target.clone(),
            fields,
            has_body: false,
            progress: Progress::new(None),
            upgrade: None,
            told: self.told.clone(),
        }
    }

    /// On behalf of nobody in particular: without what tells visitors apart.
    pub(super) fn of_nobody(&self) -> Self {
        let mut fields = self.fields.clone();
        for name in [header::COOKIE, header::AUTHORIZATION, LAST_EVENT_ID] {
            fields.remove(name);
        }
        let mut errand = self.again(fields);
        errand.told.identity = None;
        errand
    }

    /// The host that the client asked for.
    pub(super) fn host(&self) -> &str {
        &self.told.host
    }

    /// Who asks, as far as the app is told.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.told.identity.as_ref()
    }

    /// The fields of the request to `upstream`, and how many were dropped for their names.
    fn fields_for(&self, route: &Route, upstream: &Upstream) -> (HeaderMap, usize) {
        let address = upstream.app.address();
        let mut fields = self.fields.clone();
        let facts = Facts {
            peer: self.told.peer,
            trusted: self.told.trusted,
            host: &self.told.host,
            send_host: match route.settings.send_host {
                SendHost::Client => &self.told.host,
                SendHost::Upstream => address.authority().as_str(),
            },
            request_id: &self.told.request_id,
            identity: self.told.identity.as_ref(),
            body: self.has_body,
            http2: address.is_http2(),
        };
        let dropped = headers::to_app(&mut fields, &facts);
        if let Some(protocol) = self.upgrade.clone().filter(|_| !address.is_http2()) {
            headers::set_upgrade(&mut fields, protocol);
        }
        if address.is_http2() {
            // The URI's authority is what says it there (RFC 9113 8.3.1).
            fields.remove(header::HOST);
        }
        (fields, dropped)
    }
}

impl Asking {
    /// Asks one upstream, and others where that is safe.
    pub(super) async fn ask_any(&self, route: &Route, errand: &Errand) -> Result<Answer, NoAnswer> {
        let idempotent = errand.method.is_idempotent();
        let mut tried = Vec::new();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let can_repeat = idempotent && errand.progress.is_whole();
            let Some((at, turn)) = pick(route.upstreams(), &tried, can_repeat, clock::now()) else {
                return Err(NoAnswer::App(Unanswered::Unreachable));
            };
            let (fields, dropped) = errand.fields_for(route, turn.upstream);
            if attempts == 1 && dropped > 0 {
                self.metrics.underscores.inc_by(dropped as u64);
            }
            let error = match self.ask(turn.upstream, errand, fields).await {
                Ok(answer) => {
                    turn.answered();
                    self.metrics.asked(Outcome::Answered);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if let Some(failure) = errand.progress.failure() {
                // Which says nothing about the app.
                self.metrics.asked(Outcome::Abandoned);
                return Err(NoAnswer::Client(failure));
            }
            let (outcome, unreachable, safe) = match error {
                NoAnswer::App(Unanswered::Unreachable) => (Outcome::Unreachable, true, true),
                NoAnswer::Late(Limit::UpstreamConnect) => (Outcome::Late, true, true),
                NoAnswer::App(Unanswered::Closed) => (Outcome::Broken, false, idempotent),
                NoAnswer::Late(_) => (Outcome::Late, false, false),
                _ => (Outcome::Broken, false, false),
            };
            self.metrics.asked(outcome);
            turn.failed(clock::now(), unreachable);
            if unreachable {
                tried.push(at);
            }
            let others = tried.len() < route.upstreams().len();
            if !(safe && errand.progress.is_whole() && others && attempts < ATTEMPTS) {
                return Err(error);
            }
            self.metrics.retries.inc();
        }
    }

    async fn ask(
        &self,
        upstream: &Upstream,
        errand: &Errand,
        fields: HeaderMap,
    ) -> Result<Answer, NoAnswer> {
        let progress = &errand.progress;
        let mut request = HttpRequest::new(progress.attempt(self.limits.request_body.value));
        *request.method_mut() = errand.method.clone();
        *request.uri_mut() = upstream.app.address().uri(errand.target.clone());
        *request.headers_mut() = fields;
        let busy = upstream.begin();
        let mut asked = pin!(upstream.app.ask(request));
        let response = loop {
            // The time runs from the end of the request, which moves as long as it is sent.
            let moved = progress.moved();
            let until: Instant = moved + self.limits.upstream_head.value;
            match tokio::time::timeout_at(until.into(), asked.as_mut()).await {
                Ok(Ok(response)) => break response,
                Ok(Err(Unanswered::ConnectTimeout)) => {
                    return Err(self.late(self.limits.upstream_connect));
                }
                Ok(Err(error)) => return Err(NoAnswer::App(error)),
                Err(_) if progress.moved() > moved => {}
                Err(_) => return Err(self.late(self.limits.upstream_head)),
            }
        };
        let changed = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if changed && errand.upgrade.is_none() {
            return Err(NoAnswer::Changed);
        }
        Ok(Answer { response, busy })
    }

    fn late(&self, bound: Bound<Duration>) -> NoAnswer {
        self.hits.count(bound.limit);
        NoAnswer::Late(bound.limit)
    }
}

impl Answer {
    /// Whether it is an event stream whose events can be read.
    pub(super) fn is_plain_event_stream(&self) -> bool {
        let fields = self.response.headers();
        self.response.status() == StatusCode::OK
            && headers::is_event_stream(fields)
            && !fields.contains_key(header::CONTENT_ENCODING)
    }

    /// Whether its status says that another attempt may succeed.
    pub(super) fn is_passing(&self) -> bool {
        let status = self.response.status();
        status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
    }

    /// How long the app wants to be left alone, in seconds (RFC 9110 10.2.3).
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.response.headers().get(header::RETRY_AFTER)?;
        let retry = Duration::from_secs(seconds.to_str().ok()?.parse().ok()?);
        Some(retry.clamp(Duration::from_secs(1), LONGEST_RETRY))
    }
}

/// The longest that an `EventSource` waits because an app has said so.
pub(super) const LONGEST_RETRY: Duration = Duration::from_secs(3600);
/// What an `EventSource` brings when it comes back.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
