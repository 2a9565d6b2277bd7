//! The demo page, and the endpoint that lets its visitors publish while it is there.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Context, publish};
use crate::{
    exchange::{Problem, Reply, Request, authority},
    limits::Bound,
};

/// Where the demo page publishes.
pub(super) const PUBLISH: &str = "/demo/publish";

const PAGE: &str = include_str!("demo.html");
/// All topics of the demo are below this.
const TOPICS: &str = "demo/";
/// The most topics one visitor publishes to at once: as many as the page opens.
const MAX_TOPICS: usize = 900;
const MAX_BODY: usize = 64 << 10;

/// The page allows itself its own inline parts and nothing from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn page(context: &Context, request: &Request) -> Result<Reply, Problem> {
    let method = &request.parts.method;
    if method != Method::GET && method != Method::HEAD {
        return Err(Problem::method(method, "GET, HEAD"));
    }
    // The page is written for the default path.
    let page = match context.events.path.as_str() {
        "/events" => PAGE.into(),
        path => PAGE.replace("/events?topic=", &format!("{path}?topic=")),
    };
    Ok(
        Reply::text(StatusCode::OK, "text/html; charset=utf-8", page)
            .with(header::CACHE_CONTROL, "no-cache")
            .with(header::CONTENT_SECURITY_POLICY, POLICY)
            .with(HeaderName::from_static("x-content-type-options"), "nosniff"),
    )
}

pub(super) async fn publish(context: &Arc<Context>, request: Request) -> Result<Reply, Problem> {
    let parts = &request.parts;
    if parts.method != Method::POST {
        return Err(Problem::method(&parts.method, "POST"));
    }
    // Only the page itself publishes here: no other site through its visitors.
    let own = format!("https://{}", authority(parts));
    let origin = parts.headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    if origin.is_none_or(|origin| !origin.eq_ignore_ascii_case(own.as_bytes())) {
        let detail = "only the demo page may publish here; use the control listener";
        return Err(Problem::field("origin", "", detail).forbidden());
    }
    let bound = Bound {
        value: MAX_BODY,
        ..context.limits.event_bytes
    };
    let body = publish::collect(context, request.body, "body", bound).await?;
    let event = publish::Event::from_json(&body, context, MAX_TOPICS)?;
    if let Some(topic) = event
        .topics()
        .iter()
        .find(|topic| !topic.as_str().starts_with(TOPICS))
    {
        let detail = format!("visitors of the demo publish to topics below {TOPICS} only");
        return Err(Problem::field("topic", topic.as_str(), detail).forbidden());
    }
    Ok(Reply::json(&event.plain().publish(context).await?))
}
