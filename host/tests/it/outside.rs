//! Readers of the files that are not ours.

use crate::harness::{Server, python};
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Child, Stdio};

/// What DuckDB, pyarrow and Polars see of a topic, if it is the same.
pub(crate) fn outside(server: &Server, topic: &str) -> Value {
    let output = python("rows.py").arg(server.data().join("data")).arg(topic).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    let readers = seen.as_object().unwrap();
    assert_eq!(readers.len(), 3);
    let first = readers.values().next().unwrap().clone();
    for (name, found) in readers {
        assert_eq!(*found, first, "{name} differs: {seen}");
    }
    first
}

/// How many events of a topic other readers see in files. It must be everything that the server knows of.
pub(crate) fn seen_outside(server: &Server, topic: &str) -> u64 {
    let partitions = server.json(&["topic", "describe", topic])["partition_offsets"].clone();
    let mut count = 0;
    let mut ranges = serde_json::Map::new();
    for at in partitions.as_array().unwrap() {
        let (earliest, end) = (at["earliest"].as_u64().unwrap(), at["end"].as_u64().unwrap());
        assert_eq!(at["archived_end"], end, "everything is in files: {at}");
        count += end - earliest;
        if earliest < end {
            ranges.insert(at["partition"].to_string(), json!([earliest, end - 1]));
        }
    }
    let expected = json!({ "count": count, "different": count, "partitions": ranges });
    assert_eq!(outside(server, topic), expected, "other readers see what the server sees of {topic}");
    count
}

/// Someone who reads the files again and again, until told to stop.
pub(crate) struct Watcher(Child);

impl Watcher {
    pub(crate) fn start(server: &Server, topic: &str, reader: &str, more: &[&str]) -> Self {
        let mut watch = python("watch.py");
        watch.arg(server.data().join("data")).args([topic, reader]).args(more);
        Self(watch.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// How many queries it made; each was right.
    pub(crate) fn stop(mut self) -> u64 {
        // One that was not right has ended already.
        let _ = self.0.stdin.take().unwrap().write_all(b"stop\n");
        let output = self.0.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    }
}
