//! Listeners: what is bound, and what the connections of one share.

use std::{io, net::SocketAddr, sync::Arc};

use http::HeaderValue;
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{Metrics, quic, report_panic, tcp};
use crate::{
    drain::Watch,
    exchange::Peer,
    hub::mailbox::Mailbox,
    limits::{Admission, Bound, HEADROOM, HTTP1_STREAMS, Slot, Slots},
    metrics::OpenGuard,
    protocol::Protocol,
    service::{Context, Service},
    tls::Resolver,
};

/// How often another port is tried when the one that the system gave for TCP is taken for UDP.
const PORT_TRIES: usize = 16;

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
#[error("{key}: cannot listen on {address} ({transport}): {source}{}", remedy(.source, *.address))]
pub struct BindError {
    /// The configuration key.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// `TCP` or `UDP`
    pub transport: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

fn remedy(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has the port: end it, or choose another port".into(),
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            "; ports below 1024 take the CAP_NET_BIND_SERVICE capability: grant it, or choose a higher port".into()
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address".into(),
        _ => String::new(),
    }
}

/// What the connections of a listener share.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) service: Service,
    /// What the public listeners count; nothing of the control listener, whose connections are the
    /// operator's own.
    metrics: Option<Arc<Metrics>>,
    alt_svc: Option<HeaderValue>,
    /// Shared by all public listeners; `None` for the control listener, which stays reachable.
    admission: Option<Arc<Admission>>,
}

impl Listening {
    pub(super) fn context(&self) -> &Arc<Context> {
        self.service.context()
    }

    /// Counts a connection while the guard lives.
    pub(super) fn open(&self, protocol: Protocol) -> Option<OpenGuard> {
        let metrics = self.metrics.as_ref()?;
        Some(metrics.connections.guard(protocol))
    }

    /// Counts events that were written to event streams.
    pub(super) fn delivered(&self, protocol: Protocol, events: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.delivered.add(protocol, events);
        }
    }

    /// Counts a failure of accept(2).
    pub(super) fn accept_failed(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.accept_errors.inc();
        }
    }

    /// Room for one more connection, held as long as it lives; `None` when there is none, which is
    /// counted.
    pub(super) fn admit(&self) -> Option<Option<Slot>> {
        let Some(admission) = &self.admission else {
            return Some(None);
        };
        match admission.connection() {
            Ok(slot) => Some(Some(slot)),
            Err(limit) => {
                self.context().hits.count(limit);
                None
            }
        }
    }

    /// Room for one more QUIC handshake, held while it lasts; `None` when whoever comes must first
    /// show that its address is its own, which is counted.
    pub(super) fn begin_handshake(&self) -> Option<Slot> {
        let handshake = self.admission.as_ref()?.handshake();
        handshake
            .map_err(|limit| self.context().hits.count(limit))
            .ok()
    }

    pub(super) fn peer(&self, protocol: Protocol, remote: SocketAddr) -> Peer {
        let limits = &self.context().limits;
        let places = match protocol {
            Protocol::Http1 => HTTP1_STREAMS,
            Protocol::Http2 => less_headroom(limits.http2_streams),
            Protocol::Http3 => less_headroom(limits.http3_streams),
        };
        Peer {
            protocol,
            remote,
            mailbox: Mailbox::new(),
            places: Slots::new(places),
            alt_svc: self.alt_svc.clone().filter(|_| protocol != Protocol::Http3),
        }
    }
}

/// A public listener: one port for TCP and UDP.
pub struct HttpsListener {
    address: SocketAddr,
    tcp: TcpListener,
    endpoint: quinn::Endpoint,
    tls: TlsAcceptor,
}

impl HttpsListener {
    /// Binds `address` over TCP and UDP. Port 0 finds one that is free for both.
    ///
    /// # Errors
    ///
    /// [`BindError`] names the address and what is in the way.
    pub fn bind(
        address: SocketAddr,
        resolver: &Arc<Resolver>,
        service: &Service,
    ) -> Result<Self, BindError> {
        let failed = |transport| {
            move |source| BindError {
                key: "https.listen",
                address,
                transport,
                source,
            }
        };
        let mut tries = 0;
        loop {
            let tcp = tcp::bind(address).map_err(failed("TCP"))?;
            let bound = tcp.local_addr().map_err(failed("TCP"))?;
            match quic::bind(bound, resolver.quic_config(), service.context()) {
                Ok(endpoint) => {
                    return Ok(Self {
                        address: bound,
                        tcp,
                        endpoint,
                        tls: resolver.tcp_config().into(),
                    });
                }
                Err(error)
                    if address.port() == 0
                        && error.kind() == io::ErrorKind::AddrInUse
                        && tries < PORT_TRIES =>
                {
                    tries += 1;
                }
                Err(error) => return Err(failed("UDP")(error)),
            }
        }
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the drain has ended.
    pub async fn serve(
        self,
        service: Service,
        metrics: Arc<Metrics>,
        admission: Arc<Admission>,
        drain: Watch,
    ) {
        // RFC 7838: browsers come over HTTP/3 from the next connection on.
        let alt_svc = format!("h3=\":{}\"; ma=86400", self.address.port());
        let listening = Arc::new(Listening {
            service,
            metrics: Some(metrics),
            alt_svc: HeaderValue::try_from(alt_svc).ok(),
            admission: Some(admission),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(tcp::accept(
            self.tcp,
            Some(self.tls),
            listening.clone(),
            drain.clone(),
        ));
        accepting.spawn(quic::accept(self.endpoint, listening, drain));
        while let Some(ended) = accepting.join_next().await {
            report_panic(ended);
        }
    }
}

/// The private listener.
#[derive(Debug)]
pub struct ControlListener {
    address: SocketAddr,
    tcp: TcpListener,
}

impl ControlListener {
    /// Binds `address` over TCP.
    ///
    /// # Errors
    ///
    /// [`BindError`] names the address and what is in the way.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError {
            key: "control.listen",
            address,
            transport: "TCP",
            source,
        };
        let tcp = tcp::bind(address).map_err(failed)?;
        Ok(Self {
            address: tcp.local_addr().map_err(failed)?,
            tcp,
        })
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the drain has ended.
    pub async fn serve(self, service: Service, drain: Watch) {
        let listening = Arc::new(Listening {
            service,
            metrics: None,
            alt_svc: None,
            admission: None,
        });
        tcp::accept(self.tcp, None, listening, drain).await;
    }
}

fn less_headroom(granted: Bound<usize>) -> Bound<usize> {
    Bound {
        value: granted.value - HEADROOM,
        ..granted
    }
}
