//! A clock that says when things are due, evenly and whatever the server does: a thread of its own, for the
//! timers of a runtime have a grain of a millisecond.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::clock;

/// How many may be due and not begun; then the clock waits, and what is due later is late.
pub(super) const AHEAD: usize = 4096;
/// How long it sleeps before it looks whether it is still wanted.
const NAP: Duration = Duration::from_millis(50);

/// Something is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// The how manyeth it is, from 0.
    pub(super) number: u64,
    /// When.
    pub(super) at: Instant,
}

/// A clock that runs.
#[derive(Debug)]
pub(super) struct Clock {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Says `count` times that something is due, `rate` times a second, to one after the other.
pub(super) fn start<T: Send + 'static>(
    rate: f64,
    count: u64,
    to: Vec<mpsc::Sender<T>>,
    word: impl Fn(Due) -> T + Send + 'static,
) -> Clock {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || {
        let begun = clock::now();
        for number in 0..count {
            let at = begun + Duration::from_secs_f64(number as f64 / rate);
            loop {
                let left = at.saturating_duration_since(clock::now());
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(NAP));
            }
            let word = word(Due { number, at });
            if to[number as usize % to.len()].blocking_send(word).is_err() {
                return;
            }
        }
    });
    Clock { stop, thread }
}

impl Clock {
    /// Has it say nothing more.
    pub(super) fn halt(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for its end. It must have been halted, and whoever it tells must listen or be gone.
    pub(super) async fn join(self) {
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        joined
            .expect("it is not cancelled")
            .expect("a clock does not panic");
    }
}
