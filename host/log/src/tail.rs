//! Where the batches of a partition are, and the latest ones themselves.
//!
//! Each partition has a list of runs: batches that lie one behind the other in the write-ahead log. The latest runs of all
//! partitions together are also in memory, up to a bound (the ring); a reader that follows live never touches the disk.

use crate::archive::Unarchived;
use crate::engine::{Bounds, Chunk, Offsets, ReadLimits, StoredBatch};
use crate::error::LogError;
use crate::event::TimestampUs;
use crate::frame::{self, OpSpan};
use crate::fs::{Fs, FsFile, read_exact_at};
use crate::limits::READ_GAP_BYTES;
use crate::segment::segment_path;
use crate::topic::{Offset, Tp};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard, Weak};
use tokio::sync::watch;

/// Bytes after which a run is ended, so that a reader does not take much more than it asked for.
const RUN_BYTES: u64 = 256 << 10;

/// Bytes in a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) at: u64,
    pub(crate) bytes: u64,
}

/// Batches of one partition that lie one behind the other.
#[derive(Clone, Debug)]
struct Run {
    first: Offset,
    /// After the last event.
    end: Offset,
    append_us: TimestampUs,
    place: Place,
    /// `None` once the ring let go of them.
    batches: Option<Vec<StoredBatch>>,
}

/// One partition.
#[derive(Debug)]
pub(crate) struct PartitionTail {
    tp: Tp,
    runs: RwLock<Runs>,
    /// The earliest offset that is still there, in the log or in a file.
    start: AtomicU64,
    end: watch::Sender<Offset>,
}

#[derive(Debug, Default)]
struct Runs {
    list: VecDeque<Run>,
    /// Everything before this is in a file.
    archived: Offset,
    /// Bytes of what is in no file.
    unarchived_bytes: u64,
}

impl PartitionTail {
    pub(crate) fn new(tp: Tp, end: Offset) -> Arc<Self> {
        Arc::new(Self { tp, runs: RwLock::default(), start: AtomicU64::new(0), end: watch::Sender::new(end) })
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Offset> {
        self.end.subscribe()
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { earliest: self.start.load(Ordering::Acquire), end: *self.end.borrow() }
    }

    fn runs(&self) -> RwLockWriteGuard<'_, Runs> {
        self.runs.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes before `start` is gone, and what comes before `archived` is in files.
    pub(crate) fn set_archive(&self, start: Offset, archived: Offset) {
        self.start.store(start, Ordering::Release);
        let runs = &mut *self.runs();
        let gone = runs.list.partition_point(|run| run.end <= start);
        let filed = runs.list.partition_point(|run| run.end <= runs.archived);
        let newly_filed = runs.list.range(filed..).take_while(|run| run.end <= archived);
        runs.unarchived_bytes -= newly_filed.map(|run| run.place.bytes).sum::<u64>();
        runs.archived = archived.max(runs.archived);
        runs.list.drain(..gone);
    }

    /// What is in no file yet, if there is anything.
    pub(crate) fn unarchived(&self) -> Option<Unarchived> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let first = runs.list.get(runs.list.partition_point(|run| run.end <= runs.archived))?;
        (first.first < *self.end.borrow()).then_some(Unarchived {
            tp: self.tp,
            bytes: runs.unarchived_bytes,
            oldest_us: first.append_us,
        })
    }

    /// Forgets what lies in segments before this one. It is in files.
    pub(crate) fn forget_segments(&self, kept: u64) {
        let runs = &mut *self.runs();
        let gone = runs.list.partition_point(|run| run.place.segment < kept);
        debug_assert!(runs.list.range(..gone).all(|run| run.end <= runs.archived), "a segment with the only copy");
        runs.list.drain(..gone);
    }

    /// Whether what lies in this segment was forgotten.
    pub(crate) fn has_forgotten(&self, segment: u64) -> bool {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        runs.list.front().is_none_or(|run| run.place.segment > segment)
    }

    /// Adds a batch that is durable. Not visible before the end moves.
    fn push(&self, offset: Offset, append_us: TimestampUs, place: Place, batch: StoredBatch, keep: bool) -> bool {
        let end = offset + batch.batch.len() as u64;
        let runs = &mut *self.runs();
        runs.unarchived_bytes += if end > runs.archived { place.bytes } else { 0 };
        let is_archived = end <= runs.archived;
        if let Some(last) = runs.list.back_mut() {
            assert!(last.end <= offset, "offsets of partition {} must strictly increase", self.tp);
            let follows = last.place.segment == place.segment
                && last.place.at + last.place.bytes == place.at
                && last.append_us == append_us
                && last.place.bytes < RUN_BYTES
                && (last.end <= runs.archived) == is_archived
                && last.batches.is_some() == keep;
            if follows {
                last.end = end;
                last.place.bytes += place.bytes;
                if let Some(batches) = &mut last.batches {
                    batches.push(batch);
                }
                return false;
            }
        }
        runs.list.push_back(Run { first: offset, end, append_us, place, batches: keep.then(|| vec![batch]) });
        true
    }

