//! `headgate version`.

use anyhow::Result;
use std::io::Write;

/// Version of this binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bundle version of the Gateway API whose resources this binary reads.
pub const GATEWAY_API: &str = "v1.7.0";

/// Prints both.
pub fn run() -> Result<()> {
    writeln!(std::io::stdout(), "headgate {VERSION} (Gateway API {GATEWAY_API}, experimental channel)")?;
    Ok(())
}
