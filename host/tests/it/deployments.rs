//! Deployments, as an operator makes, watches, pauses and deletes them.

use crate::harness::{NODATA, Server, block_on, component, json_lines};
use nodata_client::{Event, PublisherOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// A server with the topics `in` and `out`.
fn server(partitions: &str) -> Server {
    let server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", partitions]);
    server.ok(&["topic", "create", "out"]);
    server
}

/// What a command says when it is refused.
fn check_refused(server: &Server, args: &[&str], code: i32, expected: &str) {
    assert_eq!(server.run(args).failed(code), format!("error: {expected}\n"), "{args:?}");
}

#[test]
fn a_deployment_is_made_listed_and_described() {
    let server = server("2");
    let file = component("copies");
    let said = server.ok(&["add-component", "--file", &file, "--transform", "in:out", "--config", "a=1"]);
    let digest = server.described("copies")["digest"].as_str().unwrap().to_owned();
    let short = &digest[..12];
    assert_eq!(
        said,
        format!("deployed copies ({short}): in -> out\nsee how it does: nodata deployment describe copies\n")
    );
    server.publish("in", &["a", "b", "c"]);
    let mut described = server.wait_until_done("copies");
    let list = server.ok(&["deployment", "list"]);
    let words: Vec<&str> = list.split_whitespace().collect();
    assert_eq!(words[..6], ["NAME", "STATE", "LAG", "CPU", "TOPICS", "COMPONENT"]);
    assert_eq!(words[6..9], ["copies", "running", "0"]);
    assert_eq!(words[10..], ["s", "in", "->", "out", "copies", &format!("({short})")]);
    assert_eq!(server.json(&["deployment", "list"])[0]["name"], "copies");

    // The partition without a key is the choice of the client, so the two are summed up.
    let sum = |of: &str| described["tasks"].as_array().unwrap().iter().map(|task| task[of].as_u64().unwrap()).sum();
    let sums: [u64; 6] = ["position", "end", "lag", "events_in", "events_out", "events_rejected"].map(sum);
    assert_eq!(sums, [3, 3, 0, 3, 3, 0]);
    let tasks: Vec<Value> = described["tasks"].as_array().unwrap().clone();
    for (partition, task) in tasks.iter().enumerate() {
        assert_eq!(task["partition"], partition);
        assert_eq!((&task["state"], &task["attempts"], &task["reason"]), (&json!("running"), &json!(0), &json!("")));
    }
    for varies in ["tasks", "created", "history", "budget", "budget_asked", "usage", "asks"] {
        described.as_object_mut().unwrap().remove(varies).unwrap();
    }
    let expected = json!({
        "name": "copies", "state": "running", "lag": 0, "component": "copies", "digest": digest,
        "label": "",
        "transform": { "input": "in", "outputs": { "": "out" } }, "config": { "a": "1" }, "secrets": {}, "allow_http": [],
        "on_error": "retry=forever,then=dead-letter", "metrics": [], "revision": 1,
    });
    assert_eq!(described, expected);
    let text = server.ok(&["deployment", "describe", "copies"]);
    let begin =
        format!("deployment copies: running, lag 0\ncomponent  copies ({short})\nrevision   1\ntopics     in -> out\n");
    assert!(text.starts_with(&begin), "{text}");
    assert!(
        text.contains("config     a = 1\nasks to    ")
            && text.contains("budget     memory           256.0 MiB (default)\n")
            && text.contains("\n\nPARTITION  STATE    REVISION  POSITION  LAG  IN  OUT  REJECTED  SKIPPED  MEMORY"),
        "{text}"
    );
}

#[test]
fn wrong_deployments_are_refused_and_leave_nothing() {
    let server = server("1");
    let file = component("copies");
    let refused = |more: &[&str], code, expected: &str| {
        check_refused(&server, &[&["add-component", "--file", &file], more].concat(), code, expected);
    };
    let unknown = "topic `nowhere` does not exist\nhint: create it with `nodata topic create nowhere`, or have it made with \
                   --create-topics";
    refused(&["--transform", "nowhere:out"], 1, unknown);
    refused(&["--transform", "in:nowhere"], 1, unknown);
    refused(&["--transform", "in:out", "--port", "late=nowhere"], 1, unknown);
    refused(
        &["--transform", ":out"],
        2,
        "--transform :out: give IN:OUT, or IN if the component writes to no default port",
    );
    refused(&["--transform", "in:out", "--config", "a=1", "--config", "a=2"], 2, "--config a is given twice (1 first)");
    check_refused(
        &server,
        &["add-component", "--file", "not-there.wasm", "--transform", "in:out"],
        1,
        "cannot read not-there.wasm: No such file or directory (os error 2)",
    );
    assert_eq!(server.json(&["component", "list"]), json!([]), "what is wrong is told before the upload");

    refused(
        &["--transform", "in:in"],
        2,
        "the deployment would read what it writes: topic `in` is its input and behind port \"\"",
    );
    refused(
        &["--transform", "in:out", "--from", "7"],
        2,
        "offset 7 is out of range in partition 0 of `in`: the earliest is 0, the end is 0",
    );
    let large = format!("a={}", "x".repeat(65_536));
    refused(
        &["--transform", "in:out", "--config", &large],
        2,
        "bytes of configuration: 65537, at most 65536 are allowed",
    );
    for command in ["describe", "pause", "resume", "delete", "logs"] {
        check_refused(&server, &["deployment", command, "copies"], 1, "deployment `copies` does not exist");
    }
    assert_eq!(server.json(&["deployment", "list"]), json!([]));

    server.deploy("copies", "in:out", &[]);
    let exists = "deployment `copies` exists already\nhint: give another name, or delete it first: `nodata deployment \
                  delete copies`";
    refused(&["--transform", "in:out"], 1, exists);
}

#[test]
fn a_paused_deployment_waits_also_over_a_restart() {
    let mut server = server("2");
    server.deploy("copies", "in:out", &[]);
    assert_eq!(server.ok(&["deployment", "pause", "copies"]), "paused copies\n");
    server.publish_to("in", 0, &["a", "b"]);
    server.publish_to("in", 1, &["c"]);
    let check_waits = |server: &Server| {
        let described = server.described("copies");
        assert_eq!((&described["state"], &described["lag"]), (&json!("paused"), &json!(3)));
        let tasks = described["tasks"].as_array().unwrap();
        let states: Vec<_> = tasks.iter().map(|task| (&task["state"], &task["lag"])).collect();
        assert_eq!(states, [(&json!("paused"), &json!(2)), (&json!("paused"), &json!(1))]);
        assert_eq!(server.values("out"), [""; 0]);
    };
    check_waits(&server);
    server.kill_and_restart();
    check_waits(&server);
    assert_eq!(server.ok(&["deployment", "pause", "copies"]), "paused copies\n", "pausing again changes nothing");

    assert_eq!(server.ok(&["deployment", "resume", "copies"]), "resumed copies\n");
    server.wait_until_done("copies");
    let mut values = server.values("out");
    values.sort();
    assert_eq!(values, ["a", "b", "c"]);
}

#[test]
fn a_deleted_deployment_forgets_positions_and_state_and_leaves_its_outputs() {
    let server = server("1");
    let publish = |keys: &[&str]| {
        let lines: String = keys.iter().map(|key| format!("{{\"key\":\"{key}\"}}\n")).collect();
        server.run_with(&["publish", "in", "--key-field", "key"], lines.as_bytes()).ok();
    };
    publish(&["a", "a"]);
    server.deploy("running-count", "in:out", &["--from", "earliest"]);
    server.wait_until_done("running-count");
    assert_eq!(server.ok(&["deployment", "delete", "running-count"]), "deleted deployment running-count\n");
    assert_eq!(server.json(&["deployment", "list"]), json!([]));
    publish(&["a"]);

    server.deploy("running-count", "in:out", &["--from", "earliest"]);
    server.wait_until_done("running-count");
    let counts: Vec<u64> = json_lines(&server.ok(&["consume", "out"]))
        .iter()
        .map(|event| event["value"]["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [1, 2, 1, 2, 3], "the first two are of the one that was deleted");
}

#[test]
fn a_deployment_begins_where_it_is_told() {
    let server = server("1");
    for name in ["earliest", "latest", "2"] {
        server.ok(&["topic", "create", &format!("from-{name}")]);
    }
    server.publish("in", &["a", "b", "c"]);
    for name in ["earliest", "latest", "2"] {
        let topic = format!("from-{name}");
        server.deploy("copies", &format!("in:{topic}"), &["--name", &topic, "--from", name]);
    }
    server.publish("in", &["d"]);
    let processed = |name: &str| {
        server.wait_until_done(name);
        server.values(name).concat()
    };
    assert_eq!(processed("from-earliest"), "abcd");
    assert_eq!(processed("from-latest"), "d");
    assert_eq!(processed("from-2"), "cd");
}

#[test]
fn each_port_has_its_topic() {
    let server = server("1");
    for topic in ["united", "delta"] {
        server.ok(&["topic", "create", topic]);
    }
    let config = ["--config", "field=carrier", "--config", "ports=UA,DL"];
    server.deploy("route-by-field", "in:out", &[&["--port", "UA=united", "--port", "DL=delta"], &config[..]].concat());
    assert_eq!(
        server.json(&["deployment", "list"])[0]["transform"],
        json!({ "input": "in", "outputs": { "": "out", "UA": "united", "DL": "delta" } })
    );
    let flights = ["UA", "DL", "UA", "B6"].map(|carrier| format!("{{\"carrier\":\"{carrier}\"}}"));
    server.publish("in", &flights.each_ref().map(String::as_str));
    server.wait_until_done("route-by-field");
    assert_eq!(server.values("united"), [&*flights[0], &flights[2]]);
    assert_eq!(server.values("delta"), [&*flights[1]]);
    assert_eq!(server.values("out"), [&*flights[3]]);
}

#[test]
fn a_component_reads_the_configuration_of_its_deployment_also_after_a_restart() {
    let mut server = server("1");
    server.deploy("reads-config", "in:out", &["--config", "b=", "--config", "a=1=2"]);
    server.publish("in", &["x"]);
    server.wait_until_done("reads-config");
    let expected = ["[(\"a\", \"1=2\"), (\"b\", \"\")]", "Some(\"1=2\") None None", "None"];
    assert_eq!(server.values("out"), expected);
    server.kill_and_restart();
    server.publish("in", &["x"]);
    server.wait_until_done("reads-config");
    assert_eq!(server.values("out"), [expected, expected].concat());
}

#[test]
fn what_a_component_prints_is_its_log_and_bounded() {
    let server = server("1");
    server.deploy("prints", "in:out", &[]);
    server.publish("in", &["a"]);
    server.wait_until_done("prints");
    let logs = |more: &[&str]| server.ok(&[&["deployment", "logs", "prints"], more].concat());
    let lines = json_lines(&logs(&["--json"]));
    let shown: Vec<String> = lines
        .iter()
        .map(|line| {
            format!("{} {} {}", line["partition"], line["stream"].as_str().unwrap(), line["text"].as_str().unwrap())
        })
        .collect();
    assert_eq!(shown[..3], ["0 stdout out a", "0 stderr err a", "0 stdout flood 0"]);
    let dropped = shown.iter().find(|line| line.starts_with("0 host "));
    assert!(dropped.unwrap().ends_with("lines dropped: more than 200 in a second"), "{dropped:?}");
    assert!(shown.len() < 1000, "{}", shown.len());
    let last = logs(&["--tail", "1"]);
    assert!(last.trim_end().ends_with(lines.last().unwrap()["text"].as_str().unwrap()), "{last}");
    assert_eq!(logs(&["--tail", "2"]).lines().count(), 2);

    let mut follower = Command::new(NODATA)
        .args(["deployment", "logs", "prints", "--follow", "--tail", "1"])
        .env("NODATA_SERVER", server.address())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut followed = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(followed.next().unwrap(), last.trim_end());
    server.publish("in", &["later"]);
    while !followed.next().unwrap().contains("lines dropped") {}
    follower.kill().unwrap();
    follower.wait().unwrap();
}

/// Keys and the counts that came out for them, in order.
fn counts(server: &Server) -> BTreeMap<String, Vec<u64>> {
    let mut counts = BTreeMap::<String, Vec<u64>>::new();
    for event in json_lines(&server.ok(&["consume", "out"])) {
        let counted = &event["value"];
        assert_eq!(counted["key"], event["key"]);
        let key = counted["key"].as_str().unwrap().to_owned();
        counts.entry(key).or_default().push(counted["count"].as_u64().unwrap());
    }
    counts
}

#[test]
fn state_is_exact_whenever_the_server_is_killed() {
    let mut server = server("3");
    server.deploy("running-count", "in:out", &[]);
    let mut published = BTreeMap::<String, u64>::new();
    block_on(async {
        let client = server.client().await;
        let options = PublisherOptions { batch_events_max: 20, ..PublisherOptions::default() };
        let publisher = client.publisher("in", options);
        for number in 0..3000u64 {
            let key = format!("k{}", number * number % 11);
            publisher.send(Event::new("x").with_key(key.clone())).await.unwrap();
            *published.entry(key).or_default() += 1;
            if number % 500 == 499 {
                tokio::task::block_in_place(|| server.kill_and_restart());
            }
        }
        publisher.flush().await.unwrap();
    });
    server.wait_until_done("running-count");
    let expected: BTreeMap<String, Vec<u64>> =
        published.into_iter().map(|(key, count)| (key, (1..=count).collect())).collect();
    assert_eq!(counts(&server), expected, "each event of a key is counted once, in order");
}

#[test]
fn topics_in_use_cannot_be_deleted() {
    let server = server("1");
    server.ok(&["topic", "create", "late"]);
    server.deploy("rejects-odd", "in:out", &["--port", "late=late"]);
    server.publish("in", &["a", "b"]);
    server.wait_until_done("rejects-odd");
    for topic in ["in", "out", "late", "rejects-odd.dlq"] {
        let expected = format!(
            "topic `{topic}` is used by deployment `rejects-odd`\nhint: delete the deployment first: `nodata deployment \
             delete rejects-odd`"
        );
        check_refused(&server, &["topic", "delete", topic], 1, &expected);
    }
    server.ok(&["deployment", "delete", "rejects-odd"]);
    for topic in ["in", "out", "late", "rejects-odd.dlq"] {
        server.ok(&["topic", "delete", topic]);
    }
}

#[test]
fn partitions_that_are_added_are_read_and_written() {
    let server = server("1");
    server.deploy("copies", "in:out", &[]);
    server.publish("in", &["a"]);
    server.wait_until_done("copies");
    server.ok(&["topic", "update", "in", "--partitions", "3"]);
    server.ok(&["topic", "update", "out", "--partitions", "4"]);
    server.publish_to("in", 2, &["b"]);
    server.publish_to("in", 1, &["c"]);
    let described = server.wait_until_done("copies");
    let tasks = described["tasks"].as_array().unwrap();
    assert_eq!(tasks.iter().map(|task| task["position"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 1, 1]);
    let read = |partition: &str| server.ok(&["consume", "out", "--raw", "--partition", partition]);
    // Without a key an event stays in the partition that it came from.
    assert_eq!([read("0"), read("1"), read("2"), read("3")], ["a\n", "c\n", "b\n", ""]);
}

/// A component of the examples, from lines to lines.
#[track_caller]
fn check_example(component: &str, lines: &[&str], expected: &[&str]) {
    let server = server("1");
    server.deploy(component, "in:out", &[]);
    server.publish("in", lines);
    server.wait_until_done(component);
    assert_eq!(server.values("out"), expected, "{component}");
}

#[test]
fn the_examples_do_what_they_say() {
    let lines = ["info host=web-17 user=ada path=/orders/4711 status=200", "debug user=ada", "warn disk"];
    check_example("filter-rewrite", &lines, &["INFO host=web-17 user=*** path=/orders/4711 status=200", "WARN disk"]);
    // This one is built with cargo-component, from the contract alone.
    check_example("redact", &["write to ada@example.com today", "or not"], &["write to [redacted] today", "or not"]);
}
