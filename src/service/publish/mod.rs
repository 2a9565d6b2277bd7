//! Taking events from publishers: one as a plain body, one as JSON, or many as lines of JSON; to
//! topics, or to people.

mod audience;
mod event;
mod idempotency;
mod line_buffer;
mod lines;
mod one_or_many;
mod permit;
mod published;

use std::sync::Arc;

use http::{StatusCode, header, request::Parts};
use serde_json::json;

use super::{
    Context, body,
    routes::{self, Expect, Route},
};
use crate::{
    clock,
    drain::Watch,
    exchange::{Problem, Reply, RequestBody},
    hub::Entry,
    limits::DEMO_TOPICS_AT_ONCE,
};
use event::{Event, Head};
use published::Published;

pub(super) use permit::Permit;

/// All topics of the demo are below this.
const DEMO_TOPICS: &str = "demo/";

/// Answers a publisher. What its permit says of the head of the request is checked before the body
/// is read.
pub(super) async fn answer(
    context: &Arc<Context>,
    route: Route<'_>,
    expect: Expect,
    permit: Permit,
    drain: &Watch,
    parts: &Parts,
    body: Option<RequestBody>,
) -> Result<Reply, Problem> {
    check_coding(parts)?;
    let published = match route {
        Route::PublishTo(topic) => {
            let topic = routes::decode(topic)?;
            let head = Head::parse(&topic, parts.uri.query().unwrap_or_default())?;
            permit.check(context, head.topics())?;
            let data = body::collect(context, expect, body).await?;
            let key = idempotency::key(parts, &data)?;
            Published::of(context, head.with(data, context)?.with_key(key)).await?
        }
        Route::CloseTopic(topic) => {
            let topic = routes::decode(topic)?;
            let head = Head::parse(&topic, parts.uri.query().unwrap_or_default())?;
            permit.check(context, head.topics())?;
            let closed = head.topics().first().cloned().map(Entry::Close);
            let data = body::collect(context, expect, body).await?;
            let last = if data.is_empty() {
                None
            } else {
                let key = idempotency::key(parts, &data)?;
                Some(Published::of(context, head.with(data, context)?.with_key(key)).await?)
            };
            let closed = closed.expect("the path names a topic");
            let streams = context.order.put(closed, clock::now()).await?.receivers;
            return Ok(Reply::json(&json!({ "streams": streams, "last": last })));
        }
        Route::Broadcast => {
            permit.check_people(context)?;
            let json = body::collect(context, expect, body).await?;
            let event = Event::from_broadcast(&json, context)?;
            let event = event.with_key(idempotency::key(parts, &json)?);
            Published::to_people(context, event).await?
        }
        Route::Send => {
            permit.check_people(context)?;
            let json = body::collect(context, expect, body).await?;
            let event = Event::from_send(&json, context)?;
            let event = event.with_key(idempotency::key(parts, &json)?);
            Published::to_people(context, event).await?
        }
        Route::Publish if is_lines(parts)? => {
            idempotency::refuse(&parts.headers)?;
            return Ok(lines::lines(context.clone(), permit, body, drain.clone()));
        }
        _ => {
            let json = body::collect(context, expect, body).await?;
            let event = Event::from_json(&json, context, context.limits.stream_topics)?;
            permit.check(context, event.topics())?;
            let event = event.with_key(idempotency::key(parts, &json)?);
            Published::of(context, event).await?
        }
    };
    Ok(Reply::json(&published))
}

/// Answers a visitor of the demo page, who publishes to its topics and leaves other visitors in
/// peace.
pub(super) async fn from_demo(context: &Context, json: &[u8]) -> Result<Reply, Problem> {
    let event = Event::from_json(json, context, DEMO_TOPICS_AT_ONCE)?;
    let foreign = |topic: &&crate::topic::Topic| !topic.as_str().starts_with(DEMO_TOPICS);
    if let Some(topic) = event.topics().iter().find(foreign) {
        let detail = format!("visitors of the demo publish to topics below {DEMO_TOPICS} only");
        return Err(Problem::field("topic", topic.as_str(), detail).forbidden());
    }
    Ok(Reply::json(&Published::of(context, event.plain()).await?))
}

/// A body that is coded would be published as it is.
fn check_coding(parts: &Parts) -> Result<(), Problem> {
    match parts.headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Encoding is not taken here; send the body as it is",
        )),
        _ => Ok(()),
    }
}

/// Whether the body of `POST /publish` is lines of JSON, rather than one event.
fn is_lines(parts: &Parts) -> Result<bool, Problem> {
    match content_type(parts).as_str() {
        "application/x-ndjson" => Ok(true),
        // curl says the last of these of whatever it is given.
        "application/json" | "" | "application/x-www-form-urlencoded" => Ok(false),
        other => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "`{}` is not taken here; send application/json or application/x-ndjson",
                other.chars().take(80).collect::<String>()
            ),
        )),
    }
}

fn content_type(parts: &Parts) -> String {
    let value = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}
