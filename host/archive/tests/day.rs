//! A day of a topic to which an event comes every minute, on a clock that is turned by hand.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what it found")]

use nodata_archive::{ArchiveFiles, ArchiveOptions, Archiver};
use nodata_log::fs::Fs;
use nodata_log::fs::simulated::{Faults, SimulatedFs};
use nodata_log::{
    AckLevel, Append, Batch, Clock, EmbeddedLog, Event, Log, Name, Options, TimestampUs, TopicConfig, Tp,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const MINUTE_US: i64 = 60_000_000;
/// Midnight.
const START_US: i64 = 1_700_006_400_000_000;

#[derive(Debug)]
struct TurnedClock(AtomicI64);

impl Clock for TurnedClock {
    fn now_us(&self) -> TimestampUs {
        self.0.load(Ordering::Relaxed)
    }
}

#[allow(clippy::disallowed_methods, reason = "a test has no settings")]
fn topics() -> u32 {
    std::env::var("NODATA_DAY_TOPICS").ok().and_then(|topics| topics.parse().ok()).unwrap_or(3)
}

/// What a day of slow topics leaves. `NODATA_DAY_TOPICS=1000 cargo test --release -p nodata-archive --test day -- --nocapture` says
/// it for a thousand.
#[tokio::test]
async fn slow_topics_leave_few_files() {
    let topics = topics();
    let disk = Arc::new(SimulatedFs::new(Faults::default()));
    let clock = Arc::new(TurnedClock(AtomicI64::new(START_US)));
    let files = Arc::new(ArchiveFiles::new(disk.clone()));
    let options = Options {
        segment_bytes: 1 << 20,
        first_segment_bytes: 1 << 20,
        hot_bytes: 0,
        checkpoint_log_bytes: 256 << 10,
        archive: Some(files.clone()),
        ..Options::new(1)
    };
    let (log, _) = EmbeddedLog::open(options, "sim", disk.clone(), clock.clone()).unwrap();
    log.start().unwrap();
    let log = Arc::new(log);
    let mut partitions: Vec<Tp> = Vec::new();
    for topic in 0..topics {
        let name = Name::new(&format!("slow-{topic}")).unwrap();
        let topic = log.create_topic(name, TopicConfig::default()).unwrap().await.unwrap();
        partitions.extend(topic.partitions());
    }
    let archiver = Archiver::new(disk.clone(), log.clone(), files, clock.clone(), ArchiveOptions::default());
    archiver.take_over().await.unwrap();

    let (mut oldest, mut log_bytes) = (0, 0);
    for minute in 0..24 * 60 {
        for tp in &partitions {
            let batch = Batch::from_events(&[Event::new(format!("{{\"minute\":{minute}}}"))], clock.now_us()).unwrap();
            let room = log.room(1).await.unwrap();
            let append = Append { batches: vec![(*tp, batch)], ack: AckLevel::Durable, producer: None, room };
            log.append(append).unwrap().await.unwrap();
        }
        clock.0.fetch_add(MINUTE_US, Ordering::Relaxed);
        archiver.tick().await.unwrap();
        let waiting = log.unarchived().iter().map(|waiting| clock.now_us() - waiting.oldest_us).max().unwrap_or(0);
        oldest = oldest.max(waiting / MINUTE_US);
        let wal = disk.list("wal").unwrap();
        let bytes = wal.iter().filter(|entry| !entry.name.starts_with("spare")).map(|entry| entry.bytes).sum::<u64>();
        log_bytes = log_bytes.max(bytes);
    }
    let archives: Vec<_> = partitions.iter().map(|tp| log.archive(*tp).unwrap()).collect();
    let all = || archives.iter().flat_map(|archive| archive.files.values());
    let (count, bytes): (usize, u64) = (all().count(), all().map(|file| file.bytes).sum());
    eprintln!(
        "{topics} topics: {count} files, {} KiB, the oldest event in no file {oldest} minutes old, {} KiB of log at most",
        bytes >> 10,
        log_bytes >> 10
    );
    let rows: u64 = all().map(|file| file.rows).sum();
    let waiting: u64 = partitions.iter().zip(&archives).map(|(tp, at)| log.bounds(*tp).unwrap().end - at.end).sum();
    assert_eq!(rows + waiting, 1440 * u64::from(topics));
    assert!(count <= 8 * topics as usize, "{count} files");
    assert!(bytes < (2 << 20) * u64::from(topics) && oldest <= 10, "{bytes} bytes, {oldest} minutes");
}
