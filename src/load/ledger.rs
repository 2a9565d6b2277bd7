//! What all readers of a run write into: counters, times, and the first thing that went wrong.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::sync::{Notify, watch};

use super::{
    scan::{Found, Scanner},
    stamp::Stamp,
    tally::Tally,
};
use crate::clock;

/// How many histograms the readers share: each is a fifth of a megabyte.
const SHARDS: usize = 8;

/// The accounts of a run.
#[derive(Debug)]
pub(super) struct Ledger {
    /// What the times in stamps count from.
    base: Instant,
    /// What the stamps of this run say.
    run: u32,
    /// How many publish.
    publishers: usize,
    connected: AtomicUsize,
    present: AtomicUsize,
    last_answered: AtomicU64,
    opened: AtomicUsize,
    ended: AtomicUsize,
    delivered: AtomicU64,
    comments: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    last_opened: AtomicU64,
    last_delivered: AtomicU64,
    events: [Mutex<Histogram<u64>>; SHARDS],
    requests: [Mutex<Histogram<u64>>; SHARDS],
    openings: Mutex<Histogram<u64>>,
    trouble: Mutex<Option<String>>,
    troubled: Notify,
}

impl Ledger {
    pub(super) fn new(publishers: usize) -> Self {
        let histograms = || std::array::from_fn(|_| Mutex::new(new_histogram()));
        Self {
            base: clock::now(),
            run: fastrand::u32(..),
            publishers,
            connected: AtomicUsize::new(0),
            present: AtomicUsize::new(0),
            last_answered: AtomicU64::new(0),
            opened: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            comments: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            last_opened: AtomicU64::new(0),
            last_delivered: AtomicU64::new(0),
            events: histograms(),
            requests: histograms(),
            openings: Mutex::new(new_histogram()),
            trouble: Mutex::default(),
            troubled: Notify::new(),
        }
    }

    /// A moment of the run, in microseconds.
    pub(super) fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_micros() as u64
    }

    pub(super) fn now(&self) -> u64 {
        self.micros(clock::now())
    }

    /// A moment of the run that was told in microseconds.
    fn at(&self, micros: u64) -> Instant {
        self.base + Duration::from_micros(micros)
    }

    /// The number that stamps of this run have.
    pub(super) fn run(&self) -> u32 {
        self.run
    }

    /// Whether an event was published by this run: others may be at it too.
    fn is_own(&self, stamp: &Stamp) -> bool {
        stamp.run == self.run && (stamp.publisher as usize) < self.publishers
    }

    /// One more connection is made.
    pub(super) fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    /// So many open streams are left by those who read them.
    pub(super) fn left(&self, streams: usize) {
        self.present.fetch_sub(streams, Ordering::Relaxed);
    }

    /// A stream that was asked for at `asked` is open.
    pub(super) fn opened(&self, asked: u64) {
        let now = self.now();
        self.present.fetch_add(1, Ordering::Relaxed);
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.last_opened.fetch_max(now, Ordering::Relaxed);
        record(&self.openings, [now.saturating_sub(asked)]);
    }

    /// A stream has ended, or was not opened, though nobody wanted it.
    pub(super) fn ended(&self, was_open: bool, why: impl FnOnce() -> String) {
        self.left(usize::from(was_open));
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.trouble(why);
    }

    /// An ordinary request of connection `shard` that was due at `due` has been answered.
    pub(super) fn answered(&self, shard: usize, due: u64, succeeded: bool) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if !succeeded {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        let now = self.now();
        self.last_answered.fetch_max(now, Ordering::Relaxed);
        let took = now.saturating_sub(due);
        record(&self.requests[shard % SHARDS], [took]);
    }

    /// Something is wrong that ends the run. The first that is told is kept.
    pub(super) fn trouble(&self, what: impl FnOnce() -> String) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_none() {
            *trouble = Some(what());
            self.troubled.notify_waiters();
        }
    }

    /// What is wrong, if anything.
    pub(super) fn first_trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }

    /// Comes back when something is wrong.
    pub(super) async fn until_trouble(&self) {
        let told = self.troubled.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        if self.first_trouble().is_none() {
            told.await;
        }
    }

    /// Waits, unless the run is stopped or in trouble.
    pub(super) async fn wait(&self, time: Duration, stop: &watch::Receiver<bool>) {
        let mut stop = stop.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = stopped(&mut stop) => {}
            () = self.until_trouble() => {}
        }
    }

    pub(super) fn streams_opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// Connections that were made, and streams that are open now.
    pub(super) fn present(&self) -> (usize, usize) {
        let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (load(&self.connected), load(&self.present))
    }

    /// When the last ordinary request was answered.
    pub(super) fn last_answered(&self) -> Instant {
        self.at(self.last_answered.load(Ordering::Relaxed))
    }

    pub(super) fn streams_ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(super) fn comments(&self) -> u64 {
        self.comments.load(Ordering::Relaxed)
    }

    /// Ordinary requests that have been answered, and how many of them with an error.
    pub(super) fn requests_answered(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.answered), load(&self.failed))
    }

    /// When the last stream was opened, and when the last event came.
    pub(super) fn last(&self) -> (Instant, Instant) {
        let last = |time: &AtomicU64| self.at(time.load(Ordering::Relaxed));
        (last(&self.last_opened), last(&self.last_delivered))
    }

    /// From when events were due to when they were read, in microseconds.
    pub(super) fn event_latency(&self) -> Histogram<u64> {
        sum(&self.events)
    }

    /// From when requests were due to the ends of their answers, in microseconds.
    pub(super) fn request_latency(&self) -> Histogram<u64> {
        sum(&self.requests)
    }

    /// From when streams were asked for to the heads of their answers, in microseconds, since this was last
    /// taken.
    pub(super) fn take_opening_latency(&self) -> Histogram<u64> {
        let mut openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *openings, new_histogram())
    }
}

