//! Tasks: who reads a partition on behalf of a deployment, how far it has come, and what it remembers.

use crate::batch::Batch;
use crate::topic::{Name, Offset, Tp};
use bytes::Bytes;

/// Names a deployment for as long as the store lives. A deployment that is deleted and made anew gets a new one,
/// so it never finds the positions and the state of its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u64);

/// One deployment on one input partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    pub owner: OwnerId,
    pub source: Tp,
}

/// Counts who worked for a task: whoever begins raises it, and what an earlier one commits is refused.
pub type TaskEpoch = u64;

/// What the log remembers of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskPosition {
    pub epoch: TaskEpoch,
    /// The next offset to read; `None` before the first commit.
    pub next: Option<Offset>,
}

/// A task that is to go on elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskReset {
    pub task: TaskKey,
    /// Of whoever took the task over to say so: it knows where the task is, and nobody moves it meanwhile.
    pub epoch: TaskEpoch,
    /// `None`: as before its first commit.
    pub next: Option<Offset>,
    pub forget: Forget,
}

/// State tables of a task that are emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    These(Vec<Name>),
    AllBut(Vec<Name>),
}

/// The right to commit for a task, until someone else takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskLease {
    pub task: TaskKey,
    pub epoch: TaskEpoch,
    /// Where the last one stopped.
    pub next: Option<Offset>,
}

impl TaskLease {
    /// Where whoever holds it may have the task go on. The lease ends with that.
    pub fn reset(&self, next: Option<Offset>, forget: Forget) -> TaskReset {
        TaskReset { task: self.task, epoch: self.epoch, next, forget }
    }

    /// What whoever holds it may commit.
    pub fn transaction(
        &self,
        expect: Option<Offset>,
        next: Offset,
        appends: Vec<(Tp, Batch)>,
        state: Vec<StateChange>,
    ) -> Transaction {
        Transaction { task: self.task, epoch: self.epoch, expect, next, appends, state }
    }
}

/// Everything one call of a component did, as one unit: it becomes durable whole or not at all.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub task: TaskKey,
    pub epoch: TaskEpoch,
    /// Where the position must be now.
    pub expect: Option<Offset>,
    /// Where the position will be.
    pub next: Offset,
    /// Outputs. Batches for one partition keep their order.
    pub appends: Vec<(Tp, Batch)>,
    /// Changes of state tables.
    pub state: Vec<StateChange>,
}

/// Changes of one state table of a task. Of equal keys the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    pub table: Name,
    /// A value of `None` deletes.
    pub entries: Vec<(Bytes, Option<Bytes>)>,
}

impl StateChange {
    /// Bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|(key, value)| (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64).sum()
    }
}
