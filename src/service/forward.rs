//! Requests that go on to an app.

use std::{net::IpAddr, sync::Arc};

use http::request::Parts;

use super::{Context, subscribe};
use crate::{
    access::{Denied, Identity},
    clock,
    exchange::{Problem, Reply, Request},
    proxy::{Answered, Asker, Pace, Route},
};

/// Has the app of `route` answer a request that comes `via` this address.
pub(super) async fn answer(
    context: &Arc<Context>,
    route: &Arc<Route>,
    request: Request,
    via: IpAddr,
) -> Result<Reply, Problem> {
    let mut asker = Asker {
        peer: via,
        identity: None,
        pace: Pace {
            keepalive: context.events.keepalive,
            retry: context.retry(),
            long_retry: context.long_retry(),
        },
    };
    let mut identity = None;
    if route.settles_identity() {
        match identify(context, &request.parts, request.peer.remote.ip()).await {
            Ok(known) => identity = Some(known),
            Err(denied) if route.is_gentle_to(&request) => {
                return subscribe::refuse(context, denied);
            }
            Err(denied) => return Err(denied.into()),
        }
    }
    if route.tells_identity() {
        asker.identity.clone_from(&identity);
    }
    let peer = request.peer.clone();
    // Before the app reads its state: what is published from then on is delivered.
    let cursor = context.hub.cursor();
    match context.proxy.answer(route, request, asker).await? {
        Answered::Reply(reply) => Ok(reply),
        Answered::Handed(handed) => {
            let identity = identity.unwrap_or_else(Identity::anonymous);
            subscribe::handed(context, &peer, handed, identity, cursor)
        }
    }
}

async fn identify(context: &Context, parts: &Parts, client: IpAddr) -> Result<Identity, Denied> {
    let (headers, uri) = (&parts.headers, &parts.uri);
    let (now, wall) = (clock::now(), clock::wall());
    let access = &context.access;
    access.identify(headers, uri, client, now, wall).await
}
