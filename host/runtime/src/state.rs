//! The state tables of a task, as one call sees them: what the log holds, with the call's own writes on top.

use crate::limits::{STATE_ANSWER_BYTES_MAX, STATE_SCAN_BYTES_MAX, STATE_SCAN_ENTRIES_MAX};
use bytes::Bytes;
use nodata_log::limits::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use nodata_log::{Log, LogError, Name, StateChange, StateScan, TaskKey};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// Why a table did not do what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateError {
    Denied(String),
    QuotaExceeded,
    Unavailable(String),
}

impl From<LogError> for StateError {
    fn from(error: LogError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Where the tables of an instance are kept.
#[derive(Clone)]
pub(crate) struct StateStore {
    pub(crate) task: TaskKey,
    pub(crate) log: Arc<dyn Log>,
}

/// Keys asked for at once. Between two askings the size of the answer is looked at.
const GET_KEYS: usize = 256;

type Writes = BTreeMap<Bytes, Option<Bytes>>;

/// How much of its state a task may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateBounds {
    /// Bytes of keys and values that one call may write.
    pub(crate) write_bytes: u64,
    /// Bytes of keys and values that the task may have.
    pub(crate) bytes: u64,
}

/// The tables of a task in one call.
pub(crate) struct StateTables {
    /// `None`: an instance that is only tried out has no tables.
    store: Option<StateStore>,
    writes: BTreeMap<Name, Writes>,
    bytes: u64,
    bounds: StateBounds,
    is_read_only: bool,
    /// Bytes of the task before the call.
    held: u64,
    /// Bytes of entries before the call, of those that were looked up in it.
    known: BTreeMap<Name, HashMap<Bytes, u64>>,
    /// By how much the task has more with the writes. `None`: nobody has looked yet, because it is not more than it may be even if all
    /// of them are new.
    grown: Option<i64>,
}

impl StateTables {
    pub(crate) fn new(store: Option<StateStore>, bounds: StateBounds) -> Self {
        Self {
            store,
            writes: BTreeMap::new(),
            bytes: 0,
            bounds,
            is_read_only: false,
            held: 0,
            known: BTreeMap::new(),
            grown: None,
        }
    }

    /// Forgets what the last call wrote.
    pub(crate) fn begin(&mut self) {
        self.writes.clear();
        self.bytes = 0;
        self.is_read_only = false;
        self.known.clear();
        self.grown = None;
    }

    /// Says how many bytes the task has.
    pub(crate) fn hold(&mut self, bytes: u64) {
        self.held = bytes;
    }

    /// Refuses what the call in hand writes, because nothing of it is committed.
    pub(crate) fn read_only(&mut self) {
        self.is_read_only = true;
    }

    /// What the call wrote, one change for each table, and by how much the task has more with it.
    pub(crate) fn finish(&mut self) -> Result<(Vec<StateChange>, i64), StateError> {
        let grown = self.grown()?;
        let writes = self.take_writes();
        self.begin();
        Ok((writes, grown))
    }

    /// By how much the task has more with what was written so far.
    fn grown(&mut self) -> Result<i64, StateError> {
        if let Some(grown) = self.grown {
            return Ok(grown);
        }
        let mut grown = 0;
        for (table, writes) in std::mem::take(&mut self.writes) {
            let before = self.before(&table, writes.keys());
            grown += writes.iter().map(|(key, value)| present_bytes(key, value.as_ref()) as i64).sum::<i64>();
            self.writes.insert(table, writes);
            grown -= before? as i64;
        }
        self.grown = Some(grown);
        Ok(grown)
    }

    /// Bytes that these entries had before the call, all together.
    fn before<'a>(&mut self, table: &Name, keys: impl Iterator<Item = &'a Bytes>) -> Result<u64, StateError> {
        let known = self.known.entry(table.clone()).or_default();
        let mut bytes = 0;
        let mut unknown = Vec::new();
        for key in keys {
            match known.get(key) {
                Some(before) => bytes += before,
                None => unknown.push(key.clone()),
            }
        }
        let Some(StateStore { task, log }) = &self.store else { return Ok(bytes) };
        for keys in unknown.chunks(GET_KEYS) {
            for (key, value) in keys.iter().zip(log.state_get(*task, table, keys)?) {
                let before = present_bytes(key, value.as_ref());
                known.insert(key.clone(), before);
                bytes += before;
            }
        }
        Ok(bytes)
    }

