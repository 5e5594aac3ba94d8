//! What a request's head would come to if policies in shadow acted.

use crate::limits::target_bytes;
use crate::model::{ClientTrial, Underscores};
use crate::path::path_of;
use crate::rejection::{Malformed, Rejection};
use http::{Version, request};

/// What HTTP/2 counts for a field beside its name and value (RFC 9113 §10.5.1, RFC 7541 §4.1).
const FIELD_OF_HTTP2: usize = 32;
/// Colon, space and the end of a line.
const FIELD_OF_HTTP1: usize = 4;

/// What would have become of a request. None: it would have gone on.
pub(crate) fn judge(trial: &ClientTrial, parts: &request::Parts) -> Option<Rejection> {
    let (uri, headers, limits) = (&parts.uri, &parts.headers, &trial.limits);
    let over = |most: Option<usize>, is: usize| most.is_some_and(|most| is > most);
    if over(limits.target_bytes, target_bytes(uri)) {
        return Some(Rejection::TargetTooLong);
    }
    let each = if parts.version == Version::HTTP_2 { FIELD_OF_HTTP2 } else { FIELD_OF_HTTP1 };
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + each);
    let asked = uri.path_and_query().map_or(0, |asked| asked.as_str().len());
    let line = parts.method.as_str().len() + asked + "  HTTP/1.1\r\n\r\n".len();
    if over(limits.header_count, headers.len()) || over(limits.header_bytes, line + fields.sum::<usize>()) {
        return Some(Rejection::HeadTooLarge);
    }
    if trial.underscores == Underscores::Reject && headers.keys().any(|name| name.as_str().contains('_')) {
        return Some(Rejection::Malformed(Malformed::Head));
    }
    path_of(uri, &trial.path).err()
}
