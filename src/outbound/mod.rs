//! What the edge itself asks of others: the app, whose session it is, and which it stands in front of;
//! a key set. Pooled clients, with trust made once.

mod address;
mod app;
mod connector;
mod pool;
mod trust;

pub(crate) use address::Address;
pub(crate) use app::{AppClient, Unanswered};
pub(crate) use pool::{Outbound, OutboundError};
