//! Secrets: given to whom they are granted, and to nobody else, wherever one looks.

use crate::harness::{Server, component, run};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What the guest says it read.
fn said(value: &str) -> String {
    format!("Some({:?})", value.as_bytes())
}

/// Whether a file below this directory holds this text, whatever else is in it.
fn is_written_below(dir: &Path, text: &str) -> bool {
    let searched = Command::new("grep").args(["-raFq", "-e", text]).arg(dir).status().unwrap();
    assert!(searched.code().is_some_and(|code| code <= 1), "{searched}");
    searched.success()
}

fn last_said(server: &Server) -> String {
    server.wait_until_done("reader");
    server.values("out").pop().unwrap()
}

#[test]
fn a_secret_reaches_who_is_granted_it_and_nobody_else() {
    let mut server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let file = component("reads-config");
    let add = ["add-component", "--file", &file, "--name", "reader", "--transform", "in:out", "--secret", "a=token"];
    let refused = server.run(&add).failed(1);
    let hint = "put it there with `nodata secret put token`";
    assert!(refused.contains("secret `token` does not exist") && refused.contains(hint), "{refused}");

    let put = |server: &Server, value: &str| server.run_with(&["secret", "put", "token"], value.as_bytes()).ok();
    assert_eq!(put(&server, "open sesame\n"), "kept secret token\n");
    server.ok(&add);
    server.publish("in", &["x"]);
    assert_eq!(last_said(&server), said("open sesame"));

    // A new value is there from the next call on, and after a crash.
    put(&server, "shut the door");
    server.publish("in", &["x"]);
    assert_eq!(last_said(&server), said("shut the door"));
    server.kill_and_restart();
    server.publish("in", &["x"]);
    assert_eq!(last_said(&server), said("shut the door"));

    assert_eq!(server.described("reader")["secrets"], json!({ "a": "token" }));
    assert!(server.ok(&["deployment", "describe", "reader"]).contains("\nsecret     a = secret token\n"));
    let listed = server.json(&["secret", "list"]);
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["name"]), (1, &json!("token")));
    let everything = [&["secret", "list"][..], &["deployment", "list"], &["deployment", "logs", "reader"]];
    for command in everything {
        let shown = server.ok(command) + &server.ok(&[command, &["--json"]].concat());
        assert!(!shown.contains("sesame") && !shown.contains("the door"), "{shown}");
    }
    assert!(!server.said().contains("the door"), "{}", server.said());
    for value in ["open sesame", "shut the door"] {
        assert!(!is_written_below(&server.data(), value), "{value}");
    }
    // What would be found is found.
    assert!(is_written_below(&server.data(), &said("open sesame")));

    let refused = server.run(&["secret", "delete", "token"]).failed(1);
    assert!(refused.contains("secret `token` is granted to reader"), "{refused}");
    server.ok(&["deployment", "delete", "reader"]);
    server.ok(&["secret", "delete", "token"]);
    assert_eq!(server.json(&["secret", "list"]), json!([]));
}

