//! Another revision takes over while events flow: nothing is lost, repeated or reordered, and one that fails where the one before does
//! not is gone by itself.

use crate::harness::{Server, another_version, block_on, component, connect, json_lines};
use nodata_client::{Event, PublisherOptions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

fn server(partitions: &str) -> Server {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic, "--partitions", partitions]);
    }
    server
}

/// Nobody should wait for a probation that a test does not look at.
const SHORT: [&str; 2] = ["--probation", "10ms"];
/// This one does not end by itself.
const LONG: [&str; 3] = ["--probation", "24h", "--detach"];

impl Server {
    fn upload(&self, name: &str, file: &str) {
        self.ok(&["component", "push", file, "--name", name]);
    }

    fn update(&self, deployment: &str, component: &str, more: &[&str]) -> crate::harness::Ran {
        self.run(&[&["deployment", "update", deployment, "--component", component], more].concat())
    }

    /// What happened to a deployment, and which revision it was then.
    fn history(&self, deployment: &str) -> Vec<(String, u64)> {
        let described = self.described(deployment);
        let history = described["history"].as_array().unwrap();
        history.iter().map(|change| (text(&change["kind"]), change["revision"].as_u64().unwrap())).collect()
    }

    fn revisions(&self, deployment: &str) -> Vec<u64> {
        revisions(&self.described(deployment))
    }
}

/// Whoever publishes stops also when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn revisions(described: &Value) -> Vec<u64> {
    described["tasks"].as_array().unwrap().iter().map(|task| task["revision"].as_u64().unwrap()).collect()
}

fn history(of: &[(&str, u64)]) -> Vec<(String, u64)> {
    of.iter().map(|(kind, revision)| ((*kind).to_owned(), *revision)).collect()
}

#[test]
fn another_version_takes_over_between_two_batches() {
    let server = server("1");
    server.deploy("keeps-a-sum", "in:out", &["--tick", "24h"]);
    server.publish("in", &["1", "2"]);
    server.wait_until_done("keeps-a-sum");
    let first = text(&server.described("keeps-a-sum")["digest"]);
    let file = another_version("keeps-a-sum", &server, "two");
    let args = [&["deployment", "update", "keeps-a-sum", "--file", &file, "--version", "2.0.0"][..], &SHORT].concat();
    let said = server.ok(&args);
    assert!(said.starts_with("keeps-a-sum: revision 2 runs, keeps-a-sum (2.0.0, "), "{said}");
    server.publish("in", &["3"]);
    server.wait_until_done("keeps-a-sum");
    assert_eq!(server.values("out"), ["1", "3", "6"]);
    assert_eq!(server.history("keeps-a-sum"), history(&[("deployed", 1), ("updated", 2), ("passed", 2)]));
    assert_eq!(server.revisions("keeps-a-sum"), [2]);
    let task = &server.described("keeps-a-sum")["tasks"][0];
    assert_eq!((&task["events_in"], &task["events_out"]), (&json!(3), &json!(3)), "counts go on");

    // The same again is no update.
    let refused = server.update("keeps-a-sum", "keeps-a-sum", &[]).failed(2);
    assert!(refused.starts_with("error: deployment `keeps-a-sum` runs this component with this configuration already"));

    let said = server.ok(&["deployment", "rollback", "keeps-a-sum", "--reason", "it was better"]);
    assert!(said.starts_with("keeps-a-sum: revision 1 runs again"), "{said}");
    server.publish("in", &["4"]);
    server.wait_until_done("keeps-a-sum");
    assert_eq!(server.values("out"), ["1", "3", "6", "10"]);
    let described = server.described("keeps-a-sum");
    assert_eq!((text(&described["digest"]), &described["revision"]), (first, &json!(1)));
    assert_eq!(described["history"][3]["kind"], "rolled_back");
    assert_eq!(described["history"][3]["reason"], "it was better");
    let refused = server.run(&["deployment", "rollback", "keeps-a-sum", "--to", "7"]).failed(1);
    assert!(refused.contains("has no revision 7 to go back to; it has: 2"), "{refused}");

    // Back and forth, and a new one is a third.
    server.ok(&["deployment", "rollback", "keeps-a-sum"]);
    assert_eq!(server.described("keeps-a-sum")["revision"], 2);
    server.upload("keeps-a-sum", &another_version("keeps-a-sum", &server, "three"));
    server.update("keeps-a-sum", "keeps-a-sum", &SHORT).ok();
    let text = server.ok(&["deployment", "describe", "keeps-a-sum"]);
    assert!(text.contains("\nrevision   3\n"), "{text}");
    assert!(text.contains("revision 1 works again, as an operator said, keeps-a-sum ("), "{text}");
    assert!(text.contains("revision 2 takes over, keeps-a-sum (2.0.0, "), "{text}");
}

