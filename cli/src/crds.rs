//! `headgate crds`.

use anyhow::Result;
use std::io::Write;

/// Prints the definitions of Headgate's own resources, one YAML document each.
pub fn run() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for crd in headgate_crds::all() {
        writeln!(out, "---")?;
        serde_yaml_ng::to_writer(&mut out, &crd)?;
    }
    Ok(())
}
