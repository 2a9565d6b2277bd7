//! Where an app listens.

use std::{fmt, path::PathBuf};

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use thiserror::Error;

/// Where an app listens, and how it is spoken to: `http://host:port`, `https://host:port`,
/// `h2c://host:port` (HTTP/2 with prior knowledge), or `unix:/path/of/the.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    text: Box<str>,
    scheme: Scheme,
    authority: Authority,
    /// The socket in the file system, in place of a host.
    pub(super) socket: Option<PathBuf>,
    pub(super) http2: bool,
}

/// Why a text does not say where an app listens.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` does not say where an app listens; write http://host:port, https://host:port, h2c://host:port \
     or unix:/path/of/the.sock"
)]
pub struct InvalidAddress(String);

impl Address {
    /// Reads `text`.
    ///
    /// # Errors
    ///
    /// [`InvalidAddress`] when it is none of these; a path, a query or user information has no place in it.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.into());
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(invalid());
            }
            return Ok(Self {
                text: text.into(),
                scheme: Scheme::HTTP,
                authority: Authority::from_static("localhost"),
                socket: Some(path.into()),
                http2: false,
            });
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let (scheme, http2) = match scheme {
            "http" => (Scheme::HTTP, false),
            "https" => (Scheme::HTTPS, false),
            "h2c" => (Scheme::HTTP, true),
            _ => return Err(invalid()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let authority: Authority = authority.parse().map_err(|_| invalid())?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(invalid());
        }
        Ok(Self {
            text: text.into(),
            scheme,
            authority,
            socket: None,
            http2,
        })
    }

    /// Its host, with a port if one is written.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether it is spoken to over HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.http2
    }

    /// The URI of `target` there. What `target` holds stays as it is, byte for byte.
    #[must_use]
    pub fn uri(&self, target: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(target);
        Uri::from_parts(parts).expect("it has all parts")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_and_how() {
        let target = || PathAndQuery::from_static("/a%2Fb?c=%20");
        let at = |text: &str| Address::parse(text).expect("an address");
        let uri = |text: &str| at(text).uri(target()).to_string();
        assert_eq!(
            uri("http://127.0.0.1:3000"),
            "http://127.0.0.1:3000/a%2Fb?c=%20"
        );
        assert_eq!(
            uri("https://app.example/"),
            "https://app.example/a%2Fb?c=%20"
        );
        assert!(at("h2c://[::1]:8080").is_http2() && !at("http://a").is_http2());
        assert_eq!(
            at("unix:/run/app.sock").socket,
            Some("/run/app.sock".into())
        );
    }

    #[test]
    fn nothing_else() {
        for wrong in [
            "",
            "localhost:3000",
            "ftp://a",
            "http://",
            "http://a/path",
            "http://u@a",
            "unix:run",
            "http://a?q",
            "http://a b",
        ] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
