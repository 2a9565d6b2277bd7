//! `POST /tickets`: what a page of another site puts into the URL of its event streams.

use std::time::{Duration, SystemTime};

use http::{StatusCode, request::Parts};
use serde::Deserialize;
use serde_json::json;

use super::{Context, stream_request::StreamRequest};
use crate::{
    access::{Bearer, Denied, Identity, MAX_TICKET, Name, Redeemed},
    clock,
    exchange::{Problem, Reply},
    pattern::Pattern,
};

/// How long a ticket's identity lasts unless it is said.
const LASTS: u64 = 3600;
/// The longest.
const LONGEST: u64 = 24 * 3600;

/// What the operator says of whom a ticket is for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct For {
    user: String,
    #[serde(default)]
    groups: Vec<String>,
    topics: Option<Vec<String>>,
    /// In seconds.
    expires: Option<u64>,
}

/// A ticket for whom the operator names.
pub(super) fn of_operator(context: &Context, body: &[u8]) -> Result<Reply, Problem> {
    let asked: For = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("whom the ticket is for is not said as expected: {error}");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })?;
    let parse = |field, text: &String| {
        Name::parse(text).map_err(|error| Problem::field(field, text, error.to_string()))
    };
    let groups = asked.groups.iter().map(|group| parse("groups", group));
    let topics = asked.topics.map(|topics| {
        let pattern = |text: &String| {
            let wrong = || Problem::field("topics", text, "it is not a pattern of topics");
            Pattern::parse(text).ok_or_else(wrong)
        };
        topics.iter().map(pattern).collect::<Result<Vec<_>, _>>()
    });
    let expires = asked.expires.unwrap_or(LASTS);
    if !(1..=LONGEST).contains(&expires) {
        let detail = format!("expires is {expires} s, it can be 1 to {LONGEST}");
        let problem = Problem::field("expires", &expires.to_string(), detail);
        return Err(problem.with_limit(86_400));
    }
    let wall = clock::wall();
    let bearer = Bearer {
        user: parse("user", &asked.user)?,
        groups: groups.collect::<Result<_, _>>()?,
        topics: topics.transpose()?,
        until: wall + Duration::from_secs(expires),
        issued: Some(wall),
    };
    make(context, &bearer, wall)
}

/// A ticket for whoever comes with a token.
pub(super) async fn of_bearer(context: &Context, parts: &Parts) -> Result<Reply, Problem> {
    let (now, wall) = (clock::now(), clock::wall());
    let bearer = context.access.bearer(&parts.headers, now, wall).await?;
    // It stands in a URL: no longer than those that the operator makes, whatever the token's end.
    let until = bearer.until.min(wall + Duration::from_secs(LASTS));
    let bearer = Bearer { until, ..bearer };
    make(context, &bearer, wall)
}

fn make(context: &Context, bearer: &Bearer, wall: SystemTime) -> Result<Reply, Problem> {
    let place = context.hub.cursor().sequence;
    let Some(ticket) = context.access.ticket(bearer, place, wall) else {
        let detail = format!(
            "the groups and topics make the ticket longer than {MAX_TICKET} bytes, which a URL has no room for"
        );
        return Err(Problem::field("groups", "", detail).with_limit(MAX_TICKET));
    };
    let left = bearer.until.duration_since(wall).unwrap_or_default();
    Ok(Reply::json(&json!({
        "ticket": ticket,
        "opens": context.access.ticket_opens().as_secs(),
        "expires": left.as_secs(),
    })))
}

/// Who comes with a ticket. It opens streams for a while, and afterwards goes on with what one of them has read.
pub(super) fn redeem(
    context: &Context,
    ticket: &str,
    asked: &StreamRequest<'_>,
) -> Result<Identity, Denied> {
    let Redeemed { identity, after } =
        context.access.redeem(ticket, clock::now(), clock::wall())?;
    let Some(after) = after else {
        return Ok(identity);
    };
    let place = asked
        .cursor()
        .and_then(|cursor| context.hub.place_of(cursor, &asked.topics));
    if place.is_some_and(|place| place >= after) {
        Ok(identity)
    } else {
        Err(Denied::Ticket)
    }
}
