//! Forwards and rejects rows that do not exist, and then says what the host answered. Rejecting has no answer: it is
//! ignored, and the call goes well.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, unreachable_pub, reason = "generated bindings")]

wit_bindgen::generate!({ path: "../../wit/streaming", world: "transform" });

use exports::nodata::streaming::transformer::{Batch, Collector, Error, Guest};
use nodata::streaming::types::Event;

struct PointsNowhere;

impl Guest for PointsNowhere {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        let rows = input.len();
        out.reject(rows, "there is no such row");
        out.reject(u32::MAX, "there is no such row");
        for (way, rows) in [("one row of two", vec![0, rows]), ("a huge row", vec![u32::MAX]), ("no rows", vec![])] {
            let answer = format!("{way}: {:?}", out.forward("", &rows));
            let value = Some(answer.into_bytes());
            let event = Event { id: None, key: None, value, headers: vec![], timestamp: None };
            out.emit("", &[event]).map_err(|error| Error::Permanent(error.to_string()))?;
        }
        Ok(())
    }
}

export!(PointsNowhere);
