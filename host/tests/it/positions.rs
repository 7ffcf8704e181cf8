//! Where deployments go on: an operator has them go on elsewhere, and what they knew is kept or forgotten as the operator says.

use crate::harness::{Server, block_on, component, json_lines};
use nodata_client::{Event, PublisherOptions};
use nodata_log::fs::simulated::Chance;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

fn server(partitions: &str) -> Server {
    let server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", partitions]);
    server.ok(&["topic", "create", "out"]);
    server
}

fn check_refused(server: &Server, args: &[&str], code: i32, expected: &str) {
    assert_eq!(server.run(args).failed(code), format!("error: {expected}\n"), "{args:?}");
}

fn reset(server: &Server, name: &str, more: &[&str]) -> String {
    server.ok(&[&["deployment", "reset", name], more].concat())
}

fn publish_keys(server: &Server, keys: &[&str]) {
    let lines: String = keys.iter().map(|key| format!("{{\"key\":\"{key}\"}}\n")).collect();
    server.run_with(&["publish", "in", "--key-field", "key"], lines.as_bytes()).ok();
}

/// What `running-count` said, in order.
fn counts(server: &Server) -> Vec<u64> {
    let events = json_lines(&server.ok(&["consume", "out"]));
    events.iter().map(|event| event["value"]["count"].as_u64().unwrap()).collect()
}

/// Groups of `aggregate-fields` that counts.
fn groups(server: &Server, name: &str) -> BTreeMap<String, u64> {
    let scanned = server.json(&["aggregate", "scan", name]);
    let groups = scanned.as_array().unwrap().iter();
    groups.map(|group| (group["key"].as_str().unwrap().to_owned(), group["value"]["n"].as_u64().unwrap())).collect()
}

#[test]
fn a_reset_processes_events_again_or_passes_over_some_and_says_how_many() {
    let server = server("2");
    server.publish_to("in", 0, &["a", "b", "c"]);
    server.publish_to("in", 1, &["d"]);
    server.deploy("copies", "in:out", &["--from", "earliest"]);
    server.wait_until_done("copies");
    let sorted = || {
        server.wait_until_done("copies");
        let mut values = server.values("out");
        values.sort();
        values.concat()
    };
    assert_eq!(sorted(), "abcd");

    let table = |rows: &str| format!("PARTITION  OLD POSITION  NEW POSITION  AGAIN  PASSED OVER  STATE\n{rows}");
    let back = table(
        "0          3             0             3      0            kept\n1          1             0             1      0            kept\n",
    );
    assert_eq!(
        reset(&server, "copies", &["--from", "earliest", "--dry-run"]),
        format!("copies is as it was; this is what a reset would do\n{back}")
    );
    assert_eq!((sorted().as_str(), server.described("copies")["lag"].as_u64()), ("abcd", Some(0)));
    assert_eq!(reset(&server, "copies", &["--from", "earliest"]), format!("reset copies\n{back}"));
    assert_eq!(sorted(), "aabbccdd");

    let one = table("0          3             2             1      0            kept\n");
    assert_eq!(reset(&server, "copies", &["--from", "2", "--partition", "0"]), format!("reset copies\n{one}"));
    assert_eq!(sorted(), "aabbcccdd");

    server.ok(&["deployment", "pause", "copies"]);
    server.publish_to("in", 0, &["e", "f"]);
    server.publish_to("in", 1, &["g"]);
    let over = table(
        "0          3             5             0      2            kept\n1          1             2             0      1            kept\n",
    );
    assert_eq!(
        reset(&server, "copies", &["--from", "latest"]),
        format!("reset copies\n{over}it is paused; go on there with `nodata deployment resume copies`\n")
    );
    let described = server.described("copies");
    assert_eq!((&described["state"], &described["lag"]), (&json!("paused"), &json!(0)));
    server.ok(&["deployment", "resume", "copies"]);
    server.publish_to("in", 0, &["h"]);
    assert_eq!(sorted(), "aabbcccddh");

    // By time, and for programs. Whoever publishes says no time here, so it is that of the server.
    let moved = server.json(&["deployment", "reset", "copies", "--from", "2013-01-01T00:00:00Z", "--partition", "1"]);
    assert_eq!((&moved["name"], &moved["dry_run"]), (&json!("copies"), &json!(false)));
    let expected = json!([{
        "partition": 1, "old_position": 2, "new_position": 0, "events_again": 2, "events_passed_over": 0,
        "state_forgotten": false,
    }]);
    assert_eq!(moved["reset"], expected);
    assert_eq!(sorted(), "aabbcccdddgh");
}

