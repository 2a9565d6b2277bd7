//! What stands before the control listener.

use std::net::{Ipv4Addr, SocketAddr};

use http::{HeaderValue, header, request::Parts};

use crate::{
    access::{Denied, Token, bearer},
    exchange::{Named, Problem, authority},
    service::routes::{HEALTH, METRICS, READY},
};

/// What stands before the control listener: web pages are kept out, and whoever lacks the token.
///
/// A page could otherwise post to it across sites, or reach it through a name that its own DNS
/// points at loopback.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The names under which it is the listener's own, besides `hosts`; any, if there are none of either.
    own: Vec<String>,
    /// Those that are configured, on any port where none is said.
    hosts: Vec<String>,
    /// It is beyond loopback, where it has addresses that nobody here knows.
    is_open: bool,
    token: Option<Token>,
    /// Of whoever may read the metrics.
    metrics_token: Option<Token>,
}

impl Gate {
    /// The gate of a listener bound to `address`, or to a socket in the file system. Beyond loopback any name
    /// is its own unless some are configured, as the edge cannot know how it is reached; the token is what keeps
    /// strangers out there. No page reaches a socket in the file system.
    #[must_use]
    pub(crate) fn new(address: Option<SocketAddr>, hosts: &[String]) -> Self {
        let mut own = Vec::new();
        if let Some(address) = address
            && (address.ip().is_loopback() || !hosts.is_empty())
        {
            let port = address.port();
            own.extend([address.to_string(), format!("localhost:{port}")]);
            if port == 80 {
                own.extend([address.ip().to_string(), "localhost".into()]);
            }
        }
        Self {
            own,
            hosts: hosts.to_vec(),
            is_open: address.is_some_and(|address| !address.ip().is_loopback()),
            token: None,
            metrics_token: None,
        }
    }

    /// The same, which lets nobody through without one of these.
    #[must_use]
    pub(crate) fn with_tokens(self, token: Option<Token>, metrics_token: Option<Token>) -> Self {
        Self {
            token,
            metrics_token,
            ..self
        }
    }

    /// Whether a request to this name is to the listener.
    fn goes_by(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        // No page of another's comes under an address: it takes a name to point elsewhere.
        let is_address = name.parse::<Ipv4Addr>().is_ok() || name.starts_with('[');
        let is = |own: &String| own.eq_ignore_ascii_case(host);
        let is_on_any_port = |own: &String| own.eq_ignore_ascii_case(name);
        (self.own.is_empty() && self.hosts.is_empty())
            || (self.is_open && is_address)
            || self.own.iter().any(is)
            || self.hosts.iter().any(|own| is(own) || is_on_any_port(own))
    }

    /// Whether a request may come through.
    pub(in crate::service) fn check(&self, parts: &Parts) -> Result<(), Problem> {
        let host = authority(parts);
        if !self.goes_by(host) {
            let own = [self.own.as_slice(), &self.hosts].concat().join(" or ");
            let detail = format!("the control listener goes by {own} only (control.hosts)");
            let problem = Problem::field("host", host, detail).forbidden();
            return Err(problem.named(Named::HostUnknown));
        }
        let origin = parts.headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
        if origin
            .is_some_and(|origin| !origin.eq_ignore_ascii_case(format!("http://{host}").as_bytes()))
        {
            let detail = "web pages may not reach the control listener";
            let problem = Problem::field("origin", "", detail).forbidden();
            return Err(problem.named(Named::OriginForeign));
        }
        let site = parts
            .headers
            .get("sec-fetch-site")
            .map(HeaderValue::as_bytes);
        if !matches!(site, None | Some(b"same-origin" | b"none")) {
            let detail = "web pages of other sites may not reach the control listener";
            let problem = Problem::field("sec-fetch-site", "", detail).forbidden();
            return Err(problem.named(Named::OriginForeign));
        }
        // Whoever probes the edge's health needs no secret.
        let path = parts.uri.path();
        match &self.token {
            Some(token) if ![HEALTH, READY].contains(&path) => {
                let is_metrics = path == METRICS;
                let metrics_token = self.metrics_token.as_ref().filter(|_| is_metrics);
                check_tokens([Some(token), metrics_token], parts)
            }
            _ => Ok(()),
        }
    }
}

fn check_tokens(tokens: [Option<&Token>; 2], parts: &Parts) -> Result<(), Problem> {
    const TAKES: &str =
        "this takes `Authorization: Bearer` with the control.token of the configuration";
    let given = bearer(&parts.headers)?.ok_or(Denied::Unauthorized(TAKES))?;
    let good = tokens.into_iter().flatten();
    if good.fold(false, |found, token| found | token.is(&given)) {
        return Ok(());
    }
    Err(Denied::BadCredential("the token is not the control.token of the configuration").into())
}
