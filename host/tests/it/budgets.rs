//! What a deployment may use: it is asked for, shown, and held to.

use crate::harness::{Server, component};
use serde_json::{Value, json};

fn server() -> Server {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    server.ok(&["topic", "create", "out"]);
    server
}

/// Why the task failed, of a component with this budget that is given one event.
fn fails_with(component: &str, more: &[&str]) -> String {
    let server = server();
    server.deploy(component, "in:out", &[&["--on-error", "then=pause"], more].concat());
    server.publish("in", &["a"]);
    let reason = server.wait_until_failed(component)["tasks"][0]["reason"].as_str().unwrap().to_owned();
    reason.strip_suffix(" (event 0 of `in`, partition 0)").unwrap_or(&reason).to_owned()
}

#[test]
fn a_budget_is_shown_and_kept() {
    let mut server = server();
    let budget = ["--memory", "64MiB", "--call-cpu", "2500ms", "--cpu-weight", "50", "--log-rate", "7"];
    server.deploy("copies", "in:out", &budget);
    let check = |server: &Server| {
        let described = server.described("copies");
        let asked = json!({
            "memory_bytes": 64 << 20, "call_cpu_us": 2_500_000, "call_wall_us": null, "cpu_weight": 50, "output_bytes": null,
            "log_lines_per_second": 7, "metric_series": null,
        });
        let in_force = json!({
            "memory_bytes": 64 << 20, "call_cpu_us": 2_500_000, "call_wall_us": 60_000_000, "cpu_weight": 50,
            "output_bytes": 32 << 20, "log_lines_per_second": 7, "metric_series": 100,
        });
        assert_eq!((&described["budget_asked"], &described["budget"]), (&asked, &in_force));
    };
    check(&server);
    let text = server.ok(&["deployment", "describe", "copies"]);
    for line in ["budget     memory           64.0 MiB\n", "budget     time of a call   1m (default)\n"] {
        assert!(text.contains(line), "{text}");
    }
    server.kill_and_restart();
    check(&server);
    server.ok(&["deployment", "delete", "copies"]);
}

#[test]
fn what_nobody_can_have_is_refused() {
    let server = server();
    let refused_with = |code: i32, option: &str, value: &str, expected: &str| {
        let file = component("copies");
        let args = ["add-component", "--file", &file, "--transform", "in:out", option, value];
        assert_eq!(server.run(&args).failed(code), format!("error: {expected}\n"));
    };
    let refused = |option: &str, value: &str, expected: &str| refused_with(2, option, value, expected);
    refused("--memory", "1kiB", "a budget of 1024 bytes for memory; 1048576 to 2147483648 are allowed");
    refused("--memory", "3GiB", "a budget of 3221225472 bytes for memory; 1048576 to 2147483648 are allowed");
    refused("--call-cpu", "1ms", "a budget of 1000 us for processor time of a call; 10000 to 600000000 are allowed");
    refused("--call-time", "2h", "a budget of 7200000000 us for time of a call; 10000 to 3600000000 are allowed");
    refused("--cpu-weight", "0", "a budget of 0 hundredths of the usual for weight; 1 to 10000 are allowed");
    refused(
        "--output-bytes",
        "33MiB",
        "a budget of 34603008 bytes for output of a call; 65536 to 33554432 are allowed",
    );
    refused("--log-rate", "0", "a budget of 0 lines a second for log; 1 to 10000 are allowed");
    refused("--metric-series", "1001", "a budget of 1001 series for metrics; 1 to 1000 are allowed");
    assert_eq!(server.json(&["deployment", "list"]), json!([]));

    // Too little for this component is found out before it is deployed.
    refused_with(
        1,
        "--memory",
        "1MiB",
        "component `copies` does not start: the component wanted more than 1 MiB of memory",
    );
    assert_eq!(server.json(&["deployment", "list"]), json!([]));
}

#[test]
fn a_call_is_held_to_its_budget() {
    assert_eq!(
        fails_with("grows", &["--config", "mebibytes=16", "--memory", "8MiB"]),
        "the component wanted more than 8 MiB of memory"
    );
    assert_eq!(fails_with("spins", &["--call-cpu", "20ms"]), "the component used more than 20 ms of processor time");
    assert_eq!(
        fails_with("sleeps", &["--config", "seconds=3600", "--call-time", "30ms"]),
        "the component took longer than 30 ms"
    );
    // The third mebibyte.
    assert_eq!(
        fails_with("emits-too-much", &["--output-bytes", "2MiB"]),
        "the component refuses the batch: the output of this call is more than the deployment allows: 1 events with 1048576 bytes \
         for the default port were refused, 0 bytes were left"
    );
}

#[test]
fn what_a_deployment_says_is_held_to_its_budget() {
    let server = server();
    server.deploy("prints", "in:out", &["--log-rate", "5"]);
    server.deploy("measures", "in:out", &["--metric-series", "10", "--on-error", "then=pause"]);
    server.publish("in", &["a"]);
    server.wait_until_done("prints");
    let metrics = |described: &Value| described["metrics"].as_array().unwrap().len();
    assert_eq!(metrics(&server.wait_until_failed("measures")), 10);
    let lines = server.ok(&["deployment", "logs", "prints"]);
    assert!(lines.contains("lines dropped: more than 5 in a second"), "{lines}");
}
