//! The TLS settings of listeners, whose certificate can be swapped while they serve.

use std::sync::{Arc, RwLock};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::Certificate;

/// Answers every full handshake with the certificate of the moment: connections that are open, and
/// sessions that are resumed, keep theirs.
#[derive(Debug)]
pub(crate) struct Resolver(RwLock<Certificate>);

impl Resolver {
    /// A resolver that begins with `certificate`.
    #[must_use]
    pub(crate) fn new(certificate: Certificate) -> Arc<Self> {
        Arc::new(Self(RwLock::new(certificate)))
    }

    /// The certificate of the moment.
    #[must_use]
    pub(crate) fn current(&self) -> Certificate {
        self.0
            .read()
            .expect("no holder of this lock panics")
            .clone()
    }

    /// Answers with `certificate` from the next handshake on.
    pub(crate) fn replace(&self, certificate: Certificate) {
        *self.0.write().expect("no holder of this lock panics") = certificate;
    }

    /// TLS 1.2 and 1.3 for HTTP/1.1 and HTTP/2.
    #[must_use]
    pub(crate) fn tcp_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        Arc::new(self.config(&versions, &[b"h2", b"http/1.1"]))
    }

    /// TLS 1.3 for HTTP/3.
    #[must_use]
    pub(crate) fn quic_config(self: &Arc<Self>) -> ServerConfig {
        self.config(&[&rustls::version::TLS13], &[b"h3"])
    }

    /// Settings for a listener that offers these protocols.
    fn config(
        self: &Arc<Self>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> ServerConfig {
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(versions)
                .expect("the provider has suites for TLS 1.2 and 1.3")
                .with_no_client_auth()
                .with_cert_resolver(self.clone());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        match aws_lc_rs::Ticketer::new() {
            Ok(ticketer) => config.ticketer = ticketer,
            Err(error) => tracing::warn!("TLS sessions will not be resumed: {error}"),
        }
        config
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificate = self.0.read().expect("no holder of this lock panics");
        Some(certificate.key.clone())
    }
}
