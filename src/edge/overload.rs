//! How the edge sees that it is asked for more than there is time or memory for, and what it does then.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock,
    limits::{Admission, BEAT, Limit, Watchdog},
    memory::OwnMemory,
    service::Context,
};

/// How long nothing must be done before that is said.
const STALL: Duration = Duration::from_secs(2);
/// How long it takes until the system has what was let go of.
const GIVEN_BACK: Duration = Duration::from_secs(2);

/// Looks how late the edge is, and how much memory it has, for as long as it is polled; when memory is
/// short it has go what can.
pub(super) async fn watch(context: Arc<Context>, admission: Arc<Admission>) {
    let mut memory = OwnMemory::new();
    let mut shortage = Shortage::default();
    loop {
        let due = clock::now() + BEAT;
        tokio::time::sleep_until(due.into()).await;
        let now = clock::now();
        context.lag.beat(now.saturating_duration_since(due));
        context.metrics.lag.set(context.lag.now().as_secs_f64());
        let taken = memory.resident();
        context.memory.set(taken);
        context.metrics.memory.set(taken as i64);
        shortage.relieve(&context, &admission, taken, now);
    }
}

/// That more memory is taken than there is.
#[derive(Default)]
struct Shortage {
    /// Whether it was so before.
    is_known: bool,
    /// Until when history that was let go of may still count.
    history_until: Option<Instant>,
}

impl Shortage {
    /// Has go what can, if so much is too much: connections whose peers take nothing, then idle ones, then
    /// the oldest history.
    fn relieve(&mut self, context: &Context, admission: &Admission, taken: usize, now: Instant) {
        let is_short = context.memory.is_short();
        let budget = context.limits.memory.value;
        if is_short && !self.is_known {
            tracing::warn!(
                "memory is short: {taken} bytes are taken of {budget} (limits.memory); what can go goes"
            );
        }
        self.is_known = is_short;
        if !is_short {
            return;
        }
        let ended = admission.shed(now);
        (0..ended).for_each(|_| context.hits.count(Limit::Memory));
        if ended == 0 && self.history_until.is_none_or(|until| until <= now) {
            // So much that it is not short again at once.
            let excess = context.memory.excess();
            let mut freed = context.hub.let_go(excess);
            freed += context.proxy.hub().let_go(excess.saturating_sub(freed));
            self.history_until = Some(now + GIVEN_BACK);
            if freed > 0 {
                tracing::warn!("memory is short: {freed} bytes of history go before their time");
            }
        }
    }
}

/// Says so when the edge does nothing at all, from a thread of its own, which ends with the edge.
pub(super) fn start_watchdog(context: &Arc<Context>) {
    let context = Arc::downgrade(context);
    let watching = move || {
        let mut watchdog = Watchdog::default();
        loop {
            std::thread::sleep(STALL);
            let Some(context) = context.upgrade() else {
                return;
            };
            if watchdog.look(&context.lag) {
                context.metrics.stalls.inc();
                tracing::error!(
                    "nothing was done for {} s: every worker is blocked",
                    STALL.as_secs()
                );
            }
        }
    };
    let thread = std::thread::Builder::new().name("watchdog".into());
    if let Err(error) = thread.spawn(watching) {
        tracing::warn!("there is no watchdog: {error}");
    }
}
