//! A component that exports the right interface with another function in it.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, unreachable_pub, reason = "generated bindings")]

wit_bindgen::generate!({
    inline: "
        package nodata:streaming@0.1.0;

        interface transformer {
            process: func(value: list<u8>) -> list<u8>;
        }

        world other-signature {
            export transformer;
        }
    ",
});

use exports::nodata::streaming::transformer::Guest;

struct OtherSignature;

impl Guest for OtherSignature {
    fn process(value: Vec<u8>) -> Vec<u8> {
        value
    }
}

export!(OtherSignature);
