//! The log and its files on a disk that crashes, tears and forgets, with everything in one thread and every step decided by a
//! seed. At every start, and whenever someone lists the folder: each event that was archived is there exactly once, what was
//! acknowledged can be read, and no byte that was ever visible has changed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use nodata_archive::decode::OpenFile;
use nodata_archive::{ArchiveError, ArchiveFiles, ArchiveOptions, Archiver};
use nodata_log::fs::simulated::{Chance, Crash, Faults, SimulatedFs};
use nodata_log::fs::{Fs, SyncSite, read_file};
use nodata_log::{
    AckLevel, Append, Batch, Clock, EmbeddedLog, Event, Log, LogError, Name, Offset, OpenError, Options, Pending,
    ReadLimits, TimestampUs, TopicConfig, TopicId, Tp,
};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};

const HOUR_US: i64 = 3_600_000_000;
const NAMES: [&str; 2] = ["orders", "audit"];
const PARTITIONS: u32 = 2;

#[derive(Debug, Default)]
struct TurnedClock(AtomicI64);

impl Clock for TurnedClock {
    fn now_us(&self) -> TimestampUs {
        1_700_000_000_000_000 + self.0.fetch_add(1000, Ordering::Relaxed)
    }
}

fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn is_power_loss(error: &impl ToString) -> bool {
    error.to_string().contains("simulated power loss")
}

struct Store {
    log: Arc<EmbeddedLog>,
    archiver: Archiver,
}

fn open(fs: &SimulatedFs, clock: &Arc<TurnedClock>, seed: u64) -> Result<Store, String> {
    let disk: Arc<dyn Fs> = Arc::new(fs.clone());
    let files = Arc::new(ArchiveFiles::new(disk.clone()));
    let options = Options {
        segment_bytes: 48 << 10,
        first_segment_bytes: 24 << 10,
        ring_bytes: 4 << 10,
        hot_bytes: 0,
        archive: Some(files.clone()),
        on_failure: Arc::new(|_| {}),
        ..Options::new(seed)
    };
    let (log, _) =
        EmbeddedLog::open(options, "sim", disk.clone(), clock.clone()).map_err(|error: OpenError| error.to_string())?;
    let log = Arc::new(log);
    let archiver = Archiver::new(disk, log.clone(), files, clock.clone(), ArchiveOptions::default());
    let adoption = archiver.adopt().map_err(|error| error.to_string())?;
    assert_eq!(adoption.foreign, [""; 0]);
    for (tp, file) in adoption.commits {
        let committed = log.commit_file(tp, file).map_err(|error| error.to_string())?;
        while log.by_hand().write_group().map_err(|error| error.to_string())? {}
        let power_is_gone = || "simulated power loss".to_owned();
        now(committed).ok_or_else(power_is_gone)?.map_err(|error| error.to_string())?;
    }
    Ok(Store { log, archiver })
}

/// What was asked for in one partition.
#[derive(Default)]
struct Partition {
    values: Vec<String>,
    /// How many were acknowledged or seen.
    safe: usize,
    start: Offset,
    is_deleted: bool,
    waiting: Vec<(usize, Pending<()>)>,
}

#[derive(Default)]
struct History {
    partitions: BTreeMap<Tp, Partition>,
    /// Every file as it was last seen, and by whose name.
    visible: BTreeMap<String, Bytes>,
    values: u64,
}

fn read_all(log: &EmbeddedLog, tp: Tp) -> Result<(Offset, Vec<String>), LogError> {
    let bounds = log.bounds(tp)?;
    let mut next = bounds.earliest;
    let mut values = Vec::new();
    while next < bounds.end {
        let chunk = now(log.read(tp, next, ReadLimits { bytes_max: 3000, events_max: 20 })).unwrap()?;
        for stored in &chunk.batches {
            for (row, event) in stored.batch.events().enumerate() {
                if stored.offsets.at(row) == next {
                    values.push(String::from_utf8_lossy(event.value.unwrap()).into_owned());
                    next += 1;
                }
            }
        }
        assert_eq!(chunk.next, next);
    }
    Ok((bounds.earliest, values))
}