    /// By how much the task would have more with these entries on top of what was written, and how much more that is than without.
    fn grown_with(&mut self, table: &Name, entries: &[(Bytes, Option<Bytes>)]) -> Result<(i64, i64), StateError> {
        let grown = self.grown()?;
        // Of equal keys the last one counts.
        let entries: BTreeMap<&Bytes, Option<&Bytes>> =
            entries.iter().map(|(key, value)| (key, value.as_ref())).collect();
        let written = self.writes.get(table);
        let mut more = 0;
        let mut others = Vec::new();
        for (key, value) in entries {
            more += present_bytes(key, value) as i64;
            match written.and_then(|written| written.get(key)) {
                Some(written) => more -= present_bytes(key, written.as_ref()) as i64,
                None => others.push(key),
            }
        }
        more -= self.before(table, others.into_iter())? as i64;
        Ok((grown + more, more))
    }

    fn take_writes(&mut self) -> Vec<StateChange> {
        let writes = std::mem::take(&mut self.writes).into_iter();
        writes.map(|(table, entries)| StateChange { table, entries: entries.into_iter().collect() }).collect()
    }

    fn store(&self) -> Result<&StateStore, StateError> {
        let nowhere = || StateError::Unavailable("there is no state while a component is tried out".to_owned());
        self.store.as_ref().ok_or_else(nowhere)
    }

