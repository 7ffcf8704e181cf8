//! Aggregates: what is counted is counted once, whatever happens, and windows hold what another program says they hold.

use crate::flights::flights;
use crate::harness::{Server, component, json_lines, python};
use nodata_log::fs::simulated::Chance;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;

fn aggregate(server: &Server, component_name: &str, more: &[&str]) -> String {
    server.ok(&[&["add-component", "--file", &component(component_name)], more].concat())
}

/// What DuckDB answers about these lines, which the query calls `flights`.
pub(crate) fn duckdb(lines: &[String], query: &str) -> Vec<Value> {
    let mut file = tempfile::Builder::new().suffix(".ndjson").tempfile().unwrap();
    lines.iter().for_each(|line| writeln!(file, "{line}").unwrap());
    let path = file.path().display();
    let flights = format!("read_json_auto('{path}', format='newline_delimited')");
    let query = query.replace("from flights", &format!("from {flights}"));
    let out = python("query.py").arg(query).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

const BY_CARRIER: &str = "compute=flights=count,departed=count(dep_delay),delay_sum=sum(dep_delay),\
                          delay_max=max(dep_delay),distance_sum=sum(distance)";

#[test]
fn flights_are_aggregated_exactly_while_the_server_is_killed() {
    let lines = flights();
    let mut server = Server::start();
    server.ok(&["topic", "create", "flights", "--partitions", "3"]);
    aggregate(
        &server,
        "aggregate-fields",
        &["--aggregate", "flights", "--config", "by=carrier", "--config", BY_CARRIER],
    );
    // Each carrier is in every partition, so a reader is given what was put together.
    for lines in lines.chunks(lines.len().div_ceil(10)) {
        server.run_with(&["publish", "flights", "--key-field", "id"], (lines.join("\n") + "\n").as_bytes()).ok();
        server.kill_and_restart();
    }
    server.wait_until_done("aggregate-fields");
    let shown = server.json(&["aggregate", "scan", "aggregate-fields"]);
    let mut found: Vec<Value> = shown
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            let value = &group["value"];
            assert_eq!(group["key"], value["carrier"]);
            json!([
                value["carrier"],
                value["flights"],
                value["departed"],
                value["delay_sum"],
                value["delay_max"],
                value["distance_sum"]
            ])
        })
        .collect();
    found.sort_by_key(|row| row[0].as_str().unwrap().to_owned());
    let expected = duckdb(
        &lines,
        "select carrier, count(*), count(dep_delay), sum(dep_delay)::bigint, max(dep_delay)::bigint, \
         sum(distance)::bigint from flights group by carrier order by carrier",
    );
    assert!(expected.len() > 10);
    assert_eq!(found, expected);

    let one = server.json(&["aggregate", "scan", "aggregate-fields", "--key", "UA"]);
    assert_eq!(one.as_array().unwrap().len(), 1);
    assert_eq!(server.json(&["aggregate", "scan", "aggregate-fields", "--max", "3"]).as_array().unwrap().len(), 3);
}

/// Publishes flights by the time of their hour, each at most three hours after others that are later, and then one of another year
/// for each partition, which closes all windows.
fn publish_out_of_order(server: &mut Server, lines: &[String], key: &str, group: &str) {
    const HOUR_US: u64 = 3_600_000_000;
    let mut chance = Chance::new(5);
    let time = |line: &String| -> u64 {
        let flight: Value = serde_json::from_str(line).unwrap();
        let hour: jiff::Timestamp = flight["time_hour"].as_str().unwrap().parse().unwrap();
        hour.as_microsecond() as u64
    };
    let mut mixed: Vec<(u64, &String)> =
        lines.iter().map(|line| (time(line) + chance.below(3 * HOUR_US), line)).collect();
    mixed.sort();
    let mixed: Vec<&str> = mixed.iter().map(|(_, line)| line.as_str()).collect();
    let publish = ["publish", "flights", "--key-field", key, "--time-field", "time_hour"];
    for lines in mixed.chunks(mixed.len().div_ceil(4)) {
        server.run_with(&publish, (lines.join("\n") + "\n").as_bytes()).ok();
        server.kill_and_restart();
    }
    let last: String = (0..64)
        .map(|n| {
            let own = if key == group { String::new() } else { format!("\"{key}\":\"last-{n}\",") };
            format!("{{{own}\"{group}\":\"last-{n}\",\"time_hour\":\"2020-01-01T00:00:00Z\",\"distance\":0}}\n")
        })
        .collect();
    server.run_with(&publish, last.as_bytes()).ok();
}

