//! From a request to a reply, the same for every protocol. It does no socket work and does not
//! fail: failures become replies.
//!
//! A request's way: `routes` says what it is for, `visitor` who asks, `body` collects what it brings along, and a
//! handler makes the reply: `subscribe` opens event streams, `publish` takes events, `history` and `readers`
//! are for who wants no stream, `tickets` for pages of other sites, `control` is the operator's, `pages` are for
//! people, and `forward` has an app answer. `streams` are those that are open; `members` and `presence` are whose
//! they are, and since when; `turned_away` counts who got none.
//!
//! In a cluster `shared` is what all edges know in common; `gather` puts lists together of what each knows alone, and
//! `answers` what others ask.

mod answers;
mod body;
mod context;
mod control;
mod event_stream;
mod forward;
mod gather;
mod history;
mod members;
mod metrics;
mod nesting;
mod pages;
mod presence;
mod publish;
mod query;
mod readers;
mod routes;
mod shared;
mod stats;
mod stream_request;
mod streams;
mod subscribe;
mod tickets;
mod turned_away;
mod visitor;

use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{HeaderValue, Method, StatusCode, header, request::Parts, uri::PathAndQuery};

use crate::{
    clock,
    drain::Watch,
    exchange::{
        Body, BodyStream, HeaderBounds, Named, Problem, Reply, Request, authority, validate,
    },
    proxy,
};
use publish::Permit;
use routes::{NoRoute, Offer, Route};
use streams::{Ended, StreamInfo};

pub(crate) use answers::answer as answer_edges;
pub(crate) use context::{Context, EventSettings};
pub(crate) use control::Gate;
pub(crate) use metrics::ServiceMetrics;
pub(crate) use nesting::Nesting;
pub(crate) use readers::tell as tell_presence;
pub(crate) use routes::public_paths;
pub(crate) use shared::{follow as follow_facts, take as take_facts};
pub(crate) use stats::tell as tell_stats;
pub(crate) use stream_request::{NamedStream, SHORTEST_AGE};
pub(crate) use streams::Streams;

/// A panic is a bug, and one request's: its connection and the others on it go on.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, ()> {
    let caught = AssertUnwindSafe(future).catch_unwind().await;
    caught.map_err(|_| tracing::error!("a request's handler panicked, which is a bug"))
}

/// The same for a body that is made as it is sent: it is cut short.
fn caught_parts(context: Arc<Context>, parts: BodyStream) -> BodyStream {
    let caught = AssertUnwindSafe(parts).catch_unwind();
    Box::pin(caught.map(move |part| {
        part.unwrap_or_else(|_| {
            tracing::error!("a reply's body panicked, which is a bug");
            context.metrics.panics.inc();
            Err("its maker panicked".into())
        })
    }))
}

/// One of the faces of the edge.
#[derive(Clone, Debug)]
pub(crate) enum Service {
    /// What browsers see.
    Public(Arc<Context>),
    /// What browsers see that come without TLS: that they are to come with it, to this port.
    Redirect(Arc<Context>, u16),
    /// What publishers and operators see, to its own end, which is later than the public one's.
    Control(Arc<Context>, Arc<Gate>, Watch),
}

impl Service {
    /// Answers `request`.
    pub(crate) async fn call(&self, mut request: Request) -> Reply {
        request.join_cookies();
        let context = self.context();
        let _in_progress = match self {
            Self::Public(context) => Some(context.metrics.requests.guard(request.peer.protocol)),
            Self::Redirect(..) | Self::Control(..) => None,
        };
        let via = request.peer.remote.ip();
        if let Some(client) = context.proxy.client(via, &request.parts.headers) {
            request.peer.remote.set_ip(client);
            request.peer.by_proxy = true;
            request.peer.tenant = context.places.tenant(client);
        }
        let head = request.parts.method == Method::HEAD;
        let alt_svc = request.peer.alt_svc.clone();
        let origins = context.access.origins();
        let own = (!origins.is_empty()).then(|| self.own(&request)).flatten();
        let cors = own.map(|own| match own {
            Own::Reading => origins.reply_fields(&request.parts.headers),
            Own::Publishing => origins.listed_fields(&request.parts.headers),
        });
        let answered = caught(self.answer(request, via))
            .await
            .unwrap_or_else(|()| {
                context.metrics.panics.inc();
                Err(Problem::internal())
            });
        let mut reply = answered.unwrap_or_else(|problem| {
            // What the client sent stays out of the log: it may be a secret in the wrong place.
            let (status, field) = (problem.status(), problem.of_field().unwrap_or("none"));
            tracing::debug!(field, "refused: {status}");
            if let Some(why) = problem.is_of_sender() {
                context.metrics.turned_away.count(why);
            }
            problem.into()
        });
        if let Body::Stream(parts) = reply.body {
            reply.body = Body::Stream(caught_parts(context.clone(), parts));
        }
        if let Some(limit) = reply.bitten {
            context.hits.count(limit);
        }
        // Pages of other sites must see failures too.
        reply.headers.extend(cors.into_iter().flatten());
        if let Some(alt_svc) = alt_svc {
            reply.headers.insert(header::ALT_SVC, alt_svc);
        }
        if let (Self::Public(_), Some(hsts)) = (self, &context.hsts) {
            let field = reply.headers.entry(header::STRICT_TRANSPORT_SECURITY);
            field.or_insert_with(|| hsts.clone());
        }
        if head {
            reply.body = Body::Full(Bytes::new());
        }
        reply
    }

