//! The in-memory model: what an engine does, said as plainly as possible, for tests.
//!
//! It leaves a gap in the offsets now and then, as an engine on other machines may, and everything is durable at once.

use crate::archive::PartitionArchive;
use crate::batch::Batch;
use crate::engine::{
    AckLevel, Append, Appended, AppendedRange, Bounds, BoxFuture, Capabilities, Change, Changes, Chunk, Clock, Expect,
    Log, MetaEntry, MetadataStore, Offsets, Pending, ReadLimits, Room, StateScan, StoredBatch, find_time,
};
use crate::error::LogError;
use crate::event::TimestampUs;
use crate::ids::{EventPlace, LeftOut};
use crate::limits::{FRAME_BYTES_MAX, META_KEY_BYTES_MAX, META_VALUE_BYTES_MAX, WATCH_CHANGES_MAX};
use crate::producer::{ProducerId, ProducerSequence, Producers};
use crate::task::{Forget, OwnerId, TaskKey, TaskLease, TaskPosition, TaskReset, Transaction};
use crate::topic::{Name, Offset, Topic, TopicChange, TopicConfig, TopicId, Tp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};

/// A log in memory.
pub struct ModelLog {
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
    changes: broadcast::Sender<Changes>,
    meta_version: watch::Sender<u64>,
}

struct Known {
    topics: BTreeMap<Name, Topic>,
    next_topic: u32,
    partitions: BTreeMap<Tp, Partition>,
    tasks: BTreeMap<TaskKey, TaskPosition>,
    tables: BTreeMap<(TaskKey, Name), BTreeMap<Bytes, Bytes>>,
    producers: Producers,
    /// When each id was last appended.
    ids: BTreeMap<(TopicId, String), TimestampUs>,
    entries: BTreeMap<String, MetaEntry>,
    last_us: i64,
}

struct Partition {
    batches: Vec<StoredBatch>,
    end: watch::Sender<Offset>,
}

impl Default for Partition {
    fn default() -> Self {
        Self { batches: Vec::new(), end: watch::Sender::new(0) }
    }
}

fn done<T: Send + 'static>(value: T) -> Pending<T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl ModelLog {
    /// An empty log.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            known: Mutex::new(Known {
                topics: BTreeMap::new(),
                next_topic: 1,
                partitions: BTreeMap::new(),
                tasks: BTreeMap::new(),
                tables: BTreeMap::new(),
                producers: Producers::new(crate::limits::PRODUCERS_MAX),
                ids: BTreeMap::new(),
                entries: BTreeMap::new(),
                last_us: i64::MIN,
            }),
            changes: broadcast::Sender::new(WATCH_CHANGES_MAX),
            meta_version: watch::Sender::new(0),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, changes: Vec<Change>) {
        let _ = self.changes.send(changes.into());
    }

    fn check_size(batches: &[(Tp, Batch)]) -> Result<(), LogError> {
        let bytes = batches.iter().map(|(_, batch)| batch.encoded_len() as u64).sum();
        if bytes > FRAME_BYTES_MAX {
            return Err(LogError::TransactionTooLarge { bytes, bytes_max: FRAME_BYTES_MAX });
        }
        Ok(())
    }
}

impl Known {
    fn topic(&self, name: &Name) -> Result<&Topic, LogError> {
        self.topics.get(name).ok_or_else(|| LogError::UnknownTopic { topic: name.clone() })
    }

    fn topic_by_id(&self, id: TopicId) -> Result<&Topic, LogError> {
        let found = self.topics.values().find(|topic| topic.id == id);
        found.ok_or(LogError::UnknownTopicId { topic: id })
    }

    fn partition(&self, tp: Tp) -> Result<&Partition, LogError> {
        let topic = self.topic_by_id(tp.topic)?;
        self.partitions.get(&tp).ok_or_else(|| LogError::UnknownPartition {
            topic: topic.name.clone(),
            partition: tp.partition,
            partitions: topic.config.partitions,
        })
    }

    fn put_topic(&mut self, topic: &Topic) {
        for tp in topic.partitions() {
            self.partitions.entry(tp).or_default();
        }
        self.topics.insert(topic.name.clone(), topic.clone());
    }

