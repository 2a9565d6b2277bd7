//! The apps of a route: which of them is asked.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use http::Request;

use super::{
    health::{Fitness, Health},
    upload::empty,
};
use crate::{
    exchange::RequestBody,
    outbound::{Address, AppClient},
};

/// One app.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) app: AppClient<RequestBody>,
    /// Requests under way hold it too.
    busy: Arc<()>,
    health: Mutex<Health>,
}

/// A request is under way while this lives.
#[derive(Debug)]
pub(super) struct Busy(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Upstream {
    pub(super) fn new(address: Address, connect: Duration) -> Self {
        Self {
            app: AppClient::new(address, connect),
            busy: Arc::default(),
            health: Mutex::default(),
        }
    }

    pub(super) fn begin(&self) -> Busy {
        Busy(self.busy.clone())
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("no holder of this lock panics")
    }

    /// Asks for its health path: well is whoever answers below 400 in time.
    pub(super) async fn check(&self, path: &str, within: Duration) {
        let address = self.app.address();
        let target = path.parse().expect("it was checked with the configuration");
        let mut request = Request::new(empty());
        *request.uri_mut() = address.uri(target);
        let answered = tokio::time::timeout(within, self.app.ask(request)).await;
        let well = matches!(answered, Ok(Ok(response)) if response.status().as_u16() < 400);
        if self.health().checked(well) {
            let says = if well {
                "is well again"
            } else {
                "is not well, and is left alone"
            };
            tracing::warn!("{address} {says}");
        }
    }

    fn load(&self) -> usize {
        Arc::strong_count(&self.busy) - 1
    }
}

/// One request's turn at finding out whether an upstream is back, if it is that.
pub(super) struct Turn<'u> {
    pub(super) upstream: &'u Upstream,
    probes: bool,
}

impl Turn<'_> {
    pub(super) fn answered(mut self) {
        self.probes = false;
        self.upstream.health().answered();
    }

    pub(super) fn failed(mut self, now: Instant, unreachable: bool) {
        self.probes = false;
        self.upstream.health().failed(now, unreachable);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.probes {
            self.upstream.health().abandoned();
        }
    }
}

/// The least busy of `upstreams` that is fit and not among those `tried`. One that has rested is asked
/// first, by one request that `can_repeat` elsewhere. Where none is fit, the one whose rest ends first: it
/// is better to ask than to give up.
pub(super) fn pick<'u>(
    upstreams: &'u [Upstream],
    tried: &[usize],
    can_repeat: bool,
    now: Instant,
) -> Option<(usize, Turn<'u>)> {
    let left = || {
        let all = upstreams.iter().enumerate();
        all.filter(|(at, _)| !tried.contains(at))
    };
    let turn = |(at, upstream): (usize, &'u Upstream), probes| (at, Turn { upstream, probes });
    if can_repeat && upstreams.len() > 1 {
        for (at, upstream) in left() {
            let mut health = upstream.health();
            if health.fitness(now) == Fitness::Probe {
                health.probed();
                return Some(turn((at, upstream), true));
            }
        }
    }
    // Those that are as busy get their turns by chance.
    let fit = left().filter(|(_, upstream)| upstream.health().fitness(now) == Fitness::Up);
    let least = fit.min_by_key(|(_, upstream)| (upstream.load(), fastrand::u32(..)));
    let chosen = least.or_else(|| left().min_by_key(|(_, upstream)| upstream.health().back()));
    chosen.map(|chosen| turn(chosen, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn upstreams(n: u16) -> Vec<Upstream> {
        let address = |n| Address::parse(&format!("http://127.0.0.1:{}", n + 1));
        (0..n)
            .map(|n| Upstream::new(address(n).expect("an address"), Duration::from_secs(1)))
            .collect()
    }

    #[tokio::test]
    async fn the_least_busy_that_is_fit_is_asked() {
        let all = upstreams(3);
        let now = clock::now();
        let picked = |tried: &[usize], can_repeat, now| {
            pick(&all, tried, can_repeat, now).map(|(at, turn)| {
                let probes = turn.probes;
                drop(turn);
                (at, probes)
            })
        };
        let _busy = [all[0].begin(), all[0].begin(), all[1].begin()];
        assert_eq!(picked(&[], true, now), Some((2, false)));
        assert_eq!(picked(&[2], true, now), Some((1, false)));
        all[2].health().failed(now, true);
        assert_eq!(picked(&[], true, now), Some((1, false)));
        let later = now + Duration::from_secs(1);
        assert_eq!(picked(&[], true, later), Some((2, true)));
        assert_eq!(picked(&[], false, later), Some((1, false)));
        all[0].health().failed(later, true);
        all[1].health().failed(later, true);
        assert_eq!(picked(&[], false, later), Some((2, false)));
        assert_eq!(picked(&[0, 1, 2], false, later), None);
    }
}
