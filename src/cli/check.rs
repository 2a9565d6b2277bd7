//! `seventh check`

use std::{collections::BTreeMap, fs::File, path::PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::tls::Certificate;

/// Check the configuration without starting anything.
///
/// Every mistake is said at once, and the command fails. The certificate is read too, if one is configured, and the
/// files of a cluster are looked for.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The configuration file [default: seventh.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "SEVENTH_CONFIG")]
    config: Option<PathBuf>,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = super::serve::load(self.config.as_deref(), BTreeMap::new())?;
        for warning in &config.warnings {
            eprintln!("seventh: {warning}");
        }
        if config.tls.pair.is_some() {
            Certificate::load(&config.tls)?;
        }
        if let Some(cluster) = &config.cluster {
            let files = [
                ("cluster.ca", &cluster.ca),
                ("cluster.credentials", &cluster.credentials),
            ];
            for (key, file) in files {
                if let Some(file) = file {
                    File::open(file).with_context(|| format!("{} ({key})", file.display()))?;
                }
            }
        }
        println!("the configuration is good");
        Ok(())
    }
}
