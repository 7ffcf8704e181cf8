#![doc = include_str!("../README.md")]

// The nouns.
pub mod batch; // events as columns
pub mod column; // parts of values that files have as columns
pub mod event; // one event, and its checks
pub mod limits; // every bound, with its reason
pub mod producer; // who sends each request once
pub mod ranges; // sets of offsets
pub mod task; // who reads a partition, and how far it has come
pub mod topic; // topics, partitions, keys

// The way of a request.
mod ids; // which ids of events are known
mod sequencer; // the one owner of the end
mod spares; // empty segments, ready before they are needed
mod syncer; // one sync for everyone
mod tail; // where the batches are

// What the log adds up to.
pub mod archive; // which files hold its older events
mod checkpoint; // in a database, so that a start is short
mod forgotten; // keys of state tables that mean nothing any more
mod state; // in memory
mod tables; // what components remember

// The bytes.
mod codec; // fields
pub mod frame; // transactions
pub mod fs; // the disk, and one that forgets
mod reclaim; // segments that are not needed any more
mod recovery; // what a start finds
pub mod segment; // files

// A store whose start is refused.
mod renewal; // how it goes on
mod salvage; // what is left of it
mod survey; // every frame that can be read, and the holes between them

// The engines.
mod embedded; // this one
pub mod engine; // the seam
mod error; // what can go wrong
pub mod model; // the engine in memory, for tests

pub use archive::{ArchiveFile, ArchiveReader, PartitionArchive, Unarchived};
pub use batch::{Batch, BatchBuilder, ColumnRef, RowsRef};
pub use column::{Column, ColumnError, ColumnType};
pub use embedded::{EmbeddedLog, Options};
pub use engine::{
    AckLevel, Append, Appended, AppendedRange, Bounds, Capabilities, Change, Changes, Chunk, Clock, Expect, Log,
    MetaEntry, MetadataStore, Offsets, Pending, ReadLimits, Room, StateScan, StoredBatch, SystemClock,
};
pub use error::{ErrorKind, LogError, OpenError, Outcome};
pub use event::{Event, EventError, EventRef, TimestampUs, ValueType};
pub use ids::EventPlace;
pub use producer::{ProducerError, ProducerId, ProducerRange};
pub use ranges::Ranges;
pub use recovery::RecoveryReport;
pub use salvage::{LogFinding, MovedBack, Salvage};
pub use task::{Forget, OwnerId, StateChange, TaskKey, TaskLease, TaskPosition, TaskReset, Transaction};
pub use topic::{Name, NameError, Offset, Topic, TopicChange, TopicConfig, TopicId, Tp, partition_of_key};
