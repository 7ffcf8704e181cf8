//! Sleeps for so many seconds as configured.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, configured, say};
use std::time::Duration;

struct Sleeps;

impl Guest for Sleeps {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        std::thread::sleep(Duration::from_secs_f64(configured("seconds").parse().expect("a number")));
        say(out, "awake");
        Ok(())
    }
}

guests::export!(Sleeps);
