//! Who belongs to which group.

use http::StatusCode;
use serde_json::json;

use super::query::name;
use crate::{
    access::{InvalidMember, Member, Name},
    exchange::{Problem, Reply},
    service::{
        Context,
        routes::decode,
        streams::{Ended, StreamInfo},
    },
};

/// Direct and effective members of a group, as far as nesting says: who else is in one of the
/// groups comes with identity.
pub(super) fn show(context: &Context, group: &str) -> Result<Reply, Problem> {
    let group = name("group", group)?;
    let groups = context.access.groups();
    let members: Vec<String> = groups.members(&group).map(Member::to_string).collect();
    let all = groups.expand(std::slice::from_ref(&group));
    let text = |names: &std::collections::BTreeSet<Name>| {
        let names = names.iter().filter(|name| **name != group);
        names
            .map(|name| name.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    let users: Vec<&str> = all.users.iter().map(Name::as_str).collect();
    Ok(Reply::json(&json!({
        "group": group.as_str(),
        "members": members,
        "effective": { "groups": text(&all.groups), "users": users },
    })))
}

pub(super) fn add(context: &Context, group: &str, member: &str) -> Result<Reply, Problem> {
    let (group, member, text) = names(group, member)?;
    match context.access.groups().add(&group, member) {
        Ok(added) => Ok(Reply::json(&json!({ "added": added }))),
        Err(error @ InvalidMember::Cycle(_)) => {
            Err(Problem::new(StatusCode::CONFLICT, error.to_string()))
        }
        Err(error) => Err(Problem::field("member", &text, error.to_string())),
    }
}

/// Takes a member out of a group.
pub(super) fn remove(context: &Context, group: &str, member: &str) -> Result<Reply, Problem> {
    let (group, member, _) = names(group, member)?;
    // The lock is released before the streams are looked at, which takes it again.
    let removed = context.access.groups().remove(&group, &member);
    if !removed {
        let detail = format!("`{member}` is not a member of `{group}`");
        return Err(Problem::not_found(detail));
    }
    // Streams that a rule let in by this group may not stay.
    let may = |info: &StreamInfo| {
        let access = &context.access;
        access.may_subscribe(&info.identity, info.topics.iter())
    };
    let streams = &context.streams;
    streams.end_where(Ended::Membership, |info| may(info).is_err());
    Ok(Reply::json(&json!({ "removed": true })))
}

/// A group and a member as they stand in a path, and the member's text.
fn names(group: &str, member: &str) -> Result<(Name, Member, String), Problem> {
    let group = name("group", group)?;
    let text = decode(member)?;
    let member =
        Member::parse(&text).map_err(|error| Problem::field("member", &text, error.to_string()))?;
    Ok((group, member, text))
}
