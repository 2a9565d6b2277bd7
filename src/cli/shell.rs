//! `seventh completions` and `seventh man`

use std::{io::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;

/// Print the completions of a shell: `seventh completions bash > /etc/bash_completion.d/seventh`
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, mut command: Command) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "seventh", &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}

/// Write the man pages, one for each command
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The directory, such as /usr/local/share/man/man1
    directory: PathBuf,
}

impl Man {
    pub(super) fn run(&self, command: Command) -> anyhow::Result<()> {
        let directory = self.directory.display().to_string();
        std::fs::create_dir_all(&self.directory).context(directory.clone())?;
        clap_mangen::generate_to(command, &self.directory).context(directory)
    }
}
