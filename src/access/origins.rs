//! Which other sites' pages may open event streams (the Fetch standard, section 3.2). Pure.

use http::{HeaderMap, HeaderValue, header};
use thiserror::Error;

/// `access.origins`: an exact list. Credentials are allowed for these and no others. `*` lets all the
/// others in as well, as nobody in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    listed: Vec<HeaderValue>,
    any: bool,
}

/// Why an origin is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not an origin; write scheme://host[:port] in lower case, such as https://app.example, without a path, \
     or * for all, without credentials"
)]
pub struct InvalidOrigin(String);

/// What a page of another site may send.
const ALLOWED_HEADERS: &str =
    "authorization, cache-control, last-event-id, x-requested-with, x-requestor";
/// The same of one that publishes.
const PUBLISHERS_HEADERS: &str = "authorization, content-type, idempotency-key";

impl Origins {
    /// Reads a list of origins.
    ///
    /// # Errors
    ///
    /// [`InvalidOrigin`] names the first that is none.
    pub fn parse(origins: &[String]) -> Result<Self, InvalidOrigin> {
        let (any, listed): (Vec<&String>, Vec<&String>) = origins.iter().partition(|o| *o == "*");
        let listed = listed.into_iter().map(|origin| parse(origin));
        Ok(Self {
            listed: listed.collect::<Result<_, _>>()?,
            any: !any.is_empty(),
        })
    }

    /// Whether none are let in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any && self.listed.is_empty()
    }

    /// Whether a request to `host` is of a page of some other site that is let in, but not listed: then
    /// nothing that it brings along says who it is.
    #[must_use]
    pub fn is_stranger(&self, headers: &HeaderMap, host: &str) -> bool {
        if !self.any || self.listed(headers).is_some() {
            return false;
        }
        headers.contains_key(header::ORIGIN) && !is_own(headers, host)
    }

    /// Whether a request to `host` is of a page that has no business here: of another site that is not let in, or
    /// of one that says nothing of itself. Whoever follows a link to here is not.
    #[must_use]
    pub fn is_foreign(&self, headers: &HeaderMap, host: &str) -> bool {
        let says = |name: &str, value: &[u8]| {
            let field = headers.get(name);
            field.is_some_and(|field| field.as_bytes().eq_ignore_ascii_case(value))
        };
        // A browser says that, and no page has it say so.
        let follows_a_link =
            says("sec-fetch-mode", b"navigate") && says("sec-fetch-dest", b"document");
        if says("sec-fetch-site", b"same-origin") || follows_a_link {
            return false;
        }
        if !headers.contains_key(header::ORIGIN) {
            return says("sec-fetch-site", b"cross-site");
        }
        !self.any && self.listed(headers).is_none() && !is_own(headers, host)
    }

    /// The fields that a reply to a page of a listed site has besides its own, where no others are let in.
    #[must_use]
    pub fn listed_fields(&self, headers: &HeaderMap) -> HeaderMap {
        let mut fields = HeaderMap::new();
        if !self.listed.is_empty() {
            fields.insert(header::VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(own) = self.listed(headers) {
            fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, own.clone());
        }
        fields
    }

    /// The fields that answer the preflight of a page that wants to publish. Its token is in a field of its own:
    /// cookies are not asked for.
    #[must_use]
    pub fn publish_preflight_fields(&self, headers: &HeaderMap) -> HeaderMap {
        let mut fields = self.listed_fields(headers);
        allow(&mut fields, "POST", PUBLISHERS_HEADERS);
        fields
    }

    /// The fields that a reply to a request with these headers has besides its own.
    #[must_use]
    pub fn reply_fields(&self, headers: &HeaderMap) -> HeaderMap {
        let mut fields = HeaderMap::new();
        if !self.any && self.listed.is_empty() {
            return fields;
        }
        // Also without a match: a cache must not give one site's answer to another.
        fields.insert(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(own) = self.listed(headers) {
            fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, own.clone());
            fields.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        } else if self.any {
            let all = HeaderValue::from_static("*");
            fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, all);
        }
        fields
    }

    /// The fields that answer a preflight.
    #[must_use]
    pub fn preflight_fields(&self, headers: &HeaderMap) -> HeaderMap {
        let mut fields = self.reply_fields(headers);
        allow(&mut fields, "GET, HEAD", ALLOWED_HEADERS);
        fields
    }

    /// The origin as it was configured, not as it was sent.
    fn listed(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        let mut sent = headers.get_all(header::ORIGIN).iter();
        let origin = sent.next()?;
        if sent.next().is_some() {
            return None;
        }
        self.listed.iter().find(|own| *own == origin)
    }
}

