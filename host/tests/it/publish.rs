//! Publishing: one event, many, pipelined, each of them once.

use crate::harness::{NODATA, Server, block_on, json_lines};
use nodata_client::proto::publish_stream_request::Request;
use nodata_client::proto::{AckLevel, Producer, PublishRequest, PublishStreamOpen, PublishStreamRequest};
use nodata_client::{Ack, Batch, ErrorKind, Event, Outcome, PublisherOptions, TailOptions};
use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, Stdio};

#[test]
fn an_event_comes_back_as_it_was_sent() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "4"]);
    block_on(async {
        let client = server.client().await;
        let event = Event::new("{\"n\":1}")
            .with_key("k")
            .with_id("order-1")
            .with_header("trace", "abc")
            .with_header("binary", vec![0xff, 0x00])
            .with_timestamp_us(1_357_034_400_000_000);
        let published = client.publish("orders", &event).await.unwrap();
        assert_eq!((published.ack, published.ranges.len(), published.duplicate), (Ack::Durable, 1, false));
        let tombstone = Event { key: Some("k".into()), ..Event::default() };
        client.publish("orders", &tombstone).await.unwrap();

        let mut tail = client.tail("orders", TailOptions::default()).await.unwrap();
        let first = tail.next().await.unwrap().unwrap();
        assert_eq!(first.event, event);
        assert_eq!((first.partition, first.offset), (published.ranges[0].partition, published.ranges[0].first_offset));
        let second = tail.next().await.unwrap().unwrap();
        assert_eq!((second.event.value, second.partition, second.offset), (None, first.partition, first.offset + 1));
        assert!(second.event.timestamp_us.is_some(), "the server's clock");
        assert_eq!(tail.next().await.unwrap(), None);
    });
    let lines = json_lines(&server.ok(&["consume", "orders"]));
    assert_eq!(
        lines[0].to_string(),
        r#"{"topic":"orders","partition":1,"offset":0,"timestamp":"2013-01-01T10:00:00.000000Z","id":"order-1","key":"k","headers":{"trace":"abc","binary":{"base64":"/wA="}},"value":{"n":1}}"#
    );
}

#[test]
fn many_events_are_batched_pipelined_and_in_order() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "4"]);
    block_on(async {
        let client = server.client().await;
        // Small requests and few of them on their way: every bound is met.
        let options = PublisherOptions {
            batch_events_max: 7,
            in_flight_requests_max: 3,
            in_flight_bytes_max: 10_000,
            ..PublisherOptions::default()
        };
        let publisher = client.publisher("orders", options);
        let mut receipts = Vec::new();
        for number in 0..2000 {
            let event = Event::new(format!("{number}")).with_key(format!("{}", number % 10));
            receipts.push(publisher.send(event).await.unwrap());
        }
        publisher.flush().await.unwrap();
        for receipt in receipts {
            assert_eq!(receipt.wait().await.unwrap().ack, Ack::Durable);
        }
        let mut tail = client.tail("orders", TailOptions::default()).await.unwrap();
        let mut last = [-1i64; 10];
        let mut count = 0;
        while let Some(received) = tail.next().await.unwrap() {
            let number: i64 = String::from_utf8_lossy(received.event.value.as_ref().unwrap()).parse().unwrap();
            let before = std::mem::replace(&mut last[number as usize % 10], number);
            assert!(before < number, "events of a key keep their order");
            count += 1;
        }
        assert_eq!(count, 2000);
    });
}

#[test]
fn every_ack_level_says_what_it_was() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    block_on(async {
        let client = server.client().await;
        for ack in [Ack::Durable, Ack::Written, Ack::None] {
            let batch: Batch = [Event::new("x")].iter().collect();
            assert_eq!(client.publish_with("orders", batch, ack).await.unwrap().ack, ack);
            let publisher = client.publisher("orders", PublisherOptions { ack, ..PublisherOptions::default() });
            let receipt = publisher.send(Event::new("y")).await.unwrap();
            assert_eq!(receipt.wait().await.unwrap().ack, ack);
        }
        // A durable one behind them makes them all readable.
        client.publish("orders", &Event::new("z")).await.unwrap();
        assert_eq!(client.offsets("orders").await.unwrap(), [(0, 0, 7)]);
    });
}

