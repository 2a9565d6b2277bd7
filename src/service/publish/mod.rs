//! Taking events from publishers: one as a plain body, one or some as JSON, or many as lines of JSON; to
//! topics, or to people.

mod array;
mod audience;
mod event;
mod idempotency;
mod kind;
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
    shared,
};
use crate::{
    clock,
    drain::Watch,
    exchange::{Named, Problem, Reply, RequestBody},
    hub::Entry,
    limits::DEMO_TOPICS_AT_ONCE,
};
use event::{Event, Head};
use kind::Kind;
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
            permit.check(context, head.event())?;
            permit.check_rate(context)?;
            let data = body::collect(context, expect, body).await?;
            let key = idempotency::key(parts, &data)?;
            let asks_all = head.asks_all();
            let event = head.with(data, context)?.with_key(key);
            Published::told(context, &permit, event, false, asks_all).await?
        }
        Route::CloseTopic(topic) => {
            let topic = routes::decode(topic)?;
            let head = Head::parse(&topic, parts.uri.query().unwrap_or_default())?;
            permit.check(context, head.event())?;
            permit.check_rate(context)?;
            let closed = head.event().topics().first().cloned().map(Entry::Close);
            let data = body::collect(context, expect, body).await?;
            let last = if data.is_empty() {
                None
            } else {
                let key = idempotency::key(parts, &data)?;
                let event = head.with(data, context)?.with_key(key);
                Some(Published::of(context, &permit, event, false).await?)
            };
            let closed = closed.expect("the path names a topic");
            let receipt = context.order.put(closed, clock::now()).await?;
            let mut said = shared::streams(&context.order.reached(&receipt).await);
            said["last"] = json!(last);
            return Ok(Reply::json(&said));
        }
        route => {
            let kind = match route {
                Route::Broadcast => Kind::Everyone,
                Route::Send => Kind::People,
                _ => Kind::Topics,
            };
            return json(context, kind, expect, permit, drain, parts, body).await;
        }
    };
    Ok(Reply::json(&published))
}

/// Answers whoever publishes in JSON: an event, an array of events of which all are right or none is published,
/// or a line each.
async fn json(
    context: &Arc<Context>,
    kind: Kind,
    expect: Expect,
    permit: Permit,
    drain: &Watch,
    parts: &Parts,
    body: Option<RequestBody>,
) -> Result<Reply, Problem> {
    if kind.is_to_people() {
        permit.check_people()?;
    }
    if is_lines(parts)? {
        idempotency::refuse(&parts.headers)?;
        let lines = lines::lines(context.clone(), kind, permit, body, drain.clone());
        return Ok(lines);
    }
    // Before the body is read: whoever comes too often is not to cost more than that.
    permit.check_rate(context)?;
    let json = body::collect(context, expect, body).await?;
    if array::is_array(&json) {
        idempotency::refuse(&parts.headers)?;
        let answers = array::publish(context, kind, permit, &json).await?;
        return Ok(Reply::json(&answers));
    }
    let event = kind.read(&json, context, &permit)?;
    let event = event.with_key(idempotency::key(parts, &json)?);
    let published = Published::of(context, &permit, event, kind.is_to_people()).await?;
    Ok(Reply::json(&published))
}

/// Answers a visitor of the demo page, who publishes to its topics and leaves other visitors in
/// peace.
pub(super) async fn from_demo(context: &Context, json: &[u8]) -> Result<Reply, Problem> {
    let event = Event::from_json(json, context, DEMO_TOPICS_AT_ONCE)?;
    let foreign = |topic: &&crate::topic::Topic| !topic.as_str().starts_with(DEMO_TOPICS);
    if let Some(topic) = event.topics().iter().find(foreign) {
        let detail = format!("visitors of the demo publish to topics below {DEMO_TOPICS} only");
        let problem = Problem::field("topic", topic.as_str(), detail).forbidden();
        return Err(problem.named(Named::PublisherTopic));
    }
    let permit = Permit::everything();
    let published = Published::of(context, &permit, event.plain(), false).await?;
    Ok(Reply::json(&published))
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

/// Whether a body is lines of JSON.
fn is_lines(parts: &Parts) -> Result<bool, Problem> {
    match content_type(parts).as_str() {
        "application/x-ndjson" | "application/jsonl" | "application/ndjson" => Ok(true),
        // curl says the last of these of whatever it is given.
        "application/json" | "" | "application/x-www-form-urlencoded" => Ok(false),
        other => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "`{}` is not taken here; send application/json, or application/x-ndjson or application/jsonl",
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
