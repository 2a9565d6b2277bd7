//! Cores for the server and cores for the harness, so that neither waits for the other.

use anyhow::{Context as _, ensure};

#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which cores are whose: the first half is the server's.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores {
    server: CpuSet,
    own: CpuSet,
}

#[cfg(target_os = "linux")]
impl Cores {
    /// Parts the cores that this process may use.
    ///
    /// # Errors
    ///
    /// When there is only one.
    pub(super) fn split() -> anyhow::Result<Self> {
        let all = sched_getaffinity(None).context("cannot see what cores there are")?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|n| all.is_set(*n)).collect();
        ensure!(
            cores.len() > 1,
            "--pin needs two cores, and this process may use one"
        );
        let set = |cores: &[usize]| {
            let mut set = CpuSet::new();
            for core in cores {
                set.set(*core);
            }
            set
        };
        let (server, own) = cores.split_at(cores.len() / 2);
        Ok(Self {
            server: set(server),
            own: set(own),
        })
    }

    /// Moves this thread, and those it starts, to the harness's.
    pub(super) fn enter_own(&self) -> anyhow::Result<()> {
        sched_setaffinity(None, &self.own).context("cannot keep to these cores")
    }

    /// Starts a process on the server's cores.
    pub(super) fn start<T>(&self, start: impl FnOnce() -> T) -> anyhow::Result<T> {
        sched_setaffinity(None, &self.server).context("cannot keep the edge to its cores")?;
        let started = start();
        self.enter_own()?;
        Ok(started)
    }
}

/// Which cores are whose.
#[cfg(not(target_os = "linux"))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores;

#[cfg(not(target_os = "linux"))]
impl Cores {
    pub(super) fn split() -> anyhow::Result<Self> {
        anyhow::bail!("--pin works on Linux only")
    }

    pub(super) fn enter_own(&self) -> anyhow::Result<()> {
        Ok(())
    }

    pub(super) fn start<T>(&self, start: impl FnOnce() -> T) -> anyhow::Result<T> {
        Ok(start())
    }
}
