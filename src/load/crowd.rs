//! The connections and the event streams on them, whatever the protocol.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    ledger::{Ledger, Subscriber},
    seat::{Destination, Opening, Order, Seat},
    wire_h2, wire_other,
};
use crate::{
    backoff,
    client::{ClientError, Connection, Protocol},
    clock,
};

/// How many connections are being made at a time, and how many have streams being opened.
const AT_A_TIME: usize = 32;
/// How long it waits before it tries again to connect, give or take half of it.
const AGAIN: Duration = Duration::from_millis(200);
/// How many orders wait for a connection.
const ORDERS: usize = 1024;

/// How connections are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// How many at a time.
    pub(super) at_a_time: usize,
    /// How long each is tried again; `None` for once.
    pub(super) patience: Option<Duration>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            at_a_time: AT_A_TIME,
            patience: None,
        }
    }
}

/// A connection that is driven by a task of its own.
#[derive(Debug)]
struct Link {
    orders: mpsc::Sender<Order>,
    /// Those who read on it, once it has stopped.
    left: oneshot::Receiver<Vec<Subscriber>>,
}

/// Connections, and those who read on them.
#[derive(Debug)]
pub(super) struct Crowd {
    links: Vec<Link>,
    stop: watch::Sender<bool>,
    at_a_time: usize,
}

impl Crowd {
    /// Makes so many connections.
    pub(super) async fn connect(
        destination: &Arc<Destination>,
        ledger: &Arc<Ledger>,
        connections: usize,
        manner: Manner,
    ) -> Result<Self, ClientError> {
        let (stop, stopped) = watch::channel(false);
        let links = stream::iter(0..connections)
            .map(|shard| {
                let seat = Seat {
                    destination: destination.clone(),
                    ledger: ledger.clone(),
                    shard,
                    stop: stopped.clone(),
                };
                link(seat, manner.patience)
            })
            .buffered(manner.at_a_time)
            .try_collect()
            .await?;
        Ok(Self {
            links,
            stop,
            at_a_time: manner.at_a_time,
        })
    }

    /// Opens streams for the subscribers, the same number on each connection.
    ///
    /// Comes back when all are open, or when a connection is gone: then the ledger knows why.
    pub(super) async fn open(&self, subscribers: Vec<Subscriber>, opening: Opening) {
        let each = subscribers.len().div_ceil(self.links.len()).max(1);
        let mut subscribers = subscribers.into_iter();
        let parts = self.links.iter().map(|link| {
            let part: Vec<_> = subscribers.by_ref().take(each).collect();
            async move {
                let (opened, done) = oneshot::channel();
                let order = Order::Open {
                    subscribers: part,
                    opening,
                    opened,
                };
                if link.orders.send(order).await.is_ok() {
                    // Whoever is gone has said why.
                    let _: Result<(), oneshot::error::RecvError> = done.await;
                }
            }
        });
        let parts: Vec<_> = parts.collect();
        stream::iter(parts)
            .buffer_unordered(self.at_a_time)
            .for_each(|()| async {})
            .await;
    }

    /// Those to whom orders for ordinary requests go.
    pub(super) fn orders(&self) -> Vec<mpsc::Sender<Order>> {
        self.links.iter().map(|link| link.orders.clone()).collect()
    }

    /// Ends all connections. Those who read are given back, to count or to come back; the server may learn it
    /// a little later.
    pub(super) async fn leave(self) -> Vec<Subscriber> {
        self.stop.send_replace(true);
        let mut subscribers = Vec::new();
        for link in self.links {
            subscribers.extend(link.left.await.expect("a driver does not panic"));
        }
        subscribers
    }
}

async fn link(seat: Seat, patience: Option<Duration>) -> Result<Link, ClientError> {
    let begun = clock::now();
    loop {
        match try_link(seat.clone()).await {
            Err(_) if patience.is_some_and(|patience| begun.elapsed() < patience) => {
                tokio::time::sleep(backoff::jittered_by_half(AGAIN, fastrand::f64())).await;
            }
            tried => return tried,
        }
    }
}

async fn try_link(seat: Seat) -> Result<Link, ClientError> {
    let (orders, ordered) = mpsc::channel(ORDERS);
    let Destination {
        origin, protocol, ..
    } = &*seat.destination;
    let (leave, left) = oneshot::channel();
    let ledger = seat.ledger.clone();
    if *protocol == Protocol::Http2 {
        let wire = origin.in_time(origin.stream(Protocol::Http2)).await?;
        tokio::spawn(wire_h2::drive(wire, seat, ordered, leave));
    } else {
        let connection = Connection::open(origin, *protocol).await?;
        tokio::spawn(wire_other::drive(connection, seat, ordered, leave));
    }
    ledger.connected();
    Ok(Link { orders, left })
}
