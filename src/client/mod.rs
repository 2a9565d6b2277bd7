//! A client over HTTP/1.1, HTTP/2 and HTTP/3 with one face, for the commands, the load harness
//! and the tests. It knows the wire, not the server's code.

mod connection;
mod error;
mod event_source;
mod h1;
mod h2;
mod h3;
mod target;
mod tls;
mod upload;

pub use crate::protocol::Protocol;
pub use connection::{Connection, Response};
pub use error::ClientError;
pub use event_source::{EventSource, Signal};
pub use target::{Origin, Stream};
pub use tls::Trust;
pub use upload::{Upload, full};
