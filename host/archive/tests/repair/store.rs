//! A store with a bit of everything in it, and what it holds.

use bytes::Bytes;
use nodata_archive::{ArchiveFiles, ArchiveOptions, Archiver};
use nodata_log::fs::simulated::{Chance, Faults, SimulatedFs};
use nodata_log::fs::{Fs, SyncSite};
use nodata_log::{
    AckLevel, Append, Batch, Clock, EmbeddedLog, Event, Expect, Forget, Log, MetadataStore, Name, Offset, Options,
    OwnerId, ProducerId, ProducerRange, StateChange, StateScan, TaskKey, TaskReset, TimestampUs, Topic, TopicConfig,
    TopicId, Tp, Transaction,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};

pub(crate) const PRODUCER: ProducerId = ProducerId(77);
pub(crate) const OWNER: OwnerId = OwnerId(5);
pub(crate) const TABLE: &str = "counts";

#[derive(Debug, Default)]
pub(crate) struct TurnedClock(AtomicI64);

impl TurnedClock {
    pub(crate) fn turn(&self, us: i64) {
        self.0.fetch_add(us, Ordering::Relaxed);
    }
}

impl Clock for TurnedClock {
    fn now_us(&self) -> TimestampUs {
        1_700_000_000_000_000 + self.0.fetch_add(1000, Ordering::Relaxed)
    }
}

/// Waits for something that needs nothing but what has happened already.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

pub(crate) struct Store {
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) archiver: Archiver,
}

/// Starts a store as a server does.
pub(crate) fn open(fs: &SimulatedFs, clock: &Arc<TurnedClock>, seed: u64, hot_bytes: u64) -> Result<Store, String> {
    let disk: Arc<dyn Fs> = Arc::new(fs.clone());
    let files = Arc::new(ArchiveFiles::new(disk.clone()));
    let options = Options {
        segment_bytes: 48 << 10,
        first_segment_bytes: 24 << 10,
        ring_bytes: 4 << 10,
        hot_bytes,
        archive: Some(files.clone()),
        on_failure: Arc::new(|_| {}),
        ..Options::new(seed)
    };
    let (log, _) = EmbeddedLog::open(options, "sim", disk.clone(), clock.clone()).map_err(|error| error.to_string())?;
    let log = Arc::new(log);
    let archiver = Archiver::new(disk, log.clone(), files, clock.clone(), ArchiveOptions::default());
    let adoption = archiver.adopt().map_err(|error| error.to_string())?;
    let store = Store { log, archiver };
    for (tp, file) in adoption.commits {
        let committed = store.log.commit_file(tp, file).map_err(|error| error.to_string())?;
        store.write();
        now(committed).map_err(|error| error.to_string())?;
    }
    Ok(store)
}

impl Store {
    pub(crate) fn write(&self) {
        while self.log.by_hand().write_group().unwrap() {}
    }

    /// Appends values, and answers with the first offset.
    pub(crate) fn append(&self, tp: Tp, values: &[String], producer: Option<u64>) -> Offset {
        let events: Vec<Event> = values.iter().map(|value| Event::new(value.clone())).collect();
        let batches = vec![(tp, Batch::from_events(&events, 7).unwrap())];
        let producer = producer.map(|first| ProducerRange { producer: PRODUCER, epoch: 0, first, count: 1 });
        let room = now(self.log.room(1)).unwrap();
        let pending = self.log.append(Append { batches, ack: AckLevel::Durable, producer, room }).unwrap();
        self.write();
        now(pending).unwrap().ranges[0].first
    }

    /// What the task remembers.
    pub(crate) fn counts(&self, task: TaskKey) -> BTreeMap<String, String> {
        let all = StateScan { start: Bytes::new(), end: None, count_max: usize::MAX, bytes_max: usize::MAX };
        let found = self.log.state_scan(task, &Name::new(TABLE).unwrap(), &all).unwrap();
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        found.into_iter().map(|(key, value)| (text(key), text(value))).collect()
    }
}

/// One commit of the task.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) next: Offset,
    pub(crate) counts: BTreeMap<String, String>,
    pub(crate) output: Range<Offset>,
}

