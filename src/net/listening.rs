//! What the connections of a listener share, and how they are logged.

use std::{
    fmt::Display,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use tokio::task::JoinError;
use tracing::Span;

use super::{
    alt_svc::{AltSvc, Http3Settings},
    metrics::NetMetrics,
};
use crate::{
    clock,
    exchange::Peer,
    hub::mailbox::Mailbox,
    limits::{Admission, Admitted, Bound, HEADROOM, HTTP1_STREAMS, Occupant, Slot, Slots},
    metrics::OpenGuard,
    protocol::Protocol,
    service::{Context, Service},
};

/// What the connections of a listener share.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) service: Service,
    metrics: Arc<NetMetrics>,
    alt_svc: Option<AltSvc>,
    /// Shared by all public listeners; `None` for the control listener, which stays reachable.
    admission: Option<Arc<Admission>>,
    /// What those share who come without TLS where it is spoken.
    plain: Option<Arc<Listening>>,
}

impl Listening {
    /// A public listener's, whose clients may come over HTTP/3 on the same port, `bound` here.
    pub(super) fn public(
        service: Service,
        bound: u16,
        http3: &Http3Settings,
        metrics: Arc<NetMetrics>,
        admission: Arc<Admission>,
    ) -> Self {
        let redirect = Service::Redirect(service.context().clone(), http3.port(bound));
        let plain = Self::plain(redirect, metrics.clone(), Some(admission.clone()));
        Self {
            service,
            metrics,
            alt_svc: Some(AltSvc::new(http3, bound)),
            admission: Some(admission),
            plain: Some(Arc::new(plain)),
        }
    }

    /// That of a listener without TLS: a public one's, or, without `admission`, the control listener's.
    pub(super) fn plain(
        service: Service,
        metrics: Arc<NetMetrics>,
        admission: Option<Arc<Admission>>,
    ) -> Self {
        Self {
            service,
            metrics,
            alt_svc: None,
            admission,
            plain: None,
        }
    }

    /// What those share who come without TLS where it is spoken.
    pub(super) fn without_tls(&self) -> Option<&Arc<Listening>> {
        self.plain.as_ref()
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        self.service.context()
    }

    /// Counts a connection while the guard lives. Those of the control listener are the operator's
    /// own and do not count.
    pub(super) fn open(&self, protocol: Protocol) -> Option<OpenGuard> {
        let counts = self.admission.is_some();
        counts.then(|| self.metrics.connections.guard(protocol))
    }

    /// Counts events that were written to event streams.
    pub(super) fn delivered(&self, protocol: Protocol, events: u64) {
        self.metrics.delivered.add(protocol, events);
    }

    /// Counts a failure of accept(2).
    pub(super) fn accept_failed(&self) {
        self.metrics.accept_errors.inc();
    }

    /// Whether the edge is so late that who comes is to wait, which is counted. Who is there comes first.
    pub(super) fn is_late(&self) -> bool {
        let context = self.context();
        let is_late = self.admission.is_some() && context.lag.now() > context.limits.lag.value / 2;
        if is_late {
            self.metrics.accept_pauses.inc();
        }
        is_late
    }

    /// Room for one more connection from `address`, which is `validated` or not yet, held as long as it lives; `None` when there is none, which is
    /// counted.
    pub(super) fn admit(&self, address: IpAddr, validated: bool) -> Option<Option<Admitted>> {
        let Some(admission) = &self.admission else {
            return Some(None);
        };
        match admission.connection(address, validated, clock::now()) {
            Ok(admitted) => Some(Some(admitted)),
            Err(limit) => {
                // One that is not is asked to show its address, and judged then.
                if validated {
                    self.context().hits.count(limit);
                }
                None
            }
        }
    }

    /// Whether this address passes on the connections of others, and says whose they are.
    pub(super) fn is_balancer(&self, address: IpAddr) -> bool {
        let admission = self.admission.as_ref();
        admission.is_some_and(|admission| admission.is_balancer(address))
    }

