//! The seam behind which a log stands: what every engine promises, and what may differ.
//!
//! Two engines stand behind it, the embedded one and an in-memory model. `conformance` is the one suite that both
//! pass; it branches on [`Capabilities`] and on nothing else. The model leaves gaps between offsets on purpose, so
//! that whoever computes an offset is found out.

use crate::archive::PartitionArchive;
use crate::batch::Batch;
use crate::error::LogError;
use crate::event::TimestampUs;
use crate::ids::EventPlace;
use crate::producer::ProducerRange;
use crate::task::{OwnerId, TaskKey, TaskLease, TaskPosition, TaskReset, Transaction};
use crate::topic::{Name, Offset, Topic, TopicChange, TopicConfig, TopicId, Tp};
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that was accepted and is on its way: it has its place in the order, and resolves when it is as safe as was
/// asked for. Dropping it changes nothing.
pub type Pending<T> = BoxFuture<'static, Result<T, LogError>>;

/// What may differ between engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Offsets have no gaps. Nobody but a test may rely on it.
    pub dense_offsets: bool,
    /// Largest transaction in bytes.
    pub transaction_bytes_max: u64,
    /// Requests of one producer are appended once however often they are sent.
    pub idempotent_producers: bool,
    /// What a durable acknowledgement survives, in words.
    pub durability: &'static str,
}

/// When an append is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckLevel {
    /// After the sync: it survives the loss of power.
    #[default]
    Durable,
    /// After the write: it survives the end of the process, not the loss of power.
    Written,
    /// At once: it has an offset and may be lost.
    None,
}

/// Room in the log, in bytes. It is given back when the append is durable, or when this is dropped.
#[derive(Debug)]
pub struct Room {
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

/// Events for any number of partitions, as one unit.
#[derive(Debug)]
pub struct Append {
    /// Batches for one partition keep their order.
    pub batches: Vec<(Tp, Batch)>,
    pub ack: AckLevel,
    /// `None`: a repeat is appended again.
    pub producer: Option<ProducerRange>,
    pub room: Room,
}

/// Offsets that a batch was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedRange {
    pub tp: Tp,
    pub first: Offset,
    pub last: Offset,
}

/// What became of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// One for each batch of which anything was appended, in order.
    pub ranges: Vec<AppendedRange>,
    /// Events that were not appended, in order, because the topic remembers their ids: they were appended before, and are
    /// as safe as was asked for.
    pub duplicates: Vec<EventPlace>,
    /// What it survives.
    pub ack: AckLevel,
}

/// A batch with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    pub offsets: Offsets,
    /// When it was appended, by the server's clock; it never goes back.
    pub append_us: TimestampUs,
    pub batch: Batch,
}

/// The offsets of the events of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// From this one on, without gaps.
    From(Offset),
    /// One for each event, ascending.
    Each(Arc<[Offset]>),
}

impl Offsets {
    /// The offset of the event at this row.
    pub fn at(&self, row: usize) -> Offset {
        match self {
            Offsets::From(first) => first + row as u64,
            Offsets::Each(offsets) => offsets[row],
        }
    }

    /// How many of the first `count` rows come before `offset`.
    pub fn rows_before(&self, offset: Offset, count: usize) -> usize {
        match self {
            Offsets::From(first) => offset.saturating_sub(*first).min(count as u64) as usize,
            Offsets::Each(offsets) => offsets.partition_point(|&at| at < offset),
        }
    }
}

impl StoredBatch {
    /// The offset of the first event.
    pub fn first(&self) -> Offset {
        self.offsets.at(0)
    }

    /// The offset of the last event.
    pub fn last(&self) -> Offset {
        self.offsets.at(self.batch.len() - 1)
    }
}

/// How much to read at once. At least one batch is given, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    pub bytes_max: u64,
    pub events_max: usize,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Whole batches, in order. The first may begin before the offset that was asked for.
    pub batches: Vec<StoredBatch>,
    /// Where to go on.
    pub next: Offset,
}

impl Chunk {
    /// What a reader gets of these batches, which are in order: from the one that holds `from` on, at least one if there is one.
    pub fn of<'a>(batches: impl IntoIterator<Item = &'a StoredBatch>, from: Offset, limits: ReadLimits) -> Self {
        let mut chunk = Chunk { batches: Vec::new(), next: from };
        let (mut bytes, mut events) = (0, 0);
        for stored in batches.into_iter().filter(|stored| stored.last() >= from) {
            if !chunk.batches.is_empty() && (bytes >= limits.bytes_max || events >= limits.events_max) {
                break;
            }
            bytes += stored.batch.encoded_len() as u64;
            events += stored.batch.len() - stored.offsets.rows_before(from, stored.batch.len());
            chunk.next = stored.last() + 1;
            chunk.batches.push(stored.clone());
        }
        chunk
    }
}

/// The offsets of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The earliest that is still there.
    pub earliest: Offset,
    /// After the last durable event.
    pub end: Offset,
}

/// Something happened to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A topic was made or changed.
    Topic(Topic),
    /// A topic is gone.
    TopicDeleted(TopicId, Name),
    /// A partition has a new end.
    End(Tp, Offset),
}

/// Changes that became durable together.
pub type Changes = Arc<[Change]>;

