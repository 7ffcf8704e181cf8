//! Counts the bytes that a thread holds, so that a length that is believed before it is checked is noticed.

#![expect(unsafe_code, reason = "an allocator is unsafe to write; this one hands everything on to that of the system")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Less than nothing where a thread frees what others gave it.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn held(more: usize) {
    let now = HELD.get().wrapping_add_unsigned(more);
    HELD.set(now);
    PEAK.set(PEAK.get().max(now));
}

fn freed(less: usize) {
    HELD.set(HELD.get().wrapping_sub_unsigned(less));
}

// SAFETY: every call goes to `System` as it came, and what it answers goes back as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        held(layout.size());
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        held(layout.size());
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there while one is copied to the other.
        held(size);
        // SAFETY: the caller keeps the same promises.
        let moved = unsafe { System.realloc(at, layout, size) };
        freed(layout.size());
        moved
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        freed(layout.size());
        // SAFETY: the caller keeps the same promises.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Does something on this thread, and says how many bytes more than before it held at most.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let done = work();
    (done, PEAK.get().wrapping_sub(before).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_once_is_counted() {
        let ((), none) = peak(|| ());
        assert_eq!(none, 0);
        let (kept, one) = peak(|| vec![0u8; 1 << 20]);
        assert_eq!(one, kept.len());
        let ((), two) = peak(|| {
            drop(vec![1u8; 1 << 20]);
            drop(vec![1u8; 3 << 20]);
            drop(kept);
        });
        assert_eq!(two, 3 << 20);
    }
}
