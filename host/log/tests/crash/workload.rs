//! A random user of the log, and what became of what it asked for.

use crate::model::{Asked, Model, OWNERS, PRODUCERS, TABLES, dump, id_of, now, read_all};
use bytes::Bytes;
use nodata_log::engine::BoxFuture;
use nodata_log::fs::Fs;
use nodata_log::fs::simulated::{Chance, SimulatedFs};
use nodata_log::{
    AckLevel, Append, ArchiveFile, ArchiveReader, Batch, Chunk, Clock, EmbeddedLog, Event, Expect, Forget, Log,
    LogError, MetadataStore, Name, Offset, OpenError, Options, OwnerId, Pending, ProducerId, ProducerRange, ReadLimits,
    StateChange, StoredBatch, TaskKey, TaskReset, TimestampUs, Topic, TopicConfig, TopicId, Tp, Transaction,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

/// A clock that is turned by whoever looks at it.
#[derive(Debug, Default)]
pub(crate) struct TurnedClock(AtomicI64);

impl Clock for TurnedClock {
    fn now_us(&self) -> TimestampUs {
        self.0.fetch_add(1000, Ordering::Relaxed)
    }
}

pub(crate) fn options(seed: u64) -> Options {
    Options {
        // A few groups fill one, so that every run rolls over several times.
        segment_bytes: 48 << 10,
        first_segment_bytes: 24 << 10,
        ring_bytes: 4 << 10,
        on_failure: Arc::new(|_| {}),
        ..Options::new(seed)
    }
}

pub(crate) fn open(fs: &SimulatedFs, seed: u64) -> Result<EmbeddedLog, OpenError> {
    open_with(fs, &Arc::default(), seed)
}

pub(crate) fn open_with(fs: &SimulatedFs, files: &Arc<Files>, seed: u64) -> Result<EmbeddedLog, OpenError> {
    let fs: Arc<dyn Fs> = Arc::new(fs.clone());
    let options = Options { archive: Some(files.clone()), hot_bytes: files.hot_bytes, ..options(seed) };
    EmbeddedLog::open(options, "sim", fs, Arc::new(TurnedClock::default())).map(|(log, _)| log)
}

/// Files on a disk that never fails: the real ones have a suite of their own.
#[derive(Default)]
pub(crate) struct Files {
    events: Mutex<HashMap<(u32, u32, Offset), Vec<StoredBatch>>>,
    /// Bytes of log that are kept although they are not needed.
    pub(crate) hot_bytes: u64,
}

impl Files {
    pub(crate) fn keeping(hot_bytes: u64) -> Self {
        Self { hot_bytes, ..Self::default() }
    }
}

impl ArchiveReader for Files {
    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        partition: u32,
        file: &'a ArchiveFile,
        from: Offset,
        _limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Chunk, LogError>> {
        let files = self.events.lock().unwrap();
        let batches = &files[&(topic.id.0, partition, file.base)];
        let has_some = |batch: &&StoredBatch| batch.last() >= from && batch.first() < file.end;
        let batches: Vec<StoredBatch> = batches.iter().filter(has_some).take(2).cloned().collect();
        let next = batches.last().unwrap().last() + 1;
        Box::pin(std::future::ready(Ok(Chunk { batches, next })))
    }

    fn offset_at<'a>(
        &'a self,
        _topic: &'a Topic,
        _partition: u32,
        _file: &'a ArchiveFile,
        _from: Offset,
        _time_us: TimestampUs,
    ) -> BoxFuture<'a, Result<Option<Offset>, LogError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// What was asked for, in order, and how much of it is safe.
#[derive(Default)]
pub(crate) struct History {
    /// The sum of what is known to be in the log.
    pub(crate) base: Model,
    /// What was asked for since.
    pub(crate) asked: Vec<Asked>,
    /// How many of those were acknowledged, or seen by anyone.
    pub(crate) safe: usize,
    /// What was answered at once and may be lost.
    pending: Vec<(usize, Pending<()>)>,
    /// The sum of everything that was asked for.
    pub(crate) ahead: Model,
    values: u64,
    pub(crate) files: Arc<Files>,
}

impl History {
    /// Remembers what was asked for, in the order of the log.
    fn ask<T: 'static>(&mut self, asked: Asked, ack: AckLevel, pending: Pending<T>) {
        self.ahead.apply(&asked);
        self.asked.push(asked);
        if ack == AckLevel::Durable {
            let pending: Pending<()> = Box::pin(async move { pending.await.map(|_| ()) });
            self.pending.push((self.asked.len(), pending));
        }
    }

    /// Looks which acknowledgements have come.
    pub(crate) fn collect(&mut self) {
        let mut waiting = Vec::new();
        for (count, mut pending) in std::mem::take(&mut self.pending) {
            match now(&mut pending) {
                Some(Ok(())) => self.safe = self.safe.max(count),
                Some(Err(LogError::Failed { .. })) => {}
                Some(Err(other)) => panic!("{other}"),
                None => waiting.push((count, pending)),
            }
        }
        self.pending = waiting;
    }

    /// The log must be the sum of a prefix that holds everything safe. It becomes the new base.
    pub(crate) fn check(&mut self, log: &EmbeddedLog, context: &str) {
        let found = dump(log).unwrap_or_else(|error| panic!("{context}: {error}"));
        let mut model = self.base.clone();
        for (count, asked) in self.asked.iter().enumerate() {
            if count >= self.safe && model.dump() == found {
                self.settle(model);
                return;
            }
            model.apply(asked);
        }
        if model.dump() == found {
            self.settle(model);
            return;
        }
        let mut safe = self.base.clone();
        self.asked[..self.safe].iter().for_each(|asked| safe.apply(asked));
        panic!(
            "{context}: the log is no prefix of what was asked for that holds what is safe ({} of {})\nfound:\n{found}\nsafe:\n{}\nall:\n{}",
            self.safe,
            self.asked.len(),
            safe.dump(),
            model.dump()
        );
    }

    fn settle(&mut self, model: Model) {
        self.base = model.clone();
        self.ahead = model;
        self.asked.clear();
        self.pending.clear();
        self.safe = 0;
    }
}

