//! The commands: one file each.

mod bench;
mod cert;
mod check;
mod exit;
mod fields;
mod history;
mod listen;
mod memory;
mod open_files;
mod operator;
mod people;
mod publish;
mod runtime;
mod serve;
mod shell;
mod token;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use exit::{code, is_nobody_reading};

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
    /// Send an event to everyone who is logged in, or who is not.
    Broadcast(people::Broadcast),
    /// Send an event to users and groups.
    Send(people::Send),
    /// List the open event streams.
    Streams(people::Streams),
    /// List the groups, show one, or change who is in it.
    Groups(people::Groups),
    /// End the streams of a user.
    Disconnect(people::Disconnect),
    /// Read an event stream, as a browser's EventSource does.
    Listen(listen::Listen),
    /// Check the configuration without starting anything.
    Check(check::Check),
    /// Look at the history of a directory, and mend it.
    History(history::History),
    /// Show the certificate, and how to trust it.
    Cert(cert::Cert),
    /// Make a token with the configured key, or explain one.
    Token(token::TokenArgs),
    /// Put an edge under load and measure what it delivers.
    Bench(bench::Bench),
    /// Print the completions of a shell.
    Completions(shell::Completions),
    /// Write the man pages.
    Man(shell::Man),
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
            Command::Broadcast(broadcast) => broadcast.run(),
            Command::Send(send) => send.run(),
            Command::Streams(streams) => streams.run(),
            Command::Groups(groups) => groups.run(),
            Command::Disconnect(disconnect) => disconnect.run(),
            Command::Listen(listen) => listen.run(),
            Command::Check(check) => check.run(),
            Command::History(history) => history.run(),
            Command::Cert(cert) => cert.run(),
            Command::Token(token) => token.run(),
            Command::Bench(bench) => bench.run(),
            Command::Completions(completions) => completions.run(Self::command()),
            Command::Man(man) => man.run(Self::command()),
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
