//! What every engine promises, run on the embedded one and on the in-memory model. It branches on `Capabilities` and on
//! nothing else, and it never computes an offset.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use nodata_log::fs::simulated::{Faults, SimulatedFs};
use nodata_log::model::ModelLog;
use nodata_log::{
    AckLevel, Append, Appended, Batch, Change, EmbeddedLog, Event, Expect, Forget, Log, LogError, MetadataStore, Name,
    Offset, Options, OwnerId, ProducerError, ProducerId, ProducerRange, ReadLimits, StateChange, StateScan,
    SystemClock, TaskKey, TaskLease, TaskPosition, TopicChange, TopicConfig, Tp, Transaction,
};
use std::sync::Arc;

trait Engine: Log + MetadataStore {}
impl<T: Log + MetadataStore> Engine for T {}

fn embedded() -> Arc<dyn Engine> {
    let fs = Arc::new(SimulatedFs::new(Faults::default()));
    // Small segments and a small ring, so that the suite crosses every seam.
    let options =
        Options { segment_bytes: 64 << 10, first_segment_bytes: 32 << 10, ring_bytes: 8 << 10, ..Options::new(7) };
    let (log, _) = EmbeddedLog::open(options, "sim", fs, Arc::new(SystemClock)).unwrap();
    log.start().unwrap();
    Arc::new(log)
}

fn model() -> Arc<dyn Engine> {
    Arc::new(ModelLog::new(Arc::new(SystemClock)))
}

