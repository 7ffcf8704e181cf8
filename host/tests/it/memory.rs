//! Memory that lasts: what an instance keeps is exactly what its position says, whatever happens in between. The guest keeps a sum in
//! its memory and nowhere else, so one event too many or too few in it is seen in every output behind.

use crate::harness::{Server, another_version, block_on, component, json_lines};
use nodata_client::{Event, PublisherOptions};
use serde_json::json;

fn server() -> Server {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    server
}

/// It does not tick while it is looked at.
const QUIET: [&str; 2] = ["--tick", "24h"];

fn sums(server: &Server) -> Vec<u64> {
    server.values("out").iter().filter_map(|value| value.parse().ok()).collect()
}

/// What it should emit for these values, and what becomes a dead letter.
fn expected<'a>(values: impl IntoIterator<Item = &'a str>) -> (Vec<u64>, Vec<&'a str>) {
    let (mut sum, mut sums, mut dead) = (0, Vec::new(), Vec::new());
    for value in values {
        match value {
            "panic" | "refuse" | "unsaved" | "large" => dead.push(value),
            value => {
                sum += value.parse::<u64>().unwrap_or(1);
                sums.push(sum);
            }
        }
    }
    (sums, dead)
}

fn dead_letters(server: &Server, deployment: &str) -> Vec<String> {
    let letters = json_lines(&server.ok(&["dlq", "show", deployment, "--json"]));
    letters.iter().map(|letter| letter["value"].as_str().unwrap().to_owned()).collect()
}

/// What it said that it was restored from.
fn restored(server: &Server, deployment: &str) -> Vec<String> {
    let lines = json_lines(&server.ok(&["deployment", "logs", deployment, "--json"]));
    let of = lines.iter().filter_map(|line| Some(line["text"].as_str()?.strip_prefix("restored ")?.to_owned()));
    of.collect()
}

#[test]
fn nothing_of_a_failed_call_is_in_the_memory() {
    let server = server();
    // All in one batch, to be taken apart.
    let values =
        ["1", "2", "panic", "3", "later", "refuse", "4", "unsaved", "5", "large", "panic", "6", "later", "7", "8", "9"];
    server.publish("in", &values);
    server.deploy("keeps-a-sum", "in:out", &[&QUIET[..], &["--from", "earliest"]].concat());
    server.wait_until_done("keeps-a-sum");
    let (sums_expected, dead) = expected(values);
    assert_eq!(sums(&server), sums_expected);
    assert_eq!(dead_letters(&server, "keeps-a-sum"), dead);

    // A dead letter that is processed once more counts from then on.
    server.ok(&["deployment", "pause", "keeps-a-sum"]);
    server.publish("in", &["10"]);
    server.ok(&["deployment", "resume", "keeps-a-sum"]);
    server.wait_until_done("keeps-a-sum");
    assert_eq!(sums(&server).last(), Some(&(sums_expected.last().unwrap() + 10)));
}

#[test]
fn memory_is_as_exact_as_the_position_while_the_server_is_killed() {
    let mut server = server();
    server.deploy("keeps-a-sum", "in:out", &["--tick", "20ms"]);
    let mut sent: Vec<String> = Vec::new();
    block_on(async {
        let options = PublisherOptions { batch_events_max: 20, ..PublisherOptions::default() };
        let publisher = server.client().await.publisher("in", options);
        for round in 0..10_u64 {
            for number in 0..400 {
                let value = match (round * 400 + number) % 251 {
                    7 => "panic".to_owned(),
                    60 => "later".to_owned(),
                    100 => "refuse".to_owned(),
                    150 => "unsaved".to_owned(),
                    number => number.to_string(),
                };
                publisher.send(Event::new(value.clone())).await.unwrap();
                sent.push(value);
            }
            // In the middle of calls, of commits that are on their way, and of failures.
            tokio::time::sleep(std::time::Duration::from_millis(round * 7)).await;
            tokio::task::block_in_place(|| match round % 3 {
                0 | 1 => server.kill_and_restart(),
                _ => {
                    server.ok(&["deployment", "pause", "keeps-a-sum"]);
                    server.ok(&["deployment", "resume", "keeps-a-sum"]);
                }
            });
        }
        publisher.flush().await.unwrap();
    });
    server.wait_until_done("keeps-a-sum");
    server.ok(&["deployment", "pause", "keeps-a-sum"]);
    let (sums_expected, dead) = expected(sent.iter().map(String::as_str));
    let found = sums(&server);
    assert_eq!(found.len(), sums_expected.len());
    assert_eq!(found, sums_expected);
    assert_eq!(dead_letters(&server, "keeps-a-sum"), dead);
    // Ticks are remembered in the same memory.
    let values = server.values("out");
    let ticks: Vec<u64> = values.iter().filter_map(|value| value.strip_prefix("tick ")?.parse().ok()).collect();
    assert_eq!(ticks, (1..=ticks.len() as u64).collect::<Vec<_>>());
    assert!(!ticks.is_empty());
}

