//! What the guests without the SDK have in common: the bindings of the contract, and a way to say one thing.
#![cfg(target_family = "wasm")]

pub mod filter;

#[allow(unsafe_code, unreachable_pub, reason = "generated bindings")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/streaming",
        world: "transform",
        ownership: Borrowing { duplicate_if_necessary: true },
        pub_export_macro: true,
        default_bindings_module: "guests",
    });
}

pub use bindings::exports::nodata::streaming::transformer::{Batch, Collector, Error, Guest};
pub use bindings::nodata::streaming::types::{
    BytesColumnParam, BytesColumnResult, Columns, EmitError, EventParam, EventResult, HeadersColumnParam,
    HeadersColumnResult,
};
pub use bindings::nodata::streaming::{config, metrics, state};
pub use bindings::{export, exports};

/// Emits a text as the value of one event.
pub fn say(out: &Collector, text: &str) {
    let event = EventParam { id: None, key: None, value: Some(text.as_bytes()), headers: &[], timestamp: None };
    out.emit("", &[event]).expect("there is room for a few words");
}

/// The values of a batch as texts.
pub fn texts(input: &Batch) -> Vec<String> {
    let text = |event: EventResult| String::from_utf8(event.value.unwrap_or_default()).expect("tests speak UTF-8");
    input.events().into_iter().map(text).collect()
}

/// The configured text, or nothing.
pub fn configured(key: &str) -> String {
    config::get(key).unwrap_or_default()
}
