//! Fails as each value says, after emitting and rejecting.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, say, texts};

struct FailsAsTold;

impl Guest for FailsAsTold {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        for text in texts(input) {
            say(out, &text);
            out.reject(0, "also");
            match text.split_once(' ') {
                Some(("transient", why)) => return Err(Error::Transient(why.to_owned())),
                Some(("permanent", why)) => return Err(Error::Permanent(why.to_owned())),
                Some(("long", bytes)) => return Err(Error::Permanent("é".repeat(bytes.parse().expect("a number")))),
                _ => {}
            }
        }
        Ok(())
    }
}

guests::export!(FailsAsTold);
