//! From a configuration to a running edge, and to its end: bind, serve, drain.
//!
//! - `overload` looks whether there is time and memory for all that is asked for.

mod overload;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::HeaderValue;
use thiserror::Error;
use tokio::task::JoinSet;

use crate::{
    access::{Access, AccessMetrics},
    clock,
    config::{Config, Control, ControlAt},
    drain,
    history::{ClusterError, LogError, Order},
    hub::{Hub, HubBounds, NameBounds},
    limits::{Admission, BURST, Hits, Lag, Memory, Places, Rates},
    metrics::{self, Registry},
    net::{
        BindError, HttpsListener, Inherited, InheritedError, NetMetrics, PlainListener,
        UnixListener,
    },
    networks::Networks,
    outbound::Outbound,
    proxy::{Proxy, ProxyMetrics},
    service::{self, Context, Gate, Service, Streams},
    tls::{Certificate, CertificateError, CertificateFiles, Resolver},
};

/// How often history is swept.
const SWEEP: Duration = Duration::from_secs(1);
/// How long a connection of the control listener may still be busy once all else has ended.
const CONTROL_GRACE: Duration = Duration::from_secs(1);

/// Why the edge does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is no certificate to serve.
    #[error(transparent)]
    Tls(#[from] CertificateError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A socket that was passed to it is not one of its own.
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    /// History cannot be gone on with.
    #[error(transparent)]
    History(#[from] LogError),
    /// It cannot be part of its cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    context: Arc<Context>,
    metrics: Arc<NetMetrics>,
    resolver: Arc<Resolver>,
    https: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    control: ControlAt,
    drain: drain::DrainSettings,
    signal: drain::Trigger,
    control_signal: drain::Trigger,
    public: JoinSet<()>,
    private: JoinSet<()>,
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything ended in good order.
    Clean,
    /// This many connections were cut at the end of the grace.
    Cut(u64),
}

impl Edge {
    /// Binds every listener and begins to serve.
    ///
    /// # Errors
    ///
    /// [`StartError`] names what is in the way.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        Self::start_with(config, Inherited::default(), || {})
    }

    /// The same, but takes the sockets that are bound already, and says once history is found, which may take long.
    ///
    /// # Errors
    ///
    /// [`StartError`] names what is in the way.
    pub(crate) fn start_with(
        config: &Config,
        mut inherited: Inherited,
        once_found: impl FnOnce(),
    ) -> Result<Self, StartError> {
        let resolver = Resolver::new(Certificate::load(&config.tls)?);
        let mut registry = metrics::registry(clock::wall());
        let metrics = Arc::new(NetMetrics::register(&mut registry));
        let (signal, watch) = drain::channel();
        let (control_signal, control_watch) = drain::channel();
        let exempt = exempt(config);
        let order = order(config)?;
        once_found();
        let context = context(config, order, exempt.clone(), registry, watch.clone());
        let context = Arc::new(context);
        // Before anyone is let in.
        service::take_facts(&context);

        let (control, control_at) = ControlListener::bind(&config.control, &mut inherited)?;
        let public_service = Service::Public(context.clone());
        let listeners = bind_https(config, &resolver, &public_service, &mut inherited)?;
        let http = config.http.iter();
        let http: Result<Vec<_>, _> = http
            .map(|at| PlainListener::bind(*at, "http.listen", &mut inherited))
            .collect();
        let http = http?;
        inherited.finish()?;
        let gate = gate(&config.control, &control_at);
        let control_service =
            Service::Control(context.clone(), Arc::new(gate), control_watch.clone());

        let mut edge = Self {
            context,
            metrics: metrics.clone(),
            resolver,
            https: listeners.iter().map(HttpsListener::address).collect(),
            http: http.iter().map(PlainListener::address).collect(),
            control: control_at,
            drain: config.drain,
            signal,
            control_signal,
            public: JoinSet::new(),
            private: JoinSet::new(),
        };
        edge.context.access.prepare(clock::now());
        edge.private
            .spawn(control.serve(control_service, metrics.clone(), control_watch));
        let admission = Arc::new(Admission::new(
            &config.limits,
            exempt,
            config.balancers.clone(),
            edge.context.memory.clone(),
            clock::now(),
        ));
        edge.tend(admission.clone());
        let port = edge.https.first().map_or(443, SocketAddr::port);
        let port = config.http3.port(port);
        for listener in http {
            let service = Service::Redirect(edge.context.clone(), port);
            let (metrics, admission) = (metrics.clone(), Some(admission.clone()));
            edge.public
                .spawn(listener.serve(service, metrics, admission, watch.clone()));
        }
        for listener in listeners {
            edge.public.spawn(listener.serve(
                public_service.clone(),
                metrics.clone(),
                admission.clone(),
                watch.clone(),
            ));
        }
        Ok(edge)
    }

    /// Begins what goes on beside the listeners.
    fn tend(&mut self, admission: Arc<Admission>) {
        let (context, tasks) = (&self.context, &mut self.private);
        overload::start_watchdog(context);
        tasks.spawn(overload::watch(context.clone(), admission));
        tasks.spawn(sweep(context.hub.clone()));
        tasks.spawn(sweep(context.proxy.hub().clone()));
        let paced = context.order.clone();
        tasks.spawn(async move { paced.keep_pace().await });
        let checked = context.clone();
        tasks.spawn(async move { checked.proxy.check_health().await });
        tasks.spawn(service::keep_asking(context.clone()));
        tasks.spawn(service::follow_facts(context.clone()));
        tasks.spawn(service::answer_edges(context.clone()));
        tasks.spawn(service::tell_presence(context.clone()));
        let (said, counted) = (context.clone(), self.metrics.clone());
        tasks.spawn(async move {
            service::tell_stats(&said, clock::now(), || counted.open_connections()).await;
        });
    }

    /// The addresses of the public listeners.
    #[must_use]
    pub fn https(&self) -> &[SocketAddr] {
        &self.https
    }

    /// The addresses of the listeners without TLS.
    #[must_use]
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Where the control listener is.
    #[must_use]
    pub fn control(&self) -> &ControlAt {
        &self.control
    }

    /// The certificate it serves.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.resolver.current()
    }

    /// Reads the certificate anew and serves it from the next handshake on.
    ///
    /// # Errors
    ///
    /// What is wrong with the files; then the certificate before is served still.
    pub fn reload_certificate(&self, files: &CertificateFiles) -> Result<(), CertificateError> {
        self.resolver.replace(Certificate::load(files)?);
        Ok(())
    }

    /// What its requests share.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Returns once a part of the edge has ended that should not: a listener, or the sweeper. Cancel-
    /// safe. Nothing serves for it then.
    pub async fn broken(&mut self) {
        tokio::select! {
            _ = self.public.join_next() => {}
            _ = self.private.join_next() => {}
        }
    }

    /// Ends everything in good order: readiness off, listeners closed, event streams ended over
    /// `drain.spread`, what is left cut after `drain.grace`. The control listener goes last.
    pub async fn drain(mut self) -> Drained {
        self.signal.start();
        let ended = tokio::time::timeout(self.drain.grace, async {
            while self.public.join_next().await.is_some() {}
        });
        let drained = match ended.await {
            Ok(()) => Drained::Clean,
            Err(_) => Drained::Cut(self.metrics.open_connections()),
        };
        self.public.shutdown().await;
        self.control_signal.start();
        // The sweeper does not end by itself; a publisher may be in the middle of a long body.
        let deadline: Instant = clock::now() + CONTROL_GRACE;
        let _: Result<_, _> =
            tokio::time::timeout_at(deadline.into(), self.private.join_next()).await;
        self.private.shutdown().await;
        self.context.order.close().await;
        drained
    }
}

