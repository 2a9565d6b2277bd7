//! Telling every task that the edge is ending in good order.

use std::time::Duration;

use tokio::sync::watch;

/// `[drain]`
#[derive(Clone, Copy, Debug)]
pub struct DrainSettings {
    /// `drain.spread`
    pub spread: Duration,
    /// `drain.grace`
    pub grace: Duration,
}

/// Starts the drain. Dropping it without starting starts it too: nobody is left to wait for.
#[derive(Debug)]
pub(crate) struct Trigger(watch::Sender<bool>);

/// Held by each task that has to end when the edge drains.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<bool>);

#[must_use]
pub(crate) fn channel() -> (Trigger, Watch) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Watch(receiver))
}

impl Trigger {
    /// Starts the drain: every watch sees it.
    pub(crate) fn start(&self) {
        self.0.send_replace(true);
    }
}

impl Watch {
    /// Whether the drain has started.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        // Nothing else ever changes, and no watch takes note of it; an error means that the signal is gone.
        self.0.has_changed().unwrap_or(true)
    }

    /// Returns once the drain has started. Cancel-safe.
    pub async fn draining(mut self) {
        // An error means that the signal is gone, which is the same news.
        let _: Result<_, _> = self.0.wait_for(|draining| *draining).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_watch_sees_the_start_also_a_late_one() {
        let (signal, watch) = channel();
        assert!(!watch.is_draining());
        let waiting = tokio::spawn(watch.clone().draining());
        signal.start();
        waiting.await.expect("it does not panic");
        assert!(watch.is_draining());
        watch.draining().await;
    }

    #[tokio::test]
    async fn a_signal_that_is_gone_is_a_start() {
        let (signal, watch) = channel();
        drop(signal);
        assert!(watch.is_draining());
        watch.draining().await;
    }
}