    /// A QUIC connection that was let in has shown that its address is its own.
    pub(super) fn validated(&self, address: IpAddr) {
        if let Some(admission) = &self.admission {
            admission.validated(address, clock::now());
        }
    }

    /// Room for a QUIC handshake, held while it lasts; `None` when whoever comes must first show that
    /// its address is its own, which is counted.
    pub(super) fn begin_handshake(&self, validated: bool) -> Option<Slot> {
        let admission = self.admission.as_ref()?;
        if validated {
            return Some(admission.validated_handshake());
        }
        let handshake = admission.handshake();
        handshake
            .map_err(|limit| self.context().hits.count(limit))
            .ok()
    }

    /// Until when a client that has just come must have asked for something.
    pub(super) fn first_request_by(&self) -> Instant {
        clock::now() + self.context().limits.handshake.value
    }

    /// Awaits a step to a client's first request, which must come before `by`. `None` ends the
    /// connection: it took too long, which is counted, or has failed, which is logged.
    pub(super) async fn in_time<T, E: Display>(
        &self,
        by: Instant,
        what: &str,
        step: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        let left = Bound {
            value: by.saturating_duration_since(clock::now()),
            ..self.context().limits.handshake
        };
        let stepped = self.context().within(left, step).await.ok()?;
        stepped
            .map_err(|error| tracing::debug!("{what} failed: {error}"))
            .ok()
    }

    /// Who is on a connection; without `occupant` it is one that nobody counts.
    pub(super) fn peer(
        &self,
        protocol: Protocol,
        remote: SocketAddr,
        occupant: Option<Arc<Occupant>>,
    ) -> Peer {
        if let (Protocol::Http3, Some(alt_svc)) = (protocol, &self.alt_svc) {
            alt_svc.reached_from(remote.ip());
        }
        let limits = &self.context().limits;
        let places = match protocol {
            Protocol::Http1 => HTTP1_STREAMS,
            Protocol::Http2 => less_headroom(limits.http2_streams),
            Protocol::Http3 => limits.event_streams_http3,
        };
        let tenant = self.context().places.tenant(remote.ip());
        Peer {
            protocol,
            remote,
            by_proxy: false,
            mailbox: Mailbox::new(tenant.source()),
            places: Slots::new(places),
            occupant: occupant.unwrap_or_else(|| Occupant::of_nobody(remote.ip(), clock::now())),
            tenant,
            alt_svc: match protocol {
                Protocol::Http3 => None,
                _ => self.alt_svc.as_ref().map(AltSvc::value),
            },
        }
    }
}

fn less_headroom(granted: Bound<usize>) -> Bound<usize> {
    Bound {
        value: granted.value - HEADROOM,
        ..granted
    }
}

/// The connection that was let in, if it is one that counts.
pub(super) fn occupant(admission: Option<&Admitted>) -> Option<Arc<Occupant>> {
    admission.map(|admitted| admitted.occupant().clone())
}

/// The address of a client: one of IPv4 is that also where a socket takes both.
pub(super) fn canonical(remote: SocketAddr) -> SocketAddr {
    SocketAddr::new(remote.ip().to_canonical(), remote.port())
}

/// The span of a connection, in which everything is logged that concerns it. Its protocol is
/// recorded once it is settled.
pub(super) fn connection_span(client: SocketAddr) -> Span {
    tracing::info_span!("connection", %client, protocol = tracing::field::Empty)
}

/// Serves a connection until it is told to end to make room for others; `None` then.
pub(super) async fn until_ended<T>(
    served: impl Future<Output = T>,
    occupant: Option<Arc<Occupant>>,
) -> Option<T> {
    let Some(occupant) = occupant else {
        return Some(served.await);
    };
    // Nothing is gained by asking the one first or the other, nor by chance.
    tokio::select! {
        biased;
        served = served => Some(served),
        () = occupant.ended() => {
            tracing::debug!("idle or slow, and others need its place");
            None
        }
    }
}

pub(super) fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection's task panicked, which is a bug: {error}");
    }
}