#[test]
fn a_refused_request_is_told_and_the_others_go_on() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--event-bytes-max", "10"]);
    block_on(async {
        let client = server.client().await;
        let publisher =
            client.publisher("orders", PublisherOptions { batch_events_max: 1, ..PublisherOptions::default() });
        let mut receipts = Vec::new();
        for value in ["a", "b", "much too large", "c", "also much too large", "d"] {
            receipts.push(publisher.send(Event::new(value)).await.unwrap());
        }
        let mut told = Vec::new();
        for receipt in receipts {
            told.push(
                receipt.wait().await.map_err(|error| (error.kind(), error.outcome(), error.to_string())).map(drop),
            );
        }
        let refused = |bytes| {
            let words = format!(
                "event 0 for topic `orders`: {bytes} bytes (id, key, value and headers), at most 10 are allowed"
            );
            Err((ErrorKind::Invalid, Outcome::NotApplied, words))
        };
        assert_eq!(told, [Ok(()), Ok(()), refused(14), Ok(()), refused(19), Ok(())]);
    });
    assert_eq!(server.ok(&["consume", "orders", "--raw"]), "a\nb\nc\nd\n");
}

#[test]
fn a_repeated_request_is_answered_as_a_duplicate() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    block_on(async {
        let mut client = server.client().await.publishing();
        let mut send = async |sequence, epoch, value: &str| {
            let batch: Batch = [Event::new(value.to_owned())].iter().collect();
            let request = PublishRequest {
                topic: "orders".into(),
                batch: batch.as_wire().to_vec().into(),
                ack: AckLevel::Durable.into(),
                producer: Some(Producer { id: 7, epoch, sequence }),
                partition: None,
            };
            client.publish(request).await.map(|response| response.into_inner().duplicate).map_err(|status| {
                let error = nodata_client::Error::from(status);
                (error.reason().to_owned(), error.outcome())
            })
        };
        assert_eq!(send(0, 0, "a").await, Ok(false));
        assert_eq!(send(0, 0, "a").await, Ok(true));
        assert_eq!(send(1, 0, "b").await, Ok(false));
        assert_eq!(send(5, 0, "?").await, Err(("OUT_OF_SEQUENCE".into(), Outcome::NotApplied)));
        assert_eq!(send(0, 1, "c").await, Ok(false), "a raised epoch begins again");
        assert_eq!(send(2, 0, "?").await, Err(("PRODUCER_FENCED".into(), Outcome::NotApplied)));
    });
    assert_eq!(server.ok(&["consume", "orders", "--raw"]), "a\nb\nc\n");
}

/// A client that never reads its answers is stopped, and costs the server a bounded amount of memory.
#[test]
fn a_client_that_never_reads_its_answers_is_not_read_either() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    block_on(async {
        let mut client = server.client().await.publishing();
        let (requests, outgoing) = tokio::sync::mpsc::channel(1);
        let open = PublishStreamOpen { topic: "orders".into(), ..Default::default() };
        requests.send(PublishStreamRequest { request: Some(Request::Open(open)) }).await.unwrap();
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let answers = client.publish_stream(outgoing).await.unwrap();
        let batch: Batch = [Event::new(vec![b'x'; 1000])].iter().collect();
        let batch = bytes::Bytes::copy_from_slice(batch.as_wire());
        let mut sent = 0u64;
        // The server takes what fits its bounds, and then no more.
        loop {
            let request = PublishStreamRequest { request: Some(Request::Batch(batch.clone())) };
            match tokio::time::timeout(std::time::Duration::from_secs(3), requests.send(request)).await {
                Ok(sent_one) => sent_one.unwrap(),
                Err(_) => break,
            }
            sent += 1;
            assert!(sent < 2_000_000, "nothing stops the sender");
        }
        let other = server.client().await;
        other.publish("orders", &Event::new("someone else")).await.unwrap();
        drop(answers);
    });
}

#[test]
fn files_are_published_with_their_keys_and_ids() {
    let server = Server::start();
    server.ok(&["topic", "create", "flights", "--partitions", "4"]);
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/flights-sample.ndjson");
    let published =
        server.ok(&["publish", "flights", "--file", sample, "--key-field", "carrier", "--id-field", "id", "--json"]);
    let published: serde_json::Value = serde_json::from_str(&published).unwrap();
    assert_eq!((published["events"].as_u64(), published["ack"].as_str()), (Some(3000), Some("durable")));
    let events = json_lines(&server.ok(&["consume", "flights"]));
    assert_eq!(events.len(), 3000);
    for event in &events {
        assert_eq!(event["key"], event["value"]["carrier"]);
        assert_eq!(event["id"], event["value"]["id"]);
    }
    let mut values: Vec<String> = server.ok(&["consume", "flights", "--raw"]).lines().map(str::to_owned).collect();
    let mut lines: Vec<String> = std::fs::read_to_string(sample).unwrap().lines().map(str::to_owned).collect();
    values.sort();
    lines.sort();
    assert_eq!(values, lines, "every line is there as it is");

    server.ok(&["topic", "create", "csv"]);
    let csv = b"id,carrier,delay\nF1,UA,-2.5\nF2,AA,\n";
    server.run_with(&["publish", "csv", "--format", "csv", "--key-field", "carrier"], csv).ok();
    assert_eq!(
        server.ok(&["consume", "csv", "--raw"]),
        "{\"id\":\"F1\",\"carrier\":\"UA\",\"delay\":-2.5}\n{\"id\":\"F2\",\"carrier\":\"AA\",\"delay\":null}\n"
    );
}

