//! Why a request is not let in.

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Its token is no good, or it has none: for good, until it comes with another.
    Unauthorized(&'static str),
    /// Who it is may not do this.
    Forbidden(String),
    /// Its token was good, and has ended: it may come back with a new one.
    Expired,
    /// Whoever could say who it is cannot be asked just now.
    Unavailable,
}
