//! What is left of a store whose start is refused.
//!
//! How the state of a damaged log is found is a policy, with its reasons in this crate's `README.md` ("When it is damaged"). In
//! short: a hole that the checkpoint covers costs only the events in it. Behind a hole that it does not cover, what tasks did is
//! left out, whole, and everything that says all there is to say about its subject is kept.

use crate::archive::PartitionArchive;
use crate::checkpoint::{CHECKPOINT_FILE, Checkpoint, CheckpointError, Mark};
use crate::engine::{MetaEntry, Offsets, StoredBatch};
use crate::error::OpenError;
use crate::event::TimestampUs;
use crate::frame::{self, DamagedBatch, Frame, Lsn, Op};
use crate::fs::{self, Fs};
use crate::ids::{self, TimedIds};
use crate::ranges::Ranges;
use crate::recovery::{io_error, read_store, take_lock};
use crate::segment::{SEGMENT_HEADER_BYTES, StoreId};
use crate::state::State;
use crate::survey::{Hole, Step, Survey};
use crate::tables::Tables;
use crate::task::TaskKey;
use crate::topic::{Offset, Topic, TopicId, Tp};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The least that an event takes in the log: the length of its value.
const EVENT_BYTES_MIN: u64 = 4;
/// The least that a change of a topic or of an entry takes: a frame, an operation, and a length or two.
const CHANGE_BYTES_MIN: u64 = 80;

/// Something in the log or the checkpoint that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFinding {
    /// The file.
    pub place: String,
    pub what: String,
    /// What is not known any more because of it.
    pub unknown: Vec<String>,
}

/// A task that has to do again what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedBack {
    pub task: TaskKey,
    /// `None`: to its beginning.
    pub to: Option<Offset>,
    pub from: Offset,
}

/// Events in a segment.
#[derive(Clone, Debug)]
struct Piece {
    offsets: Range<Offset>,
    append_us: TimestampUs,
    segment: String,
    at: u64,
    bytes: u64,
}

/// A store that nobody uses, and everything that can be read of its log and its checkpoint.
pub struct Salvage {
    _lock: Box<dyn Send + Sync>,
    pub(crate) store_id: StoreId,
    pub(crate) state: State,
    /// Ids that topics remember.
    pub(crate) ids: BTreeMap<TopicId, TimedIds>,
    pub(crate) tables: Tables,
    pub(crate) checkpoint: Option<Checkpoint>,
    pieces: BTreeMap<Tp, Vec<Piece>>,
    findings: Vec<LogFinding>,
    /// Files that are damaged, or that hold what is left out.
    damaged: BTreeSet<String>,
    pub(crate) segments: Vec<String>,
    pub(crate) next_segment: u64,
    pub(crate) epoch: u32,
    pub(crate) end_lsn: Lsn,
    /// Behind every byte that may have been written.
    pub(crate) behind_lsn: Lsn,
    /// Nobody knows where the log ended.
    pub(crate) has_loose_end: bool,
    pub(crate) wall_us: TimestampUs,
    cut: Option<Cut>,
    /// The last events of each partition that can be read, by their place in the log.
    last_append: BTreeMap<Tp, Lsn>,
}

/// From here on not everything is known.
#[derive(Default)]
struct Cut {
    /// Topics with smaller numbers were known here, or are deleted.
    next_topic: u32,
    deleted: BTreeSet<TopicId>,
    /// Where the holes end, and how many bytes are not known.
    holes: Vec<(Lsn, u64)>,
    undone: BTreeMap<Tp, Ranges>,
    moved_back: BTreeMap<TaskKey, Offset>,
}

impl Salvage {
    /// Reads a store, and changes nothing: it is given a disk that cannot be changed.
    pub fn examine(fs: &fs::read_only::ReadOnlyFs, place: &str) -> Result<Self, OpenError> {
        let store_id = read_store(fs, place)?.ok_or_else(|| OpenError::NotAStore { place: place.to_owned() })?;
        let lock = take_lock(fs, place)?;
        let survey = Survey::read(fs, &store_id)?;
        let mut salvage = Self {
            _lock: lock,
            store_id,
            state: State::default(),
            ids: BTreeMap::new(),
            tables: Tables::default(),
            checkpoint: None,
            pieces: BTreeMap::new(),
            findings: Vec::new(),
            damaged: BTreeSet::new(),
            segments: survey.segments.iter().map(|segment| segment.path.clone()).collect(),
            next_segment: survey.segments.last().map_or(1, |last| last.number + 1),
            epoch: 0,
            end_lsn: 0,
            behind_lsn: 0,
            has_loose_end: false,
            wall_us: i64::MIN,
            cut: None,
            last_append: BTreeMap::new(),
        };
        let mark = salvage.read_checkpoint(fs, place, &survey)?;
        salvage.replay(fs, &survey, mark)?;
        Ok(salvage)
    }