/// What a store holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) topics: BTreeMap<TopicId, Topic>,
    pub(crate) events: BTreeMap<Tp, BTreeMap<Offset, String>>,
    pub(crate) starts: BTreeMap<Tp, Offset>,
    /// Everything before is in files.
    pub(crate) archived: BTreeMap<Tp, Offset>,
    pub(crate) commits: Vec<Commit>,
    pub(crate) task: Option<TaskKey>,
    pub(crate) output: Option<Tp>,
    pub(crate) produced: Option<u64>,
    pub(crate) entry: Option<String>,
    values: u64,
}

impl Model {
    pub(crate) fn end(&self, tp: Tp) -> Offset {
        self.events.get(&tp).and_then(|events| Some(events.last_key_value()?.0 + 1)).unwrap_or(0)
    }

    fn values(&mut self, chance: &mut Chance) -> Vec<String> {
        let count = 1 + chance.below(4);
        let mut value = || {
            self.values += 1;
            format!("{}.{}", self.values, "v".repeat([3, 40, 700, 6000][chance.below(4) as usize]))
        };
        (0..count).map(|_| value()).collect()
    }

    fn add(&mut self, tp: Tp, first: Offset, values: Vec<String>) {
        let events = self.events.entry(tp).or_default();
        events.extend((first..).zip(values));
    }
}

pub(crate) struct Made {
    pub(crate) fs: SimulatedFs,
    pub(crate) clock: Arc<TurnedClock>,
    pub(crate) model: Model,
    pub(crate) hot_bytes: u64,
}

/// Makes a store: some lives with a random user in each. What it holds is durable, all of it.
pub(crate) fn make(seed: u64) -> Made {
    let fs = SimulatedFs::new(Faults::default());
    let clock = Arc::new(TurnedClock::default());
    let mut chance = Chance::new(seed);
    let mut model = Model::default();
    let hot_bytes = [0, 0, 100 << 10, u64::MAX][chance.below(4) as usize];
    for life in 0..3 {
        let store = open(&fs, &clock, seed * 10 + life, hot_bytes).unwrap();
        if life == 0 {
            for (name, partitions) in [("orders", 2), ("out", 1)] {
                create(&store, &mut model, name, partitions);
            }
            let ids: Vec<TopicId> = model.topics.keys().copied().collect();
            let task = TaskKey { owner: OWNER, source: Tp { topic: ids[0], partition: 0 } };
            model.task = Some(task);
            model.output = Some(Tp { topic: ids[1], partition: 0 });
            let begun = store.log.begin_task(task).unwrap();
            store.write();
            now(begun).unwrap();
        }
        for _ in 0..60 {
            step(&store, &clock, &mut model, &mut chance);
        }
        store.write();
        store.log.by_hand().mark().unwrap();
        if chance.percent(50) {
            store.log.by_hand().checkpoint().unwrap();
        }
        drop(store);
        fs.kill();
    }
    // A last life, in which little happens: its segment says where the one before it ends.
    let store = open(&fs, &clock, seed * 10 + 9, hot_bytes).unwrap();
    let tp = *model.events.keys().next().unwrap();
    let values = model.values(&mut chance);
    let first = store.append(tp, &values, None);
    model.add(tp, first, values);
    store.log.by_hand().mark().unwrap();
    drop(store);
    fs.kill();
    settle(&fs, "");
    Made { fs, clock, model, hot_bytes }
}

/// Whatever was written is durable, so that a crash in a repair changes nothing from before it.
fn settle(fs: &SimulatedFs, dir: &str) {
    for entry in fs.list(dir).unwrap() {
        let path = if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
        if entry.is_dir {
            settle(fs, &path);
        } else {
            fs.open(&path).unwrap().sync_data(SyncSite::Kept).unwrap();
        }
    }
    fs.sync_dir(dir, SyncSite::KeptName).unwrap();
}

fn create(store: &Store, model: &mut Model, name: &str, partitions: u32) {
    let config = TopicConfig { partitions, ..TopicConfig::default() };
    let pending = store.log.create_topic(Name::new(name).unwrap(), config).unwrap();
    store.write();
    let topic = now(pending).unwrap();
    for tp in topic.partitions() {
        model.events.insert(tp, BTreeMap::new());
    }
    model.topics.insert(topic.id, topic);
}

