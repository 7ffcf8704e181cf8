//! Keeps so many mebibytes more with each event as configured.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, configured, say};
use std::cell::RefCell;

struct Grows;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Guest for Grows {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        let bytes = configured("mebibytes").parse::<usize>().expect("a number") << 20;
        for _ in 0..input.len() {
            if configured("politely") == "yes" {
                let mut more = Vec::<u8>::new();
                say(out, if more.try_reserve(bytes).is_ok() { "granted" } else { "refused" });
                KEPT.with_borrow_mut(|kept| kept.push(more));
            } else {
                KEPT.with_borrow_mut(|kept| kept.push(vec![1; bytes]));
            }
        }
        Ok(())
    }
}

guests::export!(Grows);
