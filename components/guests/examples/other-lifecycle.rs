//! A transform that also exports `lifecycle`, with other functions in it than the contract has.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest};

#[allow(unsafe_code, unreachable_pub, reason = "generated bindings")]
mod other {
    wit_bindgen::generate!({
        inline: "
            package nodata:streaming@0.1.0;

            interface lifecycle {
                open: func(name: string);
                close: func();
            }

            world other-lifecycle {
                export lifecycle;
            }
        ",
    });

    struct Other;

    impl exports::nodata::streaming::lifecycle::Guest for Other {
        fn open(_: String) {}
        fn close() {}
    }

    export!(Other);
}

struct OtherLifecycle;

impl Guest for OtherLifecycle {
    fn process(_: &Batch, _: &Collector) -> Result<(), Error> {
        Ok(())
    }
}

guests::export!(OtherLifecycle);
