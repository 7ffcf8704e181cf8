//! The sink for ClickHouse, against its engine: rows are in the table once, whatever happens, and those that do not fit are put aside.

use crate::harness::{Server, component, json_lines, python};
use serde_json::json;
use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};
use tempfile::TempDir;

/// The engine of ClickHouse behind its HTTP interface.
struct ClickHouse {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    address: String,
    _dir: TempDir,
}

impl ClickHouse {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = python("clickhouse.py");
        command.arg(dir.path().join("tables")).args(["writer", "s3cret"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = said.next().unwrap().unwrap();
        Self { child, said, address: format!("127.0.0.1:{port}"), _dir: dir }
    }

    /// Has a query executed.
    fn ask(&self, query: &str) -> String {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head =
            "connection: close\r\nx-clickhouse-user: writer\r\nx-clickhouse-key: s3cret\r\ncontent-length: 0\r\n\r\n";
        write!(stream, "POST /?query={query} HTTP/1.1\r\n{head}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{body}");
        body.to_owned()
    }

    /// Has it execute so many inserts without an answer.
    fn be_silent(&mut self, inserts: usize) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{inserts}").unwrap();
        assert_eq!(self.said.next().unwrap().unwrap(), "silent");
    }

    fn add(&self, server: &Server, more: &[&str]) {
        let (file, url, grant) =
            (component("clickhouse"), format!("url=http://{}/", self.address), format!("http://{}", self.address));
        let add = ["add-component", "--file", &file, "--sink", "in", "--from", "earliest", "--allow-http", &grant];
        let config = ["--secret", "password", "--config", &url, "--config", "user=writer", "--config", "table=events"];
        server.ok(&[&add[..], &config, more].concat());
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server(partitions: &str) -> Server {
    let server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", partitions]);
    server.run_with(&["secret", "put", "password"], b"s3cret").ok();
    server
}

#[test]
fn each_row_is_in_the_table_once_however_often_the_server_is_killed_and_no_answer_comes() {
    let mut clickhouse = ClickHouse::start();
    let columns = "_topic String, _partition UInt32, _offset UInt64, _id String, _key Nullable(String), _timestamp DateTime64(6, 'UTC'), n Int64";
    clickhouse
        .ask(&format!("CREATE TABLE events ({columns}) ENGINE = MergeTree ORDER BY (_topic, _partition, _offset)"));
    let mut server = server("2");
    clickhouse.add(&server, &["--config", "columns=all", "--config", "exactly-once=true", "--config", "rows=25"]);
    let mut expected = String::new();
    let mut aside = Vec::new();
    let (rounds, each) = (4u64, 60u64);
    for round in 0..rounds {
        clickhouse.be_silent(2);
        for partition in 0..2 {
            let value = |n: u64| match n {
                17 => "{\"n\":\"many\"}".to_owned(),
                40 => "[]".to_owned(),
                n => format!("{{\"n\":{n}}}"),
            };
            let values: Vec<String> = (round * each..(round + 1) * each).map(value).collect();
            server.publish_to("in", partition, &values.iter().map(String::as_str).collect::<Vec<_>>());
        }
        std::thread::sleep(std::time::Duration::from_millis(50 * round));
        server.kill_and_restart();
    }
    for partition in 0..2 {
        for n in 0..rounds * each {
            match n {
                17 | 40 => aside.push((partition, n)),
                n => expected += &format!("in\t{partition}\t{n}\t{n}\n"),
            }
        }
    }
    server.wait_until_done("clickhouse");
    assert_eq!(
        clickhouse.ask("SELECT _topic, _partition, _offset, n FROM events ORDER BY ALL FORMAT TabSeparated"),
        expected
    );
    let letters = json_lines(&server.ok(&["dlq", "show", "clickhouse", "--json"]));
    let header = |letter: &serde_json::Value, name: &str| letter["headers"][name].as_str().unwrap().to_owned();
    let number = |letter: &serde_json::Value, name: &str| header(letter, name).parse::<u64>().unwrap();
    let mut found: Vec<(u64, u64)> =
        letters.iter().map(|letter| (number(letter, "nodata-partition"), number(letter, "nodata-offset"))).collect();
    found.sort_unstable();
    assert_eq!(found, aside);
    for letter in &letters {
        let reason = header(letter, "nodata-reason");
        let why = if number(letter, "nodata-offset") == 17 { "ClickHouse: Code: " } else { "is not a JSON object" };
        assert!(reason.contains(why), "{reason}");
    }
}

#[test]
fn a_block_that_is_repeated_is_told_by_its_token() {
    let mut clickhouse = ClickHouse::start();
    clickhouse.ask("CREATE TABLE events (n Int64) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100");
    let server = server("1");
    clickhouse.be_silent(3);
    clickhouse.add(&server, &["--config", "rows=10"]);
    // Equal rows, which a table without tokens would take for a repeat.
    server.publish("in", &["{\"n\":1}"; 45]);
    server.wait_until_done("clickhouse");
    assert_eq!(clickhouse.ask("SELECT count() FROM events FORMAT TabSeparated"), "45\n");
}

#[test]
fn what_is_not_about_an_event_waits_until_it_is_put_right() {
    let clickhouse = ClickHouse::start();
    let server = server("1");
    server.run_with(&["secret", "put", "password"], b"guessed").ok();
    clickhouse.add(&server, &[]);
    server.publish("in", &["{\"n\":1}", "{\"n\":2}"]);
    let waits_for = |what: &str| {
        let described = server.wait_until("clickhouse", |described| {
            described["tasks"][0]["reason"].as_str().is_some_and(|reason| reason.contains(what))
        });
        assert_eq!((&described["state"], &described["lag"]), (&json!("retrying"), &json!(2)));
    };
    waits_for("AUTHENTICATION_FAILED");
    server.run_with(&["secret", "put", "password"], b"s3cret").ok();
    waits_for("UNKNOWN_TABLE");
    clickhouse.ask("CREATE TABLE events (n Int64) ENGINE = MergeTree ORDER BY n");
    server.wait_until_done("clickhouse");
    assert_eq!(clickhouse.ask("SELECT n FROM events ORDER BY n FORMAT TabSeparated"), "1\n2\n");
    assert!(server.run(&["topic", "describe", "clickhouse.dlq"]).code != 0, "nothing was put aside");
}
