//! `seventh cert`

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;

use crate::tls::{Certificate, CertificateSource};

/// Show the certificate, and how to trust it.
#[derive(Debug, Args)]
pub(super) struct Cert {
    /// The configuration file [default: seventh.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "SEVENTH_CONFIG")]
    config: Option<PathBuf>,
}

impl Cert {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = super::serve::load(self.config.as_deref(), BTreeMap::new())?;
        let certificate = Certificate::load(&config.tls)?;
        let spki = certificate
            .spki_hash()
            .unwrap_or_else(|| "cannot be read".into());
        match &certificate.source {
            CertificateSource::File(path) => {
                println!("certificate  {}", path.display());
                println!("SPKI hash    {spki}");
            }
            CertificateSource::Development(cert) => {
                let ca = std::path::absolute(&cert.ca)?;
                println!(
                    "certificate  {} (with its key)",
                    std::path::absolute(&cert.leaf)?.display()
                );
                println!("CA           {} (its key was not kept)", ca.display());
                println!("SPKI hash    {spki}");
                println!("{}", how_to_trust(&ca.display().to_string(), &spki));
            }
        }
        Ok(())
    }
}

fn how_to_trust(ca: &str, spki: &str) -> String {
    format!(
        "
Chromium, for one run, without trusting anything:
  chromium --user-data-dir=/tmp/seventh --ignore-certificate-errors-spki-list={spki} https://localhost:8443/
  add --origin-to-force-quic-on=localhost:8443 to have it use HTTP/3 from the first request on
Chromium, for good (Linux; package libnss3-tools):
  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n seventh -i {ca}
Firefox:
  Settings, Privacy & Security, View Certificates, Authorities, Import: {ca}
  about:config, network.http.http3.disable_when_third_party_roots_found = false, to have it use HTTP/3
The system (Debian, Ubuntu), for curl and other programs:
  sudo cp {ca} /usr/local/share/ca-certificates/seventh.crt && sudo update-ca-certificates
One program:
  curl --cacert {ca} https://localhost:8443/
  seventh listen --ca {ca} 'https://localhost:8443/events?topic=demo/0'"
    )
}
