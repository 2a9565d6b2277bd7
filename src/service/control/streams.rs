//! Who is connected.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    access::Name,
    exchange::{Named, Problem, Reply},
    history::Unheard,
    protocol::Protocol,
    service::{
        Context,
        gather::{self, List, Part, Question},
        query::{MAX_PAGE, Paged, name},
        routes::decode,
        streams::{Ended, Filter, StreamInfo},
    },
    topic::Topic,
};

/// Which edge a stream is at, in a cluster, and its number there: in this order they are listed.
type Id = (String, u64);

/// What is asked of the streams.
struct Asked {
    after: Option<Id>,
    limit: usize,
    filter: Filter,
}

impl Asked {
    fn parse(context: &Context, query: &str) -> Result<Self, Problem> {
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
        let Paged { after, limit } =
            Paged::parse_with(query, "user, group, topic, protocol, ", take)?;
        let after = after.map(|after| {
            let wrong = || Problem::field("after", &after, "after is the id of a stream");
            parse(context, &after).ok_or_else(wrong)
        });
        Ok(Self {
            after: after.transpose()?,
            limit,
            filter,
        })
    }

    fn part(&self, context: &Context) -> Part {
        let node = context.order.node().unwrap_or_default();
        let after = match &self.after {
            Some((of, after)) if of == node => *after,
            // All of this edge's are before that.
            Some((of, _)) if of.as_str() > node => return Part::default(),
            _ => 0,
        };
        let page = context.streams.list(after, self.limit, &self.filter);
        let page = page.iter().map(|(id, info)| describe(context, *id, info));
        Part::page(page, self.limit)
    }
}

fn list_of(limit: usize) -> List<Id> {
    List {
        name: "streams",
        key: "id",
        order: id_of,
        // No two have one id.
        join: |_, _| {},
        limit,
    }
}

fn id_of(stream: &Value) -> Id {
    match &stream["id"] {
        Value::String(id) => split(id).unwrap_or_default(),
        id => (String::new(), id.as_u64().unwrap_or_default()),
    }
}

/// The id of a stream, as it is told.
fn parse(context: &Context, id: &str) -> Option<Id> {
    match context.order.node() {
        Some(_) => split(id),
        None => Some((String::new(), id.parse().ok()?)),
    }
}

fn split(id: &str) -> Option<Id> {
    let (node, number) = id.rsplit_once(':')?;
    Some((node.to_owned(), number.parse().ok()?))
}

/// `GET /streams`: who is connected.
pub(super) async fn list(context: &Context, query: &str) -> Result<Reply, Problem> {
    let asked = Asked::parse(context, query)?;
    let question = Question::Streams(query.to_owned());
    let list = list_of(asked.limit);
    let (page, _) = list.of(context, question, asked.part(context)).await;
    Ok(Reply::json(&page))
}

/// What this edge has of them.
pub(in crate::service) fn part(context: &Context, query: &str) -> Result<Part, Problem> {
    Ok(Asked::parse(context, query)?.part(context))
}

/// `DELETE /streams/{id}`: ends one, whose client may come back.
pub(super) async fn end(context: &Context, id: &str) -> Result<Reply, Problem> {
    let id = decode(id)?;
    let wrong = || Problem::field("id", &id, "it is the id that GET /streams shows");
    // A number alone is of this edge.
    let own = || Some((context.order.node()?.to_owned(), id.parse().ok()?));
    let known = parse(context, &id).or_else(own);
    let (node, number) = known.ok_or_else(wrong)?;
    let ended = if context.order.node().is_none_or(|own| own == node) {
        end_here(context, number)
    } else {
        let question = json!(Question::EndStream(number));
        let said = context.order.ask(&node, &question).await;
        serde_json::from_value(said.map_err(unheard)?).unwrap_or_default()
    };
    if ended.entries.is_empty() {
        return Err(Problem::not_found(format!("there is no stream {id}")));
    }
    Ok(Reply::json(&json!({ "streams": 1 })))
}

fn unheard(why: Unheard) -> Problem {
    match why {
        Unheard::Unknown(_) => Problem::not_found(why.to_string()),
        Unheard::Silent(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, why.to_string()).named(Named::ClusterAway)
        }
    }
}

/// Ends one of this edge's; it is all that is there of what was ended.
pub(in crate::service) fn end_here(context: &Context, number: u64) -> Part {
    let ended = context.streams.end(number, Ended::Operator);
    Part::page(ended.then(|| json!(number)).into_iter(), MAX_PAGE)
}

/// `GET /users/{user}`: whether someone is there, since when, and with which streams: the oldest thousand of each edge at
/// most.
pub(super) async fn of_user(context: &Context, user: &str) -> Result<Reply, Problem> {
    let mut parts = vec![user_part(context, user)?];
    let others = gather::ask(context, &Question::User(user.to_owned())).await;
    let missing = others.map(|others| {
        parts.extend(others.parts);
        others.missing
    });
    let more = parts.iter().any(|part| part.more);
    let mut streams: Vec<Value> = parts.into_iter().flat_map(|part| part.entries).collect();
    streams.sort_by_cached_key(id_of);
    let since = streams.iter().filter_map(|stream| stream["since"].as_str());
    let since = since.min().map(str::to_owned);
    let mut said = json!({
        "user": name("user", user)?.as_str(),
        "connected": since.is_some(),
        "since": since,
        "streams": streams,
    });
    if let Some(missing) = missing {
        (said["missing"], said["more"]) = (missing.into(), more.into());
    }
    Ok(Reply::json(&said))
}

/// The streams of a user at this edge.
pub(in crate::service) fn user_part(context: &Context, user: &str) -> Result<Part, Problem> {
    let filter = Filter {
        user: Some(name("user", user)?.as_str().to_owned()),
        ..Filter::default()
    };
    let page = context.streams.list(0, MAX_PAGE, &filter);
    let page = page.iter().map(|(id, info)| describe(context, *id, info));
    Ok(Part::page(page, MAX_PAGE))
}

fn describe(context: &Context, id: u64, info: &StreamInfo) -> Value {
    let id = match context.order.node() {
        Some(node) => json!(format!("{node}:{id}")),
        None => json!(id),
    };
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
