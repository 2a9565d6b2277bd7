//! TCP listeners: accepting, TLS, and choosing the driver.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol as SocketProtocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tracing::{Instrument as _, Span};

use super::{
    h1, h2,
    inherited::Inherited,
    listening::{Listening, canonical, connection_span, occupant, report_panic, until_ended},
    proxy_protocol,
    write_timeout::WriteTimeout,
};
use crate::{
    drain::Watch,
    exchange::Peer,
    limits::{Admitted, Occupant},
    protocol::Protocol,
};

/// How long accepting pauses when the system has no more files or memory to give, or the edge is late.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// How much the kernel may hold that it has not sent yet: the rest of a slow reader's backlog
/// stays in the ring.
const NOT_SENT_LOW_WATER: u32 = 32 << 10;
/// How much TLS may hold that the socket has not taken: two records, RFC 8446 5.1.
const TLS_BUFFER: usize = 32 << 10;
/// As many as the system lets wait (`net.core.somaxconn`): who comes to a full queue tries again after 1 s,
/// then 2, 4, 8.
pub(super) const BACKLOG: i32 = 65_535;
/// How many connections are accepted between two looks at how late the edge is.
const AT_ONCE: usize = 32;

/// The first bytes of HTTP/2 without TLS (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) fn bind(address: SocketAddr, inherited: &mut Inherited) -> io::Result<TcpListener> {
    if let Some(listener) = inherited.tcp(address)? {
        listener.set_nonblocking(true)?;
        return TcpListener::from_std(listener);
    }
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(SocketProtocol::TCP),
    )?;
    // A restart need not wait for the connections of the life before to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the drain, then waits for the last of them to end.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    listening: Arc<Listening>,
    drain: Watch,
) {
    let mut connections = JoinSet::new();
    let mut draining = std::pin::pin!(drain.clone().draining());
    let mut failing = false;
    let mut at_once = 0;
    loop {
        // Each branch is cancel-safe: accept and join_next lose nothing, draining is kept.
        tokio::select! {
            () = &mut draining => break,
            Some(ended) = connections.join_next() => report_panic(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    failing = false;
                    let remote = canonical(remote);
                    // Closed at once, a browser tries again later.
                    if let Some(admission) = listening.admit(remote.ip(), true) {
                        let come = Come { stream, remote, by: listening.first_request_by(), admission };
                        connections.spawn(arrive(come, tls.clone(), listening.clone(), drain.clone()));
                    }
                    at_once += 1;
                    if at_once >= AT_ONCE {
                        at_once = 0;
                        // Meanwhile they wait in the socket's queue.
                        if listening.is_late() {
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
                // The one who came has gone again: that says nothing about the next.
                Err(error) if is_of_the_connection(&error) => {}
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
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report_panic(ended);
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// A connection that was let in.
struct Come {
    stream: TcpStream,
    remote: SocketAddr,
    /// When it must have asked for something.
    by: Instant,
    admission: Option<Admitted>,
}

async fn arrive(mut come: Come, tls: Option<TlsAcceptor>, listening: Arc<Listening>, drain: Watch) {
    if listening.is_balancer(come.remote.ip()) {
        let (span, occupant) = (
            connection_span(come.remote),
            occupant(come.admission.as_ref()),
        );
        let passed_on = Box::pin(passed_on(come, &listening));
        let passed_on = until_ended(passed_on, occupant).instrument(span).await;
        let Some(Some(passed_on)) = passed_on else {
            return;
        };
        come = passed_on;
    }
    let (span, occupant) = (
        connection_span(come.remote),
        occupant(come.admission.as_ref()),
    );
    let served = serve(come, tls, listening, drain);
    let _: Option<()> = until_ended(served, occupant).instrument(span).await;
}

/// The connection as that of whom the balancer names, if there is room for that one.
async fn passed_on(mut come: Come, listening: &Listening) -> Option<Come> {
    let header = async {
        let header = proxy_protocol::read(&mut come.stream).await;
        header.inspect_err(tell_of_balancer)
    };
    let client = listening
        .in_time(come.by, "the PROXY protocol", header)
        .await?;
    if let Some(client) = client.map(canonical) {
        // The balancer's own place is given back first.
        drop(come.admission);
        come.remote = client;
        come.admission = listening.admit(client.ip(), true)?;
    }
    Some(come)
}

/// Says once that a balancer may be set up in another way than the edge is.
fn tell_of_balancer(error: &io::Error) {
    static TOLD: Once = Once::new();
    if error.kind() != io::ErrorKind::InvalidData {
        return;
    }
    TOLD.call_once(|| {
        tracing::warn!(
            "a connection from a network in trusted.proxy_protocol has no header of the PROXY protocol and is \
             closed, as all like it will be: {error}"
        );
    });
}

async fn serve(come: Come, tls: Option<TlsAcceptor>, listening: Arc<Listening>, drain: Watch) {
    let occupant = occupant(come.admission.as_ref());
    // It holds its place to the end.
    let Come {
        stream,
        remote,
        by,
        mut admission,
    } = come;
    let handshake_place = admission.as_mut().and_then(Admitted::take_handshake);
    let context = listening.context();
    if let Err(error) = tune(&stream, context.events.keepalive) {
        return tracing::debug!("connection lost at once: {error}");
    }
    let (stall, hits) = (context.limits.stall, context.hits.clone());
    // Boxed: a connection is to cost what its driver costs, not what the largest step does.
    let handshake = Box::pin(async {
        let mut listening = listening.clone();
        let mut tls = tls;
        if tls.is_some() && is_plain(&stream).await? {
            tls = None;
            if let Some(plain) = listening.without_tls() {
                listening = plain.clone();
            }
        }
        let io = WriteTimeout::new(stream, stall, hits, occupant.clone());
        let (io, http2) = match tls {
            Some(tls) => {
                let begun = tls.accept_with(io, |tls| tls.set_buffer_limit(Some(TLS_BUFFER)));
                let io = begun.await?;
                let http2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
                (Io::Tls(Box::new(io)), http2)
            }
            None => {
                let (io, http2) = prior_knowledge(io).await?;
                (Io::Plain(Box::new(io)), http2)
            }
        };
        io::Result::Ok((io, http2, listening))
    });
    let begun = listening.in_time(by, "handshake", handshake);
    let Some((io, http2, listening)) = begun.await else {
        return;
    };
    drop(handshake_place);
    let served = match io {
        Io::Tls(io) => http(io, http2, remote, occupant, by, listening, drain),
        Io::Plain(io) => http(io, http2, remote, occupant, by, listening, drain),
    };
    served.await;
}

/// A connection without TLS whose first bytes were read, and are read again.
pub(super) type Plain<T> = tokio::io::Join<
    tokio::io::Chain<io::Cursor<Vec<u8>>, tokio::io::ReadHalf<WriteTimeout<T>>>,
    tokio::io::WriteHalf<WriteTimeout<T>>,
>;

enum Io {
    Tls(Box<tokio_rustls::server::TlsStream<WriteTimeout<TcpStream>>>),
    Plain(Box<Plain<TcpStream>>),
}

/// Serves what has begun, by its driver.
pub(super) fn http<T>(
    io: T,
    http2: bool,
    remote: SocketAddr,
    occupant: Option<Arc<Occupant>>,
    by: Instant,
    listening: Arc<Listening>,
    drain: Watch,
) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let protocol = if http2 {
        Protocol::Http2
    } else {
        Protocol::Http1
    };
    Span::current().record("protocol", protocol.as_str());
    let peer: Peer = listening.peer(protocol, remote, occupant);
    if http2 {
        Box::pin(h2::serve(io, by, listening, peer, drain))
    } else {
        Box::pin(h1::serve(io, by, listening, peer, drain))
    }
}

/// Whether a client speaks HTTP where TLS is expected: a request begins with a letter, TLS with the type
/// of its record (RFC 8446 5.1).
async fn is_plain(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 1];
    let read = stream.peek(&mut first).await?;
    Ok(read == 1 && first[0].is_ascii_uppercase())
}

/// Tells HTTP/2 with prior knowledge from HTTP/1.1 by the first bytes.
pub(super) async fn prior_knowledge<T>(mut io: WriteTimeout<T>) -> io::Result<(Plain<T>, bool)>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let mut byte = [0; 1];
        if io.read(&mut byte).await? == 0 {
            break;
        }
        first.push(byte[0]);
    }
    let http2 = first == PREFACE;
    let (read, write) = tokio::io::split(io);
    let io = tokio::io::join(io::Cursor::new(first).chain(read), write);
    Ok((io, http2))
}

/// A client that vanished is gone within two keepalives: the kernel gives up on one that acknowledges
/// nothing for that long, and asks one whether it is still there to which nothing was sent.
fn tune(stream: &TcpStream, keepalive: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let second = Duration::from_secs(1);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(keepalive.max(second))
            .with_interval((keepalive / 3).max(second))
            .with_retries(2),
    )?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(keepalive.max(second)))?;
        socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)?;
    }
    Ok(())
}
