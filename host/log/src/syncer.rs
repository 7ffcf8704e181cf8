//! Writes groups of transactions and syncs them: one sync for everyone who waits.
//!
//! While one group is on its way to the disk, the sequencer queues the next; there is no other delay. After the sync, and
//! in this order: the batches are put where readers look, the ends move, and whoever waits is told. A client that reads
//! straight after its ack therefore finds its own events.

use crate::embedded::Shared;
use crate::engine::AckLevel;
use crate::error::LogError;
use crate::event::TimestampUs;
use crate::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameContext, Group, Lsn, Op, OpSpan, Stamp};
use crate::fs::{FsFile, SyncSite, write_all_at};
use crate::limits::{FRAME_BYTES_MAX, GROUP_BYTES_MAX};
use crate::reclaim::SegmentUse;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, WAL_DIR, segment_path};
use crate::sequencer::Unit;
use crate::spares::Spare;
use crate::tail::{Place, place_of};
use std::io;
use std::sync::Arc;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing waits.
    Idle,
    /// A group is durable.
    Wrote,
    /// Something waits, and there is no space for it.
    Full,
}

pub(crate) struct Syncer {
    segment: Option<ActiveSegment>,
    next_segment: u64,
    epoch: u32,
    seed: u64,
    /// The end of the log.
    end_lsn: Lsn,
    last_wall_us: TimestampUs,
    /// Whether the last group was a mark.
    is_marked: bool,
    group: Group,
}

struct ActiveSegment {
    number: u64,
    base_lsn: Lsn,
    context: FrameContext,
    file: Arc<dyn FsFile>,
    bytes: u64,
    /// Bytes that are written, the header included.
    written: u64,
    /// Written with the first group.
    header: Option<SegmentHeader>,
}

impl ActiveSegment {
    fn left(&self) -> u64 {
        self.bytes - self.written
    }
}

/// Operations that share a frame, and where they lie.
struct FrameParts {
    ops: Vec<Op>,
    spans: Vec<OpSpan>,
    at: u64,
}

/// An operation that is durable, with its place.
pub(crate) struct DurableOp {
    pub(crate) op: Op,
    pub(crate) place: Place,
}

impl Syncer {
    pub(crate) fn new(next_segment: u64, epoch: u32, seed: u64, end_lsn: Lsn, last_wall_us: TimestampUs) -> Self {
        Self {
            segment: None,
            next_segment,
            epoch,
            seed,
            end_lsn,
            last_wall_us,
            is_marked: true,
            group: Group::default(),
        }
    }