impl History {
    fn collect(&mut self) {
        for partition in self.partitions.values_mut() {
            let mut waiting = Vec::new();
            for (count, mut pending) in std::mem::take(&mut partition.waiting) {
                match now(&mut pending) {
                    Some(Ok(())) => partition.safe = partition.safe.max(count),
                    Some(Err(_)) => {}
                    None => waiting.push((count, pending)),
                }
            }
            partition.waiting = waiting;
        }
    }

    /// After a start: everything that was promised is there, and nothing that was never asked for.
    fn check(&mut self, store: &Store, context: &str) {
        let live: Vec<TopicId> = store.log.topics().iter().map(|topic| topic.id).collect();
        self.partitions.retain(|tp, partition| {
            let is_live = live.contains(&tp.topic);
            assert!(is_live || partition.is_deleted || partition.safe == 0, "{context}: topic {tp} is gone");
            is_live
        });
        for (tp, partition) in &mut self.partitions {
            let (start, found) = match read_all(&store.log, *tp) {
                Err(error) if is_power_loss(&error) => return,
                read => read.unwrap_or_else(|error| panic!("{context}: {error}")),
            };
            let end = start as usize + found.len();
            assert!(start >= partition.start, "{context}: {tp} begins again at {start}");
            assert!(end >= partition.safe, "{context}: {tp} ends at {end}, {} are safe", partition.safe);
            assert_eq!(found, partition.values[start as usize..end], "{context}: {tp}");
            partition.start = start;
            partition.safe = end;
            partition.values.truncate(end);
            partition.waiting.clear();
            partition.is_deleted = false;
        }
        self.list(store, true, context);
    }

    /// What someone sees who only lists the folder.
    fn list(&mut self, store: &Store, is_start: bool, context: &str) {
        let fs = store.archiver.fs();
        let mut paths = Vec::new();
        list(&*fs, "data", &mut paths);
        let mut rows: HashMap<Tp, Vec<(Offset, String)>> = HashMap::new();
        let mut visible = BTreeMap::new();
        for path in paths {
            let bytes: Bytes = read_file(&*fs, &path).unwrap().into();
            let file = OpenFile::open(fs.open(&path).unwrap(), bytes.len() as u64);
            let file = file.unwrap_or_else(|error| panic!("{context}: {path}: {error}"));
            if let Some(before) = self.visible.get(&path) {
                let is_same_topic = {
                    let old = nodata_log::fs::simulated::SimulatedFs::new(Faults::default());
                    nodata_log::fs::write_all_at(&*old.create("x").unwrap(), &mut [std::io::IoSlice::new(before)], 0)
                        .unwrap();
                    OpenFile::open(old.open("x").unwrap(), before.len() as u64).unwrap().origin().topic_id
                        == file.origin().topic_id
                };
                assert!(!is_same_topic || bytes.starts_with(before), "{context}: bytes of {path} changed");
            }
            let tp = Tp { topic: TopicId(file.origin().topic_id), partition: file.origin().partition };
            let of = rows.entry(tp).or_default();
            let mut next = 0;
            while let Some(slices) = file.events_from(next).unwrap() {
                for stored in slices.flat_map(|slice| slice.unwrap()) {
                    for (row, event) in stored.batch.events().enumerate() {
                        of.push((stored.offsets.at(row), String::from_utf8_lossy(event.value.unwrap()).into_owned()));
                    }
                    next = stored.last() + 1;
                }
            }
            visible.insert(path, bytes);
        }
        self.visible = visible;
        for (tp, partition) in &self.partitions {
            let found = rows.remove(tp).unwrap_or_default();
            let archive = store.log.archive(*tp);
            let Some(first) = found.first().map(|row| row.0) else {
                assert!(archive.is_err() || archive.unwrap().files.is_empty(), "{context}: {tp} has lost its files");
                continue;
            };
            // A trim may be on its way, so the files may begin earlier than the partition, and never later.
            let expected: Vec<(Offset, String)> =
                (first..).zip(partition.values[first as usize..].iter().cloned()).take(found.len()).collect();
            assert_eq!(found, expected, "{context}: {tp}: each archived event is listed once");
            assert!(found.len() + first as usize <= partition.safe.max(partition.values.len()), "{context}");
            if let Ok(archive) = archive {
                assert!(
                    first <= archive.start.max(archive.files.keys().next().copied().unwrap_or(first)),
                    "{context}: {tp}"
                );
                let is_whole = found.last().unwrap().0 + 1 >= archive.end;
                assert!(
                    is_whole,
                    "{context}: {tp} is archived to {} and listed to {}",
                    archive.end,
                    found.last().unwrap().0
                );
            }
        }
        // At a start, what belongs to nobody was removed.
        assert!(!is_start || rows.is_empty(), "{context}: files of topics that are gone: {:?}", rows.keys());
    }
}

