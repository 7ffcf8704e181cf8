//! Components that come with nodata, on a real server, against what another program says.

use crate::aggregates::duckdb;
use crate::flights::flights;
use crate::harness::{Server, component, json_lines};
use nodata_log::fs::simulated::Chance;
use serde_json::{Value, json};
use std::time::Duration;

const HOUR_US: u64 = 3_600_000_000;

/// The flights of aircraft that are known.
fn known() -> Vec<String> {
    flights().into_iter().filter(|line| !line.contains("\"tailnum\":null")).collect()
}

/// The flights in an order in which each is at most three hours behind others that are later.
fn mixed(lines: &[String], seed: u64) -> Vec<&String> {
    let mut chance = Chance::new(seed);
    let time = |line: &String| -> u64 {
        let flight: Value = serde_json::from_str(line).unwrap();
        let hour: jiff::Timestamp = flight["time_hour"].as_str().unwrap().parse().unwrap();
        hour.as_microsecond() as u64
    };
    let mut mixed: Vec<(u64, &String)> =
        lines.iter().map(|line| (time(line) + chance.below(3 * HOUR_US), line)).collect();
    mixed.sort();
    mixed.into_iter().map(|(_, line)| line).collect()
}

const PUBLISH: [&str; 8] =
    ["publish", "flights", "--key-field", "tailnum", "--id-field", "id", "--time-field", "time_hour"];

/// The sessions of aircraft, in this order of flights, with the server killed on the way.
fn sessions(lines: &[String], seed: u64) -> Vec<Value> {
    let mut server = Server::start();
    server.ok(&["topic", "create", "flights", "--partitions", "2"]);
    server.ok(&["topic", "create", "sessions"]);
    let file = component("session-summary");
    let config = [
        "first=origin,flight",
        "last=dest,flight",
        "distinct=carrier,dest",
        "distinct-max=2",
        "path=origin",
        "path-max=3",
    ];
    let mut args = vec!["add-component", "--file", &file, "--aggregate", "flights:sessions"];
    args.extend(["--window", "session=6h", "--lateness", "3h", "--keyed"]);
    args.extend(config.iter().flat_map(|entry| ["--config", entry]));
    server.ok(&args);
    let mixed = mixed(lines, seed);
    for part in mixed.chunks(mixed.len().div_ceil(3)) {
        let part: String = part.iter().map(|line| format!("{line}\n")).collect();
        server.run_with(&PUBLISH, part.as_bytes()).ok();
        server.kill_and_restart();
    }
    // Of another year, and some for each partition: they close what is open.
    let last: String = (0..64)
        .map(|n| format!("{{\"id\":\"L{n}\",\"tailnum\":\"last-{n}\",\"time_hour\":\"2020-01-01T00:00:00Z\"}}\n"))
        .collect();
    server.run_with(&PUBLISH, last.as_bytes()).ok();
    let described = server.wait_until_done("session-summary");
    assert!(described["tasks"].as_array().unwrap().iter().all(|task| task["events_late"] == 0), "{described:#}");
    loop {
        // Those that close others are never closed themselves.
        let open = server.json(&["aggregate", "scan", "session-summary"]);
        if open.as_array().unwrap().iter().all(|group| group["key"].as_str().unwrap().starts_with("last-")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut rows: Vec<Value> = json_lines(&server.ok(&["consume", "sessions"]))
        .iter()
        .map(|event| {
            let value = &event["value"];
            let cut = |what: &str| value["cut"].as_array().is_some_and(|cut| cut.iter().any(|cut| cut == what));
            json!([
                value["key"],
                value["first_us"],
                value["last_us"],
                value["duration_us"],
                value["events"],
                value["first"]["origin"],
                value["first"]["flight"],
                value["last"]["dest"],
                value["last"]["flight"],
                value["distinct"]["carrier"],
                value["distinct"]["dest"],
                cut("distinct dest"),
                value["path"],
                cut("path"),
            ])
        })
        .collect();
    rows.sort_by_key(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_i64()));
    rows
}

#[test]
fn sessions_of_aircraft_are_what_duckdb_says_in_whatever_order_flights_come() {
    let lines = known();
    let expected = duckdb(
        &lines,
        "with marked as (select *, time_hour::timestamp as moment, lag(time_hour::timestamp) over (partition by tailnum
           order by time_hour, id) as earlier from flights),
         numbered as (select *, sum(case when moment - earlier <= interval 6 hour then 0 else 1 end) over (partition by
           tailnum order by moment, id) as session from marked)
         select tailnum, epoch_us(min(moment)), epoch_us(max(moment)), epoch_us(max(moment)) - epoch_us(min(moment)),
           count(*), first(origin order by moment, id), first(flight order by moment, id),
           last(dest order by moment, id), last(flight order by moment, id),
           list_sort(list(distinct carrier))[1:2], list_sort(list(distinct dest))[1:2], count(distinct dest) > 2,
           list(origin order by moment, id)[1:3], count(*) > 3
         from numbered group by tailnum, session order by tailnum, min(moment)",
    );
    assert!(expected.len() > 100);
    for seed in [5, 6] {
        assert_eq!(sessions(&lines, seed), expected, "in the order {seed}");
    }
}

