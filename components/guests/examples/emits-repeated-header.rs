//! Emits an event in which a header is given twice, and fails with what the host says. The SDK cannot do this.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, unreachable_pub, reason = "generated bindings")]

wit_bindgen::generate!({ path: "../../wit/streaming", world: "transform" });

use exports::nodata::streaming::transformer::{Batch, Collector, Error, Guest};
use nodata::streaming::types::Event;

struct EmitsRepeatedHeader;

impl Guest for EmitsRepeatedHeader {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        let header = |value: &str| ("h".to_owned(), value.as_bytes().to_vec());
        let event = Event {
            id: None,
            key: None,
            value: Some(b"v".to_vec()),
            headers: vec![header("1"), header("2")],
            timestamp: None,
        };
        out.emit("", &[event]).map_err(|error| Error::Permanent(error.to_string()))
    }
}

export!(EmitsRepeatedHeader);
