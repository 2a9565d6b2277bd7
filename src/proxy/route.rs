//! Which requests go where: by host and path, the most specific route first. Pure.

use std::{borrow::Cow, fmt, path::PathBuf};

use percent_encoding::percent_decode_str;
use thiserror::Error;

use crate::outbound::Address;

/// `[[route]]`
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// `host`
    pub host: HostPattern,
    /// `path`
    pub path: PathPattern,
    /// `upstream` or `files`
    pub target: Target,
    /// `send_host`: which Host the app sees.
    pub send_host: SendHost,
    /// `identity`: whether the app is told who asks.
    pub identity: bool,
    /// `gentle`: whether failures are told to an `EventSource` so that it comes back.
    pub gentle: bool,
    /// `hub`: whether an answer of the app's may become an event stream of the hub.
    pub hub: bool,
    /// `share`: whether all who ask for the same event stream share one of the app's.
    pub share: bool,
    /// `health`: a path that is asked for now and then.
    pub health: Option<Box<str>>,
}

/// Where the requests of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To one of these, which are alike.
    Upstreams(Vec<Address>),
    /// To the files of a directory.
    Files(PathBuf),
}

/// Which Host an app sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendHost {
    /// The one that the client asked for.
    Client,
    /// That of its address.
    Upstream,
}

/// The hosts that a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    Any,
    /// `*.example.com`: those below it, as `.example.com`.
    Below(Box<str>),
    Exactly(Box<str>),
}

/// The paths that a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// `/api/**`: this one, without its last slash, and all below it.
    Below(Box<str>),
    Exactly(Box<str>),
}

/// Why a pattern is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidRoute {
    #[error("`{0}` is not a path; write /path for one, or /path/** for all below it")]
    Path(String),
    #[error(
        "`{0}` is not a host; write app.example.com, or *.example.com for all below it, without a port"
    )]
    Host(String),
}

/// Whether one of `routes` covers a path, for whatever host.
#[must_use]
pub(crate) fn covers(routes: &[RouteSettings], path: &str) -> bool {
    routes.iter().any(|route| route.path.matches(path))
}

impl HostPattern {
    /// Reads a host, or `*.` and what comes after it.
    ///
    /// # Errors
    ///
    /// [`InvalidRoute::Host`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidRoute> {
        let lower = text.to_ascii_lowercase();
        let (below, name) = match lower.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, &*lower),
        };
        let address = name.starts_with('[') && name.ends_with(']');
        let plain = |c: char| {
            c.is_ascii_alphanumeric() || "-_.".contains(c) || address && "[]:".contains(c)
        };
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(InvalidRoute::Host(text.into()));
        }
        let name = name.trim_end_matches('.');
        Ok(if below {
            Self::Below(format!(".{name}").into())
        } else {
            Self::Exactly(name.into())
        })
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Below(end) => host.len() > end.len() && host.ends_with(&**end),
            Self::Exactly(name) => host == &**name,
        }
    }

    /// How specific it is: more is taken before less.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Below(end) => (1, end.len()),
            Self::Exactly(name) => (2, name.len()),
        }
    }
}

impl PathPattern {
    /// Reads a path, or one that ends with `/**`.
    ///
    /// # Errors
    ///
    /// [`InvalidRoute::Path`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidRoute> {
        let (stem, below) = match text.strip_suffix("/**") {
            Some(stem) => (stem, true),
            None => (text, false),
        };
        let whole = stem.starts_with('/') || (below && stem.is_empty());
        if !whole || stem.contains(['*', '?', '#', '%', ' ', '\\']) || stem.contains("//") {
            return Err(InvalidRoute::Path(text.into()));
        }
        Ok(if below {
            Self::Below(stem.into())
        } else {
            Self::Exactly(stem.into())
        })
    }

    /// Whether it means one path alone.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Exactly(_))
    }

    /// What the paths that it covers begin with: all of it before the stars, or before the last slash.
    #[must_use]
    pub fn stem(&self) -> &str {
        match self {
            Self::Below(stem) => stem,
            Self::Exactly(path) => path.rfind('/').map_or("", |end| &path[..end]),
        }
    }

    /// Whether it covers a path, which is [`plain`].
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exactly(exactly) => path == &**exactly,
            Self::Below(stem) => path
                .strip_prefix(&**stem)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Below(stem) => (0, stem.len()),
            Self::Exactly(path) => (1, path.len()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any host"),
            Self::Below(end) => write!(f, "*{end}"),
            Self::Exactly(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(stem) => write!(f, "{stem}/**"),
            Self::Exactly(path) => f.write_str(path),
        }
    }
}

