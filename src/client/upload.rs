//! What a request brings along.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};

/// A request's body.
pub type Upload = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is known.
pub fn full(bytes: impl Into<Bytes>) -> Upload {
    Full::new(bytes.into()).boxed_unsync()
}
