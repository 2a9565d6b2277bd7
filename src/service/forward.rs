//! Requests that go on to an app.

use std::net::IpAddr;

use super::{Context, subscribe};
use crate::{
    clock,
    exchange::{Problem, Reply, Request},
    proxy::{Asker, Route},
};

/// Has the app of `route` answer a request that comes `via` this address.
pub(super) async fn answer(
    context: &Context,
    route: &Route,
    request: Request,
    via: IpAddr,
) -> Result<Reply, Problem> {
    let mut asker = Asker {
        peer: via,
        identity: None,
        retry: context.long_retry(),
    };
    if route.tells_identity() {
        let (now, wall) = (clock::now(), clock::wall());
        let (headers, uri) = (&request.parts.headers, &request.parts.uri);
        match context.access.identify(headers, uri, now, wall).await {
            Ok(identity) => asker.identity = Some(identity),
            Err(denied) if route.is_gentle_to(&request) => {
                return subscribe::refuse(context, denied);
            }
            Err(denied) => return Err(denied.into()),
        }
    }
    context.proxy.answer(route, request, &asker).await
}