#[test]
fn a_version_that_fails_where_the_one_before_does_not_is_gone_by_itself() {
    let server = server("1");
    server.deploy("copies", "in:out", &[]);
    for bad in ["panics", "rejects-odd", "emits-nowhere", "exits"] {
        server.upload(bad, &component(bad));
        let before = server.values("out").len();
        server.publish("in", &["boom", "boom"]);
        server.wait_until_done("copies");
        let update = std::thread::scope(|scope| {
            let update = scope.spawn(|| server.update("copies", bad, &["--probation", "24h"]));
            server.wait_until("copies", |described| described["revision"] != 1);
            server.publish("in", &["boom", "boom"]);
            update.join().unwrap()
        });
        let said = update.failed(1);
        assert!(said.contains("error: the update of copies was undone: "), "{said}");
        server.wait_until_done("copies");
        assert_eq!(server.described("copies")["revision"], 1);
        assert_eq!(server.values("out").len(), before + 4, "{bad}");
    }
    assert_eq!(server.json(&["dlq", "list"]), json!([]), "no event pays for it");
    let described = server.ok(&["deployment", "describe", "copies"]);
    assert!(described.contains("revision 2 failed: "), "{described}");
    assert!(
        described.contains("rejects 1 of 2 events that the revision before does not, such as event "),
        "{described}"
    );
}

#[test]
fn an_event_that_both_fail_at_is_not_held_against_the_new_one() {
    let server = server("1");
    server.deploy("does-as-told", "in:out", &[]);
    server.upload("does-as-told", &another_version("does-as-told", &server, "two"));
    server.update("does-as-told", "does-as-told", &LONG).ok();
    server.publish("in", &["1", "panic", "aside", "2", "refuse", "later", "3"]);
    server.wait_until_done("does-as-told");
    assert_eq!(server.values("out"), ["1 1", "2 2", "3 later", "4 3"]);
    let described = server.described("does-as-told");
    assert_eq!((&described["revision"], &described["rollout"]["from_revision"]), (&json!(2), &json!(1)));
    assert_eq!(server.json(&["dlq", "list"])[0]["letters"], 3);
    // Another update would have to wait, and this one can be undone.
    let refused = server.update("does-as-told", "does-as-told", &["--config", "a=b"]).failed(1);
    assert!(refused.contains("revision 2 has not proved itself yet"), "{refused}");
    server.ok(&["deployment", "rollback", "does-as-told"]);
    server.publish("in", &["4"]);
    server.wait_until_done("does-as-told");
    assert_eq!(server.values("out").last().unwrap(), "5 4");
    assert_eq!(server.history("does-as-told"), history(&[("deployed", 1), ("updated", 2), ("rolled_back", 1)]));
}

