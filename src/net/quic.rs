//! QUIC endpoints: binding and accepting.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::QuicServerConfig,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::{
    h3::{self, var_int},
    inherited::Inherited,
    listening::{Listening, canonical, connection_span, occupant, report_panic, until_ended},
};
use crate::{
    drain::Watch,
    limits::{Admitted, Slot},
    protocol::Protocol,
    service::Context,
    tls::Secret,
};

/// What a connection may have in flight or waiting in quinn: the slow-reader bound of QUIC.
const SEND_WINDOW: u64 = 256 << 10;
/// How much a request's body may run ahead of its reader, a stream and a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Control and QPACK streams, and what browsers add to test servers.
const UNIDIRECTIONAL_STREAMS: u32 = 16;
/// One socket carries every connection.
const SOCKET_BUFFER: usize = 4 << 20;
/// How long to wait between two resets: after a crash thousands of clients are to be told, and quinn
/// has one time for all packets that it reads in one go, so that with any pause it would answer one of
/// them. A reset is smaller than the packet that it answers, and costs less than a handshake.
const RESET_INTERVAL: Duration = Duration::ZERO;
/// The longest time between two pings: browsers give up a connection that is silent for 30 s.
const PING: Duration = Duration::from_secs(20);
/// How long the last packets of an endpoint may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Binds an endpoint.
pub(super) fn bind(
    address: SocketAddr,
    tls: rustls::ServerConfig,
    secret: &Secret,
    context: &Context,
    inherited: &mut Inherited,
) -> io::Result<Endpoint> {
    let socket = match inherited.udp(address)? {
        Some(socket) => socket.into(),
        None => bound(address)?,
    };
    socket.set_nonblocking(true)?;
    // The system gives what it may; less only means more loss under load.
    let _: io::Result<()> = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _: io::Result<()> = socket.set_send_buffer_size(SOCKET_BUFFER);
    let crypto = QuicServerConfig::try_from(tls).expect("TLS 1.3 has the initial cipher suite");
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport(context)));
    Endpoint::new(
        endpoint_config(address, secret),
        Some(config),
        socket.into(),
        Arc::new(TokioRuntime),
    )
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(SocketProtocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// An endpoint that knows the connections of the one before it, so that their clients are told of
/// its end (RFC 9000 10.3) rather than wait until they have heard nothing for long.
///
/// Edges that share a certificate must not share the key, or one could end the connections of
/// another (RFC 9000 21.11): it is also that of this address and this machine.
fn endpoint_config(address: SocketAddr, secret: &Secret) -> EndpointConfig {
    let (address, machine) = (address.to_string(), machine_id());
    let purpose = |name: &'static [u8]| [name, address.as_bytes(), machine.as_slice()];
    let key: [u8; 32] = secret.derive(&purpose(b"quic stateless reset"));
    let ids: [u8; 8] = secret.derive(&purpose(b"quic connection ids"));
    let ids = u64::from_be_bytes(ids);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &key)));
    config
        // With a key of its own this one would drop packets for the ids of the one before.
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)))
        .min_reset_interval(RESET_INTERVAL);
    config
}

/// What tells this machine from others; nothing where the system does not say.
fn machine_id() -> Vec<u8> {
    let files = [
        "/etc/machine-id",
        "/var/lib/dbus/machine-id",
        "/proc/sys/kernel/hostname",
    ];
    let found = files.iter().find_map(|file| std::fs::read(file).ok());
    found.unwrap_or_default()
}

fn transport(context: &Context) -> TransportConfig {
    let keepalive = context.events.keepalive;
    let ping = (keepalive * 4 / 3).min(PING);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(var_int(h3::FIRST_GRANT as u64))
        .max_concurrent_uni_streams(UNIDIRECTIONAL_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        // A client that vanished is gone within three keepalives. One that is there acknowledges the
        // keepalives of its streams, or answers a ping where there are none.
        .max_idle_timeout(Some(idle_timeout(2 * ping)))
        .keep_alive_interval(Some(ping));
    transport
}

fn idle_timeout(after: Duration) -> IdleTimeout {
    let millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
    VarInt::from_u32(millis).into()
}

/// Accepts connections until the drain, then waits for the last of them to end.
pub(super) async fn accept(endpoint: Endpoint, listening: Arc<Listening>, drain: Watch) {
    let mut connections = JoinSet::new();
    let mut draining = std::pin::pin!(drain.clone().draining());
    loop {
        // Each branch is cancel-safe: accept and join_next lose nothing, draining is kept.
        tokio::select! {
            () = &mut draining => break,
            Some(ended) = connections.join_next() => report_panic(ended),
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                // Under a flood of handshakes whoever comes must show that its address is its own.
                let validated = !incoming.may_retry();
                let Some(handshake) = listening.begin_handshake(validated) else {
                    // An error means that it is validated, which it would not be asked for then.
                    let _: Result<_, _> = incoming.retry();
                    continue;
                };
                let remote = canonical(incoming.remote_address());
                let address = remote.ip();
                let Some(admission) = listening.admit(address, validated) else {
                    if validated {
                        incoming.refuse();
                    } else {
                        let _: Result<_, _> = incoming.retry();
                    }
                    continue;
                };
                let span = connection_span(remote);
                span.record("protocol", Protocol::Http3.as_str());
                let occupant = occupant(admission.as_ref());
                let come = Come { incoming, validated, admission, handshake };
                let served = serve(come, listening.clone(), drain.clone());
                let served = until_ended(served, occupant);
                connections.spawn(async move {
                    let _: Option<()> = served.instrument(span).await;
                });
            }
        }
    }
    endpoint.set_server_config(None);
    while let Some(ended) = connections.join_next().await {
        report_panic(ended);
    }
    endpoint.close(VarInt::from_u32(0), b"");
    let _: Result<_, _> = tokio::time::timeout(GOODBYE, endpoint.wait_idle()).await;
}

/// A connection that was let in.
struct Come {
    incoming: quinn::Incoming,
    /// Whether its address is its own.
    validated: bool,
    admission: Option<Admitted>,
    /// A place among those whose handshake is under way.
    handshake: Slot,
}

async fn serve(come: Come, listening: Arc<Listening>, drain: Watch) {
    // It holds its place to the end.
    let Come {
        incoming,
        validated,
        mut admission,
        handshake,
    } = come;
    let place = admission.as_mut().and_then(Admitted::take_handshake);
    let occupant = occupant(admission.as_ref());
    let by = listening.first_request_by();
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return tracing::debug!("QUIC handshake failed: {error}"),
    };
    let connected = listening.in_time(by, "QUIC handshake", connecting).await;
    drop((handshake, place));
    if let Some(connection) = connected {
        let remote = canonical(connection.remote_address());
        if !validated {
            listening.validated(remote.ip());
        }
        let peer = listening.peer(Protocol::Http3, remote, occupant);
        // Boxed: a connection is to cost what its driver costs, not what the largest step does.
        Box::pin(h3::serve(connection, by, listening.clone(), peer, drain)).await;
    }
}
