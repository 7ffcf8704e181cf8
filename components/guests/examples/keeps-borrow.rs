//! Returns without giving back the handles it was lent.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest};

struct KeepsBorrow;

impl Guest for KeepsBorrow {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        // The bindings forget the handles, so they do not drop them on the way out.
        (input.take_handle(), out.take_handle());
        Ok(())
    }
}

guests::export!(KeepsBorrow);