/// Comes back when the run is to end.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Whoever could say so being gone is as good as saying it.
    let _: Result<_, watch::error::RecvError> = stop.wait_for(|stopped| *stopped).await;
}

/// A histogram of microseconds, up to an hour.
pub(super) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("an hour in microseconds")
}

fn record(histogram: &Mutex<Histogram<u64>>, values: impl IntoIterator<Item = u64>) {
    let mut histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
    for value in values {
        histogram.saturating_record(value.max(1));
    }
}

fn sum(shards: &[Mutex<Histogram<u64>>]) -> Histogram<u64> {
    let mut sum = new_histogram();
    for shard in shards {
        let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(&*shard).expect("the same bounds");
    }
    sum
}

/// One who reads a stream; who comes back is the same one.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// The number of its topic.
    pub(super) topic: usize,
    pub(super) scanner: Scanner,
    pub(super) tally: Tally,
}

impl Subscriber {
    pub(super) fn new(topic: usize) -> Self {
        Self {
            topic,
            scanner: Scanner::default(),
            tally: Tally::default(),
        }
    }

    /// What it says when the server has ended its stream.
    pub(super) fn end(&self) -> String {
        let word = String::from_utf8_lossy(self.scanner.last_word());
        match &*word {
            "" => "the server ended a stream".into(),
            word => format!("the server ended a stream after it had said `{word}`"),
        }
    }

    /// It comes with a cursor, and has had so many events.
    pub(super) fn come_with(&mut self, cursor: &[u8], had: u64) {
        self.scanner = Scanner::after(cursor);
        self.tally = Tally::after(had);
    }

    /// Reads a piece of the stream that came at `now`, on connection `shard`.
    pub(super) fn take(&mut self, piece: &[u8], now: u64, shard: usize, ledger: &Ledger) {
        let (mut events, mut comments) = (0, 0);
        let mut dues: smallvec::SmallVec<[u64; 8]> = smallvec::SmallVec::new();
        let tally = &mut self.tally;
        self.scanner.push(piece, |found| match found {
            Found::Comment => comments += 1,
            Found::Event(stamp) if !ledger.is_own(&stamp) => {}
            Found::Event(stamp) => {
                let Stamp { due, .. } = stamp;
                tally.take(&stamp);
                dues.push(now.saturating_sub(due));
                events += 1;
            }
        });
        if comments > 0 {
            ledger.comments.fetch_add(comments, Ordering::Relaxed);
        }
        if events > 0 {
            record(&ledger.events[shard % SHARDS], dues);
            ledger.last_delivered.fetch_max(now, Ordering::Relaxed);
            ledger.delivered.fetch_add(events, Ordering::Relaxed);
        }
    }
}
