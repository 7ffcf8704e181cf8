//! What is wrong is refused, in words that a stranger understands, and nothing is lost.

use crate::harness::{NODATA, Server, block_on, run};
use nodata_client::proto::PublishRequest;
use nodata_client::{Batch, Client, ClientOptions, Event, Outcome};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// A command that is wrong, and what it says.
fn check(server: &Server, args: &[&str], input: &str, code: i32, expected: &str) {
    let said = server.run_with(args, input.as_bytes()).failed(code);
    assert_eq!(said, format!("{expected}\n"), "{args:?}");
}

#[test]
fn wrong_names_and_unknown_topics_are_named() {
    let server = Server::start();
    let wrong = |name: &str, what: &str| {
        check(&server, &["topic", "create", name], "", 2, &format!("error: topic: name `{name}` {what}"));
    };
    wrong("a/b", "contains '/'; allowed are letters, digits, `_`, `.` and `-`");
    wrong("_x", "begins with `_`; names begin with a letter, a digit or `-`");
    wrong("..", "begins with `.`; names begin with a letter, a digit or `-`");
    check(&server, &["topic", "create", ""], "", 2, "error: topic: a name cannot be empty");
    let long = server.run(&["topic", "create", &"n".repeat(201)]).failed(2);
    assert!(long.contains("has 201 characters, at most 200 are allowed"), "{long}");
    check(
        &server,
        &["topic", "create", "t", "--partitions", "2000"],
        "",
        2,
        "error: 2000 partitions; a topic has 1 to 1024",
    );
    let unknown = "error: topic `nowhere` does not exist\nhint: create it with `nodata topic create nowhere`";
    check(&server, &["publish", "nowhere"], "{}", 1, unknown);
    check(&server, &["consume", "nowhere"], "", 1, unknown);
    check(&server, &["topic", "delete", "nowhere"], "", 1, unknown);
}

#[test]
fn wrong_lines_are_named_and_what_came_before_is_published() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--event-bytes-max", "100"]);
    let publish = ["publish", "orders", "--batch", "2"];
    check(
        &server,
        &publish,
        "{\"n\":1}\n{\"n\":2}\n{\"n\":\n",
        2,
        "error: standard input: line 3: it is no JSON: EOF while parsing a value at column 5; for plain lines use --format text\n\
         hint: published before it: 2 events",
    );
    let large = format!("{{\"n\":3}}\n{{\"n\":4}}\n{{\"n\":5}}\n\"{}\"\n", "x".repeat(200));
    check(
        &server,
        &publish,
        &large,
        2,
        "error: standard input, lines 3 to 4: event 1 for topic `orders`: 202 bytes (id, key, value and headers), at most 100 \
         are allowed\nhint: published before it: 2 events; nothing of these lines was published",
    );
    assert_eq!(server.ok(&["consume", "orders", "--raw"]), "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n");
    assert_eq!(
        server.run(&["publish", "orders", "--file", "not-there.ndjson"]).failed(1),
        "error: cannot read not-there.ndjson: No such file or directory (os error 2)\n"
    );
    let nothing = server.run_with(&["publish", "orders"], b"\n\n").ok();
    assert!(nothing.starts_with("published 0 events to orders"), "{nothing}");
}

#[test]
fn wrong_requests_are_refused_with_a_reason_and_leave_nothing() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "2"]);
    block_on(async {
        let mut client = server.client().await.publishing();
        let mut refused = async |batch: &[u8], partition| {
            let request = PublishRequest {
                topic: "orders".into(),
                batch: batch.to_vec().into(),
                partition,
                ..Default::default()
            };
            let error = nodata_client::Error::from(client.publish(request).await.unwrap_err());
            assert_eq!(error.outcome(), Outcome::NotApplied);
            (error.reason().to_owned(), error.to_string())
        };
        let wire = |event: Event| [event].iter().collect::<Batch>().as_wire().to_vec();
        let expected = |reason: &str, words: &str| (reason.to_owned(), words.to_owned());
        assert_eq!(refused(b"", None).await, expected("EMPTY", "an append without events"));
        assert_eq!(
            refused(b"\x0a\xff\x01", None).await,
            expected("MALFORMED", "the event batch is not well-formed protobuf")
        );
        let twice = Event::new("x").with_header("h", "1").with_header("h", "2");
        assert_eq!(
            refused(&wire(twice), None).await,
            expected(
                "EVENT",
                "event 0 for topic `orders`: header `h` is given twice; header names are unique in an event"
            )
        );
        let long_id = Event::new("x").with_id("i".repeat(257));
        assert_eq!(
            refused(&wire(long_id), None).await,
            expected("EVENT", "event 0 for topic `orders`: the id has 257 bytes, at most 256 are allowed")
        );
        assert_eq!(
            refused(&wire(Event::new("x")), Some(2)).await,
            expected("UNKNOWN_PARTITION", "topic `orders` has 2 partitions, there is no partition 2")
        );
        let large = Event::new(vec![0; (16 << 20) + 1]);
        let (reason, words) = refused(&wire(large), None).await;
        assert_eq!(reason, "EVENT_TOO_LARGE");
        assert!(
            words.ends_with("16777217 bytes (id, key, value and headers), at most 16777216 are allowed"),
            "{words}"
        );
    });
    assert_eq!(server.ok(&["consume", "orders", "--raw"]), "");
}

#[test]
fn the_largest_event_and_the_largest_request_are_taken() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    block_on(async {
        let client = server.client().await;
        client.publish("orders", &Event::new(vec![1; 16 << 20])).await.unwrap();
        let four: Vec<Event> = (0..3).map(|_| Event::new(vec![2; 16 << 20])).collect();
        client.publish_with("orders", four.iter().collect(), nodata_client::Ack::Durable).await.unwrap();
        let mut tail = client.tail("orders", nodata_client::TailOptions::default()).await.unwrap();
        let mut sizes = Vec::new();
        while let Some(received) = tail.next().await.unwrap() {
            sizes.push(received.event.value.unwrap().len());
        }
        assert_eq!(sizes, [16 << 20; 4]);
    });
}

