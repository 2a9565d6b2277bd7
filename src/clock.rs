//! The one place that reads the clock. Everything else takes `now`.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime},
};

/// The monotonic time, for deadlines and ages.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "this is the clock everyone else takes `now` from"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// The time on the wall, for certificates and for people.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "this is the clock everyone else takes `now` from"
)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// A moment that stays the same while the process lives, for what goes by a common beat.
#[must_use]
pub fn origin() -> Instant {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(now);
    *ORIGIN
}
