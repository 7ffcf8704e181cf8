//! A library may panic on bytes that no writer wrote, where that is caught. A panic in our own code is a defect, caught or not.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};
use std::sync::Once;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Seen> = const { RefCell::new(Seen { last: String::new(), ours: None }) };
}

struct Seen {
    /// The last panic of this thread.
    last: String,
    /// The first one that began in our own code.
    ours: Option<String>,
}

/// From here on, a panic while an input is run is looked at before it is said. One that is caught is not said at all.
pub fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| if WATCHED.get() { note(panic) } else { others(panic) }));
    });
}

fn note(panic: &PanicHookInfo<'_>) {
    let mut said = panic.to_string();
    let is_ours = panic.location().is_none_or(|location| is_ours(location.file()));
    if is_ours {
        let _ = write!(said, "\n{}", Backtrace::force_capture());
    }
    SEEN.with_borrow_mut(|seen| {
        if is_ours {
            seen.ours.get_or_insert_with(|| said.clone());
        }
        seen.last = said;
    });
}

/// Whether a file is of this repository: neither of the standard library nor of a registry.
fn is_ours(file: &str) -> bool {
    !file.starts_with("/rustc/") && !file.contains("/rustlib/src/") && !file.contains("/registry/src/")
}

fn say(what: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Does something, and panics if it panics, or if it caught a panic of our own code.
pub(crate) fn check<T>(work: impl FnOnce() -> T) -> T {
    watch_panics();
    SEEN.with_borrow_mut(|seen| seen.ours = None);
    WATCHED.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    WATCHED.set(false);
    match done {
        Ok(done) => {
            if let Some(ours) = SEEN.with_borrow_mut(|seen| seen.ours.take()) {
                say(&ours);
                panic!("our own code panicked, and it was caught: {ours}");
            }
            done
        }
        Err(panic) => {
            say(&SEEN.with_borrow(|seen| seen.last.clone()));
            resume_unwind(panic)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caught(work: impl FnOnce()) {
        let _ = catch_unwind(AssertUnwindSafe(work));
    }

    #[test]
    fn a_panic_of_ours_is_a_finding_even_if_it_is_caught_and_one_of_a_library_is_not() {
        let fails = |work: fn()| catch_unwind(|| check(work)).is_err();
        assert!(fails(|| panic!("not caught")));
        assert!(fails(|| caught(|| panic!("caught"))));
        assert!(fails(|| caught(|| assert_eq!(Vec::<u8>::new().remove(0), 0))));
        assert!(!fails(|| ()));
        check(|| ());
    }

    #[test]
    fn files_of_others_are_told_apart() {
        assert!(is_ours("host/archive/src/decode.rs") && is_ours("/somewhere/host/log/src/frame.rs"));
        assert!(!is_ours("/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/parquet-60.1.0/src/lib.rs"));
        assert!(!is_ours("/rustc/f2d3ce0bd/library/core/src/option.rs"));
    }
}
