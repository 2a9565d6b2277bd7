//! `GET /events`: opening an event stream.

use std::{
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use serde_json::json;

use super::{
    Context,
    context::Visitor,
    event_stream::{Counted, EventStream, Extras, Replay},
    members::Moment,
    stream_request::{Poll, StreamRequest},
    streams::{Browser, CROWD, Crowd, Few, StreamInfo},
    tickets, visitor,
};
use crate::{
    access::{Denied, Identity, Name},
    backoff, clock,
    exchange::{Body, Named, Peer, Problem, Reply, Seat, is_chromium},
    hub::{Belonging, GapReason, NoRoom, Opening, Resume},
    limits::Limit,
    protocol::Protocol,
    proxy::Handed,
    sse::{Draft, EventId},
    topic::Topic,
};

/// How long a client that polls is kept waiting for an event: less than proxies wait.
const POLL: Duration = Duration::from_secs(25);
/// What old polyfills ask for before the first event: some browsers pass nothing on before 2 KiB.
const PADDING: usize = 2 << 10;

/// Opens an event stream of what the edge says of itself, for its operator.
pub(super) fn stats(context: &Arc<Context>, peer: &Peer) -> Reply {
    let identity = Identity::anonymous();
    let place = match peer.take_operators_place() {
        Ok(place) => place,
        Err(limit) => return no_room(context, who(peer, &identity), limit),
    };
    let plan = Plan {
        identity,
        is_audience: false,
        place: Some(place),
        first: Bytes::new(),
        browser: None,
        removals: None,
    };
    reply(context, peer, &StreamRequest::stats(), plan)
}

/// Why no stream is opened.
enum NotOpened {
    /// There is no room.
    Limit(Limit),
    /// Nothing more is to come.
    Finished,
}

/// What pages of other sites ask before they send what is not simple: what they may, and what there is.
pub(super) fn preflight(fields: HeaderMap, allow: &'static str) -> Reply {
    let mut reply = no_content();
    reply.headers.extend(fields);
    reply.with(header::ALLOW, allow)
}

fn no_content() -> Reply {
    let mut reply = Reply::new(StatusCode::NO_CONTENT, Body::Full(Bytes::new()));
    reply.headers.remove(header::CONTENT_LENGTH);
    reply
}

/// Answers a request for an event stream: with one, or with the refusal that fits.
pub(super) async fn answer(
    context: &Arc<Context>,
    parts: &Parts,
    peer: &Peer,
) -> Result<Reply, Problem> {
    let limits = &context.limits;
    let events = &context.events;
    let named = events.named(parts.uri.path());
    let asked = StreamRequest::parse(parts, limits.stream_topics, events.max_age, named)?;
    let plan = match Plan::settle(context, parts, peer, &asked).await? {
        Settled::Open(plan) => plan,
        Settled::Refused(refusal) => return Ok(refusal),
    };
    if parts.method == Method::HEAD {
        return Ok(head(&plan.identity));
    }
    Ok(reply(context, peer, &asked, plan))
}

/// Goes on with a request that its app has handed to the hub: it may read what the app names, from the
/// cursor on that was taken before the app was asked, unless it comes with a later one.
pub(super) fn handed(
    context: &Arc<Context>,
    peer: &Peer,
    handed: Handed,
    identity: Identity,
    cursor: EventId,
) -> Result<Reply, Problem> {
    let asked =
        StreamRequest::handed(&handed.topics, &handed.fields, cursor).map_err(|problem| {
            let detail = format!(
                "the app behind this edge names no topic: {}",
                problem.detail()
            );
            Problem::new(StatusCode::BAD_GATEWAY, detail).named(Named::UpstreamFailed)
        })?;
    if let Err(limit) = context.for_more() {
        return Ok(no_room(context, who(peer, &identity), limit));
    }
    let place = match peer.take_place(is_chromium(&handed.fields), &context.limits) {
        Ok(place) => place,
        Err(limit) => return Ok(no_room(context, who(peer, &identity), limit)),
    };
    let plan = Plan {
        identity,
        is_audience: true,
        place: Some(place),
        first: handed.first,
        browser: Browser::of(peer, &handed.fields),
        removals: None,
    };
    let mut reply = reply(context, peer, &asked, plan);
    for (name, value) in &handed.head {
        reply.headers.append(name, value.clone());
    }
    Ok(reply)
}

/// What is settled before a stream is opened.
struct Plan {
    identity: Identity,
    /// Whether it also gets what is for those of its standing, user and groups.
    is_audience: bool,
    /// Its place on its connection; HEAD takes none.
    place: Option<Seat>,
    /// Events that come before all others.
    first: Bytes,
    /// Whose connections over HTTP/1.1 may come to an end.
    browser: Option<Browser>,
    /// If rules have let it in: how often somebody had been taken out of a group by then.
    removals: Option<u64>,
}

/// What came of settling.
enum Settled {
    Open(Plan),
    /// Not now, or not for this one.
    Refused(Reply),
}

impl Plan {
    /// Settles who asks, whether they may, and whether there is room.
    async fn settle(
        context: &Context,
        parts: &Parts,
        peer: &Peer,
        asked: &StreamRequest<'_>,
    ) -> Result<Settled, Problem> {
        let access = &context.access;
        let identified = match &asked.ticket {
            Some(ticket) => tickets::redeem(context, ticket, asked),
            None => visitor::identify(context, parts, peer).await,
        };
        // Before the rules are asked, who may ask for groups.
        let removals = access.removals();
        let allowed = identified.and_then(|identity| {
            match access.may_subscribe(&identity, asked.topics.iter()) {
                Ok(()) => Ok(identity),
                // Who comes back to where nobody is anonymous was known once: the cookie has gone with its token,
                // and a 401 would close an `EventSource` for good.
                Err(Denied::Unauthorized(_)) if asked.comes_back() && !access.takes_anonymous() => {
                    Err(Denied::Expired)
                }
                Err(denied) => Err(denied),
            }
        });
        let identity = match allowed {
            Ok(identity) => identity,
            Err(denied) => return refuse(context, denied).map(Settled::Refused),
        };
        let mut plan = Self {
            identity,
            is_audience: true,
            place: None,
            first: Bytes::new(),
            browser: Browser::of(peer, &parts.headers),
            removals: Some(removals),
        };
        if parts.method == Method::HEAD {
            return Ok(Settled::Open(plan));
        }
        if context.drain.is_draining() {
            let refusal = Reply::gentle_refusal(context.drain_retry());
            return Ok(Settled::Refused(refusal));
        }
        if let Err(limit) = context.for_more() {
            let refusal = no_room(context, who(peer, &plan.identity), limit);
            return Ok(Settled::Refused(refusal));
        }
        match peer.take_place(is_chromium(&parts.headers), &context.limits) {
            Ok(place) => plan.place = Some(place),
            Err(limit) => {
                let refusal = no_room(context, who(peer, &plan.identity), limit);
                return Ok(Settled::Refused(refusal));
            }
        }
        Ok(Settled::Open(plan))
    }
}

/// The refusal for which a limit is to blame. Whoever comes back in vain is asked to wait longer each
/// time, but for what its own connection is in the way of.
fn no_room(context: &Context, who: Visitor, limit: Limit) -> Reply {
    let retry = if limit.is_of_a_connection() {
        context.long_retry()
    } else {
        context.refused_retry(who)
    };
    Reply::no_room(retry, limit)
}

/// Says once what it means that a browser has so many event streams over HTTP/1.1.
fn tell_of_crowds() {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            "a browser has {CROWD} event streams over HTTP/1.1: it opens six connections at most, and what it \
             asks for next waits for ever; have it come over HTTP/2 or HTTP/3, or use edge.js (docs/networks.md)"
        );
    });
}

