//! The one owner of the end of the log: checks every request against everything before it, and gives out offsets.
//!
//! It is a state machine behind a lock and not a thread: a request is put in order by the thread that brings it, in well
//! under a microsecond and without touching payload, and one wake-up (of the syncer) stands between it and the disk.
//! What it knows runs ahead of the disk. That is safe, because the only way to lose what is queued is the end of the process.

use crate::archive::ArchiveFile;
use crate::batch::Batch;
use crate::engine::{AckLevel, AppendedRange, Expect, Room};
use crate::error::LogError;
use crate::event::TimestampUs;
use crate::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, Op, align};
use crate::ids::{EventPlace, IdHash, RecentIds};
use crate::limits::{
    FRAME_BYTES_MAX, GROUP_UNITS_MAX, META_KEY_BYTES_MAX, META_VALUE_BYTES_MAX, RESERVED_BYTES, TOPICS_MAX,
};
use crate::producer::{ProducerRange, ProducerSequence};
use crate::state::State;
use crate::task::{OwnerId, TaskKey, TaskLease, TaskReset, Transaction};
use crate::topic::{Name, Offset, Topic, TopicChange, TopicConfig, TopicId, Tp};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Something that is on its way to the disk.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) ops: Vec<Op>,
    /// Bytes of the operations in a frame.
    pub(crate) bytes: u64,
    /// A transaction has a frame of its own; appends of one group share frames.
    pub(crate) is_transaction: bool,
    pub(crate) ack: AckLevel,
    pub(crate) waiter: Option<oneshot::Sender<Result<(), LogError>>>,
    pub(crate) _room: Option<Room>,
}

/// Resolves when a unit is as safe as was asked for.
pub(crate) type Ticket = oneshot::Receiver<Result<(), LogError>>;

/// What became of an append.
#[derive(Debug)]
pub(crate) enum Placed {
    Appended {
        ranges: Vec<AppendedRange>,
        ticket: Ticket,
    },
    /// Nothing was appended, because these events are there already. It comes back for them to be left out: that takes time
    /// which nobody else should wait for.
    Known {
        batches: Vec<(Tp, Batch)>,
        room: Room,
        known: Vec<EventPlace>,
    },
}

/// What is known about space on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    /// A new segment could not be made.
    pub(crate) is_full: bool,
    /// Bytes that are left in the segments there are.
    pub(crate) left: u64,
}

#[derive(Debug)]
pub(crate) struct Sequencer {
    pub(crate) state: State,
    ids: RecentIds,
    queue: VecDeque<Unit>,
    queued_bytes: u64,
    pub(crate) space: Space,
    stopped: Option<Stopped>,
}

#[derive(Debug)]
enum Stopped {
    Closing,
    Failed(Arc<io::Error>),
}

impl Sequencer {
    pub(crate) fn new(state: State, ids: RecentIds) -> Self {
        Self { state, ids, queue: VecDeque::new(), queued_bytes: 0, space: Space::default(), stopped: None }
    }

    /// Takes nothing more.
    pub(crate) fn close(&mut self) {
        self.stopped.get_or_insert(Stopped::Closing);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.stopped.is_some()
    }