    fn read_checkpoint(&mut self, fs: &dyn Fs, place: &str, survey: &Survey) -> Result<Mark, OpenError> {
        let open = || -> Result<_, CheckpointError> {
            let checkpoint = Checkpoint::open(fs)?;
            let loaded = checkpoint.load()?;
            Ok((checkpoint, loaded))
        };
        let bases: Vec<Lsn> = survey.segments.iter().filter_map(|found| Some(found.header()?.base_lsn)).collect();
        let reaches_back = bases.first().is_none_or(|base| *base == 0) && survey.segments.len() == bases.len();
        let (what, is_there) = match open() {
            Ok((checkpoint, Some((mark, state, ids)))) => {
                self.state = state;
                for (topic, at_us, id) in ids {
                    self.ids.entry(topic).or_default().push((at_us, id));
                }
                self.checkpoint = Some(checkpoint);
                return Ok(mark);
            }
            // A young store.
            Ok((_, None)) if reaches_back => return Ok(Mark::default()),
            Ok((_, None)) => ("it is empty or missing".to_owned(), false),
            Err(CheckpointError::Io(source)) => {
                return Err(OpenError::Io { doing: "read", place: CHECKPOINT_FILE.to_owned(), source });
            }
            Err(CheckpointError::Format(found)) => {
                return Err(OpenError::Format { place: place.to_owned(), found: found.to_string(), known: 1 });
            }
            Err(error) => (error.to_string(), true),
        };
        if is_there {
            self.damaged.insert(CHECKPOINT_FILE.to_owned());
        }
        let place = CHECKPOINT_FILE.to_owned();
        let start_lsn = bases.first().copied().unwrap_or(0);
        if start_lsn == 0 && !bases.is_empty() {
            self.findings.push(LogFinding { place, what: format!("{what}; the log has it all"), unknown: Vec::new() });
            return Ok(Mark::default());
        }
        let unknown = [
            "positions and state of deployments, and how far producers have come",
            "topics, deployments and components, as far as they are neither in the rest of the log nor in files",
            "retention, largest event and number of partitions of topics that are known from their files only",
            "whether events before the first file of a partition were lost, or removed by retention",
        ];
        let unknown = unknown.map(str::to_owned).into();
        let what = format!("{what}, and the log does not reach back to the beginning");
        self.findings.push(LogFinding { place, what, unknown });
        // What the log let go of is in files. Nothing is known of it here, and no offset was given there that files do not know.
        self.cut = Some(Cut { next_topic: 1, ..Cut::default() });
        Ok(Mark { start_lsn, applied_lsn: start_lsn, ..Mark::default() })
    }

    fn replay(&mut self, fs: &dyn Fs, survey: &Survey, mark: Mark) -> Result<(), OpenError> {
        let walk = survey.walk(mark.start_lsn, mark.durable_lsn);
        let mut open: Option<(usize, Bytes)> = None;
        for step in walk.steps {
            let (at, lsn) = match step {
                Step::Hole(hole) => {
                    self.has_loose_end = hole.to == walk.end_lsn && hole.bytes > hole.to - hole.from;
                    self.pass_over(hole, mark.applied_lsn);
                    continue;
                }
                Step::Frame { segment, lsn } => (segment, lsn),
            };
            let segment = &survey.segments[at];
            let Some(header) = segment.header() else { continue };
            let bytes = match &open {
                Some((of, bytes)) if *of == at => bytes.clone(),
                _ => open.insert((at, segment.read(fs)?)).1.clone(),
            };
            let position = SEGMENT_HEADER_BYTES + (lsn - header.base_lsn);
            let read = Frame::decode_around(&bytes.slice((position as usize).min(bytes.len())..), header.context, lsn);
            let (frame, damaged) = read.map_err(|error| OpenError::Damaged {
                file: segment.path.clone(),
                from: position,
                to: position,
                what: format!("it reads differently each time: {error}"),
            })?;
            self.take(frame, damaged, &segment.path, position, mark.applied_lsn);
        }
        for (place, what) in walk.leftovers {
            self.damaged.insert(place.clone());
            self.findings.push(LogFinding { place, what, unknown: Vec::new() });
        }
        self.end_lsn = walk.end_lsn;
        let headers = survey.segments.iter().filter_map(|segment| segment.header().map(|header| (segment, header)));
        let behind = headers.clone().map(|(segment, header)| header.base_lsn + segment.bytes.max(header.bytes));
        let unreadable = survey.segments.iter().filter(|segment| segment.header().is_none());
        self.behind_lsn = behind.fold(walk.end_lsn, Lsn::max) + unreadable.clone().map(|one| one.bytes).sum::<u64>();
        self.epoch = headers.map(|(_, header)| header.context.epoch).fold(mark.epoch, u32::max);
        self.epoch = self.epoch.saturating_add(1 + unreadable.count() as u32);
        self.reserve_numbers();
        Ok(())
    }

