//! `[history]`

use std::{path::PathBuf, time::Duration};

use super::{
    range,
    reader::Reader,
    value::{Bytes, Raw, Setting, one},
};
use crate::{
    history::{LogSettings, SyncPolicy},
    hub::Retention,
};

/// How many times as much the log keeps as the rings, at least: what is in them is on disk too, and goes by whole
/// segments.
const TIMES: usize = 4;
/// What the log keeps.
const BYTES: usize = 4 << 30;
const AGE: Duration = Duration::from_secs(7 * 24 * 3600);
const INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(60);

impl Setting for SyncPolicy {
    const KIND: &'static str = "always, never or duration";

    fn read(raw: &Raw) -> Result<Self, String> {
        match one(raw)? {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            text => {
                let interval = humantime::parse_duration(text).ok();
                let interval = interval.filter(|interval| INTERVAL.contains(interval));
                interval.map(Self::Every).ok_or_else(|| {
                    format!("`{text}` is neither always nor never, nor a time from 1ms to 60s such as 100ms")
                })
            }
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Always => "\"always\"".into(),
            Self::Never => "\"never\"".into(),
            Self::Every(interval) => interval.show(),
        }
    }
}

/// How much of history that outlives the process is kept, and where.
pub(super) struct KeptHistory {
    directory: Option<PathBuf>,
    sync: SyncPolicy,
    pub(super) bytes: u64,
    pub(super) age: Duration,
}

pub(super) fn take_kept(reader: &mut Reader, retention: &Retention) -> KeptHistory {
    let directory: Option<PathBuf> = reader.take(
        "history.directory",
        None,
        "The directory that history is kept in, made if it is not there: it outlives the process then. Unset: history \
         is in memory. With `[cluster]`, what this edge keeps of the common history, so that its readers can come \
         from further back than its memory.",
    );
    let sync = reader.take(
        "history.sync",
        SyncPolicy::Always,
        "When what is written is synced to disk: `always` before anyone sees it, so that losing power loses nothing; \
         so often, such as `100ms`; or `never`, when the system likes. Ending the process loses nothing in any case. With \
         `[cluster]` it is of no account: what is lost is read from the servers again.",
    );
    let bytes = reader.take(
        "history.disk.bytes",
        Bytes(BYTES),
        "The most bytes that history takes on disk, at least four times `history.total_bytes`; the oldest goes first, a \
         sixteenth or 64 MiB at a time. With `[cluster]`, of the stream that is made, too.",
    );
    let age = reader.take(
        "history.disk.age",
        AGE,
        "How long history is kept on disk, up to an hour longer.",
    );
    if age.is_zero() {
        reader.mistake("history.disk.age", "is nothing; make it an hour at least");
    }
    let least = retention.total_bytes.saturating_mul(TIMES);
    if directory.is_some() && bytes.0 < least {
        let what = format!(
            "is {}, and history.total_bytes is {}; make it {} at least",
            bytes.show(),
            Bytes(retention.total_bytes).show(),
            Bytes(least).show()
        );
        reader.mistake("history.disk.bytes", what);
    }
    KeptHistory {
        directory,
        sync,
        bytes: bytes.0 as u64,
        age,
    }
}

impl KeptHistory {
    /// What is kept on this machine.
    pub(super) fn log(&self) -> Option<LogSettings> {
        self.directory.clone().map(|directory| LogSettings {
            directory,
            sync: self.sync,
            bytes: self.bytes,
            age: self.age,
        })
    }
}

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
