//! A component that exports something of ours, but nothing that is in the contract.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, unreachable_pub, reason = "generated bindings")]

wit_bindgen::generate!({
    inline: "
        package nodata:streaming@0.1.0;

        interface sink-drain {
            drain: func() -> result<_, string>;
        }

        world wrong-world {
            export sink-drain;
        }
    ",
});

use exports::nodata::streaming::sink_drain::Guest;

struct WrongWorld;

impl Guest for WrongWorld {
    fn drain() -> Result<(), String> {
        Ok(())
    }
}

export!(WrongWorld);