/// Topics, events, transactions and what tasks remember.
///
/// Whatever is asked for is put in order when the method is called, not when the answer is awaited, so the order of calls
/// is the order in the log. Nothing that is not durable is ever read: not an event, not an end, not a position.
pub trait Log: Send + Sync + 'static {
    fn capabilities(&self) -> Capabilities;

    /// Every topic, by name.
    fn topics(&self) -> Vec<Topic>;
    fn topic(&self, name: &Name) -> Result<Topic, LogError>;
    fn topic_by_id(&self, id: TopicId) -> Result<Topic, LogError>;
    fn create_topic(&self, name: Name, config: TopicConfig) -> Result<Pending<Topic>, LogError>;
    fn change_topic(&self, name: &Name, change: &TopicChange) -> Result<Pending<Topic>, LogError>;
    /// The events are gone with it.
    fn delete_topic(&self, name: &Name) -> Result<Pending<()>, LogError>;

    /// Waits until the log has room for this many bytes. This is the only place where publishing waits while nothing has
    /// been promised; whoever waits longer than they like stops waiting.
    fn room(&self, bytes: u64) -> BoxFuture<'_, Result<Room, LogError>>;
    fn append(&self, append: Append) -> Result<Pending<Appended>, LogError>;
    /// Resolves when everything that was put in order before is durable. Whoever sent a request again and is told that it
    /// was a repeat waits for this: the first one may still be on its way.
    fn barrier(&self) -> Result<Pending<()>, LogError>;

    /// Takes over a task: from now on, whoever worked for it cannot commit any more.
    fn begin_task(&self, task: TaskKey) -> Result<Pending<TaskLease>, LogError>;
    /// Commits everything or nothing. Refused if the position is not where it is expected, or if someone took over.
    fn commit(&self, transaction: Transaction) -> Result<Pending<Appended>, LogError>;
    fn task_position(&self, task: TaskKey) -> TaskPosition;
    /// Has tasks go on elsewhere, all of them or none. Refused if someone took one of them over meanwhile. From now on, whoever
    /// worked for one of them cannot commit any more. This is the one way in which a position moves backwards.
    fn reset_tasks(&self, resets: Vec<TaskReset>) -> Result<Pending<()>, LogError>;
    /// Forgets positions and state of every task of a deployment.
    fn forget_owner(&self, owner: OwnerId) -> Result<Pending<()>, LogError>;
    /// One value for each key.
    fn state_get(&self, task: TaskKey, table: &Name, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, LogError>;
    /// Entries with `start <= key < end` by key, until there are `count_max` of them or `bytes_max` bytes.
    fn state_scan(&self, task: TaskKey, table: &Name, scan: &StateScan) -> Result<Vec<(Bytes, Bytes)>, LogError>;

    fn bounds(&self, tp: Tp) -> Result<Bounds, LogError>;
    /// Reads from `from` on. At the end it answers at once with nothing, and says to go on where it is; where events were lost
    /// it may answer with nothing too, and says to go on behind them. Before the beginning and behind the end it
    /// answers out of range.
    fn read(&self, tp: Tp, from: Offset, limits: ReadLimits) -> BoxFuture<'_, Result<Chunk, LogError>>;
    /// The offset of the first event whose timestamp is not before a time; the end if there is none.
    fn offset_at(&self, tp: Tp, time_us: TimestampUs) -> BoxFuture<'_, Result<Offset, LogError>>;
    /// The files that hold older events of a partition.
    fn archive(&self, tp: Tp) -> Result<Arc<PartitionArchive>, LogError>;
    /// The end of a partition, as it moves. The sender is gone when the topic is.
    fn follow(&self, tp: Tp) -> Result<watch::Receiver<Offset>, LogError>;
    /// Every change from now on. A receiver that falls behind is told so, and asks for everything anew.
    fn changes(&self) -> broadcast::Receiver<Changes>;
}

/// [`Log::offset_at`] by reading on from an offset.
pub(crate) async fn find_time(log: &dyn Log, tp: Tp, from: Offset, time_us: TimestampUs) -> Result<Offset, LogError> {
    let mut next = from;
    loop {
        let chunk = log.read(tp, next, ReadLimits { bytes_max: 1 << 20, events_max: usize::MAX }).await?;
        if chunk.batches.is_empty() && chunk.next == next {
            return Ok(next);
        }
        for stored in chunk.batches.iter().filter(|stored| stored.batch.timestamp_max_us() >= time_us) {
            let mut rows = stored.batch.timestamps().enumerate();
            let is_it = |&(row, at): &(usize, TimestampUs)| at >= time_us && stored.offsets.at(row) >= next;
            if let Some((row, _)) = rows.find(is_it) {
                return Ok(stored.offsets.at(row));
            }
        }
        next = chunk.next;
    }
}

/// Which entries of a state table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateScan {
    pub start: Bytes,
    pub end: Option<Bytes>,
    pub count_max: usize,
    pub bytes_max: usize,
}

/// A metadata entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaEntry {
    pub value: Bytes,
    /// Of this store's versions, which only grow.
    pub version: u64,
}

/// What a metadata entry must be for a change to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Version(u64),
    Any,
}

/// Small named values: what should run, which components there are. One key at a time.
pub trait MetadataStore: Send + Sync + 'static {
    fn meta_get(&self, key: &str) -> BoxFuture<'_, Result<Option<MetaEntry>, LogError>>;
    /// Puts or deletes (`None`) an entry if it is as expected, and answers with the version of the change.
    fn meta_put(&self, key: &str, expect: Expect, value: Option<Bytes>) -> Result<Pending<u64>, LogError>;
    /// The entries whose key begins so, by key.
    fn meta_list(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, MetaEntry)>, LogError>>;
    /// The version of the last change, as it moves: a hint to look again.
    fn meta_version(&self) -> watch::Receiver<u64>;
}

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    fn now_us(&self) -> TimestampUs;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now_us(&self) -> TimestampUs {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}
