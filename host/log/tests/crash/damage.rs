//! Bits rot, files are cut and lost. What was acknowledged is either there, or it is said that it is not; never neither.

use crate::model::{dump, now, read_all};
use crate::workload::{Files, History, open, open_with, options, step};
use nodata_log::fs::Fs;
use nodata_log::fs::simulated::{Chance, Faults, SimulatedFs};
use nodata_log::{EmbeddedLog, Log, LogError, Name, OpenError, Options, SystemClock, TopicConfig};
use std::sync::Arc;

/// A store that was stopped in order, with its files, and what it knew. Of its log, at least so many bytes are there.
fn stopped_store(seed: u64, hot_bytes: u64) -> (SimulatedFs, Arc<Files>, String) {
    let fs = SimulatedFs::new(Faults::default());
    let mut chance = Chance::new(seed);
    let mut history = History::default();
    history.files = Arc::new(Files::keeping(hot_bytes));
    for life in 0..3 {
        let log = open_with(&fs, &history.files, seed * 10 + life).unwrap();
        history.check(&log, "before the damage");
        for _ in 0..80 {
            step(&log, &mut history, &mut chance).unwrap();
        }
        while log.by_hand().write_group().unwrap() {}
        log.by_hand().mark().unwrap();
        if life < 2 {
            log.by_hand().checkpoint().unwrap();
        }
        history.collect();
    }
    let log = open_with(&fs, &history.files, seed * 10 + 9).unwrap();
    let known = dump(&log).unwrap();
    drop(log);
    fs.kill();
    (fs, history.files, known)
}

fn files(fs: &SimulatedFs) -> Vec<(String, u64)> {
    let wal = fs.list("wal").unwrap().into_iter().map(|entry| (format!("wal/{}", entry.name), entry.bytes));
    wal.filter(|(path, _)| !path.contains("spare"))
        .chain(fs.list("").unwrap().into_iter().filter(|entry| !entry.is_dir).map(|entry| (entry.name, entry.bytes)))
        .collect()
}