    /// Remembers the ids of events, and says which were known.
    fn remember(&mut self, batches: &[(Tp, Batch)], now_us: TimestampUs) -> Vec<EventPlace> {
        let mut repeated = Vec::new();
        for (at, (tp, batch)) in batches.iter().enumerate() {
            let Some(topic) = self.topics.values().find(|topic| topic.id == tp.topic) else { continue };
            let Some(window_us) = topic.config.deduplicate_us else { continue };
            let from_us = now_us.saturating_sub_unsigned(window_us);
            for (row, id) in batch.events().map(|event| event.id().map(str::to_owned)).enumerate() {
                let Some(id) = id else { continue };
                let seen_us = self.ids.entry((tp.topic, id)).or_insert(i64::MIN);
                if *seen_us >= from_us {
                    repeated.push(EventPlace { batch: at, row: row as u32 });
                } else {
                    *seen_us = now_us;
                }
            }
        }
        repeated
    }

    fn append(&mut self, batches: Vec<(Tp, Batch)>, now_us: i64) -> (Vec<AppendedRange>, Vec<Change>) {
        self.last_us = self.last_us.max(now_us);
        let append_us = self.last_us;
        let mut ranges = Vec::new();
        let mut changes = Vec::new();
        for (tp, batch) in batches {
            let partition = self.partitions.entry(tp).or_default();
            let end = *partition.end.borrow();
            // Every third event leaves its successor a gap.
            let offsets: Arc<[Offset]> = (0..batch.len() as u64).map(|row| end + 1 + row + row / 3).collect();
            let offsets = Offsets::Each(offsets);
            let range = AppendedRange { tp, first: offsets.at(0), last: offsets.at(batch.len() - 1) };
            partition.batches.push(StoredBatch { offsets, append_us, batch });
            partition.end.send_replace(range.last + 1);
            changes.push(Change::End(tp, range.last + 1));
            ranges.push(range);
        }
        (ranges, changes)
    }
}