#[test]
fn another_version_goes_on_from_the_memory_of_the_one_before() {
    let server = server();
    server.deploy("keeps-a-sum", "in:out", &QUIET);
    server.publish("in", &["1", "2"]);
    server.wait_until_done("keeps-a-sum");
    let first = server.described("keeps-a-sum")["digest"].as_str().unwrap().to_owned();
    let replace = |file: &str| {
        server.ok(&["deployment", "delete", "keeps-a-sum", "--keep-position"]);
        let args =
            ["add-component", "--transform", "in:out", "--from", "kept", "--name", "keeps-a-sum", "--file", file];
        server.ok(&args);
        server.described("keeps-a-sum")["digest"].as_str().unwrap().to_owned()
    };
    let second = replace(&another_version("keeps-a-sum", &server, "another"));
    assert_ne!(first, second);
    server.publish("in", &["3"]);
    server.wait_until_done("keeps-a-sum");
    assert_eq!(restored(&server, "keeps-a-sum"), [format!("3 by {first}")]);
    server.ok(&["deployment", "pause", "keeps-a-sum"]);
    server.ok(&["deployment", "resume", "keeps-a-sum"]);
    server.publish("in", &["4"]);
    server.wait_until_done("keeps-a-sum");
    assert_eq!(restored(&server, "keeps-a-sum").last(), Some(&format!("6 by {second}")));
    assert_eq!(sums(&server), [1, 3, 6, 10]);

    // One that keeps nothing in between has made it old, and nobody goes on from what is old.
    replace(&component("copies"));
    server.publish("in", &["1000"]);
    server.wait_until_done("keeps-a-sum");
    replace(&component("keeps-a-sum"));
    server.publish("in", &["5"]);
    server.wait_until_done("keeps-a-sum");
    assert_eq!(sums(&server), [1, 3, 6, 10, 1000, 5]);
}

#[test]
fn a_component_that_cannot_go_on_from_its_memory_costs_no_event() {
    let server = server();
    server.deploy("keeps-a-sum", "in:out", &QUIET);
    server.publish("in", &["1", "forget"]);
    server.wait_until_done("keeps-a-sum");
    server.publish("in", &["2"]);
    server.wait_until_done("keeps-a-sum");
    assert_eq!(sums(&server), [1, 2, 4], "the instance that is there needs nothing");
    server.ok(&["deployment", "pause", "keeps-a-sum"]);
    server.publish("in", &["3"]);
    server.ok(&["deployment", "resume", "keeps-a-sum"]);
    let described = server.wait_until("keeps-a-sum", |described| described["tasks"][0]["attempts"].as_u64() > Some(1));
    let task = &described["tasks"][0];
    assert_eq!((&described["state"], &task["lag"]), (&json!("retrying"), &json!(1)));
    let reason = task["reason"].as_str().unwrap();
    let digest = &described["digest"].as_str().unwrap()[..12];
    let begin = format!(
        "the component does not open: it cannot go on from the memory that {digest} saved: that is no sum (event 3 of"
    );
    assert!(reason.starts_with(&begin), "{reason}");
    assert_eq!(server.json(&["dlq", "list"]), json!([]));

    // State that is forgotten is memory that is forgotten.
    server.ok(&["deployment", "reset", "keeps-a-sum", "--from", "3", "--state", "forget"]);
    server.wait_until_done("keeps-a-sum");
    assert_eq!(sums(&server), [1, 2, 4, 3]);
}

#[test]
fn what_a_component_does_beside_its_role_is_shown() {
    let server = server();
    let inspected = server.ok(&["component", "inspect", &component("keeps-a-sum")]);
    assert!(inspected.contains("  is        transform (opens and closes, ticks, keeps memory)\n"), "{inspected}");
    server.deploy("keeps-a-sum", "in:out", &QUIET);
    let listed = server.json(&["component", "list"]);
    assert_eq!(listed[0]["extras"], json!(["lifecycle", "ticker", "snapshot"]));
    let text = server.ok(&["component", "list"]);
    assert!(text.contains("transform (opens and closes, ticks, keeps memory)"), "{text}");
}
