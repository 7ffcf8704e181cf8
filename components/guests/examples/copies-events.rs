//! Copies each event with all that is in it, as records: the convenient and slow way, without the SDK.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, unreachable_pub, reason = "generated bindings")]

wit_bindgen::generate!({ path: "../../wit/streaming", world: "transform" });

use exports::nodata::streaming::transformer::{Batch, Collector, Error, Guest};

struct CopiesEvents;

impl Guest for CopiesEvents {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        out.emit("", &input.events()).map_err(|error| Error::Permanent(error.to_string()))
    }
}

export!(CopiesEvents);
