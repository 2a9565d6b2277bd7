//! Who asks, on the public listeners.

use std::time::{Instant, SystemTime};

use http::request::Parts;

use super::{Context, members::Moment};
use crate::{
    access::{Denied, Identity},
    clock,
    exchange::{Peer, authority},
    hub::Belonging,
    topic::Topic,
};

/// Settles who asks; whoever comes by a page of a site that is let in and not listed is nobody in particular.
pub(super) async fn identify(
    context: &Context,
    parts: &Parts,
    peer: &Peer,
) -> Result<Identity, Denied> {
    let (now, wall) = (clock::now(), clock::wall());
    let access = &context.access;
    if access
        .origins()
        .is_stranger(&parts.headers, authority(parts))
    {
        return Ok(Identity::anonymous());
    }
    let (headers, uri, client) = (&parts.headers, &parts.uri, peer.remote.ip());
    access.identify(headers, uri, client, now, wall).await
}

/// Now, in the one order, and when somebody's token was issued.
pub(super) fn moment(context: &Context, identity: &Identity) -> Moment {
    let now = clock::now();
    let hub = &context.hub;
    let place = hub.cursor().sequence;
    let placed_by = |at: Instant| hub.placed_by(at);
    let issued = |at: SystemTime| match clock::wall().duration_since(at) {
        Ok(ago) => now.checked_sub(ago).map_or(0, placed_by),
        Err(_) => place,
    };
    Moment {
        place,
        before: hub.before_start(context.access.settling()),
        issued: identity.issued().map(issued),
        now,
        kept: context.order.keeps_for(),
    }
}

/// The audiences that somebody belongs to, each with the last entry before they did, of whom this is known.
pub(super) fn belonging(identity: &Identity, belongs: &[Belonging]) -> Vec<(Topic, u64)> {
    let all = identity.reserved_topics().into_iter();
    let all = all.map(|topic| {
        let known = belongs.iter().find(|belonging| belonging.topic == topic);
        let since = known.map_or(0, |belonging| belonging.since);
        (topic, since)
    });
    all.collect()
}