#[test]
fn what_a_deployment_remembers_is_kept_or_forgotten_as_the_operator_says() {
    let mut server = server("1");
    publish_keys(&server, &["a", "a"]);
    server.deploy("running-count", "in:out", &["--from", "earliest"]);
    let go_on = |server: &Server, more: &[&str], expected: &[u64]| {
        let said = reset(server, "running-count", &[&["--from", "earliest"], more].concat());
        server.wait_until_done("running-count");
        assert_eq!(counts(server), expected, "{more:?}");
        said
    };
    server.wait_until_done("running-count");
    go_on(&server, &[], &[1, 2, 3, 4]);
    go_on(&server, &["--state", "keep"], &[1, 2, 3, 4, 5, 6]);
    let said = go_on(&server, &["--state", "forget"], &[1, 2, 3, 4, 5, 6, 1, 2]);
    assert!(said.ends_with("0          2             0             2      0            forgotten\n"), "{said}");
    server.kill_and_restart();
    publish_keys(&server, &["a"]);
    server.wait_until_done("running-count");
    assert_eq!(counts(&server)[6..], [1, 2, 3]);
}

#[test]
fn an_aggregate_counts_nothing_twice_unless_it_is_told_to() {
    let server = server("1");
    let file = component("aggregate-fields");
    let add =
        ["add-component", "--file", &file, "--name", "counts", "--aggregate", "in", "--config", "compute=n=count"];
    server.ok(&[&add[..], &["--from", "earliest"]].concat());
    publish_keys(&server, &["a", "b", "a"]);
    let counted = || {
        server.wait_until_done("counts");
        let groups = groups(&server, "counts");
        (groups.get("a").copied(), groups.get("b").copied())
    };
    assert_eq!(counted(), (Some(2), Some(1)));
    let said = reset(&server, "counts", &["--from", "earliest"]);
    assert!(said.ends_with("  forgotten\n"), "{said}");
    assert_eq!(counted(), (Some(2), Some(1)));
    // From the middle on: the groups are those of what is processed again.
    reset(&server, "counts", &["--from", "1"]);
    assert_eq!(counted(), (Some(1), Some(1)));
    let said = reset(&server, "counts", &["--from", "earliest", "--state", "keep"]);
    assert!(said.ends_with("  kept\n"), "{said}");
    assert_eq!(counted(), (Some(3), Some(2)));
    // Passing over events is no reason to forget others.
    server.ok(&["deployment", "pause", "counts"]);
    publish_keys(&server, &["a"]);
    let said = reset(&server, "counts", &["--from", "latest"]);
    assert!(said.contains("      0      1            kept\n"), "{said}");
    server.ok(&["deployment", "resume", "counts"]);
    assert_eq!(counted(), (Some(3), Some(2)));
}

