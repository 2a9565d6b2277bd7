//! Event streams over HTTP/1.1 and HTTP/3, by the client: a task a stream.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, header};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::{
    explain,
    ledger::Subscriber,
    seat::{Opening, Order, Seat},
    stopped,
};
use crate::client::{ClientError, Connection, Response, Upload, full};

/// How long it waits for the server to learn that it leaves.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// Drives a connection until it is told to stop.
pub(super) async fn drive(
    connection: Connection,
    mut seat: Seat,
    mut orders: mpsc::Receiver<Order>,
    leave: oneshot::Sender<Vec<Subscriber>>,
) {
    let mut hands = Hands {
        // What cannot be shared is used up by the first stream.
        connection: Some(connection),
        seat: seat.clone(),
        streams: JoinSet::new(),
        requests: JoinSet::new(),
        waiting: VecDeque::new(),
    };
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => hands.follow(order).await,
                None => break,
            },
            Some(done) = hands.requests.join_next() => hands.take_back(done.ok().flatten()),
            () = stopped(&mut seat.stop) => break,
        }
    }
    hands.requests.shutdown().await;
    // Nobody counts them if the run was cut short.
    let _: Result<(), _> = leave.send(hands.streams.join_all().await);
    if let Some(connection) = hands.connection {
        // A server that does not answer learns it by itself.
        let _: Result<(), _> = tokio::time::timeout(FAREWELL, connection.close()).await;
    }
}

struct Hands {
    connection: Option<Connection>,
    seat: Seat,
    streams: JoinSet<Subscriber>,
    requests: JoinSet<Option<Connection>>,
    /// When ordinary requests were due that wait for a connection.
    waiting: VecDeque<u64>,
}

impl Hands {
    fn connection(&mut self) -> Option<Connection> {
        let shared = self.connection.as_ref()?.share();
        shared.or_else(|| self.connection.take())
    }

    /// A request is done; what cannot be shared carries the next one.
    fn take_back(&mut self, connection: Option<Connection>) {
        self.connection = self.connection.take().or(connection);
        self.ask();
    }

    /// Makes the ordinary requests that are due, as many as can be at a time.
    fn ask(&mut self) {
        while let Some(due) = self.waiting.front().copied() {
            let Some(connection) = self.connection() else {
                return;
            };
            self.waiting.pop_front();
            let seat = self.seat.clone();
            let asking = async move { request(&seat, connection, due).await };
            self.requests.spawn(asking);
        }
    }

    async fn follow(&mut self, order: Order) {
        match order {
            Order::Open {
                subscribers,
                opening,
                opened,
            } => {
                let mut all = Vec::new();
                for subscriber in subscribers {
                    let Some(connection) = self.connection() else {
                        let one = "HTTP/1.1 carries one stream a connection";
                        return self.seat.ledger.trouble(|| one.into());
                    };
                    let (told, open) = oneshot::channel();
                    let reading = read(connection, self.seat.clone(), subscriber, told);
                    self.streams.spawn(reading);
                    match opening {
                        Opening::Together => all.push(open),
                        // Whoever is gone has said why.
                        Opening::Paced => drop(open.await),
                    }
                }
                let mut stop = self.seat.stop.clone();
                tokio::select! {
                    _ = join_all(all) => {}
                    () = stopped(&mut stop) => {}
                }
                // Nobody waits any more if the run was cut short.
                let _: Result<(), ()> = opened.send(());
            }
            Order::Request { due } => {
                self.waiting.push_back(due);
                self.ask();
            }
            Order::Requests { at_a_time } => {
                for _ in 0..at_a_time {
                    let Some(mut connection) = self.connection() else {
                        return;
                    };
                    let seat = self.seat.clone();
                    self.requests.spawn(async move {
                        while let Some(again) = request(&seat, connection, seat.ledger.now()).await
                        {
                            connection = again;
                        }
                        None
                    });
                }
            }
        }
    }
}

/// Makes an ordinary request; gives the connection back if it still carries another.
async fn request(seat: &Seat, mut connection: Connection, due: u64) -> Option<Connection> {
    let answered = async {
        let mut response = connection.get(&seat.destination.request).await?;
        while response.chunk().await?.is_some() {}
        Ok::<_, ClientError>(response.status)
    };
    let patience = seat.destination.patience;
    let answered = tokio::time::timeout(patience, answered).await;
    let answered = answered.unwrap_or_else(|_| {
        seat.ledger.trouble(|| {
            format!(
                "an ordinary request had no answer in {} s",
                patience.as_secs()
            )
        });
        Err(ClientError::Timeout(seat.destination.origin.authority()))
    });
    match answered {
        Ok(status) => {
            let succeeded = status.is_success() || status.is_redirection();
            seat.ledger.answered(seat.shard, due, succeeded);
            Some(connection)
        }
        Err(error) => {
            seat.ledger
                .trouble(|| format!("an ordinary request: {}", explain(&error)));
            None
        }
    }
}

/// Opens a stream, says so, and reads it until the end of the run.
async fn read(
    mut connection: Connection,
    seat: Seat,
    mut subscriber: Subscriber,
    opened: oneshot::Sender<()>,
) -> Subscriber {
    let mut stop: watch::Receiver<bool> = seat.stop.clone();
    let is_open = AtomicBool::new(false);
    let reading = async {
        let asked = seat.ledger.now();
        let mut response = open(&mut connection, &seat, &subscriber).await?;
        seat.ledger.opened(asked);
        is_open.store(true, Ordering::Relaxed);
        // Nobody waits any more if the run was cut short.
        let _: Result<(), ()> = opened.send(());
        while let Some(piece) = response.chunk().await.map_err(|error| explain(&error))? {
            subscriber.take(&piece, seat.ledger.now(), seat.shard, &seat.ledger);
        }
        Err::<Infallible, String>(subscriber.end())
    };
    tokio::select! {
        ended = reading => {
            let Err(why) = ended;
            seat.ledger.ended(is_open.load(Ordering::Relaxed), || why);
        }
        () = stopped(&mut stop) => seat.ledger.left(usize::from(is_open.load(Ordering::Relaxed))),
    }
    subscriber
}

async fn open(
    connection: &mut Connection,
    seat: &Seat,
    subscriber: &Subscriber,
) -> Result<Response, String> {
    let path = seat.destination.path(subscriber);
    let mut request = Request::get(&path).header(header::ACCEPT, "text/event-stream");
    if !subscriber.scanner.last_id().is_empty() {
        request = request.header("last-event-id", subscriber.scanner.last_id());
    }
    let request: Request<Upload> = request
        .body(full(Bytes::new()))
        .map_err(|error| format!("{path}: {error}"))?;
    let mut response = connection
        .send(request)
        .await
        .map_err(|error| explain(&error))?;
    let content_type = response.headers.get(header::CONTENT_TYPE);
    let is_stream =
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    if response.status == 200 && is_stream {
        return Ok(response);
    }
    let first = response.chunk().await.ok().flatten().unwrap_or_default();
    Err(super::refusal(response.status.as_u16(), &first))
}
