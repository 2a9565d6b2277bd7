//! Processes, as the system has them: their memory and their CPU time.

use std::{collections::BTreeSet, fs, iter::Sum, path::PathBuf, time::Duration};

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use thiserror::Error;

/// Where Linux shows its processes (proc(5)). Elsewhere there is no split of CPU time, and children are not
/// counted in.
const PROC: &str = "/proc";

/// The memory of this process, seen from outside.
#[derive(Debug)]
pub(crate) struct OwnMemory {
    /// `None` where nothing is known of it.
    system: Option<System>,
    id: u32,
    last: u64,
}

impl OwnMemory {
    /// Nothing is looked at yet.
    pub(crate) fn new() -> Self {
        Self {
            system: System::new().ok(),
            id: std::process::id(),
            last: 0,
        }
    }

    /// How much there is for it, in bytes: what the machine has, or less if its control group has less
    /// (`MemoryMax` of systemd, `--memory` of a container). `None` where the system does not say.
    pub(crate) fn granted(&mut self) -> Option<usize> {
        let system = self.system.as_mut()?;
        system.refresh_memory();
        let machine = Some(system.total_memory()).filter(|total| *total > 0);
        let group = look(system, self.id).and_then(sysinfo::Process::cgroup_limits);
        let group = group.map(|group| group.total_memory);
        let least = machine.into_iter().chain(group).min()?;
        Some(usize::try_from(least).unwrap_or(usize::MAX))
    }

    /// What it has in memory, in bytes; 0 where the system does not say, and what it said last if it cannot just
    /// now.
    pub(crate) fn resident(&mut self) -> usize {
        self.last = resident(self.id).unwrap_or(self.last);
        usize::try_from(self.last).unwrap_or(usize::MAX)
    }
}

/// CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In the program's own code, or in all where the system does not tell them apart.
    pub user: Duration,
    /// In the kernel, for the program.
    pub kernel: Duration,
}

impl CpuTime {
    /// Both together.
    #[must_use]
    pub fn total(self) -> Duration {
        self.user + self.kernel
    }

    /// What has been used since it was `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            kernel: self.kernel.saturating_sub(before.kernel),
        }
    }
}

impl Sum for CpuTime {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), |sum, time| Self {
            user: sum.user + time.user,
            kernel: sum.kernel + time.kernel,
        })
    }
}

/// A process on this machine, with the children it had when it was looked at.
#[derive(Clone, Debug)]
pub struct Process {
    id: u32,
    children: Vec<u32>,
}

/// A process cannot be measured.
#[derive(Debug, Error)]
#[error("cannot measure process {id}: {reason}")]
pub struct ProcessError {
    id: u32,
    reason: String,
}

impl Process {
    /// The process with this id alone.
    #[must_use]
    pub fn new(id: u32) -> Self {
        Self {
            id,
            children: Vec::new(),
        }
    }

    /// The process with this id, its children and theirs.
    #[must_use]
    pub fn with_children(id: u32) -> Self {
        Self {
            id,
            children: descendants(id),
        }
    }

    /// The ids of the children.
    #[must_use]
    pub fn children(&self) -> &[u32] {
        &self.children
    }

    /// The CPU time they have used.
    ///
    /// # Errors
    ///
    /// [`ProcessError`] when the process is gone. A child that is gone counts nothing.
    pub fn cpu(&self) -> Result<CpuTime, ProcessError> {
        let children = self.children.iter().filter_map(|id| cpu(*id).ok());
        Ok([cpu(self.id)?].into_iter().chain(children).sum())
    }

    /// Their resident memory in bytes, what several have in common counted for each: it costs the system little to
    /// say.
    ///
    /// # Errors
    ///
    /// [`ProcessError`] when the process is gone.
    pub fn resident(&self) -> Result<u64, ProcessError> {
        let children = self.children.iter().filter_map(|id| resident(*id).ok());
        Ok(resident(self.id)? + children.sum::<u64>())
    }

    /// Their resident memory in bytes. What several have in common counts once.
    ///
    /// # Errors
    ///
    /// [`ProcessError`] when the process is gone.
    pub fn memory(&self) -> Result<u64, ProcessError> {
        if self.children.is_empty() {
            return resident(self.id);
        }
        let children = self.children.iter().filter_map(|id| share(*id).ok());
        Ok(share(self.id)? + children.sum::<u64>())
    }
}