impl Log for ModelLog {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dense_offsets: false,
            transaction_bytes_max: FRAME_BYTES_MAX,
            idempotent_producers: true,
            durability: "memory of this process",
        }
    }

    fn topics(&self) -> Vec<Topic> {
        self.known().topics.values().cloned().collect()
    }

    fn topic(&self, name: &Name) -> Result<Topic, LogError> {
        self.known().topic(name).cloned()
    }

    fn topic_by_id(&self, id: TopicId) -> Result<Topic, LogError> {
        self.known().topic_by_id(id).cloned()
    }

    fn create_topic(&self, name: Name, config: TopicConfig) -> Result<Pending<Topic>, LogError> {
        config.check()?;
        let mut known = self.known();
        if known.topics.contains_key(&name) {
            return Err(LogError::TopicExists { topic: name });
        }
        let topic = Topic { id: TopicId(known.next_topic), name, config, created_us: self.clock.now_us() };
        known.next_topic += 1;
        known.put_topic(&topic);
        self.tell(vec![Change::Topic(topic.clone())]);
        Ok(done(topic))
    }

    fn change_topic(&self, name: &Name, change: &TopicChange) -> Result<Pending<Topic>, LogError> {
        let mut known = self.known();
        let topic = known.topic(name)?.changed(change)?;
        known.put_topic(&topic);
        self.tell(vec![Change::Topic(topic.clone())]);
        Ok(done(topic))
    }

    fn delete_topic(&self, name: &Name) -> Result<Pending<()>, LogError> {
        let mut known = self.known();
        let id = known.topic(name)?.id;
        known.topics.remove(name);
        known.partitions.retain(|tp, _| tp.topic != id);
        self.tell(vec![Change::TopicDeleted(id, name.clone())]);
        Ok(done(()))
    }

    fn room(&self, bytes: u64) -> BoxFuture<'_, Result<Room, LogError>> {
        let bytes_max = FRAME_BYTES_MAX;
        let room = if bytes > bytes_max {
            Err(LogError::TransactionTooLarge { bytes, bytes_max })
        } else {
            Ok(Room { _permit: None })
        };
        Box::pin(std::future::ready(room))
    }

    fn append(&self, append: Append) -> Result<Pending<Appended>, LogError> {
        let Append { batches, ack: _, producer, room: _ } = append;
        if batches.is_empty() {
            return Err(LogError::Empty);
        }
        Self::check_size(&batches)?;
        let mut known = self.known();
        if let Some(range) = &producer {
            known.producers.check(range)?;
        }
        for (tp, _) in &batches {
            known.partition(*tp)?;
        }
        if let Some(range) = producer {
            let sequence = ProducerSequence { epoch: range.epoch, last: range.last() };
            known.producers.put(ProducerId(range.producer.0), sequence);
        }
        let now_us = self.clock.now_us();
        let mut left_out = LeftOut::new(batches.len());
        let repeated = known.remember(&batches, now_us);
        let batches = left_out.leave_out(batches, &repeated)?;
        let (ranges, changes) = known.append(batches, now_us);
        self.tell(changes);
        // Whatever was asked for, this is as safe as it gets.
        Ok(done(Appended { ranges, duplicates: left_out.places(), ack: AckLevel::Durable }))
    }

    fn barrier(&self) -> Result<Pending<()>, LogError> {
        Ok(done(()))
    }

    fn begin_task(&self, task: TaskKey) -> Result<Pending<TaskLease>, LogError> {
        let mut known = self.known();
        known.partition(task.source)?;
        let position = known.tasks.entry(task).or_default();
        position.epoch += 1;
        Ok(done(TaskLease { task, epoch: position.epoch, next: position.next }))
    }

    fn commit(&self, transaction: Transaction) -> Result<Pending<Appended>, LogError> {
        let Transaction { task, epoch, expect, next, appends, state } = transaction;
        Self::check_size(&appends)?;
        let mut known = self.known();
        let position = known.tasks.get(&task).copied().unwrap_or_default();
        if position.epoch != epoch {
            return Err(LogError::Fenced { task, epoch, current: position.epoch });
        }
        if position.next != expect {
            return Err(LogError::PositionMoved { expect, actual: position.next });
        }
        if let Some(from) = position.next.filter(|&from| next < from) {
            return Err(LogError::PositionBackwards { from, to: next });
        }
        for (tp, _) in &appends {
            known.partition(*tp)?;
        }
        known.tasks.insert(task, TaskPosition { epoch, next: Some(next) });
        for change in state {
            let table = known.tables.entry((task, change.table)).or_default();
            for (key, value) in change.entries {
                match value {
                    Some(value) => drop(table.insert(key, value)),
                    None => drop(table.remove(&key)),
                }
            }
        }
        let now_us = self.clock.now_us();
        known.remember(&appends, now_us);
        let (ranges, changes) = known.append(appends, now_us);
        self.tell(changes);
        Ok(done(Appended { ranges, duplicates: Vec::new(), ack: AckLevel::Durable }))
    }

    fn task_position(&self, task: TaskKey) -> TaskPosition {
        self.known().tasks.get(&task).copied().unwrap_or_default()
    }

    fn reset_tasks(&self, resets: Vec<TaskReset>) -> Result<Pending<()>, LogError> {
        let mut known = self.known();
        for TaskReset { task, epoch, .. } in &resets {
            known.partition(task.source)?;
            let current = known.tasks.get(task).copied().unwrap_or_default().epoch;
            if *epoch != current {
                return Err(LogError::Fenced { task: *task, epoch: *epoch, current });
            }
        }
        for TaskReset { task, epoch, next, forget } in resets {
            known.tasks.insert(task, TaskPosition { epoch: epoch + 1, next });
            known.tables.retain(|(of, table), _| {
                let is_forgotten = match &forget {
                    Forget::These(tables) => tables.contains(table),
                    Forget::AllBut(tables) => !tables.contains(table),
                };
                *of != task || !is_forgotten
            });
        }
        Ok(done(()))
    }

    fn forget_owner(&self, owner: OwnerId) -> Result<Pending<()>, LogError> {
        let mut known = self.known();
        known.tasks.retain(|task, _| task.owner != owner);
        known.tables.retain(|(task, _), _| task.owner != owner);
        Ok(done(()))
    }

    fn state_get(&self, task: TaskKey, table: &Name, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, LogError> {
        let known = self.known();
        let table = known.tables.get(&(task, table.clone()));
        Ok(keys.iter().map(|key| table.and_then(|table| table.get(key)).cloned()).collect())
    }

    fn state_scan(&self, task: TaskKey, table: &Name, scan: &StateScan) -> Result<Vec<(Bytes, Bytes)>, LogError> {
        let known = self.known();
        let Some(table) = known.tables.get(&(task, table.clone())) else { return Ok(Vec::new()) };
        let mut bytes = 0;
        let in_range = table
            .range(scan.start.clone()..)
            .take_while(|(key, _)| scan.end.as_ref().is_none_or(|end| *key < end))
            .take(scan.count_max)
            .take_while(|(key, value)| {
                let fits = bytes < scan.bytes_max || bytes == 0;
                bytes += key.len() + value.len();
                fits
            });
        Ok(in_range.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn bounds(&self, tp: Tp) -> Result<Bounds, LogError> {
        let known = self.known();
        let partition = known.partition(tp)?;
        let end = *partition.end.borrow();
        Ok(Bounds { earliest: 0, end })
    }

    fn read(&self, tp: Tp, from: Offset, limits: ReadLimits) -> BoxFuture<'_, Result<Chunk, LogError>> {
        let read = || {
            let known = self.known();
            let partition = known.partition(tp)?;
            let end = *partition.end.borrow();
            if from > end {
                return Err(LogError::OutOfRange { tp, asked: from, earliest: 0, end });
            }
            Ok(Chunk::of(&partition.batches, from, limits))
        };
        Box::pin(std::future::ready(read()))
    }

    fn offset_at(&self, tp: Tp, time_us: TimestampUs) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(find_time(self, tp, 0, time_us))
    }

    fn archive(&self, tp: Tp) -> Result<Arc<PartitionArchive>, LogError> {
        self.bounds(tp).map(|_| Arc::default())
    }

    fn follow(&self, tp: Tp) -> Result<watch::Receiver<Offset>, LogError> {
        Ok(self.known().partition(tp)?.end.subscribe())
    }

    fn changes(&self) -> broadcast::Receiver<Changes> {
        self.changes.subscribe()
    }
}

