//! `[[topic]]`

use std::{ops::RangeInclusive, time::Duration};

use serde::Deserialize;
use toml::Table;

use super::{
    items::{each, of_table},
    range,
    reader::Reader,
    value::{Raw, Setting as _},
};
use crate::{
    hub::{Overflow, Replay, TopicRule, TopicRules, Treatment},
    pattern::Pattern,
};

/// Less than that no eye sees; more than that is not a stream.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicTable {
    pattern: String,
    interval: Option<String>,
    replay: Option<String>,
    overflow: Option<String>,
}

pub(super) fn take(reader: &mut Reader) -> TopicRules {
    let tables: Vec<Table> = reader.take(
        "topic",
        Vec::new(),
        "`[[topic]]`: how the topics that match `pattern` are treated, such as `ticker/**`; the first that matches \
         decides. `interval`: no more than one event of each `key`, a field of what is published, goes out in this \
         time, the first at once and from then on the newest, such as `\"1s\"`. `replay`: what of their history whoever comes back is given, `\"all\"` unless it is written, \
         `\"latest\"` (the newest event of each `key`) or `\"none\"`. \
         `overflow`: what becomes of a reader that is too slow for what history holds, `\"gap\"` (it is told, unless \
         another is written), `\"latest\"` (it goes on with the newest event of each `key`) or `\"disconnect\"`.",
    );
    let rules = each(reader, "topic", tables, |table| {
        let table: TopicTable = of_table(table)?;
        let pattern = Pattern::parse(&table.pattern).ok_or_else(|| {
            let pattern = &table.pattern;
            format!("`{pattern}` is not a pattern of topics; write 1 to 1024 characters, such as ticker/**")
        })?;
        Ok(TopicRule {
            pattern,
            treatment: Treatment {
                interval: table.interval.map(interval).transpose()?,
                replay: table.replay.as_deref().map_or(Ok(Replay::All), replay)?,
                overflow: table
                    .overflow
                    .as_deref()
                    .map_or(Ok(Overflow::Gap), overflow)?,
            },
        })
    });
    rules.into_iter().collect()
}

fn interval(text: String) -> Result<Duration, String> {
    let interval = Duration::read(&Raw::One(text))?;
    range::time(interval, &INTERVAL).map_err(|what| format!("interval is wrong: {what}"))?;
    Ok(interval)
}

fn overflow(word: &str) -> Result<Overflow, String> {
    match word {
        "gap" => Ok(Overflow::Gap),
        "latest" => Ok(Overflow::Latest),
        "disconnect" => Ok(Overflow::Disconnect),
        other => Err(format!(
            "overflow is `{other}`; write gap, latest or disconnect"
        )),
    }
}

fn replay(word: &str) -> Result<Replay, String> {
    match word {
        "all" => Ok(Replay::All),
        "latest" => Ok(Replay::Latest),
        "none" => Ok(Replay::None),
        other => Err(format!("replay is `{other}`; write all, latest or none")),
    }
}
