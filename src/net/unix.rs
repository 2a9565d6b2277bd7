//! A listener on a socket in the file system, for who shares the machine: no TLS, and whoever may open the file
//! may come.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    net::{UnixListener as Listener, UnixStream},
    task::JoinSet,
};
use tracing::Instrument as _;

use super::{
    listener::BindError,
    listening::{Listening, connection_span, report_panic},
    metrics::NetMetrics,
    tcp::{self, BACKLOG, PAUSE},
    write_timeout::WriteTimeout,
};
use crate::{drain::Watch, service::Service};

/// A listener on a socket in the file system, which goes when it does.
#[derive(Debug)]
pub(crate) struct UnixListener {
    path: PathBuf,
    listener: Listener,
}

impl UnixListener {
    /// Binds `path`, to which whom `mode` lets may connect. A socket that nobody listens on any more is
    /// replaced.
    ///
    /// # Errors
    ///
    /// [`BindError`] names the path and what is in the way.
    pub(crate) fn bind(path: &Path, mode: u32, key: &'static str) -> Result<Self, BindError> {
        let bound = bind(path, mode).map_err(|source| BindError {
            key,
            at: path.display().to_string(),
            port: None,
            transport: "unix",
            source,
        })?;
        Ok(Self {
            path: path.into(),
            listener: bound,
        })
    }

    /// Serves until the drain has ended.
    pub(crate) async fn serve(self, service: Service, metrics: Arc<NetMetrics>, drain: Watch) {
        let listening = Arc::new(Listening::plain(service, metrics, None));
        let mut connections = JoinSet::new();
        let mut draining = std::pin::pin!(drain.clone().draining());
        loop {
            // Each branch is cancel-safe.
            tokio::select! {
                () = &mut draining => break,
                Some(ended) = connections.join_next() => report_panic(ended),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve(stream, listening.clone(), drain.clone()));
                    }
                    Err(error) => {
                        listening.accept_failed();
                        tracing::warn!("accepting pauses: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    }
}

impl Drop for UnixListener {
    fn drop(&mut self) {
        // Whoever comes from now on is told that nobody is there.
        let _: io::Result<()> = std::fs::remove_file(&self.path);
    }
}

fn bind(path: &Path, mode: u32) -> io::Result<Listener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left(path) => {
            std::fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    // Nobody can connect before it listens.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Listener::from_std(socket.into())
}

/// Whether a socket was left there by a life before.
fn is_left(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = StdUnixStream::connect(path).err();
    // What is no socket refuses too.
    is_socket && refused.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

async fn serve(stream: UnixStream, listening: Arc<Listening>, drain: Watch) {
    // It has no address, and is as near as can be.
    let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let served = async {
        let context = listening.context();
        let (stall, hits) = (context.limits.stall, context.hits.clone());
        let by = listening.first_request_by();
        let io = WriteTimeout::new(stream, stall, hits, None);
        let begun = listening.in_time(by, "handshake", tcp::prior_knowledge(io));
        let Some((io, http2)) = Box::pin(begun).await else {
            return;
        };
        tcp::http(io, http2, remote, None, by, listening.clone(), drain).await;
    };
    served.instrument(connection_span(remote)).await;
}
