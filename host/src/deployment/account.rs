//! How much state a task has: bytes of keys and values of what its component keeps in tables, and of the groups of an aggregate.
//!
//! The number commits with the changes it counts, so it is exact after whatever happens, and nobody has to look through the tables
//! to know it. What the host remembers for a task (positions, memory, times) is small, and is not in it.

use bytes::Bytes;
use nodata_log::{Log, LogError, Name, StateChange, TaskKey};
use nodata_runtime::CallError;

const TABLE: &str = "nodata.account";
const BYTES: &[u8] = b"bytes";

/// The state of a task in bytes, as of its last commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateAccount {
    pub(crate) bytes: u64,
}

impl StateAccount {
    /// As it was committed.
    pub(crate) fn of(log: &dyn Log, task: TaskKey) -> Result<Self, LogError> {
        let found = log.state_get(task, &Name::new(TABLE)?, &[Bytes::from_static(BYTES)])?;
        let bytes = found.into_iter().next().flatten();
        let number = bytes.and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?)));
        Ok(Self { bytes: number.unwrap_or(0) })
    }

    /// Refuses changes with which the task would have more than it may. Less is always possible.
    pub(crate) fn check(self, grown: i64, bytes_max: u64) -> Result<(), CallError> {
        if grown > 0 && self.with(grown).bytes > bytes_max {
            return Err(CallError::out_of_state(bytes_max));
        }
        Ok(())
    }

    /// The account with such changes.
    pub(crate) fn with(self, grown: i64) -> Self {
        // What an earlier version wrote was not counted, and may be deleted all the same.
        Self { bytes: self.bytes.saturating_add_signed(grown) }
    }

    /// What has to be committed with such changes.
    pub(crate) fn change(self, grown: i64) -> Result<Option<StateChange>, LogError> {
        if grown == 0 {
            return Ok(None);
        }
        let bytes = Bytes::copy_from_slice(&self.with(grown).bytes.to_be_bytes());
        Ok(Some(StateChange { table: Name::new(TABLE)?, entries: vec![(Bytes::from_static(BYTES), Some(bytes))] }))
    }
}

/// Bytes of an entry.
pub(crate) fn entry_bytes(key: &[u8], value: &[u8]) -> i64 {
    (key.len() + value.len()) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_always_possible() {
        let account = StateAccount { bytes: 100 };
        assert!(account.check(0, 50).is_ok() && account.check(-1, 50).is_ok() && account.check(20, 120).is_ok());
        let refused = account.check(21, 120).unwrap_err();
        assert_eq!(refused.to_string(), "the state of the task would have more than 0.00011444091796875 MiB");
        assert_eq!(account.with(-101), StateAccount::default());
        assert_eq!(account.change(0).unwrap(), None);
    }
}
