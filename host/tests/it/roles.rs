//! Sources and sinks: what comes in comes in once, what goes out goes out in order and with its place, whatever fails.

use crate::harness::{Server, component, json_lines};
use serde_json::json;

/// The numbers that a source of numbers brought in, in order of each key, all together.
fn numbers(server: &Server, topic: &str) -> Vec<u64> {
    server.values(topic).iter().map(|value| value.parse().unwrap()).collect()
}

/// What a deployment printed, without what the host says.
fn printed(server: &Server, deployment: &str) -> Vec<String> {
    let lines = json_lines(&server.ok(&["deployment", "logs", deployment, "--json"]));
    let own = lines.iter().filter(|line| line["stream"] == "stdout");
    own.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

fn add(server: &Server, name: &str, more: &[&str]) -> String {
    server.ok(&[&["add-component", "--file", &component(name)], more].concat())
}

#[test]
fn a_source_brings_in_each_event_once_and_finishes() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "numbers"]);
    let said = add(&server, "counts-to", &["--source", "numbers", "--config", "to=95"]);
    assert!(said.contains("): outside -> numbers\n"), "{said}");
    let described = server.wait_until("counts-to", |described| described["state"] == "finished");
    assert_eq!(described["source"], json!({ "outputs": { "": "numbers" } }));
    let task = &described["tasks"][0];
    assert_eq!((&task["state"], &task["events_out"], &described["lag"]), (&json!("finished"), &json!(95), &json!(0)));
    assert_eq!(numbers(&server, "numbers"), (0..95).collect::<Vec<_>>());
    let lines = printed(&server, "counts-to");
    assert_eq!(lines[..2], ["opened at 0", "acknowledged 10"]);
    assert_eq!(lines.len(), 1 + 9, "each checkpoint is acknowledged once: {lines:?}");

    // It stays finished, and what it kept goes with it.
    server.kill_and_restart();
    server.wait_until("counts-to", |described| described["state"] == "finished");
    assert_eq!(numbers(&server, "numbers").len(), 95);
    server.ok(&["deployment", "delete", "counts-to"]);
    add(&server, "counts-to", &["--source", "numbers", "--config", "to=5"]);
    server.wait_until("counts-to", |described| described["state"] == "finished");
    assert_eq!(numbers(&server, "numbers")[95..], [0, 1, 2, 3, 4]);
}

#[test]
fn a_source_that_fails_and_is_killed_brings_in_each_event_once() {
    for how in ["transient", "permanent", "panic"] {
        let mut server = Server::start();
        server.ok(&["topic", "create", "numbers", "--partitions", "3"]);
        let config = ["--config", "to=60", "--config", &format!("fails={how}")];
        add(&server, "counts-to", &[&["--source", "numbers"], &config[..]].concat());
        server.wait_until("counts-to", |described| described["tasks"][0]["position"].as_u64() >= Some(2));
        server.kill_and_restart();
        server.wait_until("counts-to", |described| described["state"] == "finished");
        let mut found = numbers(&server, "numbers");
        found.sort_unstable();
        assert_eq!(found, (0..60).collect::<Vec<_>>(), "{how}");
        // In order for each key.
        for key in (0..7).map(|key: u64| key.to_string()) {
            let events = json_lines(&server.ok(&["consume", "numbers"]));
            let own: Vec<u64> = events
                .iter()
                .filter(|event| event["key"] == key.as_str())
                .map(|event| event["value"].as_u64().unwrap())
                .collect();
            assert!(own.is_sorted(), "{how}, key {key}: {own:?}");
        }
    }
}

#[test]
fn a_source_can_be_paused_and_says_why_it_does_not_go_on() {
    let server = Server::start();
    server.ok(&["topic", "create", "numbers"]);
    // It lacks its configuration.
    add(&server, "counts-to", &["--source", "numbers"]);
    let described = server.wait_until("counts-to", |described| described["tasks"][0]["attempts"].as_u64() > Some(2));
    assert_eq!(described["state"], "retrying");
    let reason = described["tasks"][0]["reason"].as_str().unwrap();
    assert_eq!(reason, "the component refuses the batch: config `to` is missing");
    server.ok(&["deployment", "pause", "counts-to"]);
    assert_eq!(server.described("counts-to")["state"], "paused");
    server.ok(&["deployment", "delete", "counts-to"]);

    add(&server, "counts-to", &["--source", "numbers", "--on-error", "then=pause"]);
    let described = server.wait_until_failed("counts-to");
    assert_eq!(described["tasks"][0]["attempts"], 2);
    assert_eq!(numbers(&server, "numbers"), [0; 0]);
}

