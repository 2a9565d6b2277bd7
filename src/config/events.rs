//! `[events]`

use std::{collections::HashSet, ops::RangeInclusive, time::Duration};

use serde::Deserialize;
use toml::Table;

use super::{
    items::{each, of_table},
    range,
    reader::Reader,
};
use crate::{
    service::{EventSettings, NamedStream, SHORTEST_AGE},
    topic::Topic,
};

/// Browsers spin on less.
const RETRY: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(3600);
/// Proxies on the way give up after some minutes.
const KEEPALIVE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(240);

/// Whoever comes back more often than that costs more than a stream; platforms that cut streams do so
/// after an hour at most.
const MAX_AGE: RangeInclusive<Duration> = SHORTEST_AGE..=Duration::from_secs(24 * 3600);

/// `[[events.stream]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamTable {
    path: String,
    topics: Vec<String>,
    last: Option<usize>,
}

/// The event streams are at `place` unless their path is written.
pub(super) fn take(reader: &mut Reader, place: String) -> EventSettings {
    let written: Option<String> = reader.take_if(
        "events.path",
        None,
        "The path of the event stream. Unset: `/events`, and below `access.prefix` once a route covers that.",
        |path: &Option<String>| path.as_ref().map_or(Ok(()), is_path),
    );
    let streams = take_streams(reader);
    let default = EventSettings::default();
    EventSettings {
        enabled: reader.take(
            "events.enabled",
            default.enabled,
            "Whether there are event streams at all.",
        ),
        path: written.unwrap_or(place),
        retry: reader.take_if(
            "events.retry",
            default.retry,
            "How long a client waits before it reconnects, give or take half.",
            |retry| range::time(*retry, &RETRY),
        ),
        keepalive: reader.take_if(
            "events.keepalive",
            default.keepalive,
            "How often a comment is sent on each stream, on all streams of a connection at once; a client that \
             vanished is gone within three of them.",
            |keepalive| range::time(*keepalive, &KEEPALIVE),
        ),
        max_age: reader.take_if(
            "events.max_age",
            default.max_age,
            "How old a stream may grow before it is ended in good order, at a moment of the last fifth of that, \
             and its client comes back: less than what is on the way allows. A client may ask for less by \
             `?max_age=`. Unset: streams do not end, and a client may ask for an hour at most.",
            |age| age.map_or(Ok(()), |age| range::time(age, &MAX_AGE)),
        ),
        streams,
    }
}

fn take_streams(reader: &mut Reader) -> Vec<NamedStream> {
    let tables: Vec<Table> = reader.take(
        "events.stream",
        Vec::new(),
        "`[[events.stream]]`: a path of your own for an event stream: `path = \"/scores\"`, `topics = \
         [\"game/7\", \"game/8\"]`, `last = 1` for the last event at a first visit. A final `/` of what is asked \
         for says nothing; `?topic=` is refused there, all else is as at `events.path`.",
    );
    let mut paths = HashSet::new();
    let streams = each(reader, "events.stream", tables, |table| {
        let table: StreamTable = of_table(table)?;
        is_path(&table.path)?;
        let topics = table.topics.iter().map(|name| {
            Topic::parse(name).map_err(|error| format!("`{name}` is not a topic: {error}"))
        });
        let path = table.path.strip_suffix('/').unwrap_or(&table.path);
        Ok(NamedStream {
            path: path.into(),
            topics: topics.collect::<Result<_, _>>()?,
            last: table.last,
        })
    });
    for stream in &streams {
        if !paths.insert(&stream.path) {
            let what = format!("`{}` is there twice; give each path once", stream.path);
            reader.mistake("events.stream", what);
        }
    }
    streams
}

fn is_path(path: &String) -> Result<(), String> {
    let plain = path.starts_with('/') && !path.starts_with("//") && !path.contains(['?', '#', '%']);
    if plain {
        return Ok(());
    }
    Err(format!(
        "`{path}` is not a path; begin it with one / and leave out ?, # and %"
    ))
}
