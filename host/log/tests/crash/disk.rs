//! The disk fails, or is full.

use crate::model::now;
use crate::workload::{History, open, open_with, options, step};
use bytes::Bytes;
use nodata_log::fs::simulated::{Chance, Crash, Faults, SimulatedFs};
use nodata_log::fs::{self, Fs, SyncSite};
use nodata_log::{
    AckLevel, Append, Batch, EmbeddedLog, Event, Log, LogError, Name, OpenError, OwnerId, Pending, SystemClock,
    TaskKey, TopicConfig, Tp, Transaction,
};
use std::io;
use std::sync::Arc;

/// One life in which one call fails, and the next one. An error of the log ends the process; what it has promised is there.
#[test]
fn an_error_at_every_call_loses_nothing_that_was_promised() {
    for seed in 0..4 {
        let mut error_at = 0;
        loop {
            let fs = SimulatedFs::new(Faults { error_at: Some(error_at), ..Faults::default() });
            let context = format!("seed {seed} error at {error_at}");
            let mut chance = Chance::new(seed);
            let mut history = History::default();
            for life in 0..2 {
                let log = match open_with(&fs, &history.files, seed * 100 + life) {
                    Ok(log) => log,
                    Err(OpenError::Io { source, .. }) if source.to_string() == "simulated I/O error" => continue,
                    Err(OpenError::Checkpoint { what, .. }) if what.contains("simulated I/O error") => continue,
                    Err(error) => panic!("{context}: {error}"),
                };
                history.check(&log, &context);
                for _ in 0..60 {
                    if step(&log, &mut history, &mut chance).is_err() {
                        break;
                    }
                }
                history.collect();
                drop(log);
                match chance.below(2) {
                    0 => fs.kill(),
                    _ => fs.crash(Crash { seed: chance.number(), sector_bytes: 512 }),
                }
            }
            let was_reached = fs.calls() > error_at;
            fs.set_faults(Faults::default());
            history.check(
                &open_with(&fs, &history.files, 99).unwrap_or_else(|error| panic!("{context}: {error}")),
                &context,
            );
            if !was_reached {
                break;
            }
            error_at += 1;
        }
        assert!(error_at > 50, "the run was long enough to mean something");
    }
}

/// After a failed write or sync the log takes nothing more, and says that nobody knows.
#[test]
fn after_a_failed_sync_the_log_is_over() {
    let fs = SimulatedFs::new(Faults::default());
    let failed = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = failed.clone();
    let options = nodata_log::Options {
        on_failure: Arc::new(move |error| seen.lock().unwrap().push(error.to_string())),
        ..options(1)
    };
    let (log, _) = EmbeddedLog::open(options, "sim", Arc::new(fs.clone()), Arc::new(SystemClock)).unwrap();
    let topic = log.create_topic(Name::new("orders").unwrap(), TopicConfig::default()).unwrap();
    // The write is the first call, the sync the second.
    fs.set_faults(Faults { error_at: Some(1), ..Faults::default() });
    assert!(log.by_hand().write_group().is_err());
    assert!(matches!(now(topic), Some(Err(LogError::Failed { .. }))));
    assert_eq!(*failed.lock().unwrap(), ["simulated I/O error"]);
    let refused = log.create_topic(Name::new("more").unwrap(), TopicConfig::default()).err().unwrap();
    assert!(matches!(refused, LogError::Failed { .. }));
    assert!(!log.by_hand().write_group().unwrap(), "nothing is written any more");
    assert!(log.topics().is_empty(), "and nothing of it is seen");
}

fn publish(log: &EmbeddedLog, tp: Tp, bytes: usize) -> Result<Pending<()>, LogError> {
    let batch = Batch::from_events(&[Event::new(vec![b'v'; bytes])], 0).unwrap();
    let room = now(log.room(bytes as u64)).unwrap().unwrap();
    let pending = log.append(Append { batches: vec![(tp, batch)], ack: AckLevel::Durable, producer: None, room })?;
    Ok(Box::pin(async move { pending.await.map(|_| ()) }))
}

