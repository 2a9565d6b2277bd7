//! What an edge of a cluster keeps of the order on its own disk: its readers go further back than the rings, and it need
//! not be read again when the edge starts. It promises nothing: what is damaged, or of another order, is thrown away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Reads,
    appender::{Appender, Keeping, Written, apply_in_parts, begins, create},
    behind::Behind,
    disk::{Disk, Folder},
    error::{LogError, OpenError},
    format::Header,
    keeping,
    metrics::LogMetrics,
    segments::{self, Segments},
    start::{self, MakeHub, Opened, Opening},
};
use crate::{
    clock,
    history::{
        LogSettings, NotStored, SyncPolicy,
        record::{self, Mark},
        wall::Wall,
    },
    hub::{Applied, Hub, Placed, Retention, floor_before},
};

/// How often it is looked for what is too old, and how long after a failure it is begun anew.
const TIDY: Duration = Duration::from_secs(60);
/// By how many numbers one message may be away from the one before.
const FAR: u64 = 1 << 30;

/// What is kept of the order.
#[derive(Debug)]
pub(in crate::history) struct Cache {
    disk: Arc<dyn Disk>,
    wall: Wall,
    keeping: Keeping,
    metrics: LogMetrics,
    reads: Arc<Reads>,
    /// None before the first message, and after a failure.
    log: Option<Appender>,
    /// There may be files of what was before.
    is_stale: bool,
    tidied: Instant,
    /// When it may be begun anew.
    rests_until: Option<Instant>,
}

/// What was found of the order.
#[derive(Debug)]
pub(in crate::history) struct Kept {
    /// With all that it holds applied.
    pub(in crate::history) hub: Arc<Hub>,
    /// The last message.
    pub(in crate::history) mark: Mark,
    /// When the last entry was placed.
    pub(in crate::history) at: Instant,
}

impl Cache {
    /// Opens what is kept in a directory, which is made if it is not there; what there was in it of the order, if that
    /// can be read.
    ///
    /// # Errors
    ///
    /// [`LogError`] when the directory cannot be used, or holds the history of an edge on its own.
    pub(in crate::history) fn open(
        settings: &LogSettings,
        wall: Wall,
        retention: Retention,
        make: MakeHub<'_>,
    ) -> Result<(Self, Option<Kept>), LogError> {
        Folder::open(&settings.directory)
            .map_err(OpenError::from)
            .and_then(|folder| {
                let keeping = Keeping {
                    sync: SyncPolicy::Always,
                    ..keeping(settings)
                };
                Self::of(Arc::new(folder), keeping, wall, retention, make)
            })
            .map_err(|error| LogError {
                directory: settings.directory.clone(),
                error,
            })
    }

    pub(super) fn of(
        disk: Arc<dyn Disk>,
        keeping: Keeping,
        wall: Wall,
        retention: Retention,
        make: MakeHub<'_>,
    ) -> Result<(Self, Option<Kept>), OpenError> {
        // Whose directory it is has to last before anything that is written into it does.
        start::claim(&*disk)?;
        let disk = Arc::new(Behind::over(disk)?);
        let opened = start::open(Opening {
            disk: &*disk,
            wall,
            retention,
            always: true,
            is_shared: true,
            make,
        });
        let opened = match opened {
            Ok(opened) => opened,
            Err(error @ (OpenError::InUse | OpenError::Alone(_))) => return Err(error),
            // Also of a disk that is full, or fails: once all is thrown away there may be room, and readers have the rings.
            Err(error) => {
                tracing::warn!(
                    "what this edge kept of the order is thrown away, and read again from the servers: {error}"
                );
                None
            }
        };
        disk.is_urgent();
        let metrics = LogMetrics::default();
        let mut cache = Self {
            disk,
            wall,
            keeping,
            reads: Arc::new(Reads::new(None, metrics.clone())),
            metrics,
            log: None,
            is_stale: true,
            tidied: clock::now(),
            rests_until: None,
        };
        let kept = opened.and_then(|opened| cache.resume(opened));
        Ok((cache, kept))
    }

    fn resume(&mut self, opened: Opened) -> Option<Kept> {
        let mark = opened.mark.clone()?;
        let (hub, at) = (opened.hub.clone(), opened.tail.last_at);
        self.log = Some(self.appender(opened));
        Some(Kept { hub, mark, at })
    }

    fn appender(
        &self,
        Opened {
            hub, state, tail, ..
        }: Opened,
    ) -> Appender {
        let segments = Segments::new(self.disk.clone(), hub.clone(), self.wall, state);
        let segments = Arc::new(segments);
        self.metrics.see(&segments.state());
        self.metrics.failed.set(0);
        self.reads.turn_to(Some(segments.clone()));
        Appender {
            hub,
            segments,
            metrics: self.metrics.clone(),
            keeping: self.keeping,
            wall: self.wall,
            end: tail,
        }
    }

