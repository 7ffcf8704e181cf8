//! Another revision takes over while events flow: nothing is lost, repeated or reordered, and one that fails where the one before does
//! not is gone by itself.

use crate::harness::{Ran, Server, another_version, block_on, component, connect, json_lines};
use nodata_client::{Event, PublisherOptions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
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

    fn update(&self, deployment: &str, component: &str, more: &[&str]) -> Ran {
        self.run(&[&["deployment", "update", deployment, "--component", component], more].concat())
    }

    /// Waits with an update until it says this, does that, and answers with what the update says then and whether it succeeded.
    fn while_updating(&self, args: &[&str], until: &str, does: impl FnOnce()) -> (String, String, bool) {
        let mut command = self.command(&[&["deployment", "update"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains(until) {
            assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
        }
        does();
        stderr.read_to_string(&mut said).unwrap();
        let output = child.wait_with_output().unwrap();
        (said, String::from_utf8(output.stdout).unwrap(), output.status.success())
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
    assert!(
        text.contains("STATE    REVISION  POSITION") && text.contains("\n0          running  3         4 "),
        "{text}"
    );
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
    // What is not said of it is as before.
    for (says, is) in [("retry=3", "retry=3,then=skip"), ("then=pause", "retry=3,then=pause")] {
        server.ok(&["deployment", "update", "reads-config", "--on-error", says, "--probation", "0s"]);
        assert_eq!(server.described("reads-config")["on_error"], is);
    }
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
        (["--component", "reads-config@"], "`reads-config@` names no version behind the @"),
        (["--version", "2.0.0"], "--version is about a file that is uploaded, and there is none"),
        (["--by", "ada"], "--by is about a file"),
        (["--signature", "x.minisig"], "--signature is about a file"),
        (["--shadow", "--no-way-back"], "cannot be used with"),
        (["--probation", "48h"], "a probation of 172800000000 us; at most 86400000000 are allowed"),
    ] {
        let ran = server.run(&[&["deployment", "update", "reads-config"], &args[..]].concat());
        assert!(ran.code != 0 && ran.err.contains(says), "{}", ran.err);
    }
}

#[test]
fn nobody_waits_for_an_update_of_what_is_paused() {
    let server = server("1");
    server.deploy("copies", "in:out", &[]);
    let resumed = |revision: u64| {
        server.ok(&["deployment", "resume", "copies"]);
        let is_over = |described: &Value| described["rollout"].is_null() && described["rebuild"].is_null();
        server.wait_until("copies", |described| described["revision"] == revision && is_over(described));
    };
    let next = "it is paused; resume it: nodata deployment resume copies\n";
    let begins = |said: &str, begin: &str| assert!(said.starts_with(begin) && said.ends_with(next), "{said}");
    server.ok(&["deployment", "pause", "copies"]);
    let said = server.update("copies", "copies", &[&SHORT[..], &["--config", "a=1"]].concat()).ok();
    begins(&said, "copies: revision 2 takes over when it is resumed, copies (");
    resumed(2);
    server.ok(&["deployment", "pause", "copies"]);
    let said = server.update("copies", "copies", &["--rebuild", "--config", "a=2"]).ok();
    begins(&said, "copies: revision 3 makes its state anew when it is resumed, copies (");
    assert_eq!(server.described("copies")["revision"], 2);
    resumed(3);
    // Or somebody pauses it while somebody waits.
    let args = ["copies", "--config", "a=3", "--probation", "24h"];
    let pause = || drop(server.ok(&["deployment", "pause", "copies"]));
    let (_, said, ok) = server.while_updating(&args, "revision 4 runs on", pause);
    begins(&said, "copies: revision 4 takes over when it is resumed, copies (");
    assert!(ok);
}

#[test]
fn an_update_whose_server_goes_away_says_how_to_see_what_becomes_of_it() {
    let server = server("1");
    server.deploy("copies", "in:out", &[]);
    let args = ["copies", "--config", "a=1", "--probation", "24h"];
    let (said, _, ok) = server.while_updating(&args, "revision 2 runs on", || server.signal("KILL"));
    let hint = "\nhint: the update goes on when the server does; see how it went: nodata deployment describe copies\n";
    assert!(!ok && said.contains("\nerror: the server cannot be reached: ") && said.ends_with(hint), "{said}");
}

#[test]
fn what_others_say_stays_on_its_line() {
    let server = server("1");
    let forged = "no\n2013-01-01T00:00:00Z  revision 9 went well\u{1b}[2J";
    let readable = "no 2013-01-01T00:00:00Z  revision 9 went well\u{fffd}[2J";
    server.deploy("fails-as-told", "in:out", &["--config", &format!("a={forged}")]);
    server.publish_to("in", 0, &[&format!("transient {forged}")]);
    server.wait_until("fails-as-told", |described| described["tasks"][0]["attempts"] != 0);
    let args = ["fails-as-told", "--config", "b=1", "--probation", "24h", "--reason", forged];
    let back = || drop(server.ok(&["deployment", "rollback", "fails-as-told", "--reason", forged]));
    let (said, _, _) = server.while_updating(&args, "; partition 0: ", back);
    let text = server.ok(&["deployment", "describe", "fails-as-told"]);
    let logs = server.ok(&["deployment", "logs", "fails-as-told"]);
    for said in [&said, &text, &logs] {
        let said = said.replace("no\u{fffd}2013", "no 2013");
        assert!(said.contains(readable) && !said.contains("\n2013-01-01T00:00:00Z"), "{said}");
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
    }
    for line in [format!("config     a = {readable}\n"), format!(": {readable}\n")] {
        assert!(text.contains(&line), "{text}");
    }
    let undone = said.lines().find(|line| line.starts_with("error: the update of fails-as-told was undone: "));
    assert!(undone.is_some_and(|line| line.ends_with(readable)), "{said}");
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
    // Neither is one that never answers, and it keeps nobody up.
    server.upload("sleeps", &component("sleeps"));
    server.update("does-as-told", "sleeps", &["--shadow", "--config", "seconds=100000", "--call-time", "1h"]).ok();
    while report()["ended"] == "" {
        server.publish("in", &["more"]);
        server.wait_until_done("does-as-told");
    }
    let late = report();
    assert_eq!((&late["calls_failed"], &late["calls"]), (&json!(3), &json!(3)), "{late:#}");
    assert!(text(&late["ended"]).starts_with("it took longer than 1."), "{late:#}");
    let outputs = server.values("out");
    assert!(outputs.len() > before && outputs[before..].iter().all(|value| value.ends_with(" more")), "{outputs:?}");

    let ended = server.json(&["deployment", "shadow", "does-as-told", "--end"]);
    assert_eq!((&ended["ended"], &ended["tasks"][0]["calls_failed"]), (&json!(true), &json!(3)));
    let refused = server.run(&["deployment", "shadow", "does-as-told"]).failed(1);
    assert!(refused.contains("deployment `does-as-told` has no shadow"), "{refused}");
    let refused = server.run(&["deployment", "shadow", "does-as-told", "--json"]).failed(1);
    assert!(refused.contains("\"reason\":\"NO_SHADOW\""), "{refused}");
    let shadowed = [("shadowed", 1), ("shadow_ended", 1)].repeat(4);
    let happened = [&[("deployed", 1)][..], &shadowed].concat();
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

    // What changes in the middle of another update is not forgotten.
    server.ok(&[&["deployment", "update", "mine", "--config", "a=b"][..], &LONG].concat());
    std::fs::copy(another_version("does-as-told", &server, "two"), dir.path().join("mine.wasm")).unwrap();
    server.wait_until_it_says("goes on with what the file is when that is over: deployment `mine` is being updated");
    server.ok(&["deployment", "rollback", "mine"]);
    server.wait_until("mine", |described| described["revision"] == 4);
    let nowhere = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let missing = Server::try_start(nowhere, "127.0.0.1:0", &["--watch", &format!("{place}/missing")]).err().unwrap();
    assert!(missing.contains(&format!("error: cannot watch {place}/missing: No such file or directory")), "{missing}");

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
