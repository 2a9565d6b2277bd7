//! What the commands exit with.

use std::io;

use thiserror::Error;

use crate::{client::ClientError, config::Mistakes, tls::CertificateError};

/// What a command asked for was refused.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

/// 2 is an argument that is wrong, which clap says.
const OTHER: u8 = 1;
const CONFIGURATION: u8 = 3;
const UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;

/// The exit status for an error: 3 for the configuration, 4 for a server that cannot be reached, 5 for one that
/// refuses, 1 for all else.
#[must_use]
pub fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Mistakes>() || cause.is::<CertificateError>() {
            return CONFIGURATION;
        }
        if cause.is::<Refused>() {
            return REFUSED;
        }
        match cause.downcast_ref() {
            Some(ClientError::Connect { .. } | ClientError::Timeout(_)) => return UNREACHABLE,
            Some(ClientError::Protocol { .. } | ClientError::Lost(_)) => return UNREACHABLE,
            Some(ClientError::Url(_) | ClientError::Trust { .. }) | None => {}
        }
    }
    OTHER
}

/// Whether it is that nobody reads on any more what a command prints, which is nothing to complain of.
#[must_use]
pub fn is_nobody_reading(error: &anyhow::Error) -> bool {
    let is_pipe = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref().is_some_and(is_pipe)
}