fn list(fs: &dyn Fs, dir: &str, paths: &mut Vec<String>) {
    for entry in fs.list(dir).unwrap_or_default() {
        let path = format!("{dir}/{}", entry.name);
        if entry.is_dir { list(fs, &path, paths) } else { paths.push(path) }
    }
}

/// Does one random thing. `Err`: the power is gone.
fn step(
    store: &Store,
    clock: &TurnedClock,
    history: &mut History,
    chance: &mut Chance,
    context: &str,
) -> Result<(), ()> {
    let Store { log, archiver } = store;
    let died = |error: &ArchiveError| assert!(is_power_loss(error), "{context}: {error}");
    let pick = |history: &History, chance: &mut Chance| {
        let live: Vec<Tp> = history.partitions.iter().filter(|(_, of)| !of.is_deleted).map(|(tp, _)| *tp).collect();
        (!live.is_empty()).then(|| live[chance.below(live.len() as u64) as usize])
    };
    match chance.below(100) {
        0..35 => {
            let Some(tp) = pick(history, chance) else { return Ok(()) };
            let values: Vec<String> = (0..1 + chance.below(4))
                .map(|_| {
                    history.values += 1;
                    format!("{}.{}", history.values, "v".repeat(chance.below(600) as usize))
                })
                .collect();
            let events: Vec<Event> = values.iter().map(|value| Event::new(value.clone())).collect();
            let batches = vec![(tp, Batch::from_events(&events, 7).unwrap())];
            let room = now(log.room(1)).unwrap().unwrap();
            let append = Append { batches, ack: AckLevel::Durable, producer: None, room };
            let pending = log.append(append).map_err(drop)?;
            let partition = history.partitions.get_mut(&tp).unwrap();
            partition.values.extend(values);
            let pending: Pending<()> = Box::pin(async move { pending.await.map(drop) });
            partition.waiting.push((partition.values.len(), pending));
        }
        35..60 => {
            log.by_hand().write_group().map_err(drop)?;
            history.collect();
        }
        60..66 => log.by_hand().prepare(),
        66..72 => drop(log.by_hand().checkpoint()),
        72..90 => {
            let Some(tp) = pick(history, chance) else { return Ok(()) };
            match now(archiver.write_next(tp)).unwrap() {
                Ok(Some((file, _))) => {
                    let pending = log.commit_file(tp, file).map_err(drop)?;
                    // Mostly it is waited for, as the archiver does.
                    if chance.percent(80) {
                        while log.by_hand().write_group().map_err(drop)? {}
                        history.collect();
                        now(pending).ok_or(())?.map_err(drop)?;
                        history.list(store, false, context);
                    } else {
                        return Err(());
                    }
                }
                Ok(None) | Err(ArchiveError::Log(LogError::UnknownTopicId { .. })) => {}
                Err(error) => {
                    died(&error);
                    return Err(());
                }
            }
        }
        90..92 => drop(clock.0.fetch_add(HOUR_US * 7, Ordering::Relaxed)),
        92..95 => {
            // Retention, as the archiver does it: the trim is durable, then the file goes.
            let Some(tp) = pick(history, chance) else { return Ok(()) };
            let Ok(archive) = log.archive(tp) else { return Ok(()) };
            let Some(first) = archive.files.values().next().cloned() else { return Ok(()) };
            let pending = log.trim(tp, first.end).map_err(drop)?;
            while log.by_hand().write_group().map_err(drop)? {}
            history.collect();
            now(pending).ok_or(())?.map_err(drop)?;
            history.partitions.get_mut(&tp).unwrap().start = first.end;
            let topic = log.topic_by_id(tp.topic).unwrap();
            if let Err(error) = archiver.remove(&topic, tp, &first) {
                died(&error);
                return Err(());
            }
        }
        95 => {
            let name = Name::new(NAMES[chance.below(2) as usize]).unwrap();
            let Ok(topic) = log.topic(&name) else { return Ok(()) };
            let Ok(pending) = log.delete_topic(&name) else { return Ok(()) };
            for tp in topic.partitions() {
                history.partitions.entry(tp).or_default().is_deleted = true;
            }
            while log.by_hand().write_group().map_err(drop)? {}
            history.collect();
            now(pending).ok_or(())?.map_err(drop)?;
            for tp in topic.partitions() {
                history.partitions.remove(&tp);
            }
            if let Err(error) = archiver.sweep(name.as_str()) {
                died(&error);
                return Err(());
            }
        }
        _ => {
            let name = Name::new(NAMES[chance.below(2) as usize]).unwrap();
            let config = TopicConfig { partitions: PARTITIONS, ..TopicConfig::default() };
            let id = log.by_hand().next_topic();
            let Ok(pending) = log.create_topic(name, config) else { return Ok(()) };
            while log.by_hand().write_group().map_err(drop)? {}
            for partition in 0..PARTITIONS {
                history.partitions.insert(Tp { topic: id, partition }, Partition::default());
            }
            history.collect();
            now(pending).ok_or(())?.map_err(drop)?;
        }
    }
    Ok(())
}

