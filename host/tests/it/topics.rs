//! Topics, as they are made, changed, watched and deleted.

use crate::harness::{Server, block_on};
use nodata_client::Event;
use nodata_client::proto::{ListTopicsRequest, WatchTopicsRequest};

#[test]
fn a_topic_is_made_changed_and_deleted() {
    let server = Server::start();
    assert_eq!(
        server.ok(&["topic", "create", "orders", "--partitions", "4"]),
        "created topic orders with 4 partitions\n"
    );
    assert_eq!(server.run(&["topic", "create", "orders"]).failed(1), "error: topic `orders` exists already\n");
    assert_eq!(
        server.ok(&["topic", "update", "orders", "--partitions", "6", "--event-bytes-max", "1000"]),
        "topic orders has 6 partitions now, largest event 1000 B, events are kept for ever\n"
    );
    assert_eq!(
        server.run(&["topic", "update", "orders", "--partitions", "2"]).failed(2),
        "error: topic `orders` has 6 partitions; they can be added but not removed (2 asked for)\n"
    );
    assert_eq!(
        server.run(&["topic", "update", "orders"]).failed(2),
        "error: nothing to change\nhint: give --partitions, --event-bytes-max, --retention, --retention-size or --deduplicate\n"
    );
    let described: serde_json::Value =
        serde_json::from_str(&server.ok(&["topic", "describe", "orders", "--json"])).unwrap();
    assert_eq!(described["partitions"], 6);
    assert_eq!(described["partition_offsets"].as_array().unwrap().len(), 6);
    assert_eq!(server.ok(&["topic", "delete", "orders"]), "deleted topic orders\n");
    assert_eq!(
        server.run(&["topic", "describe", "orders"]).failed(1),
        "error: topic `orders` does not exist\nhint: create it with `nodata topic create orders`\n"
    );
}

#[test]
fn topics_survive_a_kill() {
    let mut server = Server::start();
    server.ok(&["topic", "create", "orders", "--partitions", "4"]);
    server.ok(&["topic", "create", "audit"]);
    server.ok(&["topic", "delete", "audit"]);
    server.kill_and_restart();
    let listed: serde_json::Value = serde_json::from_str(&server.ok(&["topic", "list", "--json"])).unwrap();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["orders"]);
}

#[test]
fn long_lists_come_in_pages() {
    let server = Server::start();
    block_on(async {
        let client = server.client().await;
        let mut topics = client.topics();
        for number in 0..25 {
            let request =
                nodata_client::proto::CreateTopicRequest { name: format!("t{number:02}"), ..Default::default() };
            topics.create_topic(request).await.unwrap();
        }
        let mut request = ListTopicsRequest { page_size: 10, name_prefix: "t".into(), ..Default::default() };
        let mut pages = Vec::new();
        loop {
            let page = topics.list_topics(request.clone()).await.unwrap().into_inner();
            pages.push(page.topics.len());
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(pages, [10, 10, 5]);
    });
}

#[test]
fn a_watcher_is_told_everything_first_and_then_what_happens() {
    let server = Server::start();
    server.ok(&["topic", "create", "before"]);
    server.run_with(&["publish", "before", "--format", "text"], b"a\nb\n").ok();
    block_on(async {
        let client = server.client().await;
        let mut watch = client.topics().watch_topics(WatchTopicsRequest::default()).await.unwrap().into_inner();
        let first = watch.message().await.unwrap().unwrap();
        assert_eq!(first.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["before"]);
        assert_eq!(first.ends[0].end_offset, 2);

        server.ok(&["topic", "create", "later"]);
        client.publish("later", &Event::new("x")).await.unwrap();
        server.ok(&["topic", "delete", "later"]);
        let (mut made, mut ends, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
        while deleted.is_empty() {
            let told = watch.message().await.unwrap().unwrap();
            made.extend(told.topics.into_iter().map(|topic| topic.name));
            ends.extend(told.ends.into_iter().map(|end| (end.topic, end.end_offset)));
            deleted.extend(told.deleted);
        }
        assert_eq!((made, ends, deleted), (vec!["later".into()], vec![("later".into(), 1)], vec!["later".to_owned()]));
    });
}
