//! The commands: one file each.

mod bench;
mod cert;
mod listen;
mod publish;
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
    /// Show the certificate, and how to trust it.
    Cert(cert::Cert),
    /// Make a token with the configured key, or explain one.
    Token(token::Token),
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
        match self.command.unwrap_or(Command::Serve(self.serve)) {
            Command::Serve(serve) => serve.run(),
            Command::Publish(publish) => publish.run(),
            Command::Listen(listen) => listen.run(),
            Command::Cert(cert) => cert.run(),
            Command::Token(token) => token.run(),
            Command::Bench(bench) => bench.run(),
        }
    }
}

/// A runtime for a command that is a client.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(future);
    // Standard input may still be read by a thread of its own.
    runtime.shutdown_background();
    result
}
