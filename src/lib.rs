//! Seventh: the edge server for EventSource.
//!
//! One program that ends TLS for HTTP/1.1, HTTP/2 and HTTP/3, so that one browser multiplexes
//! hundreds of event streams over one connection, and a hub with topics, history and replay.
//!
//! # The map
//!
//! An event travels from `service::publish` (a publisher's request) through `history` (its place
//! in the one order) and the [`hub`] (a ring for each topic, a mailbox for each connection) to the
//! drivers in `net`, which write it.
//!
//! The floors of the house, from the ground up. Imports go down only, and no circle of files stands
//! inside a folder; `tests/it/layers.rs` holds both.
//!
//! | module | what lives there | pure |
//! |---|---|---|
//! | [`clock`], [`process`], `backoff`, `drain`, `networks`, `protocol`, `sync` | leaves that everything may use | `backoff`, `networks`, `protocol` |
//! | `limits` | the table of limits; places, admission, conduct | all but `hits`, and the locks of `admission`, `occupants` and `shares` |
//! | `metrics` | the registry, and guards that count; every module owns its own set | |
//! | [`topic`], [`pattern`], [`sse`] | names, patterns of them, and the event-stream format in both directions | yes |
//! | [`hub`] | ring, topics, subscriptions, mailboxes; no sockets | `entry`, `stored`, `ring`, `evicted`, `fleeting`, `pace`, `gap`, `resume`, `timeline`, `topic_rules` |
//! | `history` | where the one order is kept: in memory, in a log of files, or by NATS servers for many edges | `record`, `wall`, `log::format`, `log::index`, `log::noted`, `log::sync_policy`, `cluster::frame`, `cluster::settings` |
//! | `outbound` | what the edge asks of others | |
//! | `tls` | certificates, and swapping them | |
//! | `access` | who is asking, and who may do what | `groups`, `rules`, `origins`, `credential`, `publisher`, `revoked`, `session::answer` |
//! | `exchange` | requests, replies, failures | `code`, `validate` |
//! | `proxy` | in front of an app: routes, header fields, upstreams | `headers`, `health`, `route` |
//! | `service` | from a request to a reply, the same for all protocols | `routes`, `stream_request`, `members`, `presence` |
//! | `net` | sockets, the three drivers | `turns`, `h3::guard`, `h3::field_section` |
//! | [`config`] | what may be written, checked whole | `range`, `value` |
//! | [`edge`] | build, serve, drain | |
//! | [`cli`] | one file a command | |
//!
//! Tools, which nothing of the server imports: [`client`], a client over the three protocols and an
//! `EventSource` on it; [`load`], the load harness, which sees only the wire. `measured` has doors for `benches/`.

pub(crate) mod access;
pub(crate) mod backoff;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub(crate) mod drain;
pub mod edge;
pub(crate) mod exchange;
pub(crate) mod history;
pub mod hub;
pub(crate) mod limits;
pub mod load;
#[doc(hidden)]
pub mod measured;
pub(crate) mod metrics;
pub(crate) mod net;
pub(crate) mod networks;
pub(crate) mod outbound;
pub mod pattern;
pub mod process;
pub(crate) mod protocol;
pub(crate) mod proxy;
pub(crate) mod service;
pub mod sse;
mod sync;
pub(crate) mod tls;
pub mod topic;
