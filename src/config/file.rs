//! A configuration file as a list of keys and values.

use super::{
    reader::{Mistake, Sources},
    value::Raw,
};

/// Reads the text of a file of this name into `sources`.
pub(super) fn read(name: &str, text: &str, sources: &mut Sources) {
    match text.parse::<toml::Table>() {
        Ok(table) => flatten("", toml::Value::Table(table), sources),
        Err(error) => {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].lines().count().max(1));
            sources.mistakes.push(Mistake {
                key: format!("{name}, line {line}"),
                what: error.message().to_owned(),
            });
        }
    }
}

fn flatten(prefix: &str, value: toml::Value, sources: &mut Sources) {
    let raw = match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, sources);
            }
            return;
        }
        toml::Value::Array(values) => {
            let is_table = |value: &toml::Value| value.is_table();
            if !values.is_empty() && values.iter().all(is_table) {
                let tables = values.into_iter().filter_map(|value| match value {
                    toml::Value::Table(table) => Some(table),
                    _ => None,
                });
                sources
                    .file
                    .insert(prefix.to_owned(), Raw::Tables(tables.collect()));
                return;
            }
            if values
                .iter()
                .any(|value| value.is_array() || value.is_table())
            {
                return sources.mistakes.push(Mistake {
                    key: prefix.into(),
                    what: "mixes lists or tables with values; give a list of values".into(),
                });
            }
            Raw::Many(values.into_iter().map(scalar).collect())
        }
        value => Raw::One(scalar(value)),
    };
    sources.file.insert(prefix.to_owned(), raw);
}

fn scalar(value: toml::Value) -> String {
    match value {
        toml::Value::String(text) => text,
        other => other.to_string(),
    }
}
