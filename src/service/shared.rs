//! What the edges of a cluster know in common beside the order: who is in which group by the operator's word, whose
//! tokens are taken back, and of whom the app is asked anew.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Context,
    nesting::Membership,
    streams::{Ended, StreamInfo},
};
use crate::{
    access::{InvalidMember, Member, Name},
    exchange::{Named, Problem},
    history::{Fact, NotStored, Reached},
};

/// The key of the one fact that is about groups in groups: they are changed one after the other, so that no two edges
/// make a cycle together.
const NESTING: &str = "nesting";
/// How long it is remembered of whom the app is to be asked anew.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// How long it is remembered who is no member any more: an edge that was away for longer has to be started again.
const LEFT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often a change of the nesting is tried that another edge was faster with.
const TRIES: usize = 10;
/// And after how long each time.
const PAUSE: Duration = Duration::from_millis(20);

/// What all edges are to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shared {
    /// A user's tokens from before a moment, in unix ms, are no good.
    Revoked { user: String, at: u64 },
    /// What the app said of a user is to be forgotten.
    Forgotten { user: String },
    /// A user is in a group or is not.
    Member(Membership),
    /// The same of groups in groups: all that was changed, in its order.
    Nesting(Vec<Membership>),
}

impl Shared {
    /// Under what the last of it is kept.
    fn key(&self) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        match self {
            Self::Revoked { user, .. } => format!("r.{}", part(user)),
            Self::Forgotten { user } => format!("f.{}", part(user)),
            Self::Member(Membership { group, member, .. }) => {
                format!("m.{}.{}", part(group), part(member))
            }
            Self::Nesting(_) => NESTING.to_owned(),
        }
    }
}

/// Takes what has come by now.
pub(crate) fn take(context: &Context) {
    for Fact {
        key,
        value,
        revision,
    } in context.order.facts()
    {
        if key.is_empty() {
            *context.nesting.lock() = Default::default();
            continue;
        }
        match serde_json::from_slice(&value) {
            Ok(shared) => apply(context, shared, revision),
            Err(error) => {
                tracing::error!("fact {revision} of the cluster is not known here: {error}");
            }
        }
        context.order.facts_are_known(revision);
    }
}

/// Takes whatever comes.
pub(crate) async fn follow(context: Arc<Context>) {
    loop {
        context.order.until_facts().await;
        take(&context);
    }
}

fn apply(context: &Context, shared: Shared, revision: u64) {
    let name = |text: &str| {
        Name::parse(text).inspect_err(|error| tracing::error!("a name of the cluster: {error}"))
    };
    match shared {
        Shared::Revoked { user, at } => {
            if let Ok(user) = name(&user)
                && context
                    .access
                    .revoke(&user, UNIX_EPOCH + Duration::from_millis(at))
                    .is_none()
            {
                tracing::error!(
                    "there is no room for another user whose tokens are revoked at another edge"
                );
            }
        }
        Shared::Forgotten { user } => {
            if let Ok(user) = name(&user) {
                context.access.forget(&user);
            }
        }
        Shared::Member(membership) => change(context, &membership),
        Shared::Nesting(all) => {
            let before = std::mem::take(&mut context.nesting.lock().0);
            let is_gone =
                |one: &&Membership| one.is_in && !all.iter().any(|other| other.is_of(one));
            for gone in before.iter().filter(is_gone) {
                let is_in = false;
                change(
                    context,
                    &Membership {
                        is_in,
                        ..gone.clone()
                    },
                );
            }
            all.iter()
                .for_each(|membership| change(context, membership));
            *context.nesting.lock() = (all, revision);
        }
    }
}

/// Has a group have a member, or not.
fn change(
    context: &Context,
    Membership {
        group,
        member,
        is_in,
    }: &Membership,
) {
    let (Ok(group), Ok(member)) = (Name::parse(group), Member::parse(member)) else {
        return tracing::error!("a member of a group of the cluster has no name");
    };
    if !is_in {
        if context.access.leave(&group, &member) {
            end_without_group(context);
        }
    } else if let Err(error) = context.access.groups().add(&group, member) {
        tracing::error!("a member of the group {group} of the cluster is not taken here: {error}");
    }
}

/// Streams that a rule let in by a group may not stay that are in it no more.
pub(super) fn end_without_group(context: &Context) {
    let may = |info: &StreamInfo| {
        let access = &context.access;
        access.may_subscribe(&info.identity, info.topics.iter())
    };
    let streams = &context.streams;
    streams.end_where(Ended::Membership, |info| {
        !info.is_by_app() && may(info).is_err()
    });
}