    pub(in crate::history) fn reads(&self) -> &Arc<Reads> {
        &self.reads
    }

    pub(in crate::history) fn metrics(&self) -> &LogMetrics {
        &self.metrics
    }

    /// How long entries are kept.
    pub(in crate::history) fn age(&self) -> Duration {
        self.keeping.age
    }

    /// Has the hub apply the entries of a message, and keeps them if it can.
    pub(in crate::history) fn apply(
        &mut self,
        hub: &Arc<Hub>,
        entries: Vec<Placed>,
        mark: &Mark,
        at: Instant,
    ) -> Vec<Applied> {
        self.make_ready(hub, mark, at);
        let mut applied = Vec::with_capacity(entries.len());
        let mut entries = entries.into_iter().peekable();
        loop {
            // What becomes of some depends on all before them being applied.
            let mut part: Vec<Placed> = entries.next().into_iter().collect();
            while let Some(next) = entries.next_if(|next| !begins(&next.entry)) {
                part.push(next);
            }
            let is_last = entries.peek().is_none();
            applied.extend(self.apply_part(hub, part, Some(mark).filter(|_| is_last)));
            if is_last {
                return applied;
            }
        }
    }

    fn apply_part(&mut self, hub: &Hub, part: Vec<Placed>, mark: Option<&Mark>) -> Vec<Applied> {
        let Some(log) = &mut self.log else {
            return apply_in_parts(hub, part);
        };
        let part = part.into_iter().map(|placed| {
            let encoded = record::encode(&placed.entry, &self.wall);
            Written::new(placed, encoded)
        });
        let mut part: Vec<Written> = part.collect();
        log.settle(&mut part);
        if log.write(&mut part, mark).is_err() {
            self.give_up();
            return apply_in_parts(hub, part.into_iter().map(|written| written.placed));
        }
        self.metrics.commits.inc();
        log.apply(part)
    }

    /// Makes room for a message, or begins with it.
    fn make_ready(&mut self, hub: &Arc<Hub>, mark: &Mark, at: Instant) {
        let millis = self.wall.millis(at);
        if let Some(log) = &mut self.log {
            if mark.sequence - log.end.last.sequence > FAR {
                self.clear();
            } else if log.make_room(mark.sequence, millis).is_err() {
                self.give_up();
            }
        }
        let rests = self.rests_until.is_some_and(|until| clock::now() < until);
        if self.log.is_some() || rests {
            return;
        }
        if self.is_stale {
            self.clear();
        }
        if self.is_stale {
            return self.give_up();
        }
        let header = Header {
            epoch: hub.cursor().epoch.number(),
            // Readers who have all before the message have the numbers between, too.
            first: floor_before(mark.sequence) + 1,
            made: millis,
            salt: fastrand::u32(..),
            always: true,
            is_shared: true,
            lost: Vec::new(),
        };
        match create(&*self.disk, header) {
            Ok(open) => {
                let opened = start::opened(hub.clone(), Vec::new().into(), open, self.wall);
                self.rests_until = None;
                self.log = Some(self.appender(opened));
            }
            Err(error) => {
                tracing::error!("history is not kept on disk: {error}");
                self.give_up();
            }
        }
    }

    /// Keeps nothing for a while: readers have what the rings hold.
    fn give_up(&mut self) {
        tracing::error!(
            "history on disk is begun anew in {} s; until then this edge has what is in memory",
            TIDY.as_secs()
        );
        self.let_go();
        self.is_stale = true;
        self.metrics.failed.set(1);
        self.rests_until = Some(clock::now() + TIDY);
    }

    /// Nothing is read any more.
    fn let_go(&mut self) {
        if let Some(log) = self.log.take() {
            log.segments.forget();
        }
        self.reads.turn_to(None);
        self.metrics.see_nothing();
    }

    /// Throws away all that is kept.
    pub(in crate::history) fn clear(&mut self) {
        self.let_go();
        let removed = segments::remove_all(&*self.disk);
        self.is_stale = removed.is_err();
        if let Err(error) = removed {
            tracing::error!("what is kept of history is not removed: {error}");
        }
    }

    /// Lets go of what is too old.
    pub(in crate::history) fn tidy(&mut self, now: Instant) {
        if now.saturating_duration_since(self.tidied) < TIDY {
            return;
        }
        self.tidied = now;
        let Some(log) = &mut self.log else {
            return;
        };
        if log.let_go_of_old().is_err() {
            self.give_up();
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(log) = &mut self.log {
            // What fails is read again.
            let _: Result<(), NotStored> = log.sync();
        }
    }
}
