//! A revision makes its state anew, while the one before works.

use crate::harness::{another_version, block_on, component, connect, json_lines};
use crate::updates::{StopAtEnd, history, server, text};
use nodata_client::{Event, PublisherOptions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// What was counted since the first event, whoever counts now.
#[test]
fn state_is_made_anew_while_the_version_before_works() {
    let mut server = server("2");
    server.deploy("does-as-told", "in:out", &[]);
    let address = server.address().to_owned();
    let stop = AtomicBool::new(false);
    server.upload("does-as-told", &another_version("does-as-told", &server, "two"));
    let sent = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            block_on(async {
                let options = PublisherOptions { batch_events_max: 100, ..PublisherOptions::default() };
                let publisher = connect(&address).await.publisher("in", options);
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..100 {
                        let value = if sent % 1000 == 999 { "panic".to_owned() } else { format!("e{sent}") };
                        publisher.send(Event::new(value).with_key(format!("key {}", sent % 7))).await.unwrap();
                        sent += 1;
                    }
                    // Whoever follows must be quicker than those who come after.
                    tokio::time::sleep(std::time::Duration::from_millis(if sent < 12_000 { 1 } else { 50 })).await;
                }
                publisher.flush().await.unwrap();
                sent
            })
        });
        let _stop = StopAtEnd(&stop);
        server.wait_until("does-as-told", |described| described["tasks"][0]["position"].as_u64() > Some(5000));
        server.update("does-as-told", "does-as-told", &["--rebuild", "--detach"]).ok();
        server.kill_and_restart();
        let is_rebuilt = |described: &Value| described["revision"] == 2 && described["rebuild"].is_null();
        server.wait_until("does-as-told", |described| described["revision"] == 2);
        server.kill_and_restart();
        server.wait_until("does-as-told", is_rebuilt);
        // Once more, by the same version, to the end.
        let said = server.update("does-as-told", "does-as-told", &["--rebuild"]).ok();
        assert!(said.starts_with("does-as-told: revision 3 runs, "), "{said}");
        stop.store(true, Ordering::Relaxed);
        publishing.join().unwrap()
    });
    server.wait_until_done("does-as-told");
    let happened = [("deployed", 1), ("rebuilding", 1), ("rebuilt", 2), ("rebuilding", 2), ("rebuilt", 3)];
    assert_eq!(server.history("does-as-told"), history(&happened));
    assert_eq!(server.json(&["dlq", "list"])[0]["letters"], sent / 1000, "each is put aside by one of them");
    // What the one before knew is gone.
    let refused = server.run(&["deployment", "rollback", "does-as-told"]).failed(2);
    assert!(refused.contains("revision 3 made that anew since revision 2 worked"), "{refused}");

    // In each partition the numbers are those of one who counted all the time. Events of a key are in one, and stay in order.
    let mut next = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for line in json_lines(&server.ok(&["consume", "out", "--json"])) {
        let partition = line["partition"].as_u64().unwrap();
        let value = text(&line["value"]);
        let (count, event) = value.split_once(' ').unwrap();
        let expected = next.entry(partition).or_insert(1);
        assert_eq!(count.parse::<u64>().unwrap(), *expected, "{value} in partition {partition}");
        *expected += 1;
        assert!(seen.insert(event.to_owned()), "{event} came out twice");
    }
    assert_eq!(seen.len(), sent - sent / 1000);
}

#[test]
fn what_cannot_be_made_anew_is_refused_and_what_is_not_wanted_is_forgotten() {
    let server = server("1");
    server.ok(&["add-component", "--file", &component("counts-as-told"), "--aggregate", "in", "--name", "counts"]);
    let publish = |lines: &str| drop(server.run_with(&["publish", "in", "--key-field", "k"], lines.as_bytes()).ok());
    publish("{\"k\":\"a\"}\n{\"k\":\"a\"}\n{\"k\":\"b\"}\n");
    server.wait_until_done("counts");
    server.upload("session-summary", &component("session-summary"));
    // It shows what it makes of the same events, which the one before could not be asked about.
    server.update("counts", "session-summary", &["--rebuild"]).ok();
    publish("{\"k\":\"a\"}\n");
    server.wait_until_done("counts");
    let shown = server.json(&["aggregate", "scan", "counts"]);
    assert_eq!(shown.as_array().unwrap().len(), 2, "{shown}");
    // The way back is the same.
    let refused = server.run(&["deployment", "rollback", "counts"]).failed(2);
    assert!(
        refused.contains("cannot go on from what deployment `counts` remembers") && refused.contains("--rebuild"),
        "{refused}"
    );
    server.upload("counts-as-told", &component("counts-as-told"));
    server.update("counts", "counts-as-told", &["--rebuild", "earliest"]).ok();
    let shown = server.ok(&["aggregate", "scan", "counts"]);
    assert!(shown.contains("a: 3") && shown.contains("b: 1"), "{shown}");

    // One that fails ends it, and the one that works has not noticed.
    server.deploy("copies", "in:out", &[]);
    server.upload("exits", &component("exits"));
    server.update("copies", "exits", &["--rebuild", "--on-error", "then=pause", "--detach"]).ok();
    server.publish("in", &["x", "y"]);
    let ended = |described: &Value| described["history"].as_array().unwrap().last().unwrap()["kind"] == "rebuild_ended";
    let described = server.wait_until("copies", ended);
    let why = text(&described["history"][2]["reason"]);
    assert!(why.starts_with("revision 2: the component ended itself with exit code 1"), "{why}");
    assert_eq!((&described["revision"], &described["rebuild"]), (&json!(1), &Value::Null));
    server.wait_until_done("copies");
    // What is only made anew is not emitted again, and not counted as that.
    server.update("copies", "copies", &["--rebuild"]).ok();
    server.publish("in", &["z"]);
    server.wait_until_done("copies");
    assert_eq!(server.values("out"), ["x", "y", "z"]);
    let task = &server.described("copies")["tasks"][0];
    assert_eq!((&task["events_in"], &task["events_out"]), (&json!(2 + 6 + 1), &json!(2 + 1)), "{task}");
    server.ok(&["add-component", "--file", &component("tells-what-it-delivers"), "--sink", "in", "--name", "sink"]);
    let refused = server.update("sink", "tells-what-it-delivers", &["--rebuild"]).failed(2);
    assert!(refused.contains("a sink keeps nothing that could be made anew"), "{refused}");
    server.ok(&["deployment", "delete", "copies"]);
    server.ok(&["deployment", "delete", "counts"]);
}

