//! Says everything about its batch that is not an event, and what time it is.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, say};
use std::time::{SystemTime, UNIX_EPOCH};

struct TellsFacts;

impl Guest for TellsFacts {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        say(out, &format!("topic {} partition {}", input.topic(), input.partition()));
        say(out, &format!("{} rows {} bytes attempt {}", input.len(), input.byte_size(), input.attempt()));
        say(out, &format!("offsets {:?}", input.offsets()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch");
        say(out, &format!("now {}", now.as_micros()));
        say(out, &format!("remaining {}", out.remaining_bytes()));
        Ok(())
    }
}

guests::export!(TellsFacts);
