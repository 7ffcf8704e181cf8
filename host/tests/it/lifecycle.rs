//! Instances that are told of their beginning and their end: what is wrong with a configuration is said when it is deployed, and
//! an instance that does not open costs no event.

use crate::harness::{Server, component, json_lines};
use serde_json::json;

fn with_topics() -> Server {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    server
}

/// What a deployment printed itself, or what the host said about it.
fn lines(server: &Server, stream: &str) -> Vec<String> {
    let lines = json_lines(&server.ok(&["deployment", "logs", "opens-and-closes", "--json"]));
    let of = lines.iter().filter(|line| line["stream"] == stream);
    of.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

fn add<'a>(config: &[&'a str]) -> Vec<&'a str> {
    let config = config.iter().flat_map(|entry| ["--config", entry]);
    ["add-component", "--transform", "in:out", "--file"].into_iter().chain(config).collect()
}

#[test]
fn a_component_that_does_not_open_is_not_deployed() {
    let server = with_topics();
    let file = component("opens-and-closes");
    let deploy = |config: &[&str]| {
        let mut args = add(config);
        args.insert(4, &file);
        server.run(&args)
    };
    let said = deploy(&["open=permanent"]).failed(2);
    assert_eq!(said, "error: component `opens-and-closes` does not open: told to\n");
    let said = deploy(&["open=panic"]).failed(2);
    assert!(
        said.starts_with("error: component `opens-and-closes` does not open: the component panicked at "),
        "{said}"
    );
    assert_eq!(server.json(&["deployment", "list"]), json!([]));
    // What its author found out in `new` is said to who deploys it.
    let args =
        ["add-component", "--transform", "in:out", "--config", "rename=city", "--file", &component("shape-json")];
    let said = server.run(&args).failed(2);
    let expected =
        "component `shape-json` does not open: config `rename` is `city`; it is OLD=NEW, with commas between";
    assert_eq!(said, format!("error: {expected}\n"));

    deploy(&["close=panic"]).ok();
    server.publish("in", &["a"]);
    server.wait_until_done("opens-and-closes");
    assert_eq!(server.values("out"), ["a"]);
}

#[test]
fn an_instance_that_does_not_open_costs_no_event() {
    let server = with_topics();
    server.deploy("opens-and-closes", "in:out", &["--config", "open=later", "--from", "earliest"]);
    let values: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    for value in &values {
        server.publish("in", &[value]);
        // Each makes another instance necessary.
        server.ok(&["deployment", "pause", "opens-and-closes"]);
        server.ok(&["deployment", "resume", "opens-and-closes"]);
    }
    server.wait_until_done("opens-and-closes");
    assert_eq!(server.values("out"), values);
    assert_eq!(server.json(&["dlq", "list"]), json!([]));
    let failed = lines(&server, "host").iter().filter(|line| line.contains("does not open: not yet")).count();
    assert!(failed > 0, "half of the instances do not open");

    // One that never opens is tried again for as long as it takes, and says why.
    server.deploy("opens-and-closes", "in:out", &["--config", "open=transient", "--name", "waits"]);
    server.publish("in", &["last"]);
    let waits = server.wait_until("waits", |described| described["tasks"][0]["attempts"].as_u64() > Some(1));
    assert_eq!((&waits["state"], &waits["lag"]), (&json!("retrying"), &json!(1)));
    let reason = waits["tasks"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the component does not open: told to ("), "{reason}");
}

#[test]
fn an_instance_that_is_let_go_is_told() {
    let server = with_topics();
    server.deploy("opens-and-closes", "in:out", &["--config", "close=panic"]);
    let printed = || lines(&server, "stdout");
    server.publish("in", &["a"]);
    server.wait_until_done("opens-and-closes");
    assert_eq!(printed(), ["opens"]);
    server.ok(&["deployment", "pause", "opens-and-closes"]);
    assert_eq!(printed(), ["opens", "closes"]);
    let host = lines(&server, "host");
    assert!(host[0].starts_with("closing an instance failed: the component panicked at "), "{host:?}");

    // Nothing is lost by a goodbye that fails.
    server.publish("in", &["b"]);
    server.ok(&["deployment", "resume", "opens-and-closes"]);
    server.wait_until_done("opens-and-closes");
    assert_eq!(printed(), ["opens", "closes", "opens"]);

    // A topic behind a port has changed: another instance.
    server.ok(&["topic", "update", "out", "--partitions", "2"]);
    server.publish("in", &["c"]);
    server.wait_until_done("opens-and-closes");
    assert_eq!(printed(), ["opens", "closes", "opens", "closes", "opens"]);

    // There is nobody to say goodbye to after a trap.
    server.publish("in", &["panic"]);
    server.wait_until_done("opens-and-closes");
    assert_eq!(printed()[4..], ["opens", "opens"]);
    assert_eq!(server.values("out").len(), 3);
    server.ok(&["deployment", "delete", "opens-and-closes"]);
}
