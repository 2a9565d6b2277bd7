//! Whether a request may reach the service: the same rules for HTTP/1.1, HTTP/2 and HTTP/3.
//!
//! Pure. The crates below check little of this, and not alike; RFC 9110, 9112, 9113 and 9114 say
//! which requests are malformed.

use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, Version, header, request::Parts};
use thiserror::Error;

/// Why a request is refused before anyone looks at what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Malformed {
    #[error("the header has {0} fields, the limit is {1}")]
    TooManyFields(usize, usize),
    #[error("the header is {0} bytes long, the limit is {1}")]
    TooLong(usize, usize),
    /// RFC 9112 3.2: a server must answer 400 to a request that lacks a Host or has more than one.
    #[error("the request names {0} hosts, it must name one")]
    Hosts(usize),
    #[error("Host and the request's target name different hosts")]
    HostsDiffer,
    /// The authority is not `host[:port]`.
    #[error("the host is not a host name with an optional port")]
    Authority,
    /// The path is not one the edge would ever serve, or one that others read differently.
    #[error("the path {0}")]
    Path(&'static str),
    /// RFC 9110 8.6, RFC 9112 6.3.
    #[error("Content-Length is {0}")]
    ContentLength(&'static str),
    /// RFC 9112 6.1: only `chunked` is known, and only in HTTP/1.1.
    #[error("Transfer-Encoding is not taken here")]
    TransferEncoding,
    /// RFC 9113 8.2.2, RFC 9114 4.2.
    #[error("the field {0} has no place in this version of HTTP")]
    ConnectionField(HeaderName),
    #[error("the method {0} is not offered")]
    Method(Method),
}

impl Malformed {
    /// The status to answer with.
    #[must_use]
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::TooManyFields(..) | Self::TooLong(..) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::Method(_) => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// The bounds of a request's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeaderBounds {
    /// The most bytes, counted as names and values.
    pub bytes: usize,
    /// The most fields.
    pub count: usize,
}

/// Checks a request's head.
///
/// # Errors
///
/// The first rule that it breaks.
pub(crate) fn validate(parts: &Parts, bounds: HeaderBounds) -> Result<(), Malformed> {
    size(parts, bounds)?;
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Malformed::Method(parts.method.clone()));
    }
    hosts(parts)?;
    path(&parts.method, &parts.uri)?;
    content_length(&parts.headers)?;
    if parts.version >= Version::HTTP_2 {
        no_connection_fields(&parts.headers)
    } else {
        transfer_encoding(parts)
    }
}

/// The host and port that the request is for, once it is valid.
#[must_use]
pub(crate) fn authority(parts: &Parts) -> &str {
    match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default(),
    }
}

