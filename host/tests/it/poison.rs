//! Events that a component cannot process: exactly they are put aside, and everything else is processed once and in order.

use crate::harness::{Server, json_lines};
use nodata_log::fs::simulated::Chance;
use serde_json::json;

fn server() -> Server {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    server.ok(&["topic", "create", "out"]);
    server
}

fn is_poison(value: &str) -> bool {
    ["panic", "refuse"].contains(&value)
}

/// What comes out of a component that never fails, and which offsets are put aside.
fn expected(values: &[&str]) -> (Vec<String>, Vec<u64>) {
    let (mut out, mut aside) = (Vec::new(), Vec::new());
    for (offset, value) in (0..).zip(values) {
        if is_poison(value) || *value == "aside" {
            aside.push(offset);
        } else {
            out.push(format!("{} {value}", out.len() + 1));
        }
    }
    (out, aside)
}

/// The offsets of the dead letters of a deployment, in order.
fn dead_letters(server: &Server, deployment: &str) -> Vec<u64> {
    if server.run(&["topic", "describe", &format!("{deployment}.dlq")]).code != 0 {
        return Vec::new();
    }
    let letters = json_lines(&server.ok(&["consume", &format!("{deployment}.dlq")]));
    letters.iter().map(|letter| letter["headers"]["nodata-offset"].as_str().unwrap().parse().unwrap()).collect()
}

#[track_caller]
fn check(values: &[&str]) {
    let server = server();
    server.deploy("does-as-told", "in:out", &[]);
    server.publish("in", values);
    let described = server.wait_until("does-as-told", |described| {
        let task = &described["tasks"][0];
        task["events_in"] == values.len() && task["state"] == "running"
    });
    let (out, aside) = expected(values);
    assert_eq!(server.values("out"), out, "{values:?}");
    assert_eq!(dead_letters(&server, "does-as-told"), aside, "{values:?}");
    let task = &described["tasks"][0];
    assert_eq!(
        (&task["events_in"], &task["events_out"], &task["events_rejected"]),
        (&json!(values.len()), &json!(out.len()), &json!(aside.len()))
    );
    assert_eq!((&task["state"], &task["attempts"], &task["reason"]), (&json!("running"), &json!(0), &json!("")));
}

#[test]
fn poison_is_found_wherever_it_is() {
    let with = |at: &[usize], kinds: &[&'static str]| -> Vec<&str> {
        let mut values = vec!["x"; 50];
        for (poison, at) in at.iter().enumerate() {
            values[*at] = kinds[poison % kinds.len()];
        }
        values
    };
    for kind in ["panic", "refuse"] {
        check(&with(&[0], &[kind]));
        check(&with(&[49], &[kind]));
        check(&with(&[24, 25], &[kind]));
        check(&[kind; 20]);
    }
    check(&with(&[], &[]));
    check(&with(&[3, 17, 18, 40], &["panic", "refuse", "aside"]));
    check(&["panic"]);
    check(&["x", "later", "panic", "y"]);
}

#[test]
fn a_dead_letter_keeps_its_bytes_and_says_who_why_and_what_was_printed_last() {
    let server = server();
    server.deploy("does-as-told", "in:out", &[]);
    let lines = "{\"id\":\"i0\",\"key\":\"k0\",\"value\":\"x\"}\n{\"id\":\"i1\",\"key\":\"k1\",\"value\":\"panic\"}\n";
    server.run_with(&["publish", "in", "--key-field", "key", "--id-field", "id"], lines.as_bytes()).ok();
    // They are JSON texts, and not the words.
    server.wait_until_done("does-as-told");
    assert_eq!(dead_letters(&server, "does-as-told"), [0; 0]);

    server.publish("in", &["panic"]);
    let described = server.wait_until_done("does-as-told");
    let letters = json_lines(&server.ok(&["consume", "does-as-told.dlq"]));
    let original = &json_lines(&server.ok(&["consume", "in"]))[2];
    assert_eq!(letters.len(), 1);
    for same in ["id", "key", "value", "timestamp"] {
        assert_eq!(letters[0][same], original[same], "{same}");
    }
    let headers = &letters[0]["headers"];
    let reason = headers["nodata-reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the component panicked at ") && reason.contains(": told to (event 2 of `in`"),
        "{reason}"
    );
    let component = format!("does-as-told@{}", described["digest"].as_str().unwrap());
    assert_eq!(headers["nodata-component"], component);
    assert_eq!((&headers["nodata-topic"], &headers["nodata-offset"]), (&json!("in"), &json!("2")));
    assert_eq!(headers["nodata-attempt"], "2");
    assert!(headers["nodata-last-lines"].as_str().unwrap().contains("offset 2 says so"), "{headers}");
    let logs = server.ok(&["deployment", "logs", "does-as-told"]);
    assert!(logs.contains("the event at offset 2 is a dead letter: the component panicked"), "{logs}");
}

