//! `[tls]`

use std::path::PathBuf;

use super::reader::Reader;
use crate::tls::CertificateFiles;

pub(super) fn take(reader: &mut Reader) -> CertificateFiles {
    let cert: Option<PathBuf> = reader.take("tls.cert", None, "The certificate chain, PEM.");
    let key: Option<PathBuf> = reader.take("tls.key", None, "Its private key, PEM.");
    let directory = reader.take(
        "tls.directory",
        PathBuf::from("certs"),
        "Where the development certificate is made when `tls.cert` is not set.",
    );
    match (&cert, &key) {
        (Some(_), None) => reader.mistake("tls.key", "is missing; tls.cert needs it"),
        (None, Some(_)) => reader.mistake("tls.cert", "is missing; tls.key needs it"),
        _ => {}
    }
    CertificateFiles {
        pair: cert.zip(key),
        directory,
    }
}