    /// Answers a request that comes `via` this address.
    async fn answer(&self, request: Request, via: IpAddr) -> Result<Reply, Problem> {
        let context = self.context();
        let bounds = HeaderBounds {
            bytes: context.limits.header_bytes.value,
            count: context.limits.header_count.value,
        };
        validate(&request.parts, bounds)?;
        let is_public = !matches!(self, Self::Control(..));
        if is_public && !request.peer.tenant.is_exempt() && !request.peer.by_proxy {
            let rate = context.limits.request_rate;
            if request.peer.occupant.ask(rate, clock::now()).is_err() {
                return self.too_often(&request);
            }
        }
        if let Self::Redirect(_, port) = self {
            return Ok(redirect(&request.parts, *port));
        }
        if let Some(route) = self.forwards(&request.parts) {
            // Boxed: other requests need not be as large.
            return Box::pin(forward::answer(context, route, request, via)).await;
        }
        let Request { parts, body, peer } = request;
        let path = parts.uri.path();
        let found = routes::find(self.offer(), &parts.method, path);
        if let Ok((route, _)) = &found
            && is_public
        {
            check_origin(context, route, &parts)?;
        }
        if let Self::Control(_, gate, _) = self {
            gate.check(&parts)?;
        }
        let (route, expect) = found.map_err(|none| self.no_route(&parts.method, none))?;
        match route {
            Route::EventStream => subscribe::answer(context, &parts, &peer).await,
            Route::Stats => Ok(subscribe::stats(context, &peer)),
            Route::Preflight => {
                let fields = context.access.origins().preflight_fields(&parts.headers);
                Ok(subscribe::preflight(fields, "GET, HEAD, OPTIONS"))
            }
            Route::PublishPreflight => {
                let origins = context.access.origins();
                let fields = origins.publish_preflight_fields(&parts.headers);
                Ok(subscribe::preflight(fields, "POST, OPTIONS"))
            }
            Route::ReadTopic(topic) if is_public => {
                history::read_as(context, topic, &parts, &peer).await
            }
            Route::ReadTopic(topic) => history::read(context, topic, &parts),
            Route::Retract(of, id) => history::retract(context, of, id).await,
            Route::Presence if is_public => readers::list_as(context, &parts, &peer).await,
            Route::Presence => readers::list(context, &parts).await,
            Route::NewTicket if is_public => tickets::of_bearer(context, &parts).await,
            Route::NewTicket => {
                let body = body::collect(context, expect, body).await?;
                tickets::of_operator(context, &body)
            }
            Route::ClientScript => Ok(pages::client_script(context)),
            Route::DemoPage => Ok(pages::demo(context)),
            Route::DemoPublish => {
                pages::check_own(&parts)?;
                let body = body::collect(context, expect, body).await?;
                publish::from_demo(context, &body).await
            }
            Route::Publish
            | Route::PublishTo(_)
            | Route::CloseTopic(_)
            | Route::Broadcast
            | Route::Send => {
                let permit = match self {
                    Self::Control(..) => Permit::everything(),
                    _ => Permit::of_publisher(context, &parts).await?,
                };
                publish::answer(context, route, expect, permit, self.drain(), &parts, body).await
            }
            route => control::answer(context, route, &parts).await,
        }
    }

    /// The answer to one that asks too often: gentle for an event stream.
    fn too_often(&self, request: &Request) -> Result<Reply, Problem> {
        let context = self.context();
        let rate = context.limits.request_rate;
        let forwarded = self.forwards(&request.parts);
        let is_gentle = forwarded.is_some_and(|route| route.is_gentle_to(request));
        let is_stream = context.events.are_at(request.parts.uri.path());
        if is_gentle || (is_stream && self.own(request) == Some(Own::Reading)) {
            return Ok(Reply::no_room(context.long_retry(), rate.limit));
        }
        Err(Problem::too_often(rate))
    }