    fn pass_over(&mut self, hole: Hole, applied_lsn: Lsn) {
        self.damaged.extend(hole.files);
        let mut unknown = Vec::new();
        if hole.to > applied_lsn || hole.bytes > hole.to - hole.from {
            unknown = vec![
                "what else these bytes held: changes of topics, of deployments and of components may be undone"
                    .to_owned(),
                "what deployments did from there on: they do it again".to_owned(),
            ];
            let next_topic = self.state.next_topic;
            let cut = self.cut.get_or_insert_with(|| Cut { next_topic, ..Cut::default() });
            let known = applied_lsn.saturating_sub(hole.from).min(hole.to - hole.from);
            cut.holes.push((hole.to, hole.bytes - known));
        }
        self.findings.push(LogFinding { place: hole.place, what: hole.what, unknown });
    }

    fn take(&mut self, frame: Frame, damaged: Vec<DamagedBatch>, path: &str, position: u64, applied_lsn: Lsn) {
        let is_new = frame.lsn >= applied_lsn;
        self.wall_us = self.wall_us.max(frame.wall_us);
        if !damaged.is_empty() {
            self.damaged.insert(path.to_owned());
        }
        for DamagedBatch { tp, base_offset, events, why } in &damaged {
            let name =
                self.state.topics.get(&tp.topic).map_or_else(|| tp.topic.0.to_string(), |topic| topic.name.to_string());
            let what = format!(
                "{events} events of topic `{name}`, partition {}, from offset {base_offset} on, cannot be read: {why}",
                tp.partition
            );
            self.findings.push(LogFinding { place: path.to_owned(), what, unknown: Vec::new() });
        }
        let is_cut = is_new && self.cut.is_some();
        let is_of_task = |op: &Op| matches!(op, Op::Advance { .. } | Op::State { .. } | Op::TaskReset { .. });
        if is_cut && frame.ops.iter().any(|(op, _)| is_of_task(op)) {
            self.damaged.insert(path.to_owned());
            self.leave_out(frame, &damaged);
            return;
        }
        for (op, span) in &frame.ops {
            if let Op::Append { tp, base_offset, batch } = op {
                let piece = Piece {
                    offsets: *base_offset..base_offset + batch.len() as u64,
                    append_us: frame.wall_us,
                    segment: path.to_owned(),
                    at: position + span.at,
                    bytes: span.bytes,
                };
                self.pieces.entry(*tp).or_default().push(piece);
                if is_new {
                    self.ids.entry(tp.topic).or_default().extend(ids::timed(op, frame.wall_us));
                }
                self.last_append.insert(*tp, frame.lsn);
            }
            match op {
                _ if !is_new => {}
                _ if is_cut => self.apply_behind(op),
                Op::State { task, change } => self.tables.apply(*task, change),
                Op::TaskReset { task, forget, .. } => {
                    self.tables.forget(*task, forget);
                    self.state.apply(op);
                }
                Op::OwnerForget(owner) => {
                    self.tables.forget_owner(*owner);
                    self.state.apply(op);
                }
                op => drop(self.state.apply(op)),
            }
        }
        for DamagedBatch { tp, base_offset, events, .. } in damaged.iter().filter(|_| is_new) {
            self.last_append.insert(*tp, frame.lsn);
            self.raise_end(*tp, base_offset + events);
        }
    }

