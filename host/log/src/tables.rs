//! State tables of tasks: what is newer than the checkpoint is in memory, the rest is in the checkpoint database.
//!
//! So a table may be far larger than memory, and its changes are as durable as the transaction that made them.

use crate::engine::StateScan;
use crate::forgotten::Forgotten;
use crate::task::{Forget, OwnerId, StateChange, TaskKey};
use crate::topic::Name;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Keys of all tables, in one order: owner, source, table, key.
pub(crate) type Overlay = BTreeMap<Vec<u8>, Option<Bytes>>;

/// Where a table begins. A name holds no zero byte, so no table's keys begin with another table's prefix.
pub(crate) fn table_prefix(task: TaskKey, table: &Name) -> Vec<u8> {
    let mut prefix = task_prefix(task);
    prefix.extend_from_slice(table.as_str().as_bytes());
    prefix.push(0);
    prefix
}

fn task_prefix(task: TaskKey) -> Vec<u8> {
    let mut prefix = owner_prefix(task.owner);
    prefix.extend_from_slice(&task.source.topic.0.to_be_bytes());
    prefix.extend_from_slice(&task.source.partition.to_be_bytes());
    prefix
}

fn owner_prefix(owner: OwnerId) -> Vec<u8> {
    owner.0.to_be_bytes().to_vec()
}

/// The first key that does not begin so; `None` when all later keys do.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Newer than anything else.
    current: Overlay,
    current_bytes: u64,
    /// On its way into the checkpoint.
    flushing: Option<Flush>,
    /// Whole tables that were emptied since the last checkpoint was begun: whatever is older than `current` is not in them any more.
    forgotten: Forgotten,
}

/// What a checkpoint takes along.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flush {
    pub(crate) overlay: Arc<Overlay>,
    pub(crate) forgotten: Forgotten,
}

