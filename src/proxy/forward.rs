//! One request to what is behind its route, and the reply.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{
    asking::{Answer, Asking, Errand, NoAnswer},
    headers,
    metrics::ProxyMetrics,
    relay::{Ends, Pace, RelaySettings, Relays, Visit},
    route::RouteSettings,
    table::{Behind, Route, Table},
    upload::Failure,
    upstream::Busy,
};
use crate::{
    access::Identity,
    exchange::{Body, BodyError, BodyStream, Named, Problem, Reply, Request, Tunnel, is_chromium},
    hub::Hub,
    limits::{Bound, Hits, Limits},
    networks::Networks,
    outbound::Unanswered,
    sse,
};

/// What stands behind the edge.
#[derive(Debug)]
pub struct Proxy {
    table: Table,
    asking: Arc<Asking>,
    relays: Arc<Relays>,
}

/// Who asks, as far as it was settled, and how event streams are kept.
#[derive(Debug)]
pub(crate) struct Asker {
    /// Whoever is at the other end of the connection.
    pub peer: IpAddr,
    /// Who it is, where the app is told.
    pub identity: Option<Identity>,
    pub pace: Pace,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answered {
    Reply(Reply),
    /// The app has handed it to the hub.
    Handed(Handed),
}

/// A request that is to become an event stream of the hub's, because its app has said so.
#[derive(Debug)]
pub(crate) struct Handed {
    /// The topics, with commas, as the app names them.
    pub topics: Box<str>,
    /// What the app says first: events.
    pub first: Bytes,
    /// The client's fields.
    pub fields: HeaderMap,
    /// The app's fields.
    pub head: HeaderMap,
}

impl Proxy {
    /// With these routes.
    #[must_use]
    pub fn new(
        routes: &[RouteSettings],
        relay: RelaySettings,
        trusted: Networks,
        limits: Limits,
        hits: Arc<Hits>,
        metrics: ProxyMetrics,
    ) -> Self {
        let asking = Arc::new(Asking {
            trusted,
            limits,
            hits,
            metrics,
        });
        Self {
            table: Table::new(routes, limits.upstream_connect.value),
            relays: Arc::new(Relays::new(relay, asking.clone())),
            asking,
        }
    }

    /// The most specific route that a request is for.
    #[must_use]
    pub(crate) fn find(&self, authority: &str, path: &str) -> Option<&Arc<Route>> {
        self.table.find(authority, path)
    }

    /// The client that a request comes from, if whoever sends it is a proxy that is trusted.
    #[must_use]
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        self.asking.trusted.client(peer, headers)
    }

