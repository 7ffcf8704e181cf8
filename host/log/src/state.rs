//! Everything the log knows besides events: the sum of all operations, in order.
//!
//! There are two of these. The sequencer's runs ahead: it includes what is still on its way to the disk, so that the next
//! request is checked against it. The durable one is what the world sees. Both are moved by the same [`State::apply`], and
//! so is recovery; there is no second way to change them.

use crate::archive::PartitionArchive;
use crate::engine::MetaEntry;
use crate::error::LogError;
use crate::event::TimestampUs;
use crate::frame::Op;
use crate::ids::{IdHash, TimedIds};
use crate::limits::PRODUCERS_MAX;
use crate::producer::{ProducerId, Producers};
use crate::task::{OwnerId, TaskKey, TaskPosition};
use crate::topic::{Name, Offset, Topic, TopicId, Tp};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) topics: BTreeMap<TopicId, Topic>,
    names: BTreeMap<Name, TopicId>,
    pub(crate) next_topic: u32,
    ends: HashMap<Tp, Offset>,
    /// Shared with those who look at them: a partition may have years of files.
    pub(crate) archives: HashMap<Tp, Arc<PartitionArchive>>,
    pub(crate) tasks: BTreeMap<TaskKey, TaskPosition>,
    pub(crate) producers: Producers,
    pub(crate) entries: BTreeMap<String, MetaEntry>,
    pub(crate) version: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            next_topic: 1,
            ends: HashMap::new(),
            archives: HashMap::new(),
            tasks: BTreeMap::new(),
            producers: Producers::new(PRODUCERS_MAX),
            entries: BTreeMap::new(),
            version: 0,
        }
    }
}

impl State {
    pub(crate) fn topic(&self, name: &Name) -> Result<&Topic, LogError> {
        self.names
            .get(name)
            .and_then(|id| self.topics.get(id))
            .ok_or_else(|| LogError::UnknownTopic { topic: name.clone() })
    }

    pub(crate) fn topic_by_id(&self, id: TopicId) -> Result<&Topic, LogError> {
        self.topics.get(&id).ok_or(LogError::UnknownTopicId { topic: id })
    }

    /// Every topic, by name.
    pub(crate) fn topics_by_name(&self) -> impl Iterator<Item = &Topic> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// Checks that a partition exists.
    pub(crate) fn check_partition(&self, tp: Tp) -> Result<(), LogError> {
        let topic = self.topic_by_id(tp.topic)?;
        if tp.partition < topic.config.partitions {
            return Ok(());
        }
        Err(LogError::UnknownPartition {
            topic: topic.name.clone(),
            partition: tp.partition,
            partitions: topic.config.partitions,
        })
    }

    /// The offset that the next event of a partition gets.
    pub(crate) fn end(&self, tp: Tp) -> Offset {
        self.ends.get(&tp).copied().unwrap_or(0)
    }

    pub(crate) fn set_end(&mut self, tp: Tp, end: Offset) {
        self.ends.insert(tp, end);
    }

    pub(crate) fn put_topic(&mut self, topic: Topic) {
        self.next_topic = self.next_topic.max(topic.id.0 + 1);
        self.names.insert(topic.name.clone(), topic.id);
        self.topics.insert(topic.id, topic);
    }

