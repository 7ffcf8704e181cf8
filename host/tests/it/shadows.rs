//! A revision that is tried beside the one that works.

use crate::harness::{another_version, component};
use crate::updates::{history, server, text};
use serde_json::json;

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
