//! Topics are Parquet: readers that are not ours see what the server sees, at every moment.

use crate::harness::{Server, python, run};
use crate::outside::{Watcher, outside};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn files(server: &Server, topic: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&server.data().join("data").join(format!("topic={topic}")), &mut found);
    found.sort();
    found
}

fn values(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("value {n}")).collect()
}

fn as_strs(values: &[String]) -> Vec<&str> {
    values.iter().map(String::as_str).collect()
}

fn publish(server: &Server, topic: &str, range: std::ops::Range<usize>) {
    server.publish(topic, &as_strs(&values(range)));
}

fn consumed(server: &Server, topic: &str) -> Vec<String> {
    server.ok(&["consume", topic, "--from", "earliest", "--raw"]).lines().map(str::to_owned).collect()
}

fn partition(server: &Server, topic: &str, partition: usize) -> Value {
    server.json(&["topic", "describe", topic])["partition_offsets"][partition].clone()
}

#[test]
fn readers_that_are_not_ours_see_every_event_once() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    publish(&server, "orders", 0..100);
    assert_eq!(server.ok(&["topic", "flush", "orders"]), "put 100 events into 1 file\n");
    assert_eq!(server.ok(&["topic", "flush", "orders"]), "everything was in files already\n");
    let seen = |count: u64| json!({ "count": count, "different": count, "partitions": { "0": [0, count - 1] } });
    assert_eq!(outside(&server, "orders"), seen(100));

    // The file grows, and what was there stays as it is.
    let before = std::fs::read(&files(&server, "orders")[0]).unwrap();
    publish(&server, "orders", 100..150);
    server.ok(&["topic", "flush"]);
    assert_eq!(files(&server, "orders").len(), 1);
    let after = std::fs::read(&files(&server, "orders")[0]).unwrap();
    assert!(after.starts_with(&before) && after.len() > before.len());
    assert_eq!(outside(&server, "orders"), seen(150));

    // A kill changes nothing, and neither does an end in order, which puts everything into files.
    server.kill_and_restart();
    publish(&server, "orders", 150..160);
    server.stop_and_restart();
    assert_eq!(outside(&server, "orders"), seen(160));
    assert_eq!(consumed(&server, "orders"), values(0..160));
    let partition = partition(&server, "orders", 0);
    assert_eq!((&partition["archived_end"], &partition["end"]), (&json!(160), &json!(160)));
    assert_eq!(partition["files"], 1);
}

#[test]
fn events_become_part_of_a_file_by_themselves() {
    let server = Server::start_with(&["--archive-after", "1"]);
    server.ok(&["topic", "create", "orders"]);
    publish(&server, "orders", 0..3);
    while files(&server, "orders").is_empty() {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(outside(&server, "orders")["count"], 3);
}

#[test]
fn what_the_log_let_go_of_is_read_from_files() {
    let mut server = Server::start_with(&["--keep-log", "0"]);
    server.ok(&["topic", "create", "orders"]);
    for life in 0..4 {
        publish(&server, "orders", life * 1000..(life + 1) * 1000);
        server.stop_and_restart();
    }
    let wal: Vec<String> = std::fs::read_dir(server.data().join("wal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    // One is being written, and one was last written before the restart.
    assert!(wal.iter().filter(|name| !name.starts_with("spare")).count() <= 2, "{wal:?}");
    assert_eq!(consumed(&server, "orders"), values(0..4000));
    let from = server.ok(&["consume", "orders", "--from", "2500", "--max", "2", "--raw"]);
    assert_eq!(from, "value 2500\nvalue 2501\n");
    server.kill_and_restart();
    assert_eq!(consumed(&server, "orders"), values(0..4000));
}

#[test]
fn reading_begins_at_a_time_in_files_and_in_the_log() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "2"]);
    let publish = |days: std::ops::Range<u32>| {
        let lines: String = days.map(|day| format!("{{\"day\":\"2013-06-{day:02}T12:00:00Z\"}}\n")).collect();
        server.run_with(&["publish", "orders", "--key-field", "day", "--time-field", "day"], lines.as_bytes()).ok();
    };
    let days_from = |from: &str| {
        let mut days: Vec<String> = server
            .ok(&["consume", "orders", "--from", from, "--raw"])
            .lines()
            .map(|line| line[16..18].to_owned())
            .collect();
        days.sort();
        days
    };
    publish(1..11);
    server.ok(&["topic", "flush"]);
    publish(11..21);
    let all: Vec<String> = (1..21).map(|day| format!("{day:02}")).collect();
    assert_eq!(days_from("2013-06-01"), all);
    assert_eq!(days_from("2013-06-07T12:00:00Z"), all[6..]);
    assert_eq!(days_from("2013-06-15T14:00:00+02:00"), all[14..]);
    assert_eq!(days_from("2013-06-15T12:00:00.000001Z"), all[15..]);
    assert_eq!(days_from("2014-01-01"), [""; 0]);
    assert_eq!(
        server.run_with(&["publish", "orders", "--time-field", "day"], b"{\"day\":\"noon\"}\n").failed(2),
        "error: standard input: line 1: `noon` is no time; a time is written as 2013-06-01T00:00:00Z, or as seconds since \
         1970\nhint: published before it: 0 events\n"
    );
}

