//! The process's own log: on stderr, one line an event, as text or JSON. Not the access log, which is the proxy's and
//! goes to stdout.

use clap::ValueEnum;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Begins logging.
///
/// # Errors
/// When `filter` isn't a list of directives such as `info` or `info,headgate_controller=debug`.
pub fn start(format: Format, filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Json => lines.json().flatten_event(true).init(),
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}