#[test]
fn memory_that_a_version_cannot_go_on_from_refuses_it() {
    let server = server("1");
    server.deploy("keeps-a-sum", "in:out", &["--tick", "24h"]);
    server.publish("in", &["1"]);
    server.wait_until_done("keeps-a-sum");
    server.upload("copies", &component("copies"));
    let refused = server.update("keeps-a-sum", "copies", &SHORT).failed(2);
    assert!(
        refused.starts_with(
            "error: component `copies` cannot go on from what deployment `keeps-a-sum` remembers: it keeps no memory, and 16 bytes \
             of it are kept (partition 0)\nhint: "
        ),
        "{refused}"
    );
    server.publish("in", &["forget"]);
    server.wait_until_done("keeps-a-sum");
    server.upload("keeps-a-sum", &another_version("keeps-a-sum", &server, "two"));
    let refused = server.update("keeps-a-sum", "keeps-a-sum", &SHORT).failed(2);
    assert!(refused.contains("that is no sum (partition 0)"), "{refused}");
    assert_eq!(server.history("keeps-a-sum"), history(&[("deployed", 1)]), "what is refused changes nothing");
}

#[test]
fn groups_go_on_in_another_version_and_a_stranger_to_them_is_refused() {
    let server = server("1");
    server.ok(&["add-component", "--file", &component("counts-as-told"), "--aggregate", "in"]);
    let publish = |lines: &str| drop(server.run_with(&["publish", "in", "--key-field", "k"], lines.as_bytes()).ok());
    publish("{\"k\":\"a\"}\n{\"k\":\"a\"}\n{\"k\":\"b\"}\n");
    server.wait_until_done("counts-as-told");
    server.upload("counts-as-told", &another_version("counts-as-told", &server, "two"));
    server.update("counts-as-told", "counts-as-told", &SHORT).ok();
    publish("{\"k\":\"a\"}\n");
    server.wait_until_done("counts-as-told");
    let shown = server.ok(&["aggregate", "scan", "counts-as-told"]);
    assert!(shown.contains("a: 3") && shown.contains("b: 1"), "{shown}");

    server.upload("stranger", &component("session-summary"));
    let refused = server.update("counts-as-told", "stranger", &SHORT).failed(2);
    assert!(
        refused.contains("component `stranger` cannot go on from what deployment `counts-as-told` remembers"),
        "{refused}"
    );
    assert_eq!(server.revisions("counts-as-told"), [2]);
}

#[test]
fn a_canary_goes_first() {
    let server = server("4");
    server.deploy("copies", "in:out", &[]);
    let refused = server.update("copies", "copies", &["--canary", "4", "--config", "a=b"]).failed(2);
    assert!(
        refused.contains("a canary of 4 partitions; deployment `copies` works on 4, and some must be left"),
        "{refused}"
    );
    server.upload("copies", &another_version("copies", &server, "two"));
    server.update("copies", "copies", &[&LONG[..], &["--canary", "1"]].concat()).ok();
    for partition in 0..4 {
        server.publish_to("in", partition, &["x"]);
    }
    server.wait_until_done("copies");
    assert_eq!(server.revisions("copies"), [2, 1, 1, 1]);
    assert_eq!(server.described("copies")["rollout"]["canary_partitions"], 1);
    server.ok(&["deployment", "rollback", "copies"]);
    server.wait_until("copies", |described| revisions(described) == [1, 1, 1, 1] && described["state"] == "running");

    server.update("copies", "copies", &[&SHORT[..], &["--canary", "3"]].concat()).ok();
    server.wait_until("copies", |described| revisions(described) == [3, 3, 3, 3]);
    let happened =
        [("deployed", 1), ("updated", 2), ("rolled_back", 1), ("updated", 3), ("canary_passed", 3), ("passed", 3)];
    assert_eq!(server.history("copies"), history(&happened));
    for partition in 0..4 {
        server.publish_to("in", partition, &["y"]);
    }
    server.wait_until_done("copies");
    assert_eq!(server.values("out").len(), 8);

    // One that fails on its canary never works elsewhere.
    server.upload("panics", &component("panics"));
    server.update("copies", "panics", &[&LONG[..], &["--canary", "1"]].concat()).ok();
    server.publish_to("in", 3, &["boom"]);
    server.publish_to("in", 0, &["boom"]);
    server.wait_until("copies", |described| described["revision"] == 3 && described["lag"] == 0);
    assert_eq!(server.values("out").len(), 10);
}