#[test]
fn the_policy_says_what_becomes_of_poison_and_how_often_a_call_is_tried_again() {
    let server = server();
    for policy in ["skip", "pause"] {
        server.ok(&["topic", "create", policy]);
        let more = ["--name", policy, "--on-error", &format!("then={policy}")];
        server.deploy("does-as-told", &format!("in:{policy}"), &more);
    }
    for topic in ["in-few", "few"] {
        server.ok(&["topic", "create", topic]);
    }
    server.deploy("does-as-told", "in-few:few", &["--name", "few", "--on-error", "retry=1,then=dead-letter"]);
    server.publish("in", &["a", "panic", "b", "later", "c"]);
    server.publish("in-few", &["a", "panic", "b", "never", "c"]);

    let described = server.wait_until_done("skip");
    assert_eq!(described["on_error"], "retry=forever,then=skip");
    assert_eq!(described["tasks"][0]["events_skipped"], 1);
    assert_eq!(server.values("skip"), ["1 a", "2 b", "3 later", "4 c"]);
    assert_eq!(dead_letters(&server, "skip"), [0; 0]);

    let described = server.wait_until_failed("pause");
    assert_eq!(server.values("pause"), ["1 a"], "what comes before it is done");
    assert_eq!((&described["tasks"][0]["position"], &described["lag"]), (&json!(1), &json!(4)));

    server.wait_until_done("few");
    assert_eq!(server.values("few"), ["1 a", "2 b", "3 c"]);
    assert_eq!(dead_letters(&server, "few"), [1, 3]);

    for (policy, what) in [
        ("then=die", "then=die: give dead-letter, skip or pause"),
        ("retry=-1", "retry=-1: give a number, or `forever`"),
        ("never", "give retry=N, then=dead-letter, or both with a comma between them"),
    ] {
        let args = ["add-component", "--file", "x.wasm", "--transform", "in:out", "--on-error", policy];
        let said = server.run(&args).failed(2);
        assert!(said.contains(what), "{said}");
    }
}

/// Random values, random failures, and a server that is killed again and again: what comes out is what comes out of a component
/// that never fails on a server that never ends.
#[test]
fn whatever_fails_and_whenever_the_server_is_killed_the_results_are_the_same() {
    let mut chance = Chance::new(7);
    let mut server = server();
    server.deploy("does-as-told", "in:out", &[]);
    let kinds = ["panic", "refuse", "aside", "later"];
    let mut published: Vec<&str> = Vec::new();
    for _ in 0..12 {
        let values: Vec<&str> = (0..1 + chance.below(60))
            .map(|_| if chance.percent(10) { kinds[chance.below(4) as usize] } else { "x" })
            .collect();
        server.publish("in", &values);
        published.extend(values);
        if chance.percent(50) {
            std::thread::sleep(std::time::Duration::from_millis(chance.below(150)));
            server.kill_and_restart();
        }
    }
    server.wait_until_done("does-as-told");
    let (out, aside) = expected(&published);
    assert_eq!(server.values("out"), out);
    assert_eq!(dead_letters(&server, "does-as-told"), aside);
    server.kill_and_restart();
    assert_eq!(server.values("out"), out);
    assert_eq!(dead_letters(&server, "does-as-told"), aside);
}