#[test]
fn a_server_without_its_key_says_so_and_one_with_it_goes_on() {
    let mut server = Server::start();
    server.run_with(&["secret", "put", "token"], b"open sesame").ok();
    let empty = server.run_with(&["secret", "put", "empty"], b"\n").failed(2);
    assert!(empty.contains("secret `empty` has no bytes"), "{empty}");
    let large = server.run_with(&["secret", "put", "large"], &[b'x'; 70_000]).failed(2);
    assert!(large.contains("at most 65536 are allowed"), "{large}");

    server.signal("TERM");
    assert!(server.wait().success());
    let (key, elsewhere) = (server.data().join("secrets.key"), server.dir().path().join("elsewhere.key"));
    fs::rename(&key, &elsewhere).unwrap();
    let data = server.data().display().to_string();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", &data];
    let said = run(&serve, &[], server.dir().path(), b"").failed(1);
    assert!(said.contains(&format!("the key of the secrets is not in {}", key.display())), "{said}");
    assert!(said.contains("bring the file back, or name its place with `--secrets-key`"), "{said}");
    fs::write(&key, format!("{}\n", "5e".repeat(32))).unwrap();
    let said = run(&serve, &[], server.dir().path(), b"").failed(1);
    assert!(said.contains("is not the one that they were encrypted with"), "{said}");

    let more = ["--secrets-key", elsewhere.to_str().unwrap()];
    let server = Server::try_start(server.dir(), "127.0.0.1:0", &more).unwrap();
    assert_eq!(server.json(&["secret", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn grants_of_requests_are_checked_and_shown() {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let file = component("asks-as-told");
    let add = ["add-component", "--file", &file, "--transform", "in:out", "--from", "earliest", "--allow-http"];
    let refused = server.run(&[&add[..], &["ftp://a"]].concat()).failed(2);
    assert!(refused.contains("`ftp://a` is no HTTP grant: `ftp` is neither http nor https"), "{refused}");
    server.ok(&[&add[..], &["GET  HTTPS://Example.com"]].concat());
    let described = server.ok(&["deployment", "describe", "asks-as-told"]);
    assert!(described.contains("\nhttp       GET https://example.com\n"), "{described}");
    server.publish("in", &["GET http://127.0.0.1:1/"]);
    server.wait_until_done("asks-as-told");
    assert!(server.values("out")[0].contains("denied"));
    let logged = server.ok(&["deployment", "logs", "asks-as-told"]);
    let denied = "denied: GET http://127.0.0.1:1; this deployment is granted GET https://example.com";
    assert!(logged.contains(denied), "{logged}");
}

#[test]
fn a_secret_stays_as_long_as_somebody_works_with_it_or_may_go_back_to_it() {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic, "--partitions", "2"]);
    }
    for secret in ["token", "other"] {
        server.run_with(&["secret", "put", secret], secret.as_bytes()).ok();
    }
    let refused = |secret: &str, by: &str| {
        let refused = server.run(&["secret", "delete", secret]).failed(1);
        assert!(refused.starts_with(&format!("error: secret `{secret}` is granted to {by}\n")), "{refused}");
    };
    let update = |more: &[&str]| drop(server.ok(&[&["deployment", "update", "reader"], more].concat()));
    let says = |revisions: [u64; 2], says: [&str; 2]| {
        let is_so = |described: &Value| (0..2).all(|at| described["tasks"][at]["revision"] == revisions[at]);
        server.wait_until("reader", |described| is_so(described) && described["state"] == "running");
        for (partition, says) in ["0", "1"].into_iter().zip(says) {
            server.publish_to("in", partition.parse().unwrap(), &["x"]);
            server.wait_until_done("reader");
            let said = server.ok(&["consume", "out", "--raw", "--partition", partition]);
            assert_eq!(said.lines().last(), Some(says), "partition {partition} with {revisions:?}");
        }
    };
    server.deploy("reads-config", "in:out", &["--name", "reader", "--secret", "a=token"]);

    // The tasks that are no canary still run what they ran, and all of them may again.
    update(&["--unset-secret", "a", "--canary", "1", "--probation", "24h", "--detach"]);
    refused("token", "reader");
    says([2, 1], ["None", &said("token")]);
    server.ok(&["deployment", "rollback", "reader"]);
    says([1, 1], [&said("token"), &said("token")]);

    update(&["--unset-secret", "a", "--probation", "0s"]);
    refused("token", "reader (revision 1, to go back to)");
    says([3, 3], ["None", "None"]);
    server.ok(&["deployment", "rollback", "reader", "--to", "1"]);
    says([1, 1], [&said("token"), &said("token")]);

    // A revision that is only tried works with it too.
    update(&["--secret", "b=other", "--shadow"]);
    refused("other", "reader");
    server.ok(&["deployment", "shadow", "reader", "--end"]);
    server.ok(&["secret", "delete", "other"]);

    // And so may whoever goes on from what is kept.
    server.ok(&["deployment", "delete", "reader", "--keep-position"]);
    refused("token", "reader (kept)");
}