fn who(peer: &Peer, identity: &Identity) -> Visitor {
    (peer.tenant.source(), identity.user().cloned())
}

/// The refusal that fits: for good where that is meant, gently where another attempt may succeed.
pub(super) fn refuse(context: &Context, denied: Denied) -> Result<Reply, Problem> {
    let (reason, why) = match denied {
        Denied::Unauthorized(_)
        | Denied::BadCredential(_)
        | Denied::Forbidden(_)
        | Denied::Topic(_)
        | Denied::Revoked => {
            return Err(denied.into());
        }
        Denied::Expired => ("expired", Named::TokenExpired),
        Denied::Ticket => ("ticket", Named::TicketSpent),
        Denied::Unavailable => ("unavailable", Named::IdentityUnavailable),
    };
    context.metrics.turned_away.count(why);
    let data = json!({ "reason": reason });
    let retry = Some(context.long_retry());
    let draft = Draft::new(Some("edge-auth"), &data.to_string(), retry);
    Ok(Reply::short_stream(draft.finish_without_id()))
}

/// The head of an event stream without one: it has no length.
fn head(identity: &Identity) -> Reply {
    let mut reply = event_stream(Body::Full(Bytes::new()), identity.user().is_some());
    reply.headers.remove(header::CONTENT_LENGTH);
    reply
}

