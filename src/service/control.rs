//! The private listener: publishing, topics, health, metrics. No web page can reach it.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use serde_json::json;

use super::{
    Context, Filter, StreamInfo, audience,
    publish::{self, Permit},
};
use crate::{
    access::{InvalidMember, Member, Name, Token},
    clock,
    exchange::{Problem, Reply, Request, authority},
    hub::{Entry, TopicInfo},
    protocol::Protocol,
    topic::Topic,
};

/// The most topics on one page of `GET /topics`.
const MAX_PAGE: usize = 1000;
const DEFAULT_PAGE: usize = 100;

/// What stands before the control listener: web pages are kept out, and whoever lacks the token.
///
/// A page could otherwise post to it across sites, or reach it through a name that its own DNS
/// points at loopback.
#[derive(Debug)]
pub struct Gate {
    /// The names under which it is the listener's own.
    hosts: Vec<String>,
    token: Option<Token>,
}

impl Gate {
    /// The gate of a listener bound to `address`. Beyond loopback any name is its own, as the
    /// edge cannot know how it is reached; the token is what keeps strangers out there.
    #[must_use]
    pub fn new(address: SocketAddr, token: Option<Token>) -> Self {
        let port = address.port();
        let mut hosts = Vec::new();
        if address.ip().is_loopback() {
            hosts.extend([address.to_string(), format!("localhost:{port}")]);
            if port == 80 {
                hosts.extend([address.ip().to_string(), "localhost".into()]);
            }
        }
        Self { hosts, token }
    }

    fn check(&self, parts: &Parts, needs_token: bool) -> Result<(), Problem> {
        let host = authority(parts);
        if !self.hosts.is_empty() && !self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) {
            let own = self.hosts.join(" or ");
            let detail = format!("the control listener goes by {own} only");
            return Err(Problem::field("host", host, detail).forbidden());
        }
        let origin = parts.headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
        if origin
            .is_some_and(|origin| !origin.eq_ignore_ascii_case(format!("http://{host}").as_bytes()))
        {
            let detail = "web pages may not reach the control listener";
            return Err(Problem::field("origin", "", detail).forbidden());
        }
        let site = parts
            .headers
            .get("sec-fetch-site")
            .map(HeaderValue::as_bytes);
        if !matches!(site, None | Some(b"same-origin" | b"none")) {
            let detail = "web pages of other sites may not reach the control listener";
            return Err(Problem::field("sec-fetch-site", "", detail).forbidden());
        }
        match &self.token {
            Some(token) if needs_token => check_token(token, parts),
            _ => Ok(()),
        }
    }
}

fn check_token(token: &Token, parts: &Parts) -> Result<(), Problem> {
    let given = parts
        .headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    let given = given.and_then(|value| value.split_at_checked(7));
    match given {
        Some((scheme, given))
            if scheme.eq_ignore_ascii_case(b"bearer ")
                && std::str::from_utf8(given).is_ok_and(|given| token.is(given)) =>
        {
            Ok(())
        }
        _ => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "this takes `Authorization: Bearer` with the control.token of the configuration",
        )
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
    }
}

pub(super) async fn answer(
    context: &Arc<Context>,
    gate: &Gate,
    request: Request,
) -> Result<Reply, Problem> {
    let path = request.parts.uri.path().to_owned();
    let probe = matches!(path.as_str(), "/healthz" | "/readyz");
    gate.check(&request.parts, !probe)?;
    let method = request.parts.method.clone();
    match path.as_str() {
        "/healthz" => read(&method).map(|()| plain("ok\n")),
        "/readyz" => read(&method).and_then(|()| ready(context)),
        "/metrics" => read(&method).map(|()| metrics(context)),
        "/publish" => match method {
            Method::POST => publish::json(context, request, Permit::everything()).await,
            _ => Err(Problem::method(&method, "POST")),
        },
        "/broadcast" | "/send" if method != Method::POST => Err(Problem::method(&method, "POST")),
        "/broadcast" => audience::broadcast(context, request).await,
        "/send" => audience::send(context, request).await,
        "/streams" => read(&method).and_then(|()| streams(context, &request)),
        "/topics" => read(&method).and_then(|()| topics(context, &request)),
        _ => {
            let parts: Vec<&str> = path[1..].split('/').collect();
            match &parts[..] {
                ["topics", ..] => topic(context, &method, &path["/topics/".len()..], request).await,
                ["groups", group] => read(&method).and_then(|()| show_group(context, group)),
                ["groups", group, "members", member] => {
                    change_group(context, &method, group, member)
                }
                ["users", user, "disconnect"] => match method {
                    Method::POST => {
                        let user = name("user", user)?;
                        // First: whoever comes back is asked about anew.
                        context.access.forget(&user);
                        let ended = Entry::Disconnect(user.user_topic());
                        let ended = context.order.put(ended, clock::now()).await?;
                        Ok(Reply::json(&json!({ "streams": ended.receivers })))
                    }
                    _ => Err(Problem::method(&method, "POST")),
                },
                _ => Err(Problem::not_found(
                    "there is nothing at this path; see POST /publish, /broadcast, /send, and /topics, \
                     /groups, /streams, /metrics, /healthz, /readyz",
                )),
            }
        }
    }
}