#[test]
fn windows_that_were_closed_are_there_again_after_a_reset() {
    let server = server("1");
    let file = component("aggregate-fields");
    let add =
        ["add-component", "--file", &file, "--name", "counts", "--aggregate", "in:out", "--window", "tumbling=1s"];
    server.ok(&[&add[..], &["--config", "compute=n=count", "--from", "earliest"]].concat());
    let lines: String = [0, 1, 5].map(|at| format!("{{\"key\":\"a\",\"at\":\"2013-01-01T00:00:0{at}Z\"}}\n")).concat();
    let publish = ["publish", "in", "--key-field", "key", "--time-field", "at"];
    server.run_with(&publish, lines.as_bytes()).ok();
    let closed = |count: usize| {
        while server.values("out").len() < count {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.wait_until_done("counts");
        let values = server.values("out");
        assert_eq!(values.len(), count, "{values:?}");
        values
    };
    let first = closed(2);
    reset(&server, "counts", &["--from", "earliest"]);
    assert_eq!(closed(4), [first.clone(), first.clone()].concat());
    // With what it remembers, of which the time is a part, all of them are late.
    reset(&server, "counts", &["--from", "earliest", "--state", "keep"]);
    let described = server.wait_until("counts", |described| described["tasks"][0]["events_late"] == 2);
    assert_eq!(described["lag"], 0);
    assert_eq!(closed(4), [first.clone(), first].concat());
}

#[test]
fn a_task_that_failed_goes_on_where_it_is_told_to_also_after_a_restart() {
    let mut server = server("1");
    server.deploy("panics", "in:out", &["--from", "earliest", "--on-error", "then=pause"]);
    server.publish("in", &["a", "boom", "b"]);
    let described = server.wait_until_failed("panics");
    assert_eq!(described["tasks"][0]["position"], 1);
    let said = reset(&server, "panics", &["--from", "2"]);
    assert!(said.ends_with("0          1             2             0      1            kept\n"), "{said}");
    server.wait_until_done("panics");
    server.kill_and_restart();
    server.publish("in", &["c"]);
    server.wait_until_done("panics");
    assert_eq!(server.values("out"), ["a", "b", "c"]);
}

#[test]
fn a_dead_letter_that_was_replayed_is_not_replayed_again_whatever_is_forgotten() {
    let server = server("1");
    server.deploy("panics", "in:out", &["--from", "earliest"]);
    server.publish("in", &["boom"]);
    let letters = |count: u64, waiting: u64| {
        let is_so = |listed: &serde_json::Value| listed[0]["letters"] == count && listed[0]["not_replayed"] == waiting;
        while !is_so(&server.json(&["dlq", "list"])) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    letters(1, 1);
    // It fails again, as a new one.
    server.ok(&["dlq", "replay", "panics"]);
    letters(2, 1);
    reset(&server, "panics", &["--from", "latest", "--state", "forget"]);
    server.publish("in", &["a"]);
    server.wait_until_done("panics");
    let listed = server.json(&["dlq", "list"]);
    assert_eq!((&listed[0]["letters"], &listed[0]["not_replayed"]), (&json!(2), &json!(1)));
}

#[test]
fn a_source_begins_at_its_beginning_again() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "numbers"]);
    let file = component("counts-to");
    server.ok(&["add-component", "--file", &file, "--source", "numbers", "--config", "to=5"]);
    let finished = |server: &Server, count: usize| {
        while server.values("numbers").len() < count {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.wait_until("counts-to", |described| described["state"] == "finished");
        server.values("numbers").concat()
    };
    assert_eq!(finished(&server, 5), "01234");
    for from in ["latest", "3", "2013-01-01T00:00:00Z"] {
        let expected = "deployment `counts-to` is a source, which can only begin at its beginning: give `earliest`";
        check_refused(&server, &["deployment", "reset", "counts-to", "--from", from], 2, expected);
    }
    let commits = server.described("counts-to")["tasks"][0]["position"].as_u64().unwrap();
    let said = reset(&server, "counts-to", &["--from", "earliest"]);
    let row =
        format!("0          {commits}             0             0      0            kept, without its checkpoint\n");
    assert!(said.ends_with(&row), "{said}");
    assert_eq!(finished(&server, 10), "0123401234");
    server.kill_and_restart();
    assert_eq!(finished(&server, 10), "0123401234");
}

