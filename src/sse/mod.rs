//! The event-stream format of the HTML standard (section 9.2), both directions.
//!
//! Pure: no clock, no lock, no task, no socket.

mod encode;
mod id;
mod parse;

pub use encode::{
    Draft, FRAME_HEAD, InvalidField, MAX_ID_BYTES, MAX_TYPE_BYTES, comment, ping, retry,
    validate_id, validate_key, validate_type,
};
pub use id::{Epoch, EventId};
pub use parse::{Item, Message, Overlong, Parser};
