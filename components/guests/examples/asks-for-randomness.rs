//! Asks for so many bytes of randomness as configured.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, configured, say};

struct AsksForRandomness;

impl Guest for AsksForRandomness {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        let bytes = configured("bytes").parse().expect("a number");
        say(out, &format!("{} bytes", wasip2::random::random::get_random_bytes(bytes).len()));
        Ok(())
    }
}

guests::export!(AsksForRandomness);
