//! How the edge sees that it is asked for more than there is time or memory for, and what it does then.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock,
    limits::{Admission, BEAT, CONNECTION_BYTES, Limit, Watchdog},
    process::OwnMemory,
    service::Context,
};

/// How long nothing must be done before that is said.
const STALL: Duration = Duration::from_secs(2);
/// How much history is let go of at a time.
const SLICE: usize = 1 << 20;
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
        shortage.relieve(&context, &admission, taken, now).await;
    }
}

/// That more memory is taken than there is.
#[derive(Default)]
struct Shortage {
    /// Whether it is known.
    is_known: bool,
    /// How much was let go of that the system may not have yet, and until when that counts.
    on_its_way: usize,
    until: Option<Instant>,
}

impl Shortage {
    /// Has go what can, if so much is too much: connections whose peers take nothing, then idle ones, then
    /// the oldest history.
    async fn relieve(
        &mut self,
        context: &Context,
        admission: &Admission,
        taken: usize,
        now: Instant,
    ) {
        let (budget, excess) = (context.limits.memory.value, context.memory.excess());
        if self.until.is_some_and(|until| until <= now) {
            (self.on_its_way, self.until) = (0, None);
        }
        // There is some again only where there is some for whoever comes.
        self.is_known &= excess > 0;
        if taken.saturating_sub(self.on_its_way) <= budget {
            return;
        }
        if !std::mem::replace(&mut self.is_known, true) {
            tracing::warn!(
                "memory is short: {taken} bytes are taken of {budget} (limits.memory); what can go goes"
            );
        }
        let ended = admission.shed(now);
        (0..ended).for_each(|_| context.hits.count(Limit::Memory));
        let mut freed = ended * CONNECTION_BYTES;
        if ended == 0 {
            // So much that it is not short again at once.
            freed = let_go(context, excess - self.on_its_way).await;
            if freed > 0 {
                tracing::warn!("memory is short: {freed} bytes of history go before their time");
            }
        }
        if freed > 0 {
            self.on_its_way += freed;
            self.until = Some(now + GIVEN_BACK);
        }
    }
}

/// Lets go of about so much history, of the publishers' first and then of the apps'; how much it was.
async fn let_go(context: &Context, bytes: usize) -> usize {
    let mut freed = 0;
    for hub in [&context.hub, context.proxy.hub()] {
        while freed < bytes {
            match hub.let_go(SLICE.min(bytes - freed)) {
                0 => break,
                more => freed += more,
            }
            // Nobody waits for all of it.
            tokio::task::yield_now().await;
        }
    }
    freed
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
