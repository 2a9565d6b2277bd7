//! Who is connected.

use serde_json::json;

use crate::service::query::{MAX_PAGE, Paged, name, next};
use crate::{
    access::Name,
    exchange::{Problem, Reply},
    protocol::Protocol,
    service::{
        Context,
        streams::{Ended, Filter, StreamInfo},
    },
    topic::Topic,
};

/// `GET /streams`: who is connected.
pub(super) fn list(context: &Context, query: &str) -> Result<Reply, Problem> {
    let mut filter = Filter::default();
    let take = |name: &str, value: &str| {
        match name {
            "user" => filter.user = Some(value.to_owned()),
            "group" => filter.group = Some(value.to_owned()),
            "topic" => filter.topic = Some(value.to_owned()),
            "protocol" => {
                let mut all = Protocol::ALL.into_iter();
                let known = all.find(|known| known.as_str() == value);
                let wrong = || Problem::field("protocol", value, "protocol is h1, h2 or h3");
                filter.protocol = Some(known.ok_or_else(wrong)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    };
    let Paged { after, limit } = Paged::parse_with(query, "user, group, topic, protocol, ", take)?;
    let after = after.map_or(Ok(0), |after| {
        let wrong = |_| Problem::field("after", &after, "after is the id of a stream");
        after.parse().map_err(wrong)
    })?;
    let page = context.streams.list(after, limit, &filter);
    let next = next(&page, limit).map(|(id, _)| *id);
    let streams: Vec<_> = page
        .iter()
        .map(|(id, info)| describe_stream(*id, info))
        .collect();
    Ok(Reply::json(&json!({ "streams": streams, "next": next })))
}

/// `DELETE /streams/{id}`: ends one, whose client may come back.
pub(super) fn end(context: &Context, id: &str) -> Result<Reply, Problem> {
    let wrong = |_| Problem::field("id", id, "it is the number that GET /streams shows");
    let known: u64 = id.parse().map_err(wrong)?;
    if !context.streams.end(known, Ended::Operator) {
        return Err(Problem::not_found(format!("there is no stream {known}")));
    }
    Ok(Reply::json(&json!({ "streams": 1 })))
}

/// `GET /users/{user}`: whether someone is there, since when, and with which streams: the oldest thousand.
pub(super) fn of_user(context: &Context, user: &str) -> Result<Reply, Problem> {
    let user = name("user", user)?;
    let filter = Filter {
        user: Some(user.as_str().to_owned()),
        ..Filter::default()
    };
    let page = context.streams.list(0, MAX_PAGE, &filter);
    let since = page.iter().map(|(_, info)| info.since).min();
    let streams: Vec<_> = page
        .iter()
        .map(|(id, info)| describe_stream(*id, info))
        .collect();
    Ok(Reply::json(&json!({
        "user": user.as_str(),
        "connected": since.is_some(),
        "since": since.map(|since| humantime::format_rfc3339_seconds(since).to_string()),
        "streams": streams,
    })))
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
