//! Pages for people.

use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use serde_json::json;

use super::Context;
use crate::exchange::{Named, Problem, Reply, authority};

const DEMO: &str = include_str!("demo.html");
const CLIENT: &str = include_str!("../../../client/edge.js");

/// The page allows itself its own inline parts and nothing from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self' 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The demo page.
pub(super) fn demo(context: &Context) -> Reply {
    // The page is written for the default paths.
    let (events, script) = (&context.events.path, &context.own);
    let page = DEMO
        .replace("/events?topic=", &format!("{events}?topic="))
        .replace("/.seventh/edge.js", &format!("{script}/edge.js"));
    Reply::text(StatusCode::OK, "text/html; charset=utf-8", page)
        .with(header::CACHE_CONTROL, "no-cache")
        .with(header::CONTENT_SECURITY_POLICY, POLICY)
        .with(HeaderName::from_static("x-content-type-options"), "nosniff")
}

/// What pages import that share a stream among their tabs.
pub(super) fn client_script(context: &Context) -> Reply {
    // It is written for the default path.
    let path = &context.events.path;
    let script = CLIENT.replace(
        "const EVENTS = '/events';",
        &format!("const EVENTS = {};", json!(path)),
    );
    // Pages of other sites may read it: it says nothing about anyone.
    Reply::text(StatusCode::OK, "text/javascript; charset=utf-8", script)
        .with(header::CACHE_CONTROL, "no-cache")
        .with(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")
        .with(HeaderName::from_static("x-content-type-options"), "nosniff")
}

/// Whether a request comes from a page of the edge's own: no other site publishes through its
/// visitors.
pub(super) fn check_own(parts: &Parts) -> Result<(), Problem> {
    let own = format!("https://{}", authority(parts));
    let origin = parts.headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    if origin.is_some_and(|origin| origin.eq_ignore_ascii_case(own.as_bytes())) {
        return Ok(());
    }
    let detail = "only the demo page may publish here; use the control listener";
    let problem = Problem::field("origin", "", detail).forbidden();
    Err(problem.named(Named::OriginForeign))
}
