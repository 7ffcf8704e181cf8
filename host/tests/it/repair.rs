//! An operator whose disk has lost something: `nodata fsck --repair`, through the command line.

use crate::harness::{Ran, Server, run};
use crate::outside::outside;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn fsck(server: &Server, more: &[&str]) -> Ran {
    let data = server.data();
    run(&[&["fsck", "--data", data.to_str().unwrap()], more].concat(), &[], server.dir().path(), b"")
}

fn fsck_json(server: &Server, more: &[&str]) -> (i32, Value) {
    let ran = fsck(server, &[more, &["--json"]].concat());
    (ran.code, serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}{}", ran.out, ran.err)))
}

fn below(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn files(server: &Server) -> Vec<PathBuf> {
    below(&server.data().join("data"), ".parquet")
}

fn segments(server: &Server) -> Vec<PathBuf> {
    let mut found = below(&server.data().join("wal"), ".wal");
    found.retain(|path| !path.to_string_lossy().contains("spare"));
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 16;
    std::fs::write(path, bytes).unwrap();
}

fn publish(server: &Server, range: std::ops::Range<usize>) {
    let values: Vec<String> = range.map(|n| format!("value {n}")).collect();
    server.publish("orders", &values.iter().map(String::as_str).collect::<Vec<_>>());
}

fn kill(server: &mut Server) {
    server.signal("KILL");
    server.wait();
}

/// The server and those who only read the files see the same events, and the store takes more.
fn goes_on(server: &mut Server, range: std::ops::Range<usize>) {
    let expected: Vec<String> = range.map(|n| format!("value {n}")).collect();
    server.kill_and_restart();
    let seen: Vec<String> =
        server.ok(&["consume", "orders", "--from", "earliest", "--raw"]).lines().map(str::to_owned).collect();
    assert_eq!(seen, expected);
    publish(server, 900..910);
    server.ok(&["topic", "flush"]);
    assert_eq!(outside(server, "orders")["count"], expected.len() + 10);
    kill(server);
    assert!(fsck(server, &[]).ok().ends_with("everything is as it should be; nothing was changed\n"));
}

#[test]
fn a_damaged_file_is_repaired_and_what_is_lost_is_said() {
    let mut server = Server::start_with(&["--keep-log", "0"]);
    server.ok(&["topic", "create", "orders"]);
    // Three row groups in a file that grows, and lives in between so that the log lets go of them.
    for life in 0..3 {
        publish(&server, life * 100..life * 100 + 100);
        server.ok(&["topic", "flush"]);
        server.stop_and_restart();
    }
    publish(&server, 300..350);
    server.stop_and_restart();
    kill(&mut server);
    assert_eq!(fsck_json(&server, &["--repair"]).1["problems"], json!([]), "nothing is wrong yet");
    assert!(!server.data().join("lost+found").exists());

    let path = files(&server)[0].clone();
    let before = std::fs::read(&path).unwrap();
    flip(&path, 100);
    let damaged = std::fs::read(&path).unwrap();
    assert_ne!(before, damaged);

    // Looking changes nothing.
    let (code, found) = fsck_json(&server, &[]);
    let lost = json!([{ "topic": "orders", "partition": 0, "from": 0, "to": 100, "kind": "lost" }]);
    assert_eq!((code, &found["problems"][0]["lost"]), (1, &lost), "{found:#}");
    let dry = fsck(&server, &["--repair", "--dry-run"]);
    assert_eq!(dry.code, 1);
    assert!(
        dry.out.contains("    would be repaired: it is kept, and what can be read of it is written anew\n"),
        "{}",
        dry.out
    );
    assert_eq!(std::fs::read(&path).unwrap(), damaged);

    let repaired = fsck(&server, &["--repair"]);
    assert_eq!(repaired.code, 1, "{}{}", repaired.out, repaired.err);
    assert!(
        repaired.out.contains("    lost: offsets 0 to 100 of topic orders, partition 0 (100 events)\n"),
        "{}",
        repaired.out
    );
    assert!(repaired.out.ends_with("1 problem: 100 events are lost\n"), "{}", repaired.out);
    let kept = below(&server.data().join("lost+found"), ".parquet");
    assert_eq!(kept.len(), 1);
    assert_eq!(std::fs::read(&kept[0]).unwrap(), damaged);
    let report = std::fs::read_to_string(&below(&server.data().join("lost+found"), "report.txt")[0]).unwrap();
    assert_eq!(report, repaired.out);
    // Once is as good as twice.
    assert!(fsck(&server, &["--repair"]).ok().ends_with("nothing was changed\n"));
    goes_on(&mut server, 100..350);
}

#[test]
fn a_hole_in_the_log_is_repaired_and_deployments_go_on() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    server.ok(&["topic", "create", "upper"]);
    publish(&server, 0..10);
    server.deploy("copies", "orders:upper", &["--name", "upper-orders", "--from", "earliest"]);
    server.wait_until_done("upper-orders");
    publish(&server, 10..400);
    server.wait_until_done("upper-orders");
    let upper = server.values("upper").len();
    kill(&mut server);
    // Somewhere in the payload of the first events.
    let segment = segments(&server)[0].clone();
    let bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(9).position(|window| window == b"value 300").unwrap();
    flip(&segment, at + 7);
    let refused = Server::try_start(server.dir(), "127.0.0.1:0", &[]).err().unwrap();
    assert!(refused.contains("nodata fsck"), "{refused}");

    let (code, found) = fsck_json(&server, &["--repair"]);
    assert_eq!((code, &found["lost_events"]), (1, &json!(390)), "{found:#}");
    let problems = found["problems"].as_array().unwrap();
    assert!(problems.iter().any(|problem| problem["lost"][0]["to"] == 400), "{found:#}");
    assert_eq!(below(&server.data().join("lost+found"), ".wal").len(), 1);
    server.kill_and_restart();
    assert_eq!(server.values("upper").len(), upper, "the outputs are of other bytes");
    publish(&server, 400..410);
    server.wait_until_done("upper-orders");
    assert_eq!(server.values("upper").len(), upper + 10);
    kill(&mut server);
    assert_eq!(fsck(&server, &[]).code, 0);
}

