//! Publishing: in step with a clock that does not wait for the server, or flat out.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use http::{Request, header};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Plan, Rate, explain,
    ledger::{Ledger, new_histogram},
    pace::{self, Due},
    refusal,
    stamp::Stamp,
    stopped,
    target::{self, Publish},
    zipf::Zipf,
};
use crate::{
    client::{Connection, Origin, Protocol, full},
    clock,
};

/// How many events may be on their way when it publishes flat out: enough that the server never waits for
/// the harness, and few enough that no subscriber falls behind what the server keeps.
const ON_THEIR_WAY: u64 = 64;

/// Who publishes, and to whom.
#[derive(Debug)]
pub(super) struct Publishing {
    plan: Plan,
    how: Publish,
    origin: Origin,
    path: String,
    ledger: Arc<Ledger>,
    /// How many read each topic.
    receivers: Vec<u64>,
    /// How events spread over topics, if not evenly.
    zipf: Option<Zipf>,
    published: AtomicU64,
    expected: AtomicU64,
    /// For each topic, how many events.
    by_topic: Mutex<Vec<u64>>,
    latency: Mutex<Histogram<u64>>,
}

impl Publishing {
    pub(super) fn new(
        plan: &Plan,
        ledger: &Arc<Ledger>,
        receivers: Vec<u64>,
        zipf: Option<Zipf>,
    ) -> Result<Self, super::LoadError> {
        let how = plan.target.publish.clone();
        let how = how.ok_or(super::LoadError::NoPublisher)?;
        let (origin, path) = target::split(&how.url, &plan.target.trust)?;
        Ok(Self {
            origin,
            path,
            ledger: ledger.clone(),
            by_topic: Mutex::new(vec![0; receivers.len()]),
            receivers,
            zipf,
            plan: plan.clone(),
            how,
            published: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            latency: Mutex::new(new_histogram()),
        })
    }

    /// How many events were published, and how many deliveries that makes.
    pub(super) fn counts(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.published), load(&self.expected))
    }

    /// How many events a topic was sent.
    pub(super) fn to(&self, topic: usize) -> u64 {
        let by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
        by_topic[topic]
    }

    /// From when events were due to the server's answers, in microseconds.
    pub(super) fn latency(&self) -> Histogram<u64> {
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.clone()
    }

    /// Publishes for as long as planned, or until the run is stopped or in trouble.
    pub(super) async fn run(self: &Arc<Self>) {
        match self.plan.rate {
            Rate::PerSecond(rate) => {
                let events = (rate * self.plan.duration.as_secs_f64()) as u64;
                // The last event is due before the time is over.
                tokio::join!(
                    self.publish(Some((rate, events))),
                    self.ledger.wait(self.plan.duration, &self.plan.stop)
                );
            }
            Rate::Max => self.publish(None).await,
        }
    }

    /// Publishes the events `first` to `first + count` of the first publisher, as fast as they are answered.
    pub(super) async fn run_exactly(self: &Arc<Self>, first: u64, count: u64) {
        let mut publisher = Publisher::new(self.clone(), 0);
        publisher.sequences.fill(first);
        for number in first..first + count {
            let due = clock::now();
            if !publisher.publish(number, due).await {
                return;
            }
        }
    }

    async fn publish(self: &Arc<Self>, paced: Option<(f64, u64)>) {
        let mut publishers = JoinSet::new();
        let mut dues = Vec::new();
        let end = clock::now() + self.plan.duration;
        for number in 0..self.plan.publishers {
            let publisher = Publisher::new(self.clone(), number as u32);
            if paced.is_some() {
                let (due, queue) = mpsc::channel(pace::AHEAD);
                dues.push(due);
                publishers.spawn(publisher.paced(queue));
            } else {
                publishers.spawn(publisher.flat_out(end));
            }
        }
        let clock = paced.map(|(rate, events)| pace::start(rate, events, dues, |due| due));
        let mut stop = self.plan.stop.clone();
        tokio::select! {
            () = async { while publishers.join_next().await.is_some() {} } => {}
            () = stopped(&mut stop) => {}
            () = self.ledger.until_trouble() => {}
            () = tokio::time::sleep(self.plan.duration + self.plan.patience) => {
                let (published, _) = self.counts();
                let planned = paced.map_or(published, |(_, events)| events);
                let seconds = self.plan.patience.as_secs();
                self.ledger.trouble(|| format!(
                    "{published} of {planned} events were published {seconds} s after the last was due; take more \
                     --publishers, or a lower --rate"
                ));
            }
        }
        publishers.shutdown().await;
        if let Some(clock) = clock {
            clock.halt();
            clock.join().await;
        }
    }

    /// Whether so much is on its way that one more would only wait.
    fn is_crowded(&self) -> bool {
        let (published, expected) = self.counts();
        let each = expected / published.max(1);
        expected.saturating_sub(self.ledger.delivered()) > ON_THEIR_WAY * each.max(1)
    }
}