/// The private listener, of either kind.
enum ControlListener {
    Tcp(PlainListener),
    Unix(UnixListener),
}

impl ControlListener {
    /// Binds it; where it is then.
    fn bind(settings: &Control, inherited: &mut Inherited) -> Result<(Self, ControlAt), BindError> {
        const KEY: &str = "control.listen";
        Ok(match &settings.listen {
            ControlAt::Tcp(address) => {
                let listener = PlainListener::bind(*address, KEY, inherited)?;
                let at = ControlAt::Tcp(listener.address());
                (Self::Tcp(listener), at)
            }
            at @ ControlAt::Unix(path) => {
                let listener = UnixListener::bind(path, settings.socket_mode, KEY)?;
                (Self::Unix(listener), at.clone())
            }
        })
    }

    async fn serve(self, service: Service, metrics: Arc<NetMetrics>, drain: drain::Watch) {
        match self {
            Self::Tcp(listener) => listener.serve(service, metrics, None, drain).await,
            Self::Unix(listener) => listener.serve(service, metrics, drain).await,
        }
    }
}

/// What stands before the control listener.
fn gate(settings: &Control, at: &ControlAt) -> Gate {
    let address = match at {
        ControlAt::Tcp(address) => Some(*address),
        ControlAt::Unix(_) => None,
    };
    let tokens = (settings.token.clone(), settings.metrics_token.clone());
    Gate::new(address, &settings.hosts).with_tokens(tokens.0, tokens.1)
}

