//! Reading the whole order, once for all clients of this edge.
//!
//! A consumer of our own kind: it is made anew whenever anything is odd, from the frame after the last that was
//! applied, after it was looked whether the order is still the same.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use tokio::sync::{Notify, watch};

use super::{
    applier::{Applier, Position},
    broker::{Broker, BrokerError, Consumer, Delivered, StreamInfo},
    follow::{BEHIND, PAUSE, follow},
    metrics::ClusterMetrics,
};
use crate::{
    clock,
    hub::{Hub, Retention},
};

/// How often, and after how long each time, it is asked again before the order is taken for another, or frames for gone.
const SURE: usize = 2;
/// How long a client is left to itself that is not connected, and how long an order that is not for this version.
const LONG: Duration = Duration::from_secs(10);
/// By how much the clocks of edges and servers may disagree.
const SKEW: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(1500);

/// What reads.
pub(super) struct Reader {
    pub(super) broker: Broker,
    pub(super) applier: Arc<Applier>,
    pub(super) metrics: ClusterMetrics,
    /// Whether there is a connection.
    pub(super) connected: watch::Receiver<bool>,
    /// Something is odd: it is to be looked whether the order is still the same.
    pub(super) doubt: Arc<Notify>,
    /// Whether the order is there.
    pub(super) is_open: watch::Sender<bool>,
    /// The frame that a later version has written.
    pub(super) not_for_it: Option<u64>,
}

/// The first frame that is read of a stream, so that the rings are filled and all is known that may come again, and no
/// more.
pub(super) async fn beginning(
    broker: &Broker,
    info: &StreamInfo,
    retention: &Retention,
) -> Result<u64, BrokerError> {
    let first = first_to_fill(info, retention.total_bytes);
    if info.frames == 0 {
        return Ok(first);
    }
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    // One that was sent again in this time may repeat one from before it; and clocks disagree.
    let since = now.saturating_sub(2 * retention.duplicates_age + SKEW);
    let since = u64::try_from(since.as_millis()).unwrap_or_default();
    broker.first_since(info.first, first, since).await
}

/// The first frame of those that the rings hold.
fn first_to_fill(info: &StreamInfo, hub_bytes: usize) -> u64 {
    let after = info.last + 1;
    if info.frames == 0 {
        return after;
    }
    let each = (info.bytes / info.frames).max(1);
    let frames = (hub_bytes as u64 / each).max(1);
    after.saturating_sub(frames).max(info.first).max(1)
}

