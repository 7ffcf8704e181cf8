//! Records a few numbers, and too many.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, metrics};

struct Measures;

impl Guest for Measures {
    fn process(input: &Batch, _: &Collector) -> Result<(), Error> {
        metrics::add("seen", u64::from(input.len()), &[("kind", "all")]);
        metrics::set("last", 0.5, &[]);
        metrics::observe("size", 3.0, &[]);
        metrics::observe("size", 5.0, &[]);
        metrics::add(&"n".repeat(1000), 1, &[]);
        metrics::add("wide", 1, &[("a", "b"); 9]);
        metrics::add("wide", 1, &[("a", &"b".repeat(1000))]);
        for n in 0..1000 {
            metrics::add(&format!("many-{n}"), 1, &[]);
        }
        // Numbers count also when the call fails.
        Err(Error::Permanent("as asked".to_owned()))
    }
}

guests::export!(Measures);
