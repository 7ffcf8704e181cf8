//! Rejects the row that each value names, with the whole value as the reason.

use nodata_runtime_guests::{Batch, Collector, Error, Guest, texts};

struct Rejects;

impl Guest for Rejects {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        for text in texts(input) {
            let row = text.split(' ').next().and_then(|row| row.parse().ok()).expect("a row");
            out.reject(row, &text);
        }
        Ok(())
    }
}

nodata_runtime_guests::export!(Rejects);
