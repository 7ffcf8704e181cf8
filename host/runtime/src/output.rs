//! What a call that returned well did.

use bytes::Bytes;
use nodata_log::{Batch, StateChange, TimestampUs, ValueType};

/// Where a deployment lets a component emit to: a name that the component uses, and what its topic takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The empty name is the default port.
    pub name: String,
    pub partitions: u32,
    pub event_bytes_max: u32,
    pub values: ValueType,
}

/// What a call that returned well did. It is to become durable as one unit, with the position behind its input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// In the order in which the partitions were first emitted to.
    pub batches: Vec<Emitted>,
    /// Events in all batches.
    pub events: u64,
    /// Bytes of ids, keys, values and headers in all batches.
    pub bytes: u64,
    /// By row; each row once, with the last reason.
    pub rejected: Vec<Rejected>,
    /// Rejects of rows that the input does not have.
    pub rejects_ignored: u64,
    /// The first row that the call left for the next one; everything else here is of the rows before. Never the first of all.
    pub deferred: Option<u32>,
    /// Where a source goes on from when all of this is durable.
    pub checkpoint: Option<Bytes>,
    /// One for each table.
    pub state: Vec<StateChange>,
    /// By how many bytes of keys and values the state tables have more with these changes.
    pub state_grown: i64,
    /// What events without a time of their own were given.
    pub begun_us: TimestampUs,
    /// What the instance keeps in memory now, of a component that wants that to last.
    pub memory: Option<Bytes>,
}

impl Output {
    /// Leaves what the call did to state, and nothing that others would see.
    pub fn emits_nothing(&mut self) {
        self.batches.clear();
        self.rejected.clear();
        (self.events, self.bytes) = (0, 0);
    }
}

/// The events that go to one partition behind one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The number of the port in the deployment's list.
    pub port: usize,
    pub partition: u32,
    pub batch: Batch,
}

/// A row of the input that is to become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub row: u32,
    pub reason: String,
}
