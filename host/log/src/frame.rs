//! Frames: one frame is one transaction. Whatever is in it happened, or none of it.
//!
//! The bytes are drawn in this crate's `README.md`. Two things differ from the common design and are meant:
//!
//! * The checksum of a frame does not cover the columns of the batches in it, it covers their headers, which hold
//!   the checksum of the columns. A payload is hashed once, by whoever received it, and never again on its way to
//!   the disk; a reader of the frame checks both.
//! * The checksum starts from the salt of the segment, so a frame that an earlier life of the same disk blocks left
//!   behind can never be taken for a frame of this one.

use crate::archive::ArchiveFile;
use crate::batch::{BATCH_HEADER_BYTES, Batch, BatchError};
use crate::codec::{Put, Take};
use crate::event::TimestampUs;
use crate::producer::{ProducerId, ProducerSequence};
use crate::task::{Forget, OwnerId, StateChange, TaskEpoch, TaskKey};
use crate::topic::{Name, Offset, Topic, TopicId, Tp};
use bytes::Bytes;
use thiserror::Error;

mod group;

pub use group::{Group, Stamp};

/// A place in the log, in bytes since the store was made.
pub type Lsn = u64;

pub const FRAME_HEADER_BYTES: usize = 48;
pub const OP_HEADER_BYTES: usize = 24;
/// Groups start at multiples of this, so that a durable block is never written again.
pub const BLOCK_BYTES: u64 = 4096;

const MAGIC: [u8; 4] = *b"NDFR";
/// The last frame that was written under one sync.
const GROUP_END: u16 = 1;
/// Holds nothing, fills a block.
const PAD: u16 = 2;

/// An unknown operation with this flag stops recovery; without it, it is skipped.
const MUST_UNDERSTAND: u8 = 0x80;

/// Stored numbers of operations. They are never reused; 8, 11, 12 and 13 are kept for groups, carried
/// batches, tiers and shares.
mod kind {
    pub(super) const APPEND: u8 = 1;
    pub(super) const ADVANCE: u8 = 2;
    pub(super) const PRODUCER: u8 = 3;
    pub(super) const TOPIC_PUT: u8 = 4;
    pub(super) const TOPIC_DELETE: u8 = 5;
    pub(super) const TRIM: u8 = 6;
    pub(super) const FILE_COMMIT: u8 = 7;
    pub(super) const STATE: u8 = 9;
    pub(super) const TASK_EPOCH: u8 = 10;
    pub(super) const OWNER_FORGET: u8 = 14;
    pub(super) const META: u8 = 15;
    pub(super) const TASK_RESET: u8 = 16;
}

// Flags of a task that is reset: it goes on at the offset of the operation; all tables are emptied but those that are named.
const RESET_GOES_ON: u32 = 1;
const RESET_ALL_BUT: u32 = 2;

/// One change. Everything the log knows is the sum of these, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Events of one partition, from this offset on.
    Append {
        tp: Tp,
        base_offset: Offset,
        batch: Batch,
    },
    /// What a producer has sent so far.
    Producer {
        producer: ProducerId,
        sequence: ProducerSequence,
    },
    /// A topic as it is from now on.
    TopicPut(Topic),
    TopicDelete(TopicId),
    /// What comes before this offset is gone.
    Trim {
        tp: Tp,
        to: Offset,
    },
    /// A file of the archive as it is from now on.
    FileCommit {
        tp: Tp,
        file: ArchiveFile,
    },
    /// Someone new works for a task.
    TaskEpoch {
        task: TaskKey,
        epoch: TaskEpoch,
    },
    /// A task has processed everything before `next`.
    Advance {
        task: TaskKey,
        epoch: TaskEpoch,
        next: Offset,
    },
    State {
        task: TaskKey,
        change: StateChange,
    },
    /// A task goes on at `next`, or as before its first commit, with less state. Whoever worked for it does not any more.
    TaskReset {
        task: TaskKey,
        epoch: TaskEpoch,
        next: Option<Offset>,
        forget: Forget,
    },
    /// The positions and the state of all tasks of a deployment are gone.
    OwnerForget(OwnerId),
    /// A metadata entry as it is from now on; `None` deletes it.
    Meta {
        key: String,
        value: Option<Bytes>,
        version: u64,
    },
}

