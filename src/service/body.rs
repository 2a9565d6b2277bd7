//! Collecting what a request brings along, as its route expects it.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;

use super::{Context, routes::Expect};
use crate::{
    exchange::{Problem, RequestBody},
    limits::DEMO_BYTES,
};

/// Reads the whole body, at most as much as is expected; it may pause for `limits.request_body`.
pub(super) async fn collect(
    context: &Context,
    expect: Expect,
    body: Option<RequestBody>,
) -> Result<Bytes, Problem> {
    let (field, bound) = match expect {
        Expect::Nothing => return Ok(Bytes::new()),
        Expect::Data => ("data", context.limits.event_bytes),
        Expect::Event => ("body", context.limits.json_bytes()),
        Expect::DemoEvent => ("body", DEMO_BYTES),
    };
    let Some(mut body) = body else {
        return Ok(Bytes::new());
    };
    let mut whole = BytesMut::new();
    while let Some(chunk) = in_time(context, next_chunk(&mut body)).await? {
        let bytes = whole.len() + chunk.len();
        if bytes > bound.value {
            return Err(Problem::too_large(field, bytes, bound));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Waits for what is read no longer than `limits.request_body`.
pub(super) async fn in_time<T>(
    context: &Context,
    read: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let pause = context.limits.request_body;
    match context.within(pause, read).await {
        Ok(read) => read,
        Err(_) => Err(Problem::too_slow(pause)),
    }
}

/// The next bytes; `None` at the end of the body.
pub(super) async fn next_chunk(body: &mut RequestBody) -> Result<Option<Bytes>, Problem> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => {
                let detail = format!("the body ended early: {error}");
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
        }
    }
}
