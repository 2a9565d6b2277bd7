//! `[[topic]]`

use serde::Deserialize;
use toml::Table;

use super::{
    items::{each, of_table},
    reader::Reader,
};
use crate::{
    hub::{Replay, TopicRule, TopicRules, Treatment},
    pattern::Pattern,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicTable {
    pattern: String,
    replay: Option<String>,
}

pub(super) fn take(reader: &mut Reader) -> TopicRules {
    let tables: Vec<Table> = reader.take(
        "topic",
        Vec::new(),
        "`[[topic]]`: how the topics that match `pattern` are treated, such as `ticker/**`; the first that matches \
         decides. `replay`: what of their history whoever comes back is given, `\"all\"` unless it is written, \
         `\"latest\"` (the newest event of each `key`, a field of what is published) or `\"none\"`.",
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
                replay: table.replay.as_deref().map_or(Ok(Replay::All), replay)?,
                ..Treatment::default()
            },
        })
    });
    rules.into_iter().collect()
}

fn replay(word: &str) -> Result<Replay, String> {
    match word {
        "all" => Ok(Replay::All),
        "latest" => Ok(Replay::Latest),
        "none" => Ok(Replay::None),
        other => Err(format!("replay is `{other}`; write all, latest or none")),
    }
}