/// Does one random thing. `Err`: the log ended, as it does when the disk fails.
pub(crate) fn step(log: &EmbeddedLog, history: &mut History, chance: &mut Chance) -> Result<(), ()> {
    let by_hand = log.by_hand();
    match chance.below(100) {
        0..31 => append(log, history, chance),
        31..37 => archive(log, history, chance),
        37..50 => commit(log, history, chance),
        50..75 => {
            by_hand.write_group().map_err(|_| ())?;
            history.collect();
        }
        75..83 => by_hand.prepare(),
        83..86 => drop(by_hand.checkpoint()),
        86..88 => by_hand.mark().map_err(|_| ())?,
        88..92 => see(log, history, chance),
        92..96 => meta(log, history, chance),
        96 => forget(log, history, chance),
        97 => reset(log, history, chance),
        _ => topic(log, history, chance),
    }
    Ok(())
}

fn pick_partition(history: &History, chance: &mut Chance) -> Option<Tp> {
    let partitions: Vec<Tp> = history.ahead.partitions().collect();
    (!partitions.is_empty()).then(|| partitions[chance.below(partitions.len() as u64) as usize])
}

/// New events, and now and then one that was there.
fn values(history: &mut History, chance: &mut Chance, topic: TopicId) -> Vec<String> {
    let count = 1 + chance.below(4);
    (0..count)
        .map(|_| {
            let again = chance.percent(10).then(|| history.ahead.some_id(topic, chance)).flatten();
            history.values += 1;
            let id = again.unwrap_or_else(|| history.values.to_string());
            // Some are as large as several blocks, so that groups tear inside a batch.
            let size = [3, 40, 700, 9000][chance.below(4) as usize];
            format!("{id}.{}", "v".repeat(chance.below(size) as usize))
        })
        .collect()
}

fn batch(values: &[String]) -> Batch {
    let events: Vec<Event> = values.iter().map(|value| Event::new(value.clone()).with_id(id_of(value))).collect();
    Batch::from_events(&events, 7).unwrap()
}

/// Events for one to three partitions, no partition twice.
fn appends(history: &mut History, chance: &mut Chance) -> Vec<(Tp, Vec<String>)> {
    let mut appends: Vec<(Tp, Vec<String>)> = Vec::new();
    for _ in 0..1 + chance.below(3) {
        if let Some(tp) = pick_partition(history, chance)
            && appends.iter().all(|(at, _)| *at != tp)
        {
            appends.push((tp, values(history, chance, tp.topic)));
        }
    }
    appends
}

