//! Groups that are in several partitions: an aggregate that groups by itself, over windows.
//!
//! The task of a partition folds what is in it, as always. When a window is closed there, its accumulators are no result but parts of
//! one, and go to the topic `<deployment>.parts`, each to the partition of its group. Behind them the task says how far it is in time. A
//! second task, for each partition of that topic, puts parts together, and closes a window when every partition of the input is past
//! it. Parts, positions and state commit as one everywhere, so each part counts once.
//!
//! ```text
//! input/0 ─ fold ─┐                        ┌─ parts/0 ─ put together, finish ─▶ results
//! input/1 ─ fold ─┼─ parts of closed ──────┤
//! input/2 ─ fold ─┘  windows, by group     └─ parts/1 ─ put together, finish ─▶ results
//! ```

use crate::deployment::aggregate::{
    self, ENDS, GROUPS, TIME, end_key, group_bytes, group_key, merge_all, state_of, stored_value,
};
use crate::deployment::spec::DeploymentSpec;
use crate::deployment::task::{CallFailure, Done};
use crate::deployment::windows::{EventTime, Span, Window};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use nodata_log::{
    Batch, BatchBuilder, Log, LogError, Name, StateChange, StateScan, TaskKey, TimestampUs, TopicId, Tp,
    partition_of_key,
};
use nodata_runtime::{Groups, Input, Instance, Output};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Where parts are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartsTopic {
    pub topic: u32,
    pub partitions: u32,
}

impl PartsTopic {
    pub(crate) fn id(self) -> TopicId {
        TopicId(self.topic)
    }

    pub(crate) fn sources(self) -> impl Iterator<Item = Tp> {
        (0..self.partitions).map(move |partition| Tp { topic: self.id(), partition })
    }
}

/// What a task does for groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its groups are in its partition and nowhere else.
    Whole,
    /// It folds its part of them.
    Part(PartsTopic),
    /// It puts parts together.
    Together,
}

impl Stage {
    pub(crate) fn of(spec: &DeploymentSpec, source: Tp) -> Self {
        match spec.parts {
            Some(parts) if parts.id() == source.topic => Stage::Together,
            Some(parts) => Stage::Part(parts),
            None => Stage::Whole,
        }
    }
}

/// The header of a part: start and end of its window. A message without it says how far a partition is in time.
const WINDOW: &str = "nodata-window";
/// The state key under which a task keeps what it said last.
const TOLD: &[u8] = b"told";

/// How far a partition of the input is in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// It has had no events for so long that nobody should wait for it.
    Empty,
    /// Its windows that end here or earlier are closed.
    Watermark(TimestampUs),
}

impl Progress {
    fn to_bytes(self) -> Bytes {
        match self {
            Progress::Empty => Bytes::new(),
            Progress::Watermark(at) => Bytes::copy_from_slice(&at.to_be_bytes()),
        }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [] => Some(Progress::Empty),
            _ => Some(Progress::Watermark(i64::from_be_bytes(bytes.try_into().ok()?))),
        }
    }
}

/// What a task said last about its partition.
pub(crate) fn told(log: &dyn Log, task: TaskKey) -> Result<Option<Progress>, LogError> {
    let found = log.state_get(task, &Name::new(TIME)?, &[Bytes::from_static(TOLD)])?;
    Ok(found.into_iter().next().flatten().and_then(|bytes| Progress::read(&bytes)))
}

/// What a task should say now, if that is more than it said before: each time another window may have been closed.
pub(crate) fn news(
    window: Window,
    watermark: Option<TimestampUs>,
    told: Option<Progress>,
    is_idle: bool,
) -> Option<Progress> {
    let Window::Sliding { slide_us, .. } = window else { return None };
    let Some(watermark) = watermark else { return (told.is_none() && is_idle).then_some(Progress::Empty) };
    match told {
        Some(Progress::Watermark(before)) if before.div_euclid(slide_us) >= watermark.div_euclid(slide_us) => None,
        _ => Some(Progress::Watermark(watermark)),
    }
}

/// What is to be appended and changed.
type Told = (Vec<(Tp, Batch)>, Vec<StateChange>);

