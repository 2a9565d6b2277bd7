//! A client over HTTP/1.1, HTTP/2 and HTTP/3 with one face, for the commands, the load harness
//! and the tests. It knows the wire, not the server's code.

mod event_source;
mod h1;
mod h2;
mod h3;
mod tls;

use std::{convert::Infallible, fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

pub use crate::protocol::Protocol;
pub use event_source::{EventSource, Signal};
pub use tls::Trust;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection may be quiet before the kernel asks whether the server is still there.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A request's body.
pub type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is known.
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).boxed_unsync()
}

/// Why there is no response, or no more of it.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The URL is not one that can be asked.
    #[error("{0} is not a URL of the form https://host[:port]/path")]
    Url(String),
    /// The name is not known, or nobody listens there.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        source: BoxError,
    },
    /// Connecting took too long.
    #[error("cannot connect to {0}: no answer in {seconds} s", seconds = CONNECT.as_secs())]
    Timeout(String),
    /// The server does not speak the protocol that was asked for.
    #[error("{host} does not speak {protocol}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What was asked for.
        protocol: Protocol,
    },
    /// A certificate file cannot be used.
    #[error("{path}: {reason}")]
    Trust {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection or the stream was lost.
    #[error("connection lost: {0}")]
    Lost(#[source] BoxError),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn lost(error: impl Into<BoxError>) -> ClientError {
    ClientError::Lost(error.into())
}

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Target {
    host: String,
    port: u16,
    secure: bool,
    /// Connect here, whatever the name resolves to.
    pub address: Option<SocketAddr>,
    /// Who may vouch for the server.
    pub trust: Trust,
}

impl Target {
    /// The server of a URL. `https` is TLS; `http` is none, for the control listener.
    ///
    /// # Errors
    ///
    /// [`ClientError::Url`] for anything else.
    pub fn of(url: &Uri, trust: Trust) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(url.to_string());
        let secure = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = url.host().ok_or_else(wrong)?;
        Ok(Self {
            host: host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: url.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            secure,
            address: None,
            trust,
        })
    }

    /// Host and port, as they stand in a request.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, ClientError> {
        if let Some(address) = self.address {
            return Ok(vec![address]);
        }
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        found
            .map(Iterator::collect)
            .map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, source: impl Into<BoxError>) -> ClientError {
        ClientError::Connect {
            host: self.authority(),
            source: source.into(),
        }
    }

    async fn tcp(&self) -> Result<TcpStream, ClientError> {
        let addresses = self.resolve().await?;
        let stream = TcpStream::connect(&addresses[..])
            .await
            .map_err(|error| self.unreachable(error))?;
        stream.set_nodelay(true).map_err(lost)?;
        // A server that vanished is noticed, though nothing is sent.
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE);
        SockRef::from(&stream)
            .set_tcp_keepalive(&keepalive)
            .map_err(lost)?;
        Ok(stream)
    }

    /// A TCP connection, with TLS that settles on `alpn` if the target is secure.
    async fn stream(
        &self,
        protocol: Protocol,
        alpn: &[u8],
    ) -> Result<Box<dyn Stream>, ClientError> {
        let stream = self.tcp().await?;
        if !self.secure {
            return Ok(Box::new(stream));
        }
        let stream = tls::connect(self, stream, alpn).await?;
        let spoken = stream.get_ref().1.alpn_protocol();
        // A server without ALPN speaks HTTP/1.1.
        if spoken == Some(alpn) || (spoken.is_none() && protocol == Protocol::Http1) {
            return Ok(Box::new(stream));
        }
        Err(ClientError::Protocol {
            host: self.authority(),
            protocol,
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One connection. Over HTTP/2 and HTTP/3 it can be cloned, and carries many requests at once.
#[derive(Debug)]
pub struct Connection {
    inner: Inner,
    protocol: Protocol,
    authority: String,
    secure: bool,
}

#[derive(Debug)]
enum Inner {
    Http1(h1::Client),
    Http2(h2::Client),
    Http3(h3::Client),
}

impl Connection {
    /// Connects to `target`.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when nobody answers, or not in this protocol.
    pub async fn open(target: &Target, protocol: Protocol) -> Result<Self, ClientError> {
        let connecting = async {
            Ok(match protocol {
                Protocol::Http1 => Inner::Http1(h1::Client::connect(target).await?),
                Protocol::Http2 => Inner::Http2(h2::Client::connect(target).await?),
                Protocol::Http3 => Inner::Http3(h3::Client::connect(target).await?),
            })
        };
        let inner = tokio::time::timeout(CONNECT, connecting)
            .await
            .map_err(|_| ClientError::Timeout(target.authority()))??;
        Ok(Self {
            inner,
            protocol,
            authority: target.authority(),
            secure: target.secure,
        })
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
    pub async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response, ClientError> {
        let (head, body) = match &mut self.inner {
            Inner::Http1(client) => {
                let host = self.authority.parse().map_err(lost)?;
                request
                    .headers_mut()
                    .entry(http::header::HOST)
                    .or_insert(host);
                client.send(request).await?
            }
            Inner::Http2(client) => {
                client
                    .send(absolute(request, &self.authority, self.secure)?)
                    .await?
            }
            Inner::Http3(client) => {
                client
                    .send(absolute(request, &self.authority, self.secure)?)
                    .await?
            }
        };
        Ok(Response {
            status: head.status,
            headers: head.headers,
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
    mut request: Request<RequestBody>,
    authority: &str,
    secure: bool,
) -> Result<Request<RequestBody>, ClientError> {
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
    body: Body,
}

enum Body {
    Http1(hyper::body::Incoming),
    Http2(::h2::RecvStream),
    Http3(h3::Body),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl Response {
    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`] when it was cut off: a reset, or a connection that ended.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        match &mut self.body {
            Body::Http1(body) => h1::chunk(body).await,
            Body::Http2(body) => h2::chunk(body).await,
            Body::Http3(body) => body.chunk().await,
        }
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
