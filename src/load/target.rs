//! What server is put under load, and how one speaks with it.

use std::str::FromStr;

use http::{HeaderName, HeaderValue, Method, Uri};
use thiserror::Error;

use crate::client::{ClientError, Origin, Trust};

/// A server of event streams. `{topic}` and `{data}` stand for a topic and for an event's data, both of
/// which need no escape in a URL, in JSON or in a form.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name, for the report.
    pub name: String,
    /// The URL of a stream, with `{topic}`.
    pub subscribe: String,
    /// How an event is published, if it can be.
    pub publish: Option<Publish>,
    /// Who may vouch for it.
    pub trust: Trust,
}

/// A request that publishes an event.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Its method.
    pub method: Method,
    /// Its URL, with `{topic}`.
    pub url: String,
    /// Its header fields.
    pub headers: Vec<Field>,
    /// Its body, with `{topic}` and `{data}`.
    pub body: String,
}

/// A header field, written as `name: value`.
#[derive(Clone, Debug)]
pub struct Field(pub HeaderName, pub HeaderValue);

/// A header field that is none.
#[derive(Debug, Error)]
#[error("write a header field as `name: value`")]
pub struct InvalidField;

impl FromStr for Field {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let (name, value) = text.split_once(':').ok_or(InvalidField)?;
        let name = name.trim().parse().map_err(|_| InvalidField)?;
        let mut value: HeaderValue = value.trim().parse().map_err(|_| InvalidField)?;
        // It may be a token.
        value.set_sensitive(true);
        Ok(Self(name, value))
    }
}

/// A URL in two parts: the server, and the rest of the template.
pub(super) fn split(url: &str, trust: &Trust) -> Result<(Origin, String), ClientError> {
    let wrong = || ClientError::Url(url.to_owned());
    let authority = url.find("://").ok_or_else(wrong)? + 3;
    let path = url[authority..]
        .find(['/', '?'])
        .map_or(url.len(), |at| authority + at);
    let uri: Uri = url[..path].parse().map_err(|_| wrong())?;
    let origin = Origin::of(&uri, trust.clone())?;
    let rest = &url[path..];
    let slash = if rest.starts_with('/') { "" } else { "/" };
    Ok((origin, format!("{slash}{rest}")))
}

/// The name of a topic.
pub(super) fn topic(number: usize) -> String {
    format!("bench-{number}")
}

/// A template with its gaps filled.
pub(super) fn fill(template: &str, topic: &str, data: &str) -> String {
    template.replace("{topic}", topic).replace("{data}", data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_before_its_path() {
        for (url, authority, rest) in [
            ("https://a:1/sub/{topic}", "a:1", "/sub/{topic}"),
            ("http://[::1]:7?t={topic}", "[::1]:7", "/?t={topic}"),
            ("https://a", "a:443", "/"),
        ] {
            let (origin, path) = split(url, &Trust::Anyone).expect("a URL");
            assert_eq!(
                (origin.authority().as_str(), path.as_str()),
                (authority, rest)
            );
        }
        for url in ["a/b", "ftp://a/", "https:///x"] {
            assert!(split(url, &Trust::Anyone).is_err(), "{url}");
        }
    }

    #[test]
    fn braces_of_json_stay() {
        let body = fill(
            r#"{"channel":"{topic}","data":"{data}"}"#,
            "bench-1",
            "~0.1.2~",
        );
        assert_eq!(body, r#"{"channel":"bench-1","data":"~0.1.2~"}"#);
    }
}
