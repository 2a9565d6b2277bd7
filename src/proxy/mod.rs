//! In front of an app: requests that are not the hub's go on to it, and its answers come back.
//!
//! `route` says which app a request is for, `headers` what becomes of its fields, `upstream` and `health`
//! which of several is asked, `forward` does it, and `files` has answers of its own.

mod files;
mod forward;
mod headers;
mod health;
mod metrics;
mod networks;
mod route;
mod upload;
mod upstream;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::HeaderMap;

use crate::{
    access::Identity,
    exchange::{Problem, Reply, Request},
    limits::{Hits, Limits},
};
use files::Files;
use upstream::Upstream;

pub(crate) use metrics::ProxyMetrics;
pub(crate) use networks::Networks;
pub(crate) use route::{HostPattern, PathPattern, RouteSettings, SendHost, Target};

/// How often an upstream is asked for its health path.
const CHECK: Duration = Duration::from_secs(5);

/// What stands behind the edge.
#[derive(Debug)]
pub struct Proxy {
    routes: Vec<Route>,
    trusted: Networks,
    limits: Limits,
    hits: Arc<Hits>,
    metrics: ProxyMetrics,
}

/// A route, and what is behind it.
#[derive(Debug)]
pub(crate) struct Route {
    settings: RouteSettings,
    behind: Behind,
}

/// What is behind a route.
#[derive(Debug)]
enum Behind {
    Upstreams(Vec<Upstream>),
    Files(Files),
}

/// Who asks, as far as it was settled, and what they are told when they have to come back.
#[derive(Debug)]
pub(crate) struct Asker {
    /// Whoever is at the other end of the connection.
    pub peer: IpAddr,
    /// Who it is, where the app is told.
    pub identity: Option<Identity>,
    /// How long an `EventSource` waits that cannot be served now.
    pub retry: Duration,
}

impl Proxy {
    /// With these routes.
    #[must_use]
    pub fn new(
        routes: &[RouteSettings],
        trusted: Networks,
        limits: Limits,
        hits: Arc<Hits>,
        metrics: ProxyMetrics,
    ) -> Self {
        let connect = limits.upstream_connect.value;
        let route = |settings: &RouteSettings| Route {
            behind: match &settings.target {
                Target::Upstreams(addresses) => {
                    let addresses = addresses.iter().cloned();
                    Behind::Upstreams(addresses.map(|to| Upstream::new(to, connect)).collect())
                }
                Target::Files(directory) => Behind::Files(Files::new(directory, &settings.path)),
            },
            settings: settings.clone(),
        };
        Self {
            routes: routes.iter().map(route).collect(),
            trusted,
            limits,
            hits,
            metrics,
        }
    }

    /// The most specific route that a request is for.
    #[must_use]
    pub(crate) fn find(&self, authority: &str, path: &str) -> Option<&Route> {
        if self.routes.is_empty() {
            return None;
        }
        let routes = self.routes.iter();
        let patterns = routes.map(|route| (&route.settings.host, &route.settings.path));
        route::find(patterns, authority, path).map(|at| &self.routes[at])
    }

    /// Has what is behind `route` answer a request.
    pub(crate) async fn answer(
        &self,
        route: &Route,
        request: Request,
        asker: &Asker,
    ) -> Result<Reply, Problem> {
        match &route.behind {
            Behind::Upstreams(_) => Ok(self.forward(route, request, asker).await),
            Behind::Files(files) => files.answer(&request.parts).await,
        }
    }

    /// The client that a request comes from, if whoever sends it is a proxy that is trusted.
    #[must_use]
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        self.trusted.client(peer, headers)
    }

    /// Asks the upstreams that have a health path for it, for as long as it is polled.
    pub(crate) async fn check_health(&self) {
        let mut ticks = tokio::time::interval(CHECK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let checked = || {
            let routes = self.routes.iter();
            routes.filter_map(|route| Some((route, route.settings.health.as_deref()?)))
        };
        if checked().next().is_none() {
            return std::future::pending().await;
        }
        loop {
            ticks.tick().await;
            let checks = checked().flat_map(|(route, path)| {
                let upstreams = route.upstreams();
                upstreams
                    .iter()
                    .map(move |upstream| upstream.check(path, CHECK))
            });
            futures_util::future::join_all(checks).await;
        }
    }
}

impl Route {
    fn upstreams(&self) -> &[Upstream] {
        match &self.behind {
            Behind::Upstreams(upstreams) => upstreams,
            Behind::Files(_) => &[],
        }
    }

    /// Whether it is for one path alone.
    #[must_use]
    pub(crate) fn is_exact(&self) -> bool {
        self.settings.path.is_exact()
    }

    /// Whether failures are told to whoever sends `request` so that it comes back.
    #[must_use]
    pub(crate) fn is_gentle_to(&self, request: &Request) -> bool {
        self.settings.gentle && headers::is_event_source(&request.parts)
    }

    /// Whether the app is told who asks.
    #[must_use]
    pub(crate) fn tells_identity(&self) -> bool {
        self.settings.identity
    }
}