fn cpu(id: u32) -> Result<CpuTime, ProcessError> {
    if !is_linux() {
        let all = by_system(id, sysinfo::Process::accumulated_cpu_time)?;
        return Ok(CpuTime {
            user: Duration::from_millis(all),
            kernel: Duration::ZERO,
        });
    }
    read(id, "stat", |text| {
        let fields = stat_fields(text)?;
        let time = |at: usize| {
            let ticks: u64 = fields.get(at)?.parse().ok()?;
            let hertz = rustix::param::clock_ticks_per_second().max(1);
            Some(Duration::from_micros(ticks * 1_000_000 / hertz))
        };
        // Fields 14 and 15 of the page, which counts from 1 and begins before the name.
        Some(CpuTime {
            user: time(11)?,
            kernel: time(12)?,
        })
    })
}

fn resident(id: u32) -> Result<u64, ProcessError> {
    if !is_linux() {
        return by_system(id, sysinfo::Process::memory);
    }
    read(id, "status", |text| kibibytes(text, "VmRSS:"))
}

/// Its share of the memory it has in common with others, and all that it has alone.
fn share(id: u32) -> Result<u64, ProcessError> {
    // A kernel without it still has the resident memory.
    read(id, "smaps_rollup", |text| kibibytes(text, "Pss:")).or_else(|_| resident(id))
}

fn descendants(id: u32) -> Vec<u32> {
    let entries = fs::read_dir(PROC).into_iter().flatten().flatten();
    let mut pairs: Vec<(u32, u32)> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id| {
            let parent = |text: &str| stat_fields(text)?.get(1)?.parse().ok();
            Some((id, read(id, "stat", parent).ok()?))
        })
        .collect();
    let mut family = BTreeSet::from([id]);
    loop {
        let before = family.len();
        pairs.retain(|(child, parent)| !(family.contains(parent) && family.insert(*child)));
        if family.len() == before {
            family.remove(&id);
            return family.into_iter().collect();
        }
    }
}

/// The fields of `stat` after the name, which may hold blanks and ends with the last parenthesis.
fn stat_fields(text: &str) -> Option<Vec<&str>> {
    Some(text.rsplit_once(')')?.1.split_whitespace().collect())
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

fn is_linux() -> bool {
    cfg!(target_os = "linux")
}

fn read<T>(id: u32, file: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, ProcessError> {
    let path: PathBuf = [PROC, &id.to_string(), file].iter().collect();
    let failed = |reason: String| ProcessError { id, reason };
    let text = fs::read_to_string(&path)
        .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    parse(&text).ok_or_else(|| failed(format!("{} is not as expected", path.display())))
}

fn by_system(id: u32, what: impl Fn(&sysinfo::Process) -> u64) -> Result<u64, ProcessError> {
    let mut system = System::new().ok();
    let process = system.as_mut().and_then(|system| look(system, id));
    process.map(what).ok_or_else(|| ProcessError {
        id,
        reason: "there is none".into(),
    })
}

fn look(system: &mut System, id: u32) -> Option<&sysinfo::Process> {
    let id = Pid::from_u32(id);
    let what = ProcessRefreshKind::nothing()
        .with_memory()
        .with_cpu()
        .without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), false, what);
    system.process(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_measure_itself() {
        let own = Process::new(std::process::id());
        assert!(own.memory().expect("it is there") > 1 << 20);
        let before = own.cpu().expect("it is there");
        let mut sum = 0u64;
        while own.cpu().expect("it is there") == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(Process::new(u32::MAX).cpu().is_err());
        // As it is measured where there is no /proc.
        let seen = by_system(std::process::id(), sysinfo::Process::memory).expect("it is there");
        assert!(seen > 1 << 20);
        assert!(by_system(u32::MAX, sysinfo::Process::memory).is_err());
    }

    #[test]
    fn children_and_theirs_count_in() {
        let script = "sleep 60 & echo $!; wait";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let output = shell.stdout.take().expect("it is piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)
            .expect("it says so");
        let child: u32 = line.trim().parse().expect("an id");
        let own = Process::with_children(std::process::id());
        assert!(own.children.contains(&shell.id()) && own.children.contains(&child));
        let shell_alone = Process::with_children(shell.id());
        assert_eq!(shell_alone.children, [child]);
        assert!(shell_alone.memory().expect("it runs") > 0);
        let ended = std::process::Command::new("kill").arg(line.trim()).status();
        assert!(ended.expect("kill").success());
        shell.wait().expect("it ends");
    }

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