/// What came out: by group and the beginning of the window, without the flights that only close others.
fn closed(server: &Server, field: &str) -> Vec<Value> {
    let events = json_lines(&server.ok(&["consume", "out"]));
    let rows = events.iter().map(|event| {
        let value = &event["value"];
        json!([value[field], value["from_us"], value["to_us"], value["flights"], value["distance"]])
    });
    let mut rows: Vec<Value> = rows.filter(|row| !row[0].as_str().unwrap().starts_with("last-")).collect();
    rows.sort_by_key(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_i64()));
    rows
}

#[test]
fn tumbling_windows_hold_what_duckdb_says() {
    let lines = flights();
    let mut server = Server::start();
    server.ok(&["topic", "create", "flights", "--partitions", "2"]);
    server.ok(&["topic", "create", "out"]);
    let compute = "compute=flights=count,distance=sum(distance)";
    let config =
        ["--config", "by=origin", "--config", compute, "--window", "tumbling=1h", "--lateness", "3h", "--keyed"];
    aggregate(&server, "aggregate-fields", &[&["--aggregate", "flights:out"], &config[..]].concat());
    publish_out_of_order(&mut server, &lines, "origin", "origin");
    let described = server.wait_until_done("aggregate-fields");
    let late: u64 =
        described["tasks"].as_array().unwrap().iter().map(|task| task["events_late"].as_u64().unwrap()).sum();
    assert_eq!(late, 0);
    let expected = duckdb(
        &lines,
        "select origin, epoch_us(time_hour::timestamp), epoch_us(time_hour::timestamp) + 3600000000, count(*), \
         sum(distance)::bigint from flights group by origin, time_hour order by origin, time_hour",
    );
    wait_for(&server, expected.len());
    assert_eq!(closed(&server, "origin"), expected);
}

#[test]
fn sessions_hold_what_duckdb_says() {
    let lines = flights();
    let known: Vec<String> = lines.into_iter().filter(|line| !line.contains("\"tailnum\":null")).collect();
    let mut server = Server::start();
    server.ok(&["topic", "create", "flights", "--partitions", "2"]);
    server.ok(&["topic", "create", "out"]);
    let compute = "compute=flights=count,distance=sum(distance)";
    let config =
        ["--config", "by=tailnum", "--config", compute, "--window", "session=6h", "--lateness", "3h", "--keyed"];
    aggregate(&server, "aggregate-fields", &[&["--aggregate", "flights:out"], &config[..]].concat());
    publish_out_of_order(&mut server, &known, "tailnum", "tailnum");
    server.wait_until_done("aggregate-fields");
    let expected = duckdb(
        &known,
        "with marked as (select *, time_hour::timestamp as moment, lag(time_hour::timestamp) over (partition by tailnum
           order by time_hour, id) as earlier from flights),
         numbered as (select *, sum(case when moment - earlier <= interval 6 hour then 0 else 1 end) over (partition by
           tailnum order by moment, id) as session from marked)
         select tailnum, epoch_us(min(moment)), epoch_us(max(moment)) + 21600000000, count(*), sum(distance)::bigint
         from numbered group by tailnum, session order by tailnum, min(moment)",
    );
    assert!(expected.len() > 100);
    wait_for(&server, expected.len());
    assert_eq!(closed(&server, "tailnum"), expected);
}

