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

#[test]
fn every_replacement_is_measured_and_has_its_usual_time_beside_it() {
    let file = component("copies");
    let args = ["replace", "--file", &file, "--partitions", "1,2", "--replacements", "2", "--seconds", "0.4"];
    let cases = bench(&args)["cases"].clone();
    assert_eq!(cases.as_array().unwrap().len(), 2, "{cases:#}");
    for case in cases.as_array().unwrap() {
        assert_eq!(case["replacements"], 2, "{case:#}");
        // Nobody publishes more often than every 5 ms.
        for gap in ["usual_gap_ms", "replaced_gap_ms"] {
            assert!(case[gap]["most"].as_f64().unwrap() > 4.0, "{case:#}");
        }
        assert!(median(&case["update_ms"]) > 0.0, "{case:#}");
    }
}

#[test]
fn deployments_that_are_idle_are_all_there_and_all_work() {
    let file = component("shout");
    let args = ["idle", "--file", &file, "--deployments", "1,12", "--seconds", "0.2"];
    for more in [&[][..], &["--own-topics"]] {
        let cases = bench(&[&args[..], more].concat())["cases"].clone();
        for (case, deployments) in cases.as_array().unwrap().iter().zip([1, 12]) {
            assert_eq!(case["deployments"], deployments, "{case:#}");
            assert!(median(&case["event_ms"]) > 0.0 && median(&case["deploy_first_ms"]) > 0.0, "{case:#}");
            for state in ["before_any_event", "after_an_event"] {
                assert!(median(&case[state]["memory_bytes"]) > 1e6, "{case:#}");
                // It waits: all of a core for each would be a task that asks again and again.
                assert!(median(&case[state]["cpu_of_a_core"]) < 1.0, "{case:#}");
            }
        }
    }
}

#[test]
fn a_neighbour_computes_all_the_time_and_is_ended_when_its_time_is_over() {
    let (file, spins) = (component("filter-rewrite"), component("spins"));
    let small = ["--events", "20000", "--spinners", "1", "--call-cpu", "20", "--calls", "3", "--pauses", "2"];
    let found = bench(&[&["neighbours", "--file", &file, "--spins", &spins][..], &small].concat());
    let [alone, even, uneven] = &found["cases"].as_array().unwrap()[..] else { panic!("{found:#}") };
    assert_eq!((median(&alone["neighbour_cpus"]), &alone["to_alone"]), (0.0, &1.0.into()));
    for beside in [even, uneven] {
        assert!(median(&beside["neighbour_cpus"]) > 0.0 && median(&beside["events_per_s"]) > 0.0, "{found:#}");
    }
    assert!(found["calls_ended"].as_u64().unwrap() >= 3, "{found:#}");
    assert_eq!(found["pauses"], 2, "{found:#}");
    // It has what it may have, and then it is over.
    assert!(found["longer_than_budget_ms"]["least"].as_f64().unwrap() > 0.0, "{found:#}");
}