impl Tables {
    pub(crate) fn apply(&mut self, task: TaskKey, change: &StateChange) {
        let prefix = table_prefix(task, &change.table);
        for (key, value) in &change.entries {
            let key = [prefix.as_slice(), key].concat();
            self.current_bytes += (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64;
            // Values are copied: they would otherwise keep the whole frame they came in alive.
            self.current.insert(key, value.as_ref().map(|value| Bytes::copy_from_slice(value)));
        }
    }

    /// Empties every table of a deployment.
    pub(crate) fn forget_owner(&mut self, owner: OwnerId) {
        let prefix = owner_prefix(owner);
        let behind = after_prefix(&prefix);
        self.forget_range(prefix, behind);
    }

    /// Empties tables of a task.
    pub(crate) fn forget(&mut self, task: TaskKey, forget: &Forget) {
        match forget {
            Forget::These(tables) => {
                for prefix in tables.iter().map(|table| table_prefix(task, table)) {
                    let behind = after_prefix(&prefix);
                    self.forget_range(prefix, behind);
                }
            }
            Forget::AllBut(tables) => {
                let mut kept: Vec<Vec<u8>> = tables.iter().map(|table| table_prefix(task, table)).collect();
                kept.sort();
                let mut from = task_prefix(task);
                let end = after_prefix(&from);
                for prefix in kept {
                    let behind = after_prefix(&prefix);
                    self.forget_range(from, Some(prefix));
                    // A table's prefix ends with a zero, so there is always something behind it.
                    from = behind.unwrap_or_default();
                }
                self.forget_range(from, end);
            }
        }
    }

    fn forget_range(&mut self, from: Vec<u8>, to: Option<Vec<u8>>) {
        let is_before = |key: &Vec<u8>| to.as_ref().is_none_or(|to| key < to);
        let gone = self.current.range(from.clone()..).map(|(key, _)| key).take_while(|key| is_before(key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.current.remove(&key);
        }
        self.forgotten.insert(from, to);
    }

    /// Bytes that were written since the last checkpoint.
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.current_bytes
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.current.is_empty() && self.forgotten.is_empty()
    }

    /// Takes what is newer than the checkpoint, for the next one. It can still be read.
    pub(crate) fn begin_flush(&mut self) -> Flush {
        let overlay = Arc::new(std::mem::take(&mut self.current));
        self.current_bytes = 0;
        let flush = Flush { overlay, forgotten: std::mem::take(&mut self.forgotten) };
        self.flushing = Some(flush.clone());
        flush
    }

    /// The checkpoint has it.
    pub(crate) fn end_flush(&mut self) {
        self.flushing = None;
    }

    /// The checkpoint failed: take it back, under what came since.
    pub(crate) fn undo_flush(&mut self, flush: Flush) {
        self.flushing = None;
        for (key, value) in flush.overlay.iter() {
            if self.forgotten.contains(key) {
                continue;
            }
            self.current_bytes += (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64;
            self.current.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self.forgotten.extend(flush.forgotten);
    }

    /// What is on its way into the checkpoint, as far as this key, or the table with this prefix, still has it.
    fn flushing(&self, key: &[u8]) -> Option<&Flush> {
        self.flushing.as_ref().filter(|_| !self.forgotten.contains(key))
    }

    /// Whether what the checkpoint has of this key, or of the table with this prefix, means nothing any more.
    fn hides_stored(&self, key: &[u8]) -> bool {
        self.forgotten.contains(key) || self.flushing.as_ref().is_some_and(|flushing| flushing.forgotten.contains(key))
    }

    /// `None`: the checkpoint knows. `Some(None)`: there is none.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let newer = self.current.get(key).or_else(|| self.flushing(key)?.overlay.get(key));
        newer.cloned().or_else(|| self.hides_stored(key).then_some(None))
    }

    /// Entries of a table, newest first where a key is in several places. `stored` are those of the checkpoint from the
    /// start of the scan on.
    pub(crate) fn scan<E>(
        &self,
        prefix: &[u8],
        scan: &StateScan,
        stored: impl Iterator<Item = Result<(Vec<u8>, Bytes), E>>,
    ) -> Result<Vec<(Bytes, Bytes)>, E> {
        let start = [prefix, scan.start.as_ref()].concat();
        let end = match &scan.end {
            Some(end) => Some([prefix, end.as_ref()].concat()),
            None => after_prefix(prefix),
        };
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(start), end.clone().map_or(Bound::Unbounded, Bound::Excluded));
        let empty = Overlay::new();
        let flushing = self.flushing(prefix).map_or(&empty, |flushing| &*flushing.overlay);
        let mut current = self.current.range(range.clone()).peekable();
        let mut flushing = flushing.range(range).peekable();
        let mut stored = stored.take(if self.hides_stored(prefix) { 0 } else { usize::MAX }).peekable();
        let mut found = Vec::new();
        let mut bytes = 0;
        while found.len() < scan.count_max && (bytes < scan.bytes_max || found.is_empty()) {
            if let Some(Err(error)) = stored.next_if(Result::is_err) {
                return Err(error);
            }
            let from_store = match stored.peek() {
                Some(Ok((key, _))) if end.as_ref().is_none_or(|end| key < end) => Some(key.as_slice()),
                _ => None,
            };
            let heads = [
                current.peek().map(|(key, _)| key.as_slice()),
                flushing.peek().map(|(key, _)| key.as_slice()),
                from_store,
            ];
            let Some(first) = heads.iter().flatten().min() else { break };
            let is_first = heads.map(|head| head == Some(*first));
            let mut value = None;
            let mut key = Vec::new();
            if is_first[2]
                && let Some(Ok((stored_key, stored_value))) = stored.next()
            {
                (key, value) = (stored_key, Some(stored_value));
            }
            if is_first[1]
                && let Some((newer_key, newer)) = flushing.next()
            {
                (key, value) = (newer_key.clone(), newer.clone());
            }
            if is_first[0]
                && let Some((newer_key, newer)) = current.next()
            {
                (key, value) = (newer_key.clone(), newer.clone());
            }
            if let Some(value) = value {
                let key = Bytes::copy_from_slice(&key[prefix.len()..]);
                bytes += key.len() + value.len();
                found.push((key, value));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{TopicId, Tp};
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn task() -> TaskKey {
        TaskKey { owner: OwnerId(1), source: Tp { topic: TopicId(1), partition: 0 } }
    }

    fn table() -> Name {
        Name::new("t").unwrap()
    }

    type Entries = Vec<(u8, Option<u8>)>;

    fn change(entries: &Entries) -> StateChange {
        let bytes = |byte: u8| Bytes::copy_from_slice(&[byte]);
        StateChange {
            table: table(),
            entries: entries.iter().map(|(key, value)| (bytes(*key), value.map(bytes))).collect(),
        }
    }

    fn any_entries() -> impl Strategy<Value = Entries> {
        prop::collection::vec((0u8..20, prop::option::of(any::<u8>())), 0..20)
    }

    proptest! {
        /// Three layers read as one map would.
        #[test]
        fn layers_read_as_one_map(
            oldest in any_entries(), middle in any_entries(), newest in any_entries(),
            start in 0u8..20, end in prop::option::of(0u8..25), count_max in 1usize..30,
        ) {
            let mut model = BTreeMap::new();
            let mut stored = BTreeMap::new();
            for (key, value) in &oldest {
                match value {
                    Some(value) => drop((model.insert(*key, *value), stored.insert(*key, *value))),
                    None => drop((model.remove(key), stored.remove(key))),
                }
            }
            let mut tables = Tables::default();
            tables.apply(task(), &change(&middle));
            tables.begin_flush();
            tables.apply(task(), &change(&newest));
            for (key, value) in middle.iter().chain(&newest) {
                match value {
                    Some(value) => drop(model.insert(*key, *value)),
                    None => drop(model.remove(key)),
                }
            }

            let prefix = table_prefix(task(), &table());
            let stored = stored.iter().filter(|(key, _)| **key >= start).map(|(key, value)| {
                Ok::<_, Infallible>(([prefix.as_slice(), &[*key]].concat(), Bytes::copy_from_slice(&[*value])))
            });
            let scan = StateScan {
                start: Bytes::copy_from_slice(&[start]),
                end: end.map(|end| Bytes::copy_from_slice(&[end])),
                count_max,
                bytes_max: usize::MAX,
            };
            let found = tables.scan(&prefix, &scan, stored).unwrap();
            let expected: Vec<(Bytes, Bytes)> = model
                .into_iter()
                .filter(|(key, _)| *key >= start && end.is_none_or(|end| *key < end))
                .take(count_max)
                .map(|(key, value)| (Bytes::copy_from_slice(&[key]), Bytes::copy_from_slice(&[value])))
                .collect();
            prop_assert_eq!(found, expected);
        }

        /// A failed checkpoint changes nothing for a reader.
        #[test]
        fn an_undone_flush_reads_as_before(middle in any_entries(), newest in any_entries()) {
            let mut tables = Tables::default();
            tables.apply(task(), &change(&middle));
            let flush = tables.begin_flush();
            tables.apply(task(), &change(&newest));
            let prefix = table_prefix(task(), &table());
            let read = |tables: &Tables| {
                (0..20u8).map(|key| tables.get(&[prefix.as_slice(), &[key]].concat())).collect::<Vec<_>>()
            };
            let before = read(&tables);
            tables.undo_flush(flush);
            prop_assert_eq!(read(&tables), before);
        }
    }

    #[test]
    fn the_key_after_a_prefix() {
        assert_eq!(after_prefix(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(after_prefix(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(after_prefix(&[255, 255]), None);
    }

    #[test]
    fn forgetting_a_deployment_leaves_the_others() {
        let mut tables = Tables::default();
        let other = TaskKey { owner: OwnerId(2), ..task() };
        tables.apply(task(), &change(&vec![(1, Some(1))]));
        tables.apply(other, &change(&vec![(1, Some(2))]));
        tables.forget_owner(OwnerId(1));
        let get =
            |tables: &Tables, task: TaskKey| tables.get(&[table_prefix(task, &table()).as_slice(), &[1]].concat());
        assert_eq!(get(&tables, task()), Some(None), "whatever the checkpoint says");
        assert_eq!(get(&tables, other), Some(Some(Bytes::from_static(&[2]))));
        let flush = tables.begin_flush();
        assert!(
            flush.forgotten.contains(&owner_prefix(OwnerId(1))) && !flush.forgotten.contains(&owner_prefix(OwnerId(2)))
        );
        assert_eq!(get(&tables, task()), Some(None), "while the checkpoint is written");
        tables.apply(task(), &change(&vec![(1, Some(3))]));
        tables.undo_flush(flush);
        assert_eq!(get(&tables, task()), Some(Some(Bytes::from_static(&[3]))));
    }

    #[test]
    fn some_tables_of_a_task_are_forgotten_and_no_others() {
        let tasks = [1, 2].map(|owner| [0, 1].map(|partition| (owner, partition))).concat();
        let tasks: Vec<TaskKey> = tasks
            .into_iter()
            .map(|(owner, partition)| TaskKey { owner: OwnerId(owner), source: Tp { topic: TopicId(1), partition } })
            .collect();
        let names = ["a", "ab", "abc", "b"].map(|name| Name::new(name).unwrap());
        let filled = || {
            let mut tables = Tables::default();
            for (task, table) in tasks.iter().flat_map(|task| names.iter().map(|name| (*task, name.clone()))) {
                tables.apply(task, &StateChange { table, ..change(&vec![(0, Some(1)), (255, Some(1))]) });
            }
            tables
        };
        let left = |tables: &Tables, at: TaskKey| -> String {
            let has = |table: &&Name| {
                let prefix = table_prefix(at, table);
                let found = [0, 255].map(|key| tables.get(&[prefix.as_slice(), &[key]].concat()));
                assert_eq!(found[0], found[1], "a table is emptied whole");
                // Nothing is in the checkpoint here: what is not forgotten is where it was.
                found[0].clone().flatten().is_some()
            };
            names.iter().filter(has).map(|name| format!("{name} ")).collect()
        };
        let some = |tables: &[&str]| tables.iter().map(|name| Name::new(name).unwrap()).collect::<Vec<_>>();
        for (forget, expected) in [
            (Forget::These(Vec::new()), "a ab abc b "),
            (Forget::These(some(&["ab"])), "a abc b "),
            (Forget::These(some(&["b", "a", "none"])), "ab abc "),
            (Forget::AllBut(Vec::new()), ""),
            (Forget::AllBut(some(&["ab"])), "ab "),
            (Forget::AllBut(some(&["b", "a", "none"])), "a b "),
        ] {
            for is_flushing in [false, true] {
                let mut tables = filled();
                if is_flushing {
                    tables.begin_flush();
                }
                tables.forget(tasks[1], &forget);
                for task in &tasks {
                    let expected = if *task == tasks[1] { expected } else { "a ab abc b " };
                    assert_eq!(left(&tables, *task), expected, "{forget:?} {task:?} {is_flushing}");
                }
            }
        }
    }
}
