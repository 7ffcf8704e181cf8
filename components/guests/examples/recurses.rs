//! Calls itself until the stack is full.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest};

struct Recurses;

#[inline(never)]
fn deeper(n: u32) -> u32 {
    // What comes after the call keeps the compiler from making a loop of it.
    if std::hint::black_box(n) == 0 { 0 } else { std::hint::black_box(deeper(n + 1)) + 1 }
}

impl Guest for Recurses {
    fn process(input: &Batch, _: &Collector) -> Result<(), Error> {
        std::hint::black_box(deeper(input.len()));
        Ok(())
    }
}

guests::export!(Recurses);
