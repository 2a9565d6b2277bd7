//! Why there is no response.

use std::time::Duration;

use thiserror::Error;

use crate::protocol::Protocol;

/// How long connecting may take.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// Why there is no response, or no more of it.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The URL is not one that can be asked.
    #[error("{0} is not a URL of the form https://host[:port]/path")]
    Url(String),
    /// The name is not known, or nobody listens there.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        source: BoxError,
    },
    /// Connecting took too long.
    #[error("cannot connect to {0}: no answer in {seconds} s", seconds = CONNECT.as_secs())]
    Timeout(String),
    /// The server does not speak the protocol that was asked for.
    #[error("{host} does not speak {protocol}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What was asked for.
        protocol: Protocol,
    },
    /// A certificate file cannot be used.
    #[error("{path}: {reason}")]
    Trust {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection or the stream was lost.
    #[error("connection lost: {0}")]
    Lost(#[source] BoxError),
}

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn lost(error: impl Into<BoxError>) -> ClientError {
    ClientError::Lost(error.into())
}
