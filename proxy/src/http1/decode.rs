//! Where a body ends: by its length, with its last chunk, or with the connection. Does no I/O.

use super::chunked::{Decoder, Malformed, Piece};
use bytes::BytesMut;
use http_body::SizeHint;

/// What is left of a body.
#[derive(Debug)]
pub(crate) enum Decode {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Decoder),
    /// Whatever comes before the end of the connection.
    Close,
    /// Nothing.
    End,
}

impl Decode {
    /// A body of chunks.
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Decoder::new())
    }

    /// Whether nothing is left.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Self::End)
    }

    /// How much is left, where that is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(_) | Self::Close => SizeHint::default(),
            Self::End => SizeHint::with_exact(0),
        }
    }

    /// Takes the next piece off the front of what was read.
    pub(crate) fn take(&mut self, read: &mut BytesMut) -> Result<Piece, Malformed> {
        let piece = match self {
            Self::End => Piece::End(None),
            Self::Length(_) | Self::Close if read.is_empty() => Piece::More,
            Self::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= length as u64;
                if *left == 0 {
                    *self = Self::End;
                }
                Piece::Data(read.split_to(length).freeze())
            }
            Self::Close => Piece::Data(read.split().freeze()),
            Self::Chunked(decoder) => {
                let piece = decoder.decode(read)?;
                if matches!(piece, Piece::End(_)) {
                    *self = Self::End;
                }
                piece
            }
        };
        Ok(piece)
    }

    /// The connection has ended. Whether the body has, too: else it is cut short.
    pub(crate) fn ends_with_connection(&mut self) -> bool {
        match self {
            Self::Close => {
                *self = Self::End;
                true
            }
            Self::Length(_) | Self::Chunked(_) | Self::End => false,
        }
    }
}