/// That a partition is so far, for everyone who puts parts together, and that this was said.
pub(crate) fn tell(to: PartsTopic, partition: u32, progress: Progress) -> Result<Told, LogError> {
    let mut message = BytesMut::new();
    message.put_u32(partition);
    message.put_slice(&progress.to_bytes());
    let mut appends = Vec::new();
    for tp in to.sources() {
        let mut builder = BatchBuilder::new(0);
        builder.push(None, None, Some(&message), None);
        appends.push((tp, builder.finish()?));
    }
    let entries = vec![(Bytes::from_static(TOLD), Some(progress.to_bytes()))];
    Ok((appends, vec![StateChange { table: Name::new(TIME)?, entries }]))
}

/// Closed windows of one partition, as parts.
pub(crate) fn emit(to: PartsTopic, closed: &Groups) -> Result<Vec<(Tp, Batch)>, LogError> {
    let mut builders: BTreeMap<u32, BatchBuilder> = BTreeMap::new();
    for (at, key) in closed.keys.iter().enumerate() {
        let (start, end) = (closed.window_starts[at], closed.window_ends[at]);
        let Some(accumulator) = &closed.accumulators[at] else { continue };
        let builder = builders.entry(partition_of_key(key, to.partitions)).or_insert_with(|| BatchBuilder::new(0));
        builder.push(None, Some(key), Some(accumulator), Some(end));
        builder.push_header(WINDOW, &[start.to_be_bytes(), end.to_be_bytes()].concat());
    }
    let append = |(partition, builder): (u32, BatchBuilder)| Ok((Tp { topic: to.id(), partition }, builder.finish()?));
    builders.into_iter().map(append).collect()
}

/// How far every partition of the input is, as a task that puts parts together was told.
#[derive(Debug, Default)]
struct Everyone {
    told: BTreeMap<u32, Progress>,
}

fn source_key(partition: u32) -> Bytes {
    Bytes::copy_from_slice(&partition.to_be_bytes())
}

impl Everyone {
    fn read(log: &dyn Log, task: TaskKey) -> Result<Self, LogError> {
        let all = StateScan { start: Bytes::new(), end: None, count_max: usize::MAX, bytes_max: usize::MAX };
        let found = log.state_scan(task, &Name::new(TIME)?, &all)?;
        let of = |(key, value): (Bytes, Bytes)| {
            Some((u32::from_be_bytes(key.as_ref().try_into().ok()?), Progress::read(&value)?))
        };
        Ok(Self { told: found.into_iter().filter_map(of).collect() })
    }

    /// Windows that end here or earlier are closed in all of them. `None` while one has said nothing, and while none has events.
    fn watermark(&self, partitions: u32) -> Option<TimestampUs> {
        if (0..partitions).any(|partition| !self.told.contains_key(&partition)) {
            return None;
        }
        let of = |progress: &Progress| match progress {
            Progress::Empty => None,
            Progress::Watermark(at) => Some(*at),
        };
        self.told.values().filter_map(of).min()
    }
}

/// Where a task that puts parts together is in time: as far as it has closed windows, or was told.
pub(crate) fn event_time(log: &dyn Log, spec: &DeploymentSpec, task: TaskKey) -> Result<EventTime, LogError> {
    let closed = aggregate::event_time(log, task)?.latest;
    let told = Everyone::read(log, task)?.watermark(input_partitions(log, spec));
    Ok(EventTime { latest: closed.max(told) })
}

fn input_partitions(log: &dyn Log, spec: &DeploymentSpec) -> u32 {
    log.topic_by_id(spec.input_id()).map_or(0, |topic| topic.config.partitions)
}

