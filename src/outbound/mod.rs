//! What the edge itself asks of others: the app, whose session it is; a key set. One pooled client,
//! with trust made once.

mod pool;
mod trust;

pub(crate) use pool::{Outbound, OutboundError};
