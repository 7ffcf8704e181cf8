//! Panics when it reads the word.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, say, texts};

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

guests::export!(Panics);
