//! Listeners: what is bound, and what the connections of one share.

use std::{io, net::SocketAddr, sync::Arc};

use thiserror::Error;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{
    alt_svc::Http3Settings,
    inherited::Inherited,
    listening::{Listening, report_panic},
    metrics::NetMetrics,
    quic, tcp,
};
use crate::{drain::Watch, limits::Admission, service::Service, tls::Resolver};

/// How often another port is tried when the one that the system gave for TCP is taken for UDP.
const PORT_TRIES: usize = 16;

#[derive(Debug, Error)]
#[error("{key}: cannot listen on {at} ({transport}): {source}{}", remedy(.source, *.port))]
pub struct BindError {
    /// The configuration key.
    pub key: &'static str,
    /// The address, or the path of the socket.
    pub at: String,
    /// Of an address.
    pub port: Option<u16>,
    /// `TCP`, `UDP` or `unix`
    pub transport: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

fn remedy(error: &io::Error, port: Option<u16>) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse if port.is_none() => "; another program listens there: end it, or choose another path".into(),
        io::ErrorKind::PermissionDenied if port.is_none() => {
            "; have the edge's user own the socket and its directory".into()
        }
        io::ErrorKind::NotFound => "; make the directory first".into(),
        io::ErrorKind::AddrInUse => "; another program has the port: end it, or choose another port".into(),
        io::ErrorKind::PermissionDenied if port.is_some_and(|port| port < 1024) => {
            "; ports below 1024 take the CAP_NET_BIND_SERVICE capability: grant it, or choose a higher port".into()
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address".into(),
        _ => String::new(),
    }
}

/// A public listener: one port for TCP and, unless HTTP/3 is off, UDP.
pub(crate) struct HttpsListener {
    address: SocketAddr,
    tcp: TcpListener,
    endpoint: Option<quinn::Endpoint>,
    http3: Http3Settings,
    tls: TlsAcceptor,
}

impl HttpsListener {
    /// Binds `address` over TCP, and over UDP if HTTP/3 is spoken. Port 0 finds one that is free for both.
    ///
    /// # Errors
    ///
    /// [`BindError`] names the address and what is in the way.
    pub(crate) fn bind(
        address: SocketAddr,
        resolver: &Arc<Resolver>,
        service: &Service,
        http3: &Http3Settings,
        inherited: &mut Inherited,
    ) -> Result<Self, BindError> {
        let failed = |transport| {
            move |source| BindError {
                key: "https.listen",
                at: address.to_string(),
                port: Some(address.port()),
                transport,
                source,
            }
        };
        let mut tries = 0;
        loop {
            let tcp = tcp::bind(address, inherited).map_err(failed("TCP"))?;
            let bound = tcp.local_addr().map_err(failed("TCP"))?;
            let endpoint = http3.enabled.then(|| {
                quic::bind(
                    bound,
                    resolver.quic_config(),
                    &resolver.current().secret,
                    service.context(),
                    inherited,
                )
            });
            match endpoint.transpose() {
                Ok(endpoint) => {
                    return Ok(Self {
                        address: bound,
                        tcp,
                        endpoint,
                        http3: http3.clone(),
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
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the drain has ended.
    pub(crate) async fn serve(
        self,
        service: Service,
        metrics: Arc<NetMetrics>,
        admission: Arc<Admission>,
        drain: Watch,
    ) {
        let port = self.address.port();
        let listening = Arc::new(Listening::public(
            service,
            port,
            &self.http3,
            metrics,
            admission,
        ));
        let mut accepting = JoinSet::new();
        accepting.spawn(tcp::accept(
            self.tcp,
            Some(self.tls),
            listening.clone(),
            drain.clone(),
        ));
        if let Some(endpoint) = self.endpoint {
            accepting.spawn(quic::accept(endpoint, listening, drain));
        }
        while let Some(ended) = accepting.join_next().await {
            report_panic(ended);
        }
    }
}

/// A listener without TLS: the private one, or one for those who are to come with it.
#[derive(Debug)]
pub(crate) struct PlainListener {
    address: SocketAddr,
    tcp: TcpListener,
}

impl PlainListener {
    /// Binds `address` over TCP, which is configured under `key`.
    ///
    /// # Errors
    ///
    /// [`BindError`] names the address and what is in the way.
    pub(crate) fn bind(
        address: SocketAddr,
        key: &'static str,
        inherited: &mut Inherited,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError {
            key,
            at: address.to_string(),
            port: Some(address.port()),
            transport: "TCP",
            source,
        };
        let tcp = tcp::bind(address, inherited).map_err(failed)?;
        Ok(Self {
            address: tcp.local_addr().map_err(failed)?,
            tcp,
        })
    }

    /// The address it is bound to.
    #[must_use]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the drain has ended; without `admission` it stays reachable whatever comes.
    pub(crate) async fn serve(
        self,
        service: Service,
        metrics: Arc<NetMetrics>,
        admission: Option<Arc<Admission>>,
        drain: Watch,
    ) {
        let listening = Arc::new(Listening::plain(service, metrics, admission));
        tcp::accept(self.tcp, None, listening, drain).await;
    }
}
