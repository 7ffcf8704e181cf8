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
            "state_bytes": null,
            "log_lines_per_second": 7, "metric_series": null,
        });
        let in_force = json!({
            "memory_bytes": 64 << 20, "call_cpu_us": 2_500_000, "call_wall_us": 60_000_000, "cpu_weight": 50,
            "output_bytes": 32 << 20, "state_bytes": 4_u64 << 30, "log_lines_per_second": 7, "metric_series": 100,
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
fn what_is_asked_for_and_what_is_granted_is_shown() {
    let server = server();
    let told = |more: &[&str]| {
        server.deploy("asks-as-told", "in:out", more);
        let text = server.ok(&["deployment", "describe", "asks-as-told"]);
        server.ok(&["deployment", "delete", "asks-as-told"]);
        text.lines().filter(|line| line.starts_with("asks to ")).map(|line| line[11..].to_owned()).collect::<Vec<_>>()
    };
    let nothing = told(&[]);
    assert_eq!(nothing[0], "send HTTP requests; not granted");
    assert!(nothing.contains(&"print to its log; granted, as to every component".to_owned()), "{nothing:?}");
    assert!(nothing.contains(&"read environment variables; never granted".to_owned()), "{nothing:?}");
    let something = told(&["--allow-http", "GET https://api.example.com"]);
    assert_eq!(something[0], "send HTTP requests; granted: GET https://api.example.com");
    assert_eq!(something[1..], nothing[1..]);
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
fn a_pause_waits_for_the_call_in_hand_and_for_no_other() {
    let server = server();
    server.deploy("spins", "in:out", &["--call-cpu", "1s"]);
    server.publish("in", &["a"]);
    server.wait_until("spins", |described| described["usage"]["cpu_us"].as_u64() > Some(50_000));
    server.ok(&["deployment", "pause", "spins"]);
    let log = server.ok(&["deployment", "logs", "spins"]);
    assert_eq!(log.matches("attempt ").count(), 1, "{log}");
    let described = server.described("spins");
    assert_eq!((&described["state"], &described["lag"]), (&json!("paused"), &json!(1)));
}

#[test]
fn a_task_has_no_more_state_than_it_may() {
    let mut server = server();
    server.deploy("keeps-state", "in:out", &["--state-bytes", "64kiB"]);
    let held = |server: &Server| server.wait_until_done("keeps-state")["usage"]["state_bytes"].as_u64().unwrap();
    let values =
        ["put-large a 40000", "put-large b 30000", "get b", "put-large c 1000", "delete a", "put-large b 30000"];
    server.publish("in", &values);
    assert_eq!(held(&server), 1 + 1000 + 1 + 30_000);
    assert_eq!(server.values("out"), ["ok", "Error::QuotaExceeded", "none", "ok", "ok", "ok"]);
    // It is known after whatever happens, and in the calls to come.
    server.kill_and_restart();
    assert_eq!(held(&server), 31_002);
    server.publish("in", &["put-large c 36000", "put-large c 34000"]);
    assert_eq!(held(&server), 1 + 34_000 + 1 + 30_000);
    assert_eq!(server.values("out")[6..], ["Error::QuotaExceeded", "ok"]);
    // Whoever begins anew has nothing.
    server.ok(&["deployment", "reset", "keeps-state", "--from", "latest", "--state", "forget"]);
    assert_eq!(held(&server), 0);
}

#[test]
fn groups_are_state() {
    let server = server();
    let file = component("aggregate-fields");
    let deploy =
        ["add-component", "--file", &file, "--aggregate", "in:out", "--config", "by=k", "--config", "compute=n=count"];
    server.ok(&[&deploy[..], &["--name", "for-ever", "--state-bytes", "64kiB"]].concat());
    let windows = ["--name", "windows", "--window", "tumbling=1s", "--idle", "100ms"];
    server.ok(&[&deploy[..], &windows].concat());
    let groups: Vec<String> = (0..170).map(|n| format!(r#"{{"k":"{n:0>400}"}}"#)).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    server.publish("in", &groups);
    let described = server.wait_until_done("for-ever");
    let held = described["usage"]["state_bytes"].as_u64().unwrap();
    assert!((64_000..=65_536).contains(&held), "{held}");
    let put_aside = described["tasks"][0]["events_rejected"].as_u64().unwrap();
    let kept = server.ok(&["aggregate", "scan", "for-ever", "--json"]);
    let kept = serde_json::from_str::<Value>(&kept).unwrap().as_array().unwrap().len() as u64;
    assert!(kept > 100 && put_aside > 0 && kept + put_aside == 170, "{kept} {put_aside}");
    let letter = crate::harness::json_lines(&server.ok(&["consume", "for-ever.dlq"])).remove(0);
    let reason = letter["headers"]["nodata-reason"].as_str().unwrap();
    assert!(reason.starts_with("the state of the task would have more than 0.0625 MiB"), "{reason}");
    // Windows that are closed leave nothing behind.
    let held = |described: &Value| described["usage"]["state_bytes"].as_u64().unwrap();
    let described = server.wait_until("windows", |described| described["tasks"][0]["events_in"] == 170);
    assert_eq!(described["tasks"][0]["events_rejected"], 0);
    server.wait_until("windows", |described| {
        assert_ne!(described["state"], "failed", "{described:#}");
        held(described) == 0
    });
}

#[test]
fn what_was_used_is_shown() {
    let server = server();
    server.deploy("copies", "in:out", &[]);
    server.publish("in", &["12345", "1234567890"]);
    let used = server.wait_until_done("copies")["usage"].clone();
    assert_eq!((&used["events_in"], &used["bytes_in"], &used["bytes_out"]), (&json!(2), &json!(15), &json!(15)));
    assert!(used["cpu_us"].as_u64().unwrap() > 0 && used["memory_bytes"].as_u64().unwrap() > 1 << 20, "{used}");
    assert_eq!(used["memory_bytes"], used["memory_bytes_peak"]);
    // Whoever starts again goes on counting.
    server.ok(&["deployment", "pause", "copies"]);
    assert_eq!(server.described("copies")["usage"]["memory_bytes"], 0);
    server.ok(&["deployment", "resume", "copies"]);
    server.publish("in", &["1"]);
    let again = server.wait_until("copies", |described| described["usage"]["events_in"] == 3)["usage"].clone();
    assert_eq!(again["bytes_in"], 16);
    assert!(again["cpu_us"].as_u64() > used["cpu_us"].as_u64(), "{used} {again}");
    let text = server.ok(&["deployment", "describe", "copies"]);
    assert!(text.contains(" for a million events\n"), "{text}");
}

#[test]
fn what_a_deployment_says_is_held_to_its_budget() {
    let server = server();
    server.deploy("prints", "in:out", &["--log-rate", "5"]);
    server.deploy("measures", "in:out", &["--metric-series", "10", "--on-error", "then=pause"]);
    server.publish("in", &["a"]);
    let used = server.wait_until_done("prints")["usage"].clone();
    let written = used["log_lines"].as_u64().unwrap();
    // The component prints 1002 lines and a part of one, in which another second may begin.
    assert_eq!(written % 5, 0, "{used}");
    assert_eq!(written + used["log_lines_dropped"].as_u64().unwrap(), 1002);
    let metrics = |described: &Value| described["metrics"].as_array().unwrap().len();
    let measures = server.wait_until_failed("measures");
    assert_eq!(metrics(&measures), 10);
    assert!(measures["usage"]["metrics_dropped"].as_u64().unwrap() > 900, "{measures}");
    let lines = server.ok(&["deployment", "logs", "prints"]);
    assert!(lines.contains("lines dropped: more than 5 in a second"), "{lines}");
}
