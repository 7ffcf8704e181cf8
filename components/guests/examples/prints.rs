//! Prints to both streams.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, texts};

struct Prints;

impl Guest for Prints {
    fn process(input: &Batch, _: &Collector) -> Result<(), Error> {
        for text in texts(input) {
            println!("out {text}");
            eprintln!("err {text}");
        }
        for n in 0..1000 {
            println!("flood {n}");
        }
        print!("unfinished");
        std::io::Write::flush(&mut std::io::stdout()).expect("it can be written");
        Ok(())
    }
}

guests::export!(Prints);