/// Tells the other edges that a user's tokens from before a moment are no good.
pub(super) async fn tell_revoked(
    context: &Context,
    user: &Name,
    at: std::time::SystemTime,
) -> Result<(), Problem> {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let shared = Shared::Revoked {
        user: user.as_str().to_owned(),
        at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
    };
    let kept = context.access.revoked_for();
    tell(context, &shared, None, Some(kept)).await.map(drop)
}

/// Tells the other edges that the app is to be asked anew of a user.
pub(super) async fn tell_forgotten(context: &Context, user: &Name) -> Result<(), Problem> {
    let user = user.as_str().to_owned();
    tell(context, &Shared::Forgotten { user }, None, Some(FORGOTTEN))
        .await
        .map(drop)
}

/// Tells all edges a fact, this one too; `false` if its key was told of since the revision that is expected.
async fn tell(
    context: &Context,
    shared: &Shared,
    expected: Option<u64>,
    kept: Option<Duration>,
) -> Result<bool, Problem> {
    let value = serde_json::to_vec(shared).expect("text and numbers");
    let told = context
        .order
        .tell(&shared.key(), value, expected, kept)
        .await;
    told.map_err(|error: NotStored| error.into())
}

/// How many streams were told or ended, and of how many edges that is known, where there are several.
pub(super) fn streams(reached: &Reached) -> Value {
    let mut said = json!({ "streams": reached.receivers });
    if reached.nodes > 1 {
        (said["nodes"], said["answered"]) = (reached.nodes.into(), reached.answered.into());
    }
    said
}

/// Has a group have a member, or not, at all edges; whether that is a change.
pub(super) async fn change_member(
    context: &Context,
    group: &Name,
    member: &Member,
    is_in: bool,
) -> Result<bool, NotChanged> {
    let membership = Membership {
        group: group.as_str().to_owned(),
        member: member.to_string(),
        is_in,
    };
    for _ in 0..TRIES {
        let (mut all, revision) = context.nesting.lock().clone();
        if !would_change(context, group, member, is_in)? {
            return Ok(false);
        }
        // Who is in it stays so, and who is not though the configuration says so; of others it is known to all by then.
        let is_kept = is_in || context.access.is_configured(group, member);
        let told = match member {
            Member::User(_) => {
                let kept = (!is_kept).then_some(LEFT);
                tell(context, &Shared::Member(membership.clone()), None, kept).await?
            }
            Member::Group(_) => {
                all.retain(|known| !known.is_of(&membership));
                if is_kept {
                    all.push(membership.clone());
                }
                tell(context, &Shared::Nesting(all), Some(revision), None).await?
            }
        };
        if told {
            return Ok(true);
        }
        // Another edge was faster: what it changed is on its way.
        context.order.until_fact(revision + 1).await;
        tokio::time::sleep(PAUSE).await;
    }
    let detail = "others change groups in groups all the time; do it again";
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        .named(Named::ClusterAway)
        .into())
}

/// Why a member is not taken.
pub(super) enum NotChanged {
    Invalid(InvalidMember),
    Problem(Problem),
}

impl From<InvalidMember> for NotChanged {
    fn from(error: InvalidMember) -> Self {
        Self::Invalid(error)
    }
}

impl From<Problem> for NotChanged {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Whether it would be a change that a group has a member, or not.
fn would_change(
    context: &Context,
    group: &Name,
    member: &Member,
    is_in: bool,
) -> Result<bool, InvalidMember> {
    let groups = context.access.groups();
    if is_in {
        groups.would_add(group, member)
    } else {
        Ok(groups.has(group, member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_comes_back_and_has_a_key_of_its_own() {
        let membership = |group: &str, member: &str| Membership {
            group: group.into(),
            member: member.into(),
            is_in: true,
        };
        let all = [
            Shared::Revoked {
                user: "bob".into(),
                at: 7,
            },
            Shared::Revoked {
                user: "ann *.>".into(),
                at: 7,
            },
            Shared::Forgotten { user: "bob".into() },
            Shared::Member(membership("staff", "user:bob")),
            Shared::Member(membership("staff", "user:ann")),
            Shared::Nesting(vec![membership("a", "group:b")]),
        ];
        let keys: std::collections::BTreeSet<String> = all.iter().map(Shared::key).collect();
        assert_eq!(keys.len(), all.len());
        for shared in all {
            let is_subject = |key: &str| {
                key.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            };
            assert!(is_subject(&shared.key()), "{}", shared.key());
            let bytes = serde_json::to_vec(&shared).expect("JSON");
            assert_eq!(
                serde_json::from_slice::<Shared>(&bytes).expect("JSON"),
                shared
            );
        }
    }
}
