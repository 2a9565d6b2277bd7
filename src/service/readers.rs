//! `GET /presence`: who reads a topic, and telling those who want to know when that changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::request::Parts;
use serde_json::{Value, json};

use super::{
    Context,
    gather::{self, List, Part, Question},
    presence::{Change, Readers},
    query::Paged,
    streams::Filter,
    visitor,
};
use crate::{
    access::Name,
    clock,
    exchange::{Peer, Problem, Reply},
    history::NotStored,
    hub::{Entry, Target},
    sse::Draft,
    topic::Topic,
};

/// How often it is told who has come and gone.
const TELL: Duration = Duration::from_secs(1);
/// How long readers have to take a part of what is told of a crowd.
const BREATH: Duration = Duration::from_millis(5);

/// What is asked of the readers of a topic.
struct Asked {
    topic: Topic,
    after: Option<Name>,
    limit: usize,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut topic = None;
        let Paged { after, limit } = Paged::parse_with(query, "topic, ", |name, value| {
            if name == "topic" {
                topic = Some(Topic::parse(value).map_err(|error| (error, value))?);
            }
            Ok(name == "topic")
        })?;
        let after = after.map(|after| {
            let wrong = |error| Problem::field("after", &after, format!("{error}"));
            Name::parse(&after).map_err(wrong)
        });
        let after = after.transpose()?;
        let missing = || Problem::field("topic", "", "name the topic whose readers are asked for");
        Ok(Self {
            topic: topic.ok_or_else(missing)?,
            after,
            limit,
        })
    }

    /// Those that read it at this edge.
    fn part(&self, context: &Context) -> Part {
        let readers = if context.access.tells_presence(&self.topic) {
            let after = self.after.as_ref();
            context.streams.readers(&self.topic, after, self.limit)
        } else {
            self.counted(context)
        };
        let users = readers.users.iter();
        let users =
            users.map(|(user, streams)| json!({ "user": user.as_str(), "streams": streams }));
        Part {
            anonymous: readers.anonymous,
            ..Part::page(users, self.limit)
        }
    }

    /// Those of a topic of which that is not told, for the operator.
    fn counted(&self, context: &Context) -> Readers {
        let filter = Filter {
            topic: Some(self.topic.as_str().to_owned()),
            ..Filter::default()
        };
        let mut users: BTreeMap<Name, usize> = BTreeMap::new();
        let mut readers = Readers::default();
        for (_, info) in context.streams.list(0, usize::MAX, &filter) {
            match info.identity.user() {
                Some(user) => *users.entry(user.clone()).or_default() += 1,
                None => readers.anonymous += 1,
            }
        }
        let later = users
            .into_iter()
            .filter(|(user, _)| Some(user) > self.after.as_ref());
        readers.users = later.take(self.limit).collect();
        readers
    }

    fn list(&self) -> List<String> {
        List {
            name: "users",
            key: "user",
            order: |user| user["user"].as_str().unwrap_or_default().to_owned(),
            join: |to, from| gather::add(to, &from, "streams"),
            limit: self.limit,
        }
    }

    fn answer(&self, (mut page, anonymous): (Value, usize)) -> Reply {
        page["topic"] = self.topic.as_str().into();
        page["anonymous"] = anonymous.into();
        Reply::json(&page)
    }
}

fn query(parts: &Parts) -> &str {
    parts.uri.query().unwrap_or_default()
}

/// What this edge has of the readers of a topic.
pub(super) fn part(context: &Context, query: &str) -> Result<Part, Problem> {
    Ok(Asked::parse(query)?.part(context))
}

/// The readers of any topic at all edges, for the operator.
pub(super) async fn list(context: &Context, parts: &Parts) -> Result<Reply, Problem> {
    let asked = Asked::parse(query(parts))?;
    let question = Question::Readers(query(parts).to_owned());
    let (list, own) = (asked.list(), asked.part(context));
    Ok(asked.answer(list.of(context, question, own).await))
}

/// The readers of a topic at this edge, for whoever may see them by its rule: those of whom it is told who comes and goes.
pub(super) async fn list_as(
    context: &Context,
    parts: &Parts,
    peer: &Peer,
) -> Result<Reply, Problem> {
    let asked = Asked::parse(query(parts))?;
    let identity = visitor::identify(context, parts, peer).await?;
    let presence = asked.topic.presence();
    context
        .access
        .may_subscribe(&identity, std::iter::once(&presence))?;
    Ok(asked.answer(asked.list().alone(asked.part(context))))
}

/// Tells each second who has come to a topic and left it, where a rule says so. Never ends.
pub(crate) async fn tell(context: Arc<Context>) {
    if !context.access.tells_any_presence() {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(TELL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for change in context.streams.presence_changes() {
            let topic = change.topic.presence();
            if context.hub.readers(&topic) > 0 {
                tell_change(&context, &topic, &change).await;
            }
        }
    }
}

async fn tell_change(context: &Context, topic: &Topic, change: &Change) {
    for (at, data) in change.events().enumerate() {
        if at > 0 {
            // The ring is the readers' queue, and what is not kept has little room there.
            tokio::time::sleep(BREATH).await;
        }
        let entry = || Entry::Event {
            draft: Draft::new(Some("edge-presence"), &data, None),
            target: Target {
                topics: vec![topic.clone()],
                is_live_only: true,
                ..Target::default()
            },
        };
        // It has neither an id nor a key that could be another's. What changes meanwhile is told together.
        while let Err(NotStored::Busy) = context.order.put(entry(), clock::now()).await
            && context.hub.readers(topic) > 0
        {
            tokio::time::sleep(TELL).await;
        }
    }
}
