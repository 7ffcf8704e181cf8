//! Stores that earlier versions wrote must open in every later one, for ever.
//!
//! `tests/data/golden/` has them as archives, each with what was in it. They are never changed. When something new can be in a
//! store, one more is added: `NODATA_GOLDEN=NAME cargo nextest run -p nodata golden` writes it.

use crate::harness::{Server, json_lines, run};
use crate::outside::outside;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden")
}

fn tar(args: &[&str]) {
    let status = Command::new("tar").args(args).status().unwrap();
    assert!(status.success(), "tar {args:?}");
}

/// Everything of a store that a user can see and that does not change by looking.
fn seen(server: &Server) -> Value {
    let topics = server.json(&["topic", "list"]);
    let events = |topic: &Value| {
        let mut events = json_lines(&server.ok(&["consume", topic["name"].as_str().unwrap()]));
        events.sort_by_key(|event| (event["partition"].as_u64(), event["offset"].as_u64()));
        (topic["name"].as_str().unwrap().to_owned(), Value::Array(events))
    };
    let all: serde_json::Map<String, Value> = topics.as_array().unwrap().iter().map(events).collect();
    let mut deployments = server.json(&["deployment", "list"]);
    for deployment in deployments.as_array_mut().unwrap() {
        let described = server.described(deployment["name"].as_str().unwrap());
        let positions: Vec<&Value> =
            described["tasks"].as_array().unwrap().iter().map(|task| &task["position"]).collect();
        let kept =
            ["name", "component", "digest", "transform", "config"].map(|key| (key.to_owned(), described[key].clone()));
        let mut kept: serde_json::Map<String, Value> = kept.into_iter().collect();
        kept.insert("positions".to_owned(), json!(positions));
        *deployment = Value::Object(kept);
    }
    json!({ "topics": topics, "events": all, "deployments": deployments })
}

fn publish_orders(server: &Server, range: std::ops::Range<u32>) {
    let lines: String = range.map(|n| format!("{{\"id\":\"o{n}\",\"customer\":\"c{}\",\"n\":{n}}}\n", n % 7)).collect();
    let args = ["publish", "orders", "--key-field", "customer", "--id-field", "id"];
    server.run_with(&args, lines.as_bytes()).ok();
}

/// A store with something of everything: files that are sealed and that grow, events in no file yet, and no end in order.
fn write(name: &str) {
    let mut server = Server::start_with(&["--keep-log", "0"]);
    server.ok(&["topic", "create", "orders", "--partitions", "3", "--retention", "10000d", "--deduplicate", "7d"]);
    server.ok(&["topic", "create", "flights", "--column", "carrier:string", "--column", "dep_delay:int64"]);
    server.ok(&["topic", "create", "notes", "--values", "text", "--event-bytes-max", "1000", "--deduplicate", "off"]);
    server.ok(&["topic", "create", "counts"]);
    server.ok(&["topic", "create", "gone"]);
    server.deploy("running-count", "orders:counts", &[]);
    publish_orders(&server, 0..120);
    let flights = include_str!("../data/flights-sample.ndjson");
    let first: String = flights.lines().take(100).map(|line| format!("{line}\n")).collect();
    let args = ["publish", "flights", "--key-field", "carrier", "--time-field", "time_hour"];
    server.run_with(&args, first.as_bytes()).ok();
    server.publish("notes", &["a note", "naïve", ""]);
    server.publish("gone", &["with a topic that was deleted"]);
    server.ok(&["topic", "flush"]);
    server.ok(&["topic", "delete", "gone"]);
    publish_orders(&server, 120..150);
    server.run_with(&args, b"{\"carrier\":5,\"time_hour\":\"2013-01-01T10:00:00Z\"}\n").ok();
    server.ok(&["topic", "flush", "flights"]);
    server.wait_until_done("running-count");
    server.stop_and_restart();
    // What comes now is only in the log.
    publish_orders(&server, 150..180);
    server.publish("notes", &["a last note"]);
    server.wait_until_done("running-count");
    let expected = seen(&server);
    server.signal("KILL");
    server.wait();
    std::fs::create_dir_all(golden()).unwrap();
    std::fs::write(golden().join(format!("{name}.json")), format!("{expected}\n")).unwrap();
    let data = server.dir().path().to_str().unwrap().to_owned();
    let archive = golden().join(format!("{name}.tar.gz"));
    // What is compiled is of one machine and version.
    let left_out = ["--exclude", "spare-*.wal", "--exclude", "data/cache"];
    tar(&[&["-C", &data][..], &left_out, &["-czf", archive.to_str().unwrap(), "data"]].concat());
}

#[allow(clippy::disallowed_methods, reason = "a test has no settings")]
fn to_be_written() -> Option<String> {
    std::env::var("NODATA_GOLDEN").ok()
}

#[test]
fn a_store_of_an_earlier_version_opens_with_everything_in_it() {
    if let Some(name) = to_be_written() {
        write(&name);
    }
    let mut found = 0;
    for entry in std::fs::read_dir(golden()).unwrap() {
        let archive = entry.unwrap().path();
        let Some(name) = archive.to_str().unwrap().strip_suffix(".tar.gz") else { continue };
        found += 1;
        let expected: Value = serde_json::from_slice(&std::fs::read(format!("{name}.json")).unwrap()).unwrap();
        let dir = Arc::new(tempfile::tempdir().unwrap());
        tar(&["-C", dir.path().to_str().unwrap(), "-xzf", archive.to_str().unwrap()]);
        let data = dir.path().join("data");
        let checked = run(&["fsck", "--data", data.to_str().unwrap()], &[], dir.path(), b"");
        assert_eq!(checked.code, 0, "{checked:?}");

        let mut server = Server::start_in(dir, "127.0.0.1:0");
        check(&server, &expected, name);
        // It is a store like any other from now on.
        let counted = server.json(&["topic", "describe", "counts"])["partition_offsets"][0]["end"].as_u64().unwrap();
        let again = "{\"id\":\"o3\",\"customer\":\"c3\"}\n{\"id\":\"new\",\"customer\":\"c3\"}\n";
        server.run_with(&["publish", "orders", "--key-field", "customer", "--id-field", "id"], again.as_bytes()).ok();
        server.wait_until_done("running-count");
        let counts = json_lines(&server.ok(&["consume", "counts", "--from", &counted.to_string()]));
        let last = counts.last().unwrap()["value"].clone();
        let before = expected["events"]["counts"].as_array().unwrap().iter();
        let most =
            before.filter(|event| event["key"] == "c3").map(|event| event["value"]["count"].as_u64().unwrap()).max();
        // The window for ids may be over since.
        let known = counts.len() as u64;
        assert_eq!(last, json!({ "key": "c3", "count": most.unwrap() + known }), "state is what it was");
        server.stop_and_restart();
        for topic in ["orders", "flights", "notes", "counts"] {
            let events = server.ok(&["consume", topic]).lines().count();
            assert_eq!(outside(&server, topic)["count"], events, "{topic}");
        }
    }
    assert!(found > 0, "there is none");
}

fn check(server: &Server, expected: &Value, name: &str) {
    let found = seen(server);
    for part in ["deployments", "events"] {
        assert_eq!(found[part], expected[part], "{part} of {name}");
    }
    // What is known of a topic may grow, and what was known stays.
    for (found, expected) in found["topics"].as_array().unwrap().iter().zip(expected["topics"].as_array().unwrap()) {
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&found[key], value, "{key} of {name}");
        }
    }
}