impl fmt::Display for RouteSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} to ", self.path, self.host)?;
        match &self.target {
            Target::Files(directory) => write!(f, "the files of {}", directory.display()),
            Target::Upstreams(addresses) => {
                let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(", "))
            }
        }
    }
}

/// A path as routes are compared with: what need not be percent-encoded is decoded (RFC 3986 6.2.2.2),
/// so that `/%61dmin` is no way around the route of `/admin`. An encoded slash stays what it is.
#[must_use]
pub(super) fn plain(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return path.into();
    }
    let mut plain = String::with_capacity(path.len());
    let mut parts = path.split('%');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        let encoded = format!("%{code}");
        match percent_decode_str(&encoded).next() {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                plain.push(byte.into());
            }
            _ => plain.push_str(&encoded.to_ascii_uppercase()),
        }
        plain.push_str(rest);
    }
    plain.into()
}

/// A host as routes are compared with: without its port, in small letters.
#[must_use]
pub(super) fn plain_host(authority: &str) -> String {
    let end = match authority.rfind(']') {
        Some(end) => end + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    authority[..end].trim_end_matches('.').to_ascii_lowercase()
}

/// The place of the most specific of `routes` that a request is for: its host decides before its path.
#[must_use]
pub(crate) fn find<'r>(
    routes: impl Iterator<Item = (&'r HostPattern, &'r PathPattern)>,
    authority: &str,
    path: &str,
) -> Option<usize> {
    let (host, path) = (plain_host(authority), plain(path));
    routes
        .enumerate()
        .filter(|(_, (hosts, paths))| hosts.matches(&host) && paths.matches(&path))
        .max_by_key(|(_, (hosts, paths))| (hosts.rank(), paths.rank()))
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(routes: &[(&str, &str)], authority: &str, path: &str) -> Option<usize> {
        let routes: Vec<_> = routes
            .iter()
            .map(|(host, path)| {
                let host = match *host {
                    "" => HostPattern::Any,
                    host => HostPattern::parse(host).expect("a host"),
                };
                (host, PathPattern::parse(path).expect("a path"))
            })
            .collect();
        find(
            routes.iter().map(|(host, path)| (host, path)),
            authority,
            path,
        )
    }

    #[test]
    fn the_most_specific_route_is_taken() {
        let routes = [
            ("", "/**"),
            ("", "/api/**"),
            ("", "/api/v1"),
            ("app.example", "/**"),
            ("*.example", "/**"),
            ("*.example", "/only"),
        ];
        let found = |host, path| found(&routes, host, path);
        assert_eq!(found("a", "/"), Some(0));
        assert_eq!(found("a", "/apiary"), Some(0));
        assert_eq!(found("a", "/api"), Some(1));
        assert_eq!(found("a:8443", "/api/v1/"), Some(1));
        assert_eq!(found("a", "/api/v1"), Some(2));
        assert_eq!(found("APP.example.:443", "/api/v1"), Some(3));
        assert_eq!(found("b.example", "/x"), Some(4));
        assert_eq!(found("b.example", "/only"), Some(5));
        assert_eq!(found("example", "/only"), Some(0));
    }

    #[test]
    fn encodings_are_no_way_around_a_route() {
        let routes = [("", "/**"), ("", "/admin/**")];
        for path in ["/admin", "/%61dmin", "/%61%64%6d%69%6E/x", "/admin/%2e%2e"] {
            assert_eq!(found(&routes, "a", path), Some(1), "{path}");
        }
        for path in ["/admin%2Fx", "/Admin", "/%25admin", "/%2561dmin"] {
            assert_eq!(found(&routes, "a", path), Some(0), "{path}");
        }
        assert_eq!(found(&[("[::1]", "/**")], "[::1]:8443", "/"), Some(0));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["", "api", "/a*", "/**/a", "/a?b", "/a%20", "//", "**"] {
            assert!(PathPattern::parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "*", "*.", "a:80", "a/b", "a b"] {
            assert!(HostPattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn plain_is_plain(path in "/[a-zA-Z0-9/%._~-]{0,30}") {
            let once = plain(&path).into_owned();
            if !path.contains('%') {
                prop_assert_eq!(&once, &path);
            }
            prop_assert_eq!(path.matches('/').count(), once.matches('/').count());
        }
    }
}
