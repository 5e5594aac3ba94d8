//! Prints the definitions of Headgate's own resources as their types say, one YAML document each. `hack/crds.sh` writes them
//! to the chart, from where `headgate crds` has them.

use std::error::Error;
use std::io::Write;

/// What is no text to readers of YAML 1.1, kubectl and Helm among them, unless it is quoted.
const BOOLEANS: [&str; 6] = ["On", "Off", "on", "off", "Yes", "No"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    for crd in headgate_crds::all() {
        writeln!(out, "---")?;
        for line in serde_yaml_ng::to_string(&crd)?.lines() {
            match line.split_once("- ") {
                Some((indent, word)) if indent.trim().is_empty() && BOOLEANS.contains(&word) => {
                    writeln!(out, "{indent}- \"{word}\"")?;
                }
                Some(_) | None => writeln!(out, "{line}")?,
            }
        }
    }
    Ok(())
}
