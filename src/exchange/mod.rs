//! What is asked and what is answered, the same for every protocol: requests, replies, and failures
//! as replies.

mod beat;
mod code;
mod failure;
mod reply;
mod request;
mod validate;

pub(crate) use beat::Beat;
pub(crate) use code::Named;
pub(crate) use failure::Problem;
pub(crate) use reply::{Body, BodyStream, CHUNK, EventBody, Output, Reply, Tunnel};
pub(crate) use request::{BodyError, Peer, Request, RequestBody, Seat, is_chromium};
pub(crate) use validate::{HeaderBounds, authority, validate};
