//! A run while it goes on, and its figures at the end, for a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::load::{Cpu, Progress, Report, Sample, Setup, Stage};

/// The line of a run that goes on.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::no_length();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, of: Option<u64>) {
        let template = match of {
            Some(_) => "{prefix} {wide_bar} {pos}/{len}",
            None => "{spinner} {prefix} {msg}",
        };
        self.0.reset();
        self.0
            .set_style(ProgressStyle::with_template(template).expect("a template"));
        self.0.set_prefix(what.to_owned());
        match of {
            Some(of) => self.0.set_length(of),
            None => self.0.unset_length(),
        }
    }

    fn at(&self, done: u64, sample: &Sample) {
        self.0.set_position(match &*self.0.prefix() {
            "connecting" => sample.connections as u64,
            "opening streams" => sample.streams as u64,
            _ => done,
        });
        let mut line = format!(
            "{:.1} s, {} streams, {} in all, {:.0} a second",
            sample.at, sample.streams, done, sample.per_second
        );
        if let (Some(cpu), Some(memory)) = (sample.cpu, sample.memory) {
            line += &format!(
                ", server at {:.0} % of a core and {:.0} MiB",
                cpu.total() * 100.0,
                mib(memory)
            );
        }
        self.0.set_message(line);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What was done, in a line.
pub(super) fn title(setup: &Setup) -> String {
    let Setup {
        server,
        scenario,
        protocol,
        connections,
        streams,
        topics,
        rate,
        size,
        missed,
        ..
    } = setup;
    let what = match scenario.as_str() {
        "proxy" => "requests at a time",
        _ => "streams",
    };
    let mut title = format!(
        "{server}, {scenario}: {connections} connections x {streams} {what} over {protocol}"
    );
    if *topics > 1 {
        title += &format!(", {topics} topics");
    }
    match (scenario.as_str(), rate) {
        ("replay", _) => title += &format!(", {missed} events of {size} bytes missed"),
        ("connect" | "proxy", _) => {}
        (_, Some(0.0)) => title += ", idle",
        (_, Some(rate)) => title += &format!(", {rate} events of {size} bytes a second"),
        (_, None) => title += &format!(", events of {size} bytes flat out"),
    }
    if setup.pinned {
        title += ", server and harness on cores of their own";
    }
    title
}

/// The head of the table of stages, and its rows.
pub(super) const COLUMNS: [&str; 10] = [
    "",
    "count",
    "a second",
    "a CPU second",
    "user s",
    "kernel s",
    "p50",
    "p90",
    "p99",
    "max",
];

pub(super) fn row(stage: &Stage) -> [String; 10] {
    let at = |pick: fn(&crate::load::Latency) -> u64| {
        stage
            .latency
            .as_ref()
            .map_or(String::new(), |latency| time(pick(latency)))
    };
    let cpu = |pick: fn(&Cpu) -> f64| {
        stage
            .cpu
            .map_or(String::new(), |cpu| format!("{:.2}", pick(&cpu)))
    };
    [
        stage.name.clone(),
        format!("{} {}", stage.count, stage.unit),
        number(stage.per_second()),
        stage.per_cpu_second().map_or(String::new(), number),
        cpu(|cpu| cpu.user),
        cpu(|cpu| cpu.kernel),
        at(|latency| latency.p50),
        at(|latency| latency.p90),
        at(|latency| latency.p99),
        at(|latency| latency.max),
    ]
}

/// Prints the figures.
pub(super) fn print(report: &Report) {
    println!("{}", title(&report.setup));
    let head = COLUMNS.map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head)
        .chain(report.stages.iter().map(row))
        .collect();
    for line in aligned(&rows) {
        println!("{line}");
    }
    for line in notes(report) {
        println!("{line}");
    }
}

/// What no table of stages holds, line by line.
pub(super) fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(memory) = &report.memory {
        let mut line = format!("memory: {:.1} MiB before", mib(memory.before));
        if memory.connections > 0 {
            line += &format!(", {:.1} MiB with the connections", mib(memory.connected));
        }
        if memory.streams > 0 {
            line += &format!(
                ", {:.1} MiB with the streams: {:.1} KiB a connection, {:.0} bytes a stream, all included",
                mib(memory.streaming),
                memory.per_connection() / 1024.0,
                memory.per_stream()
            );
        }
        notes.push(format!("{line}; at most {:.1} MiB", mib(memory.peak)));
    }
    if let Some(stage) = report.stages.last()
        && let Some(cpu) = stage.cpu
        && stage.elapsed > 0.0
    {
        notes.push(format!(
            "CPU of {}: server {:.1} % of a core, harness {:.1} %",
            stage.name,
            100.0 * cpu.total() / stage.elapsed,
            100.0 * stage.client_cpu.total() / stage.elapsed
        ));
    }
    let check = &report.check;
    if check.expected > 0 {
        notes.push(format!(
            "check: {} published, {} of {} deliveries came, {} lost, {} twice, {} out of order; {} keepalives",
            check.published,
            check.delivered,
            check.expected,
            check.lost,
            check.repeated,
            check.disordered,
            check.keepalives
        ));
    }
    if check.requests_failed > 0 {
        notes.push(format!(
            "{} of {} requests were answered with an error",
            check.requests_failed, check.requests
        ));
    }
    if let Some(void) = &report.void {
        notes.push(format!("VOID: {void}"));
    }
    notes
}

/// Rows as lines whose columns stand below each other, the first to the left and the others to the right.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(widths).enumerate();
            let cells = cells.map(|(n, (cell, width))| match n {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// A count of something, to three digits that say something.
pub(super) fn number(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{:.2}M", value / 1e6),
        value if value >= 9_995.0 => format!("{:.1}k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

/// A time of so many microseconds.
pub(super) fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
