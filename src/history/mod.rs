//! Where the one order is kept.
//!
//! Publishers hand an [`Entry`](crate::hub::Entry) to [`Order`], which gives it its place, keeps it
//! as it promises to, and has the hub apply it: `memory` at once, `log` once it is written.

mod log;
mod memory;
mod order;
mod receipt;

pub(crate) use log::{Checked, Cut, LogError, LogSettings, SyncPolicy, check, cut};
pub(crate) use order::Order;
pub(crate) use receipt::{Durability, NotStored, Receipt};
