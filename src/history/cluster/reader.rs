//! Reading the whole order, once for all clients of this edge.
//!
//! A consumer of our own kind: it is made anew whenever anything is odd, from the frame after the last that was
//! applied, after it was looked whether the order is still the same.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};

use super::{
    applier::{Applier, Position},
    broker::{Broker, BrokerError, Consumer, Pulled, StreamInfo},
    metrics::ClusterMetrics,
};
use crate::hub::Hub;

/// How long neither a frame nor a heartbeat may come.
const SILENCE: Duration = Duration::from_millis(1500);
/// How long is waited between two tries to begin, at first and at most.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(1);

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
}

/// The first frame that is read of a stream, so that the rings are filled and no more.
pub(super) fn first_to_read(info: &StreamInfo, hub_bytes: usize) -> u64 {
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
                    pause = PAUSE.start;
                    self.read(consumer, last).await
                }
                Err(BrokerError::Away(why)) => why,
                Err(error) => {
                    tracing::error!("the order cannot be read: {error}");
                    error.to_string()
                }
            };
            self.is_open.send_replace(false);
            self.metrics.connected.set(0);
            tracing::debug!("the order is read anew: {why}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.end);
        }
    }

    /// Looks whether the order is still the same, and makes what reads on. The last frame that there is by now.
    async fn begin(&mut self) -> Result<(Consumer, u64), BrokerError> {
        let closed = |_| BrokerError::Away("the edge ends".into());
        self.connected
            .wait_for(|connected| *connected)
            .await
            .map_err(closed)?;
        let info = self.broker.stream().await?;
        self.check(&info).await?;
        let from = self.applier.position().sequence + 1;
        if info.first > from {
            let first = first_to_read(&info, self.applier.hub.retention().total_bytes);
            self.skip(from, first);
        }
        let from = self.applier.position().sequence + 1;
        Ok((self.broker.consume(from).await?, info.last))
    }

    /// Frames are gone that this edge has not applied: its readers begin anew behind them, and are told.
    fn skip(&self, from: u64, first: u64) {
        tracing::warn!(
            "frames {from} to {} of the order are passed over: they are gone",
            first - 1
        );
        let epoch = self.applier.hub.cursor().epoch;
        self.applier.begin_anew(epoch, first);
    }

    /// Whether the order is the one that was read before: if not, its epoch is another's too, and all begins anew.
    async fn check(&self, info: &StreamInfo) -> Result<(), BrokerError> {
        let hub: &Hub = &self.applier.hub;
        let (mut epoch, revision) = self.broker.epoch().await?;
        let known = hub.cursor().epoch;
        let forked = epoch != known || self.is_forked(info).await?;
        if !forked {
            return Ok(());
        }
        if epoch == known {
            self.broker.draw_epoch(revision).await?;
            epoch = self.broker.epoch().await?.0;
        }
        tracing::error!(
            "the order is another than the one this edge has read: it was removed, or put back to what it was; all ids \
             from before are of no history any more, and clients are told `restart`"
        );
        self.metrics.forks.inc();
        let first = first_to_read(info, hub.retention().total_bytes);
        self.applier.begin_anew(epoch, first);
        Ok(())
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
    async fn read(&mut self, mut consumer: Consumer, last: u64) -> String {
        let mut nth = 0;
        if let Err(error) = consumer.pull().await {
            return error.to_string();
        }
        loop {
            if self.applier.position().sequence >= last && !*self.is_open.borrow() {
                self.is_open.send_replace(true);
                self.metrics.connected.set(1);
            }
            let pulled = tokio::select! {
                biased;
                pulled = tokio::time::timeout(SILENCE, consumer.next()) => pulled,
                () = self.doubt.notified() => return "the order is in doubt".into(),
                lost = self.connected.wait_for(|connected| !connected) => {
                    drop(lost);
                    return "the connection is lost".into();
                }
            };
            let is_over = match pulled {
                Err(_) => return "neither a frame nor a heartbeat".into(),
                Ok(Pulled::Gone(why)) => return why,
                Ok(Pulled::Heartbeat) => false,
                Ok(Pulled::Over) => true,
                Ok(Pulled::Frame(frame)) => {
                    nth += 1;
                    if frame.nth != nth {
                        return format!("message {} of the consumer instead of {nth}", frame.nth);
                    }
                    let before = self.applier.position().sequence;
                    if frame.sequence > before + 1 {
                        // None of the consumer's is missing: they are gone from the stream.
                        self.skip(before + 1, frame.sequence);
                    }
                    if frame.sequence > before {
                        self.applier
                            .apply(frame.sequence, frame.millis, &frame.payload);
                    }
                    // Others have their turn.
                    if nth % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                    consumer.is_over()
                }
            };
            if is_over && let Err(error) = consumer.pull().await {
                return error.to_string();
            }
        }
    }
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
        assert_eq!(first_to_read(&info(1, 0, 0), 1000), 1);
        assert_eq!(first_to_read(&info(8, 7, 0), 1000), 8);
        assert_eq!(first_to_read(&info(1, 5, 500), 1000), 1);
        assert_eq!(first_to_read(&info(1, 100, 10_000), 1000), 91);
        assert_eq!(first_to_read(&info(50, 100, 51_000), 10), 100);
    }
}
