//! A transform that imports an interface which no host has.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, unreachable_pub, reason = "generated bindings")]

wit_bindgen::generate!({
    path: "../../wit/streaming",
    inline: "
        package acme:weather;

        interface forecast {
            rain: func() -> bool;
        }

        world wants-unknown-import {
            include nodata:streaming/transform@0.1.0;
            import forecast;
        }
    ",
    world: "acme:weather/wants-unknown-import",
    generate_all,
});

use exports::nodata::streaming::transformer::{Batch, Collector, Error, Guest};

struct WantsUnknownImport;

impl Guest for WantsUnknownImport {
    fn process(_: &Batch, _: &Collector) -> Result<(), Error> {
        match acme::weather::forecast::rain() {
            true => Err(Error::Transient("it rains".to_owned())),
            false => Ok(()),
        }
    }
}

export!(WantsUnknownImport);
