//! `seventh history`

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::SystemTime,
};

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::history::{Checked, Cut, check, cut};

/// How many topics are shown.
const TOPICS: usize = 20;

/// Look at the history of a directory, and mend it. The edge that has it must not run.
#[derive(Debug, Args)]
pub(super) struct History {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show how large it is, how old, and which topics it holds.
    Show(Directory),
    /// Read all of it, and say what is damaged.
    Check(Directory),
    /// Cut out what is damaged: the rest is gone on with, and readers who come across what is missing are told.
    Cut(Directory),
}

#[derive(Debug, Args)]
struct Directory {
    /// The directory, as `history.directory` has it
    #[arg(value_name = "DIR")]
    path: PathBuf,
}

impl History {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Show(directory) => Ok(show(&check(&directory.path)?)?),
            What::Check(directory) => {
                let checked = check(&directory.path)?;
                let damaged = report(&checked)?;
                if damaged == 0 {
                    return Ok(());
                }
                let directory = directory.path.display();
                let remedy = if checked.is_shared {
                    "empty the directory, and its edge reads it again from the servers".to_owned()
                } else {
                    format!("`seventh history cut {directory}` goes on without them")
                };
                bail!("history is damaged in {damaged} places; {remedy}");
            }
            What::Cut(directory) => Ok(told(&cut(&directory.path)?)?),
        }
    }
}

fn show(checked: &Checked) -> io::Result<()> {
    let mut out = io::stdout().lock();
    summary(&mut out, checked)?;
    let mut topics: Vec<_> = checked.topics.iter().collect();
    topics.sort_by_key(|(name, (_, bytes))| (std::cmp::Reverse(*bytes), *name));
    if !topics.is_empty() {
        writeln!(out, "\n{:>12}  {:>12}  topic", "events", "bytes")?;
    }
    for (name, (events, bytes)) in topics.iter().take(TOPICS) {
        writeln!(out, "{events:>12}  {bytes:>12}  {name}")?;
    }
    if let Some(more) = topics.len().checked_sub(TOPICS + 1) {
        writeln!(out, "and {} topics more", more + 1)?;
    }
    out.flush()
}

fn summary(out: &mut impl io::Write, checked: &Checked) -> io::Result<()> {
    let Checked {
        segments, topics, ..
    } = checked;
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let events: u64 = topics.values().map(|(events, _)| events).sum();
    if let Some(epoch) = checked.epoch {
        writeln!(out, "epoch     {epoch}")?;
    }
    writeln!(out, "segments  {}, {bytes} bytes", segments.len())?;
    writeln!(
        out,
        "events    {events} in {} topics, each counted in all of its topics",
        topics.len()
    )?;
    let ages = || segments.iter().filter_map(|segment| segment.ages);
    if let (Some((first, _)), Some((_, last))) = (ages().next(), ages().next_back()) {
        writeln!(out, "from      {}", time(first))?;
        writeln!(out, "to        {}", time(last))?;
    }
    for range in &checked.lost {
        let what = if range.is_damage {
            "cut out"
        } else {
            "not given, or lost in a crash"
        };
        writeln!(out, "numbers   {} to {}: {what}", range.from, range.through)?;
    }
    Ok(())
}

fn time(at: SystemTime) -> impl std::fmt::Display {
    humantime::format_rfc3339_seconds(at)
}

/// Says how each segment is; in how many places history is damaged.
fn report(checked: &Checked) -> io::Result<usize> {
    let mut out = io::stdout().lock();
    summary(&mut out, checked)?;
    writeln!(out)?;
    for segment in &checked.segments {
        let (first, next) = segment.numbers;
        let numbers = if first == next {
            "no entries".to_owned()
        } else {
            format!("entries {first} to {}", next - 1)
        };
        let state = match (&segment.damage, segment.torn) {
            (Some(damage), _) => format!("damaged at byte {}", damage.offset),
            (None, 0) => "good".to_owned(),
            (None, torn) => {
                format!(
                    "good, but for {torn} bytes that a crash left half written: the next start cuts them off"
                )
            }
        };
        writeln!(
            out,
            "{}: {} bytes, {numbers}: {state}",
            segment.file, segment.bytes
        )?;
    }
    for range in &checked.missing {
        let (from, through) = (range.from, range.through);
        writeln!(
            out,
            "entries {from} to {through} are missing: a file is not there"
        )?;
    }
    out.flush()?;
    let damaged = checked.segments.iter();
    let damaged = damaged.filter(|segment| segment.damage.is_some()).count();
    Ok(damaged + checked.missing.len())
}

fn told(cuts: &[Cut]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if cuts.is_empty() {
        writeln!(out, "nothing is damaged")?;
    }
    for Cut {
        damage,
        saved,
        lost,
    } in cuts
    {
        let (from, through) = (lost.from, lost.through);
        writeln!(
            out,
            "{damage}: numbers {from} to {through} are lost, as far as they were given"
        )?;
        if let Some(saved) = saved {
            writeln!(out, "the file as it was is {saved}")?;
        }
    }
    out.flush()
}