impl Op {
    fn kind(&self) -> u8 {
        match self {
            Op::Append { .. } => kind::APPEND,
            Op::Producer { .. } => kind::PRODUCER,
            Op::TopicPut(_) => kind::TOPIC_PUT,
            Op::TopicDelete(_) => kind::TOPIC_DELETE,
            Op::Trim { .. } => kind::TRIM,
            Op::FileCommit { .. } => kind::FILE_COMMIT,
            Op::TaskEpoch { .. } => kind::TASK_EPOCH,
            Op::Advance { .. } => kind::ADVANCE,
            Op::State { .. } => kind::STATE,
            Op::TaskReset { .. } => kind::TASK_RESET,
            Op::OwnerForget(_) => kind::OWNER_FORGET,
            Op::Meta { .. } => kind::META,
        }
    }

    /// Topic, partition and offset in the header of the operation.
    fn place(&self) -> (u32, u32, u64) {
        match self {
            Op::Append { tp, base_offset, .. } => (tp.topic.0, tp.partition, *base_offset),
            Op::Trim { tp, to } => (tp.topic.0, tp.partition, *to),
            Op::FileCommit { tp, file } => (tp.topic.0, tp.partition, file.base),
            Op::TopicPut(topic) => (topic.id.0, 0, 0),
            Op::TopicDelete(topic) => (topic.0, 0, 0),
            Op::TaskEpoch { task, .. } | Op::State { task, .. } => (task.source.topic.0, task.source.partition, 0),
            Op::Advance { task, next, .. } => (task.source.topic.0, task.source.partition, *next),
            Op::TaskReset { task, next, .. } => (task.source.topic.0, task.source.partition, next.unwrap_or_default()),
            Op::Producer { .. } | Op::OwnerForget(_) | Op::Meta { .. } => (0, 0, 0),
        }
    }

