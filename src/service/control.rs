//! The private listener: publishing, topics, health, metrics. No web page can reach it.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use percent_encoding::percent_decode_str;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use super::{Problem, Reply, Request, Shared, publish, validate};
use crate::{access::Token, hub::TopicInfo, topic::Topic};

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
        let host = validate::authority(parts);
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
                && bool::from(given.ct_eq(token.expose().as_bytes())) =>
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
    shared: &Arc<Shared>,
    gate: &Gate,
    request: Request,
) -> Result<Reply, Problem> {
    let path = request.parts.uri.path().to_owned();
    let probe = matches!(path.as_str(), "/healthz" | "/readyz");
    gate.check(&request.parts, !probe)?;
    let method = request.parts.method.clone();
    match path.as_str() {
        "/healthz" => read(&method).map(|()| plain("ok\n")),
        "/readyz" => read(&method).and_then(|()| ready(shared)),
        "/metrics" => read(&method).map(|()| metrics(shared)),
        "/publish" => match method {
            Method::POST => publish::json(shared, request).await,
            _ => Err(Problem::method(&method, "POST")),
        },
        "/topics" => read(&method).and_then(|()| topics(shared, &request)),
        _ => match path.strip_prefix("/topics/") {
            Some(name) => topic(shared, &method, name, request).await,
            None => Err(Problem::not_found(
                "there is nothing at this path; see POST /publish, /topics, /metrics, /healthz and /readyz",
            )),
        },
    }
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

fn ready(shared: &Shared) -> Result<Reply, Problem> {
    match shared.drain.is_draining() {
        true => Err(
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the edge is ending")
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("5")),
        ),
        false => Ok(plain("ready\n")),
    }
}

fn metrics(shared: &Shared) -> Reply {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Reply::text(StatusCode::OK, OPEN_METRICS, shared.metrics.render())
}

async fn topic(
    shared: &Shared,
    method: &Method,
    name: &str,
    request: Request,
) -> Result<Reply, Problem> {
    let name = percent_decode_str(name)
        .decode_utf8()
        .map_err(|_| Problem::field("topic", name, "topic is not UTF-8, percent-encoded"))?;
    match *method {
        Method::POST => return publish::to_topic(shared, &name, request).await,
        Method::GET | Method::HEAD | Method::DELETE => {}
        _ => return Err(Problem::method(method, "GET, HEAD, POST, DELETE")),
    }
    let topic = Topic::parse(&name).map_err(|error| (error, &*name))?;
    let found = match *method {
        Method::DELETE => shared
            .hub
            .delete(&topic)
            .map(|events| json!({ "deleted": events })),
        _ => shared.hub.topic(&topic).map(|info| describe(&info)),
    };
    found.map(|value| Reply::json(&value)).ok_or_else(|| {
        Problem::not_found("there is no such topic: nothing in its history, and nobody reads it")
    })
}

fn topics(shared: &Shared, request: &Request) -> Result<Reply, Problem> {
    let mut after = None;
    let mut limit = DEFAULT_PAGE;
    let query = request.parts.uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "after" => after = Some(value),
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=MAX_PAGE).contains(n))
                    .ok_or_else(|| {
                        let detail = format!("limit must be 1 to {MAX_PAGE}");
                        Problem::field("limit", &value, detail).with_limit(MAX_PAGE)
                    })?;
            }
            other => {
                let detail = format!("`{other}` is not known here; after and limit are");
                return Err(Problem::field("query", other, detail));
            }
        }
    }
    let page = shared.hub.topics(after.as_deref(), limit);
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
