//! Sending what is published: all that has come meanwhile in one frame, and the next once that is stored.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::{
    applier::{Applier, Waiter},
    broker::{Broker, BrokerError},
    frame::{self, FrameId},
    metrics::ClusterMetrics,
};
use crate::{
    clock,
    history::{NotStored, record::Encoded},
};

/// How long a publisher waits for the order to be there.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long it is tried to store a frame.
const TRYING: Duration = Duration::from_secs(10);
/// How long is waited between two tries, at first and at most.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(20)..Duration::from_secs(1);

/// An entry on its way, and who waits for it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) encoded: Encoded,
    pub(super) waiter: Waiter,
    pub(super) at: Instant,
    /// Given back once it is in a frame.
    pub(super) room: OwnedSemaphorePermit,
}

/// What sends.
pub(super) struct Sender {
    pub(super) broker: Broker,
    pub(super) applier: Arc<Applier>,
    pub(super) metrics: ClusterMetrics,
    pub(super) items: mpsc::Receiver<Item>,
    /// Whether the order is there.
    pub(super) is_open: watch::Receiver<bool>,
    /// Which frame was the last.
    pub(super) last: FrameId,
}

impl Sender {
    /// Sends until nobody hands over more and all is sent.
    pub(super) async fn run(mut self) {
        let mut held: Option<Item> = None;
        loop {
            let first = match held.take() {
                Some(item) => Some(item),
                None => tokio::select! {
                    item = self.items.recv() => match item {
                        Some(item) => Some(item),
                        None => return,
                    },
                    () = self.applier.wants_frame() => None,
                },
            };
            let mut items = Vec::new();
            let (mut bytes, largest) = (0, self.broker.largest());
            let mut next = first;
            while let Some(item) = next {
                let cost = frame::cost(&item.encoded);
                if !items.is_empty() && (bytes + cost > largest || items.len() == frame::ENTRIES) {
                    held = Some(item);
                    break;
                }
                bytes += cost;
                items.push(item);
                next = self.items.try_recv().ok();
            }
            self.send(items).await;
        }
    }

    async fn send(&mut self, items: Vec<Item>) {
        let until = items.first().map_or_else(clock::now, |item| item.at) + PATIENCE;
        let open = self.is_open.wait_for(|is_open| *is_open);
        let is_open = tokio::time::timeout_at(until.into(), open).await.is_ok();
        if !is_open {
            for item in items {
                let _: Result<(), _> = item.waiter.answer.send(Err(NotStored::Away));
            }
            return;
        }
        self.last.number += 1;
        let id = self.last;
        let frame: Bytes = frame::encode(id, items.iter().map(|item| &item.encoded)).into();
        // What is in memory for it counts until it is stored.
        let (waiters, _rooms): (Vec<Waiter>, Vec<_>) = items
            .into_iter()
            .map(|item| (item.waiter, item.room))
            .unzip();
        self.applier.is_sent(id, waiters);
        match self.store(id, frame).await {
            Ok(sequence) => {
                self.metrics.frames.inc();
                self.applier.is_stored(id, sequence);
            }
            Err(why) => self.applier.is_not_stored(id, &why),
        }
    }

    /// Stores a frame: asked again with the same name, the servers store it once.
    async fn store(&self, id: FrameId, frame: Bytes) -> Result<u64, NotStored> {
        let until = clock::now() + TRYING;
        let (mut pause, mut is_unsure) = (PAUSE.start, false);
        loop {
            let error = match self.broker.store(id, frame.clone()).await {
                Ok(sequence) => return Ok(sequence),
                Err(error) => error,
            };
            match &error {
                BrokerError::Away(why) => {
                    tracing::debug!("frame {id} is sent again: {why}");
                    self.metrics.retries.inc();
                    is_unsure = true;
                }
                // A copy that nobody answered for may be stored.
                _ if is_unsure => {
                    tracing::error!("the order is not taken: {error}");
                    return Err(NotStored::Unknown);
                }
                _ if error.is_full() => {
                    tracing::error!("the order has no room: {error}");
                    return Err(NotStored::Full);
                }
                _ if error.is_too_large() => {
                    return Err(NotStored::Failed(format!(
                        "a frame of {} bytes is too large for the servers; set max_payload to 1MB there",
                        frame.len()
                    )));
                }
                _ => {
                    tracing::error!("the order is not taken: {error}");
                    return Err(NotStored::Failed(error.to_string()));
                }
            }
            if clock::now() + pause >= until {
                return Err(NotStored::Unknown);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.end);
        }
    }
}