/// A connection that publishes.
struct Publisher {
    all: Arc<Publishing>,
    number: u32,
    connection: Option<Connection>,
    /// For each topic, how many events this one has published.
    sequences: Vec<u64>,
}

impl Publisher {
    fn new(all: Arc<Publishing>, number: u32) -> Self {
        Self {
            sequences: vec![0; all.receivers.len()],
            connection: None,
            number,
            all,
        }
    }

    async fn paced(mut self, mut dues: mpsc::Receiver<Due>) {
        while let Some(Due { number, at }) = dues.recv().await {
            if !self.publish(number, at).await {
                return;
            }
        }
    }

    async fn flat_out(mut self, end: Instant) {
        let step = self.all.plan.publishers as u64;
        let mut number = u64::from(self.number);
        while clock::now() < end {
            if self.all.is_crowded() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            if !self.publish(number, clock::now()).await {
                return;
            }
            number += step;
        }
    }

    /// Publishes an event; `false` if it could not, which ends the run.
    async fn publish(&mut self, number: u64, due: Instant) -> bool {
        let topic = match &self.all.zipf {
            Some(zipf) => zipf.pick(number),
            None => (number % self.all.receivers.len() as u64) as usize,
        };
        let patience = self.all.plan.patience;
        let sent = tokio::time::timeout(patience, self.send(topic, due)).await;
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer in {} s", patience.as_secs())));
        if let Err(why) = sent {
            self.all.ledger.trouble(|| format!("publishing: {why}"));
            return false;
        }
        self.sequences[topic] += 1;
        let all = &self.all;
        all.published.fetch_add(1, Ordering::Relaxed);
        all.expected
            .fetch_add(all.receivers[topic], Ordering::Relaxed);
        all.by_topic.lock().unwrap_or_else(PoisonError::into_inner)[topic] += 1;
        let took = clock::now().saturating_duration_since(due).as_micros() as u64;
        let mut latency = all.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.saturating_record(took.max(1));
        true
    }

    async fn send(&mut self, topic: usize, due: Instant) -> Result<(), String> {
        let Publishing {
            plan,
            how,
            origin,
            path,
            ledger,
            ..
        } = &*self.all;
        let stamp = Stamp {
            run: ledger.run(),
            publisher: self.number,
            sequence: self.sequences[topic],
            due: ledger.micros(due),
        };
        let (topic, data) = (target::topic(topic), stamp.data(plan.size));
        let request = || {
            let mut request = Request::builder()
                .method(&how.method)
                .uri(target::fill(path, &topic, ""));
            for field in &how.headers {
                request = request.header(&field.0, &field.1);
            }
            request
                .body(full(target::fill(&how.body, &topic, &data)))
                .map_err(|error| error.to_string())
        };
        let again = match &mut self.connection {
            Some(connection) => connection.send(request()?).await.ok(),
            None => None,
        };
        let mut response = match again {
            Some(response) => response,
            // The server may have closed a connection that was idle.
            None => {
                let opened = Connection::open(origin, Protocol::Http1).await;
                let connection = self
                    .connection
                    .insert(opened.map_err(|error| explain(&error))?);
                let sent = connection.send(request()?).await;
                sent.map_err(|error| explain(&error))?
            }
        };
        let answer = response.bytes().await.map_err(|error| explain(&error))?;
        let closes = response.headers.get(header::CONNECTION);
        if closes.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close")) {
            self.connection = None;
        }
        if response.status.is_success() {
            Ok(())
        } else {
            Err(refusal(response.status.as_u16(), &answer))
        }
    }
}
