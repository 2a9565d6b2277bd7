//! What wakes a connection: a list of its streams that have something to do.
//!
//! A publish marks every stream of a connection under one lock and wakes the connection's task
//! once. Waking streams one by one would start that task on another core after the first mark,
//! and it would flush a part of the batch.

use std::{
    net::IpAddr,
    sync::Arc,
    task::{Wake, Waker},
};

use futures_util::task::AtomicWaker;

use super::names::Account;
use crate::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

/// How many moments there are within the time of a keepalive at which those of a connection go out. A thread
/// that sleeps costs more to wake than a connection to look after, so that some go together; few enough, of
/// 100,000, that events do not wait for them.
const BEATS: u8 = 128;

/// The mailbox of one connection.
#[derive(Debug)]
pub struct Mailbox {
    inner: Mutex<Marks>,
    account: Arc<Account>,
    waker: AtomicWaker,
    /// The stream whose own waker is muted just now, plus one.
    muted: AtomicU32,
    /// When within the time of a keepalive those of its streams go out, in 0..1.
    phase: f32,
}

#[derive(Debug, Default)]
struct Marks {
    slots: Vec<StreamMarks>,
    free: Vec<u32>,
    ready: Vec<u32>,
    /// The task was woken and has not taken `ready` since.
    signalled: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct StreamMarks {
    /// How many events that count the stream was marked for.
    addressed: u64,
    /// The last event it was marked for, so that one in several of its topics counts once.
    last: u64,
    /// Invariant: the key is in `ready`.
    ready: bool,
}

/// The event that streams are marked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) sequence: u64,
    /// Whether whoever loses it is told so.
    pub(super) is_counted: bool,
}

/// What marking a group of streams came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marked {
    /// Streams that were not marked for this event before.
    pub(super) fresh: usize,
    /// The connection sleeps: wake it, once the hub's lock is released.
    pub(super) wake: bool,
}

