//! Accumulators of groups, kept in the state of a task.
//!
//! Three tables: `nodata.groups` has the accumulator of each group by key and start of its window, `nodata.ends` finds windows by
//! their end, and `nodata.time` is the event time of the partition. They change with the position in the input, in one commit.

use crate::deployment::account::entry_bytes;
use crate::deployment::task::{CallFailure, Done};
use crate::deployment::windows::{EventTime, Plan, Span, Window};
use crate::limits::{CLOSE_GROUPS_MAX, GROUP_KEY_BYTES_MAX};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use nodata_log::{BatchBuilder, Log, LogError, Name, StateChange, StateScan, TaskKey, TimestampUs, partition_of_key};
use nodata_runtime::{CallError, Emitted, Groups, Input, Instance, Output, Port, Rejected};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

pub(crate) const GROUPS: &str = "nodata.groups";
pub(crate) const ENDS: &str = "nodata.ends";
pub(crate) const TIME: &str = "nodata.time";
const LATEST: &[u8] = b"latest";

/// The port that late events go to, where it is wired.
pub(crate) const LATE_PORT: &str = "late";

/// How an aggregate divides its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregation {
    pub window: Window,
    /// How much later than others of its partition an event may come.
    pub lateness_us: i64,
    /// A partition without events for so long goes on in time by itself.
    pub idle_us: Option<u64>,
    /// All events of a group are in one partition, also where the component says which group that is.
    #[serde(default)]
    pub keyed: bool,
}

/// The event time that a task has come to.
pub(crate) fn event_time(log: &dyn Log, task: TaskKey) -> Result<EventTime, LogError> {
    let found = log.state_get(task, &Name::new(TIME)?, &[Bytes::from_static(LATEST)])?;
    let bytes = found.into_iter().next().flatten();
    Ok(EventTime { latest: bytes.filter(|bytes| bytes.len() == 8).map(|mut bytes| from_ordered(bytes.get_u64())) })
}

fn time_change(time: EventTime) -> Result<Option<StateChange>, LogError> {
    let Some(latest) = time.latest else { return Ok(None) };
    let value = Bytes::copy_from_slice(&ordered(latest).to_be_bytes());
    Ok(Some(StateChange { table: Name::new(TIME)?, entries: vec![(Bytes::from_static(LATEST), Some(value))] }))
}

/// Numbers in the order of their bytes.
fn ordered(number: i64) -> u64 {
    number as u64 ^ 1 << 63
}

fn from_ordered(number: u64) -> i64 {
    (number ^ 1 << 63) as i64
}

/// The state keys of all windows of a group begin so.
pub(crate) fn key_prefix(key: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(key.len() + 20);
    bytes.put_u32(key.len() as u32);
    bytes.put_slice(key);
    bytes
}

pub(crate) fn group_key(key: &[u8], start: TimestampUs) -> Bytes {
    let mut bytes = key_prefix(key);
    bytes.put_u64(ordered(start));
    bytes.freeze()
}

pub(crate) fn end_key(key: &[u8], span: Span) -> Bytes {
    let mut bytes = BytesMut::with_capacity(key.len() + 20);
    bytes.put_u64(ordered(span.end));
    bytes.put_slice(&group_key(key, span.start));
    bytes.freeze()
}

pub(crate) fn stored_value(end: TimestampUs, accumulator: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + accumulator.len());
    bytes.put_u64(ordered(end));
    bytes.put_slice(accumulator);
    bytes.freeze()
}

/// Bytes of a group in both tables, as it is stored there.
pub(crate) fn group_bytes(at: &[u8], value: &[u8], key: &[u8], span: Span, has_windows: bool) -> i64 {
    let end = if has_windows { entry_bytes(&end_key(key, span), &[]) } else { 0 };
    entry_bytes(at, value) + end
}

/// A group of the table, with its accumulator.
pub(crate) struct StoredGroup {
    pub(crate) key: Bytes,
    pub(crate) span: Span,
    pub(crate) accumulator: Bytes,
}

impl StoredGroup {
    /// `None` is nothing that this host wrote.
    pub(crate) fn read(state_key: &Bytes, value: &Bytes) -> Option<Self> {
        let (mut at, mut value) = (state_key.clone(), value.clone());
        let len = at.try_get_u32().ok()? as usize;
        let key = (at.len() == len + 8).then(|| at.split_to(len))?;
        let span = Span { start: from_ordered(at.get_u64()), end: from_ordered(value.try_get_u64().ok()?) };
        Some(Self { key, span, accumulator: value })
    }
}

