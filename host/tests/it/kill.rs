//! The main job on real input, while the server is killed: every late flight comes out once, in the order of its carrier, and
//! readers of the files agree, who read all the time.
//!
//! `cargo xtask flights FILE` runs this with a whole year of flights, and `NODATA_KILLS=100` with more kills.

use crate::flights::{ByCarrier, flights, is_late};
use crate::harness::{Server, block_on, component, json_lines};
use crate::outside::{Watcher, seen_outside};
use nodata_client::{Event, PublisherOptions};
use serde_json::Value;
use std::time::Duration;

#[allow(clippy::disallowed_methods, reason = "a test has no settings")]
fn kills() -> usize {
    std::env::var("NODATA_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10)
}

fn by_carrier<'a>(flights: impl IntoIterator<Item = (&'a Value, &'a Value)>) -> ByCarrier {
    let mut all = ByCarrier::new();
    for (carrier, id) in flights {
        let carrier = carrier.as_str().unwrap().to_owned();
        all.entry(carrier).or_default().push(id.as_str().unwrap().to_owned());
    }
    all
}

fn consumed(server: &Server, topic: &str) -> ByCarrier {
    let events = json_lines(&server.ok(&["consume", topic, "--from", "earliest"]));
    by_carrier(events.iter().map(|event| (&event["key"], &event["id"])))
}

#[test]
fn late_flights_come_out_once_and_in_order_while_the_server_is_killed() {
    let lines = flights();
    let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let all = by_carrier(parsed.iter().map(|flight| (&flight["carrier"], &flight["id"])));
    let late =
        by_carrier(parsed.iter().filter(|flight| is_late(flight)).map(|flight| (&flight["carrier"], &flight["id"])));
    let late_count: usize = late.values().map(Vec::len).sum();
    assert!(late_count > 100, "{late_count}");

    // The log keeps nothing that is in files, so what is read at the end comes from both.
    let mut server = Server::start_with(&["--archive-after", "1", "--keep-log", "0"]);
    server.ok(&["topic", "create", "flights", "--partitions", "4"]);
    server.ok(&["topic", "create", "late", "--partitions", "4"]);
    let file = component("late-flights");
    server.ok(&["add-component", "--file", &file, "--transform", "flights:late", "--from", "earliest"]);

    let watchers = [Watcher::start(&server, "flights", "duckdb", &[]), Watcher::start(&server, "late", "duckdb", &[])];
    let kills = kills();
    block_on(async {
        let client = server.client().await;
        let options = PublisherOptions { batch_events_max: 50, ..PublisherOptions::default() };
        let publisher = client.publisher("flights", options);
        let part = lines.len().div_ceil(kills + 1);
        for (number, (lines, parsed)) in lines.chunks(part).zip(parsed.chunks(part)).enumerate() {
            for (line, flight) in lines.iter().zip(parsed) {
                let event = Event::new(line.clone())
                    .with_key(flight["carrier"].as_str().unwrap().to_owned())
                    .with_id(flight["id"].as_str().unwrap());
                publisher.send(event).await.unwrap();
            }
            if number < kills {
                // In the middle of publishing, of calls, of commits, and of writing files.
                let flush = server.command(&["topic", "flush"]).spawn().unwrap();
                tokio::time::sleep(Duration::from_millis(number as u64 % 10 * 3)).await;
                tokio::task::block_in_place(|| server.kill_and_restart());
                // It may have been killed with the server.
                let _ = tokio::task::block_in_place(|| flush.wait_with_output());
            }
        }
        publisher.flush().await.unwrap();
    });
    let described = || -> Value {
        serde_json::from_str(&server.ok(&["deployment", "describe", "late-flights", "--json"])).unwrap()
    };
    while described()["lag"] != 0 {
        assert_ne!(described()["state"], "failed", "{}", described());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(consumed(&server, "flights"), all, "every flight is there once, in the order of its carrier");
    let found = consumed(&server, "late");
    assert_eq!(found, late, "every late flight came out once, in the order of its carrier");

    server.ok(&["topic", "flush"]);
    for watcher in watchers {
        watcher.stop();
    }
    for (topic, count) in [("flights", lines.len()), ("late", late_count)] {
        assert_eq!(seen_outside(&server, topic), count as u64, "other readers see every event of {topic}");
    }
    eprintln!("{} flights in, {late_count} late ones out, {kills} kills", lines.len());
}
