//! The load harness: it sees only the wire and the system's word on processes, never the server's code.
//!
//! Latency counts from the moment an event was due, so that a server that stalls cannot hide. Every
//! subscriber checks that nothing is lost, twice or out of order; a run with any of that is void.

mod crowd;
mod frames;
mod ledger;
mod pace;
mod plan;
mod presets;
mod publish;
mod report;
mod run;
mod scan;
mod seat;
mod stamp;
mod steps;
mod tally;
mod target;
mod watch;
mod wire_h2;
mod wire_other;
mod zipf;

pub use plan::{LoadError, Plan, Rate, Scenario};
pub use presets::Preset;
pub use report::{Check, Cpu, Latency, Memory, Report, Sample, Setup, Stage};
pub use run::run;
pub use seat::Opening;
pub use target::{Field, InvalidField, Publish, Target};
pub use watch::Progress;

use ledger::stopped;
use plan::{explain, refusal};