impl MetadataStore for ModelLog {
    fn meta_get(&self, key: &str) -> BoxFuture<'_, Result<Option<MetaEntry>, LogError>> {
        let entry = self.known().entries.get(key).cloned();
        Box::pin(std::future::ready(Ok(entry)))
    }

    fn meta_put(&self, key: &str, expect: Expect, value: Option<Bytes>) -> Result<Pending<u64>, LogError> {
        let bytes = value.as_ref().map_or(0, Bytes::len);
        for (bytes, bytes_max) in [(key.len(), META_KEY_BYTES_MAX), (bytes, META_VALUE_BYTES_MAX)] {
            if bytes > bytes_max {
                return Err(LogError::MetaTooLarge { key: key.chars().take(64).collect(), bytes, bytes_max });
            }
        }
        let mut known = self.known();
        let actual = known.entries.get(key).map(|entry| entry.version);
        let expected = match expect {
            Expect::Any => actual,
            Expect::Absent => None,
            Expect::Version(version) => Some(version),
        };
        if expected != actual {
            return Err(LogError::MetaConflict { key: key.to_owned(), expected, actual });
        }
        let version = *self.meta_version.borrow() + 1;
        match value {
            Some(value) => drop(known.entries.insert(key.to_owned(), MetaEntry { value, version })),
            None => drop(known.entries.remove(key)),
        }
        self.meta_version.send_replace(version);
        Ok(done(version))
    }

    fn meta_list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, MetaEntry)>, LogError>> {
        let known = self.known();
        let entries = known.entries.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let found = entries.map(|(key, entry)| (key.clone(), entry.clone())).collect();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn meta_version(&self) -> watch::Receiver<u64> {
        self.meta_version.subscribe()
    }
}
