//! The figures of `nodata bench` are there, and are of what they say.

use crate::harness::{component, run};
use serde_json::Value;

/// What a small benchmark prints.
fn bench(args: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let args = [&["bench"], args, &["--rounds", "1", "--json"]].concat();
    serde_json::from_str(&run(&args, &[], dir.path(), b"").ok()).unwrap()
}

fn median(of: &Value) -> f64 {
    of["median"].as_f64().unwrap_or_else(|| panic!("{of:#}"))
}

#[test]
fn a_component_is_compiled_once() {
    let cases = bench(&["upload", "--file", &component("shout")])["cases"].clone();
    let [cold, again, restarted] = &cases.as_array().unwrap()[..] else { panic!("{cases:#}") };
    for case in [cold, again, restarted] {
        let parts = ["upload_ms", "acceptance_ms", "deploy_ms", "first_event_ms"].map(|part| median(&case[part]));
        assert!(parts.iter().all(|part| *part > 0.0), "{case:#}");
        assert!((parts.iter().sum::<f64>() - median(&case["together_ms"])).abs() < 1e-6, "{case:#}");
    }
    assert_eq!(
        [cold, again, restarted].map(|case| case["compiled"].as_u64()),
        [Some(1), Some(0), Some(0)],
        "{cases:#}"
    );
}