/// One test for each engine.
macro_rules! conformance {
    ($($test:ident)*) => {
        mod on_the_embedded_engine {
            $(#[test] fn $test() { super::block_on(super::$test(&*super::embedded())); })*
        }
        mod on_the_model {
            $(#[test] fn $test() { super::block_on(super::$test(&*super::model())); })*
        }
    };
}

conformance! {
    topics_are_made_changed_and_deleted
    a_deleted_topic_leaves_nothing_to_a_new_one_of_its_name
    events_come_back_in_order_with_growing_offsets
    a_read_begins_anywhere
    a_time_is_found_where_events_are_not_older
    a_read_out_of_range_says_what_there_is
    a_read_is_bounded
    one_append_reaches_several_partitions
    every_ack_level_is_answered
    an_append_that_cannot_be_is_refused_whole
    a_follower_is_woken
    changes_are_broadcast
    a_repeated_request_is_appended_once
    an_event_whose_id_is_known_is_not_appended_again
    what_a_component_emits_is_remembered_and_never_left_out
    a_transaction_commits_outputs_position_and_state
    a_transaction_from_the_wrong_place_is_refused
    a_transaction_of_an_earlier_worker_is_refused
    state_is_ordered_and_scanned_in_pages
    a_task_that_is_reset_goes_on_elsewhere
    tasks_are_reset_all_or_none
    a_forgotten_deployment_starts_anew
    metadata_changes_only_if_it_is_as_expected
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

async fn topic(log: &dyn Engine, topic: &str, partitions: u32) -> Tp {
    let config = TopicConfig { partitions, ..TopicConfig::default() };
    let topic = log.create_topic(name(topic), config).unwrap().await.unwrap();
    Tp { topic: topic.id, partition: 0 }
}

fn batch(values: &[&str]) -> Batch {
    let events: Vec<Event> = values.iter().map(|value| Event::new(Bytes::copy_from_slice(value.as_bytes()))).collect();
    Batch::from_events(&events, 1).unwrap()
}

async fn append_with(
    log: &dyn Engine,
    batches: Vec<(Tp, Batch)>,
    ack: AckLevel,
    producer: Option<ProducerRange>,
) -> Result<Appended, LogError> {
    let bytes = batches.iter().map(|(_, batch)| batch.encoded_len() as u64).sum();
    let room = log.room(bytes).await?;
    log.append(Append { batches, ack, producer, room })?.await
}

async fn publish(log: &dyn Engine, tp: Tp, values: &[&str]) -> Offset {
    let appended = append_with(log, vec![(tp, batch(values))], AckLevel::Durable, None).await.unwrap();
    appended.ranges[0].first
}

const ALL: ReadLimits = ReadLimits { bytes_max: u64::MAX, events_max: usize::MAX };

/// Everything from an offset on, through as many reads as it takes.
async fn read(log: &dyn Engine, tp: Tp, from: Offset, limits: ReadLimits) -> Vec<(Offset, String)> {
    let end = log.bounds(tp).unwrap().end;
    let mut events = Vec::new();
    let mut next = from;
    while next < end {
        let chunk = log.read(tp, next, limits).await.unwrap();
        assert!(!chunk.batches.is_empty(), "there are events before the end");
        for stored in &chunk.batches {
            for (row, event) in stored.batch.events().enumerate() {
                let offset = stored.offsets.at(row);
                if offset >= next {
                    let value = event.value.unwrap_or(b"(null)");
                    events.push((offset, String::from_utf8_lossy(value).into_owned()));
                }
            }
        }
        assert!(chunk.next > next);
        next = chunk.next;
    }
    assert!(events.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets strictly increase");
    events
}

async fn values(log: &dyn Engine, tp: Tp) -> Vec<String> {
    read(log, tp, 0, ALL).await.into_iter().map(|(_, value)| value).collect()
}

async fn topics_are_made_changed_and_deleted(log: &dyn Engine) {
    let orders = topic(log, "orders", 2).await;
    assert_eq!(log.topic(&name("orders")).unwrap().id, orders.topic);
    assert_eq!(log.topic_by_id(orders.topic).unwrap().name, name("orders"));
    topic(log, "audit", 1).await;
    let names = || log.topics().iter().map(|topic| topic.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(), ["audit", "orders"]);

    let again = log.create_topic(name("orders"), TopicConfig::default()).err().unwrap();
    assert_eq!(again.to_string(), "topic `orders` exists already");
    let none = log.create_topic(name("none"), TopicConfig { partitions: 0, ..TopicConfig::default() }).err().unwrap();
    assert_eq!(none.to_string(), "0 partitions; a topic has 1 to 1024");

    let grow = TopicChange { partitions: Some(3), event_bytes_max: Some(1000), ..TopicChange::default() };
    let changed = log.change_topic(&name("orders"), &grow).unwrap().await.unwrap();
    assert_eq!((changed.config.partitions, changed.config.event_bytes_max), (3, 1000));
    publish(log, Tp { partition: 2, ..orders }, &["a"]).await;

    log.delete_topic(&name("orders")).unwrap().await.unwrap();
    assert_eq!(names(), ["audit"]);
    let gone = log.topic(&name("orders")).unwrap_err();
    assert_eq!(gone.to_string(), "topic `orders` does not exist");
    assert!(matches!(log.bounds(orders), Err(LogError::UnknownTopicId { .. })));
    assert!(matches!(log.read(orders, 0, ALL).await, Err(LogError::UnknownTopicId { .. })));
    assert!(matches!(log.delete_topic(&name("orders")).err(), Some(LogError::UnknownTopic { .. })));
}

async fn a_deleted_topic_leaves_nothing_to_a_new_one_of_its_name(log: &dyn Engine) {
    let first = topic(log, "orders", 1).await;
    publish(log, first, &["old"]).await;
    log.delete_topic(&name("orders")).unwrap().await.unwrap();
    let second = topic(log, "orders", 1).await;
    assert_ne!(first.topic, second.topic);
    assert_eq!(values(log, second).await, Vec::<String>::new());
    publish(log, second, &["new"]).await;
    assert_eq!(values(log, second).await, ["new"]);
}

async fn events_come_back_in_order_with_growing_offsets(log: &dyn Engine) {
    let tp = topic(log, "orders", 1).await;
    let other = topic(log, "other", 1).await;
    let mut expected = Vec::new();
    for n in 0..200 {
        let (a, b) = (format!("a{n} {}", "x".repeat(n * 7)), format!("b{n}"));
        publish(log, tp, &[&a, &b]).await;
        publish(log, other, &["noise"]).await;
        expected.extend([a, b]);
    }
    assert_eq!(values(log, tp).await, expected);
}

async fn a_read_begins_anywhere(log: &dyn Engine) {
    let tp = topic(log, "orders", 1).await;
    for n in 0..50 {
        let values: Vec<String> = (0..=n % 5).map(|m| format!("{n}.{m} {}", "x".repeat(300))).collect();
        publish(log, tp, &values.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let all = read(log, tp, 0, ALL).await;
    for from in 0..log.bounds(tp).unwrap().end {
        let expected: Vec<_> = all.iter().filter(|(offset, _)| *offset >= from).cloned().collect();
        assert_eq!(read(log, tp, from, ALL).await, expected, "from {from}");
    }
}

async fn a_time_is_found_where_events_are_not_older(log: &dyn Engine) {
    let tp = topic(log, "orders", 1).await;
    assert_eq!(log.offset_at(tp, 0).await.unwrap(), 0);
    let times: Vec<i64> = (0..200).map(|n| n * 10 - n % 7 * 30).collect();
    for times in times.chunks(3) {
        let event = |time: &i64| Event { timestamp_us: Some(*time), ..Event::new(vec![b'x'; 400]) };
        let batch = Batch::from_events(&times.iter().map(event).collect::<Vec<_>>(), 0).unwrap();
        append_with(log, vec![(tp, batch)], AckLevel::Durable, None).await.unwrap();
    }
    let all = read(log, tp, 0, ALL).await;
    for time in (-200..2100).step_by(7) {
        let row = times.iter().position(|&at| at >= time);
        let expected = row.map_or_else(|| log.bounds(tp).unwrap().end, |row| all[row].0);
        assert_eq!(log.offset_at(tp, time).await.unwrap(), expected, "time {time}");
    }
}

async fn a_read_out_of_range_says_what_there_is(log: &dyn Engine) {
    let tp = topic(log, "orders", 1).await;
    assert!(log.read(tp, 0, ALL).await.unwrap().batches.is_empty());
    publish(log, tp, &["a"]).await;
    let bounds = log.bounds(tp).unwrap();
    assert!(log.read(tp, bounds.end, ALL).await.unwrap().batches.is_empty());
    match log.read(tp, bounds.end + 1, ALL).await {
        Err(LogError::OutOfRange { asked, end, .. }) => assert_eq!((asked, end), (bounds.end + 1, bounds.end)),
        other => panic!("{other:?}"),
    }
    let partition = Tp { partition: 1, ..tp };
    let error = log.read(partition, 0, ALL).await.unwrap_err();
    assert_eq!(error.to_string(), "topic `orders` has 1 partitions, there is no partition 1");
}

async fn a_read_is_bounded(log: &dyn Engine) {
    let tp = topic(log, "orders", 1).await;
    for n in 0..40 {
        publish(log, tp, &[&format!("{n} {}", "x".repeat(1000))]).await;
    }
    let few = ReadLimits { bytes_max: 4000, events_max: usize::MAX };
    let chunk = log.read(tp, 0, few).await.unwrap();
    assert!((2..8).contains(&chunk.batches.len()), "{} batches", chunk.batches.len());
    let one = ReadLimits { bytes_max: 0, events_max: 0 };
    assert_eq!(log.read(tp, 0, one).await.unwrap().batches.len(), 1, "at least one, whatever the limits");
    assert_eq!(read(log, tp, 0, few).await, read(log, tp, 0, ALL).await);
    assert_eq!(read(log, tp, 0, one).await, read(log, tp, 0, ALL).await);
    let ten = ReadLimits { bytes_max: u64::MAX, events_max: 10 };
    assert_eq!(log.read(tp, 0, ten).await.unwrap().batches.len(), 10);
}

async fn one_append_reaches_several_partitions(log: &dyn Engine) {
    let orders = topic(log, "orders", 2).await;
    let audit = topic(log, "audit", 1).await;
    let second = Tp { partition: 1, ..orders };
    let batches =
        vec![(orders, batch(&["a"])), (second, batch(&["b", "c"])), (audit, batch(&["d"])), (orders, batch(&["e"]))];
    let appended = append_with(log, batches, AckLevel::Durable, None).await.unwrap();
    assert_eq!(appended.ranges.iter().map(|range| range.tp).collect::<Vec<_>>(), [orders, second, audit, orders]);
    assert!(appended.ranges[0].last < appended.ranges[3].first);
    assert_eq!(values(log, orders).await, ["a", "e"]);
    assert_eq!(values(log, second).await, ["b", "c"]);
    assert_eq!(values(log, audit).await, ["d"]);
}

async fn every_ack_level_is_answered(log: &dyn Engine) {
    let tp = topic(log, "orders", 1).await;
    for ack in [AckLevel::None, AckLevel::Written, AckLevel::Durable] {
        let appended = append_with(log, vec![(tp, batch(&["a"]))], ack, None).await.unwrap();
        assert!(appended.ack == ack || appended.ack == AckLevel::Durable, "no weaker than asked for");
    }
    // The last one was durable, so the ones before it are.
    assert_eq!(values(log, tp).await, ["a", "a", "a"]);
}

async fn an_append_that_cannot_be_is_refused_whole(log: &dyn Engine) {
    let tp = topic(log, "orders", 1).await;
    let nowhere = Tp { partition: 9, ..tp };
    let refused = append_with(log, vec![(tp, batch(&["a"])), (nowhere, batch(&["b"]))], AckLevel::Durable, None).await;
    assert!(matches!(refused, Err(LogError::UnknownPartition { .. })));
    assert!(matches!(append_with(log, Vec::new(), AckLevel::Durable, None).await, Err(LogError::Empty)));

    let half = Batch::from_events(&[Event::new(vec![0u8; 40 << 20])], 0).unwrap();
    let room = log.room(0).await.unwrap();
    let append = Append { batches: vec![(tp, half.clone()), (tp, half)], ack: AckLevel::Durable, producer: None, room };
    assert!(matches!(log.append(append).err(), Some(LogError::TransactionTooLarge { .. })));
    assert!(matches!(log.room(u64::MAX).await, Err(LogError::TransactionTooLarge { .. })));
    assert_eq!(values(log, tp).await, Vec::<String>::new());
}

async fn a_follower_is_woken(log: &dyn Engine) {
    let tp = topic(log, "orders", 1).await;
    let mut end = log.follow(tp).unwrap();
    assert_eq!(*end.borrow_and_update(), 0);
    publish(log, tp, &["a", "b"]).await;
    end.changed().await.unwrap();
    assert_eq!(*end.borrow_and_update(), log.bounds(tp).unwrap().end);
    log.delete_topic(&name("orders")).unwrap().await.unwrap();
    assert!(end.changed().await.is_err(), "a follower of a deleted topic is told");
}

async fn changes_are_broadcast(log: &dyn Engine) {
    let mut changes = log.changes();
    let tp = topic(log, "orders", 1).await;
    publish(log, tp, &["a"]).await;
    log.delete_topic(&name("orders")).unwrap().await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(changes.recv().await.unwrap().iter().cloned());
    }
    let Change::End(moved, end) = &seen[1] else { panic!("{seen:?}") };
    assert!(matches!(&seen[0], Change::Topic(topic) if topic.name == name("orders")));
    assert!(*moved == tp && *end > 0);
    assert_eq!(seen[2], Change::TopicDeleted(tp.topic, name("orders")));
}

async fn a_repeated_request_is_appended_once(log: &dyn Engine) {
    if !log.capabilities().idempotent_producers {
        return;
    }
    let tp = topic(log, "orders", 1).await;
    let send = async |first, count, value: &str| {
        let range = ProducerRange { producer: ProducerId(5), epoch: 0, first, count };
        append_with(log, vec![(tp, batch(&[value]))], AckLevel::Durable, Some(range)).await
    };
    send(0, 1, "a").await.unwrap();
    match send(0, 1, "a again").await {
        Err(LogError::Producer(ProducerError::Repeated { first: 0, next: 1, .. })) => {}
        other => panic!("{other:?}"),
    }
    send(1, 3, "b").await.unwrap();
    match send(2, 3, "half of it is known").await {
        Err(LogError::Producer(ProducerError::Repeated { first: 2, next: 4, .. })) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(send(9, 1, "?").await, Err(LogError::Producer(ProducerError::OutOfSequence { expected: 4, .. }))));
    log.barrier().unwrap().await.unwrap();
    assert_eq!(values(log, tp).await, ["a", "b"]);
}

/// Events with these ids, whose values are made of the id and a mark.
fn with_ids(ids: &str, mark: &str) -> Batch {
    let event = |id: char| Event::new(format!("{id}{mark}")).with_id(id.to_string());
    Batch::from_events(&ids.chars().map(event).collect::<Vec<_>>(), 1).unwrap()
}

async fn an_event_whose_id_is_known_is_not_appended_again(log: &dyn Engine) {
    let tp = topic(log, "orders", 2).await;
    let other = Tp { partition: 1, ..tp };
    let send = async |batches: Vec<(Tp, Batch)>, producer| {
        append_with(log, batches, AckLevel::Durable, producer).await.unwrap()
    };
    let places = |appended: &Appended| -> Vec<(usize, u32)> {
        appended.duplicates.iter().map(|place| (place.batch, place.row)).collect()
    };
    let first = send(vec![(tp, with_ids("abc", "1"))], None).await;
    assert_eq!((first.ranges.len(), places(&first)), (1, vec![]));
    // Whichever partition it is for, and also when it is twice in one append.
    let second =
        send(vec![(tp, with_ids("xbx", "2")), (other, with_ids("ca", "2")), (other, with_ids("yxz", "2"))], None).await;
    assert_eq!(places(&second), [(0, 1), (0, 2), (1, 0), (1, 1), (2, 1)]);
    assert_eq!(second.ranges.iter().map(|range| range.tp.partition).collect::<Vec<_>>(), [0, 1]);
    // Nothing is left: it resolves when what it repeats is durable, and a producer goes on.
    let range = |first| Some(ProducerRange { producer: ProducerId(5), epoch: 0, first, count: 1 });
    let third = send(vec![(other, with_ids("zb", "3"))], range(0)).await;
    assert_eq!((third.ranges.len(), places(&third)), (0, vec![(0, 0), (0, 1)]));
    send(vec![(other, with_ids("w", "4"))], range(1)).await;
    assert_eq!(values(log, tp).await, ["a1", "b1", "c1", "x2"]);
    assert_eq!(values(log, other).await, ["y2", "z2", "w4"]);

    // Another topic, and one that does not remember.
    let elsewhere = topic(log, "elsewhere", 1).await;
    assert_eq!(places(&send(vec![(elsewhere, with_ids("a", "5"))], None).await), []);
    let off = TopicChange { deduplicate_us: Some(None), ..TopicChange::default() };
    log.change_topic(&name("elsewhere"), &off).unwrap().await.unwrap();
    assert_eq!(places(&send(vec![(elsewhere, with_ids("a", "6"))], None).await), []);
    assert_eq!(values(log, elsewhere).await, ["a5", "a6"]);
}

async fn what_a_component_emits_is_remembered_and_never_left_out(log: &dyn Engine) {
    let tp = topic(log, "orders", 1).await;
    let task = task(tp);
    let lease = begin(log, task).await;
    append_with(log, vec![(tp, with_ids("a", "1"))], AckLevel::Durable, None).await.unwrap();
    let emitted = Transaction { appends: vec![(tp, with_ids("ab", "2"))], ..transaction(&lease, None, 1) };
    assert_eq!(log.commit(emitted).unwrap().await.unwrap().duplicates, []);
    let again = append_with(log, vec![(tp, with_ids("bc", "3"))], AckLevel::Durable, None).await.unwrap();
    assert_eq!(again.duplicates.len(), 1);
    assert_eq!(values(log, tp).await, ["a1", "a2", "b2", "c3"]);
}

fn task(tp: Tp) -> TaskKey {
    TaskKey { owner: OwnerId(1), source: tp }
}

async fn begin(log: &dyn Engine, task: TaskKey) -> TaskLease {
    log.begin_task(task).unwrap().await.unwrap()
}

fn transaction(lease: &TaskLease, expect: Option<Offset>, next: Offset) -> Transaction {
    Transaction { task: lease.task, epoch: lease.epoch, expect, next, appends: Vec::new(), state: Vec::new() }
}

fn table(entries: &[(&str, Option<&str>)]) -> StateChange {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    StateChange {
        table: name("seen"),
        entries: entries.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect(),
    }
}

fn get(log: &dyn Engine, task: TaskKey, key: &str) -> Option<Bytes> {
    log.state_get(task, &name("seen"), &[Bytes::copy_from_slice(key.as_bytes())]).unwrap().remove(0)
}

async fn a_transaction_commits_outputs_position_and_state(log: &dyn Engine) {
    let input = topic(log, "in", 1).await;
    let output = topic(log, "out", 1).await;
    let lease = begin(log, task(input)).await;
    assert_eq!(lease.next, None);
    let first = Transaction {
        appends: vec![(output, batch(&["a"]))],
        state: vec![table(&[("k", Some("1")), ("gone", Some("x"))])],
        ..transaction(&lease, None, 10)
    };
    let committed = log.commit(first).unwrap().await.unwrap();
    assert_eq!(committed.ranges[0].tp, output);
    let second = Transaction { state: vec![table(&[("gone", None)])], ..transaction(&lease, Some(10), 10) };
    log.commit(second).unwrap().await.unwrap();

    assert_eq!(values(log, output).await, ["a"]);
    assert_eq!(log.task_position(task(input)).next, Some(10));
    assert_eq!(get(log, task(input), "k"), Some(Bytes::from("1")));
    assert_eq!(get(log, task(input), "gone"), None);
    assert_eq!(get(log, TaskKey { owner: OwnerId(2), source: input }, "k"), None, "tables are not shared");
}

async fn a_transaction_from_the_wrong_place_is_refused(log: &dyn Engine) {
    let input = topic(log, "in", 1).await;
    let output = topic(log, "out", 1).await;
    let lease = begin(log, task(input)).await;
    log.commit(transaction(&lease, None, 10)).unwrap().await.unwrap();
    let wrong = |expect, next| Transaction {
        appends: vec![(output, batch(&["never"]))],
        state: vec![table(&[("never", Some("1"))])],
        ..transaction(&lease, expect, next)
    };
    let refused = log.commit(wrong(None, 20)).err().unwrap();
    assert_eq!(refused.to_string(), "the position is Some(10), the transaction expects None");
    assert!(matches!(log.commit(wrong(Some(9), 20)).err(), Some(LogError::PositionMoved { .. })));
    let back = log.commit(wrong(Some(10), 5)).err().unwrap();
    assert_eq!(back.to_string(), "a position cannot move back from 10 to 5");
    assert_eq!(values(log, output).await, Vec::<String>::new());
    assert_eq!(get(log, task(input), "never"), None);
    assert_eq!(log.task_position(task(input)).next, Some(10));
}

async fn a_transaction_of_an_earlier_worker_is_refused(log: &dyn Engine) {
    let input = topic(log, "in", 1).await;
    let first = begin(log, task(input)).await;
    log.commit(transaction(&first, None, 1)).unwrap().await.unwrap();
    let second = begin(log, task(input)).await;
    assert_eq!((second.next, second.epoch), (Some(1), first.epoch + 1));
    let refused = log.commit(transaction(&first, Some(1), 2)).err().unwrap();
    assert!(matches!(refused, LogError::Fenced { .. }), "{refused}");
    log.commit(transaction(&second, Some(1), 2)).unwrap().await.unwrap();
}

async fn state_is_ordered_and_scanned_in_pages(log: &dyn Engine) {
    let input = topic(log, "in", 1).await;
    let lease = begin(log, task(input)).await;
    let keys: Vec<String> = (0..20).map(|n| format!("k{n:02}")).collect();
    let entries: Vec<(&str, Option<&str>)> = keys.iter().rev().map(|key| (key.as_str(), Some("value"))).collect();
    log.commit(Transaction { state: vec![table(&entries)], ..transaction(&lease, None, 0) }).unwrap().await.unwrap();
    let scan = |start: &str, end: Option<&str>, count_max, bytes_max| {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let scan = StateScan { start: bytes(start), end: end.map(bytes), count_max, bytes_max };
        let found = log.state_scan(task(input), &name("seen"), &scan).unwrap();
        found.into_iter().map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(scan("", None, usize::MAX, usize::MAX), keys);
    assert_eq!(scan("k05", Some("k08"), usize::MAX, usize::MAX), ["k05", "k06", "k07"]);
    assert_eq!(scan("k05", None, 2, usize::MAX), ["k05", "k06"]);
    assert_eq!(scan("k05", None, usize::MAX, 1), ["k05"], "at least one, however small the page");
    assert_eq!(scan("z", None, 2, usize::MAX), Vec::<String>::new());
    assert_eq!(scan("k05", Some("k01"), 2, usize::MAX), Vec::<String>::new());
}

async fn a_task_that_is_reset_goes_on_elsewhere(log: &dyn Engine) {
    let input = topic(log, "in", 1).await;
    let lease = begin(log, task(input)).await;
    let other = StateChange { table: name("other"), ..table(&[("k", Some("2"))]) };
    let state = vec![table(&[("k", Some("1"))]), other];
    log.commit(Transaction { state, ..transaction(&lease, None, 10) }).unwrap().await.unwrap();
    let other = |task| log.state_get(task, &name("other"), &[Bytes::from("k")]).unwrap().remove(0);

    // Backwards, with everything that it remembers.
    log.reset_tasks(vec![lease.reset(Some(4), Forget::These(Vec::new()))]).unwrap().await.unwrap();
    assert_eq!(log.task_position(task(input)).next, Some(4));
    assert_eq!((get(log, task(input), "k"), other(task(input))), (Some(Bytes::from("1")), Some(Bytes::from("2"))));
    let refused = log.commit(transaction(&lease, Some(4), 11)).err().unwrap();
    assert!(matches!(refused, LogError::Fenced { .. }), "whoever worked for it did so from elsewhere: {refused}");
    let lease = begin(log, task(input)).await;
    assert_eq!(lease.next, Some(4));
    log.commit(transaction(&lease, Some(4), 5)).unwrap().await.unwrap();

    // To its beginning, and with one table less.
    log.reset_tasks(vec![lease.reset(None, Forget::AllBut(vec![name("other")]))]).unwrap().await.unwrap();
    assert_eq!(log.task_position(task(input)).next, None);
    assert_eq!((get(log, task(input), "k"), other(task(input))), (None, Some(Bytes::from("2"))));
    let lease = begin(log, task(input)).await;
    let commit = Transaction { state: vec![table(&[("k", Some("3"))])], ..transaction(&lease, None, 1) };
    log.commit(commit).unwrap().await.unwrap();

    // Forwards, and with the other one less.
    log.reset_tasks(vec![lease.reset(Some(20), Forget::These(vec![name("other")]))]).unwrap().await.unwrap();
    assert_eq!((get(log, task(input), "k"), other(task(input))), (Some(Bytes::from("3")), None));
    assert_eq!(begin(log, task(input)).await.next, Some(20));
}

async fn tasks_are_reset_all_or_none(log: &dyn Engine) {
    let input = topic(log, "in", 2).await;
    let second = Tp { partition: 1, ..input };
    let nowhere = Tp { partition: 2, ..input };
    let lease = begin(log, task(input)).await;
    let of_second = begin(log, task(second)).await;
    log.commit(transaction(&lease, None, 10)).unwrap().await.unwrap();
    let reset = |leases: &[TaskLease]| {
        let of = |lease: &TaskLease| lease.reset(Some(3), Forget::These(Vec::new()));
        log.reset_tasks(leases.iter().map(of).collect())
    };
    let at_nowhere = TaskLease { task: task(nowhere), ..lease };
    assert!(matches!(reset(&[lease, at_nowhere]).err(), Some(LogError::UnknownPartition { .. })));
    let latest = begin(log, task(second)).await;
    assert!(matches!(reset(&[lease, of_second]).err(), Some(LogError::Fenced { .. })));
    assert_eq!(log.task_position(task(input)), TaskPosition { epoch: lease.epoch, next: Some(10) });

    let other_owner = TaskKey { owner: OwnerId(2), source: input };
    begin(log, other_owner).await;
    reset(&[lease, latest]).unwrap().await.unwrap();
    assert_eq!([input, second].map(|tp| log.task_position(task(tp)).next), [Some(3), Some(3)]);
    assert!(matches!(reset(&[lease]).err(), Some(LogError::Fenced { .. })), "each lease is good for one");
    assert_eq!(log.task_position(other_owner), TaskPosition { epoch: 1, next: None });
    log.reset_tasks(Vec::new()).unwrap().await.unwrap();
}

async fn a_forgotten_deployment_starts_anew(log: &dyn Engine) {
    let input = topic(log, "in", 1).await;
    let lease = begin(log, task(input)).await;
    let commit = Transaction { state: vec![table(&[("k", Some("1"))])], ..transaction(&lease, None, 5) };
    log.commit(commit).unwrap().await.unwrap();
    log.forget_owner(OwnerId(1)).unwrap().await.unwrap();
    assert_eq!(log.task_position(task(input)).next, None);
    assert_eq!(get(log, task(input), "k"), None);
}

async fn metadata_changes_only_if_it_is_as_expected(log: &dyn Engine) {
    let mut version = log.meta_version();
    let put = |expect, value: Option<&'static str>| log.meta_put("deployment/a", expect, value.map(Bytes::from));
    let first = put(Expect::Absent, Some("1")).unwrap().await.unwrap();
    version.changed().await.unwrap();
    assert_eq!(*version.borrow_and_update(), first);
    let entry = log.meta_get("deployment/a").await.unwrap().unwrap();
    assert_eq!((entry.value, entry.version), (Bytes::from("1"), first));

    let refused = put(Expect::Absent, Some("2")).err().unwrap();
    assert!(matches!(refused, LogError::MetaConflict { .. }), "{refused}");
    let second = put(Expect::Version(first), Some("2")).unwrap().await.unwrap();
    assert!(second > first);
    assert!(put(Expect::Version(first), Some("3")).is_err());
    put(Expect::Any, Some("3")).unwrap().await.unwrap();

    log.meta_put("deployment/b", Expect::Any, Some(Bytes::from("b"))).unwrap().await.unwrap();
    log.meta_put("other", Expect::Any, Some(Bytes::from("o"))).unwrap().await.unwrap();
    let listed = log.meta_list("deployment/").await.unwrap();
    assert_eq!(listed.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["deployment/a", "deployment/b"]);
    put(Expect::Any, None).unwrap().await.unwrap();
    assert_eq!(log.meta_get("deployment/a").await.unwrap(), None);
    let large = log.meta_put("x", Expect::Any, Some(Bytes::from(vec![0; 2 << 20]))).err().unwrap();
    assert_eq!(large.to_string(), "metadata entry `x` has 2097152 bytes, at most 1048576 are allowed");
}