    /// The events of relayed streams.
    #[must_use]
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        self.relays.hub()
    }

    /// Asks the upstreams that have a health path for it, for as long as it is polled.
    pub(crate) async fn check_health(&self) {
        self.table.check_health().await;
    }

    /// Has what is behind `route` answer a request.
    pub(crate) async fn answer(
        &self,
        route: &Arc<Route>,
        request: Request,
        asker: Asker,
    ) -> Result<Answered, Problem> {
        match &route.behind {
            Behind::Upstreams(_) => self.forward(route, request, asker).await,
            Behind::Files(files) => files.answer(&request.parts).await.map(Answered::Reply),
        }
    }

    /// Sends a request on to an app, and returns its answer, or the failure that fits.
    async fn forward(
        &self,
        route: &Arc<Route>,
        request: Request,
        asker: Asker,
    ) -> Result<Answered, Problem> {
        let is_event_source = headers::is_event_source(&request.parts);
        let gentle = route.settings.gentle && is_event_source;
        let visit = Visit {
            peer: request.peer.clone(),
            chromium: is_chromium(&request.parts.headers),
            pace: asker.pace,
        };
        let trusted = self.asking.trusted.contain(asker.peer);
        let mut errand = Errand::new(request, asker.peer, trusted, asker.identity);
        if is_event_source && route.settings.share {
            let reply = self.relays.share(route, errand, &visit).await;
            return Ok(Answered::Reply(reply));
        }
        if is_event_source && let Some(reply) = self.relays.resume(route, &errand, &visit) {
            return Ok(Answered::Reply(reply));
        }
        let came_back = Relays::take_id(&mut errand);
        let reply = match self.asking.ask_any(route, &errand).await {
            Ok(answer) if gentle && answer.is_passing() => {
                Reply::gentle_refusal(answer.retry_after().unwrap_or(visit.pace.long_retry))
            }
            Ok(answer) => match headers::handed_over(answer.response.headers()) {
                Some(topics) if route.settings.hub && errand.method == Method::GET => {
                    let handed = self.hand_over(topics, errand, answer).await?;
                    return Ok(Answered::Handed(handed));
                }
                _ if is_event_source && answer.is_plain_event_stream() => {
                    let mut head = answer.response.headers().clone();
                    headers::from_app(&mut head);
                    not_held_back(&mut head);
                    self.relays
                        .relay(route, errand, answer, head, came_back, &visit)
                }
                _ => self.reply(answer, errand.method == Method::HEAD, visit.pace.keepalive),
            },
            Err(NoAnswer::App(_) | NoAnswer::Late(_) | NoAnswer::Changed) if gentle => {
                Reply::gentle_refusal(visit.pace.long_retry)
            }
            Err(no_answer) => return Err(self.problem(no_answer)),
        };
        Ok(Answered::Reply(reply))
    }

    /// Reads what an app says before the hub goes on.
    async fn hand_over(
        &self,
        topics: Box<str>,
        errand: Errand,
        answer: Answer,
    ) -> Result<Handed, Problem> {
        let (head, body) = answer.response.into_parts();
        let most = self.asking.limits.event_bytes;
        let read = Limited::new(body, most.value).collect();
        let idle = self.asking.limits.upstream_idle;
        let first = match self.asking.hits.within(idle, read).await {
            Ok(Ok(first)) => first.to_bytes(),
            Ok(Err(error)) => {
                let (limit, key) = (most.value, most.limit.key());
                let detail = format!(
                    "what the app behind this edge says before the hub goes on cannot be read, or is over {limit} \
                     bytes long ({key}): {error}"
                );
                let problem = Problem::new(StatusCode::BAD_GATEWAY, detail);
                return Err(problem.named(Named::UpstreamFailed));
            }
            Err(limit) => return Err(self.problem(NoAnswer::Late(limit))),
        };
        let mut fields = head.headers;
        headers::from_app(&mut fields);
        for name in [
            header::CONTENT_LENGTH,
            header::CONTENT_TYPE,
            header::CACHE_CONTROL,
        ] {
            fields.remove(name);
        }
        Ok(Handed {
            topics,
            first,
            fields: errand.fields,
            head: fields,
        })
    }

    fn reply(&self, answer: Answer, is_head: bool, keepalive: Duration) -> Reply {
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
        let is_events = headers::is_event_stream(&fields);
        if is_events {
            not_held_back(&mut fields);
        }
        let body = if let Some(upgraded) = upgraded {
            self.asking.metrics.tunnels.inc();
            headers::set_upgrade(&mut fields, HeaderValue::from_static("websocket"));
            Body::Tunnel(tunnel(upgraded, busy))
        } else if is_head || body.is_end_stream() {
            Body::Full(Bytes::new())
        } else if is_events && self.may_be_added_to(&fields) {
            Body::Stream(self.kept_alive(body, busy, keepalive))
        } else {
            let idle = (!is_events).then_some(self.asking.limits.upstream_idle);
            Body::Stream(self.parts_of(body, busy, idle))
        };
        Reply {
            status: head.status,
            headers: fields,
            body,
            bitten: None,
        }
    }

    /// Whether comments may be added to an event stream: not to one that is compressed, or as long as it
    /// says.
    fn may_be_added_to(&self, fields: &HeaderMap) -> bool {
        if fields.contains_key(header::CONTENT_ENCODING) {
            let compressed = &self.asking.metrics.compressed;
            if compressed.inc() == 0 {
                tracing::warn!(
                    "an app compresses its event streams, though it was asked not to: they are passed on as \
                     they come, without keepalives or ids (said once)"
                );
            }
            return false;
        }
        !fields.contains_key(header::CONTENT_LENGTH)
    }

    /// The parts of an answer as they come. One that ends early is told apart from one that ends.
    fn parts_of(&self, body: Incoming, busy: Busy, idle: Option<Bound<Duration>>) -> BodyStream {
        let asking = self.asking.clone();
        let parts = stream::unfold(Some((body, busy)), move |state| {
            let asking = asking.clone();
            async move {
                let (mut body, busy) = state?;
                let frame = match idle {
                    None => body.frame().await,
                    Some(idle) => match asking.hits.within(idle, body.frame()).await {
                        Ok(frame) => frame,
                        Err(_) => {
                            asking.metrics.cut.inc();
                            let error: BodyError = "the app's answer paused for too long".into();
                            return Some((Err(error), None));
                        }
                    },
                };
                match frame? {
                    Ok(mut frame) => {
                        frame.trailers_mut().map(headers::of_trailers);
                        Some((Ok(frame), Some((body, busy))))
                    }
                    Err(error) => {
                        asking.metrics.cut.inc();
                        Some((Err(error.into()), None))
                    }
                }
            }
        });
        parts.boxed()
    }

    /// The parts of an event stream as they come, and comments between its events while it is quiet.
    fn kept_alive(&self, body: Incoming, busy: Busy, keepalive: Duration) -> BodyStream {
        let asking = self.asking.clone();
        let parts = self.parts_of(body, busy, None);
        let kept = stream::unfold((parts, Ends::default()), move |state| {
            let asking = asking.clone();
            async move {
                let (mut parts, mut ends) = state;
                loop {
                    match tokio::time::timeout(keepalive, parts.next()).await {
                        Err(_) if ends.is_between() => {
                            asking.metrics.keepalives.inc();
                            return Some((Ok(Frame::data(sse::comment())), (parts, ends)));
                        }
                        Err(_) => {}
                        Ok(part) => {
                            let part = part?;
                            if let Some(bytes) = part.as_ref().ok().and_then(Frame::data_ref) {
                                ends.look(bytes);
                            }
                            return Some((part, (parts, ends)));
                        }
                    }
                }
            }
        });
        kept.boxed()
    }

    fn problem(&self, no_answer: NoAnswer) -> Problem {
        let bad_gateway = |detail: &str| {
            let problem = Problem::new(StatusCode::BAD_GATEWAY, detail);
            problem.named(Named::UpstreamFailed)
        };
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
                Problem::new(StatusCode::GATEWAY_TIMEOUT, detail).named(Named::UpstreamSlow)
            }
            NoAnswer::Client(Failure::Paused) => {
                let pause = self.asking.limits.request_body;
                self.asking.hits.count(pause.limit);
                Problem::too_slow(pause)
            }
            NoAnswer::Client(Failure::Broken) => {
                Problem::new(StatusCode::BAD_REQUEST, "the body ended early")
            }
        }
    }
}

/// No proxy on the way is to gather what comes before it passes it on.
fn not_held_back(fields: &mut HeaderMap) {
    let name = HeaderName::from_static("x-accel-buffering");
    fields.entry(name).or_insert(HeaderValue::from_static("no"));
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
