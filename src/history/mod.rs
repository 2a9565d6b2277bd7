//! Where the one order is kept.
//!
//! Publishers hand an [`Entry`](crate::hub::Entry) to [`Order`], which gives it its place, keeps it
//! as it promises to, and has the hub apply it: `memory` at once, `log` once it is written,
//! `cluster` once it comes from the servers that number it for all edges.
//!
//! `record` is what an entry looks like that leaves the process, `wall` what moments do; `alarm` is about
//! threads that panic.

mod alarm;
mod cluster;
mod log;
mod memory;
mod order;
mod receipt;
mod record;
mod wall;

pub(crate) use cluster::{
    Asked, ClusterError, ClusterSettings, ClusterStatus, Fact, Gathered, Reached, Unheard,
};
pub(crate) use log::{Checked, Cut, LogError, LogSettings, SyncPolicy, check, cut};
pub(crate) use order::Order;
pub(crate) use receipt::{Durability, NotStored, Receipt};
