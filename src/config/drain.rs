//! `[drain]`

use std::time::Duration;

use super::{
    range::{self, MAX_TIME},
    reader::Reader,
};
use crate::drain::DrainSettings;

pub(super) fn take(reader: &mut Reader) -> DrainSettings {
    let drain = DrainSettings {
        spread: reader.take_if(
            "drain.spread",
            Duration::from_secs(5),
            "Over how long event streams are ended when the edge is told to stop, and then \
             reconnect.",
            |time| range::time(*time, &(Duration::ZERO..=MAX_TIME)),
        ),
        grace: reader.take_if(
            "drain.grace",
            Duration::from_secs(30),
            "How long ending may take before what is left is cut.",
            |time| range::time(*time, &(Duration::ZERO..=2 * MAX_TIME)),
        ),
    };
    if drain.grace < drain.spread {
        reader.mistake(
            "drain.grace",
            "is shorter than drain.spread, so streams would be cut before their turn; make it longer",
        );
    }
    drain
}
