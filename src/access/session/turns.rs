//! Whose turn it is to ask the app: visitors must not become a flood for it, nor one of them shut the others out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many questions are under way at a time, whoever asks.
const COMMON: usize = 48;
/// How many more, of those who have few under way.
const KEPT: usize = 16;
/// How many of these are of one address.
const OF_AN_ADDRESS: usize = 2;
/// How many are about those who are there already, which nobody else's questions keep waiting.
const AGAIN: usize = 8;

/// The turns of all who ask. Whoever asks waits in two queues: that of all, and one that each address has a
/// place or two in, however many others wait.
#[derive(Debug)]
pub(super) struct Turns {
    common: Semaphore,
    kept: Semaphore,
    again: Semaphore,
    /// With how many wait or ask there. Invariant: none is 0.
    own: Mutex<HashMap<IpAddr, (Arc<Semaphore>, usize)>>,
}

/// A question may be asked; dropping it lets another one ask.
#[derive(Debug)]
#[must_use]
pub(super) struct Turn<'t> {
    _permit: SemaphorePermit<'t>,
    _own: Option<Own<'t>>,
}

/// The places that an address has.
#[derive(Debug)]
struct Own<'t> {
    turns: &'t Turns,
    source: IpAddr,
    places: Arc<Semaphore>,
    /// One of them.
    place: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            common: Semaphore::new(COMMON),
            kept: Semaphore::new(KEPT),
            again: Semaphore::new(AGAIN),
            own: Mutex::default(),
        }
    }
}

impl Turns {
    /// Waits until someone from `source` may ask.
    pub(super) async fn take(&self, source: IpAddr) -> Turn<'_> {
        if let Ok(permit) = self.common.try_acquire() {
            return Turn {
                _permit: permit,
                _own: None,
            };
        }
        let mut own = self.own(source);
        // Both are cancel-safe: a place in a queue that is not needed is given up.
        let common = async { self.common.acquire().await.expect(OPEN) };
        let kept = async {
            let place = own.places.clone().acquire_owned().await.expect(OPEN);
            (place, self.kept.acquire().await.expect(OPEN))
        };
        tokio::select! {
            permit = common => Turn { _permit: permit, _own: None },
            (place, permit) = kept => {
                own.place = Some(place);
                Turn { _permit: permit, _own: Some(own) }
            }
        }
    }

    /// Waits until it may be asked about someone who is there.
    pub(super) async fn take_again(&self) -> Turn<'_> {
        Turn {
            _permit: self.again.acquire().await.expect(OPEN),
            _own: None,
        }
    }

    fn own(&self, source: IpAddr) -> Own<'_> {
        let mut all = self.lock();
        let (places, count) = all
            .entry(source)
            .or_insert_with(|| (Arc::new(Semaphore::new(OF_AN_ADDRESS)), 0));
        *count += 1;
        Own {
            turns: self,
            source,
            places: places.clone(),
            place: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, (Arc<Semaphore>, usize)>> {
        self.own.lock().expect("no holder of this lock panics")
    }
}

/// None of the semaphores is ever closed.
const OPEN: &str = "it is open";

impl Drop for Own<'_> {
    fn drop(&mut self) {
        let mut all = self.turns.lock();
        if let Some((_, count)) = all.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_asks_for_thousands_shuts_nobody_out() {
        let turns = Turns::default();
        let (eve, bob): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let mut asking = Vec::new();
        let mut waiting = Vec::new();
        for _ in 0..1000 {
            let mut take = Box::pin(turns.take(eve));
            match take.as_mut().now_or_never() {
                Some(turn) => asking.push(turn),
                None => waiting.push(take),
            }
        }
        assert_eq!(asking.len(), COMMON + OF_AN_ADDRESS);
        let bobs = turns.take(bob).now_or_never().expect("it is his turn");
        drop(bobs);
        // Each that is answered makes room for one that waits, in the order they came.
        asking.pop();
        let mut next = waiting.remove(0);
        let turn = next.as_mut().now_or_never().expect("it is its turn");
        assert!(waiting[0].as_mut().now_or_never().is_none());
        // What nobody waits for is forgotten.
        drop((asking, turn, next, waiting));
        assert!(turns.lock().is_empty());
        assert_eq!(turns.common.available_permits(), COMMON);
        assert_eq!(turns.kept.available_permits(), KEPT);
    }
}
