//! Panics when it reads the word.

use nodata_runtime_guests::{Batch, Collector, Error, Guest, say, texts};

struct Panics;

#[inline(never)]
fn look_at(text: &str) {
    assert_ne!(text, "boom", "the word was said");
}

impl Guest for Panics {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        for text in texts(input) {
            eprintln!("looking at {text}");
            say(out, &text);
            look_at(&text);
        }
        Ok(())
    }
}

nodata_runtime_guests::export!(Panics);