#[test]
fn values_have_the_type_that_the_topic_declares() {
    let server = Server::start();
    server.ok(&["topic", "create", "flights", "--values", "json"]);
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/flights-sample.ndjson");
    server.ok(&["publish", "flights", "--file", sample]);
    let refused = server.run_with(&["publish", "flights", "--format", "text"], b"{\"carrier\":\n").failed(2);
    let expected =
        "event 0 for topic `flights`: the value is not JSON, and the values of the topic are: EOF while parsing";
    assert!(refused.contains(expected), "{refused}");
    server.ok(&["topic", "flush"]);
    let query = format!(
        "select typeof(value), count(*), sum((value->>'distance')::int)::int from \
         read_parquet('{}/data/topic=flights/**/*.parquet') group by 1",
        server.data().display()
    );
    let output = python("query.py").arg(query).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::fs::read_to_string(sample).unwrap();
    let distances =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["distance"].as_i64().unwrap());
    let expected = format!("[[\"JSON\", {}, {}]]\n", lines.lines().count(), distances.sum::<i64>());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert!(consumed(&server, "flights").iter().eq(lines.lines()), "every byte is as it was published");
}

#[test]
fn a_deleted_topic_leaves_no_files_and_its_name_begins_anew() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    publish(&server, "orders", 0..10);
    server.ok(&["topic", "flush", "orders"]);
    server.ok(&["topic", "delete", "orders"]);
    while !files(&server, "orders").is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    server.ok(&["topic", "create", "orders"]);
    publish(&server, "orders", 50..55);
    server.ok(&["topic", "flush", "orders"]);
    assert_eq!(outside(&server, "orders")["partitions"]["0"], json!([0, 4]));
    assert_eq!(consumed(&server, "orders"), values(50..55));
}

#[test]
fn a_stopped_store_is_checked_byte_by_byte() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "2"]);
    publish(&server, "orders", 0..100);
    server.ok(&["topic", "flush"]);
    publish(&server, "orders", 100..110);
    let data = server.data();
    let data = data.to_str().unwrap();
    server.signal("KILL");
    server.wait();

    let before = snapshot(Path::new(data));
    let report = run(&["fsck", "--data", data], &[], server.dir().path(), b"").ok();
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[0], "1 topic, 2 partitions");
    assert!(lines[1].starts_with("log: 1 segment, ") && lines[1].ends_with(", every transaction is whole"), "{report}");
    assert!(lines[2].starts_with("files: ") && lines[2].ends_with(", 100 events, every byte is as it was written"));
    assert_eq!(lines[3], "everything is as it should be; nothing was changed");
    assert_eq!(snapshot(Path::new(data)), before, "nothing is changed by looking");

    // One bit of a file.
    let path = files(&server, "orders")[0].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let json = run(&["fsck", "--json", "--data", data], &[], server.dir().path(), b"");
    assert_eq!(json.code, 1);
    let problems = serde_json::from_str::<Value>(&json.out).unwrap()["problems"].clone();
    assert_eq!(problems.as_array().unwrap().len(), 1);
    assert!(problems[0]["what"].as_str().unwrap().contains("checksum"), "{problems}");
    // The log has it all.
    assert_eq!(problems[0]["lost"], json!([]));
    bytes[100] ^= 4;
    std::fs::write(&path, &bytes).unwrap();

    // A file that is somewhere else, and one that does not belong.
    let stranger = path.with_file_name("stranger.parquet");
    std::fs::rename(&path, &stranger).unwrap();
    std::fs::write(path.with_file_name("notes.txt"), "buy milk").unwrap();
    let report = run(&["fsck", "--data", data], &[], server.dir().path(), b"");
    assert!(report.out.contains(".parquet: it is missing\n"), "{}", report.out);
    assert!(report.out.contains("stranger.parquet: it holds offsets 0 to "), "{}", report.out);
    assert!(report.out.contains("notes.txt: it is not part of the store"), "{}", report.out);
    assert!(report.out.ends_with("2 problems, nothing is lost\n"), "{}", report.out);
    assert_eq!(report.code, 1);
    let none = run(&["fsck", "--data", "nowhere"], &[], server.dir().path(), b"").failed(2);
    assert_eq!(none, "error: nowhere holds no nodata store\n");
    assert!(!server.dir().path().join("nowhere").exists());
}