    /// The payload of everything but an append.
    fn small_payload(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Op::Append { .. } => {}
            Op::Producer { producer, sequence } => {
                out.put_u64(producer.0);
                out.put_u32(sequence.epoch);
                out.put_u64(sequence.last);
            }
            Op::TopicPut(topic) => out = topic.encode(),
            Op::TopicDelete(_) | Op::Trim { .. } => {}
            Op::FileCommit { file, .. } => out = file.encode(),
            Op::TaskEpoch { task, epoch } | Op::Advance { task, epoch, .. } => {
                out.put_u64(task.owner.0);
                out.put_u64(*epoch);
            }
            Op::State { task, change } => {
                out.put_u64(task.owner.0);
                out.put_bytes(change.table.as_str().as_bytes());
                out.put_u32(change.entries.len() as u32);
                for (key, value) in &change.entries {
                    out.put_bytes(key);
                    out.put_optional(value.as_deref());
                }
            }
            Op::TaskReset { task, epoch, next, forget } => {
                let (all_but, tables) = match forget {
                    Forget::These(tables) => (0, tables),
                    Forget::AllBut(tables) => (RESET_ALL_BUT, tables),
                };
                out.put_u64(task.owner.0);
                out.put_u64(*epoch);
                out.put_u32(all_but | if next.is_some() { RESET_GOES_ON } else { 0 });
                out.put_u32(tables.len() as u32);
                tables.iter().for_each(|table| out.put_bytes(table.as_str().as_bytes()));
            }
            Op::OwnerForget(owner) => out.put_u64(owner.0),
            Op::Meta { key, value, version } => {
                out.put_bytes(key.as_bytes());
                out.put_optional(value.as_deref());
                out.put_u64(*version);
            }
        }
        out
    }

    fn decode(kind: u8, place: (u32, u32, u64), payload: Bytes) -> Result<Option<Self>, FrameError> {
        let (topic, partition, at) = place;
        let tp = Tp { topic: TopicId(topic), partition };
        if kind == kind::APPEND {
            let batch = Batch::decode(&payload).map_err(|source| FrameError::Batch { tp, offset: at, source })?;
            return Ok(Some(Op::Append { tp, base_offset: at, batch }));
        }
        Self::decode_small(kind, tp, at, Take::new(payload)).ok_or(FrameError::Op { kind })
    }

    /// The outer `None`: the fields are not there. The inner `None`: not an operation this build knows.
    fn decode_small(kind: u8, tp: Tp, at: u64, mut take: Take) -> Option<Option<Self>> {
        let task = |owner| TaskKey { owner: OwnerId(owner), source: tp };
        Some(Some(match kind {
            kind::PRODUCER => Op::Producer {
                producer: ProducerId(take.u64()?),
                sequence: ProducerSequence { epoch: take.u32()?, last: take.u64()? },
            },
            kind::TOPIC_PUT => Op::TopicPut(Topic::decode(tp.topic, &mut take)?),
            kind::TOPIC_DELETE => Op::TopicDelete(tp.topic),
            kind::TRIM => Op::Trim { tp, to: at },
            kind::FILE_COMMIT => Op::FileCommit { tp, file: ArchiveFile::decode(&mut take)? },
            kind::TASK_EPOCH => Op::TaskEpoch { task: task(take.u64()?), epoch: take.u64()? },
            kind::ADVANCE => Op::Advance { task: task(take.u64()?), epoch: take.u64()?, next: at },
            kind::STATE => {
                let task = task(take.u64()?);
                let table = Name::new(&take.text()?).ok()?;
                let count = take.u32()?;
                let mut entries = Vec::new();
                for _ in 0..count {
                    entries.push((take.bytes()?, take.optional()?));
                }
                Op::State { task, change: StateChange { table, entries } }
            }
            kind::TASK_RESET => {
                let (task, epoch, flags, count) = (task(take.u64()?), take.u64()?, take.u32()?, take.u32()?);
                let mut tables = Vec::new();
                for _ in 0..count {
                    tables.push(Name::new(&take.text()?).ok()?);
                }
                let next = (flags & RESET_GOES_ON != 0).then_some(at);
                let all_but = flags & RESET_ALL_BUT != 0;
                let forget = if all_but { Forget::AllBut(tables) } else { Forget::These(tables) };
                Op::TaskReset { task, epoch, next, forget }
            }
            kind::OWNER_FORGET => Op::OwnerForget(OwnerId(take.u64()?)),
            kind::META => Op::Meta { key: take.text()?, value: take.optional()?, version: take.u64()? },
            _ => return Some(None),
        }))
    }

    /// Bytes of the operation in a frame.
    pub fn encoded_len(&self) -> u64 {
        let payload = match self {
            Op::Append { batch, .. } => batch.encoded_len(),
            small => small.small_payload().len(),
        };
        OP_HEADER_BYTES as u64 + align(payload as u64, 8)
    }
}

pub(crate) fn align(value: u64, to: u64) -> u64 {
    value.div_ceil(to) * to
}

/// What the frames of one segment have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameContext {
    pub epoch: u32,
    pub salt: u32,
}

/// A frame that was read and found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub lsn: Lsn,
    pub bytes: u64,
    /// Everything before this was durable when the frame was built.
    pub durable_lsn: Lsn,
    pub wall_us: TimestampUs,
    pub is_group_end: bool,
    pub ops: Vec<(Op, OpSpan)>,
}

/// Where an operation lies: bytes from the start of its frame to its header, and bytes with its padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpSpan {
    pub at: u64,
    pub bytes: u64,
}

