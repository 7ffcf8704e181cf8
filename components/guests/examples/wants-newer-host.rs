//! A transform that was built against a later 0.1.x of the contract, and needs what came with it.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, unreachable_pub, reason = "generated bindings")]

wit_bindgen::generate!({
    path: "../../wit/streaming",
    inline: "
        package acme:newer;

        world wants-newer-host {
            include nodata:streaming/transform@0.1.0;
            import nodata:streaming/config@0.1.9;
        }

        package nodata:streaming@0.1.9 {
            interface config {
                get: func(key: string) -> option<string>;
                all: func() -> list<tuple<string, string>>;
                secret: func(name: string) -> option<list<u8>>;
                generation: func() -> u64;
            }
        }
    ",
    world: "acme:newer/wants-newer-host",
    generate_all,
});

use exports::nodata::streaming0_1_0::transformer::{Batch, Collector, Error, Guest};

struct WantsNewerHost;

impl Guest for WantsNewerHost {
    fn process(_: &Batch, _: &Collector) -> Result<(), Error> {
        match nodata::streaming0_1_9::config::generation() {
            0 => Err(Error::Transient("there is no configuration yet".to_owned())),
            _ => Ok(()),
        }
    }
}

export!(WantsNewerHost);