/// Opens a damaged store. It is as it was, or it is refused and the file is named.
fn is_noticed_or_harmless(fs: &SimulatedFs, files: &Arc<Files>, known: &str, context: &str) -> bool {
    match open_with(fs, files, 77) {
        Ok(log) => {
            assert_eq!(dump(&log).unwrap(), known, "{context}: the store starts, and something is different");
            false
        }
        Err(error @ (OpenError::Damaged { .. } | OpenError::Format { .. } | OpenError::Newer { .. })) => {
            assert!(error.to_string().contains("wal") || error.to_string().contains("store"), "{context}: {error}");
            true
        }
        // It cannot be made anew from a log that does not reach back.
        Err(OpenError::Checkpoint { file, .. }) if files.hot_bytes == 0 => {
            assert_eq!(file, "meta.redb", "{context}");
            true
        }
        Err(error) => panic!("{context}: {error}"),
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_or_harmless() {
    let mut refused = 0;
    for seed in 0..6 {
        let (fs, events, known) = stopped_store(seed, 0);
        let mut chance = Chance::new(seed);
        for (path, bytes) in files(&fs) {
            for _ in 0..60 {
                let damaged = fs.fork();
                let (at, bit) = (chance.below(bytes), chance.below(8) as u32);
                damaged.flip_bit(&path, at, bit).unwrap();
                let noticed = is_noticed_or_harmless(
                    &damaged,
                    &events,
                    &known,
                    &format!("seed {seed}, bit {bit} of byte {at} of {path}"),
                );
                refused += u32::from(noticed);
            }
        }
    }
    assert!(refused > 100, "the damage was real ({refused})");
}

#[test]
fn a_file_that_was_cut_is_noticed_or_harmless() {
    let mut refused = 0;
    for seed in 0..6 {
        let (fs, events, known) = stopped_store(seed, 0);
        let mut chance = Chance::new(seed);
        for (path, bytes) in files(&fs) {
            for _ in 0..15 {
                let damaged = fs.fork();
                let keep = chance.below(bytes);
                damaged.truncate(&path, keep).unwrap();
                let noticed =
                    is_noticed_or_harmless(&damaged, &events, &known, &format!("seed {seed}, {keep} bytes of {path}"));
                refused += u32::from(noticed);
            }
        }
    }
    assert!(refused > 50, "the damage was real ({refused})");
}

#[test]
fn a_file_that_is_gone_is_noticed_or_harmless() {
    let (fs, events, known) = stopped_store(1, u64::MAX);
    let mut refused = Vec::new();
    for (path, _) in files(&fs) {
        let damaged = fs.fork();
        damaged.remove(&path).unwrap();
        if is_noticed_or_harmless(&damaged, &events, &known, &path) {
            refused.push(path);
        }
    }
    assert!(refused.contains(&"STORE".to_owned()));
    assert!(refused.iter().any(|path| path.starts_with("wal/")), "{refused:?}");
    assert!(!refused.contains(&"meta.redb".to_owned()), "the checkpoint is made anew from the log");
}

#[test]
fn a_checkpoint_that_rotted_is_made_anew_and_it_is_said() {
    let (fs, events, known) = stopped_store(2, u64::MAX);
    fs.truncate("meta.redb", 100).unwrap();
    let options = Options { archive: Some(events), ..options(5) };
    let opened = EmbeddedLog::open(options, "sim", Arc::new(fs), Arc::new(SystemClock));
    let (log, report) = opened.unwrap();
    assert_eq!(dump(&log).unwrap(), known);
    assert!(report.checkpoint_rebuilt.is_some(), "{report:?}");
    assert!(report.replayed > 0);

    // Where the log does not reach back to the beginning any more, that is said, and nothing is touched.
    let (fs, events, _) = stopped_store(2, 0);
    fs.truncate("meta.redb", 100).unwrap();
    let refused = open_with(&fs, &events, 5).err().unwrap().to_string();
    assert!(refused.starts_with("the checkpoint meta.redb cannot be used ("), "{refused}");
    assert!(refused.contains(") and the log does not reach back to the beginning. Restore"), "{refused}");
}

#[test]
fn a_torn_tail_is_dropped_and_it_is_said() {
    let fs = SimulatedFs::new(Faults::default());
    let log = open(&fs, 1).unwrap();
    let create = |name: &str| log.create_topic(Name::new(name).unwrap(), TopicConfig::default()).unwrap();
    let first = create("first");
    log.by_hand().write_group().unwrap();
    now(first).unwrap().unwrap();
    // The power goes while the second group is written: a bit of it is not what it should be.
    let second = create("second");
    fs.set_faults(Faults { crash_at: Some(0), ..Faults::default() });
    log.by_hand().write_group().unwrap_err();
    assert!(matches!(now(second), Some(Err(LogError::Failed { .. }))));
    drop(log);
    fs.kill();
    fs.flip_bit("wal/00000000000000000001.wal", 4096 + 4096 + 60, 0).unwrap();

    let (log, report) = EmbeddedLog::open(options(2), "sim", Arc::new(fs), Arc::new(SystemClock)).unwrap();
    let names: Vec<String> = log.topics().iter().map(|topic| topic.name.to_string()).collect();
    assert_eq!(names, ["first"]);
    assert!(report.torn_bytes > 0, "{report:?}");
    assert_eq!(report.checkpoint_rebuilt, None);
}

/// While the server runs, every batch is checked again when it is read from the disk.
#[test]
fn a_bit_that_rots_while_the_server_runs_is_noticed_by_the_reader() {
    let mut noticed = 0;
    for seed in 0..20 {
        let (fs, events, _) = stopped_store(seed, 0);
        let log = open_with(&fs, &events, 60).unwrap();
        let partitions: Vec<_> = log.topics().iter().flat_map(|topic| topic.partitions()).collect();
        let before: Vec<_> = partitions.iter().map(|tp| read_all(&log, *tp).unwrap()).collect();
        let mut chance = Chance::new(seed);
        for (path, bytes) in files(&fs).into_iter().filter(|(path, _)| path.starts_with("wal/")) {
            for _ in 0..20 {
                let (at, bit) = (chance.below(bytes), chance.below(8) as u32);
                fs.flip_bit(&path, at, bit).unwrap();
                for (tp, before) in partitions.iter().zip(&before) {
                    match read_all(&log, *tp) {
                        Ok(events) => assert_eq!(events, *before),
                        Err(LogError::Damaged { place, .. }) => {
                            assert!(place.starts_with("wal/"), "{place}");
                            noticed += 1;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                fs.flip_bit(&path, at, bit).unwrap();
            }
        }
    }
    assert!(noticed > 20, "the damage was real ({noticed})");
}

#[test]
fn two_servers_on_one_store_are_refused() {
    let fs = SimulatedFs::new(Faults::default());
    let first = open(&fs, 1).unwrap();
    let error = open(&fs, 2).err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(first);
    open(&fs, 3).unwrap();
}

#[test]
fn a_directory_with_other_things_in_it_is_refused_untouched() {
    let fs = SimulatedFs::new(Faults::default());
    fs.create("letters.txt").unwrap();
    let error = open(&fs, 1).err().unwrap();
    assert_eq!(error.to_string(), "sim is not empty and holds no nodata store; give an empty or a new directory");
    assert_eq!(fs.list("").unwrap().len(), 1);
}