impl Reader {
    /// Reads for ever.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE.start;
        loop {
            let why = match self.begin().await {
                Ok((consumer, last)) => {
                    self.metrics.consumers.inc();
                    self.read(consumer, last).await
                }
                Err(BrokerError::Away(why)) => why,
                Err(error) => {
                    tracing::error!("the order cannot be read: {error}");
                    error.to_string()
                }
            };
            self.metrics.connected.set(0);
            if self.is_open.send_replace(false) {
                pause = PAUSE.start;
                tracing::warn!("the order of the cluster is away: {why}");
            } else {
                tracing::debug!("the order of the cluster is still away: {why}");
            }
            if self.not_for_it == Some(self.applier.position().sequence + 1) {
                // It is as it was until an operator does something.
                pause = LONG;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.end);
        }
    }

    /// Looks whether the order is still the same, and makes what reads on. The last frame that there is by now.
    async fn begin(&mut self) -> Result<(Consumer, u64), BrokerError> {
        let connected = self.connected.wait_for(|connected| *connected);
        if tokio::time::timeout(LONG, connected).await.is_err() {
            // Whatever the client waits for, another may be let in.
            self.broker.connect_anew().await?;
        }
        let info = self.broker.stream().await?;
        if let Some(misfit) = &info.misfit {
            tracing::error!("{misfit}");
        }
        let mut info = self.check(info).await?;
        let from = self.applier.position().sequence + 1;
        let mut following = self.following(from, &info).await?;
        // It may have let go of its oldest meanwhile; and a server that has slept may say for a moment what was.
        for _ in 0..SURE {
            if following > from && info.first <= from {
                tokio::time::sleep(MOMENT).await;
                info = self.broker.stream().await?;
                following = following.min(self.following(from, &info).await?);
            }
        }
        if info.first > from {
            let first = beginning(&self.broker, &info, self.applier.hub.retention()).await?;
            skip(&self.applier, from, first);
        } else if following > from {
            // They are gone from the middle: nobody who reads it from now on has them.
            tracing::warn!(
                "frames {from} to {} of the order were taken out of it",
                following - 1
            );
            self.applier.pass_over(following - 1);
        }
        let from = self.applier.position().sequence + 1;
        let stream = self.broker.order_stream();
        let consumer = self.broker.consume(stream, from).await?;
        if consumer.pending == 0 && from <= info.last {
            return Err(BrokerError::Away(BEHIND.into()));
        }
        Ok((consumer, info.last))
    }

    /// The first frame that is there from this number on: the next there will be, if there is none.
    async fn following(&self, from: u64, info: &StreamInfo) -> Result<u64, BrokerError> {
        if from > info.last {
            return Ok(from);
        }
        let found = self.broker.frame_from(from).await?;
        Ok(found.map_or(info.last + 1, |(found, _)| found))
    }

    /// Looks whether the order is the one that was read before: if not, its epoch is another's too, and all begins anew.
    async fn check(&self, mut info: StreamInfo) -> Result<StreamInfo, BrokerError> {
        let hub: &Hub = &self.applier.hub;
        let known = hub.cursor().epoch;
        let (mut epoch, revision) = self.broker.epoch(&info).await?;
        if epoch == known {
            // A server that has slept may say for a moment what was.
            for _ in 0..SURE {
                if !self.is_forked(&info).await? {
                    return Ok(info);
                }
                tokio::time::sleep(MOMENT).await;
                info = self.broker.stream().await?;
            }
            if !self.is_forked(&info).await? {
                return Ok(info);
            }
            self.broker.draw_epoch(revision, &info).await?;
            epoch = self.broker.epoch(&info).await?.0;
        }
        tracing::error!(
            "the order is another than the one this edge has read: it was removed, or put back to what it was; all ids \
             from before are of no history any more, and clients are told `restart`"
        );
        self.metrics.forks.inc();
        let first = beginning(&self.broker, &info, hub.retention()).await?;
        self.applier.begin_anew(epoch, first);
        Ok(info)
    }

    async fn is_forked(&self, info: &StreamInfo) -> Result<bool, BrokerError> {
        let Position { sequence, id } = self.applier.position().clone();
        if info.last < sequence {
            return Ok(true);
        }
        let Some(id) = id.filter(|_| info.first <= sequence && sequence > 0) else {
            return Ok(false);
        };
        let there = self.broker.frame_id(sequence).await?;
        Ok(there.is_some_and(|there| there != id))
    }

    /// Reads until something is odd: what.
    async fn read(&mut self, consumer: Consumer, last: u64) -> String {
        let Self {
            applier,
            metrics,
            connected,
            doubt,
            is_open,
            not_for_it,
            ..
        } = self;
        let is_read = || {
            if is_open.send_if_modified(|is_open| !std::mem::replace(is_open, true)) {
                tracing::info!("the order of the cluster is there");
                metrics.connected.set(1);
            }
        };
        if consumer.pending == 0 {
            is_read();
        }
        let take = |frame: Option<Delivered>| {
            let Some(frame) = frame else {
                // What was to come yet is gone, or is not where it is brought from.
                let is_open = *is_open.borrow();
                return if is_open { Ok(()) } else { Err(BEHIND.into()) };
            };
            let next = applier.position().sequence + 1;
            if frame.sequence != next {
                // None of the consumer's is missing: they are gone from the stream. It is looked why.
                return Err(format!("frame {} instead of {next}", frame.sequence));
            }
            if let Err(error) = applier.apply(&frame) {
                let why = format!("message {next} of the order is not for this version: {error}");
                if not_for_it.replace(next) != Some(next) {
                    tracing::error!("{why}; run the version that the other edges have");
                }
                return Err(why);
            }
            metrics.applied.inc();
            if frame.pending == 0 {
                if frame.sequence < last {
                    return Err(BEHIND.into());
                }
                is_read();
            }
            Ok(())
        };
        tokio::select! {
            why = follow(consumer, connected, take) => why,
            () = doubt.notified() => "the order is in doubt".into(),
        }
    }
}

/// Frames are gone that this edge has not applied: its readers begin anew behind them, and are told.
fn skip(applier: &Applier, from: u64, first: u64) {
    tracing::warn!(
        "frames {from} to {} of the order are passed over: they are gone",
        first - 1
    );
    let epoch = applier.hub.cursor().epoch;
    applier.begin_anew(epoch, first);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_read_as_the_rings_hold() {
        let info = |first, last, bytes| StreamInfo {
            first,
            last,
            frames: last + 1 - first,
            bytes,
            ..StreamInfo::default()
        };
        assert_eq!(first_to_fill(&info(1, 0, 0), 1000), 1);
        assert_eq!(first_to_fill(&info(8, 7, 0), 1000), 8);
        assert_eq!(first_to_fill(&info(1, 5, 500), 1000), 1);
        assert_eq!(first_to_fill(&info(1, 100, 10_000), 1000), 91);
        assert_eq!(first_to_fill(&info(50, 100, 51_000), 10), 100);
    }
}