    fn offer(&self) -> Offer<'_> {
        match self {
            Self::Public(context) => Offer::Public {
                events: &context.events,
                demo: context.demo,
                publishers: context.access.publishes(),
                prefix: &context.prefix,
                own: &context.own,
            },
            Self::Redirect(context, _) => Offer::Public {
                events: &context.events,
                demo: false,
                publishers: false,
                prefix: "",
                own: "",
            },
            Self::Control(..) => Offer::Control,
        }
    }

    /// The route of a request that goes on to an app: what is the hub's does not, unless the route is for
    /// this one path.
    fn forwards(&self, parts: &Parts) -> Option<&Arc<proxy::Route>> {
        let Self::Public(context) = self else {
            return None;
        };
        let path = parts.uri.path();
        let route = context.proxy.find(authority(parts), path)?;
        let found = routes::find(self.offer(), &parts.method, path);
        let is_hubs = found != Err(NoRoute::Path) || context.is_below_prefix(path);
        (route.is_exact() || !is_hubs).then_some(route)
    }

    /// What a request is for that pages of other sites may send too.
    fn own(&self, request: &Request) -> Option<Own> {
        if !matches!(self, Self::Public(_)) {
            return None;
        }
        // What pages may send from elsewhere, they ask for first.
        let path = request.parts.uri.path();
        let own = match routes::find(self.offer(), &Method::OPTIONS, path) {
            Ok((Route::Preflight, _)) => Own::Reading,
            Ok((Route::PublishPreflight, _)) => Own::Publishing,
            _ => return None,
        };
        self.forwards(&request.parts).is_none().then_some(own)
    }

    fn no_route(&self, method: &Method, none: NoRoute) -> Problem {
        match (none, self.offer()) {
            (NoRoute::Method(allow), _) => Problem::method(method, &allow),
            (NoRoute::Path, Offer::Control) => Problem::not_found(
                "there is nothing at this path; see POST /publish, /broadcast, /send, and /topics, \
                 /users, /groups, /streams, /presence, /stats, /cursor, /cluster, /metrics, /healthz, /readyz",
            ),
            (NoRoute::Path, Offer::Public { events, .. }) => {
                Problem::not_found(if events.enabled {
                    let path = &events.path;
                    format!("there is nothing at this path; event streams are at {path}")
                } else {
                    "there is nothing at this path".into()
                })
            }
        }
    }

    /// What its requests share.
    #[must_use]
    pub(crate) fn context(&self) -> &Arc<Context> {
        match self {
            Self::Public(context) | Self::Redirect(context, _) | Self::Control(context, ..) => {
                context
            }
        }
    }

    /// Whether it is ending.
    fn drain(&self) -> &Watch {
        match self {
            Self::Public(context) | Self::Redirect(context, _) => &context.drain,
            Self::Control(_, _, drain) => drain,
        }
    }
}

/// Has the app asked again about those whose streams are open, which end when it does not know them any more.
pub(crate) async fn keep_asking(context: Arc<Context>) {
    let ended = || {
        let is_over = |info: &StreamInfo| info.identity.is_over();
        context.streams.end_where(Ended::Login, is_over);
    };
    context.access.keep_asking(ended).await;
}

/// What pages of other sites may do where they are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Reading,
    Publishing,
}

/// Whether a request that reads or publishes is of no page, or of one that has some business here: asked before
/// anyone else is.
fn check_origin(context: &Context, route: &Route<'_>, parts: &Parts) -> Result<(), Problem> {
    let origins = context.access.origins();
    let is_its_own = matches!(
        route,
        Route::EventStream
            | Route::ReadTopic(_)
            | Route::Presence
            | Route::NewTicket
            | Route::Publish
            | Route::PublishTo(_)
            | Route::CloseTopic(_)
            | Route::Broadcast
            | Route::Send
    );
    if is_its_own && origins.is_foreign(&parts.headers, authority(parts)) {
        let detail =
            "pages of other sites may not come here unless their origin is in access.origins";
        let problem = Problem::field("origin", "", detail).forbidden();
        return Err(problem.named(Named::OriginForeign));
    }
    Ok(())
}

/// Sends whoever comes without TLS to where it is. The method stays what it is (RFC 9110 15.4.9).
fn redirect(parts: &Parts, port: u16) -> Reply {
    let host = authority(parts);
    let host = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let port = match port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let location = format!("https://{host}{port}{target}");
    let mut reply = Reply::text(
        StatusCode::PERMANENT_REDIRECT,
        "text/plain",
        format!("this is for HTTPS: {location}\n"),
    );
    let location = HeaderValue::try_from(location);
    reply
        .headers
        .extend(location.map(|location| (header::LOCATION, location)));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_caught() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        assert_eq!(caught(async { panic!("a bug") }).await, Err::<u8, _>(()));
    }
}
