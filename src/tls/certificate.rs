//! The certificate that is served: the operator's files, or the development certificate.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::Engine as _;
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    sign::CertifiedKey,
};
use thiserror::Error;

use super::{
    development::{self, DevelopmentCertificate},
    secret::Secret,
};

/// `[tls]`
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// `tls.cert` and `tls.key`
    pub pair: Option<(PathBuf, PathBuf)>,
    /// `tls.directory`
    pub directory: PathBuf,
}

/// A certificate with its key, ready to serve.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain and the signing key.
    pub key: Arc<CertifiedKey>,
    /// Where it came from.
    pub source: CertificateSource,
    /// What other secrets are derived from: the same as long as the key is.
    pub(crate) secret: Secret,
}

/// Where a certificate came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// The operator's file.
    File(PathBuf),
    /// The development certificate; its CA is in this file.
    Development(DevelopmentCertificate),
}

/// Why there is no certificate to serve.
#[derive(Debug, Error)]
pub enum CertificateError {
    #[error("{what} {path}: {source}")]
    Read {
        /// `tls.cert` or `tls.key`
        what: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    #[error("{what} {path}: {reason}; it must be PEM")]
    Pem {
        /// `tls.cert` or `tls.key`
        what: &'static str,
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The key is not the certificate's, or of a kind that is not known.
    #[error("tls.key {path} does not go with tls.cert: {source}")]
    Mismatch {
        /// The key's file.
        path: String,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The development certificate cannot be made.
    #[error(
        "the development certificate in {directory}: {source}; set tls.directory to a folder that can be written, or tls.cert and tls.key"
    )]
    Development {
        /// `tls.directory`
        directory: String,
        /// Why.
        source: development::DevelopmentError,
    },
}

impl Certificate {
    /// Loads the configured certificate, or the development certificate, which is made if need be.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] names the file and what is wrong with it.
    pub fn load(files: &CertificateFiles) -> Result<Self, CertificateError> {
        match &files.pair {
            Some((cert, key)) => Self::from_files(cert, key),
            None => {
                let failed = |source| CertificateError::Development {
                    directory: files.directory.display().to_string(),
                    source,
                };
                let made =
                    development::ensure(&files.directory, crate::clock::wall()).map_err(failed)?;
                let mut certificate = Self::from_files(&made.leaf, &made.leaf)?;
                certificate.source = CertificateSource::Development(made);
                Ok(certificate)
            }
        }
    }

    fn from_files(cert: &Path, key: &Path) -> Result<Self, CertificateError> {
        let text = read("tls.cert", cert)?;
        let chain = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| not_pem("tls.cert", cert, &error))?;
        if chain.is_empty() {
            return Err(not_pem("tls.cert", cert, &pem::Error::NoItemsFound));
        }
        let text = read("tls.key", key)?;
        let der = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|error| not_pem("tls.key", key, &error))?;
        let secret = Secret::of(der.secret_der());
        let certified = CertifiedKey::from_der(chain, der, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|source| CertificateError::Mismatch {
            path: key.display().to_string(),
            source,
        })?;
        Ok(Self {
            key: Arc::new(certified),
            source: CertificateSource::File(cert.to_owned()),
            secret,
        })
    }

    /// The Base64 SHA-256 of the certificate's public key, as Chromium's
    /// `--ignore-certificate-errors-spki-list` takes it.
    #[must_use]
    pub fn spki_hash(&self) -> Option<String> {
        let leaf = webpki::EndEntityCert::try_from(self.key.end_entity_cert().ok()?).ok()?;
        let spki = leaf.subject_public_key_info();
        let hash = aws_lc_rs::default_provider()
            .cipher_suites
            .iter()
            .filter_map(rustls::SupportedCipherSuite::tls13)
            .map(|suite| suite.common.hash_provider)
            .find(|hash| hash.algorithm() == rustls::crypto::hash::HashAlgorithm::SHA256)?;
        Some(base64::engine::general_purpose::STANDARD.encode(hash.hash(&spki)))
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Read {
        what,
        path: path.display().to_string(),
        source,
    })
}

fn not_pem(what: &'static str, path: &Path, error: &pem::Error) -> CertificateError {
    CertificateError::Pem {
        what,
        path: path.display().to_string(),
        reason: match error {
            pem::Error::NoItemsFound => "it holds none".into(),
            other => other.to_string(),
        },
    }
}