    pub(crate) fn set_end(&self, end: Offset) {
        let before = self.end.send_replace(end);
        debug_assert!(before <= end, "an end never moves back");
    }

    /// Lets go of the batches of a run; they are still on the disk.
    fn forget(&self, first: Offset) {
        let runs = &mut *self.runs();
        let at = runs.list.partition_point(|run| run.first < first);
        if let Some(run) = runs.list.get_mut(at).filter(|run| run.first == first) {
            run.batches = None;
        }
    }

    /// What a read needs, without touching the disk.
    pub(crate) fn plan(&self, from: Offset, limits: ReadLimits) -> Result<Planned, LogError> {
        // The end is read first: runs behind it may be there already, and are not looked at.
        let Bounds { earliest, end } = self.bounds();
        if from > end || from < earliest {
            return Err(LogError::OutOfRange { tp: self.tp, asked: from, earliest, end });
        }
        let mut plan = Plan { tp: self.tp, from, limits, parts: Vec::new() };
        let mut bytes = 0;
        let mut events = 0;
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        if from < end && runs.list.front().is_none_or(|run| from < run.first) {
            return Ok(Planned::Archive);
        }
        let start = runs.list.partition_point(|run| run.end <= from);
        for run in runs.list.range(start..).take_while(|run| run.first < end) {
            if !plan.parts.is_empty() && (bytes >= limits.bytes_max || events >= limits.events_max as u64) {
                break;
            }
            let part = match &run.batches {
                Some(batches) => Part::Memory(batches.clone()),
                None => Part::Disk(DiskRun { first: run.first, append_us: run.append_us, place: run.place }),
            };
            plan.parts.push(part);
            bytes += run.place.bytes;
            events += run.end - run.first.max(from);
        }
        Ok(Planned::Log(plan))
    }
}

/// Where the next events are.
#[derive(Debug)]
pub(crate) enum Planned {
    Log(Plan),
    /// In a file.
    Archive,
}

#[derive(Clone, Copy, Debug)]
struct DiskRun {
    first: Offset,
    append_us: TimestampUs,
    place: Place,
}

#[derive(Debug)]
enum Part {
    Memory(Vec<StoredBatch>),
    Disk(DiskRun),
}

/// What a read needs.
#[derive(Debug)]
pub(crate) struct Plan {
    tp: Tp,
    from: Offset,
    limits: ReadLimits,
    parts: Vec<Part>,
}

impl Plan {
    /// Whether carrying it out waits for the disk.
    pub(crate) fn needs_disk(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Disk(_)))
    }

    /// The first segment it reads.
    pub(crate) fn first_segment(&self) -> Option<u64> {
        self.parts.iter().find_map(|part| match part {
            Part::Disk(run) => Some(run.place.segment),
            Part::Memory(_) => None,
        })
    }

    /// Carries it out.
    pub(crate) fn run(self, files: &SegmentFiles) -> Result<Chunk, LogError> {
        let Self { tp, from, limits, parts } = self;
        let mut chunk = Chunk { batches: Vec::new(), next: from };
        let mut bytes = 0;
        let mut events = 0;
        let mut take = |batches: Vec<StoredBatch>| {
            for stored in batches {
                if stored.last() < from {
                    continue;
                }
                if !chunk.batches.is_empty() && (bytes >= limits.bytes_max || events >= limits.events_max) {
                    return;
                }
                let count = stored.batch.len();
                bytes += stored.batch.encoded_len() as u64;
                events += count - stored.offsets.rows_before(from, count);
                chunk.next = stored.last() + 1;
                chunk.batches.push(stored);
            }
        };
        let mut parts = parts.into_iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Memory(batches) => take(batches),
                Part::Disk(first) => {
                    // Runs that lie close together are read together.
                    let mut runs = vec![first];
                    let mut end = first.place.at + first.place.bytes;
                    while let Some(Part::Disk(next)) = parts.next_if(|part| {
                        matches!(part, Part::Disk(next) if next.place.segment == first.place.segment
                            && next.place.at <= end + READ_GAP_BYTES)
                    }) {
                        end = next.place.at + next.place.bytes;
                        runs.push(next);
                    }
                    for batches in read_runs(tp, &runs, files)? {
                        take(batches);
                    }
                }
            }
        }
        Ok(chunk)
    }
}

