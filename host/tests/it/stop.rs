//! Servers end: in order, at once, and with a client in the middle of something.

use crate::harness::{Server, block_on};
use nodata_client::{Event, PublisherOptions};

#[test]
fn sigterm_under_load_drains_and_loses_nothing() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "4"]);
    let acked = block_on(async {
        let client = server.client().await;
        let publisher =
            client.publisher("orders", PublisherOptions { batch_events_max: 20, ..PublisherOptions::default() });
        let sender = tokio::spawn(async move {
            let mut receipts = Vec::new();
            for number in 0..50_000u64 {
                receipts.push(publisher.send(Event::new(number.to_string())).await.unwrap());
            }
            receipts
        });
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        server.signal("TERM");
        let status = tokio::task::block_in_place(|| server.wait());
        assert!(status.success(), "{status}");
        assert!(server.said().contains("stopped"), "{}", server.said());
        // It comes back at the same address, and the publisher goes on as if nothing had happened.
        server = Server::start_in(server.dir(), server.address());
        let receipts = sender.await.unwrap();
        let mut acked = 0u64;
        for receipt in receipts {
            receipt.wait().await.unwrap();
            acked += 1;
        }
        acked
    });
    assert_eq!(acked, 50_000);
    let mut numbers: Vec<u64> =
        server.ok(&["consume", "orders", "--raw"]).lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50_000).collect::<Vec<u64>>(), "each once");
}

#[test]
fn a_stopped_server_starts_again_without_replaying() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "orders"]);
    server.run_with(&["publish", "orders", "--format", "text"], b"a\nb\n").ok();
    server.signal("INT");
    assert!(server.wait().success());
    let server = Server::start_in(server.dir(), "127.0.0.1:0");
    server.wait_until_it_says("replayed=0");
    assert_eq!(server.ok(&["consume", "orders", "--raw"]), "a\nb\n");
}
