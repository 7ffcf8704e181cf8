//! A day of a topic to which an event comes every minute, on a clock that is turned by hand.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what it found")]

use nodata_archive::{ArchiveFiles, ArchiveOptions, Archiver};
use nodata_log::fs::Fs;
use nodata_log::fs::simulated::{Faults, SimulatedFs};
use nodata_log::{AckLevel, Append, Batch, Clock, EmbeddedLog, Event, Log, Name, Options, TimestampUs, TopicConfig};
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

/// What a day of one slow partition leaves. A thousand of them leave a thousand times as much.
#[tokio::test]
async fn a_slow_topic_leaves_few_files() {
    let disk: Arc<dyn Fs> = Arc::new(SimulatedFs::new(Faults::default()));
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
    let topic = log.create_topic(Name::new("slow").unwrap(), TopicConfig::default()).unwrap().await.unwrap();
    let tp = topic.partitions().next().unwrap();
    let archiver = Archiver::new(disk, log.clone(), files, clock.clone(), ArchiveOptions::default());
    archiver.take_over().await.unwrap();

    let mut oldest = 0;
    for minute in 0..24 * 60 {
        let batch = Batch::from_events(&[Event::new(format!("{{\"minute\":{minute}}}"))], clock.now_us()).unwrap();
        let room = log.room(1).await.unwrap();
        let append = Append { batches: vec![(tp, batch)], ack: AckLevel::Durable, producer: None, room };
        log.append(append).unwrap().await.unwrap();
        clock.0.fetch_add(MINUTE_US, Ordering::Relaxed);
        archiver.tick().await.unwrap();
        let waiting = log.unarchived().first().map_or(0, |waiting| clock.now_us() - waiting.oldest_us);
        oldest = oldest.max(waiting / MINUTE_US);
    }
    let archive = log.archive(tp).unwrap();
    let bytes: u64 = archive.files.values().map(|file| file.bytes).sum();
    eprintln!("{} files, {} KiB, the oldest event in no file {oldest} minutes old", archive.files.len(), bytes >> 10);
    assert_eq!(archive.files.values().map(|file| file.rows).sum::<u64>() + log.unarchived().len() as u64, 1440);
    assert!(archive.files.len() <= 8, "{} files", archive.files.len());
    assert!(bytes < 2 << 20 && oldest <= 10, "{bytes} bytes, {oldest} minutes");
}
