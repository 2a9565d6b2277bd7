//! What the commands share that ask the control listener.

use std::{path::PathBuf, str::FromStr};

use anyhow::Context as _;
use clap::Args;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::exit::Refused;
use crate::client::{Connection, Origin, Protocol, Response, Trust, Upload, full};

/// What needs no encoding in a path of topics.
const TOPIC: &AsciiSet = &NAME.remove(b'/');
/// What needs none in a name.
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Where the control listener is, and what it takes.
#[derive(Debug, Args)]
pub(super) struct Operator {
    /// The control listener: a URL, or `unix:` and the path of its socket
    #[arg(
        long,
        value_name = "URL",
        env = "SEVENTH_CONTROL",
        default_value = "http://127.0.0.1:7070"
    )]
    control: Listener,
    /// The control listener's token [env: SEVENTH_CONTROL_TOKEN]
    #[arg(long, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file with the control listener's token [env: SEVENTH_CONTROL_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Where it listens.
#[derive(Clone, Debug)]
enum Listener {
    Url(Uri),
    Socket(PathBuf),
}

impl FromStr for Listener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Socket(path.into()));
        }
        let url: Result<Uri, _> = text.parse();
        url.map(Self::Url).map_err(|error| error.to_string())
    }
}

impl Operator {
    /// Connects.
    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        let target = match &self.control {
            Listener::Url(url) => Origin::of(url, Trust::System)?,
            Listener::Socket(path) => Origin::of_socket(path.clone()),
        };
        Ok(Connection::open(&target, Protocol::Http1).await?)
    }

    /// A request, with the token.
    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
    ) -> anyhow::Result<http::request::Builder> {
        let mut request = Request::builder().method(method).uri(path);
        let token = self.token()?;
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .context("the token cannot stand in a header")?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// The token: as the flags say, or else the environment.
    fn token(&self) -> anyhow::Result<Option<String>> {
        if let Some(token) = &self.token {
            return Ok(Some(token.clone()));
        }
        let from_environment =
            |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        if self.token_file.is_none()
            && let Some(token) = from_environment("SEVENTH_CONTROL_TOKEN")
        {
            return Ok(Some(token));
        }
        let file = self.token_file.clone();
        let file = file.or_else(|| from_environment("SEVENTH_CONTROL_TOKEN_FILE").map(Into::into));
        let Some(file) = file else { return Ok(None) };
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(Some(text.trim().to_owned()))
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let body = full(String::new());
        let request = self.request(method, path)?.body(body)?;
        self.answer(request).await
    }

    /// Sends JSON, and reads the whole answer.
    pub(super) async fn send(&self, path: &str, json: &Value) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, path)?;
        let request = request.header(header::CONTENT_TYPE, "application/json");
        self.answer(request.body(full(json.to_string()))?).await
    }

    async fn answer(&self, request: Request<Upload>) -> anyhow::Result<Value> {
        let mut connection = self.connect().await?;
        let response = connection.send(request).await?;
        let mut response = succeeded(response).await?;
        serde_json::from_slice(&response.bytes().await?).context("the answer is not JSON")
    }
}

/// The response, if it is not a refusal.
pub(super) async fn succeeded(mut response: Response) -> anyhow::Result<Response> {
    let status = response.status;
    if status == StatusCode::OK {
        return Ok(response);
    }
    let problem: Value = serde_json::from_slice(&response.bytes().await?).unwrap_or_default();
    let why = match problem["detail"].as_str() {
        Some(detail) => printable(detail),
        None => format!("the edge answered {status}"),
    };
    Err(Refused(why).into())
}

/// A topic as it stands in a path.
pub(super) fn topic_in_path(topic: &str) -> String {
    utf8_percent_encode(topic, TOPIC).to_string()
}

/// A name as it stands in a path.
pub(super) fn name_in_path(name: &str) -> String {
    utf8_percent_encode(name, NAME).to_string()
}

/// How many streams an answer says, for people: of many edges nobody knows.
pub(super) fn streams(count: &Value) -> String {
    match count {
        Value::Null => "the streams of every edge".to_owned(),
        count => format!("{count} streams"),
    }
}

/// The text without control characters: what somebody wrote must not steer the terminal.
pub(super) fn printable(text: &str) -> String {
    let plain = |c: char| {
        if c.is_control() && c != '\t' {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(plain).collect()
}

/// JSON without control characters: those that it need not escape steer terminals too.
pub(super) fn json_line(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(|c| ('\u{7f}'..='\u{9f}').contains(&c)) {
        return text;
    }
    let mut plain = String::with_capacity(text.len() + 6);
    for c in text.chars() {
        if ('\u{7f}'..='\u{9f}').contains(&c) {
            plain.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        let steers = "a\u{1b}[2Jb\u{9b}2Jc\u{7f}\nd\te";
        assert_eq!(
            printable(steers),
            "a\u{fffd}[2Jb\u{fffd}2Jc\u{fffd}\u{fffd}d\te"
        );
        let line = json_line(&json!({ "data": steers }));
        assert!(!line.contains(char::is_control), "{line}");
        let back: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(back["data"], steers);
    }
}
