//! The figures, the bars, and how they are printed and kept.

use crate::churn::{Sample, Tally};
use crate::process::Memory;
use anyhow::{Context, Result};
use headgate_bench::machine::Machine;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The size that most bars are about.
const JUDGED: usize = 5_000;

/// Quantiles of a figure.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Spread {
    /// Of so many values.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of values; each is one of them.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let rank = (sorted.len() as f64 * part).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        Self { count: sorted.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// One start, in milliseconds from the moment when the process was made.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Start {
    /// `/readyz` answers 200.
    pub ready_ms: f64,
    /// That, and the last route answers.
    pub serves_ms: f64,
    /// CPU time that it had used then.
    pub cpu_ms: f64,
}

/// Figures of one size.
#[derive(Deserialize, Serialize)]
pub struct Size {
    /// Routes.
    pub routes: usize,
    /// The first start, when there is no Service, and no route has a status.
    pub first: Start,
    /// Until all of that was written, and nothing was left to do.
    pub told_ms: f64,
    /// CPU time that it had used then.
    pub told_cpu_ms: f64,
    /// Later starts.
    pub starts: Vec<Start>,
    /// After all statuses were written.
    pub memory_first: Memory,
    /// After the last start, once it was quiet.
    pub memory: Memory,
    /// After the edits.
    pub memory_after: Memory,
    /// From sending a route to the API server until the first right answer.
    pub answered_ms: Spread,
    /// Of routes that were there before.
    pub edited_ms: Spread,
    /// Of routes that weren't.
    pub created_ms: Spread,
    /// From sending a route to the API server until a watch of our own told of it.
    pub told_after_ms: Spread,
    /// From then until the first right answer.
    pub answered_after_told_ms: Spread,
    /// What Headgate itself says of the time between an event and its publication; upper bounds. Not every version counts it.
    pub publish_delay_ms: Option<Spread>,
    /// CPU time of an edit, its status included, in µs: all of Headgate.
    pub cpu_us: f64,
    /// The control plane's thread.
    pub control_cpu_us: f64,
    /// The rate of edits that was reached.
    pub edits_per_second: f64,
    /// Requests to routes that nobody edited.
    pub stable: Tally,
    /// Requests to routes that were edited or created.
    pub sampled: Tally,
    /// CPUs that others than this benchmark used during the edits: figures of a busy machine are not to be trusted.
    pub cpus_of_others: f64,
    /// CPUs that Headgate used then.
    pub cpus_of_headgate: f64,
    /// And the API server with etcd.
    pub cpus_of_cluster: f64,
    /// How often the API server collected garbage then, which takes both CPUs for seconds.
    pub collections: u64,
    /// Each route that was edited or created one by one.
    pub samples: Vec<Sample>,
}

impl Size {
    /// The start in the middle, of those after the first.
    fn start(&self) -> Spread {
        Spread::of(self.starts.iter().map(|start| start.serves_ms))
    }

    fn failures(&self) -> usize {
        self.stable.failures + self.sampled.failures
    }
}

/// All of it.
#[derive(Deserialize, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// In the order of the command line; ratios are to the first.
    pub sizes: Vec<Size>,
}

