//! A report as one page for a browser, which needs nothing else.

use super::{
    chart::{Along, Chart, Curve},
    show,
};
use crate::load::{Report, Sample};

/// The page of a report.
///
/// # Errors
///
/// When a chart cannot be drawn.
pub(super) fn of(report: &Report) -> anyhow::Result<String> {
    let title = escape(&show::title(&report.setup));
    let head: String = show::COLUMNS
        .iter()
        .map(|column| format!("<th>{column}</th>"))
        .collect();
    let rows: String = report
        .stages
        .iter()
        .map(|stage| {
            let cells = show::row(stage).map(|cell| format!("<td>{}</td>", escape(&cell)));
            format!("<tr>{}</tr>\n", cells.concat())
        })
        .collect();
    let notes: String = show::notes(report)
        .iter()
        .map(|note| {
            let class = if note.starts_with("VOID") {
                " class=void"
            } else {
                ""
            };
            format!("<li{class}>{}</li>\n", escape(note))
        })
        .collect();
    let mut charts = String::new();
    for chart in charts_of(report) {
        charts += &format!("<figure>{}</figure>\n", chart.svg()?);
    }
    Ok(format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n<p>{}</p>\n\
         <table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>\n<ul>{notes}</ul>\n{charts}</html>\n",
        escape(&machine(report))
    ))
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
    color:#222;background:#fff}h1{font-size:1.25rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
    th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\
    th:first-child,td:first-child{text-align:left}figure{margin:1.5rem 0}svg{max-width:100%;height:auto}\
    .void{color:#b00020;font-weight:600}";

fn machine(report: &Report) -> String {
    let began = std::time::UNIX_EPOCH + std::time::Duration::from_secs(report.began);
    format!(
        "{}; {} cores for the harness{}.",
        humantime::format_rfc3339_seconds(began),
        report.setup.cores,
        if report.interrupted {
            "; ended before its time"
        } else {
            ""
        }
    )
}

fn charts_of(report: &Report) -> Vec<Chart> {
    let latencies: Vec<Curve> = report
        .stages
        .iter()
        .filter_map(|stage| {
            let points = stage.latency.as_ref()?.curve.iter();
            Some(Curve {
                name: stage.name.clone(),
                points: points
                    .filter(|(quantile, _)| *quantile < 1.0)
                    .map(|(quantile, micros)| (-(1.0 - quantile).log10(), *micros as f64 / 1e3))
                    .collect(),
            })
        })
        .collect();
    let timeline = |name: &str, pick: &dyn Fn(&Sample) -> Option<f64>| Curve {
        name: name.into(),
        points: report
            .timeline
            .iter()
            .filter_map(|sample| Some((sample.at, pick(sample)?)))
            .collect(),
    };
    let seconds: (&str, fn(f64) -> String) = ("seconds", |x| format!("{x:.0}"));
    let charts = vec![
        Chart {
            title: "Latency".into(),
            x: ("percentile", percentile),
            y: ("ms", |y| format!("{y:.1}")),
            along: Along::Differences,
            curves: latencies,
        },
        Chart {
            title: "Deliveries and answers".into(),
            x: seconds,
            y: ("a second", show::number),
            along: Along::Differences,
            curves: vec![timeline("", &|sample| Some(sample.per_second))],
        },
        Chart {
            title: "CPU time of the server".into(),
            x: seconds,
            y: ("% of a core", |y| format!("{y:.0}")),
            along: Along::Differences,
            curves: vec![
                smooth(timeline("all", &|sample| Some(sample.cpu?.total() * 100.0))),
                smooth(timeline("user", &|sample| Some(sample.cpu?.user * 100.0))),
                smooth(timeline("kernel", &|sample| {
                    Some(sample.cpu?.kernel * 100.0)
                })),
            ],
        },
        Chart {
            title: "Memory of the server".into(),
            x: seconds,
            y: ("MiB", |y| format!("{y:.0}")),
            along: Along::Differences,
            curves: vec![timeline("", &|sample| sample.memory.map(show::mib))],
        },
    ];
    let is_there = |chart: &Chart| chart.curves.iter().any(|curve| curve.points.len() > 1);
    charts.into_iter().filter(is_there).collect()
}

/// The mean of a second, as the system counts CPU time in hundredths of one.
fn smooth(curve: Curve) -> Curve {
    const SAMPLES: usize = 4;
    let mean = |at: usize| {
        let points = &curve.points[(at + 1).saturating_sub(SAMPLES)..=at];
        points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64
    };
    Curve {
        points: (0..curve.points.len())
            .map(|at| (curve.points[at].0, mean(at)))
            .collect(),
        ..curve
    }
}

/// A place of the axis of percentiles, on which each step is a tenth of what is left.
fn percentile(x: f64) -> String {
    let percent = 100.0 * (1.0 - 10f64.powf(-x));
    let digits = (x.ceil() as usize).saturating_sub(1).min(5);
    format!("{percent:.digits$}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_of_percentiles_counts_nines() {
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0].map(percentile),
            ["0", "90", "99.0", "99.90"]
        );
    }

    #[test]
    fn what_a_server_says_is_no_markup() {
        assert_eq!(escape("<b>&"), "&lt;b&gt;&amp;");
    }
}