#[test]
fn distinct_counts_and_quantiles_of_flights_are_within_their_bounds() {
    let lines = flights();
    let mut server = Server::start();
    server.ok(&["topic", "create", "flights", "--partitions", "3"]);
    let file = component("aggregate-fields");
    let compute = "compute=n=count(arr_delay),aircraft=distinct(tailnum),half=median(arr_delay),most=quantile(arr_delay,0.99),\
                   far=quantile(distance,0.9)";
    server.ok(&[
        "add-component",
        "--file",
        &file,
        "--aggregate",
        "flights",
        "--config",
        "by=origin",
        "--config",
        compute,
    ]);
    // Each origin is in every partition, so a reader is given what was put together.
    for part in lines.chunks(lines.len().div_ceil(4)) {
        server.run_with(&["publish", "flights", "--key-field", "id"], (part.join("\n") + "\n").as_bytes()).ok();
        server.kill_and_restart();
    }
    server.wait_until_done("aggregate-fields");
    let shown = server.json(&["aggregate", "scan", "aggregate-fields"]);
    let expected = duckdb(
        &lines,
        "select origin, count(arr_delay), count(distinct tailnum),
           list_sort(list(arr_delay) filter (arr_delay is not null))[(floor(0.5 * (count(arr_delay) - 1)) + 1)::bigint]::double,
           list_sort(list(arr_delay) filter (arr_delay is not null))[(floor(0.99 * (count(arr_delay) - 1)) + 1)::bigint]::double,
           list_sort(list(distance))[(floor(0.9 * (count(distance) - 1)) + 1)::bigint]::double
         from flights group by origin order by origin",
    );
    assert_eq!(shown.as_array().unwrap().len(), expected.len());
    for (group, row) in shown.as_array().unwrap().iter().zip(&expected) {
        let value = &group["value"];
        assert_eq!((&value["origin"], &value["n"]), (&row[0], &row[1]));
        let within = |name: &str, exact: &Value, bound: f64| {
            let (about, exact) = (value[name].as_f64().unwrap(), exact.as_f64().unwrap());
            assert!((about - exact).abs() <= exact.abs() * bound + 1e-9, "{name} is {about} for {exact}: {value}");
        };
        // Three standard errors of the one, and the bound of the other.
        within("aircraft", &row[2], 3.0 * 0.01625);
        within("half", &row[3], 0.01);
        within("most", &row[4], 0.01);
        within("far", &row[5], 0.01);
    }
}

#[test]
fn a_clock_ticks_once_for_each_second_also_over_a_kill() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "ticks"]);
    let file = component("clock");
    let cron = ["--config", "cron=* * * * * *", "--config", "zone=Asia/Kathmandu"];
    server.ok(&[&["add-component", "--file", &file, "--source", "ticks"], &cron[..]].concat());
    for wanted in [2, 5] {
        while server.values("ticks").len() < wanted {
            std::thread::sleep(Duration::from_millis(50));
        }
        server.kill_and_restart();
    }
    let ticks = json_lines(&server.ok(&["consume", "ticks"]));
    let times: Vec<jiff::Timestamp> =
        ticks.iter().map(|tick| tick["value"]["tick"].as_str().unwrap().parse().unwrap()).collect();
    // What was missed while there was no server came too, so there is no gap.
    for (one, next) in times.iter().zip(&times[1..]) {
        assert_eq!(next.as_second() - one.as_second(), 1, "{times:?}");
    }
    for (tick, time) in ticks.iter().zip(&times) {
        assert_eq!(tick["id"], time.to_string());
        assert_eq!(tick["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap(), *time);
        assert!(tick["value"]["local"].as_str().unwrap().ends_with("+05:45"), "{tick}");
    }
}

#[test]
fn a_configuration_that_is_wrong_is_said_where_one_looks() {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let paused = ["--source", "out", "--config", "cron=0 0 30 2 *", "--on-error", "then=pause"];
    server.ok(&[&["add-component", "--file", &component("clock")], &paused[..]].concat());
    let described = server.wait_until_failed("clock");
    let reason = described["tasks"][0]["reason"].as_str().unwrap();
    assert_eq!(reason, "the component refuses the batch: config `cron` is `0 0 30 2 *`, which never comes");

    let aggregate = ["--aggregate", "in", "--config", "compute=n=average(a)"];
    let file = component("aggregate-fields");
    let add = [&["add-component", "--file", &file], &aggregate[..]].concat();
    let refused = server.run(&add).failed(2);
    let expected = "config `compute`: `n=average(a)` is not NAME=count or NAME=FUNCTION(FIELD)";
    assert!(refused.contains(expected), "{refused}");
}
