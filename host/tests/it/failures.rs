//! Components that fail: what is tried again, what pauses, what an operator reads, and that nothing is lost or done twice.

use crate::harness::{Server, json_lines};
use serde_json::{Value, json};

/// A server with a topic `in` that has one partition, and a topic `out`.
fn server() -> Server {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    server.ok(&["topic", "create", "out"]);
    server
}

fn text<'a>(task: &'a Value, field: &str) -> &'a str {
    task[field].as_str().unwrap()
}

#[test]
fn a_transient_error_is_tried_again_until_it_passes_and_leaves_nothing() {
    let server = server();
    server.deploy("fails-at-first", "in:out", &["--config", "how=transient", "--config", "times=4"]);
    server.publish("in", &["a"]);
    let described = server.wait_until_done("fails-at-first");
    assert_eq!((&described["tasks"][0]["attempts"], &described["tasks"][0]["reason"]), (&json!(0), &json!("")));
    // State, outputs and rejected events of the calls that failed are gone.
    assert_eq!(server.values("out"), ["call 1"]);
    let dead = json_lines(&server.ok(&["consume", "fails-at-first.dlq"]));
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(
        (&dead[0]["headers"]["nodata-reason"], &dead[0]["headers"]["nodata-attempt"]),
        (&json!("call 1"), &json!("5"))
    );
    let logs = server.ok(&["deployment", "logs", "fails-at-first"]);
    assert!(logs.contains("attempt 4: the component asks to try again later: attempt 4 is too early"), "{logs}");
}

#[test]
fn while_it_is_tried_again_it_says_so_and_can_be_paused_and_deleted() {
    let mut server = server();
    server.deploy("fails-at-first", "in:out", &["--config", "how=transient", "--config", "times=1000000"]);
    server.publish("in", &["a"]);
    let retries = |server: &Server| {
        let described =
            server.wait_until("fails-at-first", |described| described["tasks"][0]["attempts"].as_u64() > Some(2));
        let task = &described["tasks"][0];
        assert_eq!((&described["state"], &task["state"]), (&json!("retrying"), &json!("retrying")));
        assert!(text(task, "reason").contains("is too early (event 0 of `in`, partition 0)"), "{task}");
        assert!(task["last_lines"].to_string().contains("this is attempt "), "{task}");
    };
    retries(&server);
    server.kill_and_restart();
    retries(&server);
    server.ok(&["deployment", "pause", "fails-at-first"]);
    assert_eq!(server.described("fails-at-first")["state"], "paused");
    server.ok(&["deployment", "resume", "fails-at-first"]);
    retries(&server);
    server.ok(&["deployment", "delete", "fails-at-first"]);
    assert_eq!(server.values("out"), [""; 0]);
}

#[test]
fn a_hard_failure_is_tried_once_more_on_a_fresh_instance() {
    for how in ["panic", "permanent"] {
        let server = server();
        server.deploy("fails-at-first", "in:out", &["--config", &format!("how={how}"), "--config", "times=1"]);
        server.publish("in", &["a"]);
        server.wait_until_done("fails-at-first");
        assert_eq!(server.values("out"), ["call 1"], "{how}");
    }
    // The instance that trapped is not used again: the next one counts from the beginning.
    let server = server();
    server.deploy("traps-on-third", "in:out", &[]);
    let words = ["a", "b", "c", "d", "e", "f", "g"];
    for word in words {
        server.publish("in", &[word]);
        server.wait_until_done("traps-on-third");
    }
    let forwarded: Vec<String> = server.values("out").into_iter().filter(|value| !value.starts_with("never")).collect();
    assert_eq!(forwarded, words, "each once, in order");
    assert_eq!(server.values("out").len(), 2 * words.len());
}

/// A component that fails for good pauses its task, says why, keeps that over a restart, and leaves nothing.
#[track_caller]
fn check_pauses(component: &str, config: &[&str], reason: &str, last_line: &str) {
    let mut server = server();
    let config = config.iter().flat_map(|config| ["--config", *config]);
    let more: Vec<&str> = config.chain(["--on-error", "then=pause"]).collect();
    server.deploy(component, "in:out", &more);
    server.publish("in", &["boom"]);
    let check = |described: &Value| {
        assert_eq!((&described["state"], &described["lag"]), (&json!("failed"), &json!(1)));
        let task = &described["tasks"][0];
        assert_eq!((&task["attempts"], &task["position"]), (&json!(2), &json!(0)), "{task}");
        let whole = format!("{reason} (event 0 of `in`, partition 0)");
        assert_eq!(text(task, "reason"), whole);
        assert!(task["last_lines"].to_string().contains(last_line), "{task}");
    };
    check(&server.wait_until_failed(component));
    assert_eq!(server.values("out"), [""; 0], "{component}");
    server.kill_and_restart();
    check(&server.described(component));
    let shown = server.ok(&["deployment", "describe", component]);
    // What has several lines is shown on one.
    let begin = format!("partition 0 is failed after 2 attempts: {} (event 0", reason.replace('\n', " "));
    assert!(shown.contains(&begin), "{shown}");
    assert!(
        shown.contains(&format!("nothing is lost; try again with `nodata deployment resume {component}`")),
        "{shown}"
    );
    assert!(shown.contains(last_line), "{shown}");

    server.ok(&["deployment", "resume", component]);
    check(&server.wait_until_failed(component));
}