#[test]
fn an_update_goes_on_after_a_crash_and_is_judged_then() {
    let mut server = server("1");
    server.deploy("copies", "in:out", &[]);
    server.upload("panics", &component("panics"));
    server.update("copies", "panics", &LONG).ok();
    server.publish("in", &["fine"]);
    server.wait_until_done("copies");
    server.kill_and_restart();
    let described = server.wait_until("copies", |described| described["state"] == "running");
    assert_eq!((&described["revision"], &described["rollout"]["from_revision"]), (&json!(2), &json!(1)));
    server.publish("in", &["boom"]);
    server.wait_until("copies", |described| described["revision"] == 1 && described["lag"] == 0);
    server.kill_and_restart();
    assert_eq!(server.values("out"), ["fine", "boom"]);
    assert_eq!(server.history("copies"), history(&[("deployed", 1), ("updated", 2), ("failed", 1)]));
    // A deployment that is gone leaves nothing to one of its name.
    server.ok(&["deployment", "delete", "copies"]);
    server.deploy("copies", "in:out", &[]);
    let refused = server.run(&["deployment", "rollback", "copies"]).failed(1);
    assert!(refused.contains("has no earlier revision to go back to; it has: none"), "{refused}");
}

#[test]
fn what_a_component_is_given_changes_like_its_version() {
    let server = server("1");
    server.deploy("reads-config", "in:out", &["--config", "a=1", "--config", "b=2"]);
    let args = ["deployment", "update", "reads-config", "--config", "a=3", "--unset-config", "b", "--config", "c=4"];
    server.ok(&[&args[..], &SHORT].concat());
    server.publish("in", &["x"]);
    server.wait_until_done("reads-config");
    assert_eq!(server.values("out")[0], r#"[("a", "3"), ("c", "4")]"#);
    server.ok(&[
        "deployment",
        "update",
        "reads-config",
        "--allow-http",
        "https://example.com",
        "--on-error",
        "then=skip",
        "--probation",
        "0s",
    ]);
    let described = server.described("reads-config");
    assert_eq!(described["allow_http"], json!(["https://example.com"]));
    assert_eq!(described["on_error"], "retry=forever,then=skip");
    server.ok(&["deployment", "update", "reads-config", "--deny-http", "https://example.com", "--probation", "0s"]);
    assert_eq!(server.described("reads-config")["allow_http"], json!([]));
    server.run_with(&["secret", "put", "token"], b"sesame").ok();
    let given = ["--secret", "s=token", "--allow-http", "GET a.example.com", "--probation", "0s"];
    server.ok(&[&["deployment", "update", "reads-config"], &given[..]].concat());
    // Nobody is left to believe that something is gone which is not.
    for (args, says) in [
        (
            &["--deny-http", "a.example.com"][..],
            "deployment `reads-config` has no HTTP grant `https://a.example.com` that could be taken away; it has: GET https://a.example.com",
        ),
        (&["--unset-secret", "token"], "no secret `token` that could be taken away; it has: s"),
        (&["--unset-config", "b"], "no configuration `b` that could be taken away; it has: a, c"),
        (
            &["--allow-http", "b.example.com", "--deny-http", "https://b.example.com"],
            "HTTP grant `https://b.example.com` is given to deployment `reads-config` and taken away at once",
        ),
        (
            &["--secret", "s=token", "--unset-secret", "s"],
            "secret `s` is given to deployment `reads-config` and taken away",
        ),
        (
            &["--config", "a=4", "--unset-config", "a"],
            "configuration `a` is given to deployment `reads-config` and taken away",
        ),
    ] {
        // Other things are changed with it, or not at all.
        let refused =
            server.run(&[&["deployment", "update", "reads-config", "--config", "d=5"], args].concat()).failed(2);
        assert!(refused.contains(says), "{refused}");
    }
    assert_eq!(server.described("reads-config")["config"], json!({ "a": "3", "c": "4" }));
    let taken = ["--unset-secret", "s", "--deny-http", "GET https://a.example.com", "--probation", "0s"];
    server.ok(&[&["deployment", "update", "reads-config"], &taken[..]].concat());
    let described = server.described("reads-config");
    assert_eq!((&described["secrets"], &described["allow_http"]), (&json!({}), &json!([])));
    for (args, says) in [
        (["--config", "a"], "give NAME=VALUE"),
        (["--allow-http", "ftp://x"], "is no HTTP grant"),
        (["--secret", "nothing"], "secret `nothing` does not exist"),
        (["--component", "nothing"], "component `nothing` does not exist"),
        (["--probation", "48h"], "a probation of 172800000000 us; at most 86400000000 are allowed"),
    ] {
        let ran = server.run(&[&["deployment", "update", "reads-config"], &args[..]].concat());
        assert!(ran.code != 0 && ran.err.contains(says), "{}", ran.err);
    }
}

#[test]
fn a_shadow_is_given_the_same_and_commits_nothing() {
    let server = server("1");
    server.deploy("does-as-told", "in:out", &[]);
    let shadow = |component: &str| {
        let said = server.update("does-as-told", component, &["--shadow"]).ok();
        assert!(said.contains(" is tried beside it, "), "{said}");
    };
    let report = || server.json(&["deployment", "shadow", "does-as-told"])["tasks"][0].clone();
    let compared = |events: u64| {
        server.wait_until_done("does-as-told");
        while report()["events"].as_u64().unwrap() < events {
            server.publish("in", &["more"]);
            server.wait_until_done("does-as-told");
        }
        report()
    };
    // The same behaviour, with state, and events that both fail at.
    server.publish("in", &["1", "2"]);
    server.wait_until_done("does-as-told");
    server.upload("does-as-told", &another_version("does-as-told", &server, "two"));
    shadow("does-as-told");
    server.publish("in", &["3", "panic", "aside", "twice", "later", "4"]);
    let same = compared(3);
    for of in ["calls_with_other_outputs", "calls_with_other_rejects", "calls_with_other_state", "calls_failed"] {
        assert_eq!(same[of], 0, "{same:#}");
    }
    // Another behaviour: the outputs have no numbers, and the state is left alone.
    let before = server.values("out").len();
    server.upload("copies", &component("copies"));
    shadow("copies");
    let differs = compared(1);
    assert!(differs["calls_with_other_outputs"].as_u64() > Some(0), "{differs:#}");
    assert_eq!(differs["calls_with_other_state"], differs["calls_with_other_outputs"]);
    let what = text(&differs["differences"][0]["what"]);
    assert!(
        what.starts_with("port \"\", partition 0: event 0: ") && what.ends_with(" more; the shadow: more"),
        "{what}"
    );
    let said = server.ok(&["deployment", "shadow", "does-as-told"]);
    assert!(said.contains("OTHER OUTPUTS") && said.contains(&what), "{said}");
    // One that fails is not asked for ever, and no event pays for it.
    server.upload("exits", &component("exits"));
    shadow("exits");
    while report()["ended"] == "" {
        server.publish("in", &["more"]);
        server.wait_until_done("does-as-told");
    }
    let failed = report();
    assert_eq!((&failed["calls_failed"], &failed["calls"]), (&json!(3), &json!(3)), "{failed:#}");
    assert_eq!(server.described("does-as-told")["tasks"][0]["attempts"], 0);
    let outputs = server.values("out");
    assert!(outputs.len() > before && outputs[before..].iter().all(|value| value.ends_with(" more")), "{outputs:?}");

    let ended = server.json(&["deployment", "shadow", "does-as-told", "--end"]);
    assert_eq!((&ended["ended"], &ended["tasks"][0]["calls_failed"]), (&json!(true), &json!(3)));
    let refused = server.run(&["deployment", "shadow", "does-as-told"]).failed(1);
    assert!(refused.contains("deployment `does-as-told` has no shadow"), "{refused}");
    let happened = [("deployed", 1), ("shadowed", 1), ("shadowed", 1), ("shadowed", 1), ("shadow_ended", 1)];
    assert_eq!(server.history("does-as-told"), history(&happened));
    // What it does elsewhere could not be taken back.
    server.ok(&["add-component", "--file", &component("tells-what-it-delivers"), "--sink", "in", "--name", "sink"]);
    let refused = server.update("sink", "tells-what-it-delivers", &["--shadow", "--config", "a=b"]).failed(2);
    assert!(refused.contains("what a sink does is seen elsewhere"), "{refused}");
}

#[test]
fn a_shadow_is_asked_about_windows_and_ticks_too() {
    let server = server("1");
    let report = |name: &str| server.json(&["deployment", "shadow", name])["tasks"][0].clone();
    let shadow = |name: &str, more: &[&str]| {
        server.ok(&[&["deployment", "update", name, "--shadow"], more].concat());
    };

    // What a window is closed with has another name.
    let window = ["--window", "tumbling=10s", "--config", "by=k", "--config", "compute=n=count", "--name", "windows"];
    let file = component("aggregate-fields");
    server.ok(&[&["add-component", "--file", &file, "--aggregate", "in:out"], &window[..]].concat());
    shadow("windows", &["--config", "compute=m=count"]);
    let event = |second: u32| format!("{{\"k\":\"a\",\"at\":\"2013-01-01T00:00:{second:02}Z\"}}\n");
    let lines = [3, 4, 16].map(event).concat();
    server.run_with(&["publish", "in", "--key-field", "k", "--time-field", "at"], lines.as_bytes()).ok();
    while server.values("out").is_empty() {
        std::thread::yield_now();
    }
    let windows = report("windows");
    assert_eq!((&windows["events"], &windows["calls_with_other_outputs"]), (&json!(3), &json!(1)), "{windows:#}");
    assert_eq!((&windows["calls_with_other_state"], &windows["calls_failed"]), (&json!(0), &json!(0)), "{windows:#}");
    let difference = &windows["differences"][0];
    assert_eq!(difference["closed_groups"], 1);
    let what = text(&difference["what"]);
    assert!(what.contains("\\\"n\\\":2") && what.contains("\\\"m\\\":2"), "{what}");
    let said = server.ok(&["deployment", "shadow", "windows"]);
    assert!(said.contains(&format!("partition 0, closing the window of a group: {what}")), "{said}");

    // It ticks with the same state, so it counts the same; and when it fails, the other one does not.
    server.deploy("counts-ticks", "in:out", &["--tick", "20ms"]);
    server.upload("counts-ticks", &another_version("counts-ticks", &server, "two"));
    shadow("counts-ticks", &["--component", "counts-ticks"]);
    let ticks = || report("counts-ticks");
    while ticks()["calls"].as_u64() < Some(5) {
        std::thread::yield_now();
    }
    let same = ticks();
    for of in ["calls_with_other_outputs", "calls_with_other_state", "calls_failed", "events"] {
        assert_eq!(same[of], 0, "{same:#}");
    }
    shadow("counts-ticks", &["--config", "fails=always permanent"]);
    while ticks()["ended"] == "" {
        std::thread::yield_now();
    }
    let failed = ticks();
    assert_eq!((&failed["calls"], &failed["calls_failed"]), (&json!(3), &json!(3)), "{failed:#}");
    assert!(text(&failed["differences"][0]["tick"]).starts_with("20"), "{failed:#}");
    let task = &server.described("counts-ticks")["tasks"][0];
    assert_eq!((&task["ticks_left_out"], &task["state"]), (&json!(0), &json!("running")));
}

#[test]
fn an_author_sees_what_the_file_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let server = Server::start_with(&["--watch", place]);
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let put = |of: &str| {
        std::fs::copy(component(of), dir.path().join("mine.wasm")).unwrap();
    };
    put("copies");
    server.wait_until_it_says("took the component");
    server.ok(&["add-component", "--component", "mine", "--transform", "in:out"]);
    server.publish("in", &["x"]);
    server.wait_until_done("mine");
    put("does-as-told");
    server.wait_until("mine", |described| described["revision"] == 2);
    server.publish("in", &["x"]);
    server.wait_until_done("mine");
    assert_eq!(server.values("out"), ["x", "1 x"]);
    let why = text(&server.described("mine")["history"][1]["reason"]);
    assert_eq!(why, format!("{place}/mine.wasm changed"));

    // What is no component changes nothing, and neither does what is gone.
    std::fs::write(dir.path().join("mine.wasm"), "a text").unwrap();
    server.wait_until_it_says("the component is not taken: ");
    std::fs::remove_file(dir.path().join("mine.wasm")).unwrap();
    std::fs::write(dir.path().join("_wrong.wasm"), "").unwrap();
    server.wait_until_it_says("_wrong");
    std::fs::copy(component("tells-what-it-delivers"), dir.path().join("mine.wasm")).unwrap();
    server.wait_until_it_says("goes on with what it was: component `mine` is no transform; it is sink");
    server.publish("in", &["x"]);
    server.wait_until_done("mine");
    assert_eq!(server.values("out"), ["x", "1 x", "2 x"]);
}

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

