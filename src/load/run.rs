//! Carries out a plan: each scenario is a few steps of the same kind.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    LoadError, Plan, Progress, Rate, Scenario,
    crowd::{Crowd, Manner},
    ledger::{Ledger, Subscriber, new_histogram},
    pace,
    publish::Publishing,
    report::{Check, Latency, Memory, Report, Setup, Stage},
    seat::{Destination, Order},
    stopped, target,
    watch::{Meter, Reading, Watcher},
    wire_other::FAREWELL,
    zipf::Zipf,
};
use crate::{client::Protocol, clock};

/// How long nothing may arrive before what is missing is taken for lost.
const SETTLE: Duration = Duration::from_secs(5);
/// How often it looks whether all has arrived.
const LOOK: Duration = Duration::from_millis(10);
/// How long a server that all have come to is left alone before its memory is read.
const CALM: Duration = Duration::from_millis(300);

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

struct Run<'a> {
    plan: &'a Plan,
    destination: Arc<Destination>,
    /// Closed once all connections are.
    absence: mpsc::Receiver<Infallible>,
    ledger: Arc<Ledger>,
    meter: Meter,
    progress: Arc<dyn Progress>,
    watcher: Watcher,
    began: u64,
    stages: Vec<Stage>,
    memory: Option<Memory>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, progress: Arc<dyn Progress>) -> Result<Self, LoadError> {
        let (origin, subscribe) = target::split(&plan.target.subscribe, &plan.target.trust)?;
        let ledger = Arc::new(Ledger::new());
        let meter = Meter::new(plan.process);
        let memory = meter.first_memory()?.map(|before| Memory {
            before,
            connected: before,
            streaming: before,
            peak: before,
            streams: 0,
            connections: 0,
        });
        let (presence, absence) = mpsc::channel(1);
        let began = clock::wall().duration_since(std::time::UNIX_EPOCH);
        Ok(Self {
            plan,
            destination: Arc::new(Destination {
                origin,
                protocol: plan.protocol,
                subscribe,
                request: plan.target.request.clone(),
                presence,
            }),
            absence,
            watcher: Watcher::start(ledger.clone(), &meter, progress.clone()),
            ledger,
            meter,
            progress,
            began: began.unwrap_or_default().as_secs(),
            stages: Vec::new(),
            memory,
        })
    }

    /// Streams that are read while events are published, or while nothing happens.
    async fn steady(&mut self) -> Result<Check, LoadError> {
        let subscribers = self.subscribers();
        let publishing = self.publishing(&subscribers)?;
        let crowd = self.connect().await?;
        self.open(&crowd, subscribers).await?;

        let beside = self.requests_beside(&crowd).await?;
        let before = self.meter.read();
        let comments = self.ledger.comments();
        let publishes = self.plan.rate != Rate::PerSecond(0.0);
        self.progress
            .begin(if publishes { "publishing" } else { "holding" }, None);
        match &publishing {
            Some(publishing) => publishing.run().await,
            None => self.wait(self.plan.duration).await,
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
            let mut destination = Destination {
                origin: self.destination.origin.clone(),
                subscribe: self.destination.subscribe.clone(),
                request: self.destination.request.clone(),
                presence: self.destination.presence.clone(),
                protocol: self.plan.protocol,
            };
            if resumes {
                destination.origin = destination.origin.resuming();
            }
            let destination = Arc::new(destination);
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
            let stage = self.measure(name, "connections", count, &before, clock::now());
            stage.latency = Latency::of(&handshakes);
            let streams = self.ledger.streams_opened() - streams;
            let mut opened = self.stages.last().cloned().expect("it is there");
            opened.name = name.replace("connect", "open");
            opened.unit = "streams".into();
            opened.count = streams as u64;
            opened.latency = Latency::of(&self.ledger.opening_latency());
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
        publishing.run_exactly(1, missed).await;
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
        let (answered, failed) = self.ledger.requests_answered();
        if answered == 0 {
            let seconds = self.plan.duration.as_secs_f64();
            self.ledger
                .trouble(|| format!("no request was answered in {seconds} s"));
        } else if failed > 0 {
            self.ledger
                .trouble(|| format!("{failed} of {answered} requests were answered with an error"));
        }
        crowd.leave().await;
        Ok(self.check(&[], None, |_| 0))
    }

    /// Makes the planned connections.
    async fn connect(&mut self) -> Result<Crowd, LoadError> {
        let connections = self.plan.connections;
        self.progress.begin("connecting", Some(connections as u64));
        let before = self.meter.read();
        let mut stop = self.plan.stop.clone();
        let connecting = Crowd::connect(
            &self.destination,
            &self.ledger,
            connections,
            Manner::default(),
        );
        let crowd = tokio::select! {
            crowd = connecting => crowd?,
            () = stopped(&mut stop) => return Err(LoadError::Interrupted),
        };
        self.measure(
            "connect",
            "connections",
            connections as u64,
            &before,
            clock::now(),
        );
        if let (Some(memory), Some(now)) = (&mut self.memory, self.meter.memory()) {
            memory.connected = now;
            memory.connections = connections;
        }
        Ok(crowd)
    }

    /// Those who are to read, topics dealt to them in turn.
    fn subscribers(&self) -> Vec<Subscriber> {
        let all = self.plan.connections * self.plan.streams;
        let topics = self.plan.topics;
        (0..all).map(|n| Subscriber::new(n % topics)).collect()
    }

    /// Opens their streams.
    async fn open(&mut self, crowd: &Crowd, subscribers: Vec<Subscriber>) -> Result<(), LoadError> {
        let wanted = subscribers.len();
        let had = self.ledger.streams_opened();
        self.progress.begin("opening streams", Some(wanted as u64));
        let before = self.meter.read();
        self.until_open(crowd.open(subscribers, self.plan.opening), wanted)
            .await?;
        let (last, _) = self.ledger.last();
        let count = (self.ledger.streams_opened() - had) as u64;
        let latency = Latency::of(&self.ledger.opening_latency());
        self.measure("open", "streams", count, &before, last)
            .latency = latency;
        if self.plan.scenario != Scenario::Replay {
            self.wait(CALM).await;
        }
        if let (Some(memory), Some(now)) = (&mut self.memory, self.meter.memory()) {
            memory.streaming = now;
            memory.streams = wanted;
        }
        Ok(())
    }

    /// Waits for streams as long as any open.
    async fn until_open(
        &self,
        opening: impl Future<Output = ()>,
        wanted: usize,
    ) -> Result<(), LoadError> {
        tokio::pin!(opening);
        let had = self.ledger.streams_opened();
        let mut seen = had;
        let mut stop = self.plan.stop.clone();
        let patience = self.plan.patience;
        let failed = |what: String, now: usize| LoadError::Streams {
            what,
            opened: now - had,
            wanted,
        };
        loop {
            tokio::select! {
                () = &mut opening => break,
                () = self.ledger.until_trouble() => break,
                () = stopped(&mut stop) => return Err(LoadError::Interrupted),
                () = tokio::time::sleep(patience) => {
                    let now = self.ledger.streams_opened();
                    if now == seen {
                        let seconds = patience.as_secs();
                        return Err(failed(format!("the server let {seconds} s pass without an answer"), now));
                    }
                    seen = now;
                }
            }
        }
        match self.ledger.first_trouble() {
            Some(trouble) => Err(failed(trouble, self.ledger.streams_opened())),
            None => Ok(()),
        }
    }

    fn no_trouble(&self) -> Result<(), LoadError> {
        self.ledger
            .first_trouble()
            .map_or(Ok(()), |trouble| Err(LoadError::Trouble(trouble)))
    }

    /// What publishes, unless the plan has nothing published.
    fn publishing(&self, subscribers: &[Subscriber]) -> Result<Option<Arc<Publishing>>, LoadError> {
        let replays = self.plan.scenario == Scenario::Replay;
        if self.plan.rate == Rate::PerSecond(0.0) && !replays {
            return Ok(None);
        }
        let mut receivers = vec![0; self.plan.topics];
        for subscriber in subscribers {
            receivers[subscriber.topic] += 1;
        }
        let mixed = self.plan.scenario == Scenario::Mixed;
        let zipf = mixed.then(|| Zipf::new(self.plan.topics));
        let publishing = Publishing::new(self.plan, &self.ledger, receivers, zipf)?;
        Ok(Some(Arc::new(publishing)))
    }

    /// Ordinary requests beside the streams, if the plan has any.
    async fn requests_beside(&self, crowd: &Crowd) -> Result<Option<Beside>, LoadError> {
        let rate = self.plan.requests;
        if self.plan.scenario != Scenario::Mixed || rate <= 0.0 {
            return Ok(None);
        }
        // A connection of HTTP/1.1 carries its stream and nothing else, so requests go on others.
        let own = match self.plan.protocol {
            Protocol::Http1 => Some(
                Crowd::connect(
                    &self.destination,
                    &self.ledger,
                    self.plan.connections,
                    Manner::default(),
                )
                .await?,
            ),
            Protocol::Http2 | Protocol::Http3 => None,
        };
        let count = (rate * self.plan.duration.as_secs_f64()) as u64;
        let orders = own.as_ref().unwrap_or(crowd).orders();
        let ledger = self.ledger.clone();
        let clock = pace::start(rate, count, orders, move |due| Order::Request {
            due: ledger.micros(due.at),
        });
        Ok(Some(Beside { clock, count, own }))
    }

    /// Waits, unless the run is stopped or in trouble.
    async fn wait(&self, time: Duration) {
        let mut stop = self.plan.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = stopped(&mut stop) => {}
            () = self.ledger.until_trouble() => {}
        }
    }

    /// Waits for the last events, as long as any arrive.
    async fn settle(&self, expected: u64) {
        let mut seen = 0;
        let mut quiet_since = clock::now();
        let settle = SETTLE.min(self.plan.patience);
        while quiet_since.elapsed() < settle && self.ledger.first_trouble().is_none() {
            let delivered = self.ledger.delivered();
            if delivered >= expected {
                return;
            }
            if delivered > seen {
                (seen, quiet_since) = (delivered, clock::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for the answers to so many ordinary requests, as long as any come.
    async fn until_answered(&self, count: u64) {
        let answered = || self.ledger.requests_answered().0;
        let mut stop = self.plan.stop.clone();
        let mut seen = answered();
        let mut quiet_since = clock::now();
        while answered() < count
            && self.ledger.first_trouble().is_none()
            && !*stop.borrow_and_update()
        {
            if answered() > seen {
                (seen, quiet_since) = (answered(), clock::now());
            }
            if quiet_since.elapsed() > SETTLE.min(self.plan.patience) {
                self.ledger.trouble(|| {
                    format!(
                        "{} of {count} ordinary requests had no answer",
                        count - seen
                    )
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn measure(
        &mut self,
        name: &str,
        unit: &str,
        count: u64,
        before: &Reading,
        until: Instant,
    ) -> &mut Stage {
        let stage = self.meter.stage(name, unit, count, before, until);
        self.stages.push(stage);
        self.stages.last_mut().expect("it is there")
    }

    fn measure_publishing(&mut self, publishing: &Publishing, before: &Reading, until: Instant) {
        let (published, _) = publishing.counts();
        let latency = Latency::of(&publishing.latency());
        self.measure("publish", "events", published, before, until)
            .latency = latency;
        let (_, last) = self.ledger.last();
        let delivered = self.ledger.delivered();
        let latency = Latency::of(&self.ledger.event_latency());
        self.measure("deliver", "events", delivered, before, until.max(last))
            .latency = latency;
    }

    fn measure_requests(&mut self, before: &Reading, until: Instant) {
        let (answered, _) = self.ledger.requests_answered();
        let latency = Latency::of(&self.ledger.request_latency());
        self.measure("request", "requests", answered, before, until)
            .latency = latency;
    }

    /// Adds up what the subscribers have received, of what each should have.
    fn check(
        &self,
        subscribers: &[Subscriber],
        publishing: Option<&Publishing>,
        expected: impl Fn(&Subscriber) -> u64,
    ) -> Check {
        let (requests, requests_failed) = self.ledger.requests_answered();
        let mut check = Check {
            published: publishing.map_or(0, |publishing| publishing.counts().0),
            streams_ended: self.ledger.streams_ended(),
            keepalives: self.ledger.comments(),
            requests,
            requests_failed,
            ..Check::default()
        };
        for subscriber in subscribers {
            let (expected, tally) = (expected(subscriber), &subscriber.tally);
            check.expected += expected;
            check.delivered += tally.received;
            check.lost += expected.saturating_sub(tally.received);
            check.repeated += tally.repeated;
            check.disordered += tally.disordered;
        }
        check
    }

    /// Waits until the server knows that all have left.
    async fn end(mut self, check: Result<Check, LoadError>) -> Result<Report, LoadError> {
        drop(self.destination);
        // One that does not answer learns it by itself.
        let _: Result<_, _> = tokio::time::timeout(FAREWELL, self.absence.recv()).await;
        let (plan, check) = (self.plan, check?);
        let timeline = self.watcher.stop();
        let seen = timeline.iter().filter_map(|sample| sample.memory).max();
        let memory = self.memory.map(|memory| Memory {
            peak: memory
                .streaming
                .max(memory.connected)
                .max(seen.unwrap_or(0)),
            ..memory
        });
        let faults = [
            (check.lost, "lost"),
            (check.repeated, "delivered twice"),
            (check.disordered, "out of order"),
        ];
        let faults: Vec<String> = faults
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let trouble = self
            .ledger
            .first_trouble()
            .map(|trouble| match check.streams_ended {
                0 => trouble,
                ended => format!("{trouble} ({ended} streams ended)"),
            });
        let deliveries = (!faults.is_empty())
            .then(|| format!("of {} deliveries {}", check.expected, faults.join(", ")));
        let void: Vec<String> = trouble.into_iter().chain(deliveries).collect();
        Ok(Report {
            setup: Setup {
                server: plan.target.name.clone(),
                scenario: plan.scenario.to_string(),
                protocol: plan.protocol.to_string(),
                connections: plan.connections,
                streams: plan.streams,
                topics: plan.topics,
                rate: match plan.rate {
                    Rate::PerSecond(rate) => Some(rate),
                    Rate::Max => None,
                },
                size: plan.size,
                publishers: plan.publishers,
                missed: plan.missed,
                duration: plan.duration.as_secs_f64(),
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                pinned: plan.pinned,
            },
            began: self.began,
            stages: self.stages,
            check,
            memory,
            timeline,
            void: (!void.is_empty()).then(|| void.join("; ")),
            interrupted: *plan.stop.borrow(),
        })
    }
}

/// Ordinary requests that are made beside the streams.
struct Beside {
    clock: pace::Clock,
    /// How many there will be.
    count: u64,
    own: Option<Crowd>,
}

impl Beside {
    async fn stop(self) {
        self.clock.halt();
        if let Some(own) = self.own {
            own.leave().await;
        }
        self.clock.join().await;
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
