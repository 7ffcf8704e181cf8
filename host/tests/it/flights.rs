//! Real flights, and which of them were late.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// The flights to use: lines of JSON.
#[allow(clippy::disallowed_methods, reason = "a test has no settings")]
pub(crate) fn flights() -> Vec<String> {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/flights-sample.ndjson");
    let file = PathBuf::from(std::env::var("NODATA_FLIGHTS").unwrap_or_else(|_| sample.to_owned()));
    let text = if file.extension().is_some_and(|extension| extension == "gz") {
        let unpacked = Command::new("gzip").arg("-dc").arg(&file).output().unwrap();
        assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
        String::from_utf8(unpacked.stdout).unwrap()
    } else {
        std::fs::read_to_string(&file).unwrap()
    };
    text.lines().map(str::to_owned).collect()
}

/// What the component `late-flights` keeps.
pub(crate) fn is_late(flight: &Value) -> bool {
    flight["arr_delay"].as_f64().is_some_and(|delay| delay >= 60.0)
}

/// The ids by carrier, in order.
pub(crate) type ByCarrier = BTreeMap<String, Vec<String>>;
