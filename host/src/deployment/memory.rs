//! What the instances of a task keep in memory: saved after each call, committed with it, and given to the next instance.
//!
//! It is a state table like those of the component. The task remembers what it saved last, so a call need not wait until the memory
//! of the one before it is durable: a new instance is given what is on its way to the log, and if that does not arrive, nothing of
//! what comes behind it does either.

use bytes::Bytes;
use nodata_log::{Log, LogError, Name, StateChange, TaskKey};
use nodata_runtime::{Extra, Program};

const TABLE: &str = "nodata.snapshot";
const MEMORY: &[u8] = b"memory";
const SAVED_BY: &[u8] = b"saved-by";

/// The memory of a task, as of its last commit.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Whether the component keeps any.
    is_kept: bool,
    /// The component that works now.
    digest: String,
    saved: Option<Saved>,
}

#[derive(Clone, Debug)]
struct Saved {
    bytes: Bytes,
    by: String,
}

impl Memory {
    /// As it was committed.
    pub(crate) fn of(log: &dyn Log, task: TaskKey, program: &Program) -> Result<Self, LogError> {
        let keys = [MEMORY, SAVED_BY].map(Bytes::from_static);
        let mut found = log.state_get(task, &Name::new(TABLE)?, &keys)?.into_iter();
        let (memory, by) = (found.next().flatten(), found.next().flatten());
        let saved = memory.zip(by).map(|(bytes, by)| Saved { bytes, by: String::from_utf8_lossy(&by).into_owned() });
        Ok(Self { is_kept: program.has(Extra::Snapshot), digest: program.digest().to_string(), saved })
    }

    /// Whether an instance may not go on after a call that failed.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// What a new instance is given, and who saved it.
    pub(crate) fn to_restore(&self) -> Option<(Bytes, &str)> {
        let saved = self.saved.as_ref().filter(|_| self.is_kept)?;
        Some((saved.bytes.clone(), &saved.by))
    }

    /// Bytes that an earlier component kept, and that this one would forget.
    pub(crate) fn left_behind(&self) -> Option<usize> {
        self.saved.as_ref().filter(|_| !self.is_kept).map(|saved| saved.bytes.len())
    }

    /// What is kept, whoever keeps it, and who saved it.
    pub(crate) fn saved(&self) -> Option<(Bytes, &str)> {
        self.saved.as_ref().map(|saved| (saved.bytes.clone(), saved.by.as_str()))
    }

    /// What has to be committed with a call that saved this, or nothing. A component that keeps no memory any more makes what an
    /// earlier one kept old: it is forgotten, or one that comes later would go on from it.
    pub(crate) fn change(&self, saved: Option<&Bytes>) -> Result<Option<StateChange>, LogError> {
        let (memory, by) = (Bytes::from_static(MEMORY), Bytes::from_static(SAVED_BY));
        let entries = match (&self.saved, saved) {
            (Some(_), None) if !self.is_kept => vec![(memory, None), (by, None)],
            (_, None) => return Ok(None),
            (Some(before), Some(now)) if before.by == self.digest => {
                if before.bytes == *now {
                    return Ok(None);
                }
                vec![(memory, Some(now.clone()))]
            }
            (_, Some(now)) => {
                let own = Bytes::copy_from_slice(self.digest.as_bytes());
                vec![(memory, Some(now.clone())), (by, Some(own))]
            }
        };
        Ok(Some(StateChange { table: Name::new(TABLE)?, entries }))
    }

    /// This is on its way to the log.
    pub(crate) fn keep(&mut self, saved: Option<Bytes>) {
        match saved {
            Some(bytes) => self.saved = Some(Saved { bytes, by: self.digest.clone() }),
            None if !self.is_kept => self.saved = None,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(is_kept: bool, saved: Option<(&'static str, &str)>) -> Memory {
        let saved = saved.map(|(bytes, by)| Saved { bytes: Bytes::from_static(bytes.as_bytes()), by: by.to_owned() });
        Memory { is_kept, digest: "new".to_owned(), saved }
    }

    /// The keys that a commit changes, and the values they get.
    fn changed(memory: &Memory, saved: Option<&'static str>) -> Vec<(String, Option<String>)> {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let saved = saved.map(|saved| Bytes::from_static(saved.as_bytes()));
        let entries = memory.change(saved.as_ref()).unwrap().map(|change| change.entries).unwrap_or_default();
        entries.iter().map(|(key, value)| (text(key), value.as_ref().map(text))).collect()
    }

    fn entry(key: &str, value: &str) -> (String, Option<String>) {
        (key.to_owned(), Some(value.to_owned()))
    }

    #[test]
    fn only_what_changed_is_written() {
        let both = vec![entry("memory", "a"), entry("saved-by", "new")];
        assert_eq!(changed(&memory(true, None), Some("a")), both);
        assert_eq!(changed(&memory(true, Some(("a", "new"))), Some("a")), []);
        assert_eq!(changed(&memory(true, Some(("a", "new"))), Some("b")), [entry("memory", "b")]);
        assert_eq!(
            changed(&memory(true, Some(("a", "old"))), Some("a")),
            both,
            "another version may write it differently"
        );
        assert_eq!(changed(&memory(true, Some(("a", "new"))), None), [], "an event that was put aside changed nothing");
    }

    #[test]
    fn what_a_component_does_not_keep_any_more_is_forgotten() {
        let mut memory = memory(false, Some(("a", "old")));
        assert_eq!(memory.to_restore(), None);
        assert_eq!(changed(&memory, None), [("memory".to_owned(), None), ("saved-by".to_owned(), None)]);
        memory.keep(None);
        assert_eq!(changed(&memory, None), []);
    }

    #[test]
    fn a_new_instance_is_given_what_was_saved_last() {
        let mut memory = memory(true, Some(("a", "old")));
        assert_eq!(memory.to_restore(), Some((Bytes::from_static(b"a"), "old")));
        memory.keep(None);
        assert_eq!(memory.to_restore(), Some((Bytes::from_static(b"a"), "old")));
        memory.keep(Some(Bytes::from_static(b"b")));
        assert_eq!(memory.to_restore(), Some((Bytes::from_static(b"b"), "new")));
    }
}
