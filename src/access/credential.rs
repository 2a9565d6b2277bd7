//! What a request has to show for itself. Pure.

use std::fmt;

use http::{HeaderMap, HeaderValue, Uri, header};

/// What the app is asked about, exactly. Whoever shows the same is the same to it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Credential {
    cookie: Option<HeaderValue>,
    authorization: Vec<HeaderValue>,
    /// An app may know the same cookie on one host and not on another.
    host: Box<str>,
    /// What is asked for, if the app decides by that too.
    uri: Option<Box<str>>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Credential {
    /// That of a request, of whose cookies these count, or all if none is named; `None` if it shows nothing.
    pub(super) fn of(
        headers: &HeaderMap,
        uri: &Uri,
        cookies: &[String],
        by_uri: bool,
    ) -> Option<Self> {
        let authorization: Vec<_> = headers
            .get_all(header::AUTHORIZATION)
            .iter()
            .filter_map(copy)
            .collect();
        let cookie = headers.get_all(header::COOKIE).iter();
        let cookie = counting(cookie, cookies);
        if cookie.is_none() && authorization.is_empty() {
            return None;
        }
        Some(Self {
            cookie,
            authorization,
            host: host(headers, uri).unwrap_or_default().into(),
            uri: by_uri.then(|| path_and_query(uri).into()),
        })
    }

    /// The host that it was shown to.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The fields that show it to the app.
    pub(super) fn fields(&self) -> impl Iterator<Item = (header::HeaderName, &HeaderValue)> {
        let cookie = self.cookie.iter().map(|value| (header::COOKIE, value));
        let authorization = self.authorization.iter();
        cookie.chain(authorization.map(|value| (header::AUTHORIZATION, value)))
    }

    /// How much it takes to keep, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let values: usize = self.fields().map(|(_, value)| value.len()).sum();
        let uri = self.uri.as_ref().map_or(0, |uri| uri.len());
        size_of::<Self>() + values + self.host.len() + uri
    }
}

/// The cookies that count, as one value.
fn counting<'h>(
    fields: impl Iterator<Item = &'h HeaderValue>,
    names: &[String],
) -> Option<HeaderValue> {
    let counts = |pair: &&[u8]| {
        let name = pair.split(|&b| b == b'=').next().unwrap_or_default();
        names.is_empty() || names.iter().any(|own| own.as_bytes() == name.trim_ascii())
    };
    let pairs: Vec<&[u8]> = fields
        .flat_map(|field| field.as_bytes().split(|&b| b == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
        .filter(counts)
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let joined = HeaderValue::from_bytes(&pairs.join(&b"; "[..]));
    let mut joined = joined.expect("parts of values and a separator make a value");
    joined.set_sensitive(true);
    Some(joined)
}

/// A copy: what is remembered must not keep the buffer that it came in.
pub(super) fn copy(value: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(value.as_bytes()).ok()
}

/// The host that a request is for.
fn host<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Option<&'r str> {
    let of_uri = uri.authority().map(http::uri::Authority::as_str);
    of_uri.or_else(|| headers.get(header::HOST)?.to_str().ok())
}

/// What a request asks for.
pub(super) fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, &str)], uri: &str, names: &[&str], by_uri: bool) -> Option<Credential> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = header::HeaderName::try_from(*name).expect("a name");
            headers.append(name, HeaderValue::try_from(*value).expect("a value"));
        }
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Credential::of(&headers, &uri.parse().expect("a URI"), &names, by_uri)
    }

    #[test]
    fn cookies_that_do_not_count_make_nobody_another() {
        let names = ["sid", "auth"];
        let all = "theme=dark; sid=1;auth=2 ; _ga=x";
        let one = of(&[("cookie", all)], "/events", &names, false).expect("it shows something");
        let split = [("cookie", "auth=2"), ("cookie", "sid=1")];
        let other = of(
            &[("cookie", "sid=1; auth=2; _ga=y")],
            "/other",
            &names,
            false,
        );
        assert_eq!(Some(&one), other.as_ref());
        assert_ne!(Some(&one), of(&split, "/events", &names, false).as_ref());
        let shown: Vec<_> = one.fields().map(|(_, value)| value.as_bytes()).collect();
        assert_eq!(shown, [b"sid=1; auth=2"]);
        assert_eq!(
            of(&[("cookie", "theme=dark; sidx=1")], "/", &names, false),
            None
        );
        // Without names all count.
        assert!(of(&[("cookie", "theme=dark")], "/", &[], false).is_some());
        assert_eq!(of(&[("cookie", " ; ")], "/", &[], false), None);
    }

    #[test]
    fn what_is_asked_for_counts_where_it_is_said_so_and_the_host_always() {
        let cookie = ("cookie", "sid=1");
        let at = |host, uri, by_uri| of(&[cookie, ("host", host)], uri, &[], by_uri);
        assert_eq!(at("a", "/1", false), at("a", "/2", false));
        assert_ne!(at("a", "/1", true), at("a", "/2", true));
        assert_ne!(at("a", "/1", false), at("b", "/1", false));
    }

    #[test]
    fn it_is_not_shown_in_a_log() {
        let credential = of(&[("authorization", "Basic c2VjcmV0")], "/", &[], false);
        assert_eq!(format!("{credential:?}"), "Some((secret))");
    }
}
