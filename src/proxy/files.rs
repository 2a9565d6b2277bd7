//! The files of a directory.

use std::{io::ErrorKind, path::Path};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{
    HeaderName, HeaderValue, Request as HttpRequest, StatusCode, Uri, header, request::Parts,
    uri::PathAndQuery,
};
use http_body::Body as _;
use http_body_util::{BodyStream as Frames, Empty};
use tower_http::services::ServeDir;

use super::route::PathPattern;
use crate::exchange::{Body, Problem, Reply};

/// Serves the files of a directory, whose place is the route's path.
#[derive(Clone, Debug)]
pub(super) struct Files {
    directory: ServeDir,
    /// What the paths of its files begin with.
    stem: Box<str>,
}

impl Files {
    pub(super) fn new(directory: &Path, path: &PathPattern) -> Self {
        Self {
            directory: ServeDir::new(directory),
            stem: path.stem().into(),
        }
    }

    /// Answers with a file, its metadata, a part of it, or that it has not changed (RFC 9110 13, 14).
    pub(super) async fn answer(&self, parts: &Parts) -> Result<Reply, Problem> {
        let below = parts
            .uri
            .path()
            .strip_prefix(&*self.stem)
            .unwrap_or_default();
        if is_hidden(below) {
            return Err(none());
        }
        let target = if below.starts_with('/') { below } else { "/" };
        let target: PathAndQuery = target.parse().map_err(|_| none())?;
        let mut asked = HttpRequest::new(Empty::<Bytes>::new());
        *asked.method_mut() = parts.method.clone();
        *asked.uri_mut() = Uri::from(target);
        *asked.headers_mut() = parts.headers.clone();
        let found = self.directory.clone().try_call(asked).await;
        let found = found.map_err(|error| {
            if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
                tracing::warn!("a file cannot be read: {error}");
            }
            none()
        })?;
        let (head, body) = found.into_parts();
        let mut headers = head.headers;
        match head.status {
            StatusCode::NOT_FOUND => return Err(none()),
            StatusCode::METHOD_NOT_ALLOWED => {
                return Err(Problem::method(&parts.method, "GET, HEAD"));
            }
            _ => {}
        }
        if let Some(location) = headers.get_mut(header::LOCATION) {
            // To a directory, which the service knows without what stands before it.
            let whole = [self.stem.as_bytes(), location.as_bytes()].concat();
            *location = HeaderValue::from_bytes(&whole).unwrap_or(HeaderValue::from_static("/"));
        }
        let sniff = HeaderName::from_static("x-content-type-options");
        headers.insert(sniff, HeaderValue::from_static("nosniff"));
        let body = if body.is_end_stream() {
            Body::Full(Bytes::new())
        } else {
            let frames = Frames::new(body);
            Body::Stream(frames.map(|frame| frame.map_err(Into::into)).boxed())
        };
        Ok(Reply {
            status: head.status,
            headers,
            body,
            bitten: None,
        })
    }
}

fn none() -> Problem {
    Problem::not_found("there is no such file")
}

/// Whether a path names what is hidden, such as `.git` or `.env`; `.well-known` (RFC 8615) is not.
fn is_hidden(path: &str) -> bool {
    let plain = super::route::plain(path);
    plain
        .split('/')
        .any(|segment| segment.starts_with('.') && segment != ".well-known")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_are_hidden() {
        for path in ["/.git/config", "/a/.env", "/%2Egit", "/.well-known/.x"] {
            assert!(is_hidden(path), "{path}");
        }
        for path in [
            "/",
            "/a.b",
            "/.well-known/x",
            "/a/...b".trim_end_matches("...b"),
        ] {
            assert!(!is_hidden(path), "{path}");
        }
    }
}
