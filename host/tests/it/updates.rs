//! Another revision takes over while events flow: nothing is lost, repeated or reordered, and one that fails where the one before does
//! not is gone by itself.

use crate::harness::{Ran, Server, another_version, block_on, component, connect};
use nodata_client::{Event, PublisherOptions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn server(partitions: &str) -> Server {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic, "--partitions", partitions]);
    }
    server
}

/// Nobody should wait for a probation that a test does not look at.
pub(crate) const SHORT: [&str; 2] = ["--probation", "10ms"];
/// This one does not end by itself.
pub(crate) const LONG: [&str; 3] = ["--probation", "24h", "--detach"];

impl Server {
    pub(crate) fn upload(&self, name: &str, file: &str) {
        self.ok(&["component", "push", file, "--name", name]);
    }

    pub(crate) fn update(&self, deployment: &str, component: &str, more: &[&str]) -> Ran {
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
    pub(crate) fn history(&self, deployment: &str) -> Vec<(String, u64)> {
        let described = self.described(deployment);
        let history = described["history"].as_array().unwrap();
        history.iter().map(|change| (text(&change["kind"]), change["revision"].as_u64().unwrap())).collect()
    }

    fn revisions(&self, deployment: &str) -> Vec<u64> {
        revisions(&self.described(deployment))
    }
}

/// Whoever publishes stops also when the test fails.
pub(crate) struct StopAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn revisions(described: &Value) -> Vec<u64> {
    described["tasks"].as_array().unwrap().iter().map(|task| task["revision"].as_u64().unwrap()).collect()
}

pub(crate) fn history(of: &[(&str, u64)]) -> Vec<(String, u64)> {
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