/// It takes over when it has been where the one before is, and not because that is near.
#[test]
fn a_version_that_makes_nothing_anew_does_not_take_over() {
    let server = server("1");
    server.deploy("copies", "in:out", &[]);
    server.publish("in", &["a", "boom"]);
    server.wait_until_done("copies");
    server.upload("sleeps", &component("sleeps"));
    let hangs = ["--rebuild", "--config", "seconds=100000", "--call-time", "1s", "--detach"];
    server.update("copies", "sleeps", &hangs).ok();
    // It has been looked at often when its first call is given up.
    let described = server.wait_until("copies", |described| described["rebuild"]["reason"] != "");
    assert_eq!((&described["revision"], &described["state"]), (&json!(1), &json!("running")));
    server.publish("in", &["b"]);
    server.wait_until_done("copies");
    server.ok(&["deployment", "rollback", "copies"]);
    assert_eq!(server.history("copies"), history(&[("deployed", 1), ("rebuilding", 1), ("rebuild_ended", 1)]));
    assert_eq!(server.values("out"), ["a", "boom", "b"]);

    // What it cannot process is not in its state, which is told.
    server.upload("panics", &component("panics"));
    server.update("copies", "panics", &["--rebuild"]).ok();
    let described = server.described("copies");
    let rebuilt = described["history"].as_array().unwrap().last().unwrap();
    assert_eq!(rebuilt["kind"], "rebuilt");
    assert_eq!(rebuilt["reason"], "an event that could not be processed, or was rejected, is left out");
    assert_eq!(described["tasks"][0]["events_rejected"], 1);
    let logged = server.ok(&["deployment", "logs", "copies"]);
    assert!(logged.contains("the event at offset 1 is left out of the state that is made anew: "), "{logged}");
    assert_eq!(server.json(&["dlq", "list"]), json!([]));

    // Who goes on from what is kept has no earlier revision, and needs none.
    server.ok(&["deployment", "delete", "copies", "--keep-position"]);
    server.ok(&[
        "add-component",
        "--component",
        "panics",
        "--transform",
        "in:out",
        "--name",
        "copies",
        "--from",
        "kept",
    ]);
    let digest = server.json(&["component", "versions", "copies"])[0]["digest"].as_str().unwrap().to_owned();
    server.ok(&["component", "delete", &format!("copies@{digest}")]);
}

/// Where it ended is where the other one goes on, whoever of them has come further.
#[test]
fn a_version_that_hangs_behind_the_one_it_follows_is_gone_back_from() {
    let server = server("1");
    server.upload("sleeps", &component("sleeps"));
    let hangs = ["--rebuild", "latest", "--config", "seconds=100000", "--call-time", "2s", "--on-error", "then=pause"];
    let mut before = 0;
    loop {
        server.deploy("copies", "in:out", &[]);
        server.publish("in", &["a"]);
        server.wait_until_done("copies");
        server.update("copies", "sleeps", &[&hangs[..], &["--detach"]].concat()).ok();
        // Soon, so that the one before takes it, and the one that follows does not come past it.
        server.publish("in", &["b"]);
        let described = server.wait_until("copies", |described| {
            let ended = described["history"].as_array().unwrap().last().unwrap()["kind"] == "rebuild_ended";
            ended || described["revision"] == 2 && described["tasks"][0]["attempts"].as_u64() > Some(0)
        });
        if !described["rebuild"].is_null() && described["revision"] == 2 {
            break;
        }
        // It came too early or too late.
        server.ok(&["deployment", "delete", "copies"]);
        before = server.values("out").len();
    }
    let said = server.ok(&["deployment", "rollback", "copies", "--reason", "it hangs"]);
    assert!(said.starts_with("copies: revision 1 runs again, copies ("), "{said}");
    server.publish("in", &["c"]);
    server.wait_until_done("copies");
    let described = server.wait_until("copies", |described| described["rebuild"].is_null());
    assert_eq!(described["state"], "running");
    assert_eq!(server.values("out")[before..], ["a", "b", "c"]);
    let happened = [("deployed", 1), ("rebuilding", 1), ("rebuilt", 2), ("rolled_back", 1)];
    assert_eq!(server.history("copies"), history(&happened));
}
