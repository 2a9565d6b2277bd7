//! The results as a table and as a chart.

use std::{fmt::Write as _, fs, path::Path};

use plotters::prelude::*;

use crate::{
    Outcomes,
    peers::Peer,
    works::{Figure, Work},
};

/// The median, the least and the most of figures.
#[derive(Clone, Copy, Debug)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: *values.get(values.len() / 2)?,
            least: *values.first()?,
            most: *values.last()?,
        })
    }
}

/// Writes `table.md` and `chart.svg`.
pub(crate) fn write(
    out: &Path,
    works: &[&Work],
    peers: &[Peer],
    outcomes: &Outcomes,
) -> anyhow::Result<()> {
    let rounds = outcomes.0.iter().map(|outcome| outcome.reports.len()).max();
    let rounds = rounds.unwrap_or(0);
    let mut text = String::new();
    let cores = std::thread::available_parallelism()?;
    writeln!(
        text,
        "`make compare`, median of {rounds} rounds with half of the spread, peers in turn in each; {cores} cores, {}; server \
         and client on one machine. In brackets: how often Seventh's figure is better.\n",
        processor()
    )?;
    let names: Vec<&str> = peers.iter().map(|peer| peer.name()).collect();
    writeln!(text, "| work | {} |", names.join(" | "))?;
    writeln!(text, "|---|{}", "---|".repeat(names.len()))?;
    let mut notes = Vec::new();
    for work in works {
        for figure in work.figures {
            let own = spread(outcomes, work, Peer::Seventh, *figure);
            write!(text, "| {}: {} |", work.name, figure.unit())?;
            for peer in peers {
                let cell = match spread(outcomes, work, *peer, *figure) {
                    Some(spread) => {
                        let mut cell = cell(spread, *peer, own, *figure);
                        if *peer == Peer::Nchan && work.http == "3" {
                            cell += " over HTTP/2";
                        }
                        let outcome = outcomes.get(work, *peer);
                        if let Some(why) = outcome.and_then(|outcome| outcome.why_not.clone()) {
                            cell += &format!(" [{}]", note(&mut notes, why));
                        }
                        cell
                    }
                    None => {
                        let outcome = outcomes.get(work, *peer);
                        let why = outcome.and_then(|outcome| outcome.why_not.clone());
                        let why = why.unwrap_or_else(|| "too little to be measured".into());
                        // What is short can stand there; what is long is told below, once.
                        if why.len() < 30 {
                            why
                        } else {
                            format!("[{}]", note(&mut notes, why))
                        }
                    }
                };
                write!(text, " {cell} |")?;
            }
            text.push('\n');
        }
    }
    for (number, note) in notes.iter().enumerate() {
        writeln!(text, "\n[{}] {note}", number + 1)?;
    }
    writeln!(text)?;
    for peer in peers {
        match peer.missing() {
            Some(why) => writeln!(text, "- {}: not here, {why}", peer.name())?,
            None => writeln!(text, "- {}: {}", peer.name(), peer.version())?,
        }
    }
    println!("\n{text}");
    fs::write(out.join("table.md"), &text)?;
    fs::write(out.join("chart.svg"), chart(works, peers, outcomes)?)?;
    println!("written to {}", out.display());
    Ok(())
}

/// The number of a note, which is told once.
fn note(notes: &mut Vec<String>, text: String) -> usize {
    let known = notes.iter().position(|note| *note == text);
    known.unwrap_or_else(|| {
        notes.push(text);
        notes.len() - 1
    }) + 1
}

fn spread(outcomes: &Outcomes, work: &Work, peer: Peer, figure: Figure) -> Option<Spread> {
    let outcome = outcomes.get(work, peer)?;
    let values = outcome
        .reports
        .iter()
        .filter_map(|report| figure.of(report));
    Spread::of(values.collect())
}

fn cell(spread: Spread, peer: Peer, own: Option<Spread>, figure: Figure) -> String {
    let Spread {
        median,
        least,
        most,
    } = spread;
    let half = if median > 0.0 {
        50.0 * (most - least) / median
    } else {
        0.0
    };
    let mut cell = format!("{} ±{half:.0} %", number(median));
    if peer == Peer::Seventh {
        cell = format!("**{cell}**");
    } else if let Some(own) = own {
        let better = if figure.is_cost() {
            median / own.median
        } else {
            own.median / median
        };
        let digits = usize::from(better < 10.0) + 1;
        write!(cell, " ({better:.digits$}x)").expect("text");
    }
    cell
}

fn number(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{:.2}M", value / 1e6),
        value if value >= 9_995.0 => format!("{:.0}k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The processor, as Linux names it.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':'));
    name.map_or("processor unknown", |(_, name)| name.trim())
        .to_owned()
}

const ROW: i32 = 26;
const LEFT: i32 = 250;
const WIDE: i32 = 470;
const COLORS: [RGBColor; 7] = [
    RGBColor(0x1f, 0x6f, 0xb4),
    RGBColor(0x8c, 0xb3, 0x69),
    RGBColor(0xd9, 0x8c, 0x4a),
    RGBColor(0x9a, 0x86, 0xc8),
    RGBColor(0xc8, 0x6b, 0x85),
    RGBColor(0x7a, 0xa8, 0xa8),
    RGBColor(0x99, 0x99, 0x99),
];

/// For each work a bar for each peer, as long as its figure is of the best.
fn chart(works: &[&Work], peers: &[Peer], outcomes: &Outcomes) -> anyhow::Result<String> {
    let mut groups = Vec::new();
    for work in works {
        let figure = work.figures[0];
        let bars: Vec<(Peer, f64)> = peers
            .iter()
            .filter_map(|peer| Some((*peer, spread(outcomes, work, *peer, figure)?.median)))
            .collect();
        if bars.len() > 1 {
            groups.push((work, figure, bars));
        }
    }
    let bars: usize = groups.iter().map(|(_, _, bars)| bars.len()).sum();
    let height = 20 + bars as i32 * (ROW - 8) + groups.len() as i32 * ROW;
    let mut svg = String::new();
    {
        let size = ((LEFT + WIDE + 120) as u32, height.max(60) as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let draw = |error| anyhow::anyhow!("cannot draw: {error}");
        root.fill(&WHITE).map_err(draw)?;
        let font = ("sans-serif", 13).into_font();
        let mut y = 10;
        for (work, figure, bars) in &groups {
            let better = if figure.is_cost() {
                "less is better"
            } else {
                "more is better"
            };
            let title = format!("{}: {}, {better}", work.name, figure.unit());
            root.draw(&Text::new(title, (8, y), font.clone()))
                .map_err(draw)?;
            y += ROW - 6;
            let most = bars.iter().map(|(_, value)| *value).fold(1e-9, f64::max);
            for (peer, value) in bars {
                let at = Peer::ALL.iter().position(|one| one == peer).unwrap_or(0);
                let end = LEFT + (value / most * f64::from(WIDE)) as i32;
                let bar = Rectangle::new([(LEFT, y), (end, y + 12)], COLORS[at].filled());
                root.draw(&bar).map_err(draw)?;
                let name = Text::new(peer.name(), (LEFT - 90, y), font.clone());
                root.draw(&name).map_err(draw)?;
                let label = Text::new(number(*value), (end + 6, y), font.clone());
                root.draw(&label).map_err(draw)?;
                y += ROW - 8;
            }
            y += 6;
        }
        root.present().map_err(draw)?;
    }
    Ok(svg)
}