/// Whose addresses may take any number of places.
fn exempt(config: &Config) -> Arc<Networks> {
    let all = [&config.exempt, &config.trusted, &config.balancers];
    let all = all.iter().flat_map(|networks| &networks.0);
    Arc::new(Networks(all.copied().collect()))
}

/// What keeps the events.
fn order(config: &Config) -> Result<Order, StartError> {
    let bounds = HubBounds {
        names: NameBounds {
            total: config.limits.topics.value,
            connection: config.limits.connection_topics.value,
            readers: config.limits.topic_event_streams.value,
        },
        unread_bytes: config.limits.unread_bytes.value,
    };
    let (retention, rules) = (config.history, config.topics.clone());
    if let Some(settings) = &config.cluster {
        return Ok(Order::in_cluster(
            settings.clone(),
            retention,
            &rules,
            bounds,
        )?);
    }
    Ok(match &config.history_log {
        Some(settings) => Order::in_log(settings, retention, &rules, bounds)?,
        None => Order::in_memory(retention, rules, bounds, fastrand::u64(..)),
    })
}

/// What the requests of an edge share, which is counted in `registry`.
fn context(
    config: &Config,
    order: Order,
    exempt: Arc<Networks>,
    mut registry: Registry,
    drain: drain::Watch,
) -> Context {
    let order = Arc::new(order);
    let hub = order.hub().clone();
    order.register(&mut registry);
    let hits = Arc::new(Hits::default());
    hub.metrics().register(&mut registry);
    hits.register(&mut registry);
    let proxy = Proxy::new(
        &config.routes,
        config.relay,
        config.trusted.clone(),
        config.limits,
        hits.clone(),
        ProxyMetrics::register(&mut registry),
    );
    Context {
        hub,
        order,
        access: Access::new(
            config.access.clone(),
            &Outbound::default(),
            &AccessMetrics::register(&mut registry),
        ),
        nesting: service::Nesting::default(),
        streams: Arc::new(Streams::new(clock::now() + config.access.settling)),
        metrics: service::ServiceMetrics::register(&mut registry),
        limits: config.limits,
        lag: Lag::default(),
        memory: Arc::new(Memory::new(config.limits.memory)),
        places: Places::new(
            config.limits.event_streams,
            config.limits.address_event_streams,
            exempt,
        ),
        refusals: Mutex::default(),
        publish_rates: Mutex::new(Rates::new(config.limits.publish_rate, BURST)),
        hits,
        events: config.events.clone(),
        proxy,
        prefix: config.prefix.clone().unwrap_or_default(),
        own: config.own.clone(),
        hsts: config.hsts.map(hsts),
        drain_spread: config.drain.spread,
        demo: config.demo,
        drain,
        registry,
    }
}

/// Strict-Transport-Security (RFC 6797 6.1).
fn hsts(age: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("max-age={}", age.as_secs())).expect("it is text")
}

/// Binds every address. A machine without IPv6 does without `[::1]` if there is another.
fn bind_https(
    config: &Config,
    resolver: &Arc<Resolver>,
    service: &Service,
    inherited: &mut Inherited,
) -> Result<Vec<HttpsListener>, BindError> {
    let mut listeners = Vec::new();
    let mut without = None;
    for &address in &config.https {
        match HttpsListener::bind(address, resolver, service, &config.http3, inherited) {
            Ok(listener) => listeners.push(listener),
            Err(error)
                if address.is_ipv6() && address.ip().is_loopback() && is_no_ipv6(&error.source) =>
            {
                tracing::warn!("{error}; going on without it");
                without = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match without {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

fn is_no_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own.
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

async fn sweep(hub: Arc<Hub>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        hub.sweep(clock::now());
    }
}
