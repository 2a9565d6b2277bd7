//! A process seen from outside: its CPU time and its memory.

use std::{path::PathBuf, time::Duration};

use thiserror::Error;

/// The clock ticks of `/proc/PID/stat`: 100 a second on every Linux there is.
const TICK: Duration = Duration::from_millis(10);

/// A process on this machine.
#[derive(Clone, Debug)]
pub struct Process {
    folder: PathBuf,
}

/// A process cannot be measured.
#[derive(Debug, Error)]
#[error("cannot measure the process by {path}: {reason}")]
pub struct ProcessError {
    path: String,
    reason: String,
}

impl Process {
    /// The process with this id.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self {
            folder: PathBuf::from(format!("/proc/{pid}")),
        }
    }

    /// The CPU time it has used, in its own code and in the kernel for it.
    ///
    /// # Errors
    ///
    /// [`ProcessError`] when it is gone.
    pub fn cpu(&self) -> Result<Duration, ProcessError> {
        self.read("stat", |text| {
            // The name may hold blanks; it ends with the last parenthesis.
            let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
            let ticks: u32 =
                fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
            Some(TICK * ticks)
        })
    }

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    ///
    /// [`ProcessError`] when it is gone.
    pub fn memory(&self) -> Result<u64, ProcessError> {
        self.read("status", |text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib << 10)
        })
    }

    fn read<T>(&self, file: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, ProcessError> {
        let path = self.folder.join(file);
        let failed = |reason: String| ProcessError {
            path: path.display().to_string(),
            reason,
        };
        let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        parse(&text).ok_or_else(|| failed("it is not as expected".into()))
    }
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
    }
}