#[test]
fn two_servers_on_one_directory_are_refused() {
    let server = Server::start();
    let said = Server::try_start(server.dir(), "127.0.0.1:0", &[]).err().unwrap();
    assert!(said.starts_with("error: another nodata server uses "), "{said}");
    assert!(said.contains("(process "), "{said}");
    assert!(said.ends_with("hint: stop that server, or give this one another directory with `--data`\n"), "{said}");
    server.ok(&["topic", "create", "still-there"]);
}

#[test]
fn a_directory_with_other_things_and_a_used_port_are_refused() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("data/letters.txt"), "dear").unwrap();
    let said = Server::try_start(dir.clone(), "127.0.0.1:0", &[]).err().unwrap();
    assert!(said.contains("is not empty and holds no nodata store; give an empty or a new directory"), "{said}");

    let server = Server::start();
    let said = Server::try_start(Arc::new(tempfile::tempdir().unwrap()), server.address(), &[]).err().unwrap();
    assert!(said.contains(&format!("error: cannot listen on {}: Address already in use", server.address())), "{said}");
    assert!(said.contains("hint: is another server running there? `--listen 127.0.0.1:0` takes a free port"), "{said}");
}

#[test]
fn damaged_data_is_refused_at_start_and_named() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    server.run_with(&["publish", "orders", "--format", "text"], "text\n".repeat(1000).as_bytes()).ok();
    server.signal("TERM");
    server.wait();
    let segment = server.data().join("wal/00000000000000000001.wal");
    let whole = std::fs::read(&segment).unwrap();
    let start = |bytes: &[u8]| {
        std::fs::write(&segment, bytes).unwrap();
        Server::try_start(server.dir(), "127.0.0.1:0", &[]).map(drop)
    };

    let mut flipped = whole.clone();
    let at = whole.windows(4).position(|window| window == b"text").unwrap();
    flipped[at] ^= 1;
    let said = start(&flipped).unwrap_err();
    assert!(said.contains("damaged data that was acknowledged, in wal/00000000000000000001.wal from byte"), "{said}");
    assert!(said.contains("checksum"), "{said}");
    assert!(said.contains("restore the file from a backup"), "{said}");

    let said = start(&whole[..whole.len() / 2]).unwrap_err();
    assert!(said.contains("damaged data that was acknowledged"), "{said}");
    start(&whole).unwrap();
}

#[test]
fn without_a_server_a_command_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let said = run(&["topic", "list", "--server", "127.0.0.1:1"], &[], dir.path(), b"").failed(1);
    assert!(said.starts_with("error: no nodata server at 127.0.0.1:1: the server cannot be reached: "), "{said}");
    assert!(
        said.ends_with("hint: start one with `nodata serve`, or name one with `--server` or NODATA_SERVER\n"),
        "{said}"
    );
    let said = run(&["topic", "list", "--server", "no address"], &[], dir.path(), b"").failed(2);
    assert!(said.contains("`no address` is no address of a server; give HOST:PORT or http://HOST:PORT"), "{said}");
}

/// Publishing on a real file system that is really full: refused, nothing lost, and taken again when there is space.
#[test]
fn a_full_disk_refuses_events_and_loses_none() {
    let Some(disk) = SmallDisk::mount(96) else {
        eprintln!("skipped: this user cannot mount a small file system");
        return;
    };
    let dir = Arc::new(tempfile::tempdir_in(disk.path()).unwrap());
    let mut server = Server::start_in(dir.clone(), "127.0.0.1:0");
    server.ok(&["topic", "create", "orders"]);
    let line = format!("{}\n", "x".repeat(999));
    let mut published = 0;
    let refused = block_on(async {
        // Refused at once, without trying again for a minute.
        let options = ClientOptions { retry_for: Duration::ZERO, ..ClientOptions::default() };
        let client = Client::connect_with(server.address(), options).await.unwrap();
        loop {
            let events: Vec<Event> = (0..1000).map(|_| Event::new(line.trim_end().to_owned())).collect();
            match client.publish_with("orders", events.iter().collect(), nodata_client::Ack::Durable).await {
                Ok(_) => published += 1000,
                Err(error) => break error,
            }
            assert!(published < 200_000, "a disk of 96 MiB cannot hold this");
        }
    });
    assert_eq!(refused.reason(), "DISK_FULL");
    assert_eq!(refused.outcome(), Outcome::NotApplied);
    assert!(published > 10_000, "{published}");
    assert_eq!(server.ok(&["consume", "orders", "--raw"]).len(), published * line.len());
    // It is as well after a kill, on a disk that is still full.
    server.kill_and_restart();
    assert_eq!(server.ok(&["consume", "orders", "--raw"]).len(), published * line.len());
}

/// A file system of its own in memory, for root.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(dir.path())
            .output()
            .ok()?;
        mounted.status.success().then(|| Self(dir))
    }

    fn path(&self) -> &std::path::Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn the_program_says_how_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let help = run(&["--help"], &[], dir.path(), b"").ok();
    for command in
        ["serve", "topic", "publish", "consume", "add-component", "component", "deployment", "bench", "client"]
    {
        assert!(help.contains(&format!("  {command}")), "{command} is missing in\n{help}");
    }
    assert!(!help.contains("__compile"), "inner commands are not shown");
    assert_eq!(run(&["no-such-command"], &[], dir.path(), b"").code, 2);
    assert!(std::path::Path::new(NODATA).exists());
}