    /// One operation behind a hole. Each that is taken says everything there is to say about its subject, so it is right whatever
    /// the hole held.
    fn apply_behind(&mut self, op: &Op) {
        match op {
            Op::Append { tp, base_offset, batch } => self.raise_end(*tp, base_offset + batch.len() as u64),
            Op::TopicPut(topic) => self.put_topic(topic.clone()),
            Op::TopicDelete(id) => {
                self.state.apply(op);
                if let Some(cut) = &mut self.cut {
                    cut.deleted.insert(*id);
                }
            }
            Op::OwnerForget(owner) => {
                self.tables.forget_owner(*owner);
                self.state.apply(op);
            }
            Op::Trim { tp, .. } if self.state.topics.contains_key(&tp.topic) => drop(self.state.apply(op)),
            Op::Producer { .. } | Op::Meta { .. } => drop(self.state.apply(op)),
            // Files are looked at where they are. Tasks begin again where they were before the hole.
            Op::Trim { .. } | Op::FileCommit { .. } => {}
            Op::TaskEpoch { .. } | Op::Advance { .. } | Op::State { .. } | Op::TaskReset { .. } => {}
        }
    }

    /// What a task did in one transaction. Its position, its state and what it put out go together, and they are not known
    /// together: an earlier one may be in the hole.
    fn leave_out(&mut self, frame: Frame, damaged: &[DamagedBatch]) {
        let mut outputs: Vec<(Tp, Range<Offset>)> =
            damaged.iter().map(|batch| (batch.tp, batch.base_offset..batch.base_offset + batch.events)).collect();
        for (op, _) in &frame.ops {
            match op {
                Op::Append { tp, base_offset, batch } => {
                    outputs.push((*tp, *base_offset..base_offset + batch.len() as u64));
                }
                // What an operator said of a task afterwards has nothing to stand on; it is to be said again.
                Op::Advance { task, next, .. } | Op::TaskReset { task, next: Some(next), .. } => {
                    if let Some(cut) = &mut self.cut {
                        cut.moved_back.insert(*task, *next);
                    }
                }
                _ => {}
            }
        }
        for (tp, offsets) in outputs {
            // Others may have seen them: nobody else is given these offsets.
            self.raise_end(tp, offsets.end);
            self.last_append.insert(tp, frame.lsn);
            if let Some(cut) = &mut self.cut {
                cut.undone.entry(tp).or_default().insert(offsets);
            }
        }
    }

    /// Two topics of one name: the older one was deleted in between.
    fn put_topic(&mut self, topic: Topic) {
        let older = self.state.topic(&topic.name).ok().map(|older| older.id).filter(|id| *id != topic.id);
        if let Some(older) = older {
            self.state.apply(&Op::TopicDelete(older));
            if let Some(cut) = &mut self.cut {
                cut.deleted.insert(older);
            }
        }
        self.state.put_topic(topic);
    }

    /// Numbers that were given out in a hole are not given out again, although nobody knows which.
    fn reserve_numbers(&mut self) {
        let known = self.pieces.keys().map(|tp| tp.topic.0 + 1).fold(self.state.next_topic, u32::max);
        let bytes: u64 = self.cut.iter().flat_map(|cut| &cut.holes).map(|(_, bytes)| *bytes).sum();
        let changes = bytes / CHANGE_BYTES_MIN;
        self.state.next_topic = known.saturating_add(u32::try_from(changes).unwrap_or(u32::MAX >> 1));
        self.state.version += changes;
    }

    /// The id of the store.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// What is wrong with the log and the checkpoint.
    pub fn findings(&self) -> &[LogFinding] {
        &self.findings
    }

    /// Files of the log that are damaged: they are to be kept elsewhere before the store goes on.
    pub fn damaged(&self) -> impl Iterator<Item = &str> {
        self.damaged.iter().map(String::as_str)
    }

    /// Whether all that was acknowledged is known, whether it can be read or not.
    pub fn is_exact(&self) -> bool {
        self.cut.is_none()
    }

