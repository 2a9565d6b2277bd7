//! What connections are doing, so that at the bound of them those end that do nothing, and for want of
//! memory those first whose peers take nothing.
//!
//! The clock is the caller's.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{BURST, Bound, Bucket, Limit};

/// How long a connection must have done nothing to be one of those that end.
const IDLE: Duration = Duration::from_secs(2);
/// How long it takes until they are all looked at again.
const BETWEEN: Duration = Duration::from_millis(100);
/// What part of all ends at once.
const PART: usize = 64;
/// And no more than that: each is an open file more, for a moment.
const MOST: usize = 32;
/// It does something.
const BUSY: u64 = 0;
/// Nothing that it said is on its way.
const ALL_SENT: u64 = 0;

/// All connections.
#[derive(Debug)]
pub(crate) struct Occupants {
    origin: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    all: HashMap<u64, Arc<Occupant>>,
    looked: Option<Instant>,
    /// How many were told to end for which nobody has come yet.
    room: usize,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Occupant {
    origin: Instant,
    source: IpAddr,
    /// Since when it does nothing, in milliseconds from the origin on and one more.
    idle_since: AtomicU64,
    /// Since when its peer takes nothing of what it said, in milliseconds as above.
    stuck_since: AtomicU64,
    /// It was told to end.
    told: AtomicBool,
    /// And that whatever it does.
    must_end: AtomicBool,
    /// What it asks for.
    requests: Mutex<Option<Bucket>>,
    end: Notify,
}

/// A connection is there; dropping it says that it is not any more.
#[derive(Debug)]
pub(crate) struct Stay {
    occupants: Arc<Occupants>,
    id: u64,
    occupant: Arc<Occupant>,
}

impl Occupants {
    /// None yet.
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            origin: now,
            inner: Mutex::default(),
        })
    }

    /// One has come from `source`, and does nothing yet.
    pub(crate) fn come(self: &Arc<Self>, source: IpAddr, now: Instant) -> Stay {
        let occupant = Occupant::new(self.origin, source, now);
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        inner.all.insert(id, occupant.clone());
        drop(inner);
        Stay {
            occupants: self.clone(),
            id,
            occupant,
        }
    }

    /// Has some end that do nothing, those of whom most are there and that do so longest first. Whether
    /// there is room for one that comes now.
    pub(crate) fn make_room(&self, now: Instant) -> bool {
        let mut inner = self.lock();
        let looked = inner.looked;
        let again = looked.is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN);
        if again {
            // What was promised before is not good any more.
            inner.looked = Some(now);
            inner.room = self.end_idle(&inner.all, now);
        }
        let room = inner.room > 0;
        inner.room -= usize::from(room);
        room
    }

    /// Has some end for want of memory: those whose peers have taken nothing for longest of what they said,
    /// or, if there are none, some that do nothing. How many.
    pub(crate) fn shed(&self, now: Instant) -> usize {
        let inner = self.lock();
        let until = self.long_ago(now);
        let stuck = inner.all.values().filter_map(|occupant| {
            let since = occupant.stuck_since.load(Ordering::Relaxed);
            let is_stuck = since != ALL_SENT && since <= until;
            (is_stuck && !occupant.must_end.load(Ordering::Relaxed)).then_some((since, occupant))
        });
        let mut stuck: Vec<(u64, &Arc<Occupant>)> = stuck.collect();
        if stuck.is_empty() {
            return self.end_idle(&inner.all, now);
        }
        stuck.sort_by_key(|(since, _)| *since);
        stuck.truncate(part(inner.all.len()));
        for (_, occupant) in &stuck {
            occupant.must_end.store(true, Ordering::Relaxed);
            occupant.tell();
        }
        stuck.len()
    }

    /// Until when a connection must have done nothing to be one of those that end.
    fn long_ago(&self, now: Instant) -> u64 {
        millis(self.origin, now).saturating_sub(IDLE.as_millis() as u64)
    }

    fn end_idle(&self, all: &HashMap<u64, Arc<Occupant>>, now: Instant) -> usize {
        let mut by_source: HashMap<IpAddr, usize> = HashMap::new();
        for occupant in all.values() {
            *by_source.entry(occupant.source).or_default() += 1;
        }
        let until = self.long_ago(now);
        let idle = all.values().filter_map(|occupant| {
            let since = occupant.idle_since.load(Ordering::Relaxed);
            let is_idle = !occupant.is_busy() && !occupant.told.load(Ordering::Relaxed);
            (is_idle && since <= until).then_some((since, occupant))
        });
        let mut idle: Vec<(u64, &Arc<Occupant>)> = idle.collect();
        idle.sort_by_key(|(since, occupant)| {
            (std::cmp::Reverse(by_source[&occupant.source]), *since)
        });
        idle.truncate(part(all.len()));
        for (_, occupant) in &idle {
            occupant.tell();
        }
        idle.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

impl Occupant {
    fn new(origin: Instant, source: IpAddr, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            origin,
            source,
            idle_since: AtomicU64::new(millis(origin, now)),
            stuck_since: AtomicU64::new(ALL_SENT),
            told: AtomicBool::new(false),
            must_end: AtomicBool::new(false),
            requests: Mutex::default(),
            end: Notify::new(),
        })
    }

    /// One that nobody counts.
    pub(crate) fn of_nobody(source: IpAddr, now: Instant) -> Arc<Self> {
        Self::new(now, source, now)
    }

    /// It asks for something: so often a second, ten times as often at once.
    ///
    /// # Errors
    ///
    /// The limit, when it does so too often.
    pub(crate) fn ask(&self, per_second: Bound<usize>, now: Instant) -> Result<(), Limit> {
        let Bound { limit, value } = per_second;
        let mut requests = self.requests.lock().expect("no holder of this lock panics");
        let bucket = requests
            .get_or_insert_with(|| Bucket::new(limit, value.saturating_mul(BURST), value, now));
        bucket.take(1, now)
    }

    /// It does something, or nothing from now on.
    pub(crate) fn set_busy(&self, busy: bool, now: Instant) {
        let was_busy = self.idle_since.load(Ordering::Relaxed) == BUSY;
        if was_busy != busy {
            let since = if busy { BUSY } else { millis(self.origin, now) };
            self.idle_since.store(since, Ordering::Relaxed);
        }
    }

    fn tell(&self) {
        self.told.store(true, Ordering::Relaxed);
        self.end.notify_one();
    }

    /// Returns once it is to end, unless it may go on if it has begun to do something meanwhile. Cancel-safe.
    pub(crate) async fn ended(&self) {
        loop {
            self.end.notified().await;
            if !self.is_busy() || self.must_end.load(Ordering::Relaxed) {
                return;
            }
            self.told.store(false, Ordering::Relaxed);
        }
    }

    /// Whether its peer takes nothing of what it said.
    pub(crate) fn set_stuck(&self, stuck: bool, now: impl FnOnce() -> Instant) {
        let was_stuck = self.stuck_since.load(Ordering::Relaxed) != ALL_SENT;
        if stuck && !was_stuck {
            self.stuck_from(now());
        } else if was_stuck && !stuck {
            self.stuck_since.store(ALL_SENT, Ordering::Relaxed);
        }
    }

    /// Its peer has taken something just now, and takes nothing from now on.
    pub(crate) fn stuck_from(&self, now: Instant) {
        let since = millis(self.origin, now);
        self.stuck_since.store(since, Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        self.idle_since.load(Ordering::Relaxed) == BUSY
            || self.stuck_since.load(Ordering::Relaxed) != ALL_SENT
    }
}

