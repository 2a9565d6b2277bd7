//! Secrets, which may stand in files of their own: systemd, Docker and Kubernetes pass them so.

use std::{fs::File, io::Read as _};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{reader::Reader, value::Setting};

/// The longest file that is read, in bytes.
const LONGEST: usize = 64 << 10;

/// What a file holds, without the end of its last line.
pub(super) fn read(path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{path}: {error}");
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{path} is not a file"));
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let read = file.take(LONGEST as u64 + 1).read_to_end(&mut text);
    if read.map_err(failed)? > LONGEST {
        return Err(format!(
            "{path} is longer than {LONGEST} bytes, which is the limit"
        ));
    }
    let text = String::from_utf8(text).map_err(|_| format!("{path} is not text"))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(format!("{path} is empty"));
    }
    Ok(text.to_owned())
}

/// A secret that stands in the configuration or in a file, not in both.
pub(super) fn either(
    text: Option<Text>,
    file: Option<&str>,
    name: &str,
) -> Result<Option<String>, String> {
    match (text, file) {
        (Some(_), Some(_)) => Err(format!("{name} and {name}_file are both given; keep one")),
        (text, None) => Ok(text.map(|Text(text)| text)),
        (None, Some(file)) => read(file).map(Some),
    }
}

/// Takes the secret `key`, or what the file holds that `file_key` names.
pub(super) fn take<T: Setting>(
    reader: &mut Reader,
    [key, file_key]: [&'static str; 2],
    [doc, file_doc]: [&'static str; 2],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let strengths = [reader.strength(key), reader.strength(file_key)];
    let text: Option<T> = reader.take(key, None, doc);
    let file: Option<String> = reader.take(file_key, None, file_doc);
    let Some(file) = file else { return text };
    match strengths {
        // The environment before the file, whichever of the two it has.
        [Some(own), Some(other)] if own < other => return text,
        [Some(own), Some(other)] if own == other => {
            reader.mistake(file_key, format!("{key} is given too; keep one of them"));
            return text;
        }
        _ => {}
    }
    match read(&file).and_then(|text| parse(&text)) {
        Ok(secret) => Some(secret),
        Err(wrong) => {
            reader.mistake(file_key, wrong);
            None
        }
    }
}

/// A secret in a table. What stands there instead is not repeated: it may be one, without its quotes.
#[derive(Debug)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            _ => Err(D::Error::custom(
                "a key or a secret is text: put it into quotes",
            )),
        }
    }
}
