//! What stands before the control listener.

use std::net::SocketAddr;

use http::{HeaderValue, StatusCode, header, request::Parts};

use crate::{
    access::Token,
    exchange::{Problem, authority},
    service::routes::{HEALTH, READY},
};

/// What stands before the control listener: web pages are kept out, and whoever lacks the token.
///
/// A page could otherwise post to it across sites, or reach it through a name that its own DNS
/// points at loopback.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The names under which it is the listener's own.
    hosts: Vec<String>,
    token: Option<Token>,
}

impl Gate {
    /// The gate of a listener bound to `address`. Beyond loopback any name is its own, as the
    /// edge cannot know how it is reached; the token is what keeps strangers out there.
    #[must_use]
    pub(crate) fn new(address: SocketAddr, token: Option<Token>) -> Self {
        let port = address.port();
        let mut hosts = Vec::new();
        if address.ip().is_loopback() {
            hosts.extend([address.to_string(), format!("localhost:{port}")]);
            if port == 80 {
                hosts.extend([address.ip().to_string(), "localhost".into()]);
            }
        }
        Self { hosts, token }
    }

    /// Whether a request may come through.
    pub(in crate::service) fn check(&self, parts: &Parts) -> Result<(), Problem> {
        let host = authority(parts);
        if !self.hosts.is_empty() && !self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) {
            let own = self.hosts.join(" or ");
            let detail = format!("the control listener goes by {own} only");
            return Err(Problem::field("host", host, detail).forbidden());
        }
        let origin = parts.headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
        if origin
            .is_some_and(|origin| !origin.eq_ignore_ascii_case(format!("http://{host}").as_bytes()))
        {
            let detail = "web pages may not reach the control listener";
            return Err(Problem::field("origin", "", detail).forbidden());
        }
        let site = parts
            .headers
            .get("sec-fetch-site")
            .map(HeaderValue::as_bytes);
        if !matches!(site, None | Some(b"same-origin" | b"none")) {
            let detail = "web pages of other sites may not reach the control listener";
            return Err(Problem::field("sec-fetch-site", "", detail).forbidden());
        }
        // Whoever probes the edge's health needs no secret.
        let probes = [HEALTH, READY].contains(&parts.uri.path());
        match &self.token {
            Some(token) if !probes => check_token(token, parts),
            _ => Ok(()),
        }
    }
}

fn check_token(token: &Token, parts: &Parts) -> Result<(), Problem> {
    let given = parts
        .headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    let given = given.and_then(|value| value.split_at_checked(7));
    match given {
        Some((scheme, given))
            if scheme.eq_ignore_ascii_case(b"bearer ")
                && std::str::from_utf8(given).is_ok_and(|given| token.is(given)) =>
        {
            Ok(())
        }
        _ => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "this takes `Authorization: Bearer` with the control.token of the configuration",
        )
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
    }
}
