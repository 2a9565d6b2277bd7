//! Where to connect, and how.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use rustls::{ClientConfig, HandshakeKind, client::Resumption, pki_types::ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::{
    error::{BoxError, CONNECT, ClientError, lost},
    tls::{self, Trust},
};
use crate::protocol::Protocol;

/// How long a connection may be quiet before the kernel asks whether the server is still there.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Origin {
    pub(super) host: String,
    port: u16,
    pub(super) secure: bool,
    /// Connect here, whatever the name resolves to.
    pub address: Option<SocketAddr>,
    /// Connect to this socket in the file system instead.
    socket: Option<PathBuf>,
    trust: Trust,
    /// Whether a session is resumed that an earlier connection had (RFC 8446, section 2.2).
    resumes: bool,
    /// How many connections over TCP resumed a session.
    resumed: Arc<AtomicUsize>,
    /// TLS settings for each protocol: roots are read and sessions kept once for all connections.
    tls: Arc<[OnceLock<Arc<ClientConfig>>; 3]>,
}

impl Origin {
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
            socket: None,
            trust,
            resumes: false,
            resumed: Arc::default(),
            tls: Arc::default(),
        })
    }

    /// The server that listens on a socket in the file system, without TLS.
    #[must_use]
    pub fn of_socket(path: PathBuf) -> Self {
        let url = Uri::from_static("http://localhost");
        let origin = Self::of(&url, Trust::System).expect("it is a URL");
        let socket = Some(path);
        Self { socket, ..origin }
    }

    /// The same server, to whom connections resume the session of an earlier one where they can.
    #[must_use]
    pub fn resuming(self) -> Self {
        Self {
            resumes: true,
            resumed: Arc::default(),
            tls: Arc::default(),
            ..self
        }
    }

    /// How many connections over TCP have resumed a session; `None` where there is none to resume. Of
    /// connections over QUIC nobody tells.
    #[must_use]
    pub fn resumed(&self) -> Option<usize> {
        let met = self.tls[Protocol::Http1 as usize].get().is_some()
            || self.tls[Protocol::Http2 as usize].get().is_some();
        met.then(|| self.resumed.load(Ordering::Relaxed))
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host and port, as they stand in a request.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(super) async fn resolve(&self) -> Result<Vec<SocketAddr>, ClientError> {
        if let Some(address) = self.address {
            return Ok(vec![address]);
        }
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        found
            .map(Iterator::collect)
            .map_err(|error| self.unreachable(error))
    }

    pub(super) fn unreachable(&self, source: impl Into<BoxError>) -> ClientError {
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

    /// TLS settings to speak `protocol` with it.
    pub(super) fn tls(&self, protocol: Protocol) -> Result<Arc<ClientConfig>, ClientError> {
        let kept = &self.tls[protocol as usize];
        if let Some(config) = kept.get() {
            return Ok(config.clone());
        }
        let mut config = tls::config(&self.trust, protocol.alpn())?;
        if !self.resumes {
            config.resumption = Resumption::disabled();
        }
        Ok(kept.get_or_init(|| Arc::new(config)).clone())
    }

    /// Connects in time.
    ///
    /// # Errors
    ///
    /// [`ClientError::Timeout`] when it takes too long, or what went wrong.
    pub fn in_time<T>(
        &self,
        connecting: impl Future<Output = Result<T, ClientError>>,
    ) -> impl Future<Output = Result<T, ClientError>> {
        // Boxed here, so that whoever waits does not hold it twice.
        let connected = tokio::time::timeout(CONNECT, Box::pin(connecting));
        async {
            connected
                .await
                .map_err(|_| ClientError::Timeout(self.authority()))?
        }
    }

    /// A TCP connection, with TLS that settles on `protocol` if the target is secure.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when nobody answers, or not in this protocol.
    pub async fn stream(&self, protocol: Protocol) -> Result<Box<dyn Stream>, ClientError> {
        if let Some(path) = &self.socket {
            let connected = UnixStream::connect(path).await;
            return match connected {
                Ok(stream) => Ok(Box::new(stream)),
                Err(source) => Err(ClientError::Connect {
                    host: format!("unix:{}", path.display()),
                    source: source.into(),
                }),
            };
        }
        let stream = self.tcp().await?;
        if !self.secure {
            return Ok(Box::new(stream));
        }
        let connector = TlsConnector::from(self.tls(protocol)?);
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|error| self.unreachable(error))?;
        let connected = connector.connect(name, stream).await;
        let stream = connected.map_err(|error| self.unreachable(error))?;
        if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, Ordering::Relaxed);
        }
        let spoken = stream.get_ref().1.alpn_protocol();
        // A server without ALPN speaks HTTP/1.1.
        if spoken == Some(protocol.alpn().as_bytes())
            || (spoken.is_none() && protocol == Protocol::Http1)
        {
            return Ok(Box::new(stream));
        }
        Err(ClientError::Protocol {
            host: self.authority(),
            protocol,
        })
    }
}

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