/// A reply that is an event stream; what is for a visitor who is known is nobody else's.
fn event_stream(body: Body, is_known: bool) -> Reply {
    let reply = Reply::new(StatusCode::OK, body).into_event_stream();
    if is_known {
        reply.with(header::CACHE_CONTROL, "private, no-store, no-transform")
    } else {
        reply
    }
}

/// Opens the stream, and says what it is; or says why there is none.
fn reply(context: &Arc<Context>, peer: &Peer, asked: &StreamRequest<'_>, plan: Plan) -> Reply {
    let who = who(peer, &plan.identity);
    let is_known = plan.identity.user().is_some();
    let mut stream = match open(context, peer, asked, plan) {
        Ok(stream) => stream,
        Err(NotOpened::Limit(limit)) => return no_room(context, who, limit),
        // An `EventSource` that gets it does not come back (HTML 9.2.3).
        Err(NotOpened::Finished) => return no_content(),
    };
    if let Some(extras) = extras(asked, clock::now()) {
        stream = stream.with(extras);
    }
    let mut reply = event_stream(Body::Events(Box::new(stream)), is_known);
    if asked.poll.is_some() && peer.protocol == Protocol::Http1 {
        // Some old readers see the end of an answer only when its connection ends.
        reply = reply.with(header::CONNECTION, "close");
    }
    match asked.poll {
        Some(Poll::Text) => reply.with(header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        Some(Poll::EventStream) | None => reply,
    }
}

/// What few streams are asked for, if this one is.
fn extras(asked: &StreamRequest<'_>, now: Instant) -> Option<Extras> {
    let is_poll = asked.poll.is_some();
    let age = asked.max_age.filter(|_| !is_poll);
    let any = is_poll || age.is_some() || asked.heartbeat || asked.sync;
    any.then(|| Extras {
        poll_until: is_poll.then(|| now + POLL),
        heartbeat: asked.heartbeat,
        replay: asked.sync.then(Replay::default),
        age_end: age.map(|age| now + backoff::last_fifth(age, fastrand::f64())),
    })
}

/// Opens the stream: subscribes it, and has it counted and listed.
fn open(
    context: &Arc<Context>,
    peer: &Peer,
    asked: &StreamRequest<'_>,
    plan: Plan,
) -> Result<EventStream, NotOpened> {
    let Plan {
        identity,
        is_audience,
        place,
        first,
        browser,
        removals,
        ..
    } = plan;
    // Audience is topics: everyone also reads those of their standing, user and groups.
    let mut reads = asked.topics.clone();
    if is_audience {
        reads.extend(identity.reserved_topics());
    }
    let now = clock::now();
    let moment = visitor::moment(context, &identity);
    let belongs = belonging(context, &identity, moment, asked.resume());
    let (mut subscription, opening) = context
        .hub
        .subscribe_as(&reads, &belongs, asked.resume(), &peer.mailbox, now)
        .map_err(|too_many| match too_many {
            NoRoom::Connection => NotOpened::Limit(Limit::ConnectionTopics),
            NoRoom::Total => NotOpened::Limit(Limit::Topics),
            NoRoom::Topic => NotOpened::Limit(Limit::TopicEventStreams),
        })?;
    if asked.topics_told {
        subscription.tell_topics();
    }
    if subscription.is_finished() {
        return Err(NotOpened::Finished);
    }
    let retry = context.retry();
    let named = subscription.topics().filter(|topic| topic.is_named());
    let named: Box<[Topic]> = named.cloned().collect();
    let token_end = identity.expires();
    let told = told(context, &named);
    // What was said before has ids of its own: the edge's last one counts.
    let (protocol, by) = (peer.protocol, &identity);
    let said = first_bytes(context, asked, protocol, by, &named, &opening, retry);
    let first = [first, said].concat().into();
    let handle = subscription.handle();
    let visitor = who(peer, &identity);
    let info = StreamInfo::new(
        Arc::new(identity),
        named,
        peer.protocol,
        peer.remote,
        clock::wall(),
        (handle.mailbox().clone(), handle.key()),
        Few {
            browser,
            told,
            is_by_app: removals.is_none(),
        },
    );
    let of_user = context.limits.user_event_streams;
    let registered = context.streams.register(info, of_user, moment.place);
    if let Ok((_, Crowd::Begins)) = registered {
        context.metrics.http1_crowds.inc();
        tell_of_crowds();
    }
    let counted = Counted {
        _open: context.metrics.event_streams.guard(peer.protocol),
        _place: place,
        registration: registered.map_err(NotOpened::Limit)?.0,
    };
    context.let_in(&visitor);
    // Once it is registered: whoever ends logins and memberships looks at those that are.
    counted.registration.end_if_over(&context.access, removals);
    Ok(EventStream::new(
        subscription,
        first,
        retry,
        token_end,
        now,
        context.clone(),
        counted,
    ))
}

/// Since when somebody belongs to the audiences that they are given something of.
fn belonging(
    context: &Context,
    identity: &Identity,
    moment: Moment,
    resume: Resume<'_>,
) -> Vec<Belonging> {
    let belongs = context.streams.meet(identity, moment);
    let Resume::Last(_) = resume else {
        return belongs;
    };
    // Whoever asks for the last events asks for those of the topics that are named.
    let all = visitor::belonging(identity, &belongs).into_iter();
    let all = all.map(|(topic, since)| Belonging {
        topic,
        since,
        is_from_now: true,
    });
    all.collect()
}

/// Those of these topics of which it is told who reads them.
fn told(context: &Context, named: &[Topic]) -> Box<[Topic]> {
    let access = &context.access;
    if !access.tells_any_presence() {
        return Box::default();
    }
    let told = named.iter().filter(|topic| access.tells_presence(topic));
    told.cloned().collect()
}

fn first_bytes(
    context: &Context,
    asked: &StreamRequest<'_>,
    protocol: Protocol,
    identity: &Identity,
    topics: &[Topic],
    opening: &Opening,
    retry: Duration,
) -> Bytes {
    let mut first = Vec::new();
    if asked.padding {
        first.push(b':');
        first.resize(1 + PADDING, b' ');
        first.push(b'\n');
    }
    if asked.quiet {
        first.extend_from_slice(crate::sse::retry(retry).as_bytes());
        first.extend_from_slice(&partial(context, opening));
        return first.into();
    }
    let topics: Vec<_> = topics.iter().map(Topic::as_str).collect();
    let keepalive = context.events.keepalive;
    let data = json!({
        "topics": topics,
        "replay": opening.behind,
        // In seconds.
        "keepalive": if keepalive.subsec_nanos() == 0 {
            json!(keepalive.as_secs())
        } else {
            json!(keepalive.as_secs_f64())
        },
        // Over HTTP/1.1 a browser has six connections, and the seventh stream waits for ever.
        "protocol": protocol.alpn(),
        // A page sees whether it is known, and as whom.
        "user": identity.user().map(Name::as_str),
        "authenticated": identity.user().is_some(),
        "now": humantime::format_rfc3339_millis(clock::wall()).to_string(),
    });
    let draft = Draft::new(Some("edge-open"), &data.to_string(), Some(retry));
    let open = match opening.id {
        Some(id) => draft.finish(id),
        None => draft.finish_without_id(),
    };
    let partial = partial(context, opening);
    if first.is_empty() && partial.is_empty() {
        return open;
    }
    first.extend_from_slice(&open);
    first.extend_from_slice(&partial);
    first.into()
}

/// What a reader is told who did not belong to an audience when something came for it; mostly nothing.
fn partial(context: &Context, opening: &Opening) -> Bytes {
    if !opening.is_partial {
        return Bytes::new();
    }
    let reason = GapReason::Audience;
    context.hub.metrics().gap(reason);
    let data = json!({ "reason": reason.as_str(), "missed": null, "topics": [] });
    Draft::new(Some("edge-gap"), &data.to_string(), None).finish_without_id()
}
