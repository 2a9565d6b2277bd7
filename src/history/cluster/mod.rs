//! The order of many edges: NATS JetStream numbers and replicates it, and every edge reads all of it once.
//!
//! - `settings` is what is configured; `broker` what is asked of the servers, `frame` what a message looks like.
//! - `sender` puts what is published into frames, one on its way at a time; `reader` brings all frames of all edges, and
//!   finds out when the order is another than before; `applier` has the hub apply them and answers publishers.
//! - `ask` is about what each edge knows alone.
//! - `facts` is what all edges are to know beside the order, `follow` taking what a stream brings.
//! - `monitor` looks after it: which edges are there (`nodes`), how far the order is. `error` says why not.
//!
//! Sequence = number of the frame in the stream << 10 | place in the frame. No edge ever numbers by itself: while no
//! server answers, readers are served from what there is, and publishers are told to come again.

mod applier;
mod ask;
mod broker;
mod error;
mod facts;
mod follow;
mod frame;
mod metrics;
mod monitor;
mod nodes;
mod reader;
mod sender;
mod settings;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, mpsc as std_mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use super::{
    Durability, NotStored, Receipt,
    alarm::Alarm,
    log::{Cache, Kept, LogMetrics, Reads},
    record::{self, Encoded},
    wall::Wall,
};
use crate::{
    clock,
    hub::{
        Ask, Entry, Found as FoundEvents, Hub, HubBounds, LostRange, PLACE_BITS, Retention,
        TopicRules, floor_before,
    },
    metrics::Registry,
    sse::Epoch,
};
use applier::{Answer, Applier, Position, Tail, Waiter};
use ask::{Answering, Asking};
use broker::{Broker, BrokerError, StreamInfo};
pub(crate) use facts::Fact;
use facts::{Facts, Follower};
use frame::FrameId;
use monitor::Monitor;
use nodes::{Beat, Nodes};
use reader::{Reader, beginning};
use sender::{Item, Sender};

pub(crate) use ask::{Asked, Gathered, Reached, Unheard};
pub(crate) use error::ClusterError;
pub(crate) use metrics::ClusterMetrics;
pub(crate) use settings::ClusterSettings;

/// How long it is tried to find the servers at the start.
const STARTING: Duration = Duration::from_secs(10);
/// How long nothing of the order may come until the rings are filled.
const OPENING: Duration = Duration::from_secs(120);
/// How long is waited between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// How much may wait to be sent, in KiB: an entry counts at least as one.
const ROOM: u32 = 4096;
/// How much longer an event is when it goes out after it has waited, in bytes.
const RELEASED: usize = 16;
/// After how long it is tried again to find a place.
const MOMENT: Duration = Duration::from_millis(10);
/// After how long an edge knows which others there are.
const KNOWN: Duration = Duration::from_millis(1500);
/// How long the order may be away before nobody new is to come.
const UNREADY: Duration = Duration::from_secs(5);
/// How long one edge waits for each that comes before it to have the events go out whose turn has come.
const RANK: Duration = Duration::from_millis(300);

/// The order of many edges.
#[derive(Debug)]
pub struct Cluster {
    hub: Arc<Hub>,
    settings: Arc<ClusterSettings>,
    metrics: ClusterMetrics,
    kept: Option<KeptHere>,
    own: Beat,
    began: Instant,
    running: Running,
    /// Taken when the edge ends.
    outlet: Mutex<Option<Outlet>>,
    room: Arc<Semaphore>,
    stop: Arc<Notify>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What this edge keeps of the order on disk.
#[derive(Debug)]
struct KeptHere {
    reads: Arc<Reads>,
    metrics: LogMetrics,
    age: Duration,
}

/// What is told of a cluster.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterStatus {
    cluster: String,
    node: String,
    /// Whether the order is there.
    connected: bool,
    server: String,
    epoch: String,
    /// How many frames this edge has not applied.
    behind: u64,
    stream: StreamStatus,
    nodes: Vec<NodeStatus>,
}

/// What is told of the stream.
#[derive(Debug, Serialize)]
struct StreamStatus {
    name: String,
    replicas: u8,
    leader: Option<String>,
    first: u64,
    last: u64,
    frames: u64,
    bytes: u64,
    max_bytes: u64,
}

