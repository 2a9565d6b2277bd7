//! The locks and atomics of what many threads share without waiting for one another: those of the standard library, and in
//! a model (`--features model`) those of loom, which tries all orders in which threads can come.

#[cfg(not(feature = "model"))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(feature = "model")]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
