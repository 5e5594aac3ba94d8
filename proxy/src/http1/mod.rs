//! HTTP/1.1 as a server speaks it: one connection, one request after the other, polled by one task.
//!
//! No task, channel or buffer of its own for each connection that waits: [`serve`] reads a head ([`head`]), has it answered, and
//! writes the answer ([`answer`]); whoever takes the request's body reads it straight from the connection ([`body`]). Reading is
//! strict (security.md §1). What both of HTTP/1.1's sides need (buffers, chunks, lengths) is here, too, for [`crate::upstream::h1`].

mod answer;
mod body;
pub(crate) mod chunked;
mod decode;
mod end;
mod head;
mod input;
mod lengths;
mod output;
mod scan;
mod serve;
mod span;
mod spare;
mod wire;

pub(crate) use answer::date;
pub(crate) use body::{Body, Broken};
pub(crate) use chunked::Piece;
pub(crate) use decode::Decode;
pub(crate) use input::Input;
pub(crate) use lengths::{Lengths, lists};
pub(crate) use output::{Output, write_field};
pub(crate) use scan::{Field, Scanner, StatusLine, Stop};
pub(crate) use serve::serve;
pub(crate) use span::Span;

/// Tells a client that its body is wanted.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
