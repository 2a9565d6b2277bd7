//! The routes, each with what is behind it.

use std::{sync::Arc, time::Duration};

use super::{
    files::Files,
    headers,
    route::{self, RouteSettings, Target},
    upstream::Upstream,
};
use crate::exchange::Request;

/// How often an upstream is asked for its health path.
const CHECK: Duration = Duration::from_secs(5);

/// The routes.
#[derive(Debug)]
pub(super) struct Table(Vec<Arc<Route>>);

/// A route, and what is behind it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(super) settings: RouteSettings,
    pub(super) behind: Behind,
}

/// What is behind a route.
#[derive(Debug)]
pub(super) enum Behind {
    Upstreams(Vec<Upstream>),
    Files(Files),
}

impl Table {
    /// These routes, to whose apps connecting may take so long.
    pub(super) fn new(routes: &[RouteSettings], connect: Duration) -> Self {
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
        Self(routes.iter().map(route).map(Arc::new).collect())
    }

    /// The most specific route that a request is for.
    pub(super) fn find(&self, authority: &str, path: &str) -> Option<&Arc<Route>> {
        if self.0.is_empty() {
            return None;
        }
        let patterns = self.0.iter();
        let patterns = patterns.map(|route| (&route.settings.host, &route.settings.path));
        route::find(patterns, authority, path).map(|at| &self.0[at])
    }

    /// Asks the upstreams that have a health path for it, for as long as it is polled.
    pub(super) async fn check_health(&self) {
        let mut ticks = tokio::time::interval(CHECK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let checked = || {
            let routes = self.0.iter();
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
    pub(super) fn upstreams(&self) -> &[Upstream] {
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

    /// Whether it matters who asks.
    #[must_use]
    pub(crate) fn settles_identity(&self) -> bool {
        self.settings.identity || self.settings.hub
    }

    /// Whether the app is told who asks.
    #[must_use]
    pub(crate) fn tells_identity(&self) -> bool {
        self.settings.identity
    }
}
