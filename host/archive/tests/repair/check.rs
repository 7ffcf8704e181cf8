//! What must be true after a repair.

use crate::store::{Made, Model, PRODUCER, Store, archive, now, open};
use nodata_archive::decode::OpenFile;
use nodata_archive::{Finding, LossKind, Survey, survey};
use nodata_log::fs::Fs;
use nodata_log::fs::read_only::ReadOnlyFs;
use nodata_log::fs::simulated::SimulatedFs;
use nodata_log::{
    AckLevel, Append, Batch, Clock as _, Event, Log, LogError, MetadataStore, Offset, ProducerError, ProducerRange,
    Ranges, ReadLimits, Salvage, Tp,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a check of a store says.
pub(crate) fn look(fs: &SimulatedFs, made: &Made) -> Result<Survey, String> {
    let unchanged = ReadOnlyFs::new(Arc::new(fs.clone()));
    let salvage = Salvage::examine(&unchanged, "sim").map_err(|error| error.to_string())?;
    survey(&unchanged, salvage, made.clock.now_us(), |_, _| {}).map_err(|error| error.to_string())
}

/// Repairs a store, as far as it comes.
pub(crate) fn repair(fs: &SimulatedFs, made: &Made, survey: Survey) -> Result<(), String> {
    let now_us = made.clock.now_us();
    let folder = survey.folder(fs, now_us).map_err(|error| error.to_string())?;
    survey.repair(Arc::new(fs.clone()), &folder, "what was found", now_us).map_err(|error| error.to_string())
}

/// What was said to be lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) findings: Vec<Finding>,
    pub(crate) is_exact: bool,
    lost: BTreeMap<(String, u32), Ranges>,
    undone: BTreeMap<(String, u32), Ranges>,
    possible: BTreeMap<(String, u32), Ranges>,
}

impl Said {
    pub(crate) fn of(survey: &Survey) -> Self {
        let mut said =
            Said { findings: survey.findings.clone(), is_exact: survey.salvage().is_exact(), ..Self::default() };
        for loss in survey.losses() {
            let of = match loss.kind {
                LossKind::Lost => &mut said.lost,
                LossKind::Undone => &mut said.undone,
                LossKind::Possible => &mut said.possible,
            };
            of.entry((loss.topic.clone(), loss.partition)).or_default().insert(loss.offsets.clone());
        }
        said
    }

    /// Which offsets, and how.
    pub(crate) fn losses(&self) -> [&BTreeMap<(String, u32), Ranges>; 2] {
        [&self.lost, &self.undone]
    }

    pub(crate) fn lost_events(&self) -> u64 {
        self.lost.values().chain(self.undone.values()).map(Ranges::count).sum()
    }
}

pub(crate) fn read_all(store: &Store, tp: Tp) -> Result<BTreeMap<Offset, String>, LogError> {
    let bounds = store.log.bounds(tp)?;
    let mut next = bounds.earliest;
    let mut events = BTreeMap::new();
    while next < bounds.end {
        let chunk = now(store.log.read(tp, next, ReadLimits { bytes_max: 3000, events_max: 20 }))?;
        for stored in &chunk.batches {
            for (row, event) in stored.batch.events().enumerate() {
                let offset = stored.offsets.at(row);
                if offset >= next {
                    let value = String::from_utf8(event.value.unwrap().to_vec()).unwrap();
                    assert!(events.insert(offset, value).is_none(), "offset {offset} of {tp} is there twice");
                }
            }
        }
        assert!(chunk.next > next, "reading {tp} goes on from {next}");
        next = chunk.next;
    }
    Ok(events)
}

/// A check after a repair: the store starts, holds what it must, and goes on.
pub(crate) fn after_repair(fs: &SimulatedFs, made: &Made, said: &Said, context: &str) {
    let again = look(fs, made).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(again.is_well(), "{context}: a second check finds {:#?}\nafter {:#?}", again.findings, said.findings);
    drop(again);
    let store = open(fs, &made.clock, 99, made.hot_bytes).unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut model = made.model.clone();
    events(&store, &mut model, said, context);
    listing(fs, &store, context);
    task(&store, &model, said, context);
    if said.is_exact {
        producer_and_entry(&store, &model, context);
    }
    // Nobody is given an offset that was given to someone else, and life goes on.
    for tp in model.events.keys().copied().collect::<Vec<_>>() {
        let first = store.append(tp, &["new".to_owned()], None);
        assert!(first >= made.model.end(tp), "{context}: offset {first} of {tp} is given out again");
        model.events.entry(tp).or_default().insert(first, "new".to_owned());
        archive(&store, &mut model, tp);
    }
    store.log.by_hand().checkpoint().unwrap();
    drop(store);
    fs.kill();
    let store = open(fs, &made.clock, 100, made.hot_bytes).unwrap_or_else(|error| panic!("{context}: {error}"));
    for (tp, events) in &model.events {
        assert_eq!(read_all(&store, *tp).unwrap(), *events, "{context}: {tp} after a restart");
    }
    drop(store);
    fs.kill();
    let again = look(fs, made).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(again.is_well(), "{context}: a third check finds {:#?}", again.findings);
}