#[test]
fn a_checkpoint_that_is_gone_is_made_anew_from_what_there_is() {
    let mut server = Server::start_with(&["--keep-log", "0"]);
    server.ok(&["topic", "create", "orders", "--values", "text"]);
    for life in 0..3 {
        publish(&server, life * 100..life * 100 + 100);
        server.stop_and_restart();
    }
    publish(&server, 300..310);
    kill(&mut server);
    std::fs::remove_file(server.data().join("meta.redb")).unwrap();
    let refused = Server::try_start(server.dir(), "127.0.0.1:0", &[]).err().unwrap();
    assert!(refused.contains("nodata fsck"), "{refused}");
    let (code, found) = fsck_json(&server, &["--repair"]);
    assert_eq!((code, &found["lost_events"]), (1, &json!(0)), "{found:#}");
    let unknown = found["problems"][0]["unknown"].as_array().unwrap();
    assert!(unknown.iter().any(|what| what.as_str().unwrap().contains("positions")), "{found:#}");
    goes_on(&mut server, 0..310);
    server.kill_and_restart();
    assert_eq!(server.json(&["topic", "describe", "orders"])["values"], "text");
}

#[test]
fn what_is_no_store_or_is_in_use_is_refused() {
    let server = Server::start();
    let refused = fsck(&server, &["--repair"]).failed(2);
    assert!(refused.starts_with("error: another nodata server uses "), "{refused}");
    let dir = server.dir();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let refused = |more: &[&str]| run(&[&["fsck", "--data", "empty"], more].concat(), &[], dir.path(), b"").failed(2);
    assert_eq!(refused(&["--repair"]), "error: empty holds no nodata store\n");
    assert!(refused(&["--dry-run"]).contains("--repair"));
    std::fs::write(dir.path().join("empty/STORE"), "nodata store\nformat 99\nid 0\n").unwrap();
    assert_eq!(refused(&["--repair"]), "error: empty is a nodata store of format 99, this build reads format 1\n");
    assert_eq!(std::fs::read_dir(dir.path().join("empty")).unwrap().count(), 1);
}
