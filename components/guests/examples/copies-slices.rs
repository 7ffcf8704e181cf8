//! Copies each event with all that is in it, three records at a time, and asks for more rows than there are.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, unreachable_pub, reason = "generated bindings")]

wit_bindgen::generate!({ path: "../../wit/streaming", world: "transform" });

use exports::nodata::streaming::transformer::{Batch, Collector, Error, Guest};

struct CopiesSlices;

impl Guest for CopiesSlices {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        for start in (0..input.len() + 6).step_by(3) {
            out.emit("", &input.slice(start, 3)).map_err(|error| Error::Permanent(error.to_string()))?;
        }
        Ok(())
    }
}

export!(CopiesSlices);