    /// One value for each key, in order.
    pub(crate) fn get(&mut self, table: &Name, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, StateError> {
        let StateStore { task, log } = self.store()?.clone();
        keys.iter().try_for_each(check_key)?;
        let written = self.writes.get(table);
        if !self.known.contains_key(table) {
            self.known.insert(table.clone(), HashMap::new());
        }
        let mut known = self.known.get_mut(table);
        let mut values = Vec::with_capacity(keys.len());
        let mut bytes = 0;
        for keys in keys.chunks(GET_KEYS) {
            let own = |key: &Bytes| written.and_then(|written| written.get(key)).cloned();
            let asked: Vec<Bytes> = keys.iter().filter(|key| own(key).is_none()).cloned().collect();
            let mut stored =
                if asked.is_empty() { Vec::new() } else { log.state_get(task, table, &asked)? }.into_iter();
            // Whoever reads mostly writes next.
            if let Some(known) = &mut known {
                let sizes = asked.iter().zip(stored.as_slice());
                known.extend(sizes.map(|(key, value)| (key.clone(), present_bytes(key, value.as_ref()))));
            }
            for key in keys {
                let value = own(key).unwrap_or_else(|| stored.next().flatten());
                bytes += value.as_ref().map_or(0, Bytes::len);
                values.push(value);
            }
            if bytes > STATE_ANSWER_BYTES_MAX && keys.len() > 1 {
                return Err(StateError::Denied(format!(
                    "the values of these keys have more than {STATE_ANSWER_BYTES_MAX} bytes; ask for fewer at once"
                )));
            }
        }
        Ok(values)
    }

    /// Writes all of these entries or none. Of equal keys the last one counts; `None` deletes.
    pub(crate) fn put(&mut self, table: &Name, entries: Vec<(Bytes, Option<Bytes>)>) -> Result<(), StateError> {
        if self.is_read_only {
            return Err(StateError::Denied("while a component begins or ends, state can only be read".to_owned()));
        }
        self.store()?;
        for (key, value) in &entries {
            check_key(key)?;
            let bytes = value.as_ref().map_or(0, Bytes::len);
            if bytes > STATE_VALUE_BYTES_MAX {
                return Err(StateError::Denied(format!(
                    "a value of {bytes} bytes, at most {STATE_VALUE_BYTES_MAX} are allowed"
                )));
            }
        }
        let added: u64 = entries.iter().map(|(key, value)| entry_bytes(key, value.as_ref())).sum();
        let (bytes, bytes_max) = (self.bytes + added, self.bounds.write_bytes);
        let mut grown = None;
        if self.grown.is_some() || self.held.saturating_add(bytes) > self.bounds.bytes {
            let (all, more) = self.grown_with(table, &entries)?;
            if more > 0 && self.held.saturating_add_signed(all) > self.bounds.bytes {
                return Err(StateError::QuotaExceeded);
            }
            grown = Some(all);
        }
        let written = self.writes.entry(table.clone()).or_default();
        if bytes > bytes_max {
            // What the new entries replace makes room, but finding that out is only worth it now.
            let replaced: u64 =
                entries.iter().filter_map(|(key, _)| Some(entry_bytes(key, written.get(key)?.as_ref()))).sum();
            if bytes - replaced > bytes_max {
                return Err(StateError::QuotaExceeded);
            }
        }
        self.bytes = bytes;
        self.grown = grown;
        for (key, value) in entries {
            let key_bytes = key.len() as u64;
            if let Some(before) = written.insert(key, value) {
                self.bytes -= key_bytes + before.map_or(0, |before| before.len() as u64);
            }
        }
        Ok(())
    }

    /// Entries with `start <= key < end` by key, at most `count_max` and as many as fit one answer.
    pub(crate) fn scan(
        &self,
        table: &Name,
        start: Bytes,
        end: Option<Bytes>,
        count_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        let StateStore { task, log } = self.store()?;
        let count_max = count_max.min(STATE_SCAN_ENTRIES_MAX);
        let nothing = Writes::new();
        let written = self.writes.get(table).unwrap_or(&nothing);
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut from = start;
        while found.len() < count_max && end.as_ref().is_none_or(|end| from < end) {
            let scan = StateScan { start: from.clone(), end: end.clone(), count_max, bytes_max: STATE_SCAN_BYTES_MAX };
            let stored = log.state_scan(*task, table, &scan)?;
            let stored_bytes: usize = stored.iter().map(|(key, value)| key.len() + value.len()).sum();
            // Behind the last entry of a cut answer nothing is known: own writes there have to wait.
            let is_cut = stored.len() >= count_max || stored_bytes >= STATE_SCAN_BYTES_MAX;
            let horizon = stored.last().filter(|_| is_cut).map(|(key, _)| key.clone());
            let to = match (&horizon, &end) {
                (Some(last), _) => Bound::Included(last.clone()),
                (None, Some(end)) => Bound::Excluded(end.clone()),
                (None, None) => Bound::Unbounded,
            };
            let own = written.range((Bound::Included(from), to));
            for (key, value) in merge(stored, own) {
                bytes += key.len() + value.len();
                if found.len() == count_max || (bytes > STATE_SCAN_BYTES_MAX && !found.is_empty()) {
                    return Ok(found);
                }
                found.push((key, value));
            }
            match horizon {
                Some(last) => from = after(&last),
                None => break,
            }
        }
        Ok(found)
    }
}

/// Two lists by key as one; of equal keys the written one counts, and a deletion hides both.
fn merge<'a>(
    stored: Vec<(Bytes, Bytes)>,
    written: impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>,
) -> impl Iterator<Item = (Bytes, Bytes)> {
    let mut stored = stored.into_iter().peekable();
    let mut written = written.peekable();
    std::iter::from_fn(move || {
        loop {
            let Some((key, value)) = written.next_if(|(key, _)| stored.peek().is_none_or(|(other, _)| *key <= other))
            else {
                return stored.next();
            };
            stored.next_if(|(other, _)| other == key);
            if let Some(value) = value {
                return Some((key.clone(), value.clone()));
            }
        }
    })
}

/// The first key behind this one.
fn after(key: &Bytes) -> Bytes {
    [key, [0].as_slice()].concat().into()
}

fn entry_bytes(key: &Bytes, value: Option<&Bytes>) -> u64 {
    (key.len() + value.map_or(0, Bytes::len)) as u64
}

/// The same, where a deletion leaves nothing.
fn present_bytes(key: &Bytes, value: Option<&Bytes>) -> u64 {
    value.map_or(0, |value| (key.len() + value.len()) as u64)
}