/// Puts the parts of a batch to those that are stored.
pub(crate) async fn put_together(
    spec: &DeploymentSpec,
    mut time: EventTime,
    (log, task): (&dyn Log, TaskKey),
    instance: &mut Instance,
    input: Input,
) -> Result<Done, CallFailure> {
    let name = |table: &str| Name::new(table).map_err(LogError::from);
    let partitions = input_partitions(log, spec);
    let mut everyone = Everyone::read(log, task)?;
    let mut said: BTreeMap<u32, Progress> = BTreeMap::new();
    let mut places: HashMap<(Bytes, Span), usize> = HashMap::new();
    let mut groups: Vec<(Bytes, Span)> = Vec::new();
    let mut parts: Vec<Vec<Bytes>> = Vec::new();
    let mut late = 0;
    for (_, event) in input.events() {
        let window = event.headers().find(|(name, _)| *name == WINDOW).and_then(|(_, bytes)| span_of(bytes));
        match (window, event.key, event.value) {
            (Some(span), Some(key), Some(accumulator)) => {
                // Its partition was taken to be idle, and was not.
                if time.latest.is_some_and(|watermark| span.end <= watermark) {
                    late += 1;
                    continue;
                }
                let group = (Bytes::copy_from_slice(key), span);
                let at = *places.entry(group.clone()).or_insert_with(|| {
                    groups.push(group);
                    parts.push(Vec::new());
                    groups.len() - 1
                });
                parts[at].push(Bytes::copy_from_slice(accumulator));
            }
            (None, None, Some(mut message)) if message.len() >= 4 => {
                let partition = message.get_u32();
                if let Some(progress) = Progress::read(message) {
                    everyone.told.insert(partition, progress);
                    said.insert(partition, progress);
                    time.latest = time.latest.max(everyone.watermark(partitions));
                }
            }
            // Somebody else published it.
            _ => late += 1,
        }
    }

    let keys: Vec<Bytes> = groups.iter().map(|(key, span)| group_key(key, span.start)).collect();
    let groups_table = name(GROUPS)?;
    let mut grown = 0;
    let found = state_of(log, task, &groups_table, &keys)?;
    for (((value, parts), at), (key, span)) in found.into_iter().zip(&mut parts).zip(&keys).zip(&groups) {
        grown -= value.as_ref().map_or(0, |value| group_bytes(at, value, key, *span, true));
        // What is stored came first.
        parts.splice(0..0, value.filter(|value| value.len() >= 8).map(|value| value.slice(8..)));
    }
    merge_all(instance, &mut parts).await?;

    let mut output = Output { memory: instance.save().await?, ..Output::default() };
    let mut change = |table: Name, entries: Vec<(Bytes, Option<Bytes>)>| {
        if !entries.is_empty() {
            output.state.push(StateChange { table, entries });
        }
    };
    let ends = groups.iter().map(|(key, span)| (end_key(key, *span), Some(Bytes::new()))).collect();
    let mut accumulators = Vec::new();
    for (((key, span), at), parts) in groups.iter().zip(keys).zip(parts) {
        let Some(accumulator) = parts.first() else { continue };
        let value = stored_value(span.end, accumulator);
        grown += group_bytes(&at, &value, key, *span, true);
        accumulators.push((at, Some(value)));
    }
    change(groups_table, accumulators);
    change(name(ENDS)?, ends);
    let said = said.into_iter().map(|(partition, progress)| (source_key(partition), Some(progress.to_bytes())));
    change(name(TIME)?, said.collect());
    Ok(Done { output, time, late, grown })
}

fn span_of(mut bytes: &[u8]) -> Option<Span> {
    (bytes.len() == 16).then(|| Span { start: bytes.get_i64(), end: bytes.get_i64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_says_what_is_new() {
        let window = Window::Sliding { size_us: 100, slide_us: 10 };
        let at = |time| Some(Progress::Watermark(time));
        assert_eq!(news(window, None, None, false), None, "there may be events");
        assert_eq!(news(window, None, None, true), Some(Progress::Empty));
        assert_eq!(news(window, None, Some(Progress::Empty), true), None);
        assert_eq!(news(window, Some(-5), Some(Progress::Empty), true), at(-5));
        assert_eq!(news(window, Some(12), at(9), false), at(12));
        assert_eq!(news(window, Some(19), at(12), true), None, "no window ends in between");
        assert_eq!(news(window, Some(20), at(12), true), at(20));
    }

    #[test]
    fn everyone_is_as_far_as_the_last_one() {
        let everyone = |told: &[(u32, Progress)]| Everyone { told: told.iter().copied().collect() };
        let (empty, at) = (Progress::Empty, Progress::Watermark);
        assert_eq!(everyone(&[(0, at(5))]).watermark(2), None, "one has said nothing");
        assert_eq!(everyone(&[(0, at(5)), (1, at(3))]).watermark(2), Some(3));
        assert_eq!(everyone(&[(0, at(5)), (1, empty)]).watermark(2), Some(5));
        assert_eq!(everyone(&[(0, empty), (1, empty)]).watermark(2), None);
    }

    #[test]
    fn progress_is_written_and_read() {
        for progress in [Progress::Empty, Progress::Watermark(i64::MIN), Progress::Watermark(7)] {
            assert_eq!(Progress::read(&progress.to_bytes()), Some(progress));
        }
        assert_eq!(Progress::read(&[1]), None);
    }
}
