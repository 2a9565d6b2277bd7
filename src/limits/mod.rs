//! Every bound that is not history's: its name, its default with its reason, and who minds it.
//!
//! - [`Limit`] is the table, and [`Limits`] what it is set to; [`Hits`] counts how often each bit.
//! - [`Slots`] are places taken and given back; [`Admission`] lets connections in; [`Conduct`]
//!   judges what they do.
//!
//! Pure but for the counters of [`Hits`]: no clock, no lock, no task.

mod abuse;
mod admission;
mod hits;
mod limit;
mod slots;

pub(crate) use abuse::Conduct;
pub(crate) use admission::Admission;
pub(crate) use hits::Hits;
pub(crate) use limit::{
    Bound, DEMO_BYTES, DEMO_TOPICS_AT_ONCE, HTTP1_STREAMS, Limit, LimitRow, LimitSource, Limits,
    PENDING_HANDSHAKES,
};
pub(crate) use slots::{Slot, Slots};

/// Streams of a connection that event streams leave to ordinary requests: a page's own files and
/// its calls would hang otherwise, as browsers queue them behind the streams.
pub(crate) const HEADROOM: usize = 16;