#[test]
fn a_sink_is_given_each_event_in_order_and_with_its_place() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", "2"]);
    let said = add(&server, "tells-what-it-delivers", &["--sink", "in"]);
    assert!(said.contains("): in -> outside\n"), "{said}");
    server.publish_to("in", 0, &["a", "b", "aside", "c"]);
    server.publish_to("in", 1, &["d", "panic", "later", "e", "refuse"]);
    let described = server.wait_until_done("tells-what-it-delivers");
    assert_eq!(described["sink"], json!({ "input": "in" }));
    let mut lines = printed(&server, "tells-what-it-delivers");
    // Sorting keeps those of a partition as they are when they are in order.
    let before = lines.clone();
    lines.sort_by_key(|line| line.split(' ').nth(1).unwrap().to_owned());
    let of = |partition: &str| -> Vec<&String> {
        before.iter().filter(|line| line.split(' ').nth(1) == Some(partition)).collect()
    };
    assert_eq!(of("0"), ["in 0 0 a", "in 0 1 b", "in 0 3 c"]);
    assert_eq!(of("1"), ["in 1 0 d", "in 1 2 later", "in 1 3 e"]);
    let mut dead: Vec<String> = json_lines(&server.ok(&["dlq", "show", "tells-what-it-delivers", "--json"]))
        .iter()
        .map(|letter| letter["value"].as_str().unwrap().to_owned())
        .collect();
    dead.sort();
    assert_eq!(dead, ["aside", "panic", "refuse"]);

    // What was committed is not delivered again.
    server.stop_and_restart();
    server.publish_to("in", 0, &["f"]);
    server.wait_until_done("tells-what-it-delivers");
    assert_eq!(printed(&server, "tells-what-it-delivers"), ["in 0 4 f"]);
}

#[test]
fn what_a_call_leaves_is_given_to_the_next_one_and_nothing_twice() {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    add(&server, "tells-what-it-delivers", &["--sink", "in"]);
    server.publish("in", &["a", "aside", "enough", "enough", "b", "enough", "aside", "c"]);
    let described = server.wait_until_done("tells-what-it-delivers");
    let expected = ["in 0 0 a", "in 0 2 enough", "in 0 3 enough", "in 0 4 b", "in 0 5 enough", "in 0 7 c"];
    assert_eq!(printed(&server, "tells-what-it-delivers"), expected);
    let task = &described["tasks"][0];
    assert_eq!((&task["events_in"], &task["events_rejected"]), (&json!(8), &json!(2)));
    assert_eq!(json_lines(&server.ok(&["dlq", "show", "tells-what-it-delivers", "--json"])).len(), 2);
}

#[test]
fn a_sink_that_is_down_holds_up_only_itself() {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    add(&server, "tells-what-it-delivers", &["--sink", "in", "--name", "down", "--config", "down=1"]);
    add(&server, "tells-what-it-delivers", &["--sink", "in", "--name", "up"]);
    server.deploy("copies", "in:out", &[]);
    server.publish("in", &["a", "b"]);
    server.wait_until_done("up");
    server.wait_until_done("copies");
    let described = server.wait_until("down", |described| described["tasks"][0]["attempts"].as_u64() > Some(1));
    assert_eq!((&described["state"], &described["lag"]), (&json!("retrying"), &json!(2)));
    let reason = described["tasks"][0]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the component asks to try again later: the receiver is down (events 0 to 1"),
        "{reason}"
    );
    assert_eq!(printed(&server, "up"), ["in 0 0 a", "in 0 1 b"]);
    assert_eq!(server.values("out"), ["a", "b"]);
}

#[test]
fn a_component_is_deployed_as_what_it_is() {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    let refused = |name: &str, more: &[&str], code, expected: &str| {
        let said = server.run(&[&["add-component", "--file", &component(name)], more].concat()).failed(code);
        assert_eq!(said, format!("error: {expected}\n"));
    };
    refused("copies", &["--sink", "in"], 2, "component `copies` is no sink; it is transform");
    refused("counts-to", &["--transform", "in"], 2, "component `counts-to` is no transform; it is source");
    refused(
        "tells-what-it-delivers",
        &["--source", "in"],
        2,
        "component `tells-what-it-delivers` is no source; it is sink",
    );
    refused("copies", &["--sink", "in", "--port", "a=in"], 2, "--port a: a sink writes to no topic");
    let said = server.run(&["add-component", "--file", "x.wasm", "--sink", "in", "--source", "in"]).failed(2);
    assert!(said.contains("cannot be used with"), "{said}");
}

#[test]
fn a_deployment_begins_at_a_time() {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let lines: String = (1..=4).map(|day| format!("{{\"at\":\"2013-01-0{day}T00:00:00Z\",\"day\":{day}}}\n")).collect();
    server.run_with(&["publish", "in", "--time-field", "at"], lines.as_bytes()).ok();
    server.deploy("copies", "in:out", &["--from", "2013-01-03"]);
    server.wait_until_done("copies");
    let days: Vec<u64> = json_lines(&server.ok(&["consume", "out"]))
        .iter()
        .map(|event| event["value"]["day"].as_u64().unwrap())
        .collect();
    assert_eq!(days, [3, 4]);
}