    /// What is wrong with an operation that a log of ours does not have at this place.
    pub(crate) fn contradiction(&self, op: &Op) -> Option<String> {
        let unknown = |tp: &Tp| self.check_partition(*tp).err().map(|error| error.to_string());
        match op {
            Op::Append { tp, base_offset, batch } => {
                let (end, count) = (self.end(*tp), batch.len() as u64);
                let follows = *base_offset >= end && base_offset.checked_add(count).is_some();
                let what = || format!("{count} events at offset {base_offset} of {tp}, which ends at {end}");
                unknown(tp).or_else(|| (!follows).then(what))
            }
            Op::Trim { tp, to } => {
                let end = self.end(*tp);
                unknown(tp).or_else(|| (*to > end).then(|| format!("{tp} begins at {to} and ends at {end}")))
            }
            Op::FileCommit { tp, file } => {
                let known = self.archives.get(tp).cloned().unwrap_or_default();
                let what = |what| format!("a file of offsets {} to {} of {tp}: {what}", file.base, file.end);
                unknown(tp).or_else(|| known.check(file, self.end(*tp)).err().map(what))
            }
            Op::TopicPut(topic) => {
                if topic.id.0 == u32::MAX {
                    return Some(format!("topic `{}` has the last id that there is", topic.name));
                }
                let namesake = self.names.get(&topic.name).filter(|id| **id != topic.id);
                namesake.map(|id| format!("topic `{}` has the ids {} and {}", topic.name, id.0, topic.id.0))
            }
            Op::Producer { .. }
            | Op::TopicDelete(_)
            | Op::TaskEpoch { .. }
            | Op::Advance { .. }
            | Op::State { .. }
            | Op::TaskReset { .. }
            | Op::OwnerForget(_)
            | Op::Meta { .. } => None,
        }
    }

    /// Makes one operation true. It was checked when it was sequenced; this cannot fail. Answers with a producer that was
    /// forgotten to make place for another.
    pub(crate) fn apply(&mut self, op: &Op) -> Option<ProducerId> {
        match op {
            Op::Append { tp, base_offset, batch } => {
                let end = self.ends.entry(*tp).or_default();
                debug_assert!(*base_offset >= *end, "offsets strictly increase");
                *end = base_offset + batch.len() as u64;
            }
            Op::Producer { producer, sequence } => return self.producers.put(*producer, *sequence),
            Op::TopicPut(topic) => self.put_topic(topic.clone()),
            Op::TopicDelete(id) => {
                if let Some(topic) = self.topics.remove(id) {
                    self.names.remove(&topic.name);
                    for tp in topic.partitions() {
                        self.ends.remove(&tp);
                        self.archives.remove(&tp);
                    }
                }
            }
            Op::Trim { tp, to } => drop(self.archive_mut(*tp).trim(*to)),
            Op::FileCommit { tp, file } => self.archive_mut(*tp).commit(file.clone()),
            Op::TaskEpoch { task, epoch } => self.tasks.entry(*task).or_default().epoch = *epoch,
            Op::Advance { task, next, .. } => self.tasks.entry(*task).or_default().next = Some(*next),
            // The tables keep themselves: see `tables`.
            Op::State { .. } => {}
            Op::TaskReset { task, epoch, next, .. } => {
                self.tasks.insert(*task, TaskPosition { epoch: *epoch, next: *next });
            }
            Op::OwnerForget(owner) => {
                for task in self.tasks_of(*owner) {
                    self.tasks.remove(&task);
                }
            }
            Op::Meta { key, value, version } => {
                self.version = self.version.max(*version);
                match value {
                    Some(value) => {
                        // A copy: what was read from a segment would keep the whole segment in memory.
                        let entry = MetaEntry { value: Bytes::copy_from_slice(value), version: *version };
                        self.entries.insert(key.clone(), entry);
                    }
                    None => drop(self.entries.remove(key)),
                }
            }
        }
        None
    }

    pub(crate) fn archive_mut(&mut self, tp: Tp) -> &mut PartitionArchive {
        Arc::make_mut(self.archives.entry(tp).or_default())
    }

    fn tasks_of(&self, owner: OwnerId) -> Vec<TaskKey> {
        let first = Tp { topic: TopicId(0), partition: 0 };
        self.tasks
            .range(TaskKey { owner, source: first }..)
            .map(|(task, _)| *task)
            .take_while(|task| task.owner == owner)
            .collect()
    }
}