fn step(store: &Store, clock: &TurnedClock, model: &mut Model, chance: &mut Chance) {
    let partitions: Vec<Tp> = model.events.keys().copied().collect();
    let tp = partitions[chance.below(partitions.len() as u64) as usize];
    match chance.below(100) {
        0..40 => {
            let values = model.values(chance);
            let producer = chance.percent(40).then(|| model.produced.map_or(0, |last| last + 1));
            let first = store.append(tp, &values, producer);
            model.produced = producer.or(model.produced);
            model.add(tp, first, values);
        }
        40..58 => commit(store, model, chance),
        58..72 => archive(store, model, tp),
        72..78 => store.log.by_hand().prepare(),
        78..83 => store.log.by_hand().checkpoint().unwrap(),
        83..86 => store.log.by_hand().mark().unwrap(),
        86..89 => clock.turn(3_600_000_000 * 7),
        89..93 => {
            let value = chance.below(1000).to_string();
            let pending = store.log.meta_put("key", Expect::Any, Some(Bytes::from(value.clone()))).unwrap();
            store.write();
            now(pending).unwrap();
            model.entry = Some(value);
        }
        93..96 => {
            let archive = store.log.archive(tp).unwrap();
            let Some(first) = archive.files.values().next() else { return };
            let pending = store.log.trim(tp, first.end).unwrap();
            store.write();
            now(pending).unwrap();
            store.archiver.remove(&store.log.topic_by_id(tp.topic).unwrap(), tp, first).unwrap();
            model.starts.insert(tp, first.end);
        }
        _ => {
            let Some(extra) = model.topics.values().find(|topic| topic.name.as_str() == "extra").cloned() else {
                return create(store, model, "extra", 1);
            };
            let pending = store.log.delete_topic(&extra.name).unwrap();
            store.write();
            now(pending).unwrap();
            store.archiver.sweep("extra").unwrap();
            model.topics.remove(&extra.id);
            model.events.retain(|tp, _| tp.topic != extra.id);
            model.starts.retain(|tp, _| tp.topic != extra.id);
        }
    }
}

pub(crate) fn archive(store: &Store, model: &mut Model, tp: Tp) {
    let Some((file, _)) = now(store.archiver.write_next(tp)).unwrap() else { return };
    let end = file.end;
    let pending = store.log.commit_file(tp, file).unwrap();
    store.write();
    now(pending).unwrap();
    model.archived.insert(tp, end);
}

/// The task reads some events, counts them, and puts something out.
fn commit(store: &Store, model: &mut Model, chance: &mut Chance) {
    let (task, output) = (model.task.unwrap(), model.output.unwrap());
    let position = store.log.task_position(task);
    let earliest = store.log.bounds(task.source).unwrap().earliest;
    let from = position.next.unwrap_or(0).max(earliest);
    let next = (from + 1 + chance.below(4)).min(model.end(task.source));
    if next <= from {
        return;
    }
    if chance.percent(10) {
        // Or an operator has it go on elsewhere, and forget what it counted.
        let reset = TaskReset { task, epoch: position.epoch, next: Some(next), forget: Forget::AllBut(Vec::new()) };
        let pending = store.log.reset_tasks(vec![reset]).unwrap();
        store.write();
        now(pending).unwrap();
        model.commits.push(Commit { next, counts: BTreeMap::new(), output: 0..0 });
        return;
    }
    let values = model.values(chance);
    let events: Vec<Event> = values.iter().map(|value| Event::new(value.clone())).collect();
    let mut counts = model.commits.last().map(|last| last.counts.clone()).unwrap_or_default();
    let key = format!("k{}", chance.below(5));
    counts.insert(key.clone(), next.to_string());
    let change = StateChange {
        table: Name::new(TABLE).unwrap(),
        entries: vec![(Bytes::from(key), Some(Bytes::from(next.to_string())))],
    };
    let transaction = Transaction {
        task,
        epoch: position.epoch,
        expect: position.next,
        next,
        appends: vec![(output, Batch::from_events(&events, 7).unwrap())],
        state: vec![change],
    };
    let pending = store.log.commit(transaction).unwrap();
    store.write();
    let range = now(pending).unwrap().ranges[0];
    model.add(output, range.first, values);
    model.commits.push(Commit { next, counts, output: range.first..range.last + 1 });
}
