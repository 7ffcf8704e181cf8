//! Says the values of the slices that are configured, as `start+count` separated by blanks.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, configured, say};

struct ReadsSlices;

impl Guest for ReadsSlices {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        for slice in configured("slices").split_whitespace() {
            let (start, count) = slice.split_once('+').expect("start+count");
            let events = input.slice(start.parse().expect("a number"), count.parse().expect("a number"));
            let values: Vec<String> = events
                .into_iter()
                .map(|event| String::from_utf8(event.value.unwrap_or_default()).expect("tests speak UTF-8"))
                .collect();
            say(out, &format!("{slice}: {}", values.join(" ")));
        }
        Ok(())
    }
}

guests::export!(ReadsSlices);
