//! The log with its threads, on a real disk: many at once, waiting for room, stopping.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nodata_log::fs::real::RealFs;
use nodata_log::{
    AckLevel, Append, Batch, EmbeddedLog, Event, Log, LogError, Name, Offset, Options, OwnerId, ReadLimits,
    StateChange, SystemClock, TaskKey, TopicConfig, Tp, Transaction,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

fn open(dir: &TempDir, options: Options) -> Arc<EmbeddedLog> {
    let fs = Arc::new(RealFs::new(&dir.path().join("store")).unwrap());
    let (log, _) = EmbeddedLog::open(options, "store", fs, Arc::new(SystemClock)).unwrap();
    log.start().unwrap();
    Arc::new(log)
}

fn small() -> Options {
    // Segments roll, the ring forgets and checkpoints are written all the time.
    Options {
        segment_bytes: 256 << 10,
        first_segment_bytes: 64 << 10,
        ring_bytes: 64 << 10,
        checkpoint_log_bytes: 128 << 10,
        ..Options::new(11)
    }
}

async fn topic(log: &EmbeddedLog, name: &str, partitions: u32) -> Vec<Tp> {
    let config = TopicConfig { partitions, ..TopicConfig::default() };
    let topic = log.create_topic(Name::new(name).unwrap(), config).unwrap().await.unwrap();
    topic.partitions().collect()
}

fn batch(values: impl IntoIterator<Item = String>) -> Batch {
    let events: Vec<Event> = values.into_iter().map(Event::new).collect();
    Batch::from_events(&events, 1).unwrap()
}

async fn publish(log: &EmbeddedLog, tp: Tp, batch: Batch) -> Result<Offset, LogError> {
    let room = log.room(batch.encoded_len() as u64).await?;
    let appended =
        log.append(Append { batches: vec![(tp, batch)], ack: AckLevel::Durable, producer: None, room })?.await?;
    Ok(appended.ranges[0].first)
}

const SOME: ReadLimits = ReadLimits { bytes_max: 20_000, events_max: 300 };

async fn read(log: &EmbeddedLog, tp: Tp, from: Offset) -> (Vec<String>, Offset) {
    let chunk = log.read(tp, from, SOME).await.unwrap();
    let mut values = Vec::new();
    for stored in &chunk.batches {
        for (row, event) in stored.batch.events().enumerate() {
            if stored.offsets.at(row) >= from {
                values.push(String::from_utf8_lossy(event.value.unwrap()).into_owned());
            }
        }
    }
    (values, chunk.next)
}

/// Producers, a task that moves events from one topic to another, and a reader that follows, all at once; then a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_lose_nothing_and_keep_the_order() {
    const PRODUCERS: usize = 4;
    const BATCHES: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir, small());
    let input = topic(&log, "in", 1).await[0];
    let output = topic(&log, "out", 1).await[0];

    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let log = log.clone();
            tokio::spawn(async move {
                for number in 0..BATCHES {
                    let value = |row| format!("{producer} {number} {row} {}", "x".repeat(number % 97));
                    publish(&log, input, batch((0..number % 5 + 1).map(value))).await.unwrap();
                }
            })
        })
        .collect();
    let total: usize = PRODUCERS * (0..BATCHES).map(|number| number % 5 + 1).sum::<usize>();

    let mover = tokio::spawn({
        let log = log.clone();
        async move {
            let task = TaskKey { owner: OwnerId(1), source: input };
            let lease = log.begin_task(task).unwrap().await.unwrap();
            let (mut expect, mut next) = (None, 0);
            let mut end = log.follow(input).unwrap();
            while next < total as u64 {
                let (values, to) = read(&log, input, next).await;
                if values.is_empty() {
                    end.changed().await.unwrap();
                    continue;
                }
                let count = values.len().to_string().into();
                let state =
                    StateChange { table: Name::new("t").unwrap(), entries: vec![("count".into(), Some(count))] };
                let transaction = Transaction {
                    task,
                    epoch: lease.epoch,
                    expect,
                    next: to,
                    appends: vec![(output, batch(values))],
                    state: vec![state],
                };
                log.commit(transaction).unwrap().await.unwrap();
                (expect, next) = (Some(to), to);
            }
        }
    });

    let follow = async |log: &EmbeddedLog, tp: Tp| {
        let mut seen = Vec::new();
        let mut next = 0;
        let mut end = log.follow(tp).unwrap();
        while seen.len() < total {
            let (values, to) = read(log, tp, next).await;
            if values.is_empty() {
                end.changed().await.unwrap();
            }
            seen.extend(values);
            next = to;
        }
        seen
    };
    let seen = follow(&log, output).await;
    for producer in producers {
        producer.await.unwrap();
    }
    mover.await.unwrap();

    let in_order = |seen: &[String]| {
        let mut last = [(0, 0); PRODUCERS];
        for value in seen {
            let numbers: Vec<usize> = value.split(' ').take(3).map(|part| part.parse().unwrap()).collect();
            let at = (numbers[1], numbers[2] + 1);
            assert!(last[numbers[0]] < at, "{value}");
            last[numbers[0]] = at;
        }
    };
    assert_eq!(seen.len(), total);
    in_order(&seen);
    assert_eq!(follow(&log, input).await, seen, "what came out is what went in");

    log.stop();
    drop(log);
    let log = open(&dir, small());
    assert_eq!(follow(&log, output).await, seen, "and so it is after a restart");
    assert_eq!(log.task_position(TaskKey { owner: OwnerId(1), source: input }).next, Some(total as u64));
}