/// Some lives on one disk; what each is ended by is decided by the seed.
fn live(seed: u64, lives: u64, lost_syncs: Option<SyncSite>) {
    let fs = SimulatedFs::new(Faults::default());
    let clock = Arc::new(TurnedClock::default());
    let mut chance = Chance::new(seed);
    let mut history = History::default();
    for life in 0..=lives {
        let is_last = life == lives;
        let crash_at = (!is_last && chance.percent(70)).then(|| chance.below(250));
        let context = format!("seed {seed} life {life} crash at {crash_at:?}");
        fs.set_faults(Faults { crash_at, lost_syncs, short_writes: true, ..Faults::default() });
        match open(&fs, &clock, seed * 100 + life) {
            Ok(store) => {
                history.check(&store, &context);
                for _ in 0..if is_last { 0 } else { 120 } {
                    if step(&store, &clock, &mut history, &mut chance, &context).is_err() {
                        break;
                    }
                }
                history.collect();
            }
            Err(error) if crash_at.is_some() && is_power_loss(&error) => {}
            Err(error) => panic!("{context}: {error}"),
        }
        if chance.percent(40) {
            fs.kill();
        } else {
            fs.crash(Crash { seed: chance.number(), sector_bytes: [512, 4096][chance.below(2) as usize] });
        }
    }
}

/// `NODATA_CRASH_RUNS=20000 cargo test --release -p nodata-archive --test crash` runs for an hour or so.
#[allow(clippy::disallowed_methods, reason = "a test has no settings")]
fn runs() -> u64 {
    std::env::var("NODATA_CRASH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(120)
}

#[test]
fn a_crash_at_any_moment_leaves_every_event_in_its_place_once() {
    for seed in 0..runs() {
        live(seed, 6, None);
    }
}

#[test]
fn a_missing_sync_is_noticed() {
    let unnoticed: Vec<SyncSite> =
        [SyncSite::ArchiveFile, SyncSite::ArchiveDir, SyncSite::ArchiveName, SyncSite::ArchiveRemoved]
            .into_iter()
            .filter(|site| {
                !(0..300).any(|seed| {
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| live(seed, 6, Some(*site)))).is_err()
                })
            })
            .collect();
    assert!(unnoticed.is_empty(), "nobody notices when these syncs do nothing: {unnoticed:?}");
}
