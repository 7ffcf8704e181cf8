//! Logs that the engine wrote, in the form that the target `recovery` takes.

use crate::recovery::{HEADER_BYTES, RAW, SPARE, STORE_FILE, WRONG, clock, now, options};
use bytes::Bytes;
use nodata_log::engine::Expect;
use nodata_log::frame::FRAME_HEADER_BYTES;
use nodata_log::fs::simulated::{Faults, SimulatedFs};
use nodata_log::fs::{Fs, read_file};
use nodata_log::{
    AckLevel, Append, ArchiveFile, Batch, EmbeddedLog, Event, Forget, Log, MetadataStore, Name, OwnerId, ProducerId,
    ProducerRange, StateChange, TaskKey, TaskReset, TopicConfig, Tp, Transaction,
};
use std::sync::Arc;

/// Files of a disk: which one, and what is in it.
type Files = Vec<(u8, Vec<u8>)>;

pub(crate) fn disks() -> Vec<Vec<u8>> {
    let logs = [small(), long(), two_lives(), everything()];
    let whole = logs.last().cloned().unwrap_or_default();
    let changed = |change: fn(&mut Files)| {
        let mut files = whole.clone();
        change(&mut files);
        files
    };
    let damaged = [
        changed(|files| files.iter_mut().for_each(|file| file.0 |= WRONG)),
        changed(|files| drop(files.remove(0))),
        changed(|files| files.push((SPARE, files[0].1.clone()))),
        changed(|files| files.push((2, vec![0; HEADER_BYTES]))),
        changed(|files| files.push((2 | RAW, Vec::new()))),
        changed(|files| files.push((STORE_FILE, b"nodata store\nformat 1\nid 7\n".to_vec()))),
        changed(|files| files.push((STORE_FILE, b"nodata store\nformat 2\n".to_vec()))),
    ];
    logs.iter().chain(&damaged).map(input).collect()
}

fn input(files: &Files) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, bytes) in files {
        out.push(*kind);
        out.extend((bytes.len() as u16).to_le_bytes());
        out.extend(bytes);
    }
    out
}

fn open(fs: &SimulatedFs, seed: u64) -> EmbeddedLog {
    let opened = EmbeddedLog::open(options(seed), "seeds", Arc::new(fs.clone()), clock());
    opened.map(|(log, _)| log).expect("a disk without faults")
}

fn write(log: &EmbeddedLog) {
    while log.by_hand().write_group().expect("a disk without faults") {}
}

fn append(log: &EmbeddedLog, tp: Tp, events: &[Event], producer: Option<ProducerRange>) {
    let batch = Batch::from_events(events, 5).expect("a few events");
    let room = now(log.room(1)).expect("there is room");
    let append = Append { batches: vec![(tp, batch)], ack: AckLevel::Durable, producer, room };
    drop(log.append(append).expect("it fits"));
    write(log);
}

fn topic(log: &EmbeddedLog, name: &str, partitions: u32) -> Tp {
    let config = TopicConfig { partitions, ..TopicConfig::default() };
    let created = log.create_topic(Name::new(name).expect("a name"), config).expect("a new name");
    write(log);
    Tp { topic: now(created).expect("it was written").id, partition: 0 }
}

/// The segments, the last one with its tail.
fn files(fs: &SimulatedFs) -> Files {
    let names = fs.list("wal").expect("there is a log").into_iter().map(|entry| entry.name);
    let segments = names.filter(|name| !name.starts_with("spare"));
    let read = |name: String| read_file(fs, &format!("wal/{name}")).expect("it is listed");
    (0..).zip(segments.map(read)).map(|(number, bytes)| (number, compact(&bytes))).collect()
}

/// Without the zeros behind the header and in the padding.
fn compact(file: &[u8]) -> Vec<u8> {
    let mut out = file[..HEADER_BYTES].to_vec();
    let mut rest = &file[4096..];
    while rest.starts_with(b"NDFR") {
        let len = rest[4..].first_chunk().map_or(0, |len| u32::from_le_bytes(*len)) as usize;
        let is_padding = rest[44] & 2 != 0;
        out.extend(&rest[..if is_padding { FRAME_HEADER_BYTES } else { len }]);
        rest = &rest[len..];
    }
    out
}

fn small() -> Files {
    let fs = SimulatedFs::new(Faults::default());
    let log = open(&fs, 1);
    let tp = topic(&log, "orders", 2);
    append(&log, tp, &[Event::new("a").with_key("k"), Event::new("b")], None);
    log.by_hand().mark().expect("a disk without faults");
    files(&fs)
}

/// More than fits a segment.
fn long() -> Files {
    let fs = SimulatedFs::new(Faults::default());
    let log = open(&fs, 2);
    let tp = topic(&log, "orders", 1);
    for n in 0..4 {
        append(&log, tp, &[Event::new(format!("value {n}"))], None);
    }
    files(&fs)
}

fn two_lives() -> Files {
    let fs = SimulatedFs::new(Faults::default());
    let log = open(&fs, 3);
    let tp = topic(&log, "orders", 1);
    append(&log, tp, &[Event::new("first")], None);
    drop(log);
    fs.kill();
    let log = open(&fs, 4);
    append(&log, tp, &[Event::new("second")], None);
    files(&fs)
}

/// Every kind of operation.
fn everything() -> Files {
    let fs = SimulatedFs::new(Faults::default());
    let log = open(&fs, 5);
    let source = topic(&log, "orders", 1);
    let target = topic(&log, "late", 2);
    topic(&log, "gone", 1);
    let producer = ProducerRange { producer: ProducerId(9), epoch: 0, first: 0, count: 1 };
    append(&log, source, &[Event::new("a"), Event::new("b")], Some(producer));
    let task = TaskKey { owner: OwnerId(1), source };
    let lease = log.begin_task(task).expect("a task");
    write(&log);
    let epoch = now(lease).expect("it was written").epoch;
    let change =
        StateChange { table: Name::new("seen").expect("a name"), entries: vec![("k".into(), Some(Bytes::from("1")))] };
    let output = Batch::from_events(&[Event::new("late")], 5).expect("one event");
    let state = vec![change];
    let call = Transaction { task, epoch, expect: None, next: 2, appends: vec![(target, output)], state };
    drop(log.commit(call).expect("the task is ours"));
    drop(log.meta_put("deployment/x", Expect::Absent, Some("{}".into())).expect("it is small"));
    drop(log.delete_topic(&Name::new("gone").expect("a name")).expect("it is there"));
    write(&log);
    let file = ArchiveFile {
        base: 0,
        end: 2,
        rows: 2,
        bytes: 1000,
        payload_bytes: 2,
        row_groups: 1,
        is_sealed: true,
        timestamp_min_us: 5,
        timestamp_max_us: 5,
        append_min_us: 5,
        append_max_us: 5,
        footer_at: 900,
        footer_crc: 1,
    };
    drop(log.commit_file(source, file).expect("it holds what is there"));
    write(&log);
    drop(log.trim(source, 2).expect("it is in a file"));
    let reset = TaskReset { task, epoch, next: Some(1), forget: Forget::AllBut(Vec::new()) };
    drop(log.reset_tasks(vec![reset]).expect("it is there"));
    drop(log.forget_owner(OwnerId(2)).expect("nobody works for it"));
    write(&log);
    files(&fs)
}
