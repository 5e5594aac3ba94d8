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

/// Libraries that warn of what clients send: whoever likes could fill the log, and choose what is in it.
const QUIET: &str = "rustls=error";

/// Begins logging.
///
/// # Errors
/// When `filter` isn't a list of directives such as `info` or `info,headgate_controller=debug`.
pub fn start(format: Format, filter: &str) -> Result<(), ParseError> {
    let filter = self::filter(filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Json => lines.json().flatten_event(true).init(),
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}

/// What is logged; directives for libraries that are quiet otherwise count.
fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{QUIET},{directives}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_clients_make_talk_are_quiet_unless_they_are_asked() {
        for (directives, all) in [
            ("info", &["rustls=error", "info"][..]),
            ("debug,headgate_proxy=trace", &["headgate_proxy=trace", "rustls=error", "debug"]),
            ("info,rustls=debug", &["rustls=debug", "info"]),
        ] {
            assert_eq!(filter(directives).unwrap().to_string().split(',').collect::<Vec<_>>(), all);
        }
        assert!(filter("rustls=loud").is_err());
    }
}