#[test]
fn windows_of_groups_in_several_partitions_hold_what_duckdb_says() {
    let lines = flights();
    let mut server = Server::start();
    server.ok(&["topic", "create", "flights", "--partitions", "3"]);
    server.ok(&["topic", "create", "out"]);
    let compute = "compute=flights=count,distance=sum(distance)";
    let config = ["--config", "by=carrier", "--config", compute, "--window", "sliding=6h/3h", "--lateness", "3h"];
    aggregate(&server, "aggregate-fields", &[&["--aggregate", "flights:out"], &config[..]].concat());
    // Flights of a carrier are in every partition, because they are published by their own names.
    publish_out_of_order(&mut server, &lines, "id", "carrier");
    let described = server.wait_until_done("aggregate-fields");
    let tasks = described["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 6, "three fold, and three put together: {described:#}");
    assert!(tasks.iter().all(|task| task["events_late"] == 0), "{described:#}");
    let expected = duckdb(
        &lines,
        "with moments as (select carrier, distance, epoch_us(time_hour::timestamp) as moment from flights),
         windows as (select carrier, distance, moment - moment % 10800000000 - slide * 10800000000 as start
           from moments, (values (0), (1)) as slides(slide))
         select carrier, start, start + 21600000000, count(*), sum(distance)::bigint from windows
         group by carrier, start order by carrier, start",
    );
    wait_for(&server, expected.len());
    assert_eq!(closed(&server, "carrier"), expected);

    // Nothing is left but the windows of the last ones.
    let open = server.json(&["aggregate", "scan", "aggregate-fields", "--max", "1000"]);
    let is_last = |group: &Value| group["value"]["carrier"].as_str().unwrap().starts_with("last-");
    assert!(open.as_array().unwrap().iter().all(is_last), "{open:#}");
    assert!(server.run(&["topic", "delete", "aggregate-fields.parts"]).failed(1).contains("is used by deployment"));
    server.ok(&["deployment", "delete", "aggregate-fields"]);
    server.run(&["topic", "describe", "aggregate-fields.parts"]).failed(1);
}

#[test]
fn a_window_waits_for_every_partition_that_is_not_idle() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", "3"]);
    for topic in ["out", "patient"] {
        server.ok(&["topic", "create", topic]);
    }
    let windows = |server: &Server, name: &str, to: &str, more: &[&str]| {
        let to = format!("in:{to}");
        let config = ["--window", "tumbling=10s", "--config", "by=g", "--config", "compute=n=count"];
        aggregate(server, "aggregate-fields", &[&["--name", name, "--aggregate", &to], &config[..], more].concat());
    };
    windows(&server, "patient", "patient", &[]);
    windows(&server, "quick", "out", &["--idle", "500ms"]);
    let publish = |server: &Server, partition: u32, second: u32, group: &str| {
        let at = 1_000_000 * i64::from(second);
        let value = format!("{{\"g\":\"{group}\"}}");
        crate::harness::block_on(async {
            let options = nodata_client::PublisherOptions {
                partition: Some(partition),
                ..nodata_client::PublisherOptions::default()
            };
            let publisher = server.client().await.publisher("in", options);
            publisher.send(nodata_client::Event::new(value).with_timestamp_us(at)).await.unwrap();
            publisher.flush().await.unwrap();
        });
        server.wait_until_done("patient");
        server.wait_until_done("quick");
    };
    let out = |server: &Server, topic: &str, rows: usize| {
        while server.values(topic).len() < rows {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let values = server.ok(&["consume", topic]);
        let row = |event: &Value| json!([event["value"]["g"], event["value"]["from_us"], event["value"]["n"]]);
        json_lines(&values).iter().map(row).collect::<Vec<_>>()
    };
    publish(&server, 0, 3, "a");
    publish(&server, 1, 4, "a");
    publish(&server, 0, 25, "b");
    publish(&server, 1, 12, "a");
    // Partition 2 has no events: one waits for it, and the other only for a while.
    assert_eq!(out(&server, "out", 1)[0], json!(["a", 0, 2]));
    server.kill_and_restart();
    assert_eq!(server.values("patient"), Vec::<String>::new());
    publish(&server, 2, 5, "a");
    publish(&server, 2, 15, "a");
    assert_eq!(out(&server, "patient", 1), [json!(["a", 0, 3])]);
    let late = |server: &Server, name: &str| {
        let described = server.described(name);
        let together = |task: &&Value| task["puts_together"] == true;
        let tasks = described["tasks"].as_array().unwrap().iter().filter(together);
        tasks.map(|task| task["events_late"].as_u64().unwrap()).sum::<u64>()
    };
    // What it did not wait for came too late.
    while late(&server, "quick") == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!((late(&server, "patient"), late(&server, "quick")), (0, 1));
    let refused = server.run(&["deployment", "reset", "patient", "--from", "earliest"]).failed(2);
    assert!(refused.contains("puts groups together from several partitions"), "{refused}");
    // Parts that wait are kept with the positions.
    server.ok(&["deployment", "delete", "patient", "--keep-position"]);
    windows(&server, "patient", "patient", &["--from", "kept"]);
    for partition in 0..3 {
        publish(&server, partition, 45, "c");
    }
    let mut rest = out(&server, "patient", 3).split_off(1);
    rest.sort_by_key(|row| row[1].as_i64());
    assert_eq!(rest, [json!(["a", 10_000_000, 2]), json!(["b", 20_000_000, 1])]);
}

#[test]
fn sessions_of_groups_in_several_partitions_are_refused_and_so_are_more_partitions() {
    let server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", "3"]);
    for topic in ["one", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let config = ["--config", "by=g", "--config", "compute=n=count"];
    let file = component("aggregate-fields");
    let add = |more: &[&str]| server.run(&[&["add-component", "--file", &file], more, &config[..]].concat());
    let session = ["--window", "session=1h", "--aggregate", "in:out"];
    let refused = add(&session).failed(2);
    assert!(refused.contains("may be in any of the 3 partitions of topic `in`"), "{refused}");
    assert!(refused.contains("say `--keyed`"), "{refused}");
    add(&[&session[..], &["--keyed", "--name", "sessions"]].concat()).ok();

    // With one partition nothing has to be put together, and it stays one.
    add(&["--window", "tumbling=10s", "--aggregate", "one:out", "--name", "single"]).ok();
    let refused = server.run(&["topic", "update", "one", "--partitions", "2"]).failed(1);
    assert!(refused.contains("deployment `single` groups the events of topic `one` by itself"), "{refused}");
}

/// The last windows close after the position has come to the end.
fn wait_for(server: &Server, rows: usize) {
    while closed_count(server) < rows {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn closed_count(server: &Server) -> usize {
    let events = json_lines(&server.ok(&["consume", "out"]));
    events.iter().filter(|event| !event["key"].as_str().unwrap().starts_with("last-")).count()
}

#[test]
fn late_events_are_counted_or_go_to_their_port() {
    let server = Server::start();
    for topic in ["in", "out", "kept", "too-late"] {
        server.ok(&["topic", "create", topic]);
    }
    let window = ["--window", "tumbling=10s", "--lateness", "5s"];
    aggregate(&server, "counts-as-told", &[&["--aggregate", "in:out", "--name", "counted"], &window[..]].concat());
    let port = ["--aggregate", "in:kept", "--port", "late=too-late", "--name", "kept"];
    aggregate(&server, "counts-as-told", &[&port[..], &window].concat());
    let event = |second: u32| format!("{{\"k\":\"a\",\"at\":\"2013-01-01T00:00:{second:02}Z\"}}\n");
    let lines: String = [3, 16, 9, 14, 59].map(event).concat();
    server.run_with(&["publish", "in", "--key-field", "k", "--time-field", "at"], lines.as_bytes()).ok();
    let late = |name: &str| server.wait_until_done(name)["tasks"][0]["events_late"].clone();
    assert_eq!((late("counted"), late("kept")), (json!(1), json!(0)));
    assert_eq!(server.values("too-late"), [event(9).trim_end()]);
    while server.values("out").len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(server.values("out"), ["a: 1", "a: 2"]);
    let open = server.json(&["aggregate", "scan", "counted"]);
    assert_eq!(
        open,
        json!([{ "key": "a", "value": "a: 1", "from": "2013-01-01T00:00:50.000000Z", "to": "2013-01-01T00:01:00.000000Z" }])
    );
}

#[test]
fn windows_of_a_quiet_partition_close_by_the_clock() {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let window = ["--window", "session=100ms", "--idle", "50ms"];
    aggregate(&server, "counts-as-told", &[&["--aggregate", "in:out"], &window[..]].concat());
    server.run_with(&["publish", "in", "--key-field", "k"], b"{\"k\":\"a\"}\n{\"k\":\"a\"}\n").ok();
    while server.values("out").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(server.values("out"), ["a: 2"]);
    assert_eq!(server.json(&["aggregate", "scan", "counts-as-told"]), json!([]));
}

#[test]
fn poison_is_not_counted_and_everything_else_is() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "in"]);
    aggregate(&server, "counts-as-told", &["--aggregate", "in"]);
    let kinds = ["panic", "refuse", "aside"];
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let mut chance = Chance::new(9);
    crate::harness::block_on(async {
        let client = server.client().await;
        for _ in 0..3 {
            let mut batch = nodata_client::Batch::new();
            for _ in 0..100 {
                let key = format!("k{}", chance.below(5));
                let is_poison = chance.percent(7);
                let value = if is_poison { kinds[chance.below(3) as usize] } else { "x" };
                *expected.entry(key.clone()).or_default() += u64::from(!is_poison);
                batch.push(&nodata_client::Event::new(value).with_key(key));
            }
            client.publish_with("in", batch, nodata_client::Ack::Durable).await.unwrap();
        }
    });
    server.wait_until_done("counts-as-told");
    server.kill_and_restart();
    let shown = server.json(&["aggregate", "scan", "counts-as-told"]);
    let found: Vec<&str> = shown.as_array().unwrap().iter().map(|group| group["value"].as_str().unwrap()).collect();
    let all: Vec<String> = expected.iter().map(|(key, count)| format!("{key}: {count}")).collect();
    assert_eq!(found, all);
    let poison = 300 - expected.values().sum::<u64>();
    assert_eq!(server.json(&["dlq", "list"])[0]["letters"], poison);
}

#[test]
fn wrong_windows_are_refused() {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    let refused = |more: &[&str], expected: &str| {
        let file = component("counts-as-told");
        let args = [&["add-component", "--file", &file, "--aggregate", "in"], more].concat();
        let said = server.run(&args).failed(2);
        assert!(said.contains(expected), "{said}");
    };
    refused(&["--window", "daily"], "give tumbling=SIZE, sliding=SIZE/SLIDE or session=GAP");
    refused(&["--window", "tumbling=1 parsec"], "give a time such as 90s, 15m or 1h30m");
    refused(&["--window", "tumbling=0s"], "a window of 0 us; at least 1 is needed");
    refused(
        &["--window", "sliding=1h/2h"],
        "a slide of 7200000000 us; it is at least 1 and at most the size of the window",
    );
    refused(&["--window", "sliding=1h/1s"], "an event may be in 100 windows at most");
    refused(&["--window", "session=-1s"], "a gap of -1000000 us; at least 1 is needed");
    let file = component("copies");
    let transform = ["add-component", "--file", &file, "--transform", "in", "--window", "tumbling=1h"];
    let said = server.run(&transform).failed(2);
    assert_eq!(said, "error: --window, --lateness, --idle and --keyed are for aggregates\n");
    let said = server.run(&["aggregate", "scan", "nowhere"]).failed(1);
    assert_eq!(said, "error: deployment `nowhere` does not exist\n");
}
