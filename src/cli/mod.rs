//! The commands: one file each.

mod bench;
mod cert;
mod check;
mod listen;
mod memory;
mod open_files;
mod publish;
mod runtime;
mod serve;
mod token;

use clap::{Parser, Subcommand};

/// The edge server for EventSource: hundreds of event streams over one connection.
#[derive(Debug, Parser)]
#[command(name = "seventh", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the edge (the default).
    Serve(serve::Serve),
    /// Publish an event, or the lines of standard input.
    Publish(publish::Publish),
    /// Read an event stream, as a browser's EventSource does.
    Listen(listen::Listen),
    /// Check the configuration without starting anything.
    Check(check::Check),
    /// Show the certificate, and how to trust it.
    Cert(cert::Cert),
    /// Make a token with the configured key, or explain one.
    Token(token::TokenArgs),
    /// Put an edge under load and measure what it delivers.
    Bench(bench::Bench),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Whatever is in its way, for a person to read.
    pub fn run(self) -> anyhow::Result<()> {
        open_files::raise();
        match self.command.unwrap_or(Command::Serve(self.serve)) {
            Command::Serve(serve) => serve.run(),
            Command::Publish(publish) => publish.run(),
            Command::Listen(listen) => listen.run(),
            Command::Check(check) => check.run(),
            Command::Cert(cert) => cert.run(),
            Command::Token(token) => token.run(),
            Command::Bench(bench) => bench.run(),
        }
    }
}

/// An error and its causes in one line: a cause that the line holds already is not said again.
#[must_use]
pub fn explain(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow!("the port is in use")
            .context("cannot listen: the port is in use; choose another")
            .context("cannot start");
        assert_eq!(
            super::explain(&error),
            "cannot start: cannot listen: the port is in use; choose another"
        );
    }
}
