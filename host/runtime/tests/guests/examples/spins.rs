//! Computes for ever.

use nodata_runtime_guests::{Batch, Collector, Error, Guest};

struct Spins;

impl Guest for Spins {
    fn process(input: &Batch, _: &Collector) -> Result<(), Error> {
        let mut n = input.len();
        loop {
            n = std::hint::black_box(n.wrapping_add(1));
        }
    }
}

nodata_runtime_guests::export!(Spins);
