//! What the driver of a connection is given, and what it can be told.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    ledger::{Ledger, Subscriber},
    target,
};
use crate::client::{Origin, Protocol};

/// How the streams of a connection are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// All at once, as a page does.
    Together,
    /// Each when the one before it is open.
    Paced,
}

/// Where streams and ordinary requests go.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) origin: Origin,
    pub(super) protocol: Protocol,
    /// The template of a stream's path.
    pub(super) subscribe: String,
    /// The path of ordinary requests.
    pub(super) request: String,
    /// How long it may take to get on with anything.
    pub(super) patience: Duration,
    /// Closed once all connections to it are, and the server knows.
    pub(super) presence: mpsc::Sender<Infallible>,
}

impl Destination {
    /// The same, with connections that resume the session of an earlier one.
    pub(super) fn resuming(&self) -> Self {
        Self {
            origin: self.origin.clone().resuming(),
            subscribe: self.subscribe.clone(),
            request: self.request.clone(),
            presence: self.presence.clone(),
            ..*self
        }
    }

    /// The path of a subscriber's stream.
    pub(super) fn path(&self, subscriber: &Subscriber) -> String {
        target::fill(&self.subscribe, &target::topic(subscriber.topic), "")
    }
}

/// What a connection is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Open streams for these, and say when all are open.
    Open {
        subscribers: Vec<Subscriber>,
        opening: Opening,
        opened: oneshot::Sender<()>,
    },
    /// Make an ordinary request that is due at this moment.
    Request { due: u64 },
    /// Go on making ordinary requests, so many at a time.
    Requests { at_a_time: usize },
}

/// What a connection is driven with.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) destination: Arc<Destination>,
    pub(super) ledger: Arc<Ledger>,
    /// Which of the shared histograms it writes into.
    pub(super) shard: usize,
    pub(super) stop: watch::Receiver<bool>,
}
