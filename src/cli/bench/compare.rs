//! Reports side by side.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::{files::read, show};
use crate::load::{Report, Stage};

/// Compare reports.
#[derive(Debug, Args)]
pub(super) struct Compare {
    /// Reports that `--json` wrote; the others are compared with the first
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    reports: Vec<PathBuf>,
}

impl Compare {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let reports: Vec<Report> = self
            .reports
            .iter()
            .map(|path| read(path))
            .collect::<Result<_, _>>()?;
        let (base, others) = reports.split_first().context("there is no report")?;
        for (other, path) in others.iter().zip(&self.reports[1..]) {
            for line in compare(base, other, &path.display().to_string())? {
                println!("{line}");
            }
        }
        Ok(())
    }
}

/// The lines that say how `other` stands to `base`.
fn compare(base: &Report, other: &Report, name: &str) -> anyhow::Result<Vec<String>> {
    let mut lines = vec![
        format!("base   {}", show::title(&base.setup)),
        format!("other  {} ({name})", show::title(&other.setup)),
    ];
    for (report, which) in [(base, "the base"), (other, "the other")] {
        if let Some(void) = &report.void {
            lines.push(format!("VOID: {which} counts for nothing: {void}"));
        }
    }
    let mut rows = vec![["", "base", "other", "ratio"].map(str::to_owned)];
    for stage in &base.stages {
        let Some(twin) = other.stages.iter().find(|twin| twin.name == stage.name) else {
            continue;
        };
        for (what, pick, write) in &FIGURES {
            if let (Some(base), Some(other)) = (pick(stage), pick(twin)) {
                rows.push([
                    format!("{}: {what}", stage.name),
                    write(base),
                    write(other),
                    ratio(base, other),
                ]);
            }
        }
    }
    if let (Some(base), Some(other)) = (&base.memory, &other.memory) {
        let figures = [
            (
                "memory: bytes a stream",
                base.per_stream(),
                other.per_stream(),
            ),
            (
                "memory: KiB a connection",
                base.per_connection() / 1024.0,
                other.per_connection() / 1024.0,
            ),
            (
                "memory: MiB at most",
                show::mib(base.peak),
                show::mib(other.peak),
            ),
        ];
        rows.extend(figures.map(|(what, base, other)| {
            [
                what.to_owned(),
                show::number(base),
                show::number(other),
                ratio(base, other),
            ]
        }));
    }
    ensure!(
        rows.len() > 1,
        "the reports have nothing in common: {} and {}",
        base.setup.scenario,
        other.setup.scenario
    );
    lines.extend(show::aligned(&rows));
    Ok(lines)
}

type Figure = (&'static str, fn(&Stage) -> Option<f64>, fn(f64) -> String);

const FIGURES: [Figure; 4] = [
    ("a second", |stage| Some(stage.per_second()), show::number),
    ("a CPU second", Stage::per_cpu_second, show::number),
    (
        "p50",
        |stage| Some(stage.latency.as_ref()?.p50 as f64),
        micros,
    ),
    (
        "p99",
        |stage| Some(stage.latency.as_ref()?.p99 as f64),
        micros,
    ),
];

fn micros(value: f64) -> String {
    show::time(value as u64)
}

fn ratio(base: f64, other: f64) -> String {
    if base > 0.0 {
        format!("{:.2}", other / base)
    } else {
        String::new()
    }
}