/// A batch that is not as it was written, in a frame that is otherwise whole: the frame's own checksum says where it belongs and
/// how many events it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DamagedBatch {
    pub(crate) tp: Tp,
    pub(crate) base_offset: Offset,
    pub(crate) events: u64,
    pub(crate) why: BatchError,
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("no frame begins here")]
    Magic,
    #[error("the frame is cut short")]
    Short,
    #[error("a frame length of {len} bytes")]
    Length { len: u64 },
    #[error("the frame belongs to another place or another life of the store")]
    Foreign,
    #[error("frame checksum {found:08x}, the header says {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("operation {kind} is malformed")]
    Op { kind: u8 },
    #[error("operation {kind} is not known to this build and must be understood; a newer nodata wrote this store")]
    UnknownOp { kind: u8 },
    #[error("batch at offset {offset} of partition {tp}: {source}")]
    Batch { tp: Tp, offset: Offset, source: BatchError },
}

/// The checksum of everything in a header but the magic and the checksum itself.
fn header_crc(header: &[u8; FRAME_HEADER_BYTES], salt: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &header[4..8]), &header[12..])
}

impl Frame {
    /// Reads the frame at the start of `bytes`, which go on behind it, and checks it wholly.
    pub fn decode(bytes: &Bytes, context: FrameContext, lsn: Lsn) -> Result<Self, FrameError> {
        Self::decode_with(bytes, context, lsn, |_, error| Err(error))
    }

    /// As [`decode`](Self::decode), but batches that are damaged are left out and told, as long as the rest is whole.
    pub(crate) fn decode_around(
        bytes: &Bytes,
        context: FrameContext,
        lsn: Lsn,
    ) -> Result<(Self, Vec<DamagedBatch>), FrameError> {
        let mut damaged = Vec::new();
        let frame = Self::decode_with(bytes, context, lsn, |payload, error| {
            // The header of a batch is under the checksum of the frame.
            let count =
                payload.get(12..16).and_then(|count| count.first_chunk()).map(|count| u32::from_le_bytes(*count));
            match (count, error) {
                (Some(count), FrameError::Batch { tp, offset, source }) if count > 0 => {
                    damaged.push(DamagedBatch { tp, base_offset: offset, events: u64::from(count), why: source });
                    Ok(())
                }
                (_, error) => Err(error),
            }
        })?;
        Ok((frame, damaged))
    }