impl Mailbox {
    /// A mailbox without streams, of a connection from `source`.
    #[must_use]
    pub fn new(source: IpAddr) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            account: Account::new(source),
            waker: AtomicWaker::new(),
            muted: AtomicU32::new(0),
            phase: f32::from(fastrand::u8(..BEATS)) / f32::from(BEATS),
        })
    }

    /// When within the time of a keepalive those of its streams go out, in 0..1: all of a connection's at
    /// once, as each packet wakes a phone's radio, and those of all connections spread.
    #[must_use]
    pub fn phase(&self) -> f64 {
        f64::from(self.phase)
    }

    /// On whose behalf its streams name topics.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Gives a stream its place; dropping the handle gives it up.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> StreamHandle {
        let mut inner = self.lock();
        let key = match inner.free.pop() {
            Some(key) => key,
            None => {
                inner.slots.push(StreamMarks::default());
                u32::try_from(inner.slots.len() - 1).expect("fewer than 2^32 streams")
            }
        };
        inner.slots[key as usize] = StreamMarks {
            // A waker of the stream that had the key before may have left its mark.
            ready: inner.slots[key as usize].ready,
            ..StreamMarks::default()
        };
        drop(inner);
        StreamHandle {
            mailbox: self.clone(),
            key,
        }
    }

    /// Moves the keys of the marked streams to `ready`, which must be empty, and has `waker` woken
    /// at the next mark.
    pub fn take_ready(&self, waker: &Waker, ready: &mut Vec<u32>) {
        debug_assert!(ready.is_empty());
        // Registered first: a mark that comes after the list was taken finds the waker.
        self.waker.register(waker);
        let mut inner = self.lock();
        inner.signalled = false;
        std::mem::swap(&mut inner.ready, ready);
        for &key in ready.iter() {
            inner.slots[key as usize].ready = false;
        }
    }

    /// Mutes the waker of one stream until [`unmute`](Self::unmute): whoever is looking after it
    /// need not be told by what that sets off. Only for wakers that nobody else calls meanwhile.
    pub fn mute(&self, key: u32) {
        self.muted.store(key + 1, Ordering::Relaxed);
    }

    /// Lets every waker be heard again.
    pub fn unmute(&self) {
        self.muted.store(0, Ordering::Relaxed);
    }

    /// Marks streams for an event.
    pub(super) fn mark(&self, keys: &[u32], event: Mark) -> Marked {
        let mut inner = self.lock();
        let Marks { slots, ready, .. } = &mut *inner;
        let mut fresh = 0;
        for &key in keys {
            let slot = &mut slots[key as usize];
            if slot.last == event.sequence {
                continue;
            }
            slot.last = event.sequence;
            slot.addressed += u64::from(event.is_counted);
            fresh += 1;
            if !slot.ready {
                slot.ready = true;
                ready.push(key);
            }
        }
        let wake = fresh > 0 && !std::mem::replace(&mut inner.signalled, true);
        Marked { fresh, wake }
    }

    /// Marks streams that have something to look at which is not an event. Whether the connection
    /// sleeps: wake it, once no lock is held.
    pub(super) fn mark_all(&self, keys: &[u32]) -> bool {
        let mut inner = self.lock();
        let Marks { slots, ready, .. } = &mut *inner;
        for &key in keys {
            if !std::mem::replace(&mut slots[key as usize].ready, true) {
                ready.push(key);
            }
        }
        !std::mem::replace(&mut inner.signalled, true)
    }

    /// Has a stream looked after, for a reason that its connection does not know.
    pub fn nudge(&self, key: u32) {
        if self.mark_all(&[key]) {
            self.wake();
        }
    }

    /// How many events that count a stream was marked for since it was opened.
    #[must_use]
    pub fn addressed(&self, key: u32) -> u64 {
        self.lock().slots[key as usize].addressed
    }

    fn wake(&self) {
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

/// Connections to wake. Dropping them wakes each once: no lock may be held then.
#[derive(Debug, Default)]
pub struct Wakes(Vec<Arc<Mailbox>>);

impl Wakes {
    pub(super) fn add(&mut self, mailbox: &Arc<Mailbox>) {
        self.0.push(mailbox.clone());
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        for mailbox in &self.0 {
            mailbox.wake();
        }
    }
}

/// A stream's place in its connection's mailbox.
#[derive(Debug)]
pub struct StreamHandle {
    mailbox: Arc<Mailbox>,
    key: u32,
}

impl StreamHandle {
    /// The key under which [`Mailbox::take_ready`] names the stream.
    #[must_use]
    pub fn key(&self) -> u32 {
        self.key
    }

    /// The mailbox of its connection.
    #[must_use]
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// How many events that count the stream was marked for since it was opened.
    pub(super) fn addressed(&self) -> u64 {
        self.mailbox.addressed(self.key)
    }

    /// What marks this stream and wakes its connection, unless the stream is muted: for flow control
    /// and cancels.
    #[must_use]
    pub fn waker(&self) -> Arc<StreamWaker> {
        self.waker_that(true)
    }

    /// The same for what other tasks wake: it is always heard.
    #[must_use]
    pub fn waker_from_outside(&self) -> Waker {
        self.waker_that(false).into()
    }

    fn waker_that(&self, can_be_muted: bool) -> Arc<StreamWaker> {
        Arc::new(StreamWaker {
            mailbox: self.mailbox.clone(),
            key: self.key,
            can_be_muted,
            spent: AtomicBool::new(true),
        })
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.mailbox.lock().free.push(self.key);
    }
}

/// The waker of one stream.
#[derive(Debug)]
pub struct StreamWaker {
    mailbox: Arc<Mailbox>,
    key: u32,
    can_be_muted: bool,
    spent: AtomicBool,
}

impl StreamWaker {
    /// Whether nobody may have it any more: it is new, or it was called since this was last asked,
    /// muted or not.
    pub fn take_spent(&self) -> bool {
        // Nearly always it was not, and to look costs less than to change it.
        self.spent.load(Ordering::Acquire) && self.spent.swap(false, Ordering::AcqRel)
    }
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.spent.store(true, Ordering::Release);
        let muted = self.can_be_muted && self.mailbox.muted.load(Ordering::Relaxed) == self.key + 1;
        if !muted {
            self.mailbox.nudge(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn taken(mailbox: &Mailbox, waker: &Waker) -> Vec<u32> {
        let mut ready = Vec::new();
        mailbox.take_ready(waker, &mut ready);
        ready
    }

    fn event(sequence: u64) -> Mark {
        Mark {
            sequence,
            is_counted: true,
        }
    }

    #[test]
    fn a_connection_is_woken_once_until_it_looks() {
        let mailbox = Mailbox::new(LOCAL);
        let (a, b) = (mailbox.open(), mailbox.open());
        let keys = [a.key(), b.key()];
        assert_eq!(
            mailbox.mark(&keys, event(1)),
            Marked {
                fresh: 2,
                wake: true
            }
        );
        assert_eq!(
            mailbox.mark(&keys, event(1)),
            Marked {
                fresh: 0,
                wake: false
            }
        );
        assert_eq!(
            mailbox.mark(&keys, event(2)),
            Marked {
                fresh: 2,
                wake: false
            }
        );
        assert_eq!(taken(&mailbox, Waker::noop()), keys);
        assert_eq!(
            mailbox.mark(&keys[..1], event(3)),
            Marked {
                fresh: 1,
                wake: true
            }
        );
        assert_eq!((a.addressed(), b.addressed()), (3, 2));
    }

    #[test]
    fn a_streams_waker_marks_that_stream() {
        let mailbox = Mailbox::new(LOCAL);
        let (_a, b) = (mailbox.open(), mailbox.open());
        let count = Arc::new(Count::default());
        let task = count.clone().into();
        assert!(taken(&mailbox, &task).is_empty());
        let own = b.waker();
        let waker = Waker::from(own.clone());
        assert!(own.take_spent() && !own.take_spent());
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(taken(&mailbox, &task), [b.key()]);
        mailbox.mute(b.key());
        assert!(own.take_spent());
        waker.wake_by_ref();
        assert!(taken(&mailbox, &task).is_empty());
        assert!(own.take_spent());
        b.waker_from_outside().wake();
        assert_eq!(taken(&mailbox, &task), [b.key()]);
        mailbox.unmute();
        waker.wake();
        assert_eq!(taken(&mailbox, &task), [b.key()]);
    }

    #[test]
    fn a_key_is_used_again_with_its_counts_at_zero() {
        let mailbox = Mailbox::new(LOCAL);
        let stream = mailbox.open();
        let key = stream.key();
        mailbox.mark(&[key], event(1));
        drop(stream);
        let stream = mailbox.open();
        assert_eq!((stream.key(), stream.addressed()), (key, 0));
    }
}
