//! Why a log cannot be opened.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::{disk::Unopened, segments::name};

/// Something is not in a file that should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file} is damaged at byte {offset}")]
pub struct Damage {
    /// The name of the file.
    pub file: String,
    /// Where it begins.
    pub offset: u64,
}

impl Damage {
    /// Of the segment whose first entry has this number.
    pub(super) fn of(first: u64, offset: u64) -> Self {
        Self {
            file: name(first),
            offset,
        }
    }
}

/// Why a log cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another process has it; end that, or give each a directory of its own")]
    InUse,
    /// It is damaged.
    #[error("{0}")]
    Damaged(#[from] Damage),
    /// A later version wrote it.
    #[error("{0} is of format {1}, which this version does not know; use the one that wrote it")]
    Format(String, u32),
    /// It is a part of another history.
    #[error("{0} is of another history than the files before it; move it away")]
    Foreign(String),
    /// It is of an edge on its own.
    #[error(
        "{0} is of an edge on its own, not of one in a cluster; give this one another directory"
    )]
    Alone(String),
    /// It is of an edge in a cluster.
    #[error(
        "it is what an edge of a cluster keeps for itself; damaged, it is read again from the servers when that edge \
         starts, and an edge on its own needs another directory"
    )]
    Shared,
    /// There is none in it.
    #[error("there is no history in it")]
    Nothing,
    /// A file is missing.
    #[error(
        "entries {1} to {2}, which follow those of {0}, are missing; put the file back, if it was moved away"
    )]
    Missing(String, u64, u64),
    /// The system refuses.
    #[error("{0}")]
    Io(#[source] io::Error),
}

impl From<Unopened> for OpenError {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::InUse => Self::InUse,
            Unopened::Io(error) => Self::Io(error),
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Why the history of a directory cannot be used, for an operator.
#[derive(Debug, Error)]
#[error("history in {} cannot be used (history.directory): {error}{}", directory.display(), remedy(error, directory))]
pub struct LogError {
    /// Where it is.
    pub directory: PathBuf,
    /// What is in the way.
    #[source]
    pub error: OpenError,
}

fn remedy(error: &OpenError, directory: &std::path::Path) -> String {
    let directory = directory.display();
    match error {
        OpenError::Damaged(_) | OpenError::Missing(..) => format!(
            "; `seventh history check {directory}` says what is lost, and `seventh history cut {directory}` goes on without it"
        ),
        _ => String::new(),
    }
}