/// A bar of a row.
#[derive(Clone, Copy)]
enum Bar {
    /// None.
    None,
    /// For [`JUDGED`] routes.
    AtMost(f64, &'static str),
    /// For all.
    Zero,
    /// For the last, as a multiple of the first.
    Ratio(f64),
}

struct Row {
    what: &'static str,
    of: fn(&Size) -> String,
    judged: fn(&Size) -> f64,
    bar: Bar,
}

const fn told(what: &'static str, of: fn(&Size) -> String) -> Row {
    Row { what, of, judged: |_| f64::NAN, bar: Bar::None }
}

const fn judged(what: &'static str, of: fn(&Size) -> String, judged: fn(&Size) -> f64, bar: Bar) -> Row {
    Row { what, of, judged, bar }
}

const STARTS: [Row; 6] = [
    judged(
        "start to serving, median / slowest, ms",
        |size| format!("{:.0} / {:.0}", size.start().p50, size.start().max),
        |size| size.start().p50,
        Bar::AtMost(1000.0, "ms"),
    ),
    told("the first start of all, ms", |size| format!("{:.0}", size.first.serves_ms)),
    told("until all statuses are written; CPU time for it, ms", |size| {
        format!("{:.0}; {:.0}", size.told_ms, size.told_cpu_ms)
    }),
    judged(
        "RSS / PSS / anonymous after a start, MB",
        |size| memory(size.memory),
        |size| size.memory.rss_mb,
        Bar::AtMost(40.0, "MB"),
    ),
    judged(
        "after the first start and its statuses, MB",
        |size| memory(size.memory_first),
        |size| size.memory_first.rss_mb,
        Bar::AtMost(40.0, "MB"),
    ),
    judged(
        "after the edits, MB",
        |size| memory(size.memory_after),
        |size| size.memory_after.rss_mb,
        Bar::AtMost(40.0, "MB"),
    ),
];

const CHANGES: [Row; 8] = [
    judged(
        "apply → first right answer, p50 / p99, ms",
        |size| spread(&size.answered_ms),
        |size| size.answered_ms.p99,
        Bar::AtMost(30.0, "ms"),
    ),
    told("of edited routes, ms", |size| spread(&size.edited_ms)),
    told("of new routes, ms", |size| spread(&size.created_ms)),
    told("apply → watch event, p50 / p99, ms", |size| spread(&size.told_after_ms)),
    told("watch event → first right answer, p50 / p99, ms", |size| spread(&size.answered_after_told_ms)),
    judged(
        "watch event → published, p50 / p99 at most, ms",
        |size| size.publish_delay_ms.as_ref().map_or("–".to_owned(), spread),
        |size| size.publish_delay_ms.map_or(f64::NAN, |delay| delay.p99),
        Bar::AtMost(10.0, "ms"),
    ),
    judged("CPU of an edit, µs", |size| format!("{:.0}", size.cpu_us), |size| size.cpu_us, Bar::Ratio(2.0)),
    judged(
        "of which the control plane's thread, µs",
        |size| format!("{:.0}", size.control_cpu_us),
        |size| size.control_cpu_us,
        Bar::Ratio(2.0),
    ),
];

const REQUESTS: [Row; 5] = [
    judged(
        "failed requests, routes that nobody edits",
        |size| tally(&size.stable),
        |size| size.stable.failures as f64,
        Bar::Zero,
    ),
    judged(
        "wrong answers, routes that are edited",
        |size| tally(&size.sampled),
        |size| size.sampled.failures as f64,
        Bar::Zero,
    ),
    told("samples; edits a second", |size| format!("{}; {:.0}", size.samples.len(), size.edits_per_second)),
    told("CPUs: Headgate, API server and etcd, others", |size| {
        format!("{:.2}, {:.2}, {:.2}", size.cpus_of_headgate, size.cpus_of_cluster, size.cpus_of_others)
    }),
    told("collections of garbage by the API server meanwhile", |size| size.collections.to_string()),
];

impl Report {
    /// Whether nothing failed that must not.
    pub fn is_sound(&self) -> bool {
        self.sizes.iter().all(|size| size.failures() == 0)
    }

    /// Writes the JSON into `folder`; returns the file.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let commit = self.machine.commit.trim_end_matches('+');
        let file = folder.join(format!("{}-{commit}-scale.json", self.machine.time));
        fs::write(&file, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| file.display().to_string())?;
        Ok(file)
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
        write!(f, "| {} |", row.what)?;
        for size in &self.sizes {
            write!(f, " {} |", (row.of)(size))?;
        }
        let met = |met: bool| if met { "✓" } else { "✗ **missed**" };
        match row.bar {
            Bar::None => writeln!(f, " |"),
            Bar::AtMost(bar, unit) => {
                let judged = self.sizes.iter().find(|size| size.routes == JUDGED).map(row.judged);
                let verdict = judged.filter(|value| value.is_finite()).map_or("", |value| met(value <= bar));
                writeln!(f, " {bar} {unit} at {JUDGED} {verdict} |")
            }
            Bar::Zero => {
                writeln!(f, " 0 {} |", met(self.sizes.iter().all(|size| (row.judged)(size) == 0.0)))
            }
            Bar::Ratio(bar) => match (self.sizes.first(), self.sizes.last()) {
                (Some(first), Some(last)) if first.routes != last.routes => {
                    let ratio = (row.judged)(last) / (row.judged)(first);
                    writeln!(f, " last ÷ first ≤ {bar}: {ratio:.2} {} |", met(ratio <= bar))
                }
                _ => writeln!(f, " |"),
            },
        }
    }
}

fn spread(spread: &Spread) -> String {
    format!("{:.1} / {:.1}", spread.p50, spread.p99)
}

fn memory(memory: Memory) -> String {
    format!("{:.1} / {:.1} / {:.1}", memory.rss_mb, memory.pss_mb, memory.anonymous_mb)
}

fn tally(tally: &Tally) -> String {
    format!("{} of {}", tally.failures, tally.requests)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.machine;
        let headgate = m.headgate.as_deref().unwrap_or_default();
        writeln!(
            f,
            "{} ({} CPUs), Linux {}, commit {}, {headgate}, {} build; load before {:.1}\n",
            m.cpu, m.cpus, m.kernel, m.commit, m.profile, m.busy_before
        )?;
        write!(f, "| |")?;
        for size in &self.sizes {
            write!(f, " {} routes |", size.routes)?;
        }
        writeln!(f, " bar |\n|---|{}---|", "---|".repeat(self.sizes.len()))?;
        STARTS.iter().chain(&CHANGES).chain(&REQUESTS).try_for_each(|row| self.row(f, row))?;
        let words = self.sizes.iter().flat_map(|size| size.stable.words.iter().chain(&size.sampled.words));
        words.into_iter().try_for_each(|words| writeln!(f, "failed: {words}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn quantiles_are_values() {
        let spread = Spread::of((1..=200).map(f64::from));
        assert_eq!((spread.p50, spread.p99, spread.max), (100.0, 198.0, 200.0));
        assert!(Spread::of(std::iter::empty()).p50.is_nan());
    }
}