fn size(parts: &Parts, bounds: HeaderBounds) -> Result<(), Malformed> {
    let count = parts.headers.len();
    if count > bounds.count {
        return Err(Malformed::TooManyFields(count, bounds.count));
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let fields: usize = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    match target + fields {
        bytes if bytes > bounds.bytes => Err(Malformed::TooLong(bytes, bounds.bytes)),
        _ => Ok(()),
    }
}

fn hosts(parts: &Parts) -> Result<(), Malformed> {
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let (host, more) = (fields.next(), fields.count());
    if more > 0 {
        return Err(Malformed::Hosts(1 + more));
    }
    let name = match (host, parts.uri.authority()) {
        (None, None) => return Err(Malformed::Hosts(0)),
        // HTTP/1.1 asks for a Host even beside an absolute target (RFC 9112 3.2).
        (None, Some(_)) if parts.version < Version::HTTP_2 => return Err(Malformed::Hosts(0)),
        (None, Some(authority)) => authority.as_str(),
        (Some(host), authority) => {
            let host = host.to_str().map_err(|_| Malformed::Authority)?;
            if authority.is_some_and(|a| !a.as_str().eq_ignore_ascii_case(host)) {
                return Err(Malformed::HostsDiffer);
            }
            host
        }
    };
    match name.parse::<http::uri::Authority>() {
        // User information in an authority is for other schemes (RFC 9110 4.2.4).
        Ok(authority) if !authority.as_str().contains('@') && !authority.host().is_empty() => {
            Ok(())
        }
        _ => Err(Malformed::Authority),
    }
}

fn path(method: &Method, uri: &Uri) -> Result<(), Malformed> {
    let path = uri.path();
    if path == "*" && method == Method::OPTIONS {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err(Malformed::Path("does not begin with /"));
    }
    if path.starts_with("//") {
        return Err(Malformed::Path(
            "begins with //, which browsers read as a host",
        ));
    }
    if path.contains('\\') {
        return Err(Malformed::Path("holds a backslash"));
    }
    if path.bytes().any(|b| !(0x21..0x7f).contains(&b)) {
        return Err(Malformed::Path(
            "holds a character that must be percent-encoded",
        ));
    }
    if path
        .split('/')
        .any(|segment| matches!(dots(segment).as_str(), "." | ".."))
    {
        return Err(Malformed::Path("holds a dot segment"));
    }
    percent_encoding(path)
}

/// The segment with its encoded dots written out, to see through `%2e%2E`.
fn dots(segment: &str) -> String {
    segment.replace("%2e", ".").replace("%2E", ".")
}

fn percent_encoding(path: &str) -> Result<(), Malformed> {
    for encoded in path.split('%').skip(1) {
        match encoded.as_bytes() {
            [b'0', b'0', ..] => return Err(Malformed::Path("holds an encoded NUL")),
            [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {}
            _ => return Err(Malformed::Path("holds a % without two hexadecimal digits")),
        }
    }
    Ok(())
}

fn content_length(headers: &HeaderMap) -> Result<(), Malformed> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(());
    };
    if values.next().is_some() {
        return Err(Malformed::ContentLength("given more than once"));
    }
    let value = value.as_bytes();
    if !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit) {
        Ok(())
    } else {
        Err(Malformed::ContentLength("not a number"))
    }
}

fn transfer_encoding(parts: &Parts) -> Result<(), Malformed> {
    let mut values = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(value) = values.next() else {
        return Ok(());
    };
    let alone = values.next().is_none() && !parts.headers.contains_key(header::CONTENT_LENGTH);
    let chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if alone && chunked && parts.version == Version::HTTP_11 {
        Ok(())
    } else {
        Err(Malformed::TransferEncoding)
    }
}