fn check_key(key: &Bytes) -> Result<(), StateError> {
    match key.len() {
        0 => Err(StateError::Denied("an empty key".to_owned())),
        bytes if bytes > STATE_KEY_BYTES_MAX => {
            Err(StateError::Denied(format!("a key of {bytes} bytes, at most {STATE_KEY_BYTES_MAX} are allowed")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_log::model::ModelLog;
    use nodata_log::{OwnerId, SystemClock, TopicConfig, TopicId, Tp, Transaction};
    use proptest::prelude::*;

    const TASK: TaskKey = TaskKey { owner: OwnerId(1), source: Tp { topic: TopicId(1), partition: 0 } };

    fn table() -> Name {
        Name::new("counts").unwrap()
    }

    type Entries = Vec<(Bytes, Option<Bytes>)>;

    /// Tables over a log in which these entries are committed.
    fn tables(committed: Entries, write_bytes: u64) -> StateTables {
        bounded(committed, StateBounds { write_bytes, bytes: u64::MAX })
    }

    fn bounded(committed: Entries, bounds: StateBounds) -> StateTables {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let log = Arc::new(ModelLog::new(Arc::new(SystemClock)));
        runtime.block_on(async {
            let topic = Name::new("orders").unwrap();
            log.create_topic(topic, TopicConfig::default()).unwrap().await.unwrap();
            let lease = log.begin_task(TASK).unwrap().await.unwrap();
            let state = vec![StateChange { table: table(), entries: committed }];
            let transaction =
                Transaction { task: TASK, epoch: lease.epoch, expect: None, next: 1, appends: Vec::new(), state };
            log.commit(transaction).unwrap().await.unwrap();
        });
        StateTables::new(Some(StateStore { task: TASK, log }), bounds)
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn any_entries() -> impl Strategy<Value = Entries> {
        let entry = ("[a-d]{1,2}", prop::option::weighted(0.6, "[x-z]{0,3}"));
        prop::collection::vec(entry.prop_map(|(key, value)| (key.into(), value.map(Bytes::from))), 0..12)
    }

    proptest! {
        /// A call sees what is committed with its own writes on top, however it looks.
        #[test]
        fn own_writes_are_on_top(
            committed in any_entries(),
            written in any_entries(),
            start in "[a-d]{0,2}",
            end in prop::option::of("[a-d]{1,2}"),
            count_max in 0usize..6,
        ) {
            let mut expected = BTreeMap::new();
            let apply = |entries: &Entries, to: &mut BTreeMap<Bytes, Bytes>| {
                for (key, value) in entries {
                    match value {
                        Some(value) => drop(to.insert(key.clone(), value.clone())),
                        None => drop(to.remove(key)),
                    }
                }
                to.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as i64
            };
            let held = apply(&committed, &mut expected);
            let holds = apply(&written, &mut expected);
            let mut tables = tables(committed, u64::MAX);
            for chunk in written.chunks(3) {
                tables.put(&table(), chunk.to_vec()).unwrap();
            }
            let (start, end) = (bytes(&start), end.map(|end| bytes(&end)));
            let scanned = tables.scan(&table(), start.clone(), end.clone(), count_max).unwrap();
            let within = |key: &Bytes| *key >= start && end.as_ref().is_none_or(|end| key < end);
            let wanted: Vec<_> = expected.clone().into_iter().filter(|(key, _)| within(key)).take(count_max).collect();
            prop_assert_eq!(scanned, wanted);

            let keys: Vec<Bytes> = ["a", "b", "aa", "ab", "cd", "d"].map(bytes).to_vec();
            let got = tables.get(&table(), &keys).unwrap();
            prop_assert_eq!(got, keys.iter().map(|key| expected.get(key).cloned()).collect::<Vec<_>>());

            let counted = tables.bytes;
            let (change, grown) = tables.finish().unwrap();
            prop_assert_eq!(change.iter().map(StateChange::bytes).sum::<u64>(), counted);
            prop_assert_eq!(grown, holds - held);
            prop_assert_eq!(tables.finish(), Ok((Vec::new(), 0)));
        }

        /// A task never has more than it may, and less is always possible.
        #[test]
        fn a_task_has_what_it_may(
            committed in any_entries(),
            written in prop::collection::vec(any_entries(), 0..8),
            read in any::<bool>(),
            max in 0u64..40,
        ) {
            let size = |of: &BTreeMap<Bytes, Bytes>| of.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64;
            let apply = |of: &BTreeMap<Bytes, Bytes>, entries: &Entries| {
                let mut after = of.clone();
                for (key, value) in entries {
                    match value {
                        Some(value) => drop(after.insert(key.clone(), value.clone())),
                        None => drop(after.remove(key)),
                    }
                }
                after
            };
            let mut model = apply(&BTreeMap::new(), &committed);
            let held = size(&model);
            let mut tables = bounded(committed, StateBounds { write_bytes: u64::MAX, bytes: max });
            tables.hold(held);
            for entries in written {
                if read {
                    let keys: Vec<Bytes> = entries.iter().map(|(key, _)| key.clone()).collect();
                    tables.get(&table(), &keys).unwrap();
                }
                let after = apply(&model, &entries);
                let is_refused = size(&after) > max && size(&after) > size(&model);
                let expected = if is_refused { Err(StateError::QuotaExceeded) } else { Ok(()) };
                prop_assert_eq!(tables.put(&table(), entries), expected);
                if !is_refused {
                    model = after;
                }
            }
            prop_assert_eq!(tables.finish().unwrap().1, size(&model) as i64 - held as i64);
        }
    }

    #[test]
    fn what_a_failed_call_wrote_is_gone() {
        let mut tables = tables(vec![(bytes("k"), Some(bytes("old")))], 100);
        tables.put(&table(), vec![(bytes("k"), Some(bytes("new")))]).unwrap();
        assert_eq!(tables.get(&table(), &[bytes("k")]), Ok(vec![Some(bytes("new"))]));
        tables.begin();
        assert_eq!(tables.get(&table(), &[bytes("k")]), Ok(vec![Some(bytes("old"))]));
        assert_eq!(tables.finish(), Ok((Vec::new(), 0)));
    }

    #[test]
    fn a_refused_write_takes_nothing() {
        let mut tables = tables(Vec::new(), 10);
        let put = |tables: &mut StateTables, key: &str, value: &str| {
            tables.put(&table(), vec![(bytes(key), Some(bytes(value)))])
        };
        assert_eq!(put(&mut tables, "k", "12345"), Ok(()));
        assert_eq!(put(&mut tables, "l", "12345"), Err(StateError::QuotaExceeded));
        // What is replaced makes room.
        assert_eq!(put(&mut tables, "k", "123456789"), Ok(()));
        assert_eq!(tables.bytes, 10);
        assert_eq!(put(&mut tables, "", "1"), Err(StateError::Denied("an empty key".to_owned())));
        let long = "k".repeat(STATE_KEY_BYTES_MAX + 1);
        assert_eq!(
            put(&mut tables, &long, "1"),
            Err(StateError::Denied("a key of 4097 bytes, at most 4096 are allowed".to_owned()))
        );
        let both = vec![(bytes("k"), None), (bytes("l"), Some(vec![0; STATE_VALUE_BYTES_MAX + 1].into()))];
        assert_eq!(
            tables.put(&table(), both),
            Err(StateError::Denied("a value of 4194305 bytes, at most 4194304 are allowed".to_owned()))
        );
        assert_eq!(tables.get(&table(), &[bytes("k"), bytes("l")]), Ok(vec![Some(bytes("123456789")), None]));
    }

    #[test]
    fn answers_are_bounded() {
        let big = |key: String| (Bytes::from(key), Some(Bytes::from(vec![7; 600 << 10])));
        let committed: Entries = (0..40).map(|n| big(format!("{n:02}"))).collect();
        let keys: Vec<Bytes> = committed.iter().map(|(key, _)| key.clone()).collect();
        let mut tables = tables(committed, u64::MAX);
        tables.put(&table(), vec![big("00a".to_owned()), (bytes("01"), None)]).unwrap();

        // One entry fits an answer, two do not; whoever goes on from the last key sees all of them.
        let (mut seen, mut from) = (Vec::new(), bytes(""));
        loop {
            let page = tables.scan(&table(), from.clone(), None, usize::MAX).unwrap();
            let Some((last, _)) = page.last() else { break };
            assert_eq!(page.len(), 1);
            from = after(last);
            seen.push(last.clone());
        }
        let mut expected = keys.clone();
        expected[1] = bytes("00a");
        assert_eq!(seen, expected);

        assert_eq!(
            tables.get(&table(), &keys),
            Err(StateError::Denied(
                "the values of these keys have more than 16777216 bytes; ask for fewer at once".to_owned()
            ))
        );
        assert_eq!(tables.get(&table(), &keys[..1]).unwrap()[0].as_ref().map(Bytes::len), Some(600 << 10));
    }

    #[test]
    fn nothing_is_there_while_a_component_is_tried_out() {
        let mut tables = StateTables::new(None, StateBounds { write_bytes: 10, bytes: 10 });
        assert!(matches!(tables.get(&table(), &[bytes("k")]), Err(StateError::Unavailable(_))));
    }
}