/// `nodata publish` behind a program that goes on writing.
fn piped(server: &Server, more: &[&str]) -> (Child, ChildStdin) {
    let mut child = Command::new(NODATA)
        .args(["publish", "orders"])
        .args(more)
        .env("NODATA_SERVER", server.address())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take().unwrap();
    (child, input)
}

#[test]
fn lines_are_published_as_they_are_written() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    for (format, head) in [("text", ""), ("csv", "n\n")] {
        let (mut child, mut input) = piped(&server, &["--format", format]);
        input.write_all(head.as_bytes()).unwrap();
        let before = server.values("orders").len();
        for number in 1..=3 {
            input.write_all(format!("{number}\n").as_bytes()).unwrap();
            while server.values("orders").len() < before + number {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_refused_line_ends_the_command_while_its_input_goes_on() {
    let server = Server::start();
    server.ok(&["topic", "create", "orders", "--event-bytes-max", "10"]);
    let (child, mut input) = piped(&server, &["--format", "text"]);
    input.write_all(b"good\n").unwrap();
    while server.values("orders").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    input.write_all(b"this one is too long\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: standard input, line 2: event 0 for topic `orders`: 20 bytes"), "{said}");
    assert!(said.ends_with("hint: published before it: 1 event; nothing of these lines was published\n"), "{said}");
}

#[test]
fn an_event_whose_id_is_known_is_not_appended_again() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "4"]);
    server.ok(&["topic", "create", "all", "--deduplicate", "off"]);
    let batch = |ids: &[&str]| -> Batch {
        let event = |id: &&str| Event::new((*id).to_owned()).with_key((*id).to_owned()).with_id(*id);
        ids.iter().map(event).collect::<Vec<_>>().iter().collect()
    };
    block_on(async {
        let client = server.client().await;
        let publish = async |topic: &str, ids: &[&str]| {
            let published = client.publish_with(topic, batch(ids), Ack::Durable).await.unwrap();
            let events: u64 = published.ranges.iter().map(|range| range.last_offset - range.first_offset + 1).sum();
            (events, published.duplicate, published.duplicate_events)
        };
        assert_eq!(publish("orders", &["a", "b", "c"]).await, (3, false, vec![]));
        assert_eq!(publish("orders", &["d", "b", "e", "a", "d", "f"]).await, (3, false, vec![1, 3, 4]));
        assert_eq!(publish("orders", &["b", "c"]).await, (0, true, vec![0, 1]));
        assert_eq!(publish("all", &["a", "a"]).await, (2, false, vec![]));
        // Requests that are appended together keep what is theirs.
        let publisher = client.publisher("orders", PublisherOptions::default());
        let mut receipts = Vec::new();
        for ids in [["g", "a", "h"], ["b", "c", "d"], ["i", "g", "j"]] {
            receipts.push(publisher.send_batch(batch(&ids)).await.unwrap());
        }
        publisher.flush().await.unwrap();
        let mut answers = Vec::new();
        for receipt in receipts {
            let published = receipt.wait().await.unwrap();
            answers.push((published.duplicate, published.duplicate_events));
        }
        assert_eq!(answers, [(false, vec![1]), (true, vec![0, 1, 2]), (false, vec![1]),]);
    });
    // A kill and an end in order both remember.
    server.kill_and_restart();
    let again = |server: &Server, id: &str| {
        block_on(async {
            let client = server.client().await;
            client.publish_with("orders", batch(&[id]), Ack::Durable).await.unwrap().duplicate
        })
    };
    assert!(again(&server, "a") && again(&server, "j") && !again(&server, "k"));
    server.stop_and_restart();
    assert!(again(&server, "a") && again(&server, "k") && !again(&server, "l"));
    let mut seen: Vec<String> = server.ok(&["consume", "orders", "--raw"]).lines().map(str::to_owned).collect();
    seen.sort();
    assert_eq!(seen.concat(), "abcdefghijkl");

    assert!(server.ok(&["topic", "describe", "all"]).contains("ids of events are remembered not at all\n"));
    server.ok(&["topic", "update", "orders", "--deduplicate", "off"]);
    assert!(!again(&server, "a"));
    let refused = server.run(&["topic", "update", "orders", "--deduplicate", "30d"]).failed(2);
    assert_eq!(refused, "error: ids remembered for 2592000 seconds; allowed are 1 to 604800\n");
}
