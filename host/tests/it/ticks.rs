//! Ticks: calls at intervals, also while no events come, each of which counts once or not at all.

use crate::harness::{Server, component, json_lines};
use serde_json::{Value, json};

fn server() -> Server {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    server
}

/// The ticks that came out, by their numbers.
fn ticks(server: &Server) -> Vec<u64> {
    let values = server.values("out");
    let number = |value: &String| Some(value.strip_prefix("tick ")?.parse().unwrap());
    values.iter().filter_map(number).collect()
}

/// Waits for so many ticks more than there are, and answers with how many there are then.
fn wait_for_more(server: &Server, more: usize) -> usize {
    let before = ticks(server).len();
    loop {
        let now = ticks(server).len();
        if now >= before + more {
            return now;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn task(described: &Value) -> &Value {
    &described["tasks"][0]
}

#[test]
fn ticks_come_without_events_and_count_once_while_the_server_is_killed() {
    let mut server = server();
    server.deploy("counts-ticks", "in:out", &["--tick", "15ms"]);
    wait_for_more(&server, 3);
    let mut sent = Vec::new();
    for round in 0..8 {
        // In the middle of ticks, of events, and of both.
        wait_for_more(&server, round % 3);
        for number in 0..round {
            let value = format!("{round} {number}");
            server.publish("in", &[&value]);
            sent.push(value);
        }
        server.kill_and_restart();
    }
    wait_for_more(&server, 3);
    server.wait_until_done("counts-ticks");
    server.ok(&["deployment", "pause", "counts-ticks"]);
    let found = ticks(&server);
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>(), "each tick counts once, in order");
    let copied: Vec<String> = server.values("out").into_iter().filter(|value| !value.starts_with("tick")).collect();
    assert_eq!(copied, sent);

    // A task that is paused does not tick, and does not make up for it.
    let described = server.described("counts-ticks");
    assert_eq!((&described["state"], &described["tick_us"]), (&json!("paused"), &json!(15_000)));
    assert_eq!(ticks(&server), found);
    server.ok(&["deployment", "resume", "counts-ticks"]);
    wait_for_more(&server, 2);
    let ticked = task(&server.described("counts-ticks"))["ticks"].as_u64().unwrap();
    assert!(ticked >= 2, "{ticked}");
}

#[test]
fn a_tick_that_fails_is_tried_again_or_left_out_and_counts_once_all_the_same() {
    for how in ["transient", "permanent", "panic"] {
        let server = server();
        server.deploy("counts-ticks", "in:out", &["--tick", "10ms", "--config", &format!("fails={how}")]);
        server.publish("in", &["a", "b"]);
        wait_for_more(&server, 12);
        let described = server.wait_until("counts-ticks", |described| {
            how == "transient" || task(described)["ticks_left_out"].as_u64() > Some(1)
        });
        if how == "transient" {
            assert_eq!(task(&described)["ticks_left_out"], 0, "it is tried again for as long as it takes");
        }
        server.ok(&["deployment", "pause", "counts-ticks"]);
        let found = ticks(&server);
        assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>(), "{how}: nothing of a failed tick is kept");
        assert_eq!(server.values("out").iter().filter(|value| !value.starts_with("tick")).count(), 2);
    }
}

#[test]
fn a_tick_that_always_fails_is_left_out_and_told() {
    let server = server();
    server.deploy("counts-ticks", "in:out", &["--tick", "10ms", "--config", "fails=always permanent"]);
    server.publish("in", &["a"]);
    let described = server.wait_until("counts-ticks", |described| task(described)["ticks_left_out"].as_u64() > Some(2));
    server.wait_until_done("counts-ticks");
    assert_eq!(server.values("out"), ["a"], "events go on");
    assert_eq!(task(&described)["ticks"], 0);
    let said = server.wait_until("counts-ticks", |described| task(described)["state"] == "running");
    let expected =
        "the last tick was left out: the component refuses the tick: told to (a tick of partition 0 of `in`)";
    assert_eq!(task(&said)["reason"], expected);
    let text = server.ok(&["deployment", "describe", "counts-ticks"]);
    assert!(text.contains("\nticks      every 10ms\n") && text.contains("partition 0 left out "), "{text}");
    let logged = server.ok(&["deployment", "logs", "counts-ticks"]);
    assert!(logged.contains("the tick is left out: the component refuses the tick: told to"), "{logged}");

    // Where that is the policy, an operator decides.
    let policy = ["--config", "fails=always permanent", "--on-error", "then=pause", "--name", "careful"];
    server.deploy("counts-ticks", "in:out", &[&["--tick", "10ms"], &policy[..]].concat());
    let failed = server.wait_until_failed("careful");
    assert_eq!(task(&failed)["reason"], "the component refuses the tick: told to (a tick of partition 0 of `in`)");
}

#[test]
fn an_aggregate_is_told_the_watermark_and_a_sink_ticks() {
    let server = server();
    let file = component("tells-the-watermark");
    let windows = ["--window", "tumbling=1h", "--lateness", "5m", "--tick", "20ms", "--idle", "300ms"];
    server.ok(&[&["add-component", "--file", &file, "--aggregate", "in:out"], &windows[..]].concat());
    let wait_for = |value: &str| {
        while !server.values("out").iter().any(|found| found == value) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    wait_for("watermark none");
    let line = "{\"at\":\"2013-01-01T00:59:59Z\"}\n";
    server.run_with(&["publish", "in", "--time-field", "at", "--key-field", "at"], line.as_bytes()).ok();
    let at = 1_357_001_999_000_000_u64;
    wait_for(&format!("watermark {}", at - 300_000_000));
    // Time goes on in a partition without events, also when it ticks more often than that.
    let watermarks = || -> Vec<u64> {
        let values = server.values("out");
        values.iter().filter_map(|value| value.strip_prefix("watermark ")?.parse().ok()).collect()
    };
    while watermarks().last() <= Some(&(at - 300_000_000)) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(watermarks().is_sorted());

    let file = component("ticks-outside");
    server.ok(&["add-component", "--file", &file, "--sink", "in", "--tick", "10ms", "--from", "earliest"]);
    server.wait_until_done("ticks-outside");
    loop {
        let lines = json_lines(&server.ok(&["deployment", "logs", "ticks-outside", "--json"]));
        if lines.iter().filter(|line| line["text"] == "tick").count() > 2 {
            break;
        }
    }
}

#[test]
fn how_often_is_said_and_checked() {
    let server = server();
    server.deploy("counts-ticks", "in:out", &[]);
    assert_eq!(server.described("counts-ticks")["tick_us"], 1_000_000, "a second, when nothing is said");
    server.deploy("copies", "in:out", &[]);
    assert_eq!(server.described("copies")["tick_us"], Value::Null);
    let refused = |guest: &str, tick: &str, expected: &str| {
        let args =
            ["add-component", "--transform", "in:out", "--name", "x", "--tick", tick, "--file", &component(guest)];
        let said = server.run(&args).failed(2);
        assert!(said.contains(expected), "{said}");
    };
    refused("copies", "1s", "error: component `x` does not tick, and the deployment says how often\n");
    refused("counts-ticks", "9ms", "error: a tick every 9000 us; at least 10000 are needed\n");
    refused("counts-ticks", "often", "give a time such as 90s, 15m or 1h30m");
}