    /// Every topic that is known, by name.
    pub fn topics(&self) -> Vec<Topic> {
        self.state.topics_by_name().cloned().collect()
    }

    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.state.topics.get(&id)
    }

    /// Whether a topic that is not known may have been there.
    pub fn may_have_been(&self, id: TopicId) -> bool {
        self.cut.as_ref().is_some_and(|cut| id.0 >= cut.next_topic && !cut.deleted.contains(&id))
    }

    /// Partitions of topics that are not known, which have events in the log.
    pub fn orphans(&self) -> Vec<Tp> {
        let is_orphan = |tp: &&Tp| match self.topic(tp.topic) {
            Some(topic) => tp.partition >= topic.config.partitions,
            None => self.may_have_been(tp.topic),
        };
        self.pieces.keys().filter(is_orphan).copied().collect()
    }

    /// Makes a topic known again, or gives it more partitions.
    pub fn adopt_topic(&mut self, topic: Topic) {
        self.put_topic(topic);
    }

    /// The files of a partition, as far as the log knows.
    pub fn archive(&self, tp: Tp) -> PartitionArchive {
        self.state.archives.get(&tp).map(|archive| (**archive).clone()).unwrap_or_default()
    }

    /// Everything before this was given out.
    pub fn end(&self, tp: Tp) -> Offset {
        self.state.end(tp)
    }

    pub(crate) fn raise_end(&mut self, tp: Tp, end: Offset) {
        self.state.set_end(tp, self.state.end(tp).max(end));
    }

    /// Offsets from the end on that may have been given out in a hole, at most.
    pub fn reserved(&self, tp: Tp) -> u64 {
        let last = self.last_append.get(&tp).copied();
        let holes = self.cut.iter().flat_map(|cut| &cut.holes);
        let behind = holes.filter(|(to, _)| last.is_none_or(|last| last < *to)).map(|(_, bytes)| *bytes);
        behind.sum::<u64>() / EVENT_BYTES_MIN
    }

    /// What tasks put into a partition, and put there again.
    pub fn undone(&self, tp: Tp) -> Ranges {
        self.cut.as_ref().and_then(|cut| cut.undone.get(&tp)).cloned().unwrap_or_default()
    }

    /// Tasks that do again what they did.
    pub fn moved_back(&self) -> Vec<MovedBack> {
        let moved = self.cut.iter().flat_map(|cut| &cut.moved_back);
        let before = |task: &TaskKey| self.state.tasks.get(task).and_then(|position| position.next);
        moved.map(|(task, from)| MovedBack { task: *task, to: before(task), from: *from }).collect()
    }

    /// The metadata entries whose key begins so.
    pub fn entries(&self, prefix: &str) -> impl Iterator<Item = (&str, &MetaEntry)> {
        let entries = self.state.entries.range(prefix.to_owned()..);
        entries.take_while(move |(key, _)| key.starts_with(prefix)).map(|(key, entry)| (key.as_str(), entry))
    }

    /// Offsets of events in the log that can be read.
    pub fn in_log(&self, tp: Tp) -> Ranges {
        let mut ranges = Ranges::default();
        self.pieces.get(&tp).into_iter().flatten().for_each(|piece| ranges.insert(piece.offsets.clone()));
        ranges
    }

    /// The batches in the log that have events of this range, in order, until there are so many bytes of them.
    pub fn read(
        &self,
        fs: &dyn Fs,
        tp: Tp,
        range: Range<Offset>,
        bytes_max: u64,
    ) -> Result<Vec<StoredBatch>, OpenError> {
        let pieces = self.pieces.get(&tp).map_or([].as_slice(), Vec::as_slice);
        let first = pieces.partition_point(|piece| piece.offsets.end <= range.start);
        let mut found = Vec::new();
        let mut bytes = 0;
        for piece in pieces[first..].iter().take_while(|piece| piece.offsets.start < range.end) {
            if bytes >= bytes_max {
                break;
            }
            bytes += piece.bytes;
            let mut buffer = vec![0; piece.bytes as usize];
            let file = fs.open(&piece.segment).map_err(io_error("open", &piece.segment))?;
            fs::read_exact_at(&*file, &mut buffer, piece.at).map_err(io_error("read", &piece.segment))?;
            let damaged = |what: String| OpenError::Damaged {
                file: piece.segment.clone(),
                from: piece.at,
                to: piece.at + piece.bytes,
                what,
            };
            let appends = frame::decode_appends(&buffer.into()).map_err(|error| damaged(error.to_string()))?;
            for (of, offset, batch) in appends {
                if of != tp || offset != piece.offsets.start {
                    return Err(damaged(format!("it reads differently each time: {of} at {offset}")));
                }
                found.push(StoredBatch { offsets: Offsets::From(offset), append_us: piece.append_us, batch });
            }
        }
        Ok(found)
    }

    /// Bytes of the log that can be read and belong to a partition.
    pub fn log_bytes(&self) -> u64 {
        self.pieces.values().flatten().map(|piece| piece.bytes).sum()
    }
}