    /// Takes nothing more, and tells whoever waits that nobody knows.
    pub(crate) fn fail(&mut self, source: Arc<io::Error>) {
        for unit in self.queue.drain(..) {
            if let Some(waiter) = unit.waiter {
                let _ = waiter.send(Err(LogError::Failed { source: source.clone() }));
            }
        }
        self.queued_bytes = 0;
        self.stopped = Some(Stopped::Failed(source));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Units that go to the disk together: as many as fit `bytes_max`. `Err`: the first one alone needs so many bytes.
    pub(crate) fn take_group(&mut self, bytes_max: u64) -> Result<Vec<Unit>, u64> {
        let mut taken = 0;
        let mut bytes = 0;
        for unit in self.queue.iter().take(GROUP_UNITS_MAX) {
            let needed = space_of(bytes + unit.bytes, taken as u64 + 1);
            if needed > bytes_max {
                if taken == 0 {
                    return Err(needed);
                }
                break;
            }
            bytes += unit.bytes;
            taken += 1;
        }
        self.queued_bytes -= bytes;
        Ok(self.queue.drain(..taken).collect())
    }

    fn check_open(&self) -> Result<(), LogError> {
        match &self.stopped {
            None => Ok(()),
            Some(Stopped::Closing) => Err(LogError::Stopping),
            Some(Stopped::Failed(source)) => Err(LogError::Failed { source: source.clone() }),
        }
    }

    /// The last check, and the moment at which a request has its place.
    fn push(
        &mut self,
        ops: Vec<Op>,
        is_transaction: bool,
        ack: AckLevel,
        room: Option<Room>,
    ) -> Result<Ticket, LogError> {
        self.check_open()?;
        let bytes = ops.iter().map(Op::encoded_len).sum();
        let whole = bytes + FRAME_HEADER_BYTES as u64;
        if whole > FRAME_BYTES_MAX {
            return Err(LogError::TransactionTooLarge { bytes: whole, bytes_max: FRAME_BYTES_MAX });
        }
        if self.space.is_full {
            let holds_events = ops.iter().any(|op| matches!(op, Op::Append { .. } | Op::State { .. }));
            let reserved = if holds_events { RESERVED_BYTES } else { 0 };
            // Each unit may become a group of its own, so each is counted with its padding.
            if self.queued_bytes + space_of(bytes, 1) + reserved > self.space.left {
                return Err(LogError::DiskFull);
            }
        }
        for op in &ops {
            self.state.apply(op);
        }
        let (sender, ticket) = oneshot::channel();
        let waiter = match ack {
            AckLevel::None => {
                let _ = sender.send(Ok(()));
                None
            }
            AckLevel::Durable | AckLevel::Written => Some(sender),
        };
        self.queued_bytes += bytes;
        self.queue.push_back(Unit { ops, bytes, is_transaction, ack, waiter, _room: room });
        Ok(ticket)
    }

    /// A ticket for everything that was put in order before.
    pub(crate) fn barrier(&mut self) -> Result<Ticket, LogError> {
        self.push(Vec::new(), false, AckLevel::Durable, None)
    }

    fn place(&self, batches: Vec<(Tp, Batch)>, ops: &mut Vec<Op>) -> Result<Vec<AppendedRange>, LogError> {
        let mut ranges: Vec<AppendedRange> = Vec::with_capacity(batches.len());
        for (tp, batch) in batches {
            self.state.check_partition(tp)?;
            let earlier = ranges.iter().rev().find(|range| range.tp == tp);
            let first = earlier.map_or_else(|| self.state.end(tp), |earlier| earlier.last + 1);
            ranges.push(AppendedRange { tp, first, last: first + batch.len() as u64 - 1 });
            ops.push(Op::Append { tp, base_offset: first, batch });
        }
        Ok(ranges)
    }

    /// Remembers the ids of events, and says which were known. What was remembered comes back as a count for each batch.
    fn remember(
        &mut self,
        batches: &[(Tp, Batch)],
        ids: &[Vec<Option<IdHash>>],
        now_us: TimestampUs,
    ) -> (Vec<EventPlace>, Vec<(TopicId, usize)>) {
        let mut known = Vec::new();
        let mut added = Vec::new();
        for (batch, ((tp, _), ids)) in batches.iter().zip(ids).enumerate() {
            let topic = self.state.topics.get(&tp.topic);
            let Some(window_us) = topic.and_then(|topic| topic.config.deduplicate_us) else { continue };
            let from_us = now_us.saturating_sub_unsigned(window_us);
            let mut count = 0;
            for (row, id) in ids.iter().enumerate() {
                let Some(id) = id else { continue };
                if self.ids.add(tp.topic, *id, now_us, from_us) {
                    count += 1;
                } else {
                    known.push(EventPlace { batch, row: row as u32 });
                }
            }
            added.push((tp.topic, count));
        }
        (known, added)
    }

    fn take_back(&mut self, added: Vec<(TopicId, usize)>) {
        // The last ones first, because a topic may be among them several times.
        for (topic, count) in added.into_iter().rev() {
            self.ids.take_back(topic, count);
        }
    }

    /// `ids` are the hashes of the ids of the events of each batch.
    pub(crate) fn append(
        &mut self,
        batches: Vec<(Tp, Batch)>,
        ids: &[Vec<Option<IdHash>>],
        producer: Option<ProducerRange>,
        ack: AckLevel,
        room: Room,
        now_us: TimestampUs,
    ) -> Result<Placed, LogError> {
        let mut ops = Vec::with_capacity(batches.len() + 1);
        if let Some(range) = producer {
            self.state.producers.check(&range)?;
            let sequence = ProducerSequence { epoch: range.epoch, last: range.last() };
            ops.push(Op::Producer { producer: range.producer, sequence });
        }
        let (known, added) = self.remember(&batches, ids, now_us);
        if !known.is_empty() {
            self.take_back(added);
            return Ok(Placed::Known { batches, room, known });
        }
        // Where every event was known, what is left to wait for are the events that they repeat.
        let ack = if batches.is_empty() { AckLevel::Durable } else { ack };
        let placed = self.place(batches, &mut ops);
        let placed =
            placed.and_then(|ranges| Ok(Placed::Appended { ranges, ticket: self.push(ops, false, ack, Some(room))? }));
        placed.inspect_err(|_| self.take_back(added))
    }

    /// `ids` as with [`append`](Self::append). What a component emits is appended whatever its ids are: it is there once
    /// already. They are remembered.
    pub(crate) fn commit(
        &mut self,
        transaction: Transaction,
        ids: &[Vec<Option<IdHash>>],
        now_us: TimestampUs,
    ) -> Result<(Vec<AppendedRange>, Ticket), LogError> {
        let Transaction { task, epoch, expect, next, appends, state } = transaction;
        let position = self.state.tasks.get(&task).copied().unwrap_or_default();
        if epoch != position.epoch {
            return Err(LogError::Fenced { task, epoch, current: position.epoch });
        }
        if expect != position.next {
            return Err(LogError::PositionMoved { expect, actual: position.next });
        }
        if let Some(from) = position.next.filter(|&from| next < from) {
            return Err(LogError::PositionBackwards { from, to: next });
        }
        let mut ops = Vec::with_capacity(appends.len() + state.len() + 1);
        let (_, added) = self.remember(&appends, ids, now_us);
        let placed = self.place(appends, &mut ops);
        ops.extend(state.into_iter().map(|change| Op::State { task, change }));
        ops.push(Op::Advance { task, epoch, next });
        let placed = placed.and_then(|ranges| Ok((ranges, self.push(ops, true, AckLevel::Durable, None)?)));
        placed.inspect_err(|_| self.take_back(added))
    }

    pub(crate) fn begin_task(&mut self, task: TaskKey) -> Result<(TaskLease, Ticket), LogError> {
        self.state.check_partition(task.source)?;
        let position = self.state.tasks.get(&task).copied().unwrap_or_default();
        let epoch = position.epoch + 1;
        let ticket = self.push(vec![Op::TaskEpoch { task, epoch }], true, AckLevel::Durable, None)?;
        Ok((TaskLease { task, epoch, next: position.next }, ticket))
    }

    pub(crate) fn reset_tasks(&mut self, resets: Vec<TaskReset>) -> Result<Ticket, LogError> {
        let mut ops = Vec::with_capacity(resets.len());
        for TaskReset { task, epoch, next, forget } in resets {
            self.state.check_partition(task.source)?;
            let current = self.state.tasks.get(&task).copied().unwrap_or_default().epoch;
            if epoch != current {
                return Err(LogError::Fenced { task, epoch, current });
            }
            ops.push(Op::TaskReset { task, epoch: epoch + 1, next, forget });
        }
        self.push(ops, true, AckLevel::Durable, None)
    }

    pub(crate) fn forget_owner(&mut self, owner: OwnerId) -> Result<Ticket, LogError> {
        self.push(vec![Op::OwnerForget(owner)], true, AckLevel::Durable, None)
    }

    pub(crate) fn create_topic(
        &mut self,
        name: Name,
        config: TopicConfig,
        now_us: TimestampUs,
    ) -> Result<(Topic, Ticket), LogError> {
        config.check()?;
        if self.state.topic(&name).is_ok() {
            return Err(LogError::TopicExists { topic: name });
        }
        if self.state.topics.len() >= TOPICS_MAX {
            return Err(LogError::TooManyTopics { count: self.state.topics.len() });
        }
        let topic = Topic { id: TopicId(self.state.next_topic), name, config, created_us: now_us };
        let ticket = self.push(vec![Op::TopicPut(topic.clone())], true, AckLevel::Durable, None)?;
        Ok((topic, ticket))
    }

    pub(crate) fn change_topic(&mut self, name: &Name, change: &TopicChange) -> Result<(Topic, Ticket), LogError> {
        let topic = self.state.topic(name)?.changed(change)?;
        let ticket = self.push(vec![Op::TopicPut(topic.clone())], true, AckLevel::Durable, None)?;
        if topic.config.deduplicate_us.is_none() {
            self.ids.forget_topic(topic.id);
        }
        Ok((topic, ticket))
    }

    pub(crate) fn delete_topic(&mut self, name: &Name) -> Result<Ticket, LogError> {
        let id = self.state.topic(name)?.id;
        let ticket = self.push(vec![Op::TopicDelete(id)], true, AckLevel::Durable, None)?;
        self.ids.forget_topic(id);
        Ok(ticket)
    }

    pub(crate) fn commit_file(&mut self, tp: Tp, file: ArchiveFile) -> Result<Ticket, LogError> {
        self.state.check_partition(tp)?;
        let known = self.state.archives.get(&tp).cloned().unwrap_or_default();
        if let Err(what) = known.check(&file, self.state.end(tp)) {
            return Err(LogError::FileRefused { tp, base: file.base, end: file.end, what });
        }
        self.push(vec![Op::FileCommit { tp, file }], true, AckLevel::Durable, None)
    }

    /// Only what is in files can be trimmed: the rest is not trimmed, and neither is what was trimmed before.
    pub(crate) fn trim(&mut self, tp: Tp, to: Offset) -> Result<Ticket, LogError> {
        self.state.check_partition(tp)?;
        let (start, end) = self.state.archives.get(&tp).map_or((0, 0), |archive| (archive.start, archive.end));
        if to <= start {
            return self.barrier();
        }
        self.push(vec![Op::Trim { tp, to: to.min(end) }], true, AckLevel::Durable, None)
    }

    pub(crate) fn meta_put(
        &mut self,
        key: &str,
        expect: Expect,
        value: Option<Bytes>,
    ) -> Result<(u64, Ticket), LogError> {
        let bytes = value.as_ref().map_or(0, Bytes::len);
        for (bytes, bytes_max) in [(key.len(), META_KEY_BYTES_MAX), (bytes, META_VALUE_BYTES_MAX)] {
            if bytes > bytes_max {
                return Err(LogError::MetaTooLarge { key: key.chars().take(64).collect(), bytes, bytes_max });
            }
        }
        let actual = self.state.entries.get(key).map(|entry| entry.version);
        let expected = match expect {
            Expect::Any => actual,
            Expect::Absent => None,
            Expect::Version(version) => Some(version),
        };
        if expected != actual {
            return Err(LogError::MetaConflict { key: key.to_owned(), expected, actual });
        }
        let version = self.state.version + 1;
        let op = Op::Meta { key: key.to_owned(), value, version };
        let ticket = self.push(vec![op], true, AckLevel::Durable, None)?;
        Ok((version, ticket))
    }
}

/// Bytes on the disk, at most, of units with so many bytes of operations: each may have a frame, and the group is padded.
fn space_of(bytes: u64, units: u64) -> u64 {
    align(bytes + (units + 1) * FRAME_HEADER_BYTES as u64, BLOCK_BYTES) + BLOCK_BYTES
}
