//! One request to an app, and its answer.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, StatusCode, header,
    request::Parts, uri::PathAndQuery,
};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{
    Asker, Proxy, Route, SendHost,
    headers::{self, Facts},
    metrics::Outcome,
    upload::{Failure, Progress},
    upstream::{Busy, Upstream, pick},
};
use crate::{
    clock,
    exchange::{Body, BodyError, BodyStream, Problem, Reply, Request, Tunnel, authority},
    limits::{Bound, Limit},
    outbound::Unanswered,
};

/// How often a request is sent that may be sent again.
const ATTEMPTS: usize = 3;
/// The longest that an `EventSource` waits because an app has said so.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// Why there is no answer to pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoAnswer {
    App(Unanswered),
    /// There was none in time.
    Late(Limit),
    /// The client's own body is to blame.
    Client(Failure),
    /// It changed the protocol, and nobody had asked.
    Changed,
}

/// A request as every attempt sends it.
struct Outgoing {
    parts: Parts,
    target: PathAndQuery,
    has_body: bool,
    progress: Progress,
    upgrade: Option<HeaderValue>,
}

/// An app's answer.
struct Answer {
    response: http::Response<Incoming>,
    busy: Busy,
}

impl Proxy {
    /// Sends a request on to an app of `route`, and returns its answer, or the failure that fits.
    pub(super) async fn forward(&self, route: &Route, request: Request, asker: &Asker) -> Reply {
        let gentle = route.is_gentle_to(&request);
        let Request { parts, body, .. } = request;
        let is_head = parts.method == Method::HEAD;
        let upgrade = headers::upgrade(&parts, body.is_some());
        let target = parts.uri.path_and_query().cloned();
        let facts = Told::new(self, &parts, asker);
        let outgoing = Outgoing {
            target: target.unwrap_or_else(|| PathAndQuery::from_static("/")),
            has_body: body.is_some(),
            progress: Progress::new(body),
            upgrade,
            parts,
        };
        let answered = self.ask_any(route, outgoing, &facts, asker).await;
        match answered {
            Ok(answer) if gentle && is_passing(answer.response.status()) => {
                Reply::gentle_refusal(retry_after(answer.response.headers()).unwrap_or(asker.retry))
            }
            Ok(answer) => self.reply(answer, is_head),
            Err(NoAnswer::App(_) | NoAnswer::Late(_) | NoAnswer::Changed) if gentle => {
                Reply::gentle_refusal(asker.retry)
            }
            Err(no_answer) => self.problem(no_answer).into(),
        }
    }

