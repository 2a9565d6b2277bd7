//! Puts the edge and every peer that is here under the same load, one after the other and again, and writes
//! what came of it as a table and a chart: `make compare`.
//!
//! It starts programs and reads the reports of `seventh bench`; how a load is made and measured is there.

mod peers;
mod table;
mod works;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};
use seventh::load::Report;

use peers::{Peer, Site};
use works::Work;

/// Compares the edge with its peers.
#[derive(Debug, Parser)]
struct Compare {
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only works whose name has one of these words in it
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these peers, beside the edge
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// How long each load lasts, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Where the results are written
    #[arg(long, default_value = "target/compare")]
    out: PathBuf,
    /// Measure nothing: draw table and chart anew from the reports that are there
    #[arg(long)]
    redraw: bool,
}

/// What came of a work with a peer: a figure a round, or why there is none.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Outcome {
    work: String,
    peer: String,
    reports: Vec<Report>,
    why_not: Option<String>,
}

/// By work and peer.
#[derive(Debug, Default)]
struct Outcomes(Vec<Outcome>);

impl Outcomes {
    fn get(&self, work: &Work, peer: Peer) -> Option<&Outcome> {
        let is_it = |one: &&Outcome| one.work == work.name && one.peer == peer.name();
        self.0.iter().find(is_it)
    }

    fn entry(&mut self, work: &Work, peer: Peer) -> &mut Outcome {
        let is_it = |one: &Outcome| one.work == work.name && one.peer == peer.name();
        let at = self.0.iter().position(is_it).unwrap_or_else(|| {
            self.0.push(Outcome {
                work: work.name.into(),
                peer: peer.name().into(),
                ..Outcome::default()
            });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

fn main() -> anyhow::Result<()> {
    let options = Compare::parse();
    std::fs::create_dir_all(&options.out)?;
    let site = Site::prepare(&options.out)?;
    site.end_with_this()?;
    let peers: Vec<Peer> = Peer::ALL
        .into_iter()
        .filter(|peer| {
            let named = options.peers.iter().any(|name| name == peer.name());
            *peer == Peer::Seventh || options.peers.is_empty() || named
        })
        .collect();
    for peer in &peers {
        match peer.missing() {
            Some(why) => println!("{:<12} not here: {why}", peer.name()),
            None => println!("{:<12} {}", peer.name(), peer.version()),
        }
    }
    let works: Vec<&Work> = works::ALL
        .iter()
        .filter(|work| {
            options.only.is_empty() || options.only.iter().any(|word| work.name.contains(word))
        })
        .collect();
    ensure!(!works.is_empty(), "no work is named like that");
    let reports = options.out.join("reports.json");
    if options.redraw {
        let text = std::fs::read_to_string(&reports).context("there are no reports")?;
        let outcomes = Outcomes(serde_json::from_str(&text)?);
        return table::write(&options.out, &works, &peers, &outcomes);
    }
    let mut outcomes = Outcomes::default();
    for work in &works {
        for round in 0..options.rounds {
            for peer in &peers {
                let outcome = outcomes.entry(work, *peer);
                if let Some(why) = peer.missing().or_else(|| work.unfit(*peer)) {
                    outcome.why_not = Some(why);
                    continue;
                }
                match measure(work, *peer, &site, options.seconds) {
                    Ok(report) => {
                        println!(
                            "{:<34} {:<12} round {}: {}",
                            work.name,
                            peer.name(),
                            round + 1,
                            work.told(&report)
                        );
                        outcome.reports.push(report);
                    }
                    Err(error) => {
                        println!("{:<34} {:<12} {error:#}", work.name, peer.name());
                        outcome.why_not = Some(format!("{error:#}"));
                    }
                }
            }
        }
        std::fs::write(&reports, serde_json::to_string(&outcomes.0)?)?;
    }
    table::write(&options.out, &works, &peers, &outcomes)
}

/// Starts a peer, puts it under load, and ends it.
fn measure(work: &Work, peer: Peer, site: &Site, seconds: u32) -> anyhow::Result<Report> {
    let running = peer.start(work, site)?;
    let cores = work.pinned.then_some(&*site.client_cores);
    let mut bench = peers::on_cores(cores, &site.seventh);
    bench.arg("bench").args(work.args);
    bench.args(["-d", &format!("{}s", work.seconds.unwrap_or(seconds))]);
    bench.args([
        "--http",
        peer.version_for(work),
        "--json",
        "-",
        "--timeout",
        "10s",
    ]);
    bench
        .args(["--pid", &running.id().to_string()])
        .args(&running.bench);
    let output = bench.output().context("the bench does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{}",
        said.trim().lines().next_back().unwrap_or("it says nothing")
    );
    serde_json::from_slice(&output.stdout).context("the report cannot be read")
}