/// What is told of an edge.
#[derive(Debug, Serialize)]
struct NodeStatus {
    #[serde(flatten)]
    beat: Beat,
    /// For how long it has said nothing, in seconds.
    silent: f64,
}

/// What there is once the order was found.
struct Found {
    broker: Broker,
    applier: Arc<Applier>,
}

impl Cluster {
    /// Finds the servers, makes the order if there is none, and fills the rings of its hub. It waits for that.
    pub(super) fn open(
        settings: ClusterSettings,
        retention: Retention,
        rules: &TopicRules,
        bounds: HubBounds,
    ) -> Result<Self, ClusterError> {
        let settings = Arc::new(settings);
        let own = Beat::own(&settings.node, rules, &retention);
        let wall = Wall::new(clock::now(), clock::wall()).of_others();
        let rules = rules.clone();
        let make = move |epoch, floor, lost: &[LostRange]| {
            let hub = Hub::new(retention, rules.clone(), bounds, epoch, floor, lost);
            hub.share(wall.moment(0));
            hub
        };
        let opened = settings.cache.as_ref();
        let opened = opened.map(|settings| Cache::open(settings, wall, retention, &make));
        let (cache, before) = opened.transpose()?.unzip();
        let kept = cache.as_ref().map(|cache| KeptHere {
            reads: cache.reads().clone(),
            metrics: cache.metrics().clone(),
            age: cache.age(),
        });
        let (stop, metrics) = (Arc::new(Notify::new()), ClusterMetrics::default());
        let (opened, is_opened) = std_mpsc::sync_channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let start = Start {
            settings: settings.clone(),
            retention,
            wall,
            make,
            cache,
            before: before.flatten(),
        };
        let finding = start.find();
        let for_thread = (settings.clone(), own.clone(), metrics.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("cluster".into());
        let thread = thread.spawn(move || {
            let (settings, own, metrics, stop) = for_thread;
            let _alarm = Alarm("the cluster");
            runtime.block_on(live(finding, settings, own, metrics, &opened, &stop));
            // A name that is looked up holds nobody up.
            runtime.shutdown_background();
        })?;
        let opened = until_opened(&is_opened, &settings, &metrics);
        let (running, outlet) = opened.inspect_err(|_| stop.notify_one())?;
        Ok(Self {
            hub: running.applier.hub.clone(),
            settings,
            metrics,
            kept,
            own,
            began: clock::now(),
            running,
            outlet: Mutex::new(Some(outlet)),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Has what it counts be told.
    pub(super) fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        if let Some(kept) = &self.kept {
            kept.metrics.register(registry);
        }
    }

    /// Finds what the rings do not hold any more, if it is kept here.
    pub(super) async fn read(&self, ask: Ask) -> Option<FoundEvents> {
        self.kept.as_ref()?.reads.read(ask).await
    }

    /// How long entries are kept here, if they are.
    pub(super) fn age(&self) -> Option<Duration> {
        self.kept.as_ref().map(|kept| kept.age)
    }

    /// Puts an entry into the order. Dropped before it is answered, that may happen all the same.
    pub(super) async fn put(&self, entry: Entry, now: Instant) -> Answer {
        let mut answers = self.put_all(vec![entry], now).await;
        answers.pop().expect("there is one for each entry")
    }

    /// The same of many, in their order.
    pub(super) async fn put_all(&self, entries: Vec<Entry>, now: Instant) -> Vec<Answer> {
        // Those of others do not come between; all are on their way before the first is waited for.
        let mut waiting: Vec<Result<_, Answer>> = Vec::with_capacity(entries.len());
        for entry in entries {
            // What follows one for which there was no room is not tried: each would wait as long.
            let stopped = waiting.last().and_then(|last| match last {
                Err(Err(why @ (NotStored::Away | NotStored::Busy | NotStored::Ending))) => {
                    Some(why.clone())
                }
                _ => None,
            });
            waiting.push(match stopped {
                Some(why) => Err(Err(why)),
                None => self.hand_over(entry, now).await,
            });
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.push(match answer {
                Ok(answer) => self.answered(answer).await,
                Err(answer) => answer,
            });
        }
        answers
    }

    /// What came of an entry; that nobody knows, while this edge's disk does not answer.
    async fn answered(&self, mut answer: oneshot::Receiver<Answer>) -> Answer {
        loop {
            // Of many, all but the first have waited with it.
            let patience = if self.is_stuck() {
                Duration::ZERO
            } else {
                sender::PATIENCE
            };
            match tokio::time::timeout(patience, &mut answer).await {
                Ok(answer) => return answer.unwrap_or(Err(NotStored::Unknown)),
                Err(_) if self.is_stuck() => return Err(NotStored::Unknown),
                Err(_) => {}
            }
        }
    }

    /// Whether nothing is applied as this edge's disk does not answer.
    fn is_stuck(&self) -> bool {
        self.running.applier.waits_for_disk(clock::now()) >= sender::PATIENCE
    }

    /// Has what is of this edge alone be applied, for a place for which is waited a little.
    async fn put_own(&self, mut entry: Entry, now: Instant) -> Answer {
        let until = clock::now() + sender::PATIENCE;
        let applier = &self.running.applier;
        loop {
            let frame = applier.position().sequence + 1;
            match applier.apply_own(entry, now) {
                Ok(answer) => return answer,
                Err(_) if clock::now() >= until => return Err(NotStored::Busy),
                Err(back) => entry = *back,
            }
            applier.until(frame, MOMENT).await;
        }
    }

    /// Hands an entry over; who is answered where, or its answer.
    async fn hand_over(
        &self,
        entry: Entry,
        now: Instant,
    ) -> Result<oneshot::Receiver<Answer>, Answer> {
        if record::is_own(&entry) {
            return Err(self.put_own(entry, now).await);
        }
        self.is_there().await.map_err(Err)?;
        // What waits in a topic that is closed goes out before its streams end.
        if let Entry::Close(topic) = &entry {
            for waiting in self.hub.waiting_in(topic) {
                self.push(waiting, now).await.map_err(Err)?;
            }
        }
        self.push(entry, now).await.map_err(Err)
    }

    /// Whether the order is there, for which is waited a little.
    async fn is_there(&self) -> Result<(), NotStored> {
        let mut is_open = self.running.is_open.clone();
        let open = is_open.wait_for(|is_open| *is_open);
        match tokio::time::timeout(sender::PATIENCE, open).await {
            _ if self.is_stuck() => Err(NotStored::Busy),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(NotStored::Ending),
            Err(_) => Err(NotStored::Away),
        }
    }

    /// An entry as all edges are told it, and what it takes in a frame, in bytes; an error if it does not fit into one.
    fn encode(&self, entry: &Entry) -> Result<(Encoded, usize), NotStored> {
        let encoded = encode(entry, self.running.applier.wall());
        let bytes = frame::cost(&encoded);
        // An event that waits for its turn has to fit again when that has come, with when it was published.
        let limit = match entry {
            Entry::Release { .. } => frame::LARGEST,
            _ => frame::LARGEST - RELEASED,
        };
        if bytes > limit {
            return Err(NotStored::TooLarge { bytes, limit });
        }
        Ok((encoded, bytes))
    }

    /// Whether an entry fits into the order.
    pub(super) fn check_size(&self, entry: &Entry) -> Result<(), NotStored> {
        if record::is_own(entry) {
            return Ok(());
        }
        self.encode(entry).map(drop)
    }

    async fn push(
        &self,
        entry: Entry,
        now: Instant,
    ) -> Result<oneshot::Receiver<Answer>, NotStored> {
        let (encoded, bytes) = self.encode(&entry)?;
        let kib = u32::try_from(bytes >> 10).unwrap_or(ROOM).clamp(1, ROOM);
        let room = self.room.clone().acquire_many_owned(kib);
        let room = match tokio::time::timeout(sender::PATIENCE, room).await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(NotStored::Ending),
            Err(_) => return Err(NotStored::Busy),
        };
        let (answer, answered) = oneshot::channel();
        let depends = match &entry {
            Entry::Event { target, .. } => target.identity.is_known(),
            Entry::Delete(_) | Entry::Retract { .. } => true,
            Entry::Release { .. } | Entry::Close(_) | Entry::Disconnect(_) => false,
        };
        let waiter = Waiter {
            own_id: entry.own_id(),
            depends,
            answer,
        };
        let item = Item {
            encoded,
            waiter,
            at: now,
            room,
        };
        let outlet = self.outlet.lock().expect("no holder of this lock panics");
        let outlet = outlet.as_ref();
        let sent = outlet.is_some_and(|outlet| outlet.items.try_send(item).is_ok());
        if sent {
            Ok(answered)
        } else {
            Err(NotStored::Ending)
        }
    }

    /// How many event streams of all edges some entries went to.
    pub(super) async fn reached(&self, receipts: &[&Receipt]) -> Vec<Reached> {
        if receipts.is_empty() {
            return Vec::new();
        }
        let others = self.others().await;
        self.asking().reached(others, receipts).await
    }

    /// What the others answer to a question, and who did not.
    pub(super) async fn gather(&self, question: &Value) -> Gathered {
        let others = self.others().await;
        if !*self.running.is_open.borrow() {
            // Nobody would hear it.
            return Gathered {
                answers: Vec::new(),
                missing: others.into_iter().collect(),
            };
        }
        self.asking().gather(others, question).await
    }

    /// What one of the others answers to a question.
    pub(super) async fn ask(&self, node: &str, question: &Value) -> Result<Value, Unheard> {
        let others = self.others().await;
        let Some(node) = others.get(node).cloned() else {
            return Err(Unheard::Unknown(node.to_owned()));
        };
        let asking = self.asking();
        let asked = asking.gather(BTreeSet::from([node.clone()]), question);
        let said = asked.await.answers.pop();
        said.map(|(_, said)| said).ok_or(Unheard::Silent(node))
    }

    /// The next question of the others.
    pub(super) async fn until_asked(&self) -> Asked {
        let mut asked = self.running.asked.lock().await;
        match asked.recv().await {
            Some(asked) => asked,
            // The edge ends.
            None => std::future::pending().await,
        }
    }

    pub(super) fn node(&self) -> &str {
        &self.settings.node
    }

    /// What the other edges are called.
    async fn others(&self) -> BTreeSet<String> {
        // Who is there is known once each has said so.
        let known = self.began + KNOWN;
        tokio::time::sleep_until(known.into()).await;
        let others = self.running.nodes.all(clock::now());
        others.into_iter().map(|(beat, _)| beat.node).collect()
    }

    fn asking(&self) -> Asking<'_> {
        Asking {
            broker: &self.running.broker,
            settings: &self.settings,
        }
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.running.facts
    }

    /// Tells all edges a fact; `false` if its key was told of since the revision that is expected.
    pub(super) async fn tell(
        &self,
        key: &str,
        value: Vec<u8>,
        expected: Option<u64>,
        kept: Option<Duration>,
    ) -> Result<bool, NotStored> {
        self.is_there().await?;
        let told = self
            .running
            .broker
            .tell(key, value.into(), expected, kept)
            .await;
        let revision = told.map_err(|error| match error {
            BrokerError::Away(_) => NotStored::Unknown,
            error if error.is_full() => NotStored::Full,
            error => NotStored::Failed(error.to_string()),
        })?;
        if let Some(revision) = revision {
            self.until_fact(revision).await;
        }
        Ok(revision.is_some())
    }

    pub(super) async fn until_fact(&self, revision: u64) {
        self.running
            .facts
            .until_known(revision, sender::PATIENCE)
            .await;
    }

    /// How long this edge leaves it to others to have the events go out whose turn has come.
    pub(super) fn pause_before_turns(&self) -> Duration {
        let before = u32::try_from(self.running.nodes.before(&self.settings.node));
        RANK * before.unwrap_or(u32::MAX).min(100)
    }

    /// Why nobody new is to come, if the order has been away for a while.
    pub(super) fn unready(&self, now: Instant) -> Option<String> {
        let stuck = self.running.applier.waits_for_disk(now);
        if stuck >= UNREADY {
            let seconds = stuck.as_secs();
            return Some(format!(
                "the disk has not answered for {seconds} s (history.directory)"
            ));
        }
        let away = self
            .running
            .away
            .lock()
            .expect("no holder of this lock panics");
        let away = away.map(|since| now.saturating_duration_since(since));
        away.filter(|away| *away >= UNREADY).map(|away| {
            let (name, seconds) = (&self.settings.name, away.as_secs());
            format!("the order of the cluster {name} has been away for {seconds} s (cluster.nats)")
        })
    }

    /// What is told of the cluster.
    pub(super) fn status(&self, now: Instant) -> ClusterStatus {
        let info = self.running.info.borrow().clone();
        let applied = self.running.applier.position().sequence;
        let own = self.own.at(applied);
        let others = self.running.nodes.all(now).into_iter();
        let all = [(own, Duration::ZERO)].into_iter().chain(others);
        ClusterStatus {
            cluster: self.settings.name.clone(),
            node: self.settings.node.clone(),
            connected: *self.running.is_open.borrow(),
            server: self.running.broker.server(),
            epoch: self.hub.cursor().epoch.to_string(),
            behind: info.last.saturating_sub(applied),
            stream: StreamStatus {
                name: self.settings.stream(),
                replicas: info.replicas,
                leader: info.leader,
                first: info.first,
                last: info.last,
                frames: info.frames,
                bytes: info.bytes,
                max_bytes: self.settings.bytes,
            },
            nodes: all
                .map(|(beat, silent)| NodeStatus {
                    beat,
                    silent: silent.as_secs_f64(),
                })
                .collect(),
        }
    }

    /// Sends what was handed over, and takes nothing more.
    pub(super) async fn close(&self) {
        let outlet = {
            let mut outlet = self.outlet.lock().expect("no holder of this lock panics");
            outlet.take()
        };
        if let Some(Outlet { items, sent }) = outlet {
            drop(items);
            let _: Result<_, _> = tokio::time::timeout(sender::PATIENCE, sent).await;
        }
        self.stop.notify_one();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Ok(Some(thread)) = self.thread.lock().map(|mut thread| thread.take()) {
            let _: Result<_, _> = thread.join();
        }
    }
}

/// An entry as all edges are told it.
fn encode(entry: &Entry, wall: &Wall) -> Encoded {
    let mut encoded = record::encode_all(entry, wall);
    // Which event is taken back is settled by each edge when it applies that.
    if let Some(before) = record::before(encoded.kind, None, None, wall) {
        encoded.body.splice(0..0, before);
    }
    encoded
}

/// Waits until the rings are filled and all facts are known, as long as there is progress.
fn until_opened(
    is_opened: &std_mpsc::Receiver<Result<(Running, Outlet), ClusterError>>,
    settings: &ClusterSettings,
    metrics: &ClusterMetrics,
) -> Result<(Running, Outlet), ClusterError> {
    let (mut applied, mut is_read) = (0, false);
    loop {
        match is_opened.recv_timeout(OPENING) {
            Ok(opened) => return opened,
            Err(std_mpsc::RecvTimeoutError::Timeout) => {}
            Err(std_mpsc::RecvTimeoutError::Disconnected) => {
                let why = "the thread of the cluster ended, which is a bug";
                return Err(ClusterError::Refused(why.into()));
            }
        }
        // What was missed in a long absence takes a while.
        let before = std::mem::replace(&mut applied, metrics.applied.get());
        if is_read || applied == before {
            let what = match is_read.then(|| settings.facts()) {
                Some(facts) => format!("the bucket {facts} was not read as a whole"),
                None => "nothing of it was read".into(),
            };
            let seconds = OPENING.as_secs();
            return Err(ClusterError::Refused(format!(
                "{what} for {seconds} s; the log says why at debug level (log.filter)"
            )));
        }
        // Then all that is missing has nothing to do with what is applied.
        is_read = metrics.connected.get() == 1;
    }
}

/// All that the thread does until it is to stop. What publishers and operators have of it is handed over once the rings
/// are filled, or why they are not.
async fn live(
    finding: impl Future<Output = Result<Found, ClusterError>>,
    settings: Arc<ClusterSettings>,
    own: Beat,
    metrics: ClusterMetrics,
    opened: &std_mpsc::SyncSender<Result<(Running, Outlet), ClusterError>>,
    stop: &Notify,
) {
    let found = tokio::select! {
        found = finding => found,
        () = stop.notified() => return,
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return drop(opened.send(Err(error))),
    };
    let applier = found.applier.clone();
    let (work, running, outlet) = begin(settings, own, found, metrics);
    let (mut is_open, mut is_whole) = (running.is_open.clone(), running.is_whole.clone());
    let opening = async move {
        let _: Result<_, _> = is_open.wait_for(|is_open| *is_open).await.map(drop);
        let _: Result<_, _> = is_whole.wait_for(|is_whole| *is_whole).await.map(drop);
        let _: Result<_, _> = opened.send(Ok((running, outlet)));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = work => {}
        () = opening => {}
        () = stop.notified() => {}
    }
    applier.answer_all();
    applier.close();
}

/// What is known before the order is found.
struct Start<F> {
    settings: Arc<ClusterSettings>,
    retention: Retention,
    wall: Wall,
    /// Makes the hub of an order.
    make: F,
    cache: Option<Cache>,
    /// What this edge has kept of it.
    before: Option<Kept>,
}

impl<F: Fn(Epoch, u64, &[LostRange]) -> Arc<Hub>> Start<F> {
    /// Finds the servers and the order, again and again as long as nobody answers.
    async fn find(self) -> Result<Found, ClusterError> {
        let until = clock::now() + STARTING;
        let mut last_why = None;
        loop {
            let found = tokio::time::timeout_at(until.into(), self.find_once());
            let why = match found.await {
                Ok(Ok((broker, beginning))) => return Ok(self.found(broker, beginning)),
                Ok(Err(BrokerError::Away(why))) => why,
                Ok(Err(error)) => return Err(ClusterError::Refused(error.to_string())),
                Err(_) => last_why
                    .clone()
                    .unwrap_or_else(|| "it takes too long".into()),
            };
            let servers = self.settings.servers.join(", ");
            if clock::now() + PAUSE >= until {
                let seconds = STARTING.as_secs();
                return Err(ClusterError::Away {
                    servers,
                    seconds,
                    why,
                });
            }
            if last_why.is_none() {
                tracing::warn!("the order of the cluster is not there yet, at {servers}: {why}");
            }
            last_why = Some(why);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The servers, and the first frame that is read of the order where this edge kept nothing of it, with its epoch.
    async fn find_once(&self) -> Result<(Broker, Option<(u64, Epoch)>), BrokerError> {
        let broker = Broker::connect(self.settings.clone()).await?;
        let info = broker.stream().await?;
        if let Some(misfit) = &info.misfit {
            return Err(BrokerError::Misfit(misfit.clone()));
        }
        if i64::try_from(self.settings.bytes) != Ok(info.max_bytes) {
            tracing::warn!(
                "the stream {} keeps {} bytes at most, and history.disk.bytes is {}: change one of them, the stream with \
                 `nats stream edit`",
                self.settings.stream(),
                info.max_bytes,
                self.settings.bytes
            );
        }
        broker.facts().await?;
        let (epoch, _) = broker.epoch(&info).await?;
        if self.before.is_some() {
            // The reader looks whether it is of the same order.
            return Ok((broker, None));
        }
        let first = beginning(&broker, &info, &self.retention).await?;
        Ok((broker, Some((first, epoch))))
    }

    fn found(self, broker: Broker, beginning: Option<(u64, Epoch)>) -> Found {
        let Self {
            settings,
            wall,
            make,
            cache,
            before,
            ..
        } = self;
        let (hub, position, sequence, at) = match (before, beginning) {
            (Some(Kept { hub, mark, at }), None) => {
                let position = Position {
                    sequence: mark.sequence >> PLACE_BITS,
                    id: mark.id,
                };
                (hub, position, mark.sequence, Some(at))
            }
            (_, beginning) => {
                let (first, epoch) = beginning.expect("it was asked for");
                let floor = floor_before(first << PLACE_BITS);
                let hub = make(epoch, floor, &[]);
                if first > 1 {
                    // Nobody knows when what was before it was placed.
                    hub.forget_moments();
                }
                let position = Position {
                    sequence: first - 1,
                    id: None,
                };
                (hub, position, floor, None)
            }
        };
        let durability = if settings.replicas > 1 {
            Durability::Replicated
        } else {
            Durability::Written
        };
        let tail = Tail {
            sequence,
            at,
            cache,
        };
        let applier = Applier::new(hub, wall, durability, position, tail);
        Found {
            broker,
            applier: Arc::new(applier),
        }
    }
}

/// What publishers and operators have of what runs.
#[derive(Debug)]
struct Running {
    broker: Broker,
    applier: Arc<Applier>,
    nodes: Arc<Nodes>,
    facts: Arc<Facts>,
    /// Whether the order is there.
    is_open: watch::Receiver<bool>,
    /// All facts have come that there were.
    is_whole: watch::Receiver<bool>,
    /// Since when the order is away, if it is.
    away: Arc<Mutex<Option<Instant>>>,
    info: watch::Receiver<StreamInfo>,
    /// What other edges ask.
    asked: tokio::sync::Mutex<mpsc::Receiver<Asked>>,
}

/// Where publishers put entries.
#[derive(Debug)]
struct Outlet {
    items: mpsc::Sender<Item>,
    /// Told once all is sent, when there is no outlet any more.
    sent: oneshot::Receiver<()>,
}

/// Begins all that runs, which the future drives.
fn begin(
    settings: Arc<ClusterSettings>,
    own: Beat,
    Found { broker, applier }: Found,
    metrics: ClusterMetrics,
) -> (impl Future<Output = ()>, Running, Outlet) {
    let (nodes, facts) = (Arc::new(Nodes::default()), Arc::new(Facts::default()));
    let (whole, is_whole) = watch::channel(false);
    let follower = Follower {
        broker: broker.clone(),
        facts: facts.clone(),
        connected: broker.connected(),
        is_whole: whole,
    };
    let (items, taken) = mpsc::channel(ROOM as usize);
    let (open, is_open) = watch::channel(false);
    let (info, known) = watch::channel(StreamInfo::default());
    let (sent_now, sent) = oneshot::channel();
    let away = Arc::new(Mutex::new(Some(clock::now())));
    let doubt = Arc::new(Notify::new());
    let reader = Reader {
        broker: broker.clone(),
        applier: applier.clone(),
        metrics: metrics.clone(),
        connected: broker.connected(),
        doubt: doubt.clone(),
        is_open: open,
        not_for_it: None,
    };
    let sender = Sender {
        broker: broker.clone(),
        applier: applier.clone(),
        metrics: metrics.clone(),
        items: taken,
        is_open: is_open.clone(),
        last: FrameId {
            boot: fastrand::u64(..),
            number: 0,
        },
    };
    let monitor = Monitor {
        broker: broker.clone(),
        settings: settings.clone(),
        applier: applier.clone(),
        nodes: nodes.clone(),
        metrics,
        own,
        doubt,
        is_open: is_open.clone(),
        info,
    };
    let (ask, asked) = mpsc::channel(ask::WAITING);
    let answering = Answering {
        broker: broker.clone(),
        settings: settings.clone(),
        applier: applier.clone(),
        ask,
    };
    let watching = watch_away(is_open.clone(), away.clone());
    let work = async move {
        let sending = async {
            sender.run().await;
            let _: Result<(), ()> = sent_now.send(());
        };
        tokio::join!(
            reader.run(),
            sending,
            monitor.run(),
            follower.run(),
            answering.run(),
            watching
        );
    };
    let running = Running {
        broker,
        applier,
        nodes,
        facts,
        is_open,
        is_whole,
        away,
        info: known,
        asked: tokio::sync::Mutex::new(asked),
    };
    (work, running, Outlet { items, sent })
}

/// Remembers since when the order is away.
async fn watch_away(mut is_open: watch::Receiver<bool>, away: Arc<Mutex<Option<Instant>>>) {
    loop {
        set_away(&away, !*is_open.borrow_and_update());
        if is_open.changed().await.is_err() {
            return;
        }
    }
}

fn set_away(away: &Mutex<Option<Instant>>, is_away: bool) {
    let mut since = away.lock().expect("no holder of this lock panics");
    *since = is_away.then(|| since.unwrap_or_else(clock::now));
}
