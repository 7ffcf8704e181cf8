//! Reading: from somewhere, to an end or for ever, slowly, and across a restart.

use crate::harness::{Server, block_on, json_lines};
use nodata_client::proto::FetchRequest;
use nodata_client::{Event, From, PublisherOptions, Received, TailOptions};
use std::time::Duration;

fn publish(server: &Server, topic: &str, lines: &str) {
    server.run_with(&["publish", topic, "--format", "text"], lines.as_bytes()).ok();
}

#[test]
fn reading_begins_where_it_is_told_and_ends_at_the_end_it_saw() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    publish(&server, "orders", "a\nb\nc\nd\n");
    let raw = |args: &[&str]| server.ok(&[&["consume", "orders", "--raw"], args].concat());
    assert_eq!(raw(&[]), "a\nb\nc\nd\n");
    assert_eq!(raw(&["--from", "earliest"]), "a\nb\nc\nd\n");
    assert_eq!(raw(&["--from", "2"]), "c\nd\n");
    assert_eq!(raw(&["--from", "latest"]), "");
    assert_eq!(raw(&["--max", "1"]), "a\n");
    assert_eq!(raw(&["--max", "0"]), "");
    let offsets: Vec<u64> =
        json_lines(&server.ok(&["consume", "orders"])).iter().map(|event| event["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    assert_eq!(
        server.run(&["consume", "orders", "--partition", "3"]).failed(2),
        "error: topic `orders` has 1 partitions, there is no partition 3\n"
    );
}

#[test]
fn a_follower_gets_new_events_also_of_new_partitions_and_after_a_kill() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    publish(&server, "orders", "old\n");
    block_on(async {
        let client = server.client().await;
        let options = TailOptions { from: From::Latest, follow: true, ..TailOptions::default() };
        let mut tail = client.tail("orders", options).await.unwrap();
        let mut next = async || -> (u32, String) {
            let Received { partition, event, .. } = tail.next().await.unwrap().unwrap();
            (partition, String::from_utf8(event.value.unwrap().to_vec()).unwrap())
        };
        publish(&server, "orders", "one\n");
        assert_eq!(next().await, (0, "one".into()));
        server.kill_and_restart();
        publish(&server, "orders", "two\n");
        assert_eq!(next().await, (0, "two".into()), "nothing twice, nothing left out");
        server.ok(&["topic", "update", "orders", "--partitions", "2"]);
        let publisher =
            client.publisher("orders", PublisherOptions { partition: Some(1), ..PublisherOptions::default() });
        publisher.send(Event::new("three")).await.unwrap().wait().await.unwrap();
        assert_eq!(next().await, (1, "three".into()));
    });
}

#[test]
fn a_reader_that_never_reads_holds_up_nobody() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    block_on(async {
        let client = server.client().await;
        let options = TailOptions { from: From::Earliest, follow: true, ..TailOptions::default() };
        let mut idle = client.tail("orders", options.clone()).await.unwrap();
        let publisher = client.publisher("orders", PublisherOptions::default());
        // More than every buffer between the two holds.
        for number in 0..60_000u64 {
            publisher.send(Event::new(format!("{number} {}", "x".repeat(1000)))).await.unwrap();
        }
        publisher.flush().await.unwrap();
        // And then it reads everything, in order.
        for number in 0..60_000u64 {
            let event = idle.next().await.unwrap().unwrap();
            assert_eq!(event.offset, number);
        }
    });
}

#[test]
fn a_fetch_waits_and_says_where_to_go_on() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    publish(&server, "orders", "a\nb\n");
    block_on(async {
        let mut client = server.client().await.consuming();
        let fetch = |offset, wait_ms| FetchRequest { topic: "orders".into(), offset, wait_ms, ..Default::default() };
        let first = client.fetch(fetch(1, 0)).await.unwrap().into_inner();
        assert_eq!((first.batches[0].base_offset, first.batches[0].event_count), (1, 1));
        assert_eq!((first.next_offset, first.earliest_offset, first.end_offset), (2, 0, 2));
        let empty = client.fetch(fetch(2, 0)).await.unwrap().into_inner();
        assert_eq!((empty.batches.len(), empty.next_offset), (0, 2));

        let mut waiting = client.clone();
        let waited = tokio::spawn(async move { waiting.fetch(fetch(2, 60_000)).await.unwrap().into_inner() });
        tokio::time::sleep(Duration::from_millis(100)).await;
        publish(&server, "orders", "c\n");
        assert_eq!(waited.await.unwrap().batches[0].base_offset, 2);

        let beyond = client.fetch(fetch(9, 0)).await.unwrap_err();
        assert_eq!(beyond.code(), tonic::Code::OutOfRange);
        assert_eq!(beyond.message(), "offset 9 of partition 0 is out of range: the earliest is 0, the end is 3");
    });
}

#[test]
fn a_reader_of_a_deleted_topic_is_told() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    block_on(async {
        let client = server.client().await;
        let options = TailOptions { from: From::Earliest, follow: true, ..TailOptions::default() };
        let mut tail = client.tail("orders", options).await.unwrap();
        publish(&server, "orders", "a\n");
        tail.next().await.unwrap().unwrap();
        server.ok(&["topic", "delete", "orders"]);
        let error = tail.next().await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (nodata_client::ErrorKind::NotFound, "UNKNOWN_TOPIC"));
    });
}
