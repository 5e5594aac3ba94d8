//! Where a part of a head is: heads are read before they are taken off their buffer, and kept afterwards.

use bytes::Bytes;

/// A part of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    from: u32,
    to: u32,
}

impl Span {
    /// Where `part` is in `whole`, which it is a part of.
    pub(crate) fn of(part: &[u8], whole: &[u8]) -> Self {
        let from = part.as_ptr() as usize - whole.as_ptr() as usize;
        // Heads are shorter than 4 GiB.
        Self { from: from as u32, to: (from + part.len()) as u32 }
    }

    /// The part.
    pub(crate) fn text(self, whole: &[u8]) -> &[u8] {
        &whole[self.from as usize..self.to as usize]
    }

    /// The part, kept.
    pub(crate) fn slice(self, whole: &Bytes) -> Bytes {
        whole.slice(self.from as usize..self.to as usize)
    }

    /// Where it ends.
    pub(crate) fn end(self) -> usize {
        self.to as usize
    }

    /// How long it is.
    pub(crate) fn len(self) -> usize {
        (self.to - self.from) as usize
    }
}
