//! Topics, as their history and their readers have them.

use serde_json::{Value, json};

use crate::{
    clock,
    exchange::{Problem, Reply},
    hub::{Entry, TopicInfo},
    service::{
        Context,
        gather::{self, List, Part, Question},
        query::{MAX_PAGE, Paged},
        routes::decode,
    },
    topic::Topic,
};

/// `GET /topics/{topic}`
pub(super) async fn show(context: &Context, name: &str) -> Result<Reply, Problem> {
    let own = part_of_one(context, name)?;
    let question = Question::Topic(name.to_owned());
    let (mut said, _) = LIST.of(context, question, own).await;
    let mut info = said["topics"].get_mut(0).ok_or_else(none)?.take();
    if let Some(missing) = said.get_mut("missing") {
        info["missing"] = missing.take();
    }
    Ok(Reply::json(&info))
}

/// What this edge has of one.
pub(in crate::service) fn part_of_one(context: &Context, name: &str) -> Result<Part, Problem> {
    let info = context.hub.topic(&topic(name)?);
    Ok(Part::page(info.iter().map(describe), MAX_PAGE))
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
pub(super) async fn list(context: &Context, query: &str) -> Result<Reply, Problem> {
    let paged = Paged::parse(query)?;
    let list = List {
        limit: paged.limit,
        ..LIST
    };
    let own = page(context, &paged);
    let question = Question::Topics(query.to_owned());
    let (page, _) = list.of(context, question, own).await;
    Ok(Reply::json(&page))
}

/// What this edge has of them.
pub(in crate::service) fn part(context: &Context, query: &str) -> Result<Part, Problem> {
    Ok(page(context, &Paged::parse(query)?))
}

fn page(context: &Context, Paged { after, limit }: &Paged<'_>) -> Part {
    let page = context.hub.topics(after.as_deref(), *limit);
    Part::page(page.iter().map(describe), *limit)
}

/// History is the same at all edges, but for how far back they have it; readers are each edge's own.
const LIST: List<String> = List {
    name: "topics",
    key: "topic",
    order: |topic| topic["topic"].as_str().unwrap_or_default().to_owned(),
    join: |to, mut from| {
        if from["events"].as_u64() > to["events"].as_u64() {
            std::mem::swap(to, &mut from);
        }
        gather::add(to, &from, "subscribers");
    },
    limit: MAX_PAGE,
};

fn describe(info: &TopicInfo) -> Value {
    json!({
        "topic": info.topic.as_str(),
        "subscribers": info.subscribers,
        "events": info.events,
        "bytes": info.bytes,
        "oldest": info.oldest,
        "newest": info.newest,
    })
}
