//! A listener on a socket in the file system, for who shares the machine: no TLS, and whoever may open the file
//! may come.

use std::{
    fs::{Metadata, Permissions},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
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
    file: SocketFile,
    listener: Listener,
}

/// The file of a socket, which is removed when it is dropped, unless it is another's by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// The device, and the number of the file there.
    own: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let file = std::fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.into(),
            own: (file.dev(), file.ino()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = |file: Metadata| (file.dev(), file.ino()) == self.own;
        if std::fs::symlink_metadata(&self.path).is_ok_and(is_own) {
            let _: io::Result<()> = std::fs::remove_file(&self.path);
        }
    }
}

impl UnixListener {
    /// Binds `path`, to which whom `mode` lets may connect. A socket that nobody listens on any more is
    /// replaced.
    ///
    /// # Errors
    ///
    /// [`BindError`] names the path and what is in the way.
    pub(crate) fn bind(path: &Path, mode: u32, key: &'static str) -> Result<Self, BindError> {
        bind(path, mode).map_err(|source| BindError {
            key,
            at: path.display().to_string(),
            port: None,
            transport: "unix",
            source,
        })
    }

    /// Serves until the drain has ended.
    pub(crate) async fn serve(self, service: Service, metrics: Arc<NetMetrics>, drain: Watch) {
        let Self { file, listener } = self;
        let listening = Arc::new(Listening::plain(service, metrics, None));
        let mut connections = JoinSet::new();
        let mut draining = std::pin::pin!(drain.clone().draining());
        let mut failing = false;
        loop {
            // Each branch is cancel-safe.
            tokio::select! {
                () = &mut draining => break,
                Some(ended) = connections.join_next() => report_panic(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        failing = false;
                        connections.spawn(serve(stream, listening.clone(), drain.clone()));
                    }
                    Err(error) => {
                        listening.accept_failed();
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!("accepting pauses: {error}");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
        // Whoever comes from now on is told that nobody is there.
        drop((listener, file));
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    }
}

fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    look(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Under another name, until whoever finds it may connect, and does so to one who listens.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{:x}", std::process::id()));
    let beside = PathBuf::from(beside);
    socket.bind(&SockAddr::unix(&beside)?)?;
    let begun = SocketFile::of(&beside)?;
    std::fs::set_permissions(&beside, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    let listener = Listener::from_std(socket.into())?;
    std::fs::rename(&beside, path)?;
    let own = begun.own;
    drop(begun);
    let path = path.into();
    Ok(UnixListener {
        file: SocketFile { path, own },
        listener,
    })
}

/// Whether there is room for a socket: nothing, or one that a life before has left.
fn look(path: &Path) -> io::Result<()> {
    let there = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if !there.file_type().is_socket() {
        let what = "something that is no socket stands there: move it, or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
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
