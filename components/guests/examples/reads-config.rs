//! Says its configuration, and whether there is a secret.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, config, say};

struct ReadsConfig;

impl Guest for ReadsConfig {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        say(out, &format!("{:?}", config::all()));
        say(
            out,
            &format!("{:?} {:?} {:?}", config::get("a"), config::get("missing"), config::get(&"k".repeat(1 << 20))),
        );
        say(out, &format!("{:?}", config::secret("a")));
        Ok(())
    }
}

guests::export!(ReadsConfig);
