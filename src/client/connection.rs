//! One connection, and the responses that come on it.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body::Frame;

use super::{
    error::{ClientError, lost},
    h1, h2, h3,
    target::Origin,
    upload::{Upload, full},
};
use crate::protocol::Protocol;

/// One connection. Over HTTP/2 and HTTP/3 it can be [shared](Self::share), and carries many requests at once.
#[derive(Debug)]
pub struct Connection {
    inner: Spoken,
    protocol: Protocol,
    authority: String,
    secure: bool,
}

#[derive(Debug)]
enum Spoken {
    Http1(h1::Http1),
    Http2(h2::Http2),
    Http3(h3::Http3),
}

impl Connection {
    /// Connects to `target`.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when nobody answers, or not in this protocol.
    pub async fn open(target: &Origin, protocol: Protocol) -> Result<Self, ClientError> {
        let connecting = async {
            Ok(match protocol {
                Protocol::Http1 => Spoken::Http1(h1::Http1::connect(target).await?),
                Protocol::Http2 => Spoken::Http2(h2::Http2::connect(target).await?),
                Protocol::Http3 => Spoken::Http3(h3::Http3::connect(target).await?),
            })
        };
        let inner = target.in_time(connecting).await?;
        Ok(Self {
            inner,
            protocol,
            authority: target.authority(),
            secure: target.secure,
        })
    }

    /// The same connection once more, for requests at the same time. HTTP/1.1 carries one at a time: `None`.
    #[must_use]
    pub fn share(&self) -> Option<Self> {
        let inner = match &self.inner {
            Spoken::Http1(_) => return None,
            Spoken::Http2(client) => Spoken::Http2(client.clone()),
            Spoken::Http3(client) => Spoken::Http3(client.clone()),
        };
        Some(Self {
            inner,
            protocol: self.protocol,
            authority: self.authority.clone(),
            secure: self.secure,
        })
    }

    /// Ends it, however often it is shared, and waits until the server has been told where the protocol takes a
    /// word for that.
    pub async fn close(self) {
        if let Spoken::Http3(client) = self.inner {
            client.close().await;
        }
    }

    /// The protocol it speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Sends a request, whose URI is a path, and returns its response once the head is there.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`] when the connection or the stream ends before that.
    pub async fn send(&mut self, mut request: Request<Upload>) -> Result<Response, ClientError> {
        let (head, body) = match &mut self.inner {
            Spoken::Http1(client) => {
                let host = self.authority.parse().map_err(lost)?;
                let headers = request.headers_mut();
                headers.entry(http::header::HOST).or_insert(host);
                let (head, body) = client.send(request).await?;
                (head, Incoming::Http1(body))
            }
            Spoken::Http2(client) => {
                let request = absolute(request, &self.authority, self.secure)?;
                let (head, body) = client.send(request).await?;
                (head, Incoming::Http2(body))
            }
            Spoken::Http3(client) => {
                let request = absolute(request, &self.authority, self.secure)?;
                let (head, body) = client.send(request).await?;
                (head, Incoming::Http3(body))
            }
        };
        Ok(Response {
            status: head.status,
            headers: head.headers,
            trailers: HeaderMap::new(),
            body,
        })
    }

    /// A GET of `path`.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn get(&mut self, path: &str) -> Result<Response, ClientError> {
        let request = Request::get(path).body(full(Bytes::new()));
        self.send(request.map_err(|_| ClientError::Url(path.into()))?)
            .await
    }
}

fn absolute(
    mut request: Request<Upload>,
    authority: &str,
    secure: bool,
) -> Result<Request<Upload>, ClientError> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let scheme = if secure { "https" } else { "http" };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build();
    *request.uri_mut() = uri.map_err(lost)?;
    Ok(request)
}

/// A response whose body is still coming.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The fields that came after the body, once it has ended.
    pub trailers: HeaderMap,
    body: Incoming,
}

enum Incoming {
    Http1(hyper::body::Incoming),
    Http2(::h2::RecvStream),
    Http3(h3::Http3Incoming),
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}

impl Response {
    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`] when it was cut off: a reset, or a connection that ended.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let frame = match &mut self.body {
            Incoming::Http1(body) => h1::frame(body).await?,
            Incoming::Http2(body) => h2::frame(body).await?,
            Incoming::Http3(body) => body.frame().await?,
        };
        Ok(match frame.map(Frame::into_data) {
            None => None,
            Some(Ok(data)) => Some(data),
            Some(Err(frame)) => {
                self.trailers = frame.into_trailers().unwrap_or_default();
                None
            }
        })
    }

    /// The whole body.
    ///
    /// # Errors
    ///
    /// As [`chunk`](Self::chunk).
    pub async fn bytes(&mut self) -> Result<Bytes, ClientError> {
        let mut whole = bytes::BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }
}