/// What changed since the last checkpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) topics: BTreeSet<TopicId>,
    pub(crate) ends: HashSet<Tp>,
    pub(crate) archives: HashSet<Tp>,
    pub(crate) files: HashSet<(Tp, Offset)>,
    pub(crate) tasks: BTreeSet<TaskKey>,
    pub(crate) producers: BTreeSet<ProducerId>,
    pub(crate) entries: BTreeSet<String>,
    /// Ids of events that topics remember, and when they were appended.
    pub(crate) ids: BTreeMap<TopicId, TimedIds>,
}

impl Dirty {
    /// Everything that there is, and these ids.
    pub(crate) fn all(state: &State, ids: BTreeMap<TopicId, TimedIds>) -> Self {
        let partitions = state.topics.values().flat_map(Topic::partitions);
        let files = state.archives.iter().flat_map(|(tp, archive)| archive.files.keys().map(|base| (*tp, *base)));
        Self {
            topics: state.topics.keys().copied().collect(),
            ends: partitions.collect(),
            archives: state.archives.keys().copied().collect(),
            files: files.collect(),
            tasks: state.tasks.keys().copied().collect(),
            producers: state.producers.ids().collect(),
            entries: state.entries.keys().cloned().collect(),
            ids,
        }
    }

    /// Notes what an operation is going to change; `state` is from before. `ids` are those of the events that it appends.
    pub(crate) fn note(&mut self, op: &Op, state: &State, ids: &[(TimestampUs, IdHash)]) {
        match op {
            Op::Append { tp, .. } => {
                self.ends.insert(*tp);
                let remembers = state.topics.get(&tp.topic).is_some_and(|topic| topic.config.deduplicate_us.is_some());
                if remembers && !ids.is_empty() {
                    self.ids.entry(tp.topic).or_default().extend_from_slice(ids);
                }
            }
            Op::Producer { producer, .. } => drop(self.producers.insert(*producer)),
            Op::TopicPut(topic) => drop(self.topics.insert(topic.id)),
            Op::TopicDelete(id) => {
                self.topics.insert(*id);
                self.ids.remove(id);
                for tp in state.topics.get(id).into_iter().flat_map(Topic::partitions) {
                    self.ends.insert(tp);
                    self.note_files(tp, state, Offset::MAX);
                }
            }
            Op::Trim { tp, to } => self.note_files(*tp, state, *to),
            Op::FileCommit { tp, file } => {
                self.note_files(*tp, state, 0);
                self.files.insert((*tp, file.base));
                // The one before it may be sealed by it.
                let before = state.archives.get(tp).and_then(|archive| archive.open_file());
                self.files.extend(before.map(|before| (*tp, before.base)));
            }
            Op::TaskEpoch { task, .. } | Op::Advance { task, .. } | Op::TaskReset { task, .. } => {
                self.tasks.insert(*task);
            }
            Op::State { .. } => {}
            Op::OwnerForget(owner) => self.tasks.extend(state.tasks_of(*owner)),
            Op::Meta { key, .. } => drop(self.entries.insert(key.clone())),
        }
    }

    /// Notes the files that end before an offset.
    fn note_files(&mut self, tp: Tp, state: &State, to: Offset) {
        self.archives.insert(tp);
        let files = state.archives.get(&tp).into_iter().flat_map(|archive| archive.files.values());
        self.files.extend(files.take_while(|file| file.end <= to).map(|file| (tp, file.base)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
            && self.ends.is_empty()
            && self.archives.is_empty()
            && self.files.is_empty()
            && self.tasks.is_empty()
            && self.producers.is_empty()
            && self.entries.is_empty()
            && self.ids.is_empty()
    }

    /// Puts back what a failed checkpoint took.
    pub(crate) fn merge(&mut self, other: Self) {
        self.topics.extend(other.topics);
        self.ends.extend(other.ends);
        self.archives.extend(other.archives);
        self.files.extend(other.files);
        self.tasks.extend(other.tasks);
        self.producers.extend(other.producers);
        self.entries.extend(other.entries);
        for (topic, earlier) in other.ids {
            let later = std::mem::replace(self.ids.entry(topic).or_default(), earlier);
            self.ids.entry(topic).or_default().extend(later);
        }
    }
}
