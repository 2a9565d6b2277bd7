//! A timer that is set anew only when its moment changes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

/// A moment that a task waits for, among other things.
#[derive(Debug)]
pub(super) struct Deadline {
    sleep: Pin<Box<Sleep>>,
    /// What `sleep` is set to.
    at: Option<Instant>,
}

impl Deadline {
    pub(super) fn new() -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            at: None,
        }
    }

    /// Ready once `at` has come. The moment may be another at each call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        if self.at != Some(at) {
            self.sleep.as_mut().reset(at.into());
            self.at = Some(at);
        }
        let polled = self.sleep.as_mut().poll(cx);
        if polled.is_ready() {
            self.at = None;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_moment_may_change_while_it_is_waited_for() {
        let now: Instant = tokio::time::Instant::now().into();
        let mut deadline = Deadline::new();
        let later = now + Duration::from_secs(60);
        poll_fn(|cx| {
            assert!(deadline.poll(cx, later).is_pending());
            Poll::Ready(())
        })
        .await;
        let sooner = now + Duration::from_secs(1);
        poll_fn(|cx| deadline.poll(cx, sooner)).await;
        assert_eq!(tokio::time::Instant::now(), sooner.into());
        poll_fn(|cx| deadline.poll(cx, later)).await;
        assert_eq!(tokio::time::Instant::now(), later.into());
    }
}
