//! The source that asks a URL: what it answers comes in once, however often the server is killed and whatever the other side does.

use crate::harness::{Server, component, json_lines};
use crate::receiver::{Answer, Receiver};
use nodata_log::fs::simulated::Chance;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn add(server: &Server, receiver: &Receiver, path: &str, config: &[&str]) {
    let (file, url, grant) = (component("http-poll"), format!("url={}", receiver.url(path)), receiver.grant());
    let add = ["add-component", "--file", &file, "--source", "in", "--allow-http", &grant, "--config", &url];
    let config: Vec<&str> = config.iter().flat_map(|entry| ["--config", entry]).collect();
    server.ok(&[&add[..], &config].concat());
}

#[test]
fn each_item_comes_in_once_and_in_order_whatever_the_other_side_does_and_whenever_the_server_is_killed() {
    // A feed that grows, in pages of at most 7, asked for by the number of the last item that is known.
    let there = Arc::new(AtomicUsize::new(0));
    let receiver = Receiver::start({
        let (there, chance) = (there.clone(), Mutex::new(Chance::new(3)));
        move |request| {
            assert_eq!(request.method, "GET");
            match chance.lock().unwrap().below(12) {
                0 => return Answer::status(500),
                1 => return Answer::Half,
                2 => return Answer::Nothing,
                3 => return Answer::Status(429, vec![("retry-after", "1".to_owned())], String::new()),
                _ => {}
            }
            let last = request.path.split_once("?after=").map_or(0, |(_, after)| after.parse::<usize>().unwrap());
            let items: Vec<_> =
                (last..there.load(Ordering::Relaxed)).take(7).map(|n| json!({ "n": n + 1, "k": n % 3 })).collect();
            Answer::body(json!({ "data": { "items": items } }).to_string())
        }
    });
    let mut server = Server::start();
    server.ok(&["topic", "create", "in"]);
    let config = ["every=1", "items=/data/items", "key=/k", "item-cursor=/n", "cursor-param=after"];
    add(&server, &receiver, "/feed", &config);
    for round in 0..4 {
        there.fetch_add(40, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(200 * round));
        server.kill_and_restart();
    }
    let all = there.load(Ordering::Relaxed) as u64;
    server.wait_until("http-poll", |described| described["tasks"][0]["events_out"].as_u64() > Some(0));
    while server.values("in").len() < all as usize {
        std::thread::sleep(Duration::from_millis(50));
    }
    let events = json_lines(&server.ok(&["consume", "in"]));
    let found: Vec<u64> = events.iter().map(|event| event["value"]["n"].as_u64().unwrap()).collect();
    assert_eq!(found, (1..=all).collect::<Vec<_>>());
    assert!(events.iter().all(|event| event["key"] == event["value"]["k"].to_string().as_str()));
}

#[test]
fn what_has_not_changed_does_not_come_in_again_and_what_is_refused_is_said() {
    let asked = Arc::new(AtomicUsize::new(0));
    let receiver = Receiver::start({
        let asked = asked.clone();
        move |request| {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            let tag = if number < 2 { "\"one\"" } else { "\"two\"" };
            match request.headers.get("if-none-match") {
                Some(known) if known == tag => Answer::status(304),
                _ if request.path != "/state" => Answer::Status(404, Vec::new(), "there is no such thing".to_owned()),
                _ => Answer::Status(200, vec![("etag", tag.to_owned())], format!("state {tag}")),
            }
        }
    });
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    add(&server, &receiver, "/state", &["every=1"]);
    while asked.load(Ordering::Relaxed) < 5 {
        std::thread::sleep(Duration::from_millis(20));
    }
    server.ok(&["deployment", "delete", "http-poll"]);
    assert_eq!(server.values("in"), ["state \"one\"", "state \"two\""]);

    add(&server, &receiver, "/other", &["every=1"]);
    let described = server.wait_until("http-poll", |described| described["tasks"][0]["attempts"].as_u64() > Some(1));
    let reason = described["tasks"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains(&format!("GET {}: status 404: there is no such thing", receiver.url("/other"))),
        "{reason}"
    );
    assert_eq!(described["state"], "retrying");
}
