//! Seventh: the edge server for EventSource.
//!
//! One program that ends TLS for HTTP/1.1, HTTP/2 and HTTP/3, so that one browser multiplexes
//! hundreds of event streams over one connection, and a hub with topics, history and replay.
//!
//! # The map
//!
//! An event travels from [`service`] (a publisher's request) through the [`hub`] (one order, a
//! ring for each topic, a mailbox for each connection) to the drivers in [`net`], which write it.
//!
//! | module | what lives there | pure |
//! |---|---|---|
//! | [`clock`], [`backoff`], [`drain`], [`protocol`], [`metrics`] | leaves that everything may use | `backoff`, `protocol` |
//! | [`topic`], [`sse`] | names, and the event-stream format in both directions | yes |
//! | [`hub`] | ring, topics, subscriptions, mailboxes; no sockets | `ring`, `gap`, `resume` |
//! | [`history`] | where the one order is kept | |
//! | [`access`], [`limits`] | who is asking, who may do what, and how much | `pattern`, `groups`, `rules`, `origins`; `limits` |
//! | [`exchange`] | what is asked and answered | `validate` |
//! | [`service`] | from a request to a reply, the same for all protocols | |
//! | [`outbound`] | what the edge asks of others | |
//! | [`tls`] | certificates, and swapping them | |
//! | [`net`] | sockets, the three drivers | `h3::guard`, `flood` |
//! | [`config`] | what may be written, checked whole | `range`, `value` |
//! | [`edge`] | bind, serve, drain | |
//! | [`client`] | a client over the three protocols, and an `EventSource` on it | |
//! | [`load`] | the load harness: it sees only the wire | |
//! | [`cli`] | one file a command | |
//!
//! Imports go one way, from the bottom of the table's server half to its top; a test holds the
//! order.

pub mod access;
pub mod backoff;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod drain;
pub mod edge;
pub mod exchange;
pub mod history;
pub mod hub;
pub mod limits;
pub mod load;
pub mod metrics;
pub mod net;
pub mod outbound;
pub mod protocol;
pub mod service;
pub mod sse;
pub mod tls;
pub mod topic;