    /// Begins the next segment in this file. It holds nothing before its first group is written.
    pub(crate) fn begin_segment(&mut self, shared: &Shared, spare: Spare) -> io::Result<()> {
        let number = match self.segment.take() {
            // Nothing was written to the last one: what came first did not fit. A segment that stays empty would look like
            // damage later, so this one takes its place and number.
            Some(ActiveSegment { number, file, bytes, header: Some(_), .. }) => {
                shared.spares.give_back(&segment_path(number), file, bytes)?;
                number
            }
            _ => self.next_segment,
        };
        let path = segment_path(number);
        shared.fs.rename(&spare.path, &path)?;
        shared.fs.sync_dir(WAL_DIR, SyncSite::SegmentName)?;
        let base_lsn = self.end_lsn.next_multiple_of(BLOCK_BYTES);
        let salt = xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), self.seed) as u32;
        let context = FrameContext { epoch: self.epoch, salt };
        let header = SegmentHeader {
            store_id: shared.store_id,
            segment: number,
            base_lsn,
            prev_end_lsn: self.end_lsn,
            context,
            created_us: shared.clock.now_us(),
            bytes: spare.bytes,
        };
        self.next_segment = number + 1;
        self.segment = Some(ActiveSegment {
            number,
            base_lsn,
            context,
            file: spare.file,
            bytes: spare.bytes,
            written: SEGMENT_HEADER_BYTES,
            header: Some(header),
        });
        shared.spares.note_active_left(self.left());
        shared.note_space();
        Ok(())
    }

    pub(crate) fn is_marked(&self) -> bool {
        self.is_marked
    }

    fn left(&self) -> u64 {
        self.segment.as_ref().map_or(0, ActiveSegment::left)
    }

    /// Writes what waits, as one group. An error is final: nobody knows what is on the disk.
    pub(crate) fn step(&mut self, shared: &Shared) -> io::Result<Step> {
        let taken = shared.sequencer().take_group(self.left().min(GROUP_BYTES_MAX));
        let units = match taken {
            Ok(units) if units.is_empty() => return Ok(Step::Idle),
            Ok(units) => units,
            Err(needed) if needed > self.left() => {
                let Some(spare) = shared.spares.take(needed + SEGMENT_HEADER_BYTES)? else {
                    shared.note_space();
                    return Ok(Step::Full);
                };
                self.begin_segment(shared, spare)?;
                return self.step(shared);
            }
            // Larger than a group should be, but alone.
            Err(needed) => shared.sequencer().take_group(needed).unwrap_or_default(),
        };
        self.write(shared, units)?;
        Ok(Step::Wrote)
    }

    /// Writes an empty group that says that the one before it is durable, so that damage to that one is noticed at the next
    /// start. Does nothing if the last group was one, or if there is no space on the disk.
    pub(crate) fn mark(&mut self, shared: &Shared) -> io::Result<()> {
        if self.is_marked {
            return Ok(());
        }
        if self.left() < BLOCK_BYTES {
            let Some(spare) = shared.spares.take(SEGMENT_HEADER_BYTES + BLOCK_BYTES)? else { return Ok(()) };
            self.begin_segment(shared, spare)?;
        }
        self.write(shared, Vec::new())?;
        self.is_marked = true;
        Ok(())
    }

    fn write(&mut self, shared: &Shared, units: Vec<Unit>) -> io::Result<()> {
        let Some(segment) = self.segment.as_mut() else {
            return Err(io::Error::other("the log has no segment"));
        };
        let wall_us = shared.clock.now_us().max(self.last_wall_us);
        self.last_wall_us = wall_us;
        let group_at = segment.written;
        let group_lsn = segment.base_lsn + (group_at - SEGMENT_HEADER_BYTES);
        let stamp = Stamp { context: segment.context, durable_lsn: self.end_lsn, wall_us };

        let mut waiters = Vec::with_capacity(units.len());
        self.group.clear();
        let mut frames = frames_of(units, &mut waiters);
        for frame in &mut frames {
            frame.at = group_at + self.group.len();
            let ops: Vec<&Op> = frame.ops.iter().collect();
            frame.spans = self.group.push_frame(&ops, group_lsn + self.group.len(), stamp);
        }
        self.group.finish(group_lsn, stamp);
        let bytes = self.group.len();

        let mut at = group_at;
        if let Some(header) = segment.header.take() {
            self.group.prepend(header.encode());
            at = 0;
        }
        write_all_at(&*segment.file, &mut self.group.slices(), at)?;
        segment.written += bytes;
        waiters.iter_mut().filter(|waiter| waiter.ack == AckLevel::Written).for_each(|waiter| waiter.tell(Ok(())));
        segment.file.sync_data(SyncSite::Group)?;

        self.end_lsn = group_lsn + bytes;
        self.is_marked = false;
        let number = segment.number;
        let left = segment.left();
        let written = SegmentUse { number, base_lsn: segment.base_lsn, bytes: segment.bytes, ..SegmentUse::default() };
        self.group.clear();
        let ops = frames.into_iter().flat_map(|frame| {
            let at = frame.at;
            frame
                .ops
                .into_iter()
                .zip(frame.spans)
                .map(move |(op, span)| DurableOp { op, place: place_of(number, at, span) })
        });
        shared.publish(ops.collect(), written, wall_us, self.end_lsn, bytes);
        shared.spares.note_active_left(left);
        shared.note_space();
        waiters.into_iter().for_each(|mut waiter| waiter.tell(Ok(())));
        Ok(())
    }
}

/// Who waits for a unit, and the room that is given back when it is done.
struct Waiter {
    ack: AckLevel,
    sender: Option<tokio::sync::oneshot::Sender<Result<(), LogError>>>,
    _room: Option<crate::engine::Room>,
}

impl Waiter {
    fn tell(&mut self, result: Result<(), LogError>) {
        if let Some(sender) = self.sender.take() {
            // Whoever stopped waiting does not want to know.
            let _ = sender.send(result);
        }
    }
}

/// Puts units into frames. Appends share a frame and are sorted by partition in it, so that a reader of one partition finds
/// its batches side by side and the index needs one entry for them; this makes atomicity coarser, never finer. A transaction
/// has a frame of its own, and the order of units is kept across it.
fn frames_of(units: Vec<Unit>, waiters: &mut Vec<Waiter>) -> Vec<FrameParts> {
    let mut frames: Vec<FrameParts> = Vec::new();
    let mut shared: Vec<Op> = Vec::new();
    let mut shared_bytes = FRAME_HEADER_BYTES as u64;
    let end_shared = |shared: &mut Vec<Op>, bytes: &mut u64, frames: &mut Vec<FrameParts>| {
        if shared.is_empty() {
            return;
        }
        let mut ops = std::mem::take(shared);
        ops.sort_by_key(|op| match op {
            Op::Append { tp, .. } => Some(*tp),
            _ => None,
        });
        frames.push(FrameParts { ops, spans: Vec::new(), at: 0 });
        *bytes = FRAME_HEADER_BYTES as u64;
    };
    for unit in units {
        waiters.push(Waiter { ack: unit.ack, sender: unit.waiter, _room: unit._room });
        if unit.ops.is_empty() {
            continue;
        }
        if unit.is_transaction {
            end_shared(&mut shared, &mut shared_bytes, &mut frames);
            frames.push(FrameParts { ops: unit.ops, spans: Vec::new(), at: 0 });
            continue;
        }
        if shared_bytes + unit.bytes > FRAME_BYTES_MAX {
            end_shared(&mut shared, &mut shared_bytes, &mut frames);
        }
        shared_bytes += unit.bytes;
        shared.extend(unit.ops);
    }
    end_shared(&mut shared, &mut shared_bytes, &mut frames);
    frames
}