fn read_runs(tp: Tp, runs: &[DiskRun], files: &SegmentFiles) -> Result<Vec<Vec<StoredBatch>>, LogError> {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return Ok(Vec::new()) };
    let start = first.place.at;
    let end = last.place.at + last.place.bytes;
    let place = || format!("{} from byte {start} to {end}", segment_path(first.place.segment));
    let mut bytes = vec![0; (end - start) as usize];
    files
        .get(first.place.segment)
        .and_then(|file| read_exact_at(&*file, &mut bytes, start))
        .map_err(|source| LogError::Read { place: place(), source: Arc::new(source) })?;
    let bytes = Bytes::from(bytes);
    runs.iter()
        .map(|run| {
            let at = (run.place.at - start) as usize;
            let damaged = |what: String| LogError::Damaged { place: place(), what };
            let appends = frame::decode_appends(&bytes.slice(at..at + run.place.bytes as usize))
                .map_err(|error| damaged(error.to_string()))?;
            let mut expected = run.first;
            appends
                .into_iter()
                .map(|(found, offset, batch)| {
                    if found != tp || offset != expected {
                        let what = format!("events of {found} at {offset} where {tp} at {expected} was written");
                        return Err(damaged(what));
                    }
                    expected += batch.len() as u64;
                    Ok(StoredBatch { offsets: Offsets::From(offset), append_us: run.append_us, batch })
                })
                .collect()
        })
        .collect()
}

/// Segment files that are held open for readers.
const OPEN_SEGMENTS_MAX: usize = 64;

/// The segment files, opened when they are read.
pub(crate) struct SegmentFiles {
    fs: Arc<dyn Fs>,
    open: Mutex<VecDeque<(u64, Arc<dyn FsFile>)>>,
}

impl SegmentFiles {
    pub(crate) fn new(fs: Arc<dyn Fs>) -> Self {
        Self { fs, open: Mutex::default() }
    }

    /// The file of a segment. The one that was opened longest ago is closed for it if there are too many.
    fn get(&self, segment: u64) -> std::io::Result<Arc<dyn FsFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(number, _)| *number == segment) {
            return Ok(file.clone());
        }
        let file = self.fs.open(&segment_path(segment))?;
        if open.len() >= OPEN_SEGMENTS_MAX {
            open.pop_front();
        }
        open.push_back((segment, file.clone()));
        Ok(file)
    }

    /// Closes the files of segments before this one.
    pub(crate) fn forget(&self, kept: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|(segment, _)| *segment >= kept);
    }
}

/// The runs that are in memory, oldest first.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes_max: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    runs: VecDeque<HeldRun>,
}

#[derive(Debug)]
struct HeldRun {
    tail: Weak<PartitionTail>,
    first: Offset,
    bytes: u64,
}

impl Ring {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, held: Mutex::default() }
    }

    /// Adds a durable batch to its partition and keeps it in memory, letting go of older ones.
    pub(crate) fn push(
        &self,
        tail: &Arc<PartitionTail>,
        place: Place,
        offset: Offset,
        append_us: TimestampUs,
        batch: crate::batch::Batch,
    ) {
        let stored = StoredBatch { offsets: Offsets::From(offset), append_us, batch };
        let is_new_run = tail.push(offset, append_us, place, stored, true);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes += place.bytes;
        match held.runs.back_mut() {
            // Only the run that was pushed last can grow, because a run lies in one piece.
            Some(last) if !is_new_run => last.bytes += place.bytes,
            _ => held.runs.push_back(HeldRun { tail: Arc::downgrade(tail), first: offset, bytes: place.bytes }),
        }
        // The newest run stays, however large: somebody is about to read it.
        while held.bytes > self.bytes_max && held.runs.len() > 1 {
            let Some(oldest) = held.runs.pop_front() else { break };
            held.bytes -= oldest.bytes;
            if let Some(tail) = oldest.tail.upgrade() {
                tail.forget(oldest.first);
            }
        }
    }
}

/// Adds a batch that was found on the disk at start.
pub(crate) fn push_recovered(
    tail: &PartitionTail,
    place: Place,
    offset: Offset,
    append_us: TimestampUs,
    batch: crate::batch::Batch,
) {
    let stored = StoredBatch { offsets: Offsets::From(offset), append_us, batch };
    tail.push(offset, append_us, place, stored, false);
}

/// The place of an operation, given where its frame lies.
pub(crate) fn place_of(segment: u64, frame_at: u64, span: OpSpan) -> Place {
    Place { segment, at: frame_at + span.at, bytes: span.bytes }
}