    /// Asks one upstream, and others where that is safe.
    async fn ask_any(
        &self,
        route: &Route,
        mut outgoing: Outgoing,
        told: &Told,
        asker: &Asker,
    ) -> Result<Answer, NoAnswer> {
        let idempotent = outgoing.parts.method.is_idempotent();
        let original = std::mem::take(&mut outgoing.parts.headers);
        let mut tried = Vec::new();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let can_repeat = idempotent && outgoing.progress.is_whole();
            let Some((at, turn)) = pick(route.upstreams(), &tried, can_repeat, clock::now()) else {
                return Err(NoAnswer::App(Unanswered::Unreachable));
            };
            let upstream = turn.upstream;
            let mut fields = original.clone();
            let dropped = told.fields(&mut fields, route, upstream, &outgoing, asker);
            if attempts == 1 && dropped > 0 {
                self.metrics.underscores.inc_by(dropped as u64);
            }
            let error = match self.ask(upstream, &outgoing, fields).await {
                Ok(answer) => {
                    turn.answered();
                    self.metrics.asked(Outcome::Answered);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if let Some(failure) = outgoing.progress.failure() {
                // Which says nothing about the app.
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
            let whole = outgoing.progress.is_whole();
            if unreachable {
                tried.push(at);
            }
            let others = tried.len() < route.upstreams().len();
            if !(safe && whole && others && attempts < ATTEMPTS) {
                return Err(error);
            }
            self.metrics.retries.inc();
        }
    }

    async fn ask(
        &self,
        upstream: &Upstream,
        outgoing: &Outgoing,
        fields: HeaderMap,
    ) -> Result<Answer, NoAnswer> {
        let body = outgoing.progress.attempt(self.limits.request_body.value);
        let mut request = HttpRequest::new(body);
        *request.method_mut() = outgoing.parts.method.clone();
        *request.uri_mut() = upstream.app.address().uri(outgoing.target.clone());
        *request.headers_mut() = fields;
        let busy = upstream.begin();
        let mut asked = pin!(upstream.app.ask(request));
        let response = loop {
            // The time runs from the end of the request, which moves as long as it is sent.
            let moved = outgoing.progress.moved();
            let until: Instant = moved + self.limits.upstream_head.value;
            match tokio::time::timeout_at(until.into(), asked.as_mut()).await {
                Ok(Ok(response)) => break response,
                Ok(Err(Unanswered::ConnectTimeout)) => {
                    return Err(self.late(self.limits.upstream_connect));
                }
                Ok(Err(error)) => return Err(NoAnswer::App(error)),
                Err(_) if outgoing.progress.moved() > moved => {}
                Err(_) => return Err(self.late(self.limits.upstream_head)),
            }
        };
        let changed = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if changed && outgoing.upgrade.is_none() {
            return Err(NoAnswer::Changed);
        }
        Ok(Answer { response, busy })
    }

    fn late(&self, bound: Bound<Duration>) -> NoAnswer {
        self.hits.count(bound.limit);
        NoAnswer::Late(bound.limit)
    }

    fn reply(&self, answer: Answer, is_head: bool) -> Reply {
        let Answer { mut response, busy } = answer;
        let changed = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let upgraded = changed.then(|| hyper::upgrade::on(&mut response));
        let (head, body) = response.into_parts();
        let mut fields = head.headers;
        headers::from_app(&mut fields);
        if head.status == StatusCode::NO_CONTENT || changed {
            // RFC 9110 8.6
            fields.remove(header::CONTENT_LENGTH);
        }
        let events = headers::is_event_stream(&fields);
        let body = if let Some(upgraded) = upgraded {
            self.metrics.tunnels.inc();
            headers::set_upgrade(&mut fields, HeaderValue::from_static("websocket"));
            Body::Tunnel(tunnel(upgraded, busy))
        } else if is_head || body.is_end_stream() {
            Body::Full(Bytes::new())
        } else {
            let idle = (!events).then_some(self.limits.upstream_idle);
            Body::Stream(self.parts_of(body, busy, idle))
        };
        if events {
            let held_back = HeaderName::from_static("x-accel-buffering");
            fields
                .entry(held_back)
                .or_insert(HeaderValue::from_static("no"));
        }
        Reply {
            status: head.status,
            headers: fields,
            body,
            bitten: None,
        }
    }

    /// The parts of an answer as they come. One that ends early is told apart from one that ends.
    fn parts_of(&self, body: Incoming, busy: Busy, idle: Option<Bound<Duration>>) -> BodyStream {
        let (hits, cut) = (self.hits.clone(), self.metrics.cut.clone());
        let parts = stream::unfold(Some((body, busy)), move |state| {
            let (hits, cut) = (hits.clone(), cut.clone());
            async move {
                let (mut body, busy) = state?;
                let frame = match idle {
                    None => body.frame().await,
                    Some(idle) => match tokio::time::timeout(idle.value, body.frame()).await {
                        Ok(frame) => frame,
                        Err(_) => {
                            hits.count(idle.limit);
                            cut.inc();
                            let error: BodyError = "the app's answer paused for too long".into();
                            return Some((Err(error), None));
                        }
                    },
                };
                match frame? {
                    Ok(frame) => Some((Ok(frame), Some((body, busy)))),
                    Err(error) => {
                        cut.inc();
                        Some((Err(error.into()), None))
                    }
                }
            }
        });
        parts.boxed()
    }

    fn problem(&self, no_answer: NoAnswer) -> Problem {
        let bad_gateway = |detail: &str| Problem::new(StatusCode::BAD_GATEWAY, detail);
        match no_answer {
            NoAnswer::App(Unanswered::Unreachable | Unanswered::ConnectTimeout) => {
                bad_gateway("the app behind this edge cannot be reached; is it running?")
            }
            NoAnswer::App(Unanswered::Closed) => {
                bad_gateway("the app behind this edge closed the connection without an answer")
            }
            NoAnswer::App(Unanswered::Broken) => {
                bad_gateway("what the app behind this edge answered is not HTTP")
            }
            NoAnswer::Changed => bad_gateway(
                "the app behind this edge changed the protocol, which nobody had asked for",
            ),
            NoAnswer::Late(limit) => {
                let detail = format!("the app behind this edge took too long ({})", limit.key());
                Problem::new(StatusCode::GATEWAY_TIMEOUT, detail)
            }
            NoAnswer::Client(Failure::Paused) => {
                self.hits.count(self.limits.request_body.limit);
                Problem::too_slow(self.limits.request_body)
            }
            NoAnswer::Client(Failure::Broken) => {
                Problem::new(StatusCode::BAD_REQUEST, "the body ended early")
            }
        }
    }
}

/// What an app is told of a request, whichever upstream gets it.
struct Told {
    host: String,
    request_id: String,
    trusted: bool,
}

impl Told {
    fn new(proxy: &Proxy, parts: &Parts, asker: &Asker) -> Self {
        Self {
            host: authority(parts).to_owned(),
            request_id: format!("{:032x}", fastrand::u128(..)),
            trusted: proxy.trusted.contain(asker.peer),
        }
    }

    /// Makes the fields those of the request to `upstream`.
    fn fields(
        &self,
        fields: &mut HeaderMap,
        route: &Route,
        upstream: &Upstream,
        outgoing: &Outgoing,
        asker: &Asker,
    ) -> usize {
        let address = upstream.app.address();
        let dropped = headers::to_app(
            fields,
            &Facts {
                peer: asker.peer,
                trusted: self.trusted,
                host: &self.host,
                send_host: match route.settings.send_host {
                    SendHost::Client => &self.host,
                    SendHost::Upstream => address.authority().as_str(),
                },
                request_id: &self.request_id,
                identity: asker.identity.as_ref(),
                body: outgoing.has_body,
                http2: address.is_http2(),
            },
        );
        if let Some(protocol) = outgoing.upgrade.clone().filter(|_| !address.is_http2()) {
            headers::set_upgrade(fields, protocol);
        }
        if address.is_http2() {
            // The URI's authority is what says it there (RFC 9113 8.3.1).
            fields.remove(header::HOST);
        }
        dropped
    }
}

/// Whether a status says that another attempt may succeed.
fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// How long an app wants to be left alone, in seconds (RFC 9110 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    let retry = Duration::from_secs(seconds);
    Some(retry.clamp(Duration::from_secs(1), LONGEST_RETRY))
}

/// Moves bytes both ways until both sides have ended.
fn tunnel(app: OnUpgrade, busy: Busy) -> Tunnel {
    Box::new(move |client| {
        Box::pin(async move {
            let _busy = busy;
            let Ok(app) = app.await else { return };
            let (mut client, mut app) = (TokioIo::new(client), TokioIo::new(app));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut app).await {
                tracing::debug!("a tunnel ended early: {error}");
            }
        })
    })
}
