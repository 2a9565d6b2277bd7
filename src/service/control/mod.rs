//! The private listener: topics, streams, groups, health, metrics. No web page can reach it.

mod gate;
mod groups;
mod streams;
mod topics;

use std::time::UNIX_EPOCH;

use http::{HeaderValue, StatusCode, header, request::Parts};
use serde_json::json;

use super::{
    Context, query,
    routes::Route,
    shared,
    streams::{Ended, StreamInfo},
};
use crate::{
    access::{MOST_REVOKED, Name},
    clock,
    exchange::{Named, Problem, Reply},
    history::Reached,
    hub::Entry,
    metrics,
};

pub(crate) use gate::Gate;
pub(super) use streams::{end_here as end_stream, part as streams, user_part as streams_of};
pub(super) use topics::{part as topics, part_of_one as topic};

/// Answers the operator.
pub(super) async fn answer(
    context: &Context,
    route: Route<'_>,
    parts: &Parts,
) -> Result<Reply, Problem> {
    let query = parts.uri.query().unwrap_or_default();
    match route {
        Route::ListTopics => topics::list(context, query).await,
        Route::ShowTopic(topic) => topics::show(context, topic).await,
        Route::DeleteTopic(topic) => topics::delete(context, topic).await,
        Route::Cursor => {
            let id = context.hub.cursor().to_string();
            Ok(Reply::json(&json!({ "id": id })))
        }
        Route::Cluster => cluster(context),
        Route::ListStreams => streams::list(context, query).await,
        Route::EndStream(id) => streams::end(context, id).await,
        Route::ShowUser(user) => streams::of_user(context, user).await,
        Route::ListGroups => groups::list(context, query),
        Route::ShowGroup(group) => groups::show(context, group),
        Route::AddMember(group, member) => Box::pin(groups::add(context, group, member)).await,
        Route::RemoveMember(group, member) => {
            Box::pin(groups::remove(context, group, member)).await
        }
        // They are rare, and large.
        Route::Disconnect(user) => Box::pin(disconnect(context, user)).await,
        Route::Revoke(user) => Box::pin(revoke(context, user)).await,
        Route::Ready => ready(context),
        Route::Metrics => Ok(exposition(context)),
        Route::Health => Ok(plain("ok\n")),
        Route::EventStream
        | Route::Stats
        | Route::Preflight
        | Route::PublishPreflight
        | Route::ReadTopic(_)
        | Route::Retract(..)
        | Route::Presence
        | Route::NewTicket
        | Route::ClientScript
        | Route::DemoPage
        | Route::DemoPublish
        | Route::Publish
        | Route::PublishTo(_)
        | Route::CloseTopic(_)
        | Route::Broadcast
        | Route::Send => unreachable!("the service answers these itself"),
    }
}

/// Ends the streams of a user, who is asked about anew when they come back.
async fn disconnect(context: &Context, user: &str) -> Result<Reply, Problem> {
    let user = query::name("user", user)?;
    let ended = end_streams(context, &user).await?;
    Ok(Reply::json(&shared::streams(&ended)))
}

/// The same, and the tokens of the user that were issued before now are no good any more.
async fn revoke(context: &Context, user: &str) -> Result<Reply, Problem> {
    let user = query::name("user", user)?;
    // First: whoever comes back, or comes just now, is refused.
    let now = clock::wall();
    let Some(before) = context.access.revoke(&user, now) else {
        let detail =
            format!("the tokens of {MOST_REVOKED} users are revoked already, which is the limit");
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        return Err(problem.with_limit(MOST_REVOKED));
    };
    let told = shared::tell_revoked(context, &user, now);
    let (told, ended) = tokio::join!(told, end_streams(context, &user));
    told?;
    let ended = ended?;
    let before = before.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut said = shared::streams(&ended);
    said["before"] = before.as_secs().into();
    Ok(Reply::json(&said))
}

/// Ends the streams of a user; how many.
async fn end_streams(context: &Context, user: &Name) -> Result<Reached, Problem> {
    // First: whoever comes back is asked about anew.
    context.access.forget(user);
    let entry = Entry::Disconnect(user.user_topic());
    let told = shared::tell_forgotten(context, user);
    let (told, put) = tokio::join!(told, context.order.put(entry, clock::now()));
    let ended = match put {
        Ok(receipt) => context.order.reached(&receipt).await,
        // Though the order takes nothing, their streams end that are here.
        Err(error) => {
            tracing::warn!("streams are ended though it is in no history: {error}");
            let is_theirs = |info: &StreamInfo| info.identity.user() == Some(user);
            let ended = context.streams.end_where(Ended::Operator, is_theirs);
            if context.order.is_shared() {
                return Err(error.into());
            }
            Reached::alone(ended)
        }
    };
    told?;
    Ok(ended)
}

/// What is known of the cluster that the edge is part of.
fn cluster(context: &Context) -> Result<Reply, Problem> {
    let status = context.order.cluster(clock::now());
    let status = status.ok_or_else(|| {
        Problem::not_found("this edge is part of no cluster; set cluster.name and cluster.nats")
    })?;
    Ok(Reply::json(&status))
}

fn ready(context: &Context) -> Result<Reply, Problem> {
    if context.drain.is_draining() {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the edge is ending")
            .named(Named::EdgeEnding);
        return Err(problem.with_header(header::RETRY_AFTER, HeaderValue::from_static("5")));
    }
    if let Some(why) = context.order.unready(clock::now()) {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).named(Named::ClusterAway);
        return Err(problem.with_header(header::RETRY_AFTER, HeaderValue::from_static("5")));
    }
    Ok(plain("ready\n"))
}

fn exposition(context: &Context) -> Reply {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let age = context.access.jwks_age(clock::now());
    let age = age.map_or(-1.0, |age| age.as_secs_f64());
    context.metrics.jwks_age.set(age);
    Reply::text(
        StatusCode::OK,
        OPEN_METRICS,
        metrics::render(&context.registry),
    )
}

fn plain(text: &'static str) -> Reply {
    Reply::text(StatusCode::OK, "text/plain; charset=utf-8", text)
}
