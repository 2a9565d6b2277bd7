//! Who belongs to which group.

use http::StatusCode;
use serde_json::json;

use crate::service::query::{Paged, name, next};
use crate::{
    access::{InvalidMember, Member, Name},
    exchange::{Problem, Reply},
    service::{
        Context,
        routes::decode,
        shared::{NotChanged, change_member, end_without_group},
    },
};

/// `GET /groups`: the groups that have members by the operator's word, by name.
pub(super) fn list(context: &Context, query: &str) -> Result<Reply, Problem> {
    let Paged { after, limit } = Paged::parse(query)?;
    let groups = context.access.groups();
    let later = groups
        .names()
        .filter(|name| after.as_deref().is_none_or(|after| name.as_str() > after));
    let page: Vec<&Name> = later.take(limit).collect();
    let described = page.iter().map(|group| {
        let members: Vec<String> = groups.members(group).map(Member::to_string).collect();
        json!({ "group": group.as_str(), "members": members })
    });
    let described: Vec<_> = described.collect();
    let next = next(&page, limit).map(|name| name.as_str());
    Ok(Reply::json(&json!({ "groups": described, "next": next })))
}

/// Direct members of a group, and effective ones: those by nesting, and those who are connected with an
/// identity that is in one of these groups.
pub(super) fn show(context: &Context, group: &str) -> Result<Reply, Problem> {
    let group = name("group", group)?;
    let (members, all) = {
        let groups = context.access.groups();
        let members: Vec<String> = groups.members(&group).map(Member::to_string).collect();
        (members, groups.expand(std::slice::from_ref(&group)))
    };
    let connected = context.streams.users_where(|identity| {
        let mut own = identity.groups().iter();
        own.any(|own| all.groups.contains(own))
    });
    let text = |names: &std::collections::BTreeSet<Name>| {
        let names = names.iter().filter(|name| **name != group);
        names
            .map(|name| name.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    let users: Vec<&str> = all.users.union(&connected).map(Name::as_str).collect();
    Ok(Reply::json(&json!({
        "group": group.as_str(),
        "members": members,
        "effective": { "groups": text(&all.groups), "users": users },
    })))
}

/// Puts a member into a group, at all edges.
pub(super) async fn add(context: &Context, group: &str, member: &str) -> Result<Reply, Problem> {
    let (group, member, text) = names(group, member)?;
    let added = if context.order.is_shared() {
        change_member(context, &group, &member, true).await
    } else {
        let added = context.access.groups().add(&group, member);
        added.map_err(NotChanged::from)
    };
    match added {
        Ok(added) => Ok(Reply::json(&json!({ "added": added }))),
        Err(error) => Err(refusal(error, &text)),
    }
}

fn refusal(error: NotChanged, member: &str) -> Problem {
    match error {
        NotChanged::Problem(problem) => problem,
        NotChanged::Invalid(error @ InvalidMember::Cycle(_)) => {
            Problem::new(StatusCode::CONFLICT, error.to_string())
        }
        NotChanged::Invalid(error) => Problem::field("member", member, error.to_string()),
    }
}

/// Takes a member out of a group, at all edges.
pub(super) async fn remove(context: &Context, group: &str, member: &str) -> Result<Reply, Problem> {
    let (group, member, text) = names(group, member)?;
    let removed = if context.order.is_shared() {
        let removed = change_member(context, &group, &member, false).await;
        removed.map_err(|error| refusal(error, &text))?
    } else {
        context.access.leave(&group, &member)
    };
    if !removed {
        let detail = format!("`{member}` is not a member of `{group}`");
        return Err(Problem::not_found(detail));
    }
    end_without_group(context);
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
