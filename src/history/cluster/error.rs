//! Why an edge does not come to be part of a cluster.

use thiserror::Error;

use crate::history::LogError;

/// Why an edge does not come to be part of a cluster.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// No server answers, or lets it in.
    #[error(
        "the order of the cluster was not found at {servers} (cluster.nats) within {seconds} s: {why}"
    )]
    Away {
        /// Those that were asked.
        servers: String,
        /// For how long.
        seconds: u64,
        /// What was seen last.
        why: String,
    },
    /// The servers refuse, or have something that does not fit.
    #[error("the order of the cluster cannot be used: {0}")]
    Refused(String),
    /// What this edge keeps of it on disk cannot be used.
    #[error(transparent)]
    Cache(#[from] LogError),
    /// The system refuses.
    #[error("the thread of the cluster cannot be started: {0}")]
    Io(#[from] std::io::Error),
}
