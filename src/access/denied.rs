//! Why a request is not let in.

use crate::topic::Topic;

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It has no credential, and takes one.
    Unauthorized(&'static str),
    /// Its credential is no good: for good, until it comes with another.
    BadCredential(&'static str),
    /// Who it is may not do this.
    Forbidden(String),
    /// Who it is may not read this topic.
    Topic(Topic),
    /// Its token was taken back.
    Revoked,
    /// Its ticket has opened what it opens: it comes back with a cursor of a stream of it, or a new ticket.
    Ticket,
    /// Its token was good, and has ended: it may come back with a new one.
    Expired,
    /// Whoever could say who it is cannot be asked just now.
    Unavailable,
}