/// Every event that is not said to be lost is there, as it was; the model is what is left.
fn events(store: &Store, model: &mut Model, said: &Said, context: &str) {
    for topic in store.log.topics() {
        let is_known = model.topics.get(&topic.id).is_some_and(|known| known.name == topic.name);
        // A topic whose deletion was in a hole comes back, without events that it did not have.
        assert!(is_known || !said.is_exact, "{context}: topic {} was not there", topic.name);
    }
    let topics = model.topics.clone();
    let mut left = BTreeMap::new();
    for (tp, events) in &model.events {
        let name = &topics[&tp.topic].name;
        let Ok(topic) = store.log.topic_by_id(tp.topic) else {
            assert!(!said.is_exact, "{context}: topic {name} is gone");
            continue;
        };
        if !said.is_exact && tp.partition >= topic.config.partitions {
            continue;
        }
        let is_recovered = topic.name.as_str().starts_with("recovered-") && !said.is_exact;
        assert!(topic.name == *name || is_recovered, "{context}: topic {name} is called {}", topic.name);
        let key = (topic.name.to_string(), tp.partition);
        let of = |said: &BTreeMap<(String, u32), Ranges>| said.get(&key).cloned().unwrap_or_default();
        let found = read_all(store, *tp).unwrap_or_else(|error| panic!("{context}: {tp}: {error}"));
        let start = model.starts.get(tp).copied().unwrap_or(0);
        for (offset, value) in &found {
            assert_eq!(events.get(offset), Some(value), "{context}: a wrong event at offset {offset} of {tp}");
        }
        for (offset, _) in events.range(start..) {
            let is_lost = of(&said.lost).around(*offset).is_some() || of(&said.undone).around(*offset).is_some();
            let may_be_lost = of(&said.possible).around(*offset).is_some();
            // Without a checkpoint nobody knows where a partition began.
            let bounds = store.log.bounds(*tp).unwrap();
            let is_before = !said.is_exact && *offset < bounds.earliest;
            let is_there = found.contains_key(offset);
            assert!(
                is_there || is_lost || may_be_lost || is_before,
                "{context}: offset {offset} of {tp} is gone, and nobody says so: {:#?}",
                said.findings
            );
            assert!(!(is_there && is_lost), "{context}: offset {offset} of {tp} is said to be lost, and is there");
        }
        for range in of(&said.lost).iter().chain(of(&said.undone).iter()) {
            let was = range.clone().all(|offset| events.contains_key(&offset) && offset >= start);
            // A trim may be in the hole, and then what it removed is missing.
            assert!(was || !said.is_exact, "{context}: {range:?} of {tp} is said to be lost, and was not there");
        }
        left.insert(*tp, found);
    }
    model.events = left;
}

/// Whoever lists the folder finds every event of a file once.
fn listing(fs: &SimulatedFs, store: &Store, context: &str) {
    let mut found: BTreeMap<Tp, Ranges> = BTreeMap::new();
    let mut dirs = vec!["data".to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs.list(&dir).unwrap() {
            let path = format!("{dir}/{}", entry.name);
            if entry.is_dir {
                dirs.push(path);
                continue;
            }
            let file = OpenFile::open(fs.open(&path).unwrap(), entry.bytes);
            let file = file.unwrap_or_else(|error| panic!("{context}: {path}: {error}"));
            let tp = Tp { topic: nodata_log::TopicId(file.origin().topic_id), partition: file.origin().partition };
            for at in 0..file.row_groups() as usize {
                for range in file.group_offsets(at, true).unwrap().iter() {
                    let of = found.entry(tp).or_default();
                    assert!(!of.meets(range.clone()), "{context}: {range:?} of {tp} is in two files");
                    of.insert(range);
                }
            }
        }
    }
    for topic in store.log.topics() {
        for tp in topic.partitions() {
            let known: u64 = store.log.archive(tp).unwrap().files.values().map(|file| file.rows).sum();
            assert_eq!(found.remove(&tp).unwrap_or_default().count(), known, "{context}: {tp}");
        }
    }
}

/// Position, state and outputs are those of one moment.
fn task(store: &Store, model: &Model, said: &Said, context: &str) {
    let (task, output) = (model.task.unwrap(), model.output.unwrap());
    let position = store.log.task_position(task).next;
    let counts = store.counts(task);
    let last = model.commits.iter().rposition(|commit| Some(commit.next) == position);
    assert!(last.is_some() || position.is_none(), "{context}: a position that was never committed: {position:?}");
    let done = last.map_or(0, |last| last + 1);
    let expected = last.map(|last| model.commits[last].counts.clone()).unwrap_or_default();
    assert_eq!(counts, expected, "{context}: the state at {position:?}");
    assert!(!said.is_exact || done == model.commits.len(), "{context}: the task forgot what it did");
    if let (Some(next), Ok(bounds)) = (position, store.log.bounds(task.source)) {
        assert!(next <= bounds.end, "{context}: a position behind the end");
    }
    let Some(events) = model.events.get(&output) else { return };
    for commit in &model.commits[done..] {
        for offset in commit.output.clone() {
            let is_in_file = model.archived.get(&output).is_some_and(|end| offset < *end);
            assert!(
                !events.contains_key(&offset) || is_in_file,
                "{context}: offset {offset} was put out at {}, and the task is at {position:?}",
                commit.next
            );
        }
    }
}

fn producer_and_entry(store: &Store, model: &Model, context: &str) {
    let entry = now(store.log.meta_get("key")).unwrap();
    assert_eq!(entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap()), model.entry, "{context}");
    let (Some(last), Some(tp)) = (model.produced, model.events.keys().next()) else { return };
    let batches = vec![(*tp, Batch::from_events(&[Event::new("again")], 0).unwrap())];
    let producer = Some(ProducerRange { producer: PRODUCER, epoch: 0, first: last, count: 1 });
    let room = now(store.log.room(1)).unwrap();
    let refused = store.log.append(Append { batches, ack: AckLevel::Durable, producer, room }).err();
    let is_repeated =
        matches!(refused, Some(LogError::Producer(ProducerError::Repeated { next, .. })) if next == last + 1);
    assert!(is_repeated, "{context}: {refused:?}");
}
