//! The steps that the scenarios are made of, and what they leave in the report.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    LoadError, Plan, Progress, Rate, Scenario,
    crowd::{Crowd, Manner},
    ledger::{Ledger, Subscriber},
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

pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) destination: Arc<Destination>,
    /// Closed once all connections are.
    pub(super) absence: mpsc::Receiver<Infallible>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) meter: Meter,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) watcher: Watcher,
    pub(super) began: u64,
    pub(super) stages: Vec<Stage>,
    pub(super) memory: Option<Memory>,
}

impl<'a> Run<'a> {
    pub(super) fn new(plan: &'a Plan, progress: Arc<dyn Progress>) -> Result<Self, LoadError> {
        let (origin, subscribe) = target::split(&plan.target.subscribe, &plan.target.trust)?;
        let ledger = Arc::new(Ledger::new(plan.publishers));
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
                request: plan.request_path.clone(),
                patience: plan.patience,
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

    /// Makes the planned connections.
    pub(super) async fn connect(&mut self) -> Result<Crowd, LoadError> {
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
    pub(super) fn subscribers(&self) -> Vec<Subscriber> {
        let all = self.plan.connections * self.plan.streams;
        let topics = self.plan.topics;
        (0..all).map(|n| Subscriber::new(n % topics)).collect()
    }

    /// Opens their streams.
    pub(super) async fn open(
        &mut self,
        crowd: &Crowd,
        subscribers: Vec<Subscriber>,
    ) -> Result<(), LoadError> {
        let wanted = subscribers.len();
        let had = self.ledger.streams_opened();
        // What was opened before is of another stage.
        drop(self.ledger.take_opening_latency());
        self.progress.begin("opening streams", Some(wanted as u64));
        let before = self.meter.read();
        self.until_open(crowd.open(subscribers, self.plan.opening), wanted)
            .await?;
        let (last, _) = self.ledger.last();
        let count = (self.ledger.streams_opened() - had) as u64;
        let latency = Latency::of(&self.ledger.take_opening_latency());
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
    pub(super) async fn until_open(
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

    pub(super) fn no_trouble(&self) -> Result<(), LoadError> {
        self.ledger
            .first_trouble()
            .map_or(Ok(()), |trouble| Err(LoadError::Trouble(trouble)))
    }

    /// What publishes, unless the plan has nothing published.
    pub(super) fn publishing(
        &self,
        subscribers: &[Subscriber],
    ) -> Result<Option<Arc<Publishing>>, LoadError> {
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
    pub(super) async fn requests_beside(&self, crowd: &Crowd) -> Result<Option<Beside>, LoadError> {
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
    pub(super) async fn wait(&self, time: Duration) {
        self.ledger.wait(time, &self.plan.stop).await;
    }

    /// Waits for the last events, as long as any arrive.
    pub(super) async fn settle(&self, expected: u64) {
        self.until(expected, || self.ledger.delivered(), || false)
            .await;
    }

    /// Waits for the answers to so many ordinary requests, as long as any come.
    pub(super) async fn until_answered(&self, count: u64) {
        let answered = || self.ledger.requests_answered().0;
        let is_stopped = || *self.plan.stop.borrow();
        self.until(count, answered, is_stopped).await;
        let missing = count.saturating_sub(answered());
        if missing > 0 && !is_stopped() {
            self.ledger
                .trouble(|| format!("{missing} of {count} ordinary requests had no answer"));
        }
    }

    /// Waits until there are so many, as long as there are ever more, and unless it is in trouble or needless.
    async fn until(&self, count: u64, so_far: impl Fn() -> u64, is_needless: impl Fn() -> bool) {
        let mut seen = 0;
        let mut quiet_since = clock::now();
        let settle = SETTLE.min(self.plan.patience);
        while quiet_since.elapsed() < settle
            && self.ledger.first_trouble().is_none()
            && !is_needless()
        {
            let now = so_far();
            if now >= count {
                return;
            }
            if now > seen {
                (seen, quiet_since) = (now, clock::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) fn measure(
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

    pub(super) fn measure_publishing(
        &mut self,
        publishing: &Publishing,
        before: &Reading,
        until: Instant,
    ) {
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

    pub(super) fn measure_requests(&mut self, before: &Reading, until: Instant) {
        let (answered, failed) = self.ledger.requests_answered();
        let latency = Latency::of(&self.ledger.request_latency());
        self.measure("request", "requests", answered, before, until)
            .latency = latency;
        if failed > 0 {
            self.ledger.trouble(|| {
                format!("{failed} of {answered} ordinary requests were answered with an error")
            });
        }
    }

    /// Adds up what the subscribers have received, of what each should have.
    pub(super) fn check(
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
    pub(super) async fn end(
        mut self,
        check: Result<Check, LoadError>,
    ) -> Result<Report, LoadError> {
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
        let void = verdict(&check, self.ledger.first_trouble());
        Ok(Report {
            setup: setup(plan),
            began: self.began,
            stages: self.stages,
            check,
            memory,
            timeline,
            void,
            interrupted: *plan.stop.borrow(),
        })
    }
}

fn setup(plan: &Plan) -> Setup {
    Setup {
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
    }
}

/// Why the figures count for nothing, if so.
fn verdict(check: &Check, trouble: Option<String>) -> Option<String> {
    let trouble = trouble.map(|trouble| match check.streams_ended {
        0 => trouble,
        ended => format!("{trouble} ({ended} streams ended)"),
    });
    let faults: Vec<String> = [
        (check.lost, "lost"),
        (check.repeated, "delivered twice"),
        (check.disordered, "out of order"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    let deliveries = (!faults.is_empty())
        .then(|| format!("of {} deliveries {}", check.expected, faults.join(", ")));
    let void: Vec<String> = trouble.into_iter().chain(deliveries).collect();
    (!void.is_empty()).then(|| void.join("; "))
}

/// Ordinary requests that are made beside the streams.
pub(super) struct Beside {
    pub(super) clock: pace::Clock,
    /// How many there will be.
    pub(super) count: u64,
    pub(super) own: Option<Crowd>,
}

impl Beside {
    pub(super) async fn stop(self) {
        self.clock.halt();
        if let Some(own) = self.own {
            own.leave().await;
        }
        self.clock.join().await;
    }
}
