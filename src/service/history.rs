//! History as JSON, for programs and pages that want no stream, and taking back what is in it.

use std::{borrow::Cow, cell::Cell};

use http::request::Parts;
use serde_json::{Value, json};

use super::{
    Context,
    query::{Paged, name},
    routes::{Audience, decode},
    visitor,
};
use crate::{
    access::{Identity, Standing},
    clock,
    exchange::{Peer, Problem, Reply},
    hub::{Entry, GapReason, Kept, Page, stored::Stored},
    sse::{Item, Parser},
    topic::Topic,
};

/// `GET /topics/{topic}/events` for the operator: all that history holds.
pub(super) fn read(context: &Context, topic: &str, parts: &Parts) -> Result<Reply, Problem> {
    let asked = Asked::parse(topic, parts)?;
    Ok(asked.answer(&asked.page(context, false, |_| true)))
}

/// The same for a visitor: what they would be given who came back with `after`.
pub(super) async fn read_as(
    context: &Context,
    topic: &str,
    parts: &Parts,
    peer: &Peer,
) -> Result<Reply, Problem> {
    let asked = Asked::parse(topic, parts)?;
    let identity = visitor::identify(context, parts, peer).await?;
    let topics = std::iter::once(&asked.topic);
    context.access.may_subscribe(&identity, topics)?;
    let withheld = Cell::new(false);
    let is_for = is_for(context, &identity);
    let page = asked.page(context, true, |event| {
        let share = is_for(event);
        // What came before they belonged is told of, as a stream tells it to who comes back.
        withheld.set(withheld.get() || (share == Share::Later && asked.after.is_some()));
        share == Share::Own
    });
    let reason = page.gap.or(withheld.get().then_some(GapReason::Audience));
    let reply = asked.answer(&Page {
        gap: reason,
        ..page
    });
    Ok(if identity.user().is_some() {
        reply.with(http::header::CACHE_CONTROL, "private, no-store")
    } else {
        reply
    })
}

/// What an event that may be for some readers only is to one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Own,
    /// It was for those whom they belong to since later.
    Later,
    None,
}

/// What events are to somebody, who may have belonged to an audience only later.
fn is_for(context: &Context, identity: &Identity) -> impl Fn(&Stored) -> Share + use<> {
    let moment = visitor::moment(context, identity);
    let belongs = context.streams.meet(identity, moment);
    let own = visitor::belonging(identity, &belongs);
    move |event: &Stored| {
        let Some(to) = event.to() else {
            return Share::Own;
        };
        let mut share = Share::None;
        for (topic, since) in &own {
            if to.binary_search(topic).is_err() {
                continue;
            }
            if event.sequence > *since {
                return Share::Own;
            }
            share = Share::Later;
        }
        share
    }
}

/// What is asked of history.
struct Asked {
    topic: Topic,
    after: Option<String>,
    limit: usize,
}

impl Asked {
    fn parse(topic: &str, parts: &Parts) -> Result<Self, Problem> {
        let text = decode(topic)?;
        let topic = Topic::parse(&text).map_err(|error| (error, text.as_str()))?;
        let paged = Paged::parse(parts.uri.query().unwrap_or_default())?;
        Ok(Self {
            topic,
            after: paged.after.map(Cow::into_owned),
            limit: paged.limit,
        })
    }

    fn page(&self, context: &Context, is_again: bool, is_for: impl Fn(&Stored) -> bool) -> Page {
        let (hub, after) = (&context.hub, self.after.as_deref());
        hub.page(&self.topic, after, self.limit, is_again, is_for)
    }

    fn answer(&self, page: &Page) -> Reply {
        let events: Vec<Value> = page.events.iter().filter_map(describe).collect();
        Reply::json(&json!({
            "topic": self.topic.as_str(),
            "events": events,
            "next": page.next.as_ref().map(ToString::to_string),
            "gap": page.gap.map(GapReason::as_str),
        }))
    }
}

/// An event as JSON: it is kept as it goes over the wire.
fn describe(kept: &Kept) -> Option<Value> {
    let mut items = Vec::new();
    let mut parser = Parser::new(usize::MAX);
    parser.push(kept.wire.as_slice(), &mut items).ok()?;
    let message = items.into_iter().find_map(|item| match item {
        Item::Message(message) => Some(message),
        Item::Retry(_) | Item::Comment(_) => None,
    })?;
    Some(json!({
        "id": kept.id,
        "at": kept.at,
        "event": message.event,
        "data": message.data,
    }))
}

/// `DELETE .../events/{id}`: takes an event back, in all of its topics.
pub(super) async fn retract(
    context: &Context,
    of: Audience<'_>,
    id: &str,
) -> Result<Reply, Problem> {
    let topics = match of {
        Audience::Topic(topic) => {
            let text = decode(topic)?;
            vec![Topic::parse(&text).map_err(|error| (error, text.as_str()))?]
        }
        Audience::User(user) => vec![name("user", user)?.user_topic()],
        Audience::Group(group) => vec![name("group", group)?.group_topic()],
        Audience::Everyone => {
            let both = [Standing::Authenticated, Standing::Anonymous];
            both.map(Standing::topic).to_vec()
        }
    };
    let id = decode(id)?;
    let entry = Entry::Retract {
        topics: topics.into(),
        id: id.as_str().into(),
    };
    let receipt = context.order.put(entry, clock::now()).await?;
    match receipt.removed {
        Some(_) => Ok(Reply::json(&json!({ "retracted": id }))),
        None => Err(Problem::not_found(
            "history holds no such event there: it may have left it, or be another's",
        )),
    }
}
