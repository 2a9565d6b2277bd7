//! Topics, as their history and their readers have them.

use serde_json::json;

use crate::service::query::{Paged, next};
use crate::{
    clock,
    exchange::{Problem, Reply},
    hub::{Entry, TopicInfo},
    service::{Context, routes::decode},
    topic::Topic,
};

/// `GET /topics/{topic}`
pub(super) fn show(context: &Context, name: &str) -> Result<Reply, Problem> {
    let info = context.hub.topic(&topic(name)?).ok_or_else(none)?;
    Ok(Reply::json(&describe(&info)))
}

/// `DELETE /topics/{topic}`: its history goes.
pub(super) async fn delete(context: &Context, name: &str) -> Result<Reply, Problem> {
    let entry = Entry::Delete(topic(name)?);
    let deleted = context.order.put(entry, clock::now()).await?.removed;
    let events = deleted.ok_or_else(none)?;
    Ok(Reply::json(&json!({ "deleted": events })))
}

fn topic(name: &str) -> Result<Topic, Problem> {
    let name = decode(name)?;
    Topic::parse(&name).map_err(|error| (error, name.as_str()).into())
}

fn none() -> Problem {
    Problem::not_found("there is no such topic: nothing in its history, and nobody reads it")
}

/// `GET /topics`
pub(super) fn list(context: &Context, query: &str) -> Result<Reply, Problem> {
    let Paged { after, limit } = Paged::parse(query)?;
    let page = context.hub.topics(after.as_deref(), limit);
    let next = next(&page, limit).map(|info| info.topic.as_str());
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
