//! Computes for ever.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest};

struct Spins;

impl Guest for Spins {
    fn process(input: &Batch, _: &Collector) -> Result<(), Error> {
        let mut n = input.len();
        loop {
            n = std::hint::black_box(n.wrapping_add(1));
        }
    }
}

guests::export!(Spins);
