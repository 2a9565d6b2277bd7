//! Carries out a plan: each scenario is a few steps of the same kind.

use std::{sync::Arc, time::Instant};

use tokio::task::JoinSet;

use super::{
    LoadError, Plan, Progress, Scenario,
    crowd::{Crowd, Manner},
    ledger::{Ledger, Subscriber, new_histogram},
    publish::Publishing,
    report::{Check, Latency, Report},
    seat::{Destination, Order},
    steps::Run,
    stopped,
};
use crate::clock;

/// Carries out a plan.
///
/// # Errors
///
/// [`LoadError`] when the server does not hold what the plan asks for. What goes wrong later is in the
/// report: [`Report::void`].
pub async fn run(plan: &Plan, progress: Arc<dyn Progress>) -> Result<Report, LoadError> {
    let mut run = Run::new(plan, progress)?;
    let check = match plan.scenario {
        Scenario::Fanout | Scenario::Hold | Scenario::Mixed | Scenario::Publish => {
            run.steady().await
        }
        Scenario::Connect => run.come_and_go().await,
        Scenario::Replay => run.replay().await,
        Scenario::Herd => run.herd().await,
        Scenario::Proxy => run.requests().await,
    };
    run.end(check).await
}

impl Run<'_> {
    /// Streams that are read while events are published, or while nothing happens.
    async fn steady(&mut self) -> Result<Check, LoadError> {
        let subscribers = self.subscribers();
        let publishing = self.publishing(&subscribers)?;
        let crowd = self.connect().await?;
        self.open(&crowd, subscribers).await?;

        let beside = self.requests_beside(&crowd).await?;
        let before = self.meter.read();
        let comments = self.ledger.comments();
        match &publishing {
            Some(publishing) => {
                self.progress.begin("publishing", None);
                publishing.run().await;
            }
            None => {
                self.progress.begin("holding", None);
                self.wait(self.plan.duration).await;
            }
        }
        let published = publishing.as_ref().map(|p| p.counts());
        let until = clock::now();
        self.settle(published.map_or(0, |(_, expected)| expected))
            .await;
        match &publishing {
            Some(publishing) => self.measure_publishing(publishing, &before, until),
            None => {
                let count = self.ledger.comments() - comments;
                self.measure("hold", "keepalives", count, &before, until);
            }
        }
        if let Some(beside) = beside {
            self.until_answered(beside.count).await;
            self.measure_requests(&before, until);
            beside.stop().await;
        }
        let subscribers = crowd.leave().await;
        Ok(
            self.check(&subscribers, publishing.as_deref(), |subscriber| {
                publishing.as_ref().map_or(0, |p| p.to(subscriber.topic))
            }),
        )
    }

    /// Connections that open their streams and leave.
    async fn come_and_go(&mut self) -> Result<Check, LoadError> {
        for (name, resumes) in [("connect, full", false), ("connect, resumed", true)] {
            let destination = if resumes {
                Arc::new(self.destination.resuming())
            } else {
                self.destination.clone()
            };
            self.progress.begin(name, None);
            let before = self.meter.read();
            let streams = self.ledger.streams_opened();
            let end = before.at + self.plan.duration / 2;
            let mut visitors = JoinSet::new();
            for _ in 0..self.plan.connections {
                visitors.spawn(visit(
                    self.plan.clone(),
                    destination.clone(),
                    self.ledger.clone(),
                    end,
                ));
            }
            let mut handshakes = new_histogram();
            while let Some(visits) = visitors.join_next().await {
                let visits = visits.expect("a visitor does not panic")?;
                handshakes.add(&visits).expect("the same bounds");
            }
            if let Some(trouble) = self.ledger.first_trouble() {
                return Err(LoadError::Trouble(trouble));
            }
            let count = handshakes.len();
            let name = match destination.origin.resumed() {
                Some(0) if resumes => "connect, resumption refused",
                _ => name,
            };
            let stage = self.measure(name, "connections", count, &before, clock::now());
            stage.latency = Latency::of(&handshakes);
            let streams = self.ledger.streams_opened() - streams;
            let mut opened = self.stages.last().cloned().expect("it is there");
            opened.name = name.replace("connect", "open");
            opened.unit = "streams".into();
            opened.count = streams as u64;
            opened.latency = Latency::of(&self.ledger.take_opening_latency());
            self.stages.push(opened);
        }
        Ok(self.check(&[], None, |_| 0))
    }

    /// All come with a cursor, and have missed so many events.
    async fn replay(&mut self) -> Result<Check, LoadError> {
        let missed = self.plan.missed;
        let publishing = self.publishing(&[Subscriber::new(0)])?;
        let publishing = publishing.ok_or(LoadError::NoPublisher)?;
        self.progress.begin("publishing what is missed", None);
        let cursor = self.cursor(&publishing).await?;
        let mut stop = self.plan.stop.clone();
        tokio::select! {
            () = publishing.run_exactly(1, missed) => {}
            () = stopped(&mut stop) => return Err(LoadError::Interrupted),
        }
        self.no_trouble()?;
        let had = self.ledger.delivered();

        let crowd = self.connect().await?;
        let mut subscribers = self.subscribers();
        for subscriber in &mut subscribers {
            subscriber.come_with(&cursor, 1);
        }
        let expected = missed * subscribers.len() as u64;
        let before = self.meter.read();
        self.open(&crowd, subscribers).await?;
        self.progress.begin("replaying", Some(expected));
        self.settle(had + expected).await;
        let count = self.ledger.delivered() - had;
        let (_, last) = self.ledger.last();
        self.measure("replay", "events", count, &before, last);
        let subscribers = crowd.leave().await;
        Ok(self.check(&subscribers, Some(&publishing), |_| missed))
    }

    /// The id of an event, from one stream that is read for it.
    async fn cursor(&self, publishing: &Arc<Publishing>) -> Result<Vec<u8>, LoadError> {
        let crowd = Crowd::connect(&self.destination, &self.ledger, 1, Manner::default()).await?;
        let opening = crowd.open(vec![Subscriber::new(0)], self.plan.opening);
        self.until_open(opening, 1).await?;
        publishing.run_exactly(0, 1).await;
        self.settle(1).await;
        self.no_trouble()?;
        let reader = crowd.leave().await.pop();
        let id = reader.map(|reader| reader.scanner.last_id().to_vec());
        id.filter(|id| !id.is_empty()).ok_or_else(|| {
            LoadError::Trouble("the server's events have no id, so that it can replay none".into())
        })
    }

    /// All are cut off at once, and come back, while events go on.
    async fn herd(&mut self) -> Result<Check, LoadError> {
        let subscribers = self.subscribers();
        let wanted = subscribers.len();
        let publishing = self.publishing(&subscribers)?;
        let publishing = publishing.ok_or(LoadError::NoPublisher)?;
        let crowd = self.connect().await?;
        self.open(&crowd, subscribers).await?;
        let before = self.meter.read();
        self.progress.begin("publishing", None);
        let publisher = tokio::spawn({
            let publishing = publishing.clone();
            async move { publishing.run().await }
        });
        self.wait(self.plan.duration / 3).await;

        let cut = self.meter.read();
        self.progress.begin("all come back", None);
        let mut subscribers = crowd.leave().await;
        for subscriber in &mut subscribers {
            subscriber.scanner.restart();
        }
        let manner = Manner {
            at_a_time: self.plan.connections,
            patience: Some(self.plan.patience),
        };
        let (connections, ledger) = (self.plan.connections, &self.ledger);
        let crowd = Crowd::connect(&self.destination, ledger, connections, manner).await?;
        self.until_open(crowd.open(subscribers, self.plan.opening), wanted)
            .await?;
        let (last, _) = self.ledger.last();
        self.measure("come back", "streams", wanted as u64, &cut, last);

        self.progress.begin("publishing", None);
        publisher.await.expect("a publisher does not panic");
        let until = clock::now();
        self.settle(publishing.counts().1).await;
        self.measure_publishing(&publishing, &before, until);
        let subscribers = crowd.leave().await;
        Ok(self.check(&subscribers, Some(&publishing), |subscriber| {
            publishing.to(subscriber.topic)
        }))
    }

    /// Ordinary requests, as fast as they are answered.
    async fn requests(&mut self) -> Result<Check, LoadError> {
        let crowd = self.connect().await?;
        self.progress.begin("asking", None);
        let before = self.meter.read();
        for orders in crowd.orders() {
            let at_a_time = self.plan.streams;
            // Whoever is gone has said why.
            let _: Result<(), _> = orders.send(Order::Requests { at_a_time }).await;
        }
        self.wait(self.plan.duration).await;
        self.measure_requests(&before, clock::now());
        // A server that has stopped has not answered those that wait.
        let quiet = self.ledger.last_answered().max(before.at).elapsed();
        let stopped = *self.plan.stop.borrow();
        if !stopped && quiet > self.plan.patience.min(self.plan.duration / 2) {
            let seconds = quiet.as_secs_f64();
            self.ledger
                .trouble(|| format!("no request was answered for {seconds:.1} s"));
        }
        crowd.leave().await;
        Ok(self.check(&[], None, |_| 0))
    }
}

/// Connects, opens its streams and leaves, again and again: how long the handshakes took, in microseconds.
async fn visit(
    plan: Plan,
    destination: Arc<Destination>,
    ledger: Arc<Ledger>,
    end: Instant,
) -> Result<hdrhistogram::Histogram<u64>, LoadError> {
    let mut handshakes = new_histogram();
    while clock::now() < end && !*plan.stop.borrow() && ledger.first_trouble().is_none() {
        let begun = clock::now();
        let crowd = Crowd::connect(&destination, &ledger, 1, Manner::default()).await?;
        handshakes.saturating_record(begun.elapsed().as_micros().max(1) as u64);
        let subscribers = (0..plan.streams).map(|_| Subscriber::new(0)).collect();
        tokio::select! {
            () = crowd.open(subscribers, plan.opening) => {}
            () = ledger.until_trouble() => {}
            () = tokio::time::sleep(plan.patience) => ledger.trouble(|| {
                format!("a stream was not answered in {} s", plan.patience.as_secs())
            }),
        }
        crowd.leave().await;
    }
    Ok(handshakes)
}