fn name(field: &'static str, part: &str) -> Result<Name, Problem> {
    let text = publish::decode(part)?;
    Name::parse(&text).map_err(|error| Problem::field(field, &text, error.to_string()))
}

/// Direct and effective members of a group, as far as nesting says: who else is in one of the
/// groups comes with identity.
fn show_group(context: &Context, group: &str) -> Result<Reply, Problem> {
    let group = name("group", group)?;
    let groups = context.access.groups();
    let members: Vec<String> = groups.members(&group).map(Member::to_string).collect();
    let all = groups.expand(std::slice::from_ref(&group));
    let text = |names: &std::collections::BTreeSet<Name>| {
        let names = names.iter().filter(|name| **name != group);
        names
            .map(|name| name.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    let users: Vec<&str> = all.users.iter().map(Name::as_str).collect();
    Ok(Reply::json(&json!({
        "group": group.as_str(),
        "members": members,
        "effective": { "groups": text(&all.groups), "users": users },
    })))
}

fn change_group(
    context: &Context,
    method: &Method,
    group: &str,
    member: &str,
) -> Result<Reply, Problem> {
    let group = name("group", group)?;
    let text = publish::decode(member)?;
    let member =
        Member::parse(&text).map_err(|error| Problem::field("member", &text, error.to_string()))?;
    match *method {
        Method::PUT => match context.access.groups().add(&group, member) {
            Ok(added) => Ok(Reply::json(&json!({ "added": added }))),
            Err(error @ InvalidMember::Cycle(_)) => {
                Err(Problem::new(StatusCode::CONFLICT, error.to_string()))
            }
            Err(error) => Err(Problem::field("member", &text, error.to_string())),
        },
        Method::DELETE => {
            // The lock is released before the streams are looked at, which takes it again.
            let removed = context.access.groups().remove(&group, &member);
            match removed {
                true => {
                    // Streams that a rule let in by this group may not stay.
                    let may = |info: &StreamInfo| {
                        context
                            .access
                            .may_subscribe(&info.identity, info.topics.iter())
                    };
                    context.streams.end_where(|info| may(info).is_err());
                    Ok(Reply::json(&json!({ "removed": true })))
                }
                false => Err(Problem::not_found(format!(
                    "`{member}` is not a member of `{group}`"
                ))),
            }
        }
        _ => Err(Problem::method(method, "PUT, DELETE")),
    }
}

/// `GET /streams`: who is connected.
fn streams(context: &Context, request: &Request) -> Result<Reply, Problem> {
    let mut filter = Filter::default();
    let (mut after, mut limit) = (0, DEFAULT_PAGE);
    let query = request.parts.uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "user" => filter.user = Some(value.into_owned()),
            "group" => filter.group = Some(value.into_owned()),
            "topic" => filter.topic = Some(value.into_owned()),
            "protocol" => {
                let known = Protocol::ALL
                    .into_iter()
                    .find(|known| known.as_str() == value);
                let wrong = || Problem::field("protocol", &value, "protocol is h1, h2 or h3");
                filter.protocol = Some(known.ok_or_else(wrong)?);
            }
            "after" => {
                let wrong = |_| Problem::field("after", &value, "after is the id of a stream");
                after = value.parse().map_err(wrong)?;
            }
            "limit" => limit = page_limit(&value)?,
            other => {
                let detail = format!(
                    "`{other}` is not known here; user, group, topic, protocol, after and limit are"
                );
                return Err(Problem::field("query", other, detail));
            }
        }
    }
    let page = context.streams.list(after, limit, &filter);
    let next = (page.len() == limit)
        .then(|| page.last().map(|(id, _)| *id))
        .flatten();
    let streams: Vec<_> = page
        .iter()
        .map(|(id, info)| describe_stream(*id, info))
        .collect();
    Ok(Reply::json(&json!({ "streams": streams, "next": next })))
}

