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
    hub::{Replay, TopicRule, TopicRules, Treatment},
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
}

pub(super) fn take(reader: &mut Reader) -> TopicRules {
    let tables: Vec<Table> = reader.take(
        "topic",
        Vec::new(),
        "`[[topic]]`: how the topics that match `pattern` are treated, such as `ticker/**`; the first that matches \
         decides. `interval`: no more than one event of each `key`, a field of what is published, goes out in this \
         time, the first at once and from then on the newest, such as `\"1s\"`. `replay`: what of their history whoever comes back is given, `\"all\"` unless it is written, \
         `\"latest\"` (the newest event of each `key`) or `\"none\"`.",
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

fn replay(word: &str) -> Result<Replay, String> {
    match word {
        "all" => Ok(Replay::All),
        "latest" => Ok(Replay::Latest),
        "none" => Ok(Replay::None),
        other => Err(format!("replay is `{other}`; write all, latest or none")),
    }
}