#[test]
fn a_panic_pauses_with_its_message_and_its_last_lines() {
    let reason = "the component panicked at guests/examples/panics.rs:10:5: assertion `left != right` failed: the word was \
                  said\n  left: \"boom\"\n right: \"boom\"";
    check_pauses("panics", &[], reason, "looking at boom");
}

#[test]
fn a_permanent_error_pauses_with_its_message() {
    let reason = "the component refuses the batch: attempt 2 cannot help";
    check_pauses("fails-at-first", &["how=permanent", "times=9"], reason, "this is attempt 2");
}

#[test]
fn more_memory_than_allowed_pauses() {
    let reason = "the component wanted more than 256 MiB of memory";
    check_pauses("grows", &["mebibytes=300"], reason, "");
}

#[test]
fn a_call_without_end_pauses() {
    check_pauses("spins", &[], "the component used more than 5 s of processor time", "");
}

#[test]
fn outputs_that_are_not_allowed_pause() {
    let reason = "the component refuses the batch: the deployment wires no topic to port `nowhere`";
    check_pauses("emits-nowhere", &[], reason, "");
    let reason = "the component refuses the batch: the output of this call is more than the deployment allows: 1 events with \
                  1048576 bytes for the default port were refused, 0 bytes were left";
    check_pauses("emits-too-much", &[], reason, "");
}

#[test]
fn a_task_that_failed_holds_up_neither_the_other_partitions_nor_the_other_deployments() {
    let server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", "2"]);
    server.ok(&["topic", "create", "out"]);
    server.ok(&["topic", "create", "copied"]);
    server.deploy("panics", "in:out", &["--on-error", "then=pause"]);
    server.deploy("copies", "in:copied", &[]);
    server.publish_to("in", 0, &["boom"]);
    server.wait_until_failed("panics");
    server.publish_to("in", 0, &["after"]);
    server.publish_to("in", 1, &["a", "b"]);
    let described = server.wait_until("panics", |described| described["lag"] == 2);
    let states: Vec<&Value> = described["tasks"].as_array().unwrap().iter().map(|task| &task["state"]).collect();
    assert_eq!(states, ["failed", "running"]);
    assert_eq!(server.values("out"), ["a", "b"]);
    server.wait_until_done("copies");
    let mut copied = server.values("copied");
    copied.sort();
    assert_eq!(copied, ["a", "after", "b", "boom"]);
}

#[test]
fn rejected_events_are_dead_letters_with_their_bytes_and_their_reason() {
    let server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", "1"]);
    server.ok(&["topic", "create", "out"]);
    server.deploy("rejects-odd", "in:out", &[]);
    let lines = "{\"id\":\"i0\",\"key\":\"k0\"}\n{\"id\":\"i1\",\"key\":\"k1\"}\n{\"id\":\"i2\",\"key\":\"k2\"}\n";
    server.run_with(&["publish", "in", "--key-field", "key", "--id-field", "id"], lines.as_bytes()).ok();
    let described = server.wait_until_done("rejects-odd");
    let task = &described["tasks"][0];
    let counts = ["events_in", "events_out", "events_rejected"].map(|count| task[count].as_u64().unwrap());
    assert_eq!(counts, [3, 2, 1]);
    let ids = |topic: &str| -> Vec<String> {
        json_lines(&server.ok(&["consume", topic])).iter().map(|event| text(event, "id").to_owned()).collect()
    };
    assert_eq!(ids("out"), ["i0", "i2"]);

    let dead = json_lines(&server.ok(&["consume", "rejects-odd.dlq"]));
    assert_eq!(dead.len(), 1);
    let original = &json_lines(&server.ok(&["consume", "in"]))[1];
    for same in ["id", "key", "value", "timestamp"] {
        assert_eq!(dead[0][same], original[same], "{same}");
    }
    let component = format!("rejects-odd@{}", text(&described, "digest"));
    let headers = json!({
        "nodata-reason": "offset 1 is odd", "nodata-deployment": "rejects-odd", "nodata-component": component,
        "nodata-topic": "in", "nodata-partition": "0", "nodata-offset": "1", "nodata-attempt": "1",
    });
    assert_eq!(dead[0]["headers"], headers);
}
