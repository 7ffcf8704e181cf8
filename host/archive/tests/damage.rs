//! What rots in a file is noticed before it is written anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nodata_archive::{ArchiveFiles, ArchiveOptions, Archiver};
use nodata_log::fs::simulated::{Faults, SimulatedFs};
use nodata_log::fs::{Fs, read_file};
use nodata_log::{AckLevel, Append, Batch, EmbeddedLog, Event, Log, Name, Options, SystemClock, TopicConfig, Tp};
use std::sync::Arc;

async fn publish(log: &EmbeddedLog, tp: Tp) {
    let batch = Batch::from_events(&[Event::new("a value")], 5).unwrap();
    let room = log.room(1).await.unwrap();
    let append = Append { batches: vec![(tp, batch)], ack: AckLevel::Durable, producer: None, room };
    log.append(append).unwrap().await.unwrap();
}

#[tokio::test]
async fn a_file_whose_footer_rotted_does_not_grow() {
    let disk = SimulatedFs::new(Faults::default());
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let files = Arc::new(ArchiveFiles::new(fs.clone()));
    let sizes = Options { segment_bytes: 1 << 20, first_segment_bytes: 1 << 20, ..Options::new(1) };
    let options = Options { archive: Some(files.clone()), ..sizes };
    let (log, _) = EmbeddedLog::open(options, "sim", fs.clone(), Arc::new(SystemClock)).unwrap();
    log.start().unwrap();
    let log = Arc::new(log);
    let topic = log.create_topic(Name::new("orders").unwrap(), TopicConfig::default()).unwrap().await.unwrap();
    let tp = topic.partitions().next().unwrap();
    let archiver = Archiver::new(fs.clone(), log.clone(), files, Arc::new(SystemClock), ArchiveOptions::default());
    archiver.take_over().await.unwrap();
    publish(&log, tp).await;
    archiver.flush(tp).await.unwrap();

    let file = log.archive(tp).unwrap().files.values().next().unwrap().clone();
    let dir = "data/topic=orders/partition=0";
    let date = fs.list(dir).unwrap().remove(0).name;
    let path = format!("{dir}/{date}/{:020}.parquet", file.base);
    let whole = read_file(&*fs, &path).unwrap();
    publish(&log, tp).await;
    for at in [file.footer_at, (file.footer_at + file.bytes) / 2, file.bytes - 1] {
        disk.flip_bit(&path, at, 3).unwrap();
        let refused = archiver.flush(tp).await.unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{path}: ")) && refused.contains("footer has the checksum"), "{refused}");
        disk.flip_bit(&path, at, 3).unwrap();
        assert_eq!(read_file(&*fs, &path).unwrap(), whole, "nothing was written over it");
    }
    archiver.flush(tp).await.unwrap();
    assert_eq!(log.archive(tp).unwrap().files[&file.base].rows, 2);
}
