//! How a figure changes with the load: many reports as one chart.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};

use super::{
    chart::{Along, Chart, Curve},
    files::{read, write},
    show,
};
use crate::load::{Report, Setup};

/// Draw how a figure changes with the load.
#[derive(Debug, Args)]
pub(super) struct Plot {
    /// Reports that `--json` wrote; of those of the same load the median is drawn
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    reports: Vec<PathBuf>,
    /// What of the load changes
    #[arg(long, value_enum)]
    along: Load,
    /// What is drawn
    #[arg(long, value_enum, default_value = "cpu")]
    figure: Figure,
    /// The part of the runs that is meant [default: the last]
    #[arg(long)]
    stage: Option<String>,
    /// The chart, as SVG; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    svg: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Load {
    Connections,
    /// Streams of a connection
    Streams,
    Topics,
    /// Bytes of data of an event
    Size,
    /// Events that were missed
    Missed,
    /// Events a second
    Rate,
}

impl Load {
    fn of(self, setup: &Setup) -> Option<f64> {
        Some(match self {
            Self::Connections => setup.connections as f64,
            Self::Streams => setup.streams as f64,
            Self::Topics => setup.topics as f64,
            Self::Size => setup.size as f64,
            Self::Missed => setup.missed as f64,
            Self::Rate => setup.rate?,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Streams => "streams of a connection",
            Self::Topics => "topics",
            Self::Size => "bytes of data of an event",
            Self::Missed => "events missed",
            Self::Rate => "events a second",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Figure {
    /// Microseconds of the server's CPU time for each that is counted, such as a delivery
    Cpu,
    /// Milliseconds that 99 of 100 took at most
    P99,
    /// KiB of memory of a stream, with its share of the connection
    Memory,
}

impl Figure {
    fn of(self, report: &Report, stage: Option<&str>) -> Option<f64> {
        if let Self::Memory = self {
            return Some(report.memory.as_ref()?.per_stream() / 1024.0);
        }
        let stage = match stage {
            Some(name) => report.stages.iter().find(|stage| stage.name == name)?,
            None => report.stages.last()?,
        };
        match self {
            Self::Cpu => Some(1e6 / stage.per_cpu_second()?),
            _ => Some(stage.latency.as_ref()?.p99 as f64 / 1000.0),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "µs of CPU time for each",
            Self::P99 => "99 % within ms",
            Self::Memory => "KiB a stream",
        }
    }
}

impl Plot {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let reports: Vec<Report> = self
            .reports
            .iter()
            .map(|path| read(path))
            .collect::<Result<_, _>>()?;
        write(&self.svg, &self.chart(&reports)?.svg()?)
    }

    fn chart(&self, reports: &[Report]) -> anyhow::Result<Chart> {
        let first = &reports[0].setup;
        let same_server = reports
            .iter()
            .all(|report| report.setup.server == first.server);
        let mut curves: BTreeMap<String, BTreeMap<u64, Vec<f64>>> = BTreeMap::new();
        for (report, path) in reports.iter().zip(&self.reports) {
            if let Some(void) = &report.void {
                anyhow::bail!("{} counts for nothing: {void}", path.display());
            }
            let setup = &report.setup;
            let figure = self.figure.of(report, self.stage.as_deref());
            let figure = figure.with_context(|| format!("{} does not say", path.display()));
            let figure = figure.with_context(|| format!("no {}", self.figure.name()))?;
            let at = self.along.of(setup).filter(|at| *at > 0.0);
            let at = at.with_context(|| format!("{}: no {}", path.display(), self.along.name()))?;
            let name = if same_server {
                setup.protocol.clone()
            } else {
                format!("{}, {}", setup.server, setup.protocol)
            };
            // What is above 0 is in the same order as its bits.
            let points = curves.entry(name).or_default();
            points.entry(at.to_bits()).or_default().push(figure);
        }
        let curves: Vec<Curve> = curves
            .into_iter()
            .map(|(name, points)| Curve {
                name,
                points: points
                    .into_iter()
                    .map(|(at, figures)| (f64::from_bits(at), median(figures)))
                    .collect(),
            })
            .collect();
        ensure!(
            curves.iter().any(|curve| curve.points.len() > 1),
            "the reports are all of the same {}",
            self.along.name()
        );
        Ok(Chart {
            title: self.title(first),
            x: (self.along.name(), show::number),
            y: (self.figure.name(), show::number),
            along: Along::Magnitudes,
            curves,
        })
    }

    fn title(&self, setup: &Setup) -> String {
        let what = match self.figure {
            Figure::Memory => "memory",
            _ => &setup.scenario,
        };
        format!("{what}, by {}", self.along.name())
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let half = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[half]
    } else {
        (figures[half - 1] + figures[half]) / 2.0
    }
}
