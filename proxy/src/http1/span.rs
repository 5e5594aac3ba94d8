//! Where a part of a head is: heads are read before they are taken off their buffer, and kept afterwards.

use bytes::Bytes;

/// A part of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    from: u32,
    to: u32,
}

impl Span {
    /// From a byte to another, both below 4 GiB.
    pub(crate) fn new(from: usize, to: usize) -> Self {
        Self { from: from as u32, to: to as u32 }
    }

    /// The part.
    pub(crate) fn text(self, whole: &[u8]) -> &[u8] {
        &whole[self.from as usize..self.to as usize]
    }

    /// The part, kept.
    pub(crate) fn slice(self, whole: &Bytes) -> Bytes {
        whole.slice(self.from as usize..self.to as usize)
    }

    /// Where it begins.
    pub(crate) fn start(self) -> usize {
        self.from as usize
    }

    /// Where it ends.
    pub(crate) fn end(self) -> usize {
        self.to as usize
    }

    /// What is between it and another one, which is behind it.
    pub(crate) fn until(self, other: Self) -> Self {
        Self { from: self.to, to: other.from }
    }

    /// How long it is.
    pub(crate) fn len(self) -> usize {
        (self.to - self.from) as usize
    }
}