/// Every file below a folder with its bytes, but for the lock, which says who looked last.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
        } else if path.file_name().is_some_and(|name| name != "LOCK") {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Values that do not become smaller.
fn noise(count: usize) -> Vec<String> {
    let mut state = 7u64;
    let word = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{:016x}", state ^ (state >> 29))
    };
    let words: Vec<String> = (0..count * 64).map(word).collect();
    words.chunks(64).map(<[String]>::concat).collect()
}

#[test]
fn the_oldest_files_go_when_there_are_too_many_bytes() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--retention-size", "2MiB"]);
    let values = noise(1000);
    let (earliest, end) = loop {
        server.publish("orders", &as_strs(&values));
        server.ok(&["topic", "flush", "orders"]);
        let partition = partition(&server, "orders", 0);
        let (earliest, end) = (partition["earliest"].as_u64().unwrap(), partition["end"].as_u64().unwrap());
        // A file is removed a little later than it is one too many.
        if earliest > 0 {
            break (earliest, end);
        }
    };
    assert_eq!(
        server.run(&["consume", "orders", "--from", "0", "--max", "1"]).failed(2),
        format!("error: offset 0 of partition 0 is out of range: the earliest is {earliest}, the end is {end}\n")
    );
    assert_eq!(consumed(&server, "orders").len() as u64, end - earliest);
    assert_eq!(outside(&server, "orders")["partitions"]["0"], json!([earliest, end - 1]));

    assert_eq!(
        server.run(&["topic", "update", "orders", "--retention-size", "1kB"]).failed(2),
        "error: a retention of 1000 bytes; at least 1048576 are kept\n"
    );
    assert!(server.ok(&["topic", "update", "orders", "--retention-size", "unlimited"]).ends_with("kept for ever\n"));
}