#[test]
fn wrong_resets_are_refused_and_change_nothing() {
    let server = server("2");
    let reset = ["deployment", "reset", "copies", "--from"];
    let refused = |more: &[&str], code, expected: &str| {
        check_refused(&server, &[&reset, more].concat(), code, expected);
    };
    refused(&["earliest"], 1, "deployment `copies` does not exist");
    server.publish_to("in", 0, &["a", "b"]);
    server.deploy("copies", "in:out", &["--from", "earliest"]);
    server.wait_until_done("copies");
    refused(&["2"], 2, "offset 2 is out of range in partition 1 of `in`: the earliest is 0, the end is 0");
    refused(
        &["3", "--partition", "0"],
        2,
        "offset 3 is out of range in partition 0 of `in`: the earliest is 0, the end is 2",
    );
    refused(
        &["0", "--partition", "0", "--partition", "2"],
        1,
        "deployment `copies` has 2 tasks, there is none for partition 2",
    );
    for wrong in [&["yesterday"][..], &["earliest", "--state", "some"], &["kept"]] {
        let ran = server.run(&[&reset, wrong].concat());
        assert!(ran.code == 2 && ran.err.contains("invalid value"), "{ran:?}");
    }
    assert_eq!(server.run(&reset[..3]).code, 2, "where to go on is not a matter of taste");
    let described = server.described("copies");
    assert_eq!((&described["state"], &described["lag"]), (&json!("running"), &json!(0)));
    assert_eq!(server.values("out"), ["a", "b"]);
}

/// Splits what came out for a key into the times that it was counted from the beginning on.
fn runs(counts: &[u64]) -> Vec<Vec<u64>> {
    let mut runs: Vec<Vec<u64>> = Vec::new();
    for count in counts {
        match runs.last_mut() {
            Some(run) if *count != 1 => run.push(*count),
            _ => runs.push(vec![*count]),
        }
    }
    runs
}

