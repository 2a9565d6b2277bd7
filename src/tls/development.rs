//! The development certificate: a CA and a leaf for this machine's own names, made here.
//!
//! The CA's key is never written: nobody can sign anything more with a CA that a developer has
//! told a browser to trust. When the leaf expires or is damaged, both are made anew.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use thiserror::Error;

/// How long it is valid: what browsers take at most is 397 days.
const VALIDITY: Duration = Duration::from_secs(397 * 24 * 3600);
/// How long before its end it is made anew.
const RENEWAL: Duration = Duration::from_secs(7 * 24 * 3600);
/// How far clocks may be apart.
const SKEW: Duration = Duration::from_secs(3600);

/// Where the development certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevelopmentCertificate {
    /// The CA's certificate, for browsers to trust.
    pub ca: PathBuf,
    /// The leaf's certificate and key in one file, so that they always go together.
    pub leaf: PathBuf,
    /// It was made just now.
    pub fresh: bool,
}

/// Why there is no development certificate.
#[derive(Debug, Error)]
pub enum DevelopmentError {
    #[error("{path} cannot be written: {source}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    #[error("it cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Finds the development certificate in `directory`, or makes one when there is none, or it is
/// about to expire, or it is damaged.
///
/// # Errors
///
/// [`DevelopmentError`] when it cannot be made or written.
pub(super) fn ensure(
    directory: &Path,
    now: SystemTime,
) -> Result<DevelopmentCertificate, DevelopmentError> {
    let mut cert = DevelopmentCertificate {
        ca: directory.join("ca.pem"),
        leaf: directory.join("localhost.pem"),
        fresh: false,
    };
    if is_valid(&cert, now + RENEWAL) && is_valid(&cert, now) {
        return Ok(cert);
    }
    let (ca, leaf) = make(now)?;
    std::fs::create_dir_all(directory).map_err(|source| DevelopmentError::Write {
        path: directory.display().to_string(),
        source,
    })?;
    write(&cert.ca, &ca, 0o644)?;
    write(&cert.leaf, &leaf, 0o600)?;
    cert.fresh = true;
    Ok(cert)
}

fn is_valid(cert: &DevelopmentCertificate, at: SystemTime) -> bool {
    let check = || {
        let text = std::fs::read(&cert.leaf).ok()?;
        let leaf = CertificateDer::from_pem_slice(&text).ok()?;
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&text).ok()?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        rustls::sign::CertifiedKey::from_der(vec![leaf.clone()], key, &provider).ok()?;
        let ca = CertificateDer::from_pem_file(&cert.ca).ok()?;
        let anchor = webpki::anchor_from_trusted_cert(&ca).ok()?;
        let leaf = webpki::EndEntityCert::try_from(&leaf).ok()?;
        let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).ok()?);
        let usage = webpki::KeyUsage::server_auth();
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[anchor],
            &[],
            at,
            usage,
            None,
            None,
        )
        .ok()?;
        let name = ServerName::try_from("localhost").ok()?;
        leaf.verify_is_valid_for_subject_name(&name).ok()
    };
    check().is_some()
}

fn make(now: SystemTime) -> Result<(String, String), DevelopmentError> {
    let (from, until) = (now - SKEW, now - SKEW + VALIDITY);

    let mut ca = CertificateParams::default();
    ca.distinguished_name
        .push(DnType::CommonName, "Seventh development CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (ca.not_before, ca.not_after) = (from.into(), until.into());
    let ca_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let ca_cert = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let mut leaf = CertificateParams::default();
    leaf.distinguished_name
        .push(DnType::CommonName, "localhost");
    leaf.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    (leaf.not_before, leaf.not_after) = (from.into(), until.into());
    let leaf_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let leaf_cert = leaf.signed_by(&leaf_key, &issuer)?;
    Ok((ca_cert.pem(), leaf_cert.pem() + &leaf_key.serialize_pem()))
}

/// Writes the file whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), DevelopmentError> {
    let written = || {
        let directory = path.parent().unwrap_or(Path::new("."));
        let temporary = directory.join(format!(".{:x}.tmp", fastrand::u64(..)));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        let result = options
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .and_then(|()| std::fs::rename(&temporary, path));
        if result.is_err() {
            // What is left of the temporary file is of no use; the first error is the one to tell.
            let _: io::Result<()> = std::fs::remove_file(&temporary);
        }
        result
    };
    written().map_err(|source: io::Error| DevelopmentError::Write {
        path: path.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once_and_anew_when_it_expires_or_is_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = crate::clock::wall();
        let read = |cert: &DevelopmentCertificate| {
            std::fs::read_to_string(&cert.leaf).expect("it is there")
        };
        let first = ensure(folder.path(), now).expect("it can be made");
        assert!(first.fresh);
        let text = read(&first);

        let again = ensure(folder.path(), now).expect("it is there");
        assert!(!again.fresh);
        assert_eq!(read(&again), text);

        let day = Duration::from_secs(24 * 3600);
        assert!(
            !ensure(folder.path(), now + 388 * day)
                .expect("it is there")
                .fresh
        );
        assert!(
            ensure(folder.path(), now + 391 * day)
                .expect("it can be made")
                .fresh
        );
        // That one is not valid yet, as seen from today.
        assert!(ensure(folder.path(), now).expect("it can be made").fresh);

        std::fs::write(&first.leaf, &text[..text.len() / 2]).expect("it can be written");
        assert!(ensure(folder.path(), now).expect("it can be made").fresh);
        std::fs::remove_file(&first.ca).expect("it is there");
        assert!(ensure(folder.path(), now).expect("it can be made").fresh);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_the_key_and_the_cas_is_not_written() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let cert = ensure(folder.path(), crate::clock::wall()).expect("it can be made");
        let mode = std::fs::metadata(&cert.leaf)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let ca = std::fs::read_to_string(&cert.ca).expect("it is there");
        assert!(!ca.contains("PRIVATE KEY"));
        assert_eq!(
            std::fs::read_dir(folder.path())
                .expect("it is there")
                .count(),
            2
        );
    }
}
