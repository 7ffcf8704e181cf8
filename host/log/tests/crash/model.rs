//! What the log should be, and what it is, both as one text.

use bytes::Bytes;
use nodata_log::fs::simulated::Chance;
use nodata_log::{
    AckLevel, Append, Batch, Bounds, EmbeddedLog, Event, Log, LogError, MetadataStore, Name, Offset, OwnerId,
    ProducerError, ProducerId, ProducerRange, ReadLimits, StateScan, TaskKey, TopicId, Tp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Something that was asked for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Topic {
        name: String,
        id: u32,
        partitions: u32,
    },
    Delete {
        name: String,
    },
    Append {
        appends: Vec<(Tp, Vec<String>)>,
        producer: Option<(u64, u64)>,
    },
    Begin {
        task: TaskKey,
    },
    Commit {
        task: TaskKey,
        next: Offset,
        appends: Vec<(Tp, Vec<String>)>,
        state: Vec<(&'static str, String, Option<String>)>,
    },
    /// Where it goes on, and which of its tables are emptied: only this one, or all but this one.
    Reset {
        task: TaskKey,
        next: Option<Offset>,
        table: &'static str,
        all_but: bool,
    },
    Forget {
        owner: u64,
    },
    Meta {
        key: String,
        value: Option<String>,
    },
    Trim {
        tp: Tp,
        to: Offset,
    },
}

/// The sum of what was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    topics: BTreeMap<String, (u32, u32)>,
    events: BTreeMap<Tp, Vec<String>>,
    /// The ids that each topic was given.
    ids: BTreeMap<TopicId, BTreeSet<String>>,
    starts: BTreeMap<Tp, Offset>,
    tasks: BTreeMap<TaskKey, (u64, Option<Offset>)>,
    state: BTreeMap<(TaskKey, &'static str, String), String>,
    producers: BTreeMap<u64, u64>,
    entries: BTreeMap<String, String>,
}

/// The tables that the workload uses.
pub(crate) const TABLES: [&str; 2] = ["other", "table"];
/// The producers that the workload uses.
pub(crate) const PRODUCERS: std::ops::Range<u64> = 100..103;
/// The deployments that the workload uses.
pub(crate) const OWNERS: std::ops::Range<u64> = 1..4;

impl Model {
    pub(crate) fn apply(&mut self, asked: &Asked) {
        match asked {
            Asked::Topic { name, id, partitions } => {
                self.topics.insert(name.clone(), (*id, *partitions));
                for partition in 0..*partitions {
                    self.events.entry(Tp { topic: TopicId(*id), partition }).or_default();
                }
            }
            Asked::Delete { name } => {
                if let Some((id, _)) = self.topics.remove(name) {
                    self.events.retain(|tp, _| tp.topic.0 != id);
                    self.starts.retain(|tp, _| tp.topic.0 != id);
                    self.ids.remove(&TopicId(id));
                }
            }
            Asked::Append { appends, producer } => {
                self.append(appends);
                if let Some((producer, sequence)) = producer {
                    self.producers.insert(*producer, *sequence);
                }
            }
            Asked::Trim { tp, to } => {
                let start = self.starts.entry(*tp).or_default();
                *start = (*start).max(*to);
            }
            Asked::Begin { task } => self.tasks.entry(*task).or_default().0 += 1,
            Asked::Commit { task, next, appends, state } => {
                self.append(appends);
                self.tasks.entry(*task).or_default().1 = Some(*next);
                for (table, key, value) in state {
                    match value {
                        Some(value) => drop(self.state.insert((*task, table, key.clone()), value.clone())),
                        None => drop(self.state.remove(&(*task, *table, key.clone()))),
                    }
                }
            }
            Asked::Reset { task, next, table, all_but } => {
                let (epoch, position) = self.tasks.entry(*task).or_default();
                (*epoch, *position) = (*epoch + 1, *next);
                self.state.retain(|(of, at, _), _| of != task || (at == table) == *all_but);
            }
            Asked::Forget { owner } => {
                self.tasks.retain(|task, _| task.owner.0 != *owner);
                self.state.retain(|(task, _, _), _| task.owner.0 != *owner);
            }
            Asked::Meta { key, value } => match value {
                Some(value) => drop(self.entries.insert(key.clone(), value.clone())),
                None => drop(self.entries.remove(key)),
            },
        }
    }

    fn append(&mut self, appends: &[(Tp, Vec<String>)]) {
        for (tp, values) in appends {
            self.events.entry(*tp).or_default().extend(values.iter().cloned());
            self.ids.entry(tp.topic).or_default().extend(values.iter().map(|value| id_of(value).to_owned()));
        }
    }

    /// Leaves out what the topic was given before, and what is there twice.
    pub(crate) fn without_known(&self, appends: Vec<(Tp, Vec<String>)>) -> Vec<(Tp, Vec<String>)> {
        let mut ids = self.ids.clone();
        let mut is_new = |tp: Tp, value: &String| ids.entry(tp.topic).or_default().insert(id_of(value).to_owned());
        let mut of =
            |(tp, values): (Tp, Vec<String>)| (tp, values.into_iter().filter(|value| is_new(tp, value)).collect());
        appends.into_iter().map(&mut of).collect()
    }

    /// Any id that a topic was given.
    pub(crate) fn some_id(&self, topic: TopicId, chance: &mut Chance) -> Option<String> {
        let ids = self.ids.get(&topic)?;
        ids.iter().nth(chance.below(ids.len() as u64) as usize).cloned()
    }

    pub(crate) fn end(&self, tp: Tp) -> Offset {
        self.events.get(&tp).map_or(0, |events| events.len() as u64)
    }

    pub(crate) fn task(&self, task: TaskKey) -> (u64, Option<Offset>) {
        self.tasks.get(&task).copied().unwrap_or_default()
    }

    pub(crate) fn next_of_producer(&self, producer: u64) -> u64 {
        self.producers.get(&producer).map_or(0, |last| last + 1)
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = (&String, &(u32, u32))> {
        self.topics.iter()
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = Tp> + '_ {
        self.events.keys().copied()
    }

    /// In the same words as [`dump`].
    pub(crate) fn dump(&self) -> String {
        let mut out = String::new();
        for (name, (id, partitions)) in &self.topics {
            writeln!(out, "topic {name} {id} {partitions}").unwrap();
        }
        for (tp, events) in &self.events {
            let start = self.starts.get(tp).copied().unwrap_or(0);
            writeln!(out, "events {tp} from {start}: {}", shorten(&events[start as usize..])).unwrap();
        }
        for tp in self.events.keys() {
            for owner in OWNERS {
                let task = TaskKey { owner: OwnerId(owner), source: *tp };
                let (epoch, next) = self.task(task);
                if epoch > 0 || next.is_some() {
                    writeln!(out, "task {owner} {tp} {epoch} {next:?}").unwrap();
                }
                for ((_, table, key), value) in
                    self.state.range((task, "", String::new())..).take_while(|((at, _, _), _)| *at == task)
                {
                    writeln!(out, "state {owner} {tp} {table} {key} {value}").unwrap();
                }
            }
        }
        // Without a partition there is nowhere to ask for them.
        for producer in PRODUCERS.filter(|_| !self.events.is_empty()) {
            writeln!(out, "producer {producer} {}", self.next_of_producer(producer)).unwrap();
        }
        for (key, value) in &self.entries {
            writeln!(out, "meta {key} {value}").unwrap();
        }
        out
    }
}

/// The id of an event of the workload is what its value begins with.
pub(crate) fn id_of(value: &str) -> &str {
    value.split_once('.').map_or(value, |(id, _)| id)
}

/// The values of the workload say which one they are and are then filled up, so the beginning and the length say it all.
fn shorten(events: &[String]) -> String {
    let short = |event: &String| match event.split_once('.') {
        Some((number, fill)) if fill.bytes().all(|byte| byte == b'v') => format!("{number}+{}", fill.len()),
        _ => format!("{event:?}"),
    };
    events.iter().map(short).collect::<Vec<_>>().join(" ")
}

/// Waits for something that needs nothing but what has happened already.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// The earliest offset of a partition and every event from there on; each read checks what it reads.
pub(crate) fn read_all(log: &EmbeddedLog, tp: Tp) -> Result<(Offset, Vec<String>), LogError> {
    let limits = ReadLimits { bytes_max: 2000, events_max: 50 };
    let Bounds { earliest, end } = log.bounds(tp)?;
    let mut values = Vec::new();
    let mut next = earliest;
    while next < end {
        let chunk = now(log.read(tp, next, limits)).unwrap()?;
        for stored in &chunk.batches {
            for (row, event) in stored.batch.events().enumerate() {
                if stored.offsets.at(row) == next {
                    values.push(String::from_utf8_lossy(event.value.unwrap()).into_owned());
                    next += 1;
                }
            }
        }
        assert_eq!(chunk.next, next, "offsets are dense");
        assert!(chunk.next <= end, "nobody sees an event behind the durable end");
    }
    Ok((earliest, values))
}

/// Everything that a log knows, through its public face.
pub(crate) fn dump(log: &EmbeddedLog) -> Result<String, LogError> {
    let mut out = String::new();
    let mut partitions = Vec::new();
    for topic in log.topics() {
        writeln!(out, "topic {} {} {}", topic.name, topic.id.0, topic.config.partitions).unwrap();
        partitions.extend(topic.partitions());
    }
    partitions.sort();
    for tp in &partitions {
        let (start, events) = read_all(log, *tp)?;
        writeln!(out, "events {tp} from {start}: {}", shorten(&events)).unwrap();
    }
    for tp in &partitions {
        for owner in OWNERS {
            let task = TaskKey { owner: OwnerId(owner), source: *tp };
            let position = log.task_position(task);
            if position.epoch > 0 || position.next.is_some() {
                writeln!(out, "task {owner} {tp} {} {:?}", position.epoch, position.next).unwrap();
            }
            let all = StateScan { start: Bytes::new(), end: None, count_max: usize::MAX, bytes_max: usize::MAX };
            for table in TABLES {
                for (key, value) in log.state_scan(task, &Name::new(table).unwrap(), &all)? {
                    let (key, value) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
                    writeln!(out, "state {owner} {tp} {table} {key} {value}").unwrap();
                }
            }
        }
    }
    if let Some(tp) = partitions.first() {
        for producer in PRODUCERS {
            writeln!(out, "producer {producer} {}", next_of_producer(log, producer, *tp)).unwrap();
        }
    }
    for (key, entry) in now(log.meta_list("")).unwrap()? {
        writeln!(out, "meta {key} {}", String::from_utf8_lossy(&entry.value)).unwrap();
    }
    Ok(out)
}

/// Asks for what cannot be the next request; the refusal says what would be.
fn next_of_producer(log: &EmbeddedLog, producer: u64, tp: Tp) -> u64 {
    let batch = Batch::from_events(&[Event::new("probe")], 0).unwrap();
    let range = ProducerRange { producer: ProducerId(producer), epoch: 0, first: u64::MAX / 2, count: 1 };
    let room = now(log.room(1)).unwrap().unwrap();
    let append = Append { batches: vec![(tp, batch)], ack: AckLevel::Durable, producer: Some(range), room };
    match log.append(append).err() {
        Some(LogError::Producer(ProducerError::OutOfSequence { expected, .. })) => expected,
        Some(LogError::Producer(ProducerError::Unknown { .. })) => 0,
        other => panic!("{other:?}"),
    }
}
