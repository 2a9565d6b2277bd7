//! Sockets, and the three drivers that move replies into them.
//!
//! - `listener` binds, unless the socket is `inherited`; `tcp` accepts TCP, ends TLS and picks `h1`
//!   (hyper) or `h2` (the h2 crate); `quic` accepts QUIC for `h3`; `listening` is what the connections
//!   of a listener share.
//! - `outbox` moves bodies into the streams of `h2` and `h3`, a `visit` at a time, each into its
//!   `sink`, in `turns`; `backlog` says whether the peer takes any; `lifecycle` brings a
//!   connection to its end; `deadline` is the timer of both.
//! - `unix` accepts whoever comes by a socket in the file system.
//! - `proxy_protocol` is what a balancer says of the client before anything else.
//! - `alt_svc` is what replies say of HTTP/3.
//! - `linger` sees to what is left of a request's body once its reply is made.
//! - `write_timeout` stands before the socket.

mod alt_svc;
mod backlog;
mod deadline;
mod h1;
mod h2;
mod h3;
mod inherited;
mod lifecycle;
mod linger;
mod listener;
mod listening;
mod metrics;
mod outbox;
mod proxy_protocol;
mod quic;
mod sink;
mod tcp;
mod turns;
mod unix;
mod visit;
mod write_timeout;

pub(crate) use alt_svc::{Advertise, Http3Settings};
pub(crate) use inherited::{Inherited, InheritedError};
pub(crate) use listener::{BindError, HttpsListener, PlainListener};
pub(crate) use metrics::NetMetrics;
pub(crate) use unix::UnixListener;
