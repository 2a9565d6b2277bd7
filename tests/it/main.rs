//! One integration binary: promises to clients, tested from outside over every protocol.

#![allow(unreachable_pub, reason = "nothing reaches into a test binary")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod app; // a scripted app
mod harness;
mod history; // the vocabulary: an edge, a stream, a publisher
mod upstream; // apps behind an edge

mod abuse; // floods
mod access; // who is let in
mod audience; // who is meant
mod balancer;
mod bench; // the load harness
mod browsers_wire; // what makes hundreds of streams on one connection work
mod certificates; // what handshakes get
mod cluster; // one order over many edges
mod commands; // the program as people start it
mod conformance; // HTTP/2 as h2spec has it
mod control; // the private listener
mod crash; // killed and started again
mod docs; // what the documentation says is what the code does
mod drain; // ending in good order
mod durable; // history that outlives the process
mod faults; // apps that fail in every way
mod gates; // what an event costs, counted
mod h2_frames; // hand-made HTTP/2 frames
mod h3_frames; // hand-made HTTP/3 frames
mod layers; // who may import whom
mod limits; // what bites is counted
mod many; // event streams by the million
mod misfortune; // no files, no time, a clock that jumps
mod networks; // what streams do for pages on real networks
mod overload;
mod presence;
mod proxy; // in front of an app
mod publish; // taking events from publishers
mod relay; // the app's own event streams
mod repeats;
mod replay; // resuming, gaps, history
mod slow; // readers that do not read
mod smuggling; // requests that say two things at once
mod subscribe; // opening event streams
mod topics; // what publishers and patterns say of the events of a topic
mod validate; // requests that must not reach the service
mod windows; // flow control
