//! What may be written for a number or a time. Pure.

use std::{ops::RangeInclusive, time::Duration};

use super::value::Setting as _;

/// The longest time that a setting may be.
pub(super) const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

pub(super) fn at_least_one(n: &usize) -> Result<(), String> {
    count(*n, &(1..=usize::MAX))
}

pub(super) fn count(n: usize, range: &RangeInclusive<usize>) -> Result<(), String> {
    let (least, most) = (range.start(), range.end());
    if n < *least {
        return Err(format!("{n} is too small, the least is {least}"));
    }
    if n > *most {
        return Err(format!("{n} is too large, the most is {most}"));
    }
    Ok(())
}

pub(super) fn time(time: Duration, range: &RangeInclusive<Duration>) -> Result<(), String> {
    if range.contains(&time) {
        return Ok(());
    }
    Err(format!(
        "{} is not between {} and {}",
        time.show(),
        range.start().show(),
        range.end().show()
    ))
}
