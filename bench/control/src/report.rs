//! The figures, and how they are printed.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Write;

/// What one kind of change costs.
#[derive(Serialize, Deserialize)]
pub struct Cost {
    /// The change.
    pub what: String,
    /// CPU time of one, in microseconds, until everything about it is done.
    pub cpu_us: f64,
    /// Writes to the API server that one causes.
    pub writes: f64,
}

/// Figures of one size.
#[derive(Serialize, Deserialize)]
pub struct Size {
    /// Routes.
    pub routes: usize,
    /// CPU time from the first object to a published model, in milliseconds.
    pub start_cpu_ms: f64,
    /// The same by the clock on the wall.
    pub start_ms: f64,
    /// Until every status was written, in milliseconds.
    pub told_ms: f64,
    /// Resident memory after that, in MiB.
    pub rss_mib: f64,
    /// The part of it that isn't the binary's own pages: the heap, with what the allocator holds back.
    pub anonymous_mib: f64,
    /// The most that was resident until then.
    pub peak_mib: f64,
    /// Changes.
    pub costs: Vec<Cost>,
}

/// All sizes; ratios are to the first.
pub struct Report {
    /// In the order of the command line.
    pub sizes: Vec<Size>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, what: &str, of: &dyn Fn(&Size) -> f64, unit: &str| {
            write!(f, "| {what} |")?;
            let figures: Vec<f64> = self.sizes.iter().map(of).collect();
            for figure in &figures {
                write!(f, " {figure:.1} {unit} |")?;
            }
            match (figures.first(), figures.last()) {
                (Some(first), Some(last)) if *first > 0.0 => writeln!(f, " **{:.2}** |", last / first),
                _ => writeln!(f, " |"),
            }
        };
        write!(f, "| |")?;
        for size in &self.sizes {
            write!(f, " {} routes |", size.routes)?;
        }
        writeln!(f, " last ÷ first |\n|---|{}---|", "---|".repeat(self.sizes.len()))?;
        let changes = self.sizes.first().map(|size| &*size.costs).unwrap_or_default();
        for (index, cost) in changes.iter().enumerate() {
            row(f, &cost.what, &|size| size.costs.get(index).map_or(0.0, |cost| cost.cpu_us), "µs")?;
        }
        row(f, "start to serving, CPU", &|size| size.start_cpu_ms, "ms")?;
        row(f, "start to serving", &|size| size.start_ms, "ms")?;
        row(f, "start to all statuses written", &|size| size.told_ms, "ms")?;
        row(f, "resident memory", &|size| size.rss_mib, "MiB")?;
        row(f, "of it anonymous", &|size| size.anonymous_mib, "MiB")?;
        row(f, "resident at most", &|size| size.peak_mib, "MiB")
    }
}

/// Prints to standard output.
///
/// # Errors
/// When nobody reads it.
pub fn print(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
