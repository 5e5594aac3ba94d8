//! What a thread keeps of what one request needed for the next one: buffers, maps and boxes are made anew only when more are in
//! use at once than ever before, or than are kept.

use std::cell::RefCell;

/// Things of one sort that are in nobody's use.
pub(crate) struct Shelf<T> {
    most: usize,
    kept: RefCell<Vec<T>>,
}

impl<T> Shelf<T> {
    /// With room for so many.
    pub(crate) const fn of(most: usize) -> Self {
        Self { most, kept: RefCell::new(Vec::new()) }
    }

    /// One that was kept.
    #[inline]
    pub(crate) fn take(&self) -> Option<T> {
        self.kept.borrow_mut().pop()
    }

    /// Keeps one, if there is room.
    #[inline]
    pub(crate) fn keep(&self, thing: T) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < self.most {
            kept.push(thing);
        }
    }
}