fn describe_stream(id: u64, info: &StreamInfo) -> serde_json::Value {
    let groups: Vec<&str> = info.identity.groups().iter().map(Name::as_str).collect();
    let topics: Vec<&str> = info.topics.iter().map(Topic::as_str).collect();
    json!({
        "id": id,
        "user": info.identity.user().map(Name::as_str),
        "groups": groups,
        "topics": topics,
        "protocol": info.protocol.as_str(),
        "address": info.remote.to_string(),
        "since": humantime::format_rfc3339_seconds(info.since).to_string(),
        "lag": info.lag(),
    })
}

fn page_limit(value: &str) -> Result<usize, Problem> {
    let limit = value.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n));
    limit.ok_or_else(|| {
        let detail = format!("limit must be 1 to {MAX_PAGE}");
        Problem::field("limit", value, detail).with_limit(MAX_PAGE)
    })
}

fn read(method: &Method) -> Result<(), Problem> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Problem::method(method, "GET, HEAD")),
    }
}

fn plain(text: &'static str) -> Reply {
    Reply::text(StatusCode::OK, "text/plain; charset=utf-8", text)
}

fn ready(context: &Context) -> Result<Reply, Problem> {
    match context.drain.is_draining() {
        true => Err(
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the edge is ending")
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("5")),
        ),
        false => Ok(plain("ready\n")),
    }
}

fn metrics(context: &Context) -> Reply {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Reply::text(
        StatusCode::OK,
        OPEN_METRICS,
        crate::metrics::render(&context.registry),
    )
}

async fn topic(
    context: &Context,
    method: &Method,
    name: &str,
    request: Request,
) -> Result<Reply, Problem> {
    let name = publish::decode(name)?;
    match *method {
        Method::POST => {
            return publish::to_topic(context, &name, request, &Permit::everything()).await;
        }
        Method::GET | Method::HEAD | Method::DELETE => {}
        _ => return Err(Problem::method(method, "GET, HEAD, POST, DELETE")),
    }
    let topic = Topic::parse(&name).map_err(|error| (error, name.as_str()))?;
    let found = match *method {
        Method::DELETE => {
            let deleted = context
                .order
                .put(Entry::Delete(topic), clock::now())
                .await?;
            deleted.removed.map(|events| json!({ "deleted": events }))
        }
        _ => context.hub.topic(&topic).map(|info| describe(&info)),
    };
    found.map(|value| Reply::json(&value)).ok_or_else(|| {
        Problem::not_found("there is no such topic: nothing in its history, and nobody reads it")
    })
}

fn topics(context: &Context, request: &Request) -> Result<Reply, Problem> {
    let mut after = None;
    let mut limit = DEFAULT_PAGE;
    let query = request.parts.uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "after" => after = Some(value),
            "limit" => limit = page_limit(&value)?,
            other => {
                let detail = format!("`{other}` is not known here; after and limit are");
                return Err(Problem::field("query", other, detail));
            }
        }
    }
    let page = context.hub.topics(after.as_deref(), limit);
    let next = (page.len() == limit)
        .then(|| page.last().map(|info| info.topic.as_str()))
        .flatten();
    let topics: Vec<_> = page.iter().map(describe).collect();
    Ok(Reply::json(&json!({ "topics": topics, "next": next })))
}

fn describe(info: &TopicInfo) -> serde_json::Value {
    json!({
        "topic": info.topic.as_str(),
        "subscribers": info.subscribers,
        "events": info.events,
        "bytes": info.bytes,
        "oldest": info.oldest,
        "newest": info.newest,
    })
}
