//! Boxes for futures that each request needs one of. They are large, and of large pieces allocators keep few: so a thread keeps
//! its own.

use crate::shelf::Shelf;
use std::any::Any;
use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Boxes of each type that a thread keeps: with more requests under way, boxes are made and dropped.
const KEPT: usize = 128;

thread_local! {
    /// Each is a `Shelf<Slot<F>>`: types of futures can't be named. There are few.
    static SPARE: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// A box with or without a future.
type Slot<F> = Pin<Box<Option<F>>>;

/// A future in a box that is used again.
pub(crate) struct Spare<F: 'static>(Option<Slot<F>>);

impl<F: Future + 'static> Spare<F> {
    /// Makes a future in a box: inlined, nothing is made elsewhere and moved there, which of some kilobytes are hardly any used.
    #[inline(always)]
    pub(crate) fn boxed(make: impl FnOnce() -> F) -> Self {
        let kept = SPARE.with_borrow_mut(|spare| shelf(spare)?.take());
        let mut slot = kept.unwrap_or_else(|| Box::pin(None));
        // There is never one in it. Asked, so that the compiler knows that none is dropped.
        if slot.is_none() {
            slot.set(Some(make()));
        }
        Self(Some(slot))
    }
}

impl<F: Future> Future for Spare<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.0.as_mut().and_then(|slot| slot.as_mut().as_pin_mut());
        future.map_or(Poll::Pending, |future| future.poll(cx))
    }
}

impl<F> Drop for Spare<F> {
    fn drop(&mut self) {
        let Some(mut slot) = self.0.take() else { return };
        // First, for it may need a box itself.
        slot.set(None);
        // A thread that ends has none any more.
        let _ = SPARE.try_with(|spare| {
            if let Some(shelf) = shelf(&mut spare.borrow_mut()) {
                shelf.keep(slot);
            }
        });
    }
}

fn shelf<F: 'static>(spare: &mut Vec<Box<dyn Any>>) -> Option<&Shelf<Slot<F>>> {
    let found = spare.iter().position(|shelf| shelf.is::<Shelf<Slot<F>>>());
    let at = found.unwrap_or_else(|| {
        spare.push(Box::new(Shelf::<Slot<F>>::of(KEPT)));
        spare.len() - 1
    });
    spare[at].downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Ready, ready};
    use std::task::Waker;

    fn place<F: 'static>(spare: &Spare<F>) -> usize {
        &raw const **spare.0.as_ref().unwrap() as usize
    }

    #[test]
    fn a_box_is_used_again_for_its_type() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut poll = |spare: &mut Spare<Ready<u64>>| Pin::new(spare).poll(&mut cx);
        let mut one = Spare::boxed(|| ready(1));
        assert_eq!(poll(&mut one), Poll::Ready(1));
        let first = place(&one);
        drop(one);
        let other = Spare::boxed(|| ready("other"));
        assert_ne!(place(&other), first);
        let second = place(&other);
        drop(other);
        let mut again = Spare::boxed(|| ready(2));
        assert_eq!((place(&again), poll(&mut again)), (first, Poll::Ready(2)));
        assert_ne!(place(&Spare::boxed(|| ready(3u64))), first);
        assert_eq!(place(&Spare::boxed(|| ready("other"))), second);
    }
}
