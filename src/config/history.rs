//! `[history]`

use super::{range, reader::Reader, value::Bytes};
use crate::hub::Retention;

pub(super) fn take(reader: &mut Reader) -> Retention {
    let default = Retention::default();
    Retention {
        events: reader.take_if(
            "history.events",
            default.events,
            "The most events a topic keeps; also how far a reader may fall behind.",
            range::at_least_one,
        ),
        age: reader.take("history.age", default.age, "How long an event is kept."),
        topic_bytes: reader
            .take("history.topic_bytes", Bytes(default.topic_bytes), "The most bytes a topic keeps.")
            .0,
        total_bytes: reader
            .take(
                "history.total_bytes",
                Bytes(default.total_bytes),
                "The most bytes all topics keep together; the least recently published give way first.",
            )
            .0,
        duplicates_age: reader.take(
            "history.duplicates_age",
            default.duplicates_age,
            "How long a publish that is sent again is known by its Idempotency-Key or its id.",
        ),
        duplicates: reader.take(
            "history.duplicates",
            default.duplicates,
            "The most keys and ids that are known again, an id once a topic; the oldest give way first.",
        ),
    }
}