fn batches(appends: &[(Tp, Vec<String>)]) -> Vec<(Tp, Batch)> {
    appends.iter().map(|(tp, values)| (*tp, batch(values))).collect()
}

fn append(log: &EmbeddedLog, history: &mut History, chance: &mut Chance) {
    let appends = appends(history, chance);
    if appends.is_empty() {
        return topic(log, history, chance);
    }
    let ack = [AckLevel::Durable, AckLevel::Durable, AckLevel::Written, AckLevel::None][chance.below(4) as usize];
    let producer = chance.percent(40).then(|| {
        let producer = PRODUCERS.start + chance.below(PRODUCERS.end - PRODUCERS.start);
        (producer, history.ahead.next_of_producer(producer))
    });
    let range =
        producer.map(|(producer, first)| ProducerRange { producer: ProducerId(producer), epoch: 0, first, count: 1 });
    let room = now(log.room(1)).unwrap().unwrap();
    match log.append(Append { batches: batches(&appends), ack, producer: range, room }) {
        Ok(pending) => {
            let appends = history.ahead.without_known(appends);
            history.ask(Asked::Append { appends, producer }, ack, pending);
        }
        Err(LogError::DiskFull) => {}
        Err(error) => panic!("{error}"),
    }
}

fn commit(log: &EmbeddedLog, history: &mut History, chance: &mut Chance) {
    let Some(source) = pick_partition(history, chance) else { return };
    let task = TaskKey { owner: OwnerId(OWNERS.start + chance.below(OWNERS.end - OWNERS.start)), source };
    let (epoch, next) = history.ahead.task(task);
    if epoch == 0 || chance.percent(10) {
        match log.begin_task(task) {
            Ok(pending) => history.ask(Asked::Begin { task }, AckLevel::Durable, pending),
            Err(LogError::DiskFull) => {}
            Err(error) => panic!("{error}"),
        }
        return;
    }
    let to = next.unwrap_or(0) + chance.below(5);
    let appends = appends(history, chance);
    let table = TABLES[chance.below(TABLES.len() as u64) as usize];
    let state: Vec<(&'static str, String, Option<String>)> = (0..chance.below(4))
        .map(|n| {
            let key = format!("k{}", chance.below(6) * 4 + n);
            (table, key, chance.percent(80).then(|| chance.below(1000).to_string()))
        })
        .collect();
    let entries = state.iter().map(|(_, key, value)| (Bytes::from(key.clone()), value.clone().map(Bytes::from)));
    let change = StateChange { table: Name::new(table).unwrap(), entries: entries.collect() };
    let transaction = Transaction {
        task,
        epoch,
        expect: next,
        next: to,
        appends: batches(&appends),
        state: if state.is_empty() { Vec::new() } else { vec![change] },
    };
    match log.commit(transaction) {
        Ok(pending) => history.ask(Asked::Commit { task, next: to, appends, state }, AckLevel::Durable, pending),
        Err(LogError::DiskFull) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Reads a partition as anyone may. What is seen must be there for ever.
fn see(log: &EmbeddedLog, history: &mut History, chance: &mut Chance) {
    let Some(tp) = pick_partition(history, chance) else { return };
    let Ok((start, seen)) = read_all(log, tp) else { return };
    let end = start + seen.len() as u64;
    let mut model = history.base.clone();
    let mut safe = 0;
    while model.end(tp) < end {
        model.apply(&history.asked[safe]);
        safe += 1;
    }
    history.safe = history.safe.max(safe);
}

/// Puts what is durable into a file, or removes what is in files.
fn archive(log: &EmbeddedLog, history: &mut History, chance: &mut Chance) {
    let Some(tp) = pick_partition(history, chance) else { return };
    let Ok(known) = log.archive(tp) else { return };
    if chance.percent(15) {
        let to = known.end.min(known.start + chance.below(20));
        match log.trim(tp, to) {
            Ok(pending) => history.ask(Asked::Trim { tp, to }, AckLevel::Durable, pending),
            Err(LogError::DiskFull | LogError::UnknownTopicId { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        return;
    }
    let Ok(bounds) = log.bounds(tp) else { return };
    let mut batches = Vec::new();
    let mut next = known.end;
    while next < bounds.end {
        let read = now(log.read(tp, next, ReadLimits { bytes_max: 1 << 20, events_max: 1000 })).unwrap();
        let Ok(chunk) = read else { return };
        // Whole batches only: a file ends where a batch ends, and so the next one begins where one begins.
        batches.extend(chunk.batches);
        next = chunk.next;
    }
    let Some(last) = batches.last() else { return };
    let mut files = history.files.events.lock().unwrap();
    let base = known.open_file().map_or(batches[0].first(), |open| open.base);
    let held = files.entry((tp.topic.0, tp.partition, base)).or_default();
    held.retain(|batch| batch.last() < known.end);
    let file = ArchiveFile {
        base,
        end: last.last() + 1,
        rows: 0,
        bytes: 0,
        payload_bytes: 0,
        row_groups: 0,
        is_sealed: chance.percent(30),
        timestamp_min_us: 0,
        timestamp_max_us: 0,
        append_min_us: 0,
        append_max_us: 0,
        footer_at: 0,
        footer_crc: 0,
    };
    held.extend(batches);
    drop(files);
    match log.commit_file(tp, file) {
        // What became of it shows in what can be read.
        Ok(_) | Err(LogError::DiskFull | LogError::UnknownTopicId { .. } | LogError::FileRefused { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn meta(log: &EmbeddedLog, history: &mut History, chance: &mut Chance) {
    let key = format!("key{}", chance.below(4));
    let value = chance.percent(80).then(|| chance.below(1000).to_string());
    match log.meta_put(&key, Expect::Any, value.clone().map(Bytes::from)) {
        Ok(pending) => history.ask(Asked::Meta { key, value }, AckLevel::Durable, pending),
        Err(LogError::DiskFull) => {}
        Err(error) => panic!("{error}"),
    }
}

fn forget(log: &EmbeddedLog, history: &mut History, chance: &mut Chance) {
    let owner = OWNERS.start + chance.below(OWNERS.end - OWNERS.start);
    match log.forget_owner(OwnerId(owner)) {
        Ok(pending) => history.ask(Asked::Forget { owner }, AckLevel::Durable, pending),
        Err(LogError::DiskFull) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Has a task go on anywhere, with one table less or with only one.
fn reset(log: &EmbeddedLog, history: &mut History, chance: &mut Chance) {
    let Some(source) = pick_partition(history, chance) else { return };
    let task = TaskKey { owner: OwnerId(OWNERS.start + chance.below(OWNERS.end - OWNERS.start)), source };
    let next = chance.percent(80).then(|| chance.below(10));
    let table = TABLES[chance.below(TABLES.len() as u64) as usize];
    let (all_but, tables) = (chance.percent(50), vec![Name::new(table).unwrap()]);
    let forget = if all_but { Forget::AllBut(tables) } else { Forget::These(tables) };
    match log.reset_tasks(vec![TaskReset { task, epoch: history.ahead.task(task).0, next, forget }]) {
        Ok(pending) => history.ask(Asked::Reset { task, next, table, all_but }, AckLevel::Durable, pending),
        Err(LogError::DiskFull) => {}
        Err(error) => panic!("{error}"),
    }
}

fn topic(log: &EmbeddedLog, history: &mut History, chance: &mut Chance) {
    let name = format!("t{}", chance.below(3));
    let key = Name::new(&name).unwrap();
    if history.ahead.topics().any(|(topic, _)| *topic == name) {
        // Now and then one goes, so that there is one to be made.
        if chance.percent(20) {
            match log.delete_topic(&key) {
                Ok(pending) => history.ask(Asked::Delete { name }, AckLevel::Durable, pending),
                Err(LogError::DiskFull) => {}
                Err(error) => panic!("{error}"),
            }
        }
        return;
    }
    let partitions = 1 + chance.below(3) as u32;
    // A topic that was made and deleted before a crash may have used a number without leaving a trace in the model.
    let id = log.by_hand().next_topic().0;
    match log.create_topic(
        key,
        TopicConfig { partitions, deduplicate_us: Some(7 * 24 * 3_600_000_000), ..TopicConfig::default() },
    ) {
        Ok(pending) => {
            history.ask(Asked::Topic { name, id, partitions }, AckLevel::Durable, pending);
        }
        Err(LogError::DiskFull) => {}
        Err(error) => panic!("{error}"),
    }
}
