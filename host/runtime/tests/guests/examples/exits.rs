//! Ends itself.

use nodata_runtime_guests::{Batch, Collector, Error, Guest};

struct Exits;

impl Guest for Exits {
    fn process(_: &Batch, _: &Collector) -> Result<(), Error> {
        eprintln!("good bye");
        std::process::exit(3);
    }
}

nodata_runtime_guests::export!(Exits);
