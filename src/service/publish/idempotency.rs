//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): what a publisher gives a request
//! so that it can be sent again.

use http::{HeaderMap, StatusCode, request::Parts};

use crate::{exchange::Problem, hub::Key};

const FIELD: &str = "Idempotency-Key";
/// The longest key, in bytes.
const MAX_BYTES: usize = 255;

/// The key of a request with this body, if it has one. Any text is one, with or without quotes.
pub(super) fn key(parts: &Parts, body: &[u8]) -> Result<Option<Key>, Problem> {
    let Some(key) = given(&parts.headers)? else {
        return Ok(None);
    };
    let target = parts
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    Ok(Some(Key::new(key, &[target.as_bytes(), body])))
}

/// Many events have no key: it would be one for all of them.
pub(super) fn refuse(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(FIELD) {
        return Ok(());
    }
    let detail = format!("{FIELD} is for one event; give each of many an `id` of its own");
    Err(Problem::new(StatusCode::BAD_REQUEST, detail))
}

fn given(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(FIELD).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        let detail = format!("{FIELD} is given twice; give it once");
        return Err(Problem::field(FIELD, "", detail));
    }
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_BYTES {
        let n = bytes.len();
        let detail = format!("{FIELD} is {n} bytes long, it must be 1 to {MAX_BYTES}");
        return Err(Problem::field(FIELD, &n.to_string(), detail).with_limit(MAX_BYTES));
    }
    Ok(Some(bytes))
}
