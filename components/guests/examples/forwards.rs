//! Forwards the rows that are configured to the port that is configured.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, configured, say};

struct Forwards;

impl Guest for Forwards {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        let rows: Vec<u32> = configured("rows").split_whitespace().map(|row| row.parse().expect("a row")).collect();
        if let Err(error) = out.forward(&configured("port"), &rows) {
            say(out, &format!("{error:?}"));
        }
        Ok(())
    }
}

guests::export!(Forwards);
