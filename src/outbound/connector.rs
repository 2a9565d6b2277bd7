//! Connecting to where an app listens: a host, or a socket in the file system.

use std::{
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::net::{TcpStream, UnixStream};
use tower_service::Service;

use super::address::Address;

/// Connects to hosts, or to one socket in the file system.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    http: HttpConnector,
    socket: Option<Arc<Path>>,
    within: Duration,
}

impl Connector {
    /// To the hosts that are asked for.
    pub(super) fn to_hosts(within: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(within));
        Self {
            http,
            socket: None,
            within,
        }
    }

    /// To where an app listens.
    pub(super) fn to(address: &Address, within: Duration) -> Self {
        Self {
            socket: address.socket.as_deref().map(Arc::from),
            ..Self::to_hosts(within)
        }
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Io>> + Send>>;

impl Service<Uri> for Connector {
    type Response = Io;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.http.poll_ready(cx).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let within = self.within;
        if let Some(path) = self.socket.clone() {
            return Box::pin(async move {
                let connected = tokio::time::timeout(within, UnixStream::connect(path)).await;
                Ok(Io::Unix(TokioIo::new(connected??)))
            });
        }
        let connected = self.http.call(uri);
        // Looking up a host's name counts too.
        Box::pin(async move {
            let connected = tokio::time::timeout(within, connected).await?;
            connected.map(Io::Tcp).map_err(io::Error::other)
        })
    }
}

/// A connection to an app.
#[derive(Debug)]
pub(super) enum Io {
    Tcp(TokioIo<TcpStream>),
    Unix(TokioIo<UnixStream>),
}

impl Connection for Io {
    fn connected(&self) -> Connected {
        match self {
            Self::Tcp(io) => io.connected(),
            Self::Unix(io) => io.connected(),
        }
    }
}

/// Does the same with either.
macro_rules! either {
    ($io:expr, $method:ident($($argument:expr),*)) => {
        match $io.get_mut() {
            Io::Tcp(io) => Pin::new(io).$method($($argument),*),
            Io::Unix(io) => Pin::new(io).$method($($argument),*),
        }
    };
}

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read(cx, buf))
    }
}

impl Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write_vectored(cx, bufs))
    }
}