    fn decode_with(
        bytes: &Bytes,
        context: FrameContext,
        lsn: Lsn,
        mut is_damaged: impl FnMut(&Bytes, FrameError) -> Result<(), FrameError>,
    ) -> Result<Self, FrameError> {
        let header: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk().ok_or(FrameError::Short)?;
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if header[0..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        let len = u64::from(u32_at(4));
        if len < FRAME_HEADER_BYTES as u64 || len % 8 != 0 {
            return Err(FrameError::Length { len });
        }
        if u32_at(12) != context.epoch || u64_at(16) != lsn {
            return Err(FrameError::Foreign);
        }
        if len > bytes.len() as u64 {
            return Err(FrameError::Short);
        }
        let flags = u16::from_le_bytes([header[44], header[45]]);
        let mut frame = Frame {
            lsn,
            bytes: len,
            durable_lsn: u64_at(24),
            wall_us: u64_at(32) as TimestampUs,
            is_group_end: flags & GROUP_END != 0,
            ops: Vec::new(),
        };
        let mut crc = header_crc(header, context.salt);

        // First the checksum over what it covers, then the meaning: nothing of a damaged frame is believed.
        let mut raw = Vec::new();
        let mut at = FRAME_HEADER_BYTES;
        if flags & PAD == 0 {
            let end = len as usize;
            for _ in 0..u32_at(40) {
                let op: &[u8; OP_HEADER_BYTES] = bytes[at..end].first_chunk().ok_or(FrameError::Length { len })?;
                crc = crc32c::crc32c_append(crc, op);
                let payload_len = u32::from_le_bytes([op[4], op[5], op[6], op[7]]) as usize;
                let payload_at = at + OP_HEADER_BYTES;
                let next = payload_at as u64 + align(payload_len as u64, 8);
                if next > len {
                    return Err(FrameError::Length { len });
                }
                let covered = if op[0] == kind::APPEND { payload_len.min(BATCH_HEADER_BYTES) } else { payload_len };
                crc = crc32c::crc32c_append(crc, &bytes[payload_at..payload_at + covered]);
                raw.push((at, payload_at..payload_at + payload_len));
                at = next as usize;
            }
            // Bytes behind the last operation would be covered by nothing.
            if at != end {
                return Err(FrameError::Length { len });
            }
        }
        let expected = u32_at(8);
        if crc != expected {
            return Err(FrameError::Checksum { found: crc, expected });
        }
        for (at, payload) in raw {
            let op = &bytes[at..at + OP_HEADER_BYTES];
            let field = |at: usize| u32::from_le_bytes([op[at], op[at + 1], op[at + 2], op[at + 3]]);
            let place = (field(8), field(12), u64::from(field(16)) | u64::from(field(20)) << 32);
            let span = OpSpan { at: at as u64, bytes: OP_HEADER_BYTES as u64 + align(payload.len() as u64, 8) };
            let payload = bytes.slice(payload);
            let decoded = match Op::decode(op[0], place, payload.clone()) {
                Err(error @ FrameError::Batch { .. }) => {
                    is_damaged(&payload, error)?;
                    continue;
                }
                decoded => decoded?,
            };
            match decoded {
                Some(decoded) => frame.ops.push((decoded, span)),
                None if op[1] & MUST_UNDERSTAND != 0 => return Err(FrameError::UnknownOp { kind: op[0] }),
                None => {}
            }
        }
        Ok(frame)
    }
}

/// Reads the operations of one partition that lie one behind the other, without their frame: what a reader gets when
/// it knows where they are. The frame was checked at start; here every batch is checked again, because disks rot.
pub fn decode_appends(bytes: &Bytes) -> Result<Vec<(Tp, Offset, Batch)>, FrameError> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let op: &[u8; OP_HEADER_BYTES] = bytes[at..].first_chunk().ok_or(FrameError::Short)?;
        let field = |at: usize| u32::from_le_bytes([op[at], op[at + 1], op[at + 2], op[at + 3]]);
        let tp = Tp { topic: TopicId(field(8)), partition: field(12) };
        let offset = u64::from(field(16)) | u64::from(field(20)) << 32;
        let payload_at = at + OP_HEADER_BYTES;
        let payload_len = field(4) as usize;
        if op[0] != kind::APPEND || payload_at + payload_len > bytes.len() {
            return Err(FrameError::Op { kind: op[0] });
        }
        let batch = Batch::decode(&bytes.slice(payload_at..payload_at + payload_len))
            .map_err(|source| FrameError::Batch { tp, offset, source })?;
        found.push((tp, offset, batch));
        at = payload_at + align(payload_len as u64, 8) as usize;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, ValueType};
    use crate::topic::TopicConfig;
    use proptest::prelude::*;
    use std::sync::Arc;

    const CONTEXT: FrameContext = FrameContext { epoch: 3, salt: 0xdead_beef };
    const STAMP: Stamp = Stamp { context: CONTEXT, durable_lsn: 17, wall_us: 99 };

    fn task() -> TaskKey {
        TaskKey { owner: OwnerId(7), source: Tp { topic: TopicId(1), partition: 2 } }
    }

    fn every_op() -> Vec<Op> {
        let name = |name| Name::new(name).unwrap();
        let events: Vec<Event> = (0..300).map(|n| Event::new(format!("value {n}")).with_key("k")).collect();
        vec![
            Op::Append {
                tp: Tp { topic: TopicId(1), partition: 0 },
                base_offset: 1 << 40,
                batch: Batch::from_events(&events, 5).unwrap(),
            },
            Op::Producer { producer: ProducerId(u64::MAX), sequence: ProducerSequence { epoch: 1, last: 9 } },
            Op::TopicPut(Topic {
                id: TopicId(1),
                name: name("orders"),
                config: TopicConfig {
                    partitions: 4,
                    event_bytes_max: 1000,
                    values: ValueType::Json,
                    columns: Arc::new(["a:int64".parse().unwrap()]),
                    retention_us: Some(7),
                    retention_bytes: None,
                    deduplicate_us: None,
                },
                created_us: -1,
            }),
            Op::TopicDelete(TopicId(2)),
            Op::Trim { tp: Tp { topic: TopicId(1), partition: 3 }, to: 77 },
            Op::FileCommit { tp: Tp { topic: TopicId(1), partition: 3 }, file: file() },
            Op::TaskEpoch { task: task(), epoch: 4 },
            Op::Advance { task: task(), epoch: 4, next: 1000 },
            Op::State {
                task: task(),
                change: StateChange {
                    table: name("seen"),
                    entries: vec![
                        (Bytes::from("a"), Some(Bytes::from("1"))),
                        (Bytes::from("b"), None),
                        (Bytes::from("c"), Some(Bytes::new())),
                    ],
                },
            },
            Op::TaskReset { task: task(), epoch: 5, next: Some(70), forget: Forget::These(Vec::new()) },
            Op::TaskReset {
                task: task(),
                epoch: 6,
                next: None,
                forget: Forget::AllBut(vec![name("seen"), name("known")]),
            },
            Op::OwnerForget(OwnerId(8)),
            Op::Meta { key: "deployment/x".into(), value: Some(Bytes::from("{}")), version: 3 },
            Op::Meta { key: "deployment/y".into(), value: None, version: 4 },
        ]
    }

    fn file() -> ArchiveFile {
        ArchiveFile {
            base: 1,
            end: 2,
            rows: 3,
            bytes: 4,
            payload_bytes: 5,
            row_groups: 6,
            is_sealed: true,
            timestamp_min_us: 7,
            timestamp_max_us: 8,
            append_min_us: 9,
            append_max_us: 10,
            footer_at: 11,
            footer_crc: 12,
        }
    }

    fn encode(frames: &[Vec<Op>], lsn: Lsn) -> (Bytes, Vec<Vec<OpSpan>>) {
        let mut group = Group::default();
        let spans = frames
            .iter()
            .map(|ops| group.push_frame(&ops.iter().collect::<Vec<_>>(), lsn + group.len(), STAMP))
            .collect();
        group.finish(lsn, STAMP);
        let bytes: Vec<u8> = group.slices().iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(bytes.len() as u64, group.len());
        (bytes.into(), spans)
    }

    #[test]
    fn every_operation_comes_back_and_lies_where_it_was_said_to_lie() {
        let ops = every_op();
        let (bytes, spans) = encode(&[ops.clone(), vec![ops[1].clone()]], 8192);
        assert_eq!(bytes.len() % BLOCK_BYTES as usize, 0);

        let first = Frame::decode(&bytes, CONTEXT, 8192).unwrap();
        assert_eq!((first.durable_lsn, first.wall_us, first.is_group_end), (17, 99, false));
        let (found, found_spans): (Vec<Op>, Vec<OpSpan>) = first.ops.into_iter().unzip();
        assert_eq!(found, ops);
        assert_eq!(found_spans, spans[0]);

        let span = spans[0][0];
        let appends = decode_appends(&bytes.slice(span.at as usize..(span.at + span.bytes) as usize)).unwrap();
        let Op::Append { tp, base_offset, batch } = &ops[0] else { unreachable!() };
        assert_eq!(appends, [(*tp, *base_offset, batch.clone())]);

        let second = Frame::decode(&bytes.slice(first.bytes as usize..), CONTEXT, 8192 + first.bytes).unwrap();
        assert_eq!(second.ops[0].0, ops[1]);
        let pad_at = first.bytes + second.bytes;
        let pad = Frame::decode(&bytes.slice(pad_at as usize..), CONTEXT, 8192 + pad_at).unwrap();
        assert!(pad.is_group_end && pad.ops.is_empty());
        assert_eq!(pad_at + pad.bytes, bytes.len() as u64);
    }

    #[test]
    fn a_frame_of_another_place_epoch_or_salt_is_refused() {
        let (bytes, _) = encode(&[every_op()], 0);
        assert_eq!(Frame::decode(&bytes, CONTEXT, 8), Err(FrameError::Foreign));
        assert_eq!(Frame::decode(&bytes, FrameContext { epoch: 4, ..CONTEXT }, 0), Err(FrameError::Foreign));
        let other_salt = FrameContext { salt: 1, ..CONTEXT };
        assert!(matches!(Frame::decode(&bytes, other_salt, 0), Err(FrameError::Checksum { .. })));
        assert_eq!(Frame::decode(&Bytes::from(vec![0; 4096]), CONTEXT, 0), Err(FrameError::Magic));
    }

    #[test]
    fn an_operation_of_the_future_stops_recovery_only_if_it_must_be_understood() {
        let reread = |flags: u8| {
            let (bytes, spans) = encode(&[vec![Op::OwnerForget(OwnerId(8))]], 0);
            let mut bytes = bytes.to_vec();
            let at = spans[0][0].at as usize;
            bytes[at] = 200;
            bytes[at + 1] = flags;
            let crc = header_crc(bytes.first_chunk().unwrap(), CONTEXT.salt);
            let crc = crc32c::crc32c_append(crc, &bytes[at..at + OP_HEADER_BYTES + 8]);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            Frame::decode(&bytes.into(), CONTEXT, 0)
        };
        assert_eq!(reread(MUST_UNDERSTAND), Err(FrameError::UnknownOp { kind: 200 }));
        assert_eq!(reread(0).unwrap().ops, []);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let (bytes, _) = encode(&[every_op()], 0);
            let len = Frame::decode(&bytes, CONTEXT, 0).unwrap().bytes as usize;
            let mut damaged = bytes.to_vec();
            let at = at.index(len);
            damaged[at] ^= 1u8 << bit;
            // Padding between operations is the only part of a frame that means nothing.
            if let Ok(frame) = Frame::decode(&damaged.into(), CONTEXT, 0) {
                prop_assert_eq!(frame, Frame::decode(&bytes, CONTEXT, 0).unwrap());
                prop_assert_eq!(bytes[at], 0);
            }
        }

        #[test]
        fn a_flipped_bit_in_the_header_of_a_padding_is_refused(
            at in 0..FRAME_HEADER_BYTES, bit in 0u32..8,
        ) {
            let mut group = Group::default();
            group.finish(4096, STAMP);
            let mut bytes: Vec<u8> = group.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            bytes[at] ^= 1u8 << bit;
            // The bytes go on behind it, so that a longer frame is not refused for being cut short.
            bytes.resize(1 << 20, 0);
            prop_assert!(Frame::decode(&bytes.into(), CONTEXT, 4096).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if bytes.len() >= FRAME_HEADER_BYTES {
                let len = (bytes.len() as u32) & !7;
                bytes[0..4].copy_from_slice(&MAGIC);
                bytes[4..8].copy_from_slice(&len.to_le_bytes());
                bytes[12..16].copy_from_slice(&CONTEXT.epoch.to_le_bytes());
                bytes[16..24].fill(0);
            }
            let bytes = Bytes::from(bytes);
            let _ = Frame::decode(&bytes, CONTEXT, 0);
            let _ = decode_appends(&bytes);
        }
    }
}