/// Fifty updates: good ones, and such that exit, hang, reject, trap at times, or are refused before they begin. Meanwhile it is published with
/// keys, and the server is killed now and then. Each event comes out once, in the order of its key.
#[test]
fn fifty_updates_under_load_cost_nothing() {
    let mut server = server("3");
    server.deploy("copies", "in:out", &[]);
    let bad = ["exits", "rejects-odd", "emits-nowhere"];
    for bad in bad.into_iter().chain(["spins", "copies-and-traps", "tells-what-it-delivers"]) {
        server.upload(bad, &component(bad));
    }
    for good in ["a", "b", "c"] {
        server.upload(good, &another_version("copies", &server, good));
    }
    let address = server.address().to_owned();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            block_on(async {
                let options = PublisherOptions { batch_events_max: 50, ..PublisherOptions::default() };
                let publisher = connect(&address).await.publisher("in", options);
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..50 {
                        let event = Event::new(sent.to_string()).with_key(format!("key {}", sent % 7));
                        publisher.send(event).await.unwrap();
                        sent += 1;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                publisher.flush().await.unwrap();
                sent
            })
        });
        let _stop = StopAtEnd(&stop);
        let mut refused = 0;
        for round in 0..50_usize {
            let is_bad = round % 3 == 1;
            // One that hangs is found out after seconds of computing, so there are two of them.
            let (name, more): (&str, &[&str]) = match round {
                7 | 25 => ("spins", &LONG),
                round if round % 10 == 5 => (["nobody", "tells-what-it-delivers"][round / 10 % 2], &LONG),
                round if is_bad => (bad[round / 3 % 3], &LONG),
                round if round % 3 == 0 => (["a", "b", "c"][round % 9 / 3], &SHORT),
                // It fails at times, and not for good.
                round => (["c", "copies-and-traps", "b"][round % 9 / 3], &["--probation", "10ms", "--canary", "1"]),
            };
            let before = server.described("copies")["revision"].clone();
            let ran = server.update("copies", name, more);
            match ran.code {
                0 => {}
                _ if ran.err.contains("does not exist") || ran.err.contains("is no transform") => refused += 1,
                _ => panic!("{}", ran.err),
            }
            if round % 6 == 2 {
                server.kill_and_restart();
            }
            if ran.code == 0 && more.len() == LONG.len() && more[1] == "24h" {
                server.wait_until("copies", |described| described["revision"] == before);
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(refused >= 4, "{refused}");
        publishing.join().unwrap()
    });
    server.wait_until_done("copies");
    let described = server.described("copies");
    let kinds: BTreeSet<&str> =
        described["history"].as_array().unwrap().iter().map(|change| change["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains("failed") && kinds.contains("passed") && kinds.contains("canary_passed"), "{kinds:?}");
    assert_eq!(server.json(&["dlq", "list"]), json!([]));

    let mut by_key: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for value in server.values("out") {
        let number: u64 = value.parse().unwrap();
        by_key.entry(number % 7).or_default().push(number);
    }
    for key in 0..7 {
        let expected: Vec<u64> = (0..sent).filter(|number| number % 7 == key).collect();
        assert_eq!(by_key[&key], expected, "key {key}");
    }
}
