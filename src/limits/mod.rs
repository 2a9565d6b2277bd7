//! Every bound that is not history's: its name in the configuration, its default and its reason.
//!
//! Pure: no clock, no lock, no task.

mod hits;

use std::time::Duration;

pub use hits::Hits;

/// Streams of a connection that event streams leave to ordinary requests: a page's own files and
/// its calls would hang otherwise, as browsers queue them behind the streams.
pub const HEADROOM: usize = 16;

/// `[limits]`
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `limits.http2_streams`: granted to one HTTP/2 connection. Browsers use 100 to 1,000.
    pub http2_streams: usize,
    /// `limits.http3_streams`: granted to one HTTP/3 connection.
    pub http3_streams: usize,
    /// `limits.connections`: of all public listeners together. A TCP connection takes an open
    /// file, of which systems commonly give 20,000 or more to a server.
    pub connections: usize,
    /// `limits.event_bytes`: the most data in one event.
    pub event_bytes: usize,
    /// `limits.header_bytes`: of one request. Browsers send under 4 KiB, cookies aside.
    pub header_bytes: usize,
    /// `limits.header_count`: of one request. One-byte references to a field make bytes alone a weak bound.
    pub header_count: usize,
    /// `limits.handshake`: from connecting to the first request.
    pub handshake: Duration,
    /// `limits.idle`: how long a connection is kept on which nothing is asked.
    pub idle: Duration,
    /// `limits.request_body`: the longest pause in a request's body.
    pub request_body: Duration,
    /// `limits.stall`: how long a client may take nothing of what waits for it. Nothing else in
    /// HTTP ends a connection whose peer stops reading.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            http2_streams: 512,
            http3_streams: 1024,
            connections: 10_000,
            event_bytes: 256 << 10,
            header_bytes: 16 << 10,
            header_count: 64,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            request_body: Duration::from_secs(20),
            stall: Duration::from_secs(20),
        }
    }
}
