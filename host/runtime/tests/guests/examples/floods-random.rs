//! Asks for so many bytes of randomness as configured.

use nodata_runtime_guests::{Batch, Collector, Error, Guest, configured, say};

struct FloodsRandom;

impl Guest for FloodsRandom {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        let bytes = configured("bytes").parse().expect("a number");
        say(out, &format!("{} bytes", wasip2::random::random::get_random_bytes(bytes).len()));
        Ok(())
    }
}

nodata_runtime_guests::export!(FloodsRandom);
