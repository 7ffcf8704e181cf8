//! What commands print, whole.

use crate::harness::{Server, run};

/// The times and directories of one run, as they are in all.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for word in text.split_inclusive([' ', '\n', '"', ',']) {
        let is_time = word.len() > 20 && word.as_bytes()[4] == b'-' && word.contains('T') && word.contains('Z');
        if is_time {
            let end = word.find('Z').unwrap() + 1;
            plain.push_str("TIME");
            plain.push_str(&word[end..]);
        } else {
            plain.push_str(word);
        }
    }
    plain
}

#[test]
fn lists_and_descriptions_for_people() {
    let server = Server::start();
    assert_eq!(server.ok(&["topic", "list"]), "NAME  PARTITIONS  LARGEST EVENT  CREATED\n");
    server.ok(&["topic", "create", "orders", "--partitions", "2"]);
    server.ok(&["topic", "create", "b", "--event-bytes-max", "1000"]);
    server.run_with(&["publish", "orders", "--format", "text"], b"x\n").ok();
    assert_eq!(
        plain(&server.ok(&["topic", "list"])),
        "NAME    PARTITIONS  LARGEST EVENT  CREATED\n\
         b       1           1000 B         TIME\n\
         orders  2           16.0 MiB       TIME\n"
    );
    assert_eq!(
        plain(&server.ok(&["topic", "describe", "orders"])),
        "topic orders, created TIME\n\
         largest event 16.0 MiB\n\
         values are bytes\n\
         events are kept for ever\n\
         ids of events are remembered for 2m\n\
         PARTITION  EARLIEST  ARCHIVED TO  END  FILES  ON DISK  OF EVENTS\n\
         0          0         0            1    0      0 B      0 B\n\
         1          0         0            0    0      0 B      0 B\n"
    );
    assert_eq!(server.ok(&["component", "list"]), "NAME  VERSION  DIGEST  ROLES  SIZE  UPLOADED\n");
    assert_eq!(server.ok(&["deployment", "list"]), "NAME  STATE  LAG  CPU  TOPICS  COMPONENT\n");
    assert_eq!(
        server.run(&["deployment", "describe", "nothing"]).failed(1),
        "error: deployment `nothing` does not exist\n"
    );
}

#[test]
fn json_for_programs() {
    let server = Server::start();
    let created = server.ok(&["topic", "create", "orders", "--json"]);
    assert_eq!(
        plain(&created),
        "{\n  \"name\": \"orders\",\n  \"partitions\": 1,\n  \"event_bytes_max\": 16777216,\n  \"created\": \"TIME\",\n  \
         \"values\": \"bytes\",\n  \"columns\": [],\n  \
         \"retention_seconds\": null,\n  \"deduplicate_seconds\": 120.0,\n  \"retention_bytes\": null\n}\n"
    );
    assert_eq!(server.ok(&["deployment", "list", "--json"]), "[]\n");
    assert_eq!(server.ok(&["topic", "delete", "orders", "--json"]), "{\n  \"deleted\": \"orders\"\n}\n");
    let failed = server.run(&["topic", "describe", "orders", "--json"]);
    assert_eq!(failed.code, 1);
    assert_eq!(
        failed.err,
        "{\"error\":\"topic `orders` does not exist\",\"reason\":\"UNKNOWN_TOPIC\",\"hint\":\"create it with `nodata topic create orders`\"}\n"
    );
}

#[test]
fn the_client_commands_are_known_under_their_old_name() {
    let server = Server::start();
    assert_eq!(server.ok(&["client", "topic", "create", "orders"]), "created topic orders with 1 partition\n");
    server.run_with(&["client", "publish", "orders", "--format", "text"], b"x\n").ok();
    assert_eq!(server.ok(&["client", "consume", "orders", "--raw"]), "x\n");
}

#[test]
fn a_reader_that_closes_its_pipe_is_no_failure() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    server.run_with(&["publish", "orders", "--format", "text"], "line\n".repeat(50_000).as_bytes()).ok();
    let script = format!("'{}' consume orders | head -n 1; exit ${{PIPESTATUS[0]}}", crate::harness::NODATA);
    let ran = std::process::Command::new("bash")
        .args(["-c", &script])
        .env("NODATA_SERVER", server.address())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.stderr, b"");
}

#[test]
fn help_says_what_is_there_and_what_is_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let help = |args: &[&str]| {
        let help = run(&[args, &["--help"]].concat(), &[], dir.path(), b"").ok();
        help.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let all = help(&[]);
    assert!(
        all.contains("List, describe, update, roll back, shadow, pause, resume, reset and delete deployments"),
        "{all}"
    );
    let update = help(&["deployment", "update"]);
    assert!(update.contains("[default: 256MiB; of an update: as before]"), "{update}");
    assert!(update.contains("retry=N, then=WHAT, or both [default: each as before]"), "{update}");
}

#[test]
fn the_version_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(&["--version"], &[], dir.path(), b"").ok(), format!("nodata {}\n", env!("CARGO_PKG_VERSION")));
}
