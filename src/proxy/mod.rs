//! In front of an app: requests that are not the hub's go on to it, and its answers come back.
//!
//! `route` says which app a request is for, `headers` what becomes of its fields, `upstream` and `health`
//! which of several is asked, `asking` how often, and `forward` has it answered; `files` has answers of
//! its own, and `relay` makes the app's event streams resilient.

mod asking;
mod files;
mod forward;
mod headers;
mod health;
mod metrics;
mod relay;
mod route;
mod table;
mod upload;
mod upstream;

pub(crate) use forward::{Answered, Asker, Handed, Proxy};
pub(crate) use headers::{Facts, from_app, to_app};
pub(crate) use metrics::ProxyMetrics;
pub(crate) use relay::{Pace, RelaySettings};
pub(crate) use route::{
    HostPattern, PathPattern, RouteSettings, SendHost, Target, covers, find as find_route,
};
pub(crate) use table::Route;
