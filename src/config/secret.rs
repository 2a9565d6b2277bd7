//! Secrets, which may stand in files of their own: systemd, Docker and Kubernetes pass them so.

use super::{reader::Reader, value::Setting};

/// The longest file that is read, in bytes.
const LONGEST: usize = 64 << 10;

/// What a file holds, without the end of its last line.
pub(super) fn read(path: &str) -> Result<String, String> {
    let text = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    if text.len() > LONGEST {
        let len = text.len();
        return Err(format!(
            "{path} is {len} bytes long, the limit is {LONGEST}"
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
    text: Option<String>,
    file: Option<&str>,
    name: &str,
) -> Result<Option<String>, String> {
    match (text, file) {
        (Some(_), Some(_)) => Err(format!("{name} and {name}_file are both given; keep one")),
        (text, None) => Ok(text),
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
    let text: Option<T> = reader.take(key, None, doc);
    let file: Option<String> = reader.take(file_key, None, file_doc);
    let Some(file) = file else { return text };
    if text.is_some() {
        reader.mistake(file_key, format!("{key} is given too; keep one of them"));
        return text;
    }
    match read(&file).and_then(|text| parse(&text)) {
        Ok(secret) => Some(secret),
        Err(wrong) => {
            reader.mistake(file_key, wrong);
            None
        }
    }
}