/// While events come in and the server is killed, a deployment is told again and again to begin anew: each time it counts every event
/// once, from the first one on, and nothing of the time before is in between.
#[test]
fn a_reset_is_exact_under_load_and_whenever_the_server_is_killed() {
    let mut server = server("3");
    let keys: Vec<String> = (0..9).map(|key| format!("k{key}")).collect();
    publish_keys(&server, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    server.deploy("running-count", "in:out", &["--from", "earliest"]);
    server.wait_until_done("running-count");
    let mut published: BTreeMap<&str, u64> = keys.iter().map(|key| (key.as_str(), 1)).collect();
    let args = ["deployment", "reset", "running-count", "--from", "earliest", "--state", "forget"];
    let mut resets = 0;
    block_on(async {
        let client = server.client().await;
        let publisher =
            client.publisher("in", PublisherOptions { batch_events_max: 10, ..PublisherOptions::default() });
        for number in 0..2400usize {
            let key = &keys[number * number % keys.len()];
            publisher.send(Event::new("x").with_key(key.clone())).await.unwrap();
            *published.get_mut(key.as_str()).unwrap() += 1;
            if number % 200 != 199 {
                continue;
            }
            if number % 400 == 199 {
                let ran = tokio::task::block_in_place(|| server.run(&args));
                assert_eq!(ran.code, 0, "{}", ran.err);
            } else {
                // Killed before the reset, while it is made, or before the tasks have begun again.
                let mut child = server.command(&args).spawn().unwrap();
                tokio::time::sleep(Duration::from_millis(number as u64 / 200 * 4)).await;
                tokio::task::block_in_place(|| {
                    server.kill_and_restart();
                    let _ = child.wait();
                });
            }
            resets += 1;
        }
        publisher.flush().await.unwrap();
    });
    reset(&server, "running-count", &["--from", "earliest", "--state", "forget"]);
    server.wait_until_done("running-count");
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in json_lines(&server.ok(&["consume", "out"])) {
        let key = event["key"].as_str().unwrap().to_owned();
        by_key.entry(key).or_default().push(event["value"]["count"].as_u64().unwrap());
    }
    assert_eq!(by_key.len(), keys.len());
    for (key, counts) in by_key {
        let runs = runs(&counts);
        for run in &runs {
            assert!(run.iter().copied().eq(1..=run.len() as u64), "{key}: {runs:?}");
        }
        assert!((2..=resets + 2).contains(&runs.len()), "{key}: {} runs", runs.len());
        assert_eq!(
            runs.last().unwrap().len() as u64,
            published[key.as_str()],
            "{key}: everything was counted once more"
        );
    }
}

#[test]
fn a_paused_deployment_keeps_its_position_and_what_it_remembers_over_restarts() {
    let mut server = server("1");
    publish_keys(&server, &["a", "a"]);
    server.deploy("running-count", "in:out", &["--from", "earliest"]);
    server.wait_until_done("running-count");
    server.ok(&["deployment", "pause", "running-count"]);
    server.kill_and_restart();
    publish_keys(&server, &["a"]);
    server.stop_and_restart();
    let described = server.described("running-count");
    assert_eq!((&described["state"], &described["tasks"][0]["position"]), (&json!("paused"), &json!(2)));
    server.ok(&["deployment", "resume", "running-count"]);
    server.wait_until_done("running-count");
    assert_eq!(counts(&server), [1, 2, 3]);
}

const FORGET: &str = "go on from there: `nodata add-component --name running-count --from kept`, or forget it: `nodata \
                      deployment delete running-count`";

#[test]
fn a_deployment_goes_on_from_what_was_kept_when_it_was_deleted() {
    let mut server = server("1");
    publish_keys(&server, &["a", "a"]);
    server.deploy("running-count", "in:out", &["--from", "earliest"]);
    server.wait_until_done("running-count");
    assert_eq!(
        server.ok(&["deployment", "delete", "running-count", "--keep-position"]),
        "deleted deployment running-count\nits positions and state are kept; go on from there: nodata add-component --name \
         running-count --from kept\n"
    );
    assert_eq!(server.json(&["deployment", "list"]), json!([]));
    publish_keys(&server, &["a"]);
    server.kill_and_restart();
    server.ok(&["deployment", "delete", "running-count", "--keep-position"]);

    let kept = server.json(&["deployment", "list", "--kept"]);
    let at = kept[0]["kept"].as_str().unwrap();
    let described = server.described("running-count");
    assert_eq!((&kept[0]["state"], &kept[0]["lag"], &described["kept"]), (&json!("kept"), &json!(1), &json!(at)));
    assert_eq!((&described["tasks"][0]["state"], &described["tasks"][0]["position"]), (&json!("paused"), &json!(2)));
    let short = &kept[0]["digest"].as_str().unwrap()[..12];
    let listed = format!(
        "NAME           KEPT SINCE                   LAG  TOPICS     COMPONENT\n\
         running-count  {at}  1    in -> out  running-count ({short})\n"
    );
    assert_eq!(server.ok(&["deployment", "list", "--kept"]), listed);

    let is_kept =
        format!("deployment `running-count` was deleted, and its positions and state are kept\nhint: {FORGET}");
    for command in [&["pause"][..], &["resume"], &["logs"], &["reset", "--from", "earliest"]] {
        let args = [&["deployment", command[0], "running-count"], &command[1..]].concat();
        check_refused(&server, &args, 1, &is_kept);
    }
    let file = component("running-count");
    let add = ["add-component", "--file", &file, "--transform", "in:out"];
    for from in [&[][..], &["--from", "earliest"]] {
        check_refused(&server, &[&add, from].concat(), 1, &is_kept);
    }
    server.deploy("running-count", "in:out", &["--from", "kept"]);
    server.wait_until_done("running-count");
    assert_eq!(counts(&server), [1, 2, 3], "no event is left out, and none is counted twice");
    assert_eq!(server.json(&["deployment", "list", "--kept"]), json!([]));
    server.kill_and_restart();
    publish_keys(&server, &["a"]);
    server.wait_until_done("running-count");
    assert_eq!(counts(&server), [1, 2, 3, 4]);

    // What is kept is forgotten by its name, and nothing is left of it.
    server.ok(&["deployment", "delete", "running-count", "--keep-position"]);
    assert_eq!(server.ok(&["deployment", "delete", "running-count"]), "deleted deployment running-count\n");
    assert_eq!(server.json(&["deployment", "list", "--kept"]), json!([]));
    let nothing =
        "nothing is kept of a deployment `running-count`\nhint: see what is kept: `nodata deployment list --kept`";
    check_refused(&server, &[&add[..], &["--from", "kept"]].concat(), 1, nothing);
    server.deploy("running-count", "in:out", &["--from", "earliest"]);
    server.wait_until_done("running-count");
    assert_eq!(counts(&server)[4..], [1, 2, 3, 4]);
}

#[test]
fn what_is_kept_must_fit() {
    let server = server("1");
    server.ok(&["topic", "create", "other"]);
    server.deploy("copies", "in:out", &["--name", "x"]);
    server.ok(&["deployment", "delete", "x", "--keep-position"]);
    let file = component("copies");
    let misfit = |more: &[&str], what: &str| {
        let expected = format!(
            "what is kept of deployment `x` does not fit: {what}\nhint: give another name, or forget what is kept: `nodata \
             deployment delete x`"
        );
        check_refused(&server, &[&["add-component", "--name", "x", "--from", "kept"], more].concat(), 2, &expected);
    };
    misfit(&["--file", &file, "--transform", "other:out"], "it read topic `in`, and not `other`");
    let sink = component("tells-what-it-delivers");
    misfit(&["--file", &sink, "--sink", "in"], "it was a transform, and this is a sink");
    // Nobody uses its topic any more.
    server.ok(&["topic", "delete", "in"]);
    server.ok(&["topic", "create", "in"]);
    misfit(&["--file", &file, "--transform", "in:out"], "topic `in` was deleted since, and made anew");
    assert_eq!(server.json(&["deployment", "list", "--kept"])[0]["name"], "x", "it is kept all the same");
    server.ok(&["deployment", "delete", "x"]);

    let counts = component("aggregate-fields");
    let add = ["add-component", "--name", "x", "--file", &counts, "--config", "compute=n=count", "--aggregate", "in"];
    server.ok(&[&add[..], &["--window", "tumbling=1h"]].concat());
    server.ok(&["deployment", "delete", "x", "--keep-position"]);
    for window in [&["--window", "tumbling=2h"][..], &["--window", "tumbling=1h", "--lateness", "1m"]] {
        misfit(&[&add[3..], window].concat(), "its window or its lateness was another one");
    }
    server.ok(&[&add[..], &["--from", "kept", "--window", "tumbling=1h", "--idle", "1m"]].concat());
}

#[test]
fn a_deployment_that_was_kept_goes_on_with_another_component_and_a_source_with_its_checkpoint() {
    let server = server("1");
    server.deploy("panics", "in:out", &["--name", "x", "--from", "earliest", "--on-error", "then=pause"]);
    server.publish("in", &["a", "boom", "b"]);
    server.wait_until_failed("x");
    server.ok(&["deployment", "delete", "x", "--keep-position"]);
    assert_eq!(server.described("x")["state"], "kept");
    server.deploy("copies", "in:out", &["--name", "x", "--from", "kept"]);
    server.wait_until_done("x");
    assert_eq!(server.values("out"), ["a", "boom", "b"], "its predecessor failed, and it did not");

    server.ok(&["topic", "create", "numbers"]);
    let add = |more: &[&str]| {
        let file = component("counts-to");
        let args = ["add-component", "--file", &file, "--source", "numbers"];
        server.ok(&[&args[..], more].concat());
        server.wait_until("counts-to", |described| described["state"] == "finished");
    };
    add(&["--config", "to=5"]);
    server.ok(&["deployment", "delete", "counts-to", "--keep-position"]);
    add(&["--config", "to=5", "--from", "kept"]);
    assert_eq!(server.values("numbers").concat(), "01234", "it had finished");
}

/// Deleted and deployed again by others at the same time, with events coming in: each is counted once.
#[test]
fn a_deployment_that_is_replaced_under_load_counts_each_event_once() {
    let mut server = server("2");
    server.deploy("running-count", "in:out", &["--from", "earliest"]);
    let mut published: BTreeMap<String, u64> = BTreeMap::new();
    block_on(async {
        let client = server.client().await;
        let publisher =
            client.publisher("in", PublisherOptions { batch_events_max: 10, ..PublisherOptions::default() });
        for number in 0..1000u64 {
            let key = format!("k{}", number % 5);
            publisher.send(Event::new("x").with_key(key.clone())).await.unwrap();
            *published.entry(key).or_default() += 1;
            if number % 100 == 99 {
                tokio::task::block_in_place(|| {
                    let mut delete = server.command(&["deployment", "delete", "running-count", "--keep-position"]);
                    if number % 200 == 99 {
                        assert!(delete.status().unwrap().success());
                    } else {
                        let mut child = delete.spawn().unwrap();
                        std::thread::sleep(Duration::from_millis(number / 100 * 3));
                        server.kill_and_restart();
                        let _ = child.wait();
                        server.ok(&["deployment", "delete", "running-count", "--keep-position"]);
                    }
                    server.deploy("running-count", "in:out", &["--from", "kept"]);
                });
            }
        }
        publisher.flush().await.unwrap();
    });
    server.wait_until_done("running-count");
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in json_lines(&server.ok(&["consume", "out"])) {
        let key = event["key"].as_str().unwrap().to_owned();
        by_key.entry(key).or_default().push(event["value"]["count"].as_u64().unwrap());
    }
    let expected: BTreeMap<String, Vec<u64>> =
        published.into_iter().map(|(key, count)| (key, (1..=count).collect())).collect();
    assert_eq!(by_key, expected);
}

#[test]
fn a_task_that_retention_has_overtaken_goes_on_with_what_is_left() {
    let server = Server::start();
    server.ok(&["topic", "create", "in", "--retention-size", "1MiB"]);
    server.ok(&["topic", "create", "out"]);
    server.publish("in", &["first"]);
    server.deploy("copies", "in:out", &["--from", "earliest"]);
    server.wait_until_done("copies");
    server.ok(&["deployment", "pause", "copies"]);
    // Values that do not become smaller.
    let mut chance = Chance::new(1);
    let mut noise = || -> String { (0..64).map(|_| format!("{:016x}", chance.number())).collect() };
    let (earliest, end) = loop {
        let values: Vec<String> = (0..500).map(|_| noise()).collect();
        server.publish("in", &values.iter().map(String::as_str).collect::<Vec<_>>());
        server.ok(&["topic", "flush", "in"]);
        let described = server.json(&["topic", "describe", "in"]);
        let [earliest, end] = ["earliest", "end"].map(|of| described["partition_offsets"][0][of].as_u64().unwrap());
        if earliest > 1 {
            break (earliest, end);
        }
    };
    server.ok(&["deployment", "resume", "copies"]);
    server.publish("in", &["last"]);
    server.wait_until_done("copies");
    let out = server.values("out");
    assert_eq!((out[0].as_str(), out[out.len() - 1].as_str()), ("first", "last"));
    assert_eq!(out.len() as u64, 1 + (end - earliest) + 1, "all that is left comes out");
    let lines = json_lines(&server.ok(&["deployment", "logs", "copies", "--json"]));
    let said = format!("events 1 to {} are gone: the topic keeps them no longer", earliest - 1);
    assert!(lines.iter().any(|line| line["text"] == said.as_str()), "{lines:?}");
}