/// The components of the dead letters of a deployment, and the values, in order.
fn letters(server: &Server, deployment: &str) -> Vec<String> {
    let letters = json_lines(&server.ok(&["dlq", "show", deployment, "--json"]));
    letters.iter().map(|letter| letter["value"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn dead_letters_are_listed_and_shown() {
    let server = server();
    assert_eq!(server.ok(&["dlq", "list"]), "DEPLOYMENT  LETTERS  NOT REPLAYED  TOPIC\n");
    server.deploy("does-as-told", "in:out", &[]);
    server.publish("in", &["x", "refuse", "aside"]);
    server.wait_until_done("does-as-told");
    assert_eq!(
        server.ok(&["dlq", "list"]),
        "DEPLOYMENT    LETTERS  NOT REPLAYED  TOPIC\ndoes-as-told  2        2             does-as-told.dlq\n"
    );
    let shown = server.ok(&["dlq", "show", "does-as-told", "--max", "1"]);
    let digest = server.described("does-as-told")["digest"].as_str().unwrap().to_owned();
    let (first, rest) = shown.split_once('\n').unwrap();
    assert!(first.starts_with("letter 0 of 20"), "{first}");
    let expected = format!(
        "  event      offset 1 of in, partition 0\n  reason     the component refuses the batch: told to (event 1 of `in`, \
         partition 0)\n  component  does-as-told@{digest}, attempt 4\n  key        null\n  value      \"refuse\"\n\n"
    );
    assert_eq!(rest, expected);
    assert_eq!(letters(&server, "does-as-told"), ["refuse", "aside"]);
    server.deploy("copies", "in:out", &[]);
    let none = server.run(&["dlq", "show", "copies"]);
    assert_eq!((none.code, &*none.out, &*none.err), (0, "", "there are no dead letters of copies\n"));
    assert_eq!(server.run(&["dlq", "show", "nowhere"]).failed(1), "error: deployment `nowhere` does not exist\n");
    assert_eq!(server.run(&["dlq", "replay", "nowhere"]).failed(1), "error: deployment `nowhere` does not exist\n");
}

#[test]
fn dead_letters_are_replayed_once_each_with_the_state_of_the_task_that_they_failed_in() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", "2"]);
    server.ok(&["topic", "create", "out", "--partitions", "2"]);
    server.deploy("refuses-until-told", "in:out", &["--config", "refuse=b"]);
    for (partition, values) in [(0, ["a", "b0"]), (1, ["b1", "c"])] {
        server.publish_to("in", partition, &values);
    }
    server.wait_until_done("refuses-until-told");
    let mut dead = letters(&server, "refuses-until-told");
    dead.sort();
    assert_eq!(dead, ["b0", "b1"]);

    // Nothing has changed, so they fail again: as new letters, and not for ever.
    assert_eq!(
        server.ok(&["dlq", "replay", "refuses-until-told"]),
        "refuses-until-told processes 2 dead letters again\nsee how it does: nodata dlq list\n"
    );
    let waits = |server: &Server, letters: u64, waiting: u64| loop {
        let found = server.json(&["dlq", "list"]);
        if found[0]["letters"] == letters && found[0]["not_replayed"] == waiting {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    waits(&server, 4, 2);
    server.kill_and_restart();
    waits(&server, 4, 2);

    // The word is given: an event that says from now on all is well, in each partition.
    for partition in [0, 1] {
        server.publish_to("in", partition, &["well"]);
    }
    server.wait_until_done("refuses-until-told");
    server.ok(&["dlq", "replay", "refuses-until-told"]);
    waits(&server, 4, 0);
    let said = server.ok(&["dlq", "replay", "refuses-until-told"]);
    assert_eq!(said, "refuses-until-told has no dead letters that were not replayed\n");
    server.kill_and_restart();
    let mut out: Vec<(u64, String)> = json_lines(&server.ok(&["consume", "out"]))
        .iter()
        .map(|event| (event["partition"].as_u64().unwrap(), event["value"].as_str().unwrap().to_owned()))
        .collect();
    out.sort();
    let expected = [(0, "1 a"), (0, "2 well"), (0, "3 b0"), (1, "1 c"), (1, "2 well"), (1, "3 b1")];
    assert_eq!(out, expected.map(|(partition, value)| (partition, value.to_owned())));
}

#[test]
fn dead_letters_are_replayed_once_each_into_another_topic() {
    let mut server = server();
    server.ok(&["topic", "create", "again", "--partitions", "3"]);
    server.deploy("does-as-told", "in:out", &[]);
    let lines = "{\"k\":\"a\"}\n{\"k\":\"b\"}\n";
    server.run_with(&["publish", "in", "--key-field", "k"], lines.as_bytes()).ok();
    server.publish("in", &["aside", "x", "refuse"]);
    server.wait_until_done("does-as-told");
    assert_eq!(
        server.ok(&["dlq", "replay", "does-as-told", "--to", "again"]),
        "replayed 2 dead letters of does-as-told into again\n"
    );
    server.kill_and_restart();
    server.publish("in", &["aside"]);
    server.wait_until_done("does-as-told");
    assert_eq!(server.json(&["dlq", "list"])[0]["not_replayed"], 1);
    assert_eq!(server.json(&["dlq", "replay", "does-as-told", "--to", "again"])["letters"], 1);
    assert_eq!(server.json(&["dlq", "replay", "does-as-told", "--to", "again"])["letters"], 0);
    assert_eq!(server.values("again"), ["aside", "refuse", "aside"]);
    let event = &json_lines(&server.ok(&["consume", "again"]))[0];
    assert_eq!(event["headers"], json!({}), "it is the event that it was");
    assert_eq!(
        server.ok(&["dlq", "replay", "does-as-told"]),
        "does-as-told has no dead letters that were not replayed\n"
    );

    server.ok(&["topic", "create", "small", "--event-bytes-max", "3"]);
    server.publish("in", &["aside"]);
    server.wait_until_done("does-as-told");
    assert_eq!(
        server.run(&["dlq", "replay", "does-as-told", "--to", "small"]).failed(2),
        "error: dead letter 3 does not fit topic `small`: it has 5 bytes, at most 3 are allowed; those before it were replayed\n"
    );
    assert_eq!(server.json(&["dlq", "replay", "does-as-told", "--to", "again"])["letters"], 1, "nothing is lost by it");
}
