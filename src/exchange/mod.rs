//! What is asked and what is answered, the same for every protocol: requests, replies, and failures
//! as replies.

mod failure;
mod reply;
mod request;
mod validate;

pub use failure::Problem;
pub use reply::{Body, BodyStream, EventBody, Output, Reply};
pub use request::{BodyError, Peer, Request, RequestBody};
pub use validate::{HeaderBounds, authority, validate};