#[test]
fn a_full_disk_refuses_events_before_the_log_is_full_and_takes_them_again_when_there_is_space() {
    // The reserve is a whole MiB, so segments are larger here.
    let options = || nodata_log::Options { segment_bytes: 4 << 20, first_segment_bytes: 4 << 20, ..options(1) };
    let fs = SimulatedFs::new(Faults { capacity: Some(22 << 20), ..Faults::default() });
    let (log, _) = EmbeddedLog::open(options(), "sim", Arc::new(fs.clone()), Arc::new(SystemClock)).unwrap();
    let topic = log.create_topic(Name::new("orders").unwrap(), TopicConfig::default()).unwrap();
    log.by_hand().write_group().unwrap();
    let tp = Tp { topic: now(topic).unwrap().unwrap().id, partition: 0 };
    let lease = log.begin_task(TaskKey { owner: OwnerId(1), source: tp }).unwrap();
    log.by_hand().write_group().unwrap();
    let lease = now(lease).unwrap().unwrap();

    let mut acknowledged = 0u64;
    let refused = loop {
        log.by_hand().prepare();
        match publish(&log, tp, 100_000) {
            Ok(pending) => {
                assert!(log.by_hand().write_group().unwrap(), "what was taken is written");
                now(pending).expect("what was written is acknowledged").unwrap();
                acknowledged += 1;
            }
            Err(error) => break error,
        }
        assert!(acknowledged < 1000);
    };
    assert_eq!(
        refused.to_string(),
        "the disk is full: nothing more is taken until there is space; what was acknowledged is safe"
    );
    assert!(acknowledged > 100, "{acknowledged}");
    assert_eq!(log.bounds(tp).unwrap().end, acknowledged);

    // What holds no events still works: a consumer can go on, a topic can be deleted.
    let advance = |expect, next| Transaction {
        task: lease.task,
        epoch: lease.epoch,
        expect,
        next,
        appends: Vec::new(),
        state: Vec::new(),
    };
    let committed = log.commit(advance(None, 7)).unwrap();
    log.by_hand().write_group().unwrap();
    now(committed).unwrap().unwrap();

    fs.set_faults(Faults { capacity: Some(64 << 20), ..Faults::default() });
    log.by_hand().prepare();
    let pending = publish(&log, tp, 100_000).expect("there is space again");
    log.by_hand().write_group().unwrap();
    now(pending).unwrap().unwrap();
    drop(log);

    fs.crash(Crash { seed: 3, sector_bytes: 512 });
    let (log, _) = EmbeddedLog::open(options(), "sim", Arc::new(fs), Arc::new(SystemClock)).unwrap();
    assert_eq!(log.bounds(tp).unwrap().end, acknowledged + 1);
    assert_eq!(log.task_position(lease.task).next, Some(7));
}

/// Random users on a disk that is nearly full: they are refused, and nothing is lost.
#[test]
fn a_nearly_full_disk_loses_nothing_that_was_promised() {
    for seed in 0..30 {
        let fs = SimulatedFs::new(Faults { capacity: Some(300 << 10), ..Faults::default() });
        let mut chance = Chance::new(seed);
        let mut history = History::default();
        for life in 0..4 {
            let context = format!("seed {seed} life {life}");
            match open_with(&fs, &history.files, seed * 100 + life) {
                Ok(log) => {
                    history.check(&log, &context);
                    for _ in 0..150 {
                        step(&log, &mut history, &mut chance).unwrap_or_else(|()| panic!("{context}: the log failed"));
                    }
                    history.collect();
                }
                Err(OpenError::DiskFull { .. }) => {}
                Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {}
                Err(OpenError::Checkpoint { what, .. }) if what.contains("no storage space") => {}
                Err(error) => panic!("{context}: {error}"),
            }
            fs.crash(Crash { seed: chance.number(), sector_bytes: 512 });
        }
        fs.set_faults(Faults::default());
        history.check(&open_with(&fs, &history.files, 99).unwrap(), &format!("seed {seed}"));
    }
}

#[test]
fn a_disk_without_space_for_the_first_segment_is_told_apart() {
    let fs = SimulatedFs::new(Faults { capacity: Some(8 << 10), ..Faults::default() });
    let error = open(&fs, 1).err().unwrap();
    let known = matches!(error, OpenError::DiskFull { .. }) || error.to_string().contains("no storage space");
    assert!(known, "{error}");
}

/// A file that is written whole is there whole or not at all, and stays once it was said to be there.
fn whole_file_after_crash(crash_at: u64, seed: u64, lost_syncs: Option<SyncSite>) -> Result<bool, String> {
    let fs = SimulatedFs::new(Faults::default());
    fs.create_dir("components").unwrap();
    fs.sync_dir("", SyncSite::StoreName).unwrap();
    fs.set_faults(Faults { crash_at: Some(crash_at), lost_syncs, ..Faults::default() });
    let content = Bytes::from(vec![7; 5000]);
    let done = fs::write_file(&fs, "components", "a.wasm", &content).is_ok();
    let was_reached = fs.calls() > crash_at;
    fs.crash(Crash { seed, sector_bytes: 512 });
    match fs::read_file(&fs, "components/a.wasm") {
        Ok(found) if found != content => Err(format!("{} bytes of {}", found.len(), content.len())),
        Err(_) if done => Err("it is gone".to_owned()),
        _ => Ok(was_reached),
    }
}

#[test]
fn a_whole_file_is_there_whole_or_not_at_all() {
    for seed in 0..50 {
        let reached = (0..20).take_while(|&crash_at| whole_file_after_crash(crash_at, seed, None).unwrap()).count();
        assert_eq!(reached, 6, "remove what a crash left, create, write, sync, rename, sync of the folder");
    }
    for lost in [SyncSite::WholeFile, SyncSite::WholeFileName] {
        let noticed = (0..50).any(|seed| (0..8).any(|at| whole_file_after_crash(at, seed, Some(lost)).is_err()));
        assert!(noticed, "nobody notices when {lost:?} does nothing");
    }
}
