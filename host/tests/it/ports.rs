//! Ports that a component describes: what does not fit is said when it is deployed, and topics that are missing are made where that
//! is asked for, and only then.

use crate::harness::{Server, component};
use serde_json::json;

fn deploy(server: &Server, guest: &str, more: &[&str]) -> crate::harness::Ran {
    server.run(&[&["add-component", "--file", &component(guest)], more].concat())
}

fn topics(server: &Server) -> Vec<String> {
    let listed = server.json(&["topic", "list"]);
    listed.as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap().to_owned()).collect()
}

/// Partitions of a topic, and what it holds.
fn made(server: &Server, topic: &str) -> (u64, String) {
    let listed = server.json(&["topic", "list", "--prefix", topic]);
    (listed[0]["partitions"].as_u64().unwrap(), listed[0]["values"].as_str().unwrap().to_owned())
}

const ITS_PORTS: &str =
    "its ports are: the input: what is copied; \"\" (required): the copies; \"bad\": what was never there";

#[test]
fn what_is_wired_is_what_the_component_has() {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let refused = |more: &[&str], expected: &str| {
        let said = deploy(&server, "describes-ports", more).failed(2);
        assert_eq!(said, format!("error: {expected}\n"));
    };
    let expected = format!("component `describes-ports` needs a topic behind port \"\"; {ITS_PORTS}");
    refused(&["--transform", "in"], &format!("{expected}\nhint: give its topic behind a colon: IN:OUT"));
    let expected = format!("component `describes-ports` has no port \"worse\"; {ITS_PORTS}");
    refused(&["--transform", "in:out", "--port", "worse=out"], &expected);
    let expected = "component `describes-ports` does not describe its ports: told to";
    refused(&["--transform", "in:out", "--config", "ports=permanent"], expected);
    let expected = "port \"none\" of component `describes-ports` asks for a topic that there cannot be: 0 partitions; a topic has 1 \
                    to 1024";
    refused(&["--transform", "in:out", "--config", "ports=zero"], expected);

    // A component whose ports are configured says so before an event fails at one.
    let said = deploy(
        &server,
        "route-by-field",
        &["--transform", "in:out", "--port", "UA=out", "--config", "field=c", "--config", "ports=UA,DL"],
    )
    .failed(2);
    assert!(
        said.starts_with("error: component `route-by-field` needs a topic behind port \"DL\"; its ports"),
        "{said}"
    );
    assert!(said.ends_with("\nhint: give its topic with --port DL=TOPIC\n"), "{said}");
    assert_eq!(server.json(&["deployment", "list"]), json!([]));

    deploy(&server, "describes-ports", &["--transform", "in:out"]).ok();
    server.publish("in", &["1"]);
    server.wait_until_done("describes-ports");
    assert_eq!(server.values("out"), ["1"]);
}

#[test]
fn topics_are_made_as_the_ports_say_and_only_when_it_is_asked_for() {
    let server = Server::start();
    let wiring = ["--transform", "in:out", "--port", "bad=bad"];
    let said = deploy(&server, "describes-ports", &wiring).failed(1);
    let hint = "create it with `nodata topic create in`, or have it made with --create-topics";
    assert_eq!(said, format!("error: topic `in` does not exist\nhint: {hint}\n"));

    // What is refused leaves no topic behind.
    let with = |more: &[&'static str]| [&wiring[..], &["--create-topics"], more].concat();
    deploy(&server, "describes-ports", &with(&["--config", "ports=permanent"])).failed(2);
    deploy(&server, "describes-ports", &with(&["--port", "worse=worse"])).failed(2);
    let said = deploy(&server, "describes-ports", &with(&["--from", "7"])).failed(2);
    let expected = "offset 7 is out of range in partition 0 of `in`: the earliest is 0, the end is 0";
    assert_eq!(said, format!("error: {expected}\n"));
    deploy(&server, "opens-and-closes", &["--transform", "in:out", "--create-topics", "--config", "open=panic"])
        .failed(2);
    let said = deploy(&server, "copies", &["--transform", "in:in", "--create-topics"]).failed(2);
    assert!(said.contains("would read what it writes"), "{said}");
    let said = deploy(&server, "copies", &["--transform", "in:bad name", "--create-topics"]).failed(2);
    assert_eq!(said, "error: name `bad name` contains ' '; allowed are letters, digits, `_`, `.` and `-`\n");
    assert_eq!(topics(&server), [""; 0]);
    server.ok(&["topic", "create", "wide", "--partitions", "2"]);
    let said = deploy(
        &server,
        "aggregate-fields",
        &["--aggregate", "wide:out", "--window", "session=1m", "--create-topics", "--config", "compute=n=count"],
    )
    .failed(2);
    assert!(said.contains("a session may be in any"), "{said}");
    deploy(&server, "copies", &["--transform", "wide:out", "--create-topics", "--from", "kept"]).failed(1);
    assert_eq!(topics(&server), ["wide"]);
    server.ok(&["topic", "delete", "wide"]);

    deploy(&server, "describes-ports", &with(&[])).ok();
    assert_eq!(topics(&server), ["bad", "in", "out"]);
    assert_eq!(made(&server, "in"), (2, "text".to_owned()));
    assert_eq!(made(&server, "out"), (2, "json".to_owned()));
    assert_eq!(made(&server, "bad"), (3, "bytes".to_owned()));
    server.publish("in", &["1", "2"]);
    server.wait_until_done("describes-ports");
    assert_eq!(server.values("out").len(), 2);

    // The name is taken: nothing is made for it.
    let said = deploy(&server, "describes-ports", &["--transform", "in:another", "--create-topics"]).failed(1);
    assert!(said.starts_with("error: deployment `describes-ports` exists already\n"), "{said}");
    assert_eq!(topics(&server), ["bad", "in", "out"]);
}

#[test]
fn topics_are_made_for_components_that_say_nothing() {
    let server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", "3"]);
    deploy(&server, "copies", &["--transform", "in:out", "--create-topics"]).ok();
    assert_eq!(made(&server, "out"), (3, "bytes".to_owned()));
    deploy(&server, "counts-to", &["--source", "numbers", "--create-topics", "--config", "to=5"]).ok();
    server.wait_until("counts-to", |described| described["state"] == "finished");
    assert_eq!(made(&server, "numbers"), (1, "bytes".to_owned()));
    assert_eq!(server.values("numbers").len(), 5);
    deploy(&server, "tells-what-it-delivers", &["--sink", "new", "--create-topics"]).ok();
    server.publish("new", &["a"]);
    server.wait_until_done("tells-what-it-delivers");
}
