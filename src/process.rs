//! Memory, as the system has it for this process.

use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System};

/// The memory of this process, seen from outside.
#[derive(Debug)]
pub(crate) struct OwnMemory {
    /// `None` where nothing is known of it.
    system: Option<System>,
    id: Pid,
}

impl OwnMemory {
    /// Nothing is looked at yet.
    pub(crate) fn new() -> Self {
        Self {
            system: System::new().ok(),
            id: Pid::from_u32(std::process::id()),
        }
    }

    /// How much there is for it, in bytes: what the machine has, or less if its control group has less
    /// (`MemoryMax` of systemd, `--memory` of a container). `None` where the system does not say.
    pub(crate) fn granted(&mut self) -> Option<usize> {
        let system = self.system.as_mut()?;
        system.refresh_memory();
        let machine = Some(system.total_memory()).filter(|total| *total > 0);
        let group = self.look().and_then(Process::cgroup_limits);
        let group = group.map(|group| group.total_memory);
        let least = machine.into_iter().chain(group).min()?;
        Some(usize::try_from(least).unwrap_or(usize::MAX))
    }

    /// What it has in memory, in bytes; 0 where the system does not say, and what it said last if it cannot just
    /// now.
    pub(crate) fn resident(&mut self) -> usize {
        let bytes = self.look().map_or(0, Process::memory);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    fn look(&mut self) -> Option<&Process> {
        let what = ProcessRefreshKind::nothing().with_memory().without_tasks();
        let own = ProcessesToUpdate::Some(&[self.id]);
        let system = self.system.as_mut()?;
        system.refresh_processes_specifics(own, false, what);
        system.process(self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_and_what_is_taken_of_it() {
        let mut memory = OwnMemory::new();
        let (granted, before) = (memory.granted().expect("it says so"), memory.resident());
        assert!(1 << 20 < before && before < granted, "{before} {granted}");
        let much = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(memory.resident() > before + (48 << 20));
        drop(much);
    }
}
