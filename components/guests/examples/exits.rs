//! Ends itself.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest};

struct Exits;

impl Guest for Exits {
    fn process(_: &Batch, _: &Collector) -> Result<(), Error> {
        eprintln!("good bye");
        std::process::exit(3);
    }
}

guests::export!(Exits);