/// Keys and values of state that are asked for at once.
const STATE_CHUNK: usize = 1024;

pub(crate) fn state_of(
    log: &dyn Log,
    task: TaskKey,
    table: &Name,
    keys: &[Bytes],
) -> Result<Vec<Option<Bytes>>, LogError> {
    let mut values = Vec::with_capacity(keys.len());
    for keys in keys.chunks(STATE_CHUNK) {
        values.extend(log.state_get(task, table, keys)?);
    }
    Ok(values)
}

/// Folds a batch into the groups of a task.
pub(crate) async fn fold(
    how: Aggregation,
    time: EventTime,
    (log, task, ports): (&dyn Log, TaskKey, &[Port]),
    instance: &mut Instance,
    input: Input,
) -> Result<Done, CallFailure> {
    let groups_table = Name::new(GROUPS).map_err(LogError::from)?;
    let own = instance.group(input.clone()).await?;
    let mut refused = Vec::new();
    let rows: Vec<(Option<Bytes>, TimestampUs)> = input
        .events()
        .enumerate()
        .map(|(row, (_, event))| {
            let key = match &own {
                Some(keys) => keys[row].clone(),
                None => event.key.map(Bytes::copy_from_slice),
            };
            let key = key.filter(|key| {
                let fits = key.len() <= GROUP_KEY_BYTES_MAX;
                if !fits {
                    let reason = format!(
                        "its group has a key of {} bytes, at most {GROUP_KEY_BYTES_MAX} are allowed",
                        key.len()
                    );
                    refused.push(Rejected { row: row as u32, reason });
                }
                fits
            });
            (key, event.timestamp_us)
        })
        .collect();
    let plan = Plan::new(how.window, how.lateness_us, time, rows, |key| {
        let start = key_prefix(key).freeze();
        let scan = StateScan {
            end: Some(group_key(key, TimestampUs::MAX)),
            start,
            count_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let found = log.state_scan(task, &groups_table, &scan)?;
        Ok::<_, LogError>(found.iter().filter_map(|(key, value)| Some(StoredGroup::read(key, value)?.span)).collect())
    })?;

    // What is stored of each group; sessions that have grown together are put together first.
    let asked: Vec<Bytes> = plan
        .groups
        .iter()
        .flat_map(|group| group.stored.iter().map(|span| group_key(&group.key, span.start)))
        .collect();
    let found = state_of(log, task, &groups_table, &asked)?;
    let has_windows = how.window != Window::None;
    let spans = plan.groups.iter().flat_map(|group| group.stored.iter().map(|span| (&group.key, *span)));
    let before: i64 = asked
        .iter()
        .zip(&found)
        .zip(spans)
        .filter_map(|((at, value), (key, span))| Some(group_bytes(at, value.as_ref()?, key, span, has_windows)))
        .sum();
    let mut found = found.into_iter();
    let mut stored: Vec<Vec<Bytes>> = plan
        .groups
        .iter()
        .map(|group| {
            let values = found.by_ref().take(group.stored.len()).flatten();
            values.filter(|value| value.len() >= 8).map(|value| value.slice(8..)).collect()
        })
        .collect();
    let was_stored: Vec<bool> = stored.iter().map(|accumulators| !accumulators.is_empty()).collect();
    merge_all(instance, &mut stored).await?;

    let mut groups = Groups::default();
    for (group, accumulators) in plan.groups.iter().zip(stored) {
        groups.keys.push(group.key.clone());
        groups.accumulators.push(accumulators.into_iter().next());
        if has_windows {
            groups.window_starts.push(group.span.start);
            groups.window_ends.push(group.span.end);
        }
    }
    let members = plan.members.iter().copied().unzip();
    let (accumulators, mut output) = instance.accumulate(&groups, members).await?;

    let (mut changes, mut ends) = (Vec::new(), Vec::new());
    let mut grown = output.state_grown - before;
    for ((group, accumulator), was_stored) in plan.groups.iter().zip(accumulators).zip(was_stored) {
        for span in group.stored.iter().filter(|span| was_stored && **span != group.span) {
            changes.push((group_key(&group.key, span.start), None));
            ends.push((end_key(&group.key, *span), None));
        }
        let value = accumulator.map(|accumulator| stored_value(group.span.end, &accumulator));
        if has_windows {
            ends.push((end_key(&group.key, group.span), value.is_some().then(Bytes::new)));
        }
        let at = group_key(&group.key, group.span.start);
        grown += value.as_ref().map_or(0, |value| group_bytes(&at, value, &group.key, group.span, has_windows));
        changes.push((at, value));
    }
    if !changes.is_empty() {
        output.state.push(StateChange { table: groups_table, entries: changes });
    }
    if !ends.is_empty() {
        output.state.push(StateChange { table: Name::new(ENDS).map_err(LogError::from)?, entries: ends });
    }
    output.state.extend(time_change(plan.time)?);
    output.rejected.retain(|letter| refused.iter().all(|refused: &Rejected| refused.row != letter.row));
    output.rejected.extend(refused);
    output.rejected.sort_by_key(|letter| letter.row);
    let late = match ports.iter().position(|port| port.name == LATE_PORT) {
        Some(port) => {
            emit_late(&mut output, &input, &plan.late, port, &ports[port])?;
            0
        }
        None => plan.late.len() as u64,
    };
    Ok(Done { output, time: plan.time, late, grown })
}

/// Leaves at most one accumulator of each group, as the component puts them together.
pub(crate) async fn merge_all(instance: &mut Instance, stored: &mut [Vec<Bytes>]) -> Result<(), CallError> {
    loop {
        let at: Vec<usize> = (0..stored.len()).filter(|at| stored[*at].len() > 1).collect();
        if at.is_empty() {
            return Ok(());
        }
        let left: Vec<Bytes> = at.iter().map(|at| stored[*at][0].clone()).collect();
        let right: Vec<Bytes> = at.iter().map(|at| stored[*at].remove(1)).collect();
        for (at, merged) in at.into_iter().zip(instance.merge(&left, &right).await?) {
            stored[at][0] = merged;
        }
    }
}

/// Late events, as they are, for the topic behind their port.
fn emit_late(output: &mut Output, input: &Input, late: &[u32], port: usize, to: &Port) -> Result<(), LogError> {
    let mut builders: HashMap<u32, BatchBuilder> = HashMap::new();
    let mut late = late.iter().peekable();
    for (row, (_, event)) in input.events().enumerate() {
        if late.next_if(|late| **late as usize == row).is_none() {
            continue;
        }
        let partition = match event.key {
            Some(key) => partition_of_key(key, to.partitions),
            None => input.partition() % to.partitions.max(1),
        };
        let builder = builders.entry(partition).or_insert_with(|| BatchBuilder::new(event.timestamp_us));
        builder.push_event(event);
        output.events += 1;
    }
    for (partition, builder) in builders {
        output.batches.push(Emitted { port, partition, batch: builder.finish()? });
    }
    Ok(())
}

/// Windows that are closed at this time, some of them at most, the state without them, and by how many bytes that is more.
pub(crate) fn due(
    how: Aggregation,
    time: EventTime,
    log: &dyn Log,
    task: TaskKey,
    count_max: usize,
) -> Result<Option<(Groups, Vec<StateChange>, i64)>, LogError> {
    if how.window == Window::None {
        return Ok(None);
    }
    let (groups_table, ends_table) = (Name::new(GROUPS)?, Name::new(ENDS)?);
    let Some(behind) = time.watermark(how.lateness_us).checked_add(1) else { return Ok(None) };
    let scan = StateScan {
        start: Bytes::new(),
        end: Some(Bytes::copy_from_slice(&ordered(behind).to_be_bytes())),
        count_max: count_max.min(CLOSE_GROUPS_MAX),
        bytes_max: usize::MAX,
    };
    let ends: Vec<Bytes> = log.state_scan(task, &ends_table, &scan)?.into_iter().map(|(key, _)| key).collect();
    if ends.is_empty() {
        return Ok(None);
    }
    let keys: Vec<Bytes> = ends.iter().map(|end| end.slice(8..)).collect();
    let mut groups = Groups::default();
    let mut grown = -ends.iter().map(|end| entry_bytes(end, &[])).sum::<i64>();
    for (key, value) in keys.iter().zip(state_of(log, task, &groups_table, &keys)?) {
        let Some(value) = value else { continue };
        grown -= entry_bytes(key, &value);
        let Some(group) = StoredGroup::read(key, &value) else { continue };
        groups.keys.push(group.key);
        groups.window_starts.push(group.span.start);
        groups.window_ends.push(group.span.end);
        groups.accumulators.push(Some(group.accumulator));
    }
    let without = |keys: Vec<Bytes>| keys.into_iter().map(|key| (key, None)).collect();
    let mut state = vec![
        StateChange { table: groups_table, entries: without(keys) },
        StateChange { table: ends_table, entries: without(ends) },
    ];
    // What closed them stays true, also when it was the clock and no event.
    state.extend(time_change(time)?);
    Ok(Some((groups, state, grown)))
}