#[test]
fn readers_see_whole_files_while_they_are_written_grow_and_are_sealed() {
    let server = Server::start_with(&["--archive-after", "0"]);
    server.ok(&["topic", "create", "orders", "--partitions", "2"]);
    publish(&server, "orders", 0..10);
    server.ok(&["topic", "flush", "orders"]);
    let watchers = [
        Watcher::start(&server, "orders", "duckdb", &[]),
        Watcher::start(&server, "orders", "duckdb", &[]),
        Watcher::start(&server, "orders", "pyarrow", &[]),
    ];
    for round in 0..60 {
        for partition in 0..2 {
            let values = values(round * 20..round * 20 + 1 + round);
            server.publish_to("orders", partition, &as_strs(&values));
        }
        server.ok(&["topic", "flush", "orders"]);
    }
    // More row groups than one file takes.
    assert!(files(&server, "orders").len() >= 4, "{:?}", files(&server, "orders"));
    for watcher in watchers {
        assert!(watcher.stop() > 3);
    }
    let ends = (0..2).map(|at| partition(&server, "orders", at)["end"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(outside(&server, "orders")["count"], ends);
}

#[test]
fn readers_see_whole_files_while_old_ones_are_removed() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--retention-size", "1MiB"]);
    publish(&server, "orders", 0..10);
    server.ok(&["topic", "flush", "orders"]);
    let watchers = [
        Watcher::start(&server, "orders", "duckdb", &["--retention"]),
        Watcher::start(&server, "orders", "pyarrow", &["--retention"]),
    ];
    // Values that do not get smaller, so that a file of 32 row groups is more than what is kept.
    let mut number = 1u64;
    let mut large = || -> String {
        let mut digit = || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + (number >> 33) as u8 % 95)
        };
        (0..60_000).map(|_| digit()).collect()
    };
    let earliest = || partition(&server, "orders", 0)["earliest"].as_u64().unwrap();
    let mut before = 0;
    let mut removals = 0;
    while removals < 2 {
        server.publish("orders", &[&large(), &large()]);
        server.ok(&["topic", "flush", "orders"]);
        let now = earliest();
        removals += u32::from(now > before);
        before = now;
    }
    for watcher in watchers {
        assert!(watcher.stop() > 3);
    }
    let at = partition(&server, "orders", 0);
    let (start, end) = (at["earliest"].as_u64().unwrap(), at["end"].as_u64().unwrap());
    let seen = json!({ "count": end - start, "different": end - start, "partitions": { "0": [start, end - 1] } });
    assert_eq!(outside(&server, "orders"), seen);
    let refused = server.run(&["consume", "orders", "--from", "0"]).failed(2);
    assert!(refused.contains(&format!("the earliest is {start}, the end is {end}")), "{refused}");
}

#[test]
fn declared_columns_stand_beside_the_exact_bytes() {
    let mut server = Server::start();
    let columns =
        ["carrier:string", "delay:int64", "share:float64", "late:boolean", "hour=/time/hour:timestamp", "day:date"];
    let create: Vec<&str> = columns.iter().flat_map(|column| ["--column", column]).collect();
    server.ok(&[&["topic", "create", "flights"][..], &create].concat());
    let described = server.ok(&["topic", "describe", "flights"]);
    assert!(described.contains(&format!("values are json, with columns {}\n", columns.join(", "))), "{described}");
    let rows = [
        r#"{"carrier":"UA","delay":-3,"share":0.5,"late":false,"time":{"hour":"2013-01-01T10:00:00Z"},"day":"2013-01-01"}"#,
        r#"{ "carrier" : null, "more": [1, {"x": 2}] }"#,
        r#"{"carrier":"AA","delay":"much","late":true}"#,
        r#"["not", "an", "object"]"#,
    ];
    server.publish("flights", &rows[..2]);
    server.ok(&["topic", "flush", "flights"]);
    server.publish("flights", &rows[2..]);
    server.stop_and_restart();
    assert_eq!(files(&server, "flights").len(), 1, "the file grew");
    assert_eq!(outside(&server, "flights")["count"], 4);
    assert_eq!(server.ok(&["consume", "flights", "--from", "earliest", "--raw"]).lines().collect::<Vec<_>>(), rows);

    let query = format!(
        "select value, _schema_ok, carrier, delay, share, late, cast(hour as varchar), cast(day as varchar) \
         from '{}/data/topic=flights/**/*.parquet' order by _offset",
        server.data().display()
    );
    let output = python("query.py").arg(&query).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!([
        [rows[0], true, "UA", -3, 0.5, false, "2013-01-01 10:00:00+00", "2013-01-01"],
        [rows[1], true, null, null, null, null, null, null],
        [rows[2], false, "AA", null, null, true, null, null],
        [rows[3], false, null, null, null, null, null, null],
    ]);
    assert_eq!(found, expected);

    let refused = |column: &str| server.run(&["topic", "create", "t", "--column", column]).failed(2);
    assert!(refused("date:date").contains("column name `date` is taken by nodata; choose another one"));
    assert!(refused("x:number").contains("there is no column type `number`"));
    let twice = server.run(&["topic", "create", "t", "--column", "a:int64", "--column", "A:int64"]).failed(2);
    assert_eq!(twice, "error: column name `A` is given twice; queries do not tell upper from lower case\n");
}
