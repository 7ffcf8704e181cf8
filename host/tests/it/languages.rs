//! The same contract from other toolchains: a transform and an aggregate in Python and in JavaScript.

use crate::harness::{Server, components, json_lines};
use serde_json::{Value, json};

#[track_caller]
fn check(language: &str) {
    let file = |name: &str| components().join(format!("{language}-{name}.wasm")).display().to_string();
    if language == "javascript" && !std::path::Path::new(&file("shout")).exists() {
        eprintln!("skipped: there was no npm to build it with");
        return;
    }
    let mut server = Server::start();
    for topic in ["in", "loud", "counts"] {
        server.ok(&["topic", "create", topic]);
    }
    server.ok(&["add-component", "--file", &file("shout"), "--name", "shout", "--transform", "in:loud"]);
    let window = ["--window", "tumbling=1h", "--lateness", "10m"];
    let aggregate = ["add-component", "--file", &file("count"), "--name", "count", "--aggregate", "in:counts"];
    server.ok(&[&aggregate[..], &window].concat());

    let event = |key: &str, time: &str| format!("{{\"k\":\"{key}\",\"at\":\"2013-01-01T{time}:00Z\"}}\n");
    let first = [("a", "00:00"), ("b", "00:50"), ("a", "01:05")];
    let second = [("a", "00:59"), ("z", "09:00")];
    let publish = |server: &Server, events: &[(&str, &str)]| {
        let lines: String = events.iter().map(|(key, time)| event(key, time)).collect();
        server.run_with(&["publish", "in", "--key-field", "k", "--time-field", "at"], lines.as_bytes()).ok();
        server.wait_until_done("shout");
        server.wait_until_done("count");
    };
    publish(&server, &first);
    server.kill_and_restart();
    publish(&server, &second);

    let loud: Vec<String> =
        first.iter().chain(&second).map(|(key, time)| event(key, time).trim_end().to_uppercase()).collect();
    assert_eq!(server.values("loud"), loud, "{language}");
    while server.values("counts").len() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let counts: Vec<Value> = json_lines(&server.ok(&["consume", "counts"]))
        .iter()
        .map(|event| json!([event["key"], event["timestamp"], event["value"]["count"]]))
        .collect();
    let (one, two) = ("2013-01-01T01:00:00.000000Z", "2013-01-01T02:00:00.000000Z");
    assert_eq!(counts, [json!(["a", one, 2]), json!(["b", one, 1]), json!(["a", two, 1])], "{language}");
    let open = server.json(&["aggregate", "scan", "count"]);
    assert_eq!((&open[0]["key"], &open[0]["value"]), (&json!("z"), &json!({ "count": 1 })), "{language}");
}

#[test]
fn a_transform_and_an_aggregate_in_python() {
    check("python");
}

#[test]
fn a_transform_and_an_aggregate_in_javascript() {
    check("javascript");
}
