//! Lengths of time, as Gateway API writes them (GEP-2257), within the bounds that the definitions have: what comes from files was seen
//! by no API server.

use std::str::FromStr;
use std::time::Duration;

/// The shortest and the longest, as they are told.
pub(super) type Bounds = (&'static str, &'static str);

/// Reads a length of time that is bounded.
pub(super) fn within(text: &str, (least, most): Bounds) -> Result<Duration, String> {
    let time = parse(text)?;
    let is_within = parse(least)? <= time && time <= parse(most)?;
    is_within.then_some(time).ok_or_else(|| format!("{text} is not from {least} to {most}"))
}

/// Reads a length of time.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let parsed = gateway_api::Duration::from_str(text);
    let parsed = parsed.map(|duration| Duration::new(duration.as_secs(), duration.subsec_nanos()));
    parsed.map_err(|error| format!("{error}; write it like 60s or 5m"))
}