/// Room is waited for while nothing has been promised, and is given back when the events are durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_finds_no_room_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir, Options::new(3));
    let tp = topic(&log, "orders", 1).await[0];
    let all = nodata_log::limits::ROOM_BYTES / 2;
    let first = log.room(all).await.unwrap();
    let second = log.room(all).await.unwrap();
    let waits = tokio::spawn({
        let log = log.clone();
        async move { publish(&log, tp, batch(["late".to_owned()])).await.unwrap() }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!waits.is_finished(), "there is no room");
    let append = Append {
        batches: vec![(tp, batch(["first".to_owned()]))],
        ack: AckLevel::Durable,
        producer: None,
        room: first,
    };
    let appended = log.append(append).unwrap().await.unwrap();
    assert_eq!((appended.ranges[0].first, waits.await.unwrap()), (0, 1), "room comes back with the answer");
    drop(second);
}

/// More log than there may be makes publishers wait, until it is in files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_publishes_more_than_is_put_into_files_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir, Options { log_bytes_max: 1 << 20, hot_bytes: 0, ..small() });
    let tp = topic(&log, "orders", 1).await[0];
    let published = Arc::new(AtomicU64::new(0));
    let publisher = tokio::spawn({
        let (log, published) = (log.clone(), published.clone());
        async move {
            for _ in 0..200 {
                publish(&log, tp, batch(["x".repeat(20_000)])).await.unwrap();
                published.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let (mut files, mut most) = (0, 0);
    while !publisher.is_finished() {
        let before = published.load(Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let end = log.bounds(tp).unwrap().end;
        if published.load(Ordering::SeqCst) > before || end == log.archive(tp).unwrap().end {
            continue;
        }
        // Most likely it waits. A file lets it go on; that there is none behind the commit is nothing to the log.
        most = most.max(end - log.archive(tp).unwrap().end);
        let file = nodata_log::ArchiveFile {
            base: log.archive(tp).unwrap().end,
            end,
            rows: 1,
            bytes: 1,
            payload_bytes: 1,
            row_groups: 1,
            is_sealed: true,
            timestamp_min_us: 0,
            timestamp_max_us: 0,
            append_min_us: 0,
            append_max_us: 0,
            footer_at: 0,
            footer_crc: 0,
        };
        log.commit_file(tp, file).unwrap().await.unwrap();
        files += 1;
    }
    publisher.await.unwrap();
    assert!(files >= 2, "4 MB were published with room for 1 MiB ({files} files)");
    assert!(most < 100, "{most} events of 20 KB are in no file");
}

/// What was taken before the stop is durable and answered; what comes later is refused as not applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_drains_what_was_taken() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir, small());
    let tp = topic(&log, "orders", 1).await[0];
    let acked = Arc::new(AtomicU64::new(0));
    let producers: Vec<_> = (0..3)
        .map(|_| {
            let (log, acked) = (log.clone(), acked.clone());
            tokio::spawn(async move {
                loop {
                    match publish(&log, tp, batch(["x".to_owned()])).await {
                        Ok(_) => acked.fetch_add(1, Ordering::SeqCst),
                        Err(error) => return error,
                    };
                }
            })
        })
        .collect();
    while acked.load(Ordering::SeqCst) < 50 {
        tokio::task::yield_now().await;
    }
    tokio::task::block_in_place(|| log.stop());
    for producer in producers {
        let refused = producer.await.unwrap();
        assert!(matches!(refused, LogError::Stopping), "{refused}");
    }
    drop(log);
    let log = open(&dir, small());
    assert_eq!(
        log.bounds(tp).unwrap().end,
        acked.load(Ordering::SeqCst),
        "each was answered, and nothing else is there"
    );
}
