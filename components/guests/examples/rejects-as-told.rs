//! Rejects the row that each value names, with the whole value as the reason.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, texts};

struct RejectsAsTold;

impl Guest for RejectsAsTold {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        for text in texts(input) {
            let row = text.split(' ').next().and_then(|row| row.parse().ok()).expect("a row");
            out.reject(row, &text);
        }
        Ok(())
    }
}

guests::export!(RejectsAsTold);
