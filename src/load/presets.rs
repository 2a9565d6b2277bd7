//! Servers whose way of subscribing and publishing is known.

use std::{fmt, str::FromStr as _};

use http::Method;

use super::target::{Field, Publish, Target};
use crate::client::Trust;

/// A server whose way is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// This project's edge.
    Seventh,
    /// nginx with nchan, at the locations that its documentation has: `/sub/` and `/pub/`.
    Nchan,
    /// Mercure.
    Mercure,
    /// Centrifugo, by its unidirectional event streams.
    Centrifugo,
    /// Pushpin, before an app that holds streams on a channel named like the last part of the path.
    Pushpin,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 5] = [
        Self::Seventh,
        Self::Nchan,
        Self::Mercure,
        Self::Centrifugo,
        Self::Pushpin,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seventh => "seventh",
            Self::Nchan => "nchan",
            Self::Mercure => "mercure",
            Self::Centrifugo => "centrifugo",
            Self::Pushpin => "pushpin",
        }
    }

    /// The server at `url`, such as `https://localhost:8443`, whose publishing is at `publish` if that is another
    /// place.
    #[must_use]
    pub fn target(self, url: &str, publish: Option<&str>, trust: Trust) -> Target {
        let url = url.trim_end_matches('/');
        let at = publish.unwrap_or(url).trim_end_matches('/');
        let (subscribe, publish) = match self {
            Self::Seventh => ("/events?topic={topic}", (at, "/topics/{topic}", "{data}")),
            Self::Nchan => ("/sub/{topic}", (at, "/pub/{topic}", "{data}")),
            Self::Mercure => (
                "/.well-known/mercure?match={topic}",
                (at, "/.well-known/mercure", "topic={topic}&data={data}"),
            ),
            Self::Centrifugo => (
                "/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22{topic}%22%3A%7B%7D%7D%7D",
                (
                    at,
                    "/api/publish",
                    r#"{"channel":"{topic}","data":"{data}"}"#,
                ),
            ),
            Self::Pushpin => (
                "/events/{topic}",
                (
                    at,
                    "/publish/",
                    r#"{"items":[{"channel":"{topic}","formats":{"http-stream":{"content":"data: {data}\n\n"}}}]}"#,
                ),
            ),
        };
        let (at, path, body) = publish;
        let content_type = match self {
            Self::Seventh | Self::Nchan => "content-type: text/plain",
            Self::Mercure => "content-type: application/x-www-form-urlencoded",
            Self::Centrifugo | Self::Pushpin => "content-type: application/json",
        };
        let content_type = Field::from_str(content_type).expect("a header field");
        Target {
            name: self.to_string(),
            subscribe: format!("{url}{subscribe}"),
            publish: Some(Publish {
                method: Method::POST,
                url: format!("{at}{path}"),
                headers: vec![content_type],
                body: body.into(),
            }),
            trust,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
