//! Certificates and TLS settings.
//!
//! The provider is aws-lc-rs: it has the post-quantum key exchange that browsers prefer
//! (X25519MLKEM768), and its ECDSA and AES are the fastest of the two that rustls offers.

mod certificate;
mod development;
mod resolver;
mod secret;

pub(crate) use certificate::{Certificate, CertificateError, CertificateFiles, CertificateSource};
pub(crate) use resolver::Resolver;
pub(crate) use secret::Secret;
