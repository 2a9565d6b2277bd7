//! `[events]`

use std::time::Duration;

use super::{range, reader::Reader};
use crate::service::EventSettings;

pub(super) fn take(reader: &mut Reader) -> EventSettings {
    let default = EventSettings::default();
    EventSettings {
        enabled: reader.take("events.enabled", default.enabled, "Whether there are event streams at all."),
        path: reader.take_if(
            "events.path",
            default.path,
            "The path of the event stream.",
            |path| match path.starts_with('/') && !path.contains(['?', '#', '%']) && !path.starts_with("//") {
                true => Ok(()),
                false => Err(format!("`{path}` is not a path; begin it with one / and leave out ?, # and %")),
            },
        ),
        retry: reader.take_if(
            "events.retry",
            default.retry,
            "How long a client waits before it reconnects, give or take half.",
            |retry| range::time(*retry, &(Duration::from_millis(500)..=Duration::from_secs(3600))),
        ),
        keepalive: reader.take_if(
            "events.keepalive",
            default.keepalive,
            "How long a stream may be quiet before a comment is sent; a client that vanished is gone within it.",
            |keepalive| range::time(*keepalive, &(Duration::from_millis(100)..=Duration::from_secs(240))),
        ),
    }
}