/// Whether each origin that a request names is that of `host`.
fn is_own(headers: &HeaderMap, host: &str) -> bool {
    let mut sent = headers.get_all(header::ORIGIN).iter();
    sent.all(|origin| {
        let host_of = origin.as_bytes().strip_prefix(b"https://");
        host_of.is_some_and(|of| of.eq_ignore_ascii_case(host.as_bytes()))
    })
}

/// Adds what the page that is let in may do.
fn allow(fields: &mut HeaderMap, methods: &'static str, headers: &'static str) {
    if !fields.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, headers),
        (header::ACCESS_CONTROL_MAX_AGE, "7200"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
}

fn parse(origin: &str) -> Result<HeaderValue, InvalidOrigin> {
    let wrong = || InvalidOrigin(origin.into());
    let host = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    let authority: http::uri::Authority = host.ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
    let plain = !authority.as_str().contains(['@', '*']) && !origin.contains(char::is_uppercase);
    if plain && !authority.host().is_empty() {
        origin.parse().map_err(|_| wrong())
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origin: &str) -> bool {
        let list = [
            "https://app.example".to_owned(),
            "http://localhost:3000".to_owned(),
        ];
        let origins = Origins::parse(&list).expect("origins");
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, origin.parse().expect("a value"));
        let fields = origins.reply_fields(&headers);
        assert_eq!(fields[header::VARY], "Origin");
        let allowed = fields.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        assert_eq!(
            allowed.is_some(),
            fields.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS)
        );
        allowed.is_some_and(|value| value == origin)
    }

    #[test]
    fn exactly_those_on_the_list() {
        assert!(allowed("https://app.example"));
        assert!(allowed("http://localhost:3000"));
        for other in [
            "null",
            "*",
            "https://app.example.",
            "https://APP.example",
            "HTTPS://app.example",
            "http://app.example",
            "https://app.example:443",
            "https://app.example:8443",
            "https://app.example/",
            "https://evil-app.example",
            "https://app.example.evil.example",
            "https://sub.app.example",
            "https://app.example@evil.example",
            "https://appxexample",
            "https://app.exampl",
            "app.example",
            "http://localhost",
            "http://localhost:3001",
            "http://127.0.0.1:3000",
            "http://localhost:3000, https://app.example",
            "file://",
        ] {
            assert!(!allowed(other), "{other}");
        }
    }

    #[test]
    fn all_others_are_strangers() {
        let list = ["*".to_owned(), "https://app.example".to_owned()];
        let origins = Origins::parse(&list).expect("origins");
        let asked = |sent: &[&str]| {
            let mut headers = HeaderMap::new();
            for origin in sent {
                headers.append(header::ORIGIN, origin.parse().expect("a value"));
            }
            let fields = origins.reply_fields(&headers);
            let allowed = fields[header::ACCESS_CONTROL_ALLOW_ORIGIN].clone();
            let credentials = fields.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
            assert_eq!(credentials, allowed != "*");
            (
                credentials,
                origins.is_stranger(&headers, "edge.example:8443"),
            )
        };
        assert_eq!(asked(&["https://app.example"]), (true, false));
        // Pages of the edge's own, and what is no page at all.
        assert_eq!(asked(&["https://edge.example:8443"]), (false, false));
        assert_eq!(asked(&[]), (false, false));
        for stranger in [
            &["https://other.example"][..],
            &["null"],
            &["https://edge.example"],
            &["http://edge.example:8443"],
            &["https://app.example", "https://other.example"],
            &["https://edge.example:8443", "https://other.example"],
        ] {
            assert_eq!(asked(stranger), (false, true), "{stranger:?}");
        }
        assert!(!Origins::default().is_stranger(&HeaderMap::new(), "x"));
    }

    #[test]
    fn no_wildcards_and_no_paths_in_the_configuration() {
        for wrong in [
            "**",
            "null",
            "app.example",
            "https://",
            "https://*.example",
            "https://a/b",
            "https://A.example",
            "https://u@a",
        ] {
            assert!(Origins::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