/// How many of so many end at once.
fn part(all: usize) -> usize {
    all.div_ceil(PART).min(MOST)
}

fn millis(origin: Instant, at: Instant) -> u64 {
    let since = at.saturating_duration_since(origin).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
}

impl Stay {
    /// The connection.
    pub(crate) fn occupant(&self) -> &Arc<Occupant> {
        &self.occupant
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.occupants.lock().all.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idlest_of_whom_most_are_there_end_first() {
        let now = crate::clock::now();
        let later = |seconds: u64| now + Duration::from_secs(seconds);
        let occupants = Occupants::new(now);
        let of = |last: u8| IpAddr::from([192, 0, 2, last]);
        let alone = occupants.come(of(1), now);
        let greedy: Vec<Stay> = (0..100).map(|n| occupants.come(of(2), later(n))).collect();
        greedy[0].occupant().set_busy(true, later(100));
        // None has done nothing for long.
        assert!(!occupants.make_room(now));
        assert!(occupants.make_room(later(100)));
        let told = |stay: &Stay| stay.occupant.told.load(Ordering::Relaxed);
        let ended = greedy.iter().filter(|stay| told(stay)).count();
        assert_eq!(
            (ended, told(&greedy[0]), told(&greedy[1])),
            (2, false, true)
        );
        assert!(!told(&alone));
        assert!(occupants.make_room(later(100)));
        // Nobody is looked for again so soon.
        assert!(!occupants.make_room(later(100)));
        assert!(occupants.make_room(later(101)));
        // What was promised for the others who ended then does not count any more: the last of whom
        // nothing is unsent ends for the next.
        for stay in &greedy[6..] {
            stay.occupant().set_stuck(true, || later(101));
        }
        assert!(occupants.make_room(later(102)) && told(&greedy[5]));
        assert!(!told(&greedy[0]) && !told(&greedy[6]));
        // For want of memory those end whose peers take nothing, if they did not for a while, whatever
        // they do; and then the idle ones.
        greedy[7].occupant().set_stuck(false, || later(102));
        greedy[7].occupant().set_stuck(true, || later(102));
        greedy[8].occupant().set_busy(true, later(102));
        let must = |stay: &Stay| stay.occupant.must_end.load(Ordering::Relaxed);
        assert_eq!(occupants.shed(later(102)), 0);
        let ended: usize = (0..47).map(|_| occupants.shed(later(103))).sum();
        assert_eq!(ended, 93);
        assert!(must(&greedy[8]) && !must(&greedy[7]) && !must(&alone));
        drop((greedy, alone));
        assert!(occupants.lock().all.is_empty());
    }
}
