//! Every bound that is not history's: its name, its default with its reason, and who minds it.
//!
//! - [`Limit`] is the table, and [`Limits`] what it is set to; [`Hits`] counts how often each bit.
//! - [`Slots`] are places taken and given back, [`Places`] those that many addresses share;
//!   [`Admission`] lets connections in, and [`Occupants`] has some end for them; [`Conduct`] judges what
//!   they do; [`Bucket`] is so many at once and so many more a second, [`Rates`] one for each address;
//!   [`Refusals`] says how long whoever finds no room is to stay away; [`Lag`] is how late the edge is,
//!   [`Memory`] how much of it is left.
//!
//! Pure but for the counters of [`Hits`] and the locks of [`Admission`], [`Places`] and [`Occupants`]: no
//! clock, no task.

mod abuse;
mod admission;
mod bucket;
mod counts;
mod hits;
mod lag;
mod limit;
mod memory;
mod occupants;
mod rates;
mod refusals;
mod shares;
mod slots;

use std::net::{IpAddr, Ipv6Addr};

pub(crate) use abuse::Conduct;
pub(crate) use admission::{Admission, Admitted};
pub(crate) use bucket::Bucket;
pub(crate) use counts::count_out;
pub(crate) use hits::Hits;
pub(crate) use lag::{BEAT, Lag, Watchdog};
pub(crate) use limit::{
    Bound, DEMO_BYTES, DEMO_TOPICS_AT_ONCE, HTTP1_STREAMS, Limit, LimitRow, LimitSource, Limits,
    PENDING_HANDSHAKES,
};
pub(crate) use memory::{Memory, for_newcomers};
pub(crate) use occupants::{Occupant, Occupants, Stay};
pub(crate) use rates::{Rates, digest};
pub(crate) use refusals::Refusals;
pub(crate) use shares::{Place, Places, Tenant};
pub(crate) use slots::{Slot, Slots};

/// Where a client comes from, as far as clients are told apart: of IPv6 a network of /64, which is
/// what one customer has.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// What a connection costs, with TLS and some streams.
pub(crate) const CONNECTION_BYTES: usize = 48 << 10;

/// How many seconds' worth may come at once of what has a bound a second.
pub(crate) const BURST: usize = 10;

/// Streams of a connection that event streams leave to ordinary requests: a page's own files and
/// its calls would hang otherwise, as browsers queue them behind the streams.
pub(crate) const HEADROOM: usize = 16;

/// The streams to grant a QUIC connection of which `open` may stay open for long.
///
/// QUIC counts all streams there ever were, and quinn tells its peer of freed ones only when they are
/// more than an eighth of what is granted: that eighth must not be all that is left for requests.
pub(crate) fn quic_grant(open: usize) -> usize {
    (8 * (open + HEADROOM)).div_ceil(7) + 8
}

impl Limits {
    /// The most that the JSON of one event may have, in bytes.
    #[must_use]
    pub(crate) fn json_bytes(&self) -> Bound<usize> {
        // Escapes can make six bytes of one; the rest is for the other fields.
        let Bound { limit, value } = self.event_bytes;
        Bound {
            limit,
            value: 6 * value + (256 << 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_is_one_source() {
        let of = |address: &str| source(address.parse().expect("an address")).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[test]
    fn requests_find_room_beside_any_number_of_streams() {
        for open in 0..3000 {
            let grant = quic_grant(open);
            // The freed that the peer is not told of yet.
            let untold = grant / 8;
            assert!(grant - open - untold >= HEADROOM, "{open}");
        }
    }
}