fn no_connection_fields(headers: &HeaderMap) -> Result<(), Malformed> {
    const BANNED: [HeaderName; 3] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    const BANNED_TOO: [&str; 2] = ["keep-alive", "proxy-connection"];
    for name in headers.keys() {
        if BANNED.contains(name) || BANNED_TOO.contains(&name.as_str()) {
            return Err(Malformed::ConnectionField(name.clone()));
        }
    }
    match headers.get(header::TE) {
        Some(te) if te != "trailers" => Err(Malformed::ConnectionField(header::TE)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: HeaderBounds = HeaderBounds {
        bytes: 16 << 10,
        count: 64,
    };

    fn check(version: Version, target: &str, fields: &[(&str, &str)]) -> Result<(), Malformed> {
        let mut request = http::Request::builder().version(version).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        validate(
            &request.body(()).expect("the crate takes it").into_parts().0,
            BOUNDS,
        )
    }

    #[test]
    fn takes_what_browsers_and_curl_send() {
        let h1 = check(
            Version::HTTP_11,
            "/events?topic=a%20b",
            &[("host", "localhost:8443")],
        );
        assert_eq!(h1, Ok(()));
        let chunked = [("host", "a"), ("transfer-encoding", "chunked")];
        assert_eq!(check(Version::HTTP_11, "/publish", &chunked), Ok(()));
        let h2 = check(
            Version::HTTP_2,
            "https://[::1]:8443/events",
            &[("te", "trailers")],
        );
        assert_eq!(h2, Ok(()));
        let both = check(
            Version::HTTP_3,
            "https://A.example/",
            &[("host", "a.example")],
        );
        assert_eq!(both, Ok(()));
    }

    #[test]
    fn one_host_and_only_one() {
        let h1 = |fields: &[_]| check(Version::HTTP_11, "/", fields);
        assert_eq!(h1(&[]), Err(Malformed::Hosts(0)));
        assert_eq!(
            h1(&[("host", "a"), ("host", "a")]),
            Err(Malformed::Hosts(2))
        );
        for wrong in ["", "a b", "user@a", "a/b", "a:b:c", ":80"] {
            assert_eq!(h1(&[("host", wrong)]), Err(Malformed::Authority), "{wrong}");
        }
        let absolute = check(Version::HTTP_11, "http://b/", &[("host", "a")]);
        assert_eq!(absolute, Err(Malformed::HostsDiffer));
        let h2 = check(Version::HTTP_2, "https://b/", &[("host", "a")]);
        assert_eq!(h2, Err(Malformed::HostsDiffer));
    }

    #[test]
    fn no_path_that_others_read_differently() {
        for wrong in [
            "//evil/x",
            "/a/../b",
            "/a/%2e%2E",
            "/./",
            "/%",
            "/%0g",
            "/%00",
            "/a\\b",
            "*",
        ] {
            let result = check(Version::HTTP_11, wrong, &[("host", "a")]);
            assert!(
                matches!(result, Err(Malformed::Path(_))),
                "{wrong}: {result:?}"
            );
        }
        assert_eq!(check(Version::HTTP_11, "/...", &[("host", "a")]), Ok(()));
    }

    #[test]
    fn one_length_of_a_body() {
        let check = |version, fields: &[_]| {
            let mut all = vec![("host", "a")];
            all.extend_from_slice(fields);
            check(version, "/", &all)
        };
        for version in [Version::HTTP_11, Version::HTTP_2, Version::HTTP_3] {
            assert_eq!(check(version, &[("content-length", "5")]), Ok(()));
            for wrong in ["", "+5", "5, 5", "-1", "1e3", "9999999999999999999"] {
                let result = check(version, &[("content-length", wrong)]);
                assert!(
                    matches!(result, Err(Malformed::ContentLength(_))),
                    "{wrong}"
                );
            }
            let twice = [("content-length", "5"), ("content-length", "5")];
            assert!(matches!(
                check(version, &twice),
                Err(Malformed::ContentLength(_))
            ));
            for wrong in ["identity, chunked", "gzip", "chunked, chunked"] {
                assert!(
                    check(version, &[("transfer-encoding", wrong)]).is_err(),
                    "{wrong}"
                );
            }
            let both = [("transfer-encoding", "chunked"), ("content-length", "5")];
            assert!(check(version, &both).is_err());
        }
    }

    #[test]
    fn no_connection_fields_from_http2_on() {
        for version in [Version::HTTP_2, Version::HTTP_3] {
            for name in [
                "connection",
                "transfer-encoding",
                "upgrade",
                "keep-alive",
                "proxy-connection",
                "te",
            ] {
                let result = check(version, "https://a/", &[(name, "x")]);
                assert!(
                    matches!(result, Err(Malformed::ConnectionField(_))),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn headers_are_bounded_in_bytes_and_in_number() {
        let many: Vec<_> = std::iter::repeat_n(("x", "y"), 64)
            .chain([("host", "a")])
            .collect();
        assert_eq!(
            check(Version::HTTP_11, "/", &many),
            Err(Malformed::TooManyFields(65, 64))
        );
        let long = "x".repeat(16 << 10);
        let result = check(Version::HTTP_11, "/", &[("host", "a"), ("cookie", &long)]);
        assert!(matches!(result, Err(Malformed::TooLong(_, 16_384))));
    }

    proptest! {
        #[test]
        fn a_path_that_passes_is_plain(path in "/[a-z./%\\\\0-9*]{0,20}") {
            let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
            if super::path(&Method::GET, &uri).is_ok() {
                let decoded = ::percent_encoding::percent_decode_str(&path).collect::<Vec<u8>>();
                prop_assert!(!path.starts_with("//"));
                prop_assert!(!decoded.contains(&0));
                let dotted = decoded.split(|&b| b == b'/').any(|s| s == b"." || s == b"..");
                prop_assert!(!dotted || path.to_lowercase().contains("%2f"));
            }
        }
    }
}
