//! The table and the plot of a result, for a page of the documentation.

use crate::bar::{self, Against, Judged};
use crate::report::{Idle, Outcome, Report, median, range};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- bench: what is between these marks is generated -->";
const END: &str = "<!-- bench: end -->";
/// The proxies, with the colours of their bars.
const PEERS: [(&str, &str); 4] =
    [("nginx", "#9aa5b1"), ("haproxy", "#5b8def"), ("envoy", "#b07cc6"), ("headgate", "#2f9e63")];

/// Where the results are that pages quote, from a page's folder.
const KEPT: &str = "../bench/results";

/// Writes all three: the table between the page's marks, the plot beside the page, with the page's name, and the result among
/// those that are kept.
pub fn write(page: &Path, result: &Path) -> Result<()> {
    let text = fs::read_to_string(result).with_context(|| result.display().to_string())?;
    let report: Report = serde_json::from_str(&text).with_context(|| result.display().to_string())?;
    let old = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let marks = || format!("{} has no marks: {BEGIN} and {END}", page.display());
    let (before, rest) = old.split_once(BEGIN).with_context(marks)?;
    let (_, after) = rest.split_once(END).with_context(marks)?;
    let plot = page.with_extension("svg");
    fs::write(&plot, svg(&report)).with_context(|| plot.display().to_string())?;
    let plot = plot.file_name().and_then(|name| name.to_str()).context("the page has no name")?;
    let name = result.file_name().and_then(|name| name.to_str()).context("the result has no name")?;
    let kept = page.parent().context("the page has no folder")?.join(KEPT).join(name);
    fs::write(&kept, &text).with_context(|| kept.display().to_string())?;
    let table = table(&report, plot, name)?;
    fs::write(page, format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
        .with_context(|| page.display().to_string())
}

fn table(report: &Report, plot: &str, result: &str) -> Result<String> {
    let mut out = format!("![CPU time per request as a multiple of nginx's]({plot})\n\n");
    let versions: Vec<_> = PEERS
        .iter()
        .filter_map(|(peer, _)| {
            let figure = report.results.iter().find_map(|outcome| outcome.of(peer))?;
            Some(format!("{peer} {}", figure.version))
        })
        .collect();
    out.push_str("| load | nginx | HAProxy | Envoy | Headgate | Headgate compared | per round | must | stretch | |\n|---|---|---|---|---|---|---|---|---|---|\n");
    for outcome in &report.results {
        let cell = |peer: &str| {
            outcome
                .of(peer)
                .map_or_else(|| "–".to_owned(), |figure| format!("{:.1} µs", median(&figure.cpu_micros)))
        };
        let cells = PEERS.map(|(peer, _)| cell(peer)).join(" | ");
        writeln!(out, "| {} | {cells} | {} |", outcome.about, judged(outcome))?;
    }
    out += &besides(report)?;
    let m = &report.machine;
    write!(
        out,
        "\n{} ({} CPUs), Linux {}, commit {}, `{}` build; {}; load average before {:.1}; every figure in [bench/results]({KEPT}/{result}).\n",
        m.cpu,
        m.cpus,
        m.kernel,
        m.commit,
        m.profile,
        versions.join(", "),
        m.busy_before
    )?;
    Ok(out)
}

/// Latency and memory, where they were measured.
fn besides(report: &Report) -> Result<String> {
    let mut out = String::new();
    if let Some(first) = report.latency.first() {
        write!(
            out,
            "\n\n| at {:.0} requests a second (70 % of nginx's rate here) | p50 | p99 |\n|---|---|---|\n",
            first.rate
        )?;
        for paced in &report.latency {
            let (p50, p99) = (median(&paced.p50), median(&paced.p99));
            writeln!(out, "| {} | {p50:.0} µs | {p99:.0} µs |", paced.peer)?;
        }
        if let Some(judged) = bar::judge_latency(&report.latency) {
            writeln!(out, "\n{} (must: {}) {}", value(&judged), must(&judged), judged.verdict().text())?;
        }
    }
    if let Some(first) = report.idle.first() {
        write!(
            out,
            "\n| {} idle connections, each used once | in clear text | over TLS 1.3 |\n|---|---|---|\n",
            first.connections
        )?;
        for (peer, _) in PEERS {
            let cell = |scenario| {
                let mut idle = report.idle.iter();
                let idle = idle.find(|idle| idle.scenario == scenario && idle.peer == peer);
                idle.map_or_else(|| "–".to_owned(), kib)
            };
            writeln!(out, "| {peer} | {} | {} |", cell("idle"), cell("idle-tls"))?;
        }
    }
    Ok(out)
}

/// Memory of a connection; Headgate's against its bar.
fn kib(idle: &Idle) -> String {
    match bar::judge_idle(idle).filter(|_| idle.peer == "headgate") {
        None => format!("{:.1} KiB", idle.kib_each),
        Some(judged) => format!(
            "{} (must: {}, stretch: {}) {}",
            value(&judged),
            must(&judged),
            stretch(&judged),
            judged.verdict().text()
        ),
    }
}

/// The last five cells of a row: what is compared, and a line for each bar.
fn judged(outcome: &Outcome) -> String {
    let all = bar::judge(outcome);
    if all.is_empty() {
        let plain = outcome.of("headgate").zip(outcome.of("headgate plain"));
        let Some((ours, plain)) = plain else { return "– | – | – | – | ".to_owned() };
        let more = bar::per_round(ours, plain, |ours, plain| ours - plain);
        let (least, most) = range(&more);
        let unit = Against::Plain.unit();
        return format!("{:+.2} {unit} | {least:+.2} to {most:+.2} | – | – | ", median(&more));
    }
    let lines = |line: fn(&Judged) -> String| all.iter().map(line).collect::<Vec<_>>().join("<br>");
    [
        lines(value),
        lines(rounds),
        lines(must),
        lines(stretch),
        lines(|judged| judged.verdict().text().to_owned()),
    ]
    .join(" | ")
}

fn value(judged: &Judged) -> String {
    let Judged { bar, value, .. } = judged;
    match bar.against {
        Against::Plain => format!("**{value:+.2}** {}", bar.against.unit()),
        Against::Kib => format!("**{value:.1}** {}", bar.against.unit()),
        Against::Nginx | Against::Haproxy | Against::Envoy | Against::NginxP99 => {
            format!("**{value:.2}** {}", bar.against.unit())
        }
    }
}

fn rounds(judged: &Judged) -> String {
    let (low, high) = range(&judged.rounds);
    match judged.bar.against {
        Against::Plain => format!("{low:+.2} to {high:+.2}"),
        Against::Kib | Against::Nginx | Against::Haproxy | Against::Envoy | Against::NginxP99 => {
            format!("{low:.2}–{high:.2}")
        }
    }
}

fn must(judged: &Judged) -> String {
    format!("{}", judged.bar.must)
}

fn stretch(judged: &Judged) -> String {
    judged.bar.stretch.map_or_else(|| "–".to_owned(), |stretch| format!("{stretch}"))
}

/// Pixels: of a bar's height, between groups, left of the bars, and of a ratio of 1.
const BAR: usize = 12;
const GAP: usize = 14;
const LEFT: usize = 150;
const ONE: f64 = 140.0;
/// Longer bars are cut.
const MOST: f64 = 4.0;

/// Bars of the ratios to nginx, a group for each scenario that has them.
fn svg(report: &Report) -> String {
    let (mut bars, mut y) = (String::new(), 30);
    for outcome in &report.results {
        let shown: Vec<_> = PEERS
            .iter()
            .filter_map(|(peer, colour)| Some((*peer, *colour, outcome.ratio(outcome.of(peer)?)?)))
            .collect();
        if shown.is_empty() {
            continue;
        }
        let middle = y + shown.len() * BAR / 2 + 4;
        bars += &format!(
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 8,
            outcome.scenario
        );
        for (peer, colour, ratio) in shown {
            let width = ratio.min(MOST) * ONE;
            bars += &format!(
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.0}\" height=\"{}\" fill=\"{colour}\"><title>{peer}</title></rect>\n\
                 <text x=\"{:.0}\" y=\"{}\" font-size=\"10\">{ratio:.2}</text>\n",
                BAR - 1,
                LEFT as f64 + width + 4.0,
                y + BAR - 3
            );
            y += BAR;
        }
        y += GAP;
    }
    let legend: String = PEERS
        .iter()
        .enumerate()
        .map(|(n, (peer, colour))| {
            let x = LEFT + n * 110;
            format!(
                "<rect x=\"{x}\" y=\"8\" width=\"11\" height=\"11\" fill=\"{colour}\"/><text x=\"{}\" y=\"18\">{peer}</text>\n",
                x + 16
            )
        })
        .collect();
    let (x, width) = (LEFT as f64 + ONE, LEFT as f64 + MOST * ONE + 50.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{y}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{legend}{bars}\
         <line x1=\"{x:.0}\" x2=\"{x:.0}\" y1=\"26\" y2=\"{y}\" stroke=\"#444\" stroke-dasharray=\"3 3\"/>\n</svg>\n"
    )
}
