//! Sockets that whoever started the process has bound for it, so that a restart turns nobody away
//! (`LISTEN_FDS` of systemd's socket activation, sd_listen_fds(3)).

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use listenfd::ListenFd;
use thiserror::Error;

/// Sockets that are bound already, until a listener takes them for its own.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    tcp: Vec<(SocketAddr, TcpListener)>,
    udp: Vec<(SocketAddr, UdpSocket)>,
}

/// What is wrong with what was passed.
#[derive(Debug, Error)]
pub enum InheritedError {
    /// It is no socket that a listener can use.
    #[error(
        "LISTEN_FDS: socket {number} of {all} cannot be used: {source}; pass TCP (ListenStream) and UDP \
         (ListenDatagram) sockets"
    )]
    Unusable {
        number: usize,
        all: usize,
        #[source]
        source: io::Error,
    },
    /// No listener is configured for it: it would take connections that nobody serves.
    #[error(
        "LISTEN_FDS: a socket on {address} was passed over {transport}, and nothing listens there over {transport}; \
         add it to https.listen, http.listen or control.listen, or do not pass it"
    )]
    Unwanted {
        address: SocketAddr,
        transport: &'static str,
    },
}

impl Inherited {
    /// What was passed to this process, which it is told by its environment. To be called once, before
    /// there are other threads.
    ///
    /// # Errors
    ///
    /// [`InheritedError::Unusable`] for one that is neither TCP nor UDP.
    pub(crate) fn from_environment() -> Result<Self, InheritedError> {
        let mut passed = ListenFd::from_env();
        let all = passed.len();
        let mut inherited = Self::default();
        for index in 0..all {
            inherited
                .add(&mut passed, index)
                .map_err(|source| InheritedError::Unusable {
                    number: index + 1,
                    all,
                    source,
                })?;
        }
        Ok(inherited)
    }

    fn add(&mut self, passed: &mut ListenFd, index: usize) -> io::Result<()> {
        // One that is no TCP listener stays where it is.
        if let Ok(Some(socket)) = passed.take_tcp_listener(index) {
            self.tcp.push((socket.local_addr()?, socket));
        } else if let Some(socket) = passed.take_udp_socket(index)? {
            self.udp.push((socket.local_addr()?, socket));
        }
        Ok(())
    }

    /// The one bound to `address` over TCP.
    ///
    /// # Errors
    ///
    /// When there is none, but one that is in the way.
    pub(super) fn tcp(&mut self, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        take(&mut self.tcp, address)
    }

    /// The one bound to `address` over UDP.
    ///
    /// # Errors
    ///
    /// When there is none, but one that is in the way.
    pub(super) fn udp(&mut self, address: SocketAddr) -> io::Result<Option<UdpSocket>> {
        take(&mut self.udp, address)
    }

    /// To be called once every listener has taken its own.
    ///
    /// # Errors
    ///
    /// [`InheritedError::Unwanted`] when one is left.
    pub(crate) fn finish(self) -> Result<(), InheritedError> {
        let tcp = self.tcp.iter().map(|(address, _)| (*address, "TCP"));
        let udp = self.udp.iter().map(|(address, _)| (*address, "UDP"));
        match tcp.chain(udp).next() {
            Some((address, transport)) => Err(InheritedError::Unwanted { address, transport }),
            None => Ok(()),
        }
    }
}

fn take<T>(sockets: &mut Vec<(SocketAddr, T)>, address: SocketAddr) -> io::Result<Option<T>> {
    if let Some(at) = sockets.iter().position(|(bound, _)| *bound == address) {
        return Ok(Some(sockets.swap_remove(at).1));
    }
    // systemd's `ListenStream=443` is [::]:443, which takes what comes over IPv4 too.
    let takes_all = |bound: &SocketAddr| bound.ip().is_unspecified() && bound.ip() != address.ip();
    let mut others = sockets.iter().map(|(bound, _)| bound);
    match others.find(|bound| bound.port() == address.port() && takes_all(bound)) {
        Some(bound) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "a socket on {bound} was passed (LISTEN_FDS), which may take what comes here; listen on {bound}, or \
                 pass one on {address}"
            ),
        )),
        None => Ok(None),
    }
}
