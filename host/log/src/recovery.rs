//! Start: read what is there, tell a torn tail from damage, and find out where everything is.
//!
//! A group that was being written when the power went may be there in part, in any part: that is a torn tail, nobody was
//! told that it is safe, and it is dropped. The same bytes can also be the last group that *was* acknowledged, gone bad on
//! the disk; that must never be dropped silently. What tells them apart is written down: every frame says how much of the
//! log was durable when it was built, the checkpoint says the same, and a little after the last group the log adds an empty
//! one that says it too. If anything that is readable says that what is not readable was durable, nothing is started.

use crate::checkpoint::{CHECKPOINT_FILE, Checkpoint, CheckpointError, Loaded, Mark};
use crate::engine::Clock;
use crate::error::OpenError;
use crate::event::TimestampUs;
use crate::frame::{BLOCK_BYTES, Frame, FrameContext, FrameError, Lsn, Op, align};
use crate::fs::{self, Fs, FsFile, SyncSite};
use crate::ids::{self, IdHash, RecentIds};
use crate::limits::IDS_MAX;
use crate::reclaim::{SegmentUse, Segments};
use crate::segment::{
    SEGMENT_HEADER_BYTES, SegmentHeader, SegmentStart, StoreId, WAL_DIR, segment_number, segment_path, spare_number,
    spare_path,
};
use crate::spares::Spare;
use crate::state::{Dirty, State};
use crate::tables::Tables;
use crate::tail::{PartitionTail, place_of, push_recovered};
use crate::topic::{Topic, TopicId, Tp};
use bytes::Bytes;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

const STORE_FILE: &str = "STORE";
const STORE_FORMAT: u32 = 1;
const LOCK_FILE: &str = "LOCK";

/// Names that this crate and its host may put into the root of a store.
const OWN_NAMES: [&str; 12] = [
    STORE_FILE,
    "STORE.tmp",
    LOCK_FILE,
    WAL_DIR,
    "meta.redb",
    "components",
    "cache",
    "data",
    "stage",
    "lost+found",
    "secrets.key",
    "secrets.new",
];

/// Everything a start found.
pub(crate) struct Recovered {
    pub(crate) lock: Box<dyn Send + Sync>,
    pub(crate) store_id: StoreId,
    pub(crate) state: State,
    pub(crate) dirty: Dirty,
    pub(crate) ids: RecentIds,
    pub(crate) tables: Tables,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tails: HashMap<Tp, Arc<PartitionTail>>,
    pub(crate) segments: Segments,
    pub(crate) start_lsn: Lsn,
    /// The end of the log; everything before it is durable.
    pub(crate) end_lsn: Lsn,
    pub(crate) checkpoint_lsn: Lsn,
    pub(crate) epoch: u32,
    pub(crate) next_segment: u64,
    pub(crate) last_wall_us: i64,
    pub(crate) spares: Vec<Spare>,
    pub(crate) next_spare: u64,
    pub(crate) report: RecoveryReport,
}

/// What a start found, for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The store was made by this start.
    pub is_new: bool,
    pub segments: u64,
    /// Bytes of log that were read.
    pub log_bytes: u64,
    /// Transactions that were applied because the checkpoint did not have them.
    pub replayed: u64,
    /// Bytes of a group that was being written when the last process ended. Nobody was told that they are safe.
    pub torn_bytes: u64,
    /// The checkpoint was made anew from the log, and why.
    pub checkpoint_rebuilt: Option<String>,
}

pub(crate) fn io_error(doing: &'static str, place: &str) -> impl FnOnce(io::Error) -> OpenError {
    let place = place.to_owned();
    move |source| OpenError::Io { doing, place, source }
}

/// Takes the store and reads all of it.
pub(crate) fn recover(fs: &dyn Fs, place: &str, seed: u64, clock: &dyn Clock) -> Result<Recovered, OpenError> {
    check_is_ours(fs, place)?;
    let lock = take_lock(fs, place)?;
    let (store_id, is_new) = open_store(fs, place, seed, clock)?;
    let mut report = RecoveryReport { is_new, ..RecoveryReport::default() };
    // One sync below covers both names, so a crash may have kept the file and lost the folder, while nothing was in it.
    fs.create_dir(WAL_DIR).map_err(io_error("create", WAL_DIR))?;
    let mut scan = Scan::read(fs, &store_id)?;

    let (checkpoint, loaded) = open_checkpoint(fs, &mut scan, &mut report)?;
    let (mark, state, remembered) = loaded.unwrap_or_default();
    scan.check_order()?;
    let mut replay = Replay {
        mark,
        state,
        dirty: Dirty::default(),
        ids: RecentIds::new(IDS_MAX),
        tables: Tables::default(),
        tails: HashMap::new(),
        segments: Segments::default(),
        last_wall_us: i64::MIN,
        replayed: 0,
    };
    for topic in replay.state.topics.values().cloned().collect::<Vec<_>>() {
        replay.add_tails(&topic);
    }
    for (topic, at_us, id) in remembered {
        replay.remember(topic, id, at_us);
    }

    let mut end_lsn = 0;
    let mut durable_lsn = mark.durable_lsn;
    let mut unused = Vec::new();
    for (at, segment) in scan.segments.iter().enumerate() {
        let file = fs.open(&segment.path).map_err(io_error("open", &segment.path))?;
        let bytes = segment.read(&*file)?;
        report.segments += 1;
        report.log_bytes += bytes.len() as u64;
        let next = scan.segments.get(at + 1);
        replay.segments.begin(SegmentUse {
            number: segment.header.segment,
            base_lsn: segment.header.base_lsn,
            bytes: segment.bytes,
            ..SegmentUse::default()
        });
        let found = read_frames(segment, &bytes, &mut replay)?;
        durable_lsn = durable_lsn.max(found.durable_lsn);
        end_lsn = found.end_lsn;
        match next {
            Some(next) if next.header.prev_end_lsn != found.end_lsn => {
                return Err(segment.damaged(found.end_lsn, next.header.prev_end_lsn, found.stopped));
            }
            Some(_) => {
                let used = align(segment.position(found.end_lsn), BLOCK_BYTES);
                if used < segment.bytes {
                    replay.segments.shorten(used);
                    unused.push((segment, used));
                }
            }
            None => {
                let later = find_later_frame(segment, &bytes, found.end_lsn);
                if let Some(later) = &later {
                    durable_lsn = durable_lsn.max(later.durable_lsn);
                }
                report.torn_bytes = torn_bytes(segment, &bytes, &found, later.as_ref());
                if durable_lsn > found.end_lsn {
                    return Err(segment.damaged(found.end_lsn, durable_lsn, found.stopped));
                }
                // A process that was killed leaves what it wrote in the page cache. It was read here, so it becomes part of
                // the log, and must be as durable as everything else before anyone sees it or anything is built on it.
                file.sync_data(SyncSite::Found).map_err(io_error("sync", &segment.path))?;
            }
        }
    }
    if durable_lsn > end_lsn {
        let what = "the segments of the log that hold it are missing".to_owned();
        return Err(OpenError::Damaged { file: format!("{place}/{WAL_DIR}"), from: end_lsn, to: durable_lsn, what });
    }

    // From here on the store starts.
    for fix in &scan.fixes {
        fix.apply(fs)?;
    }
    let checkpoint = match checkpoint {
        Some(checkpoint) => checkpoint,
        None => Checkpoint::open(fs).map_err(|error| match error {
            CheckpointError::Io(source) => io_error("write", CHECKPOINT_FILE)(source),
            other => checkpoint_error(other.to_string()),
        })?,
    };
    fs.sync_dir("", SyncSite::StoreName).map_err(io_error("sync", place))?;
    // Segments that have a successor are never written again. They give back what they did not use, now that the successor
    // is certain to stay.
    for (segment, used) in unused {
        let file = fs.open(&segment.path).map_err(io_error("open", &segment.path))?;
        file.set_size(used).map_err(io_error("shorten", &segment.path))?;
    }

    let Replay { state, dirty, ids, tables, tails, segments, last_wall_us, replayed, .. } = replay;
    report.replayed = replayed;
    for (tp, tail) in &tails {
        tail.set_end(state.end(*tp));
        if let Some(archive) = state.archives.get(tp) {
            tail.set_archive(archive.start, archive.end);
        }
    }
    Ok(Recovered {
        lock,
        store_id,
        state,
        dirty,
        ids,
        tables,
        checkpoint,
        tails,
        segments,
        start_lsn: mark.start_lsn,
        end_lsn,
        checkpoint_lsn: mark.applied_lsn,
        epoch: scan.segments.iter().map(|segment| segment.header.context.epoch).fold(mark.epoch, u32::max),
        next_segment: scan.segments.last().map_or(1, |segment| segment.header.segment + 1),
        last_wall_us,
        spares: scan.spares,
        next_spare: scan.next_spare,
        report,
    })
}

/// Takes the store for this process.
pub(crate) fn take_lock(fs: &dyn Fs, place: &str) -> Result<Box<dyn Send + Sync>, OpenError> {
    fs.lock(LOCK_FILE).map_err(|source| {
        if source.kind() == io::ErrorKind::WouldBlock {
            let holder = fs::read_file(fs, LOCK_FILE).unwrap_or_default();
            let holder = String::from_utf8_lossy(&holder).trim().to_owned();
            OpenError::InUse { place: place.to_owned(), holder }
        } else {
            OpenError::Io { doing: "lock", place: format!("{place}/{LOCK_FILE}"), source }
        }
    })
}

/// A directory with other things in it is most likely a mistake.
fn check_is_ours(fs: &dyn Fs, place: &str) -> Result<(), OpenError> {
    let entries = fs.list("").map_err(io_error("list", place))?;
    let has_store = entries.iter().any(|entry| entry.name == STORE_FILE);
    if !has_store && entries.iter().any(|entry| !OWN_NAMES.contains(&entry.name.as_str())) {
        return Err(OpenError::NotAStore { place: place.to_owned() });
    }
    Ok(())
}

/// Reads the file that names the store; `None` if there is none, and no log either.
pub(crate) fn read_store(fs: &dyn Fs, place: &str) -> Result<Option<StoreId>, OpenError> {
    match fs::read_file(fs, STORE_FILE) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let foreign = |found: &str| OpenError::Format {
                place: place.to_owned(),
                found: found.to_owned(),
                known: STORE_FORMAT,
            };
            let format = field("format ").ok_or_else(|| foreign("unknown"))?;
            if format != STORE_FORMAT.to_string() {
                return Err(foreign(format));
            }
            let id = field("id ").and_then(|id| u128::from_str_radix(id, 16).ok()).ok_or_else(|| foreign("unknown"))?;
            Ok(Some(id.to_be_bytes()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A log without its name is not a new store.
            let names = fs.list(WAL_DIR).unwrap_or_default();
            if let Some(segment) = names.iter().find(|entry| segment_number(&entry.name).is_some()) {
                return Err(OpenError::Damaged {
                    file: format!("{place}/{STORE_FILE}"),
                    from: 0,
                    to: 0,
                    what: format!("it is missing, but there is a log ({WAL_DIR}/{})", segment.name),
                });
            }
            Ok(None)
        }
        Err(source) => Err(OpenError::Io { doing: "read", place: format!("{place}/{STORE_FILE}"), source }),
    }
}

/// Reads the file that names the store, or makes the store.
fn open_store(fs: &dyn Fs, place: &str, seed: u64, clock: &dyn Clock) -> Result<(StoreId, bool), OpenError> {
    if let Some(id) = read_store(fs, place)? {
        return Ok((id, false));
    }
    let high = xxhash_rust::xxh3::xxh3_64_with_seed(&clock.now_us().to_le_bytes(), seed);
    let low = xxhash_rust::xxh3::xxh3_64_with_seed(&high.to_le_bytes(), seed);
    let id = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    let text = format!("nodata store\nformat {STORE_FORMAT}\nid {:032x}\n", u128::from_be_bytes(id));
    let written = fs::write_unnamed_file(fs, "", STORE_FILE, text.as_bytes(), SyncSite::StoreFile);
    written.map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull => OpenError::DiskFull { place: place.to_owned(), bytes: text.len() as u64 },
        _ => OpenError::Io { doing: "write", place: format!("{place}/{STORE_FILE}"), source },
    })?;
    Ok((id, true))
}

fn checkpoint_error(what: String) -> OpenError {
    OpenError::Checkpoint { file: CHECKPOINT_FILE.to_owned(), what }
}

/// Opens the checkpoint. One that cannot be used, or is not there, is made anew if the log has everything: `None`.
fn open_checkpoint(
    fs: &dyn Fs,
    scan: &mut Scan,
    report: &mut RecoveryReport,
) -> Result<(Option<Checkpoint>, Option<Loaded>), OpenError> {
    let starts_at_zero = scan.segments.first().is_none_or(|first| first.header.base_lsn == 0);
    let what = match Checkpoint::find(fs) {
        Ok(Some((checkpoint, Some(loaded)))) => {
            let mark = &loaded.0;
            scan.drop_before(mark.start_lsn);
            let first = scan.segments.first().map_or(mark.start_lsn, |first| first.header.base_lsn);
            if first != mark.start_lsn {
                let what = "the segments of the log that hold it are missing".to_owned();
                return Err(OpenError::Damaged { file: WAL_DIR.to_owned(), from: mark.start_lsn, to: first, what });
            }
            return Ok((Some(checkpoint), Some(loaded)));
        }
        Err(CheckpointError::Io(source)) => {
            return Err(OpenError::Io { doing: "read", place: CHECKPOINT_FILE.to_owned(), source });
        }
        Ok(None) if starts_at_zero => return Ok((None, None)),
        Ok(Some((checkpoint, None))) if starts_at_zero => return Ok((Some(checkpoint), None)),
        Ok(_) => "it is empty".to_owned(),
        Err(error) => error.to_string(),
    };
    if !starts_at_zero {
        return Err(checkpoint_error(what));
    }
    scan.fixes.push(Fix::Remove(CHECKPOINT_FILE.to_owned()));
    report.checkpoint_rebuilt = Some(what);
    Ok((None, None))
}

struct SegmentOnDisk {
    header: SegmentHeader,
    path: String,
    bytes: u64,
}

impl SegmentOnDisk {
    fn read(&self, file: &dyn FsFile) -> Result<Bytes, OpenError> {
        let mut bytes = vec![0; self.bytes as usize];
        fs::read_exact_at(file, &mut bytes, 0).map_err(io_error("read", &self.path))?;
        Ok(bytes.into())
    }

    /// Where in the file a place of the log is.
    fn position(&self, lsn: Lsn) -> u64 {
        // Of headers that contradict each other, too.
        SEGMENT_HEADER_BYTES.saturating_add(lsn.saturating_sub(self.header.base_lsn))
    }

    fn damaged(&self, from: Lsn, to: Lsn, why: FrameError) -> OpenError {
        if let FrameError::UnknownOp { .. } = why {
            return OpenError::Newer { file: self.path.clone(), source: why };
        }
        let end = self.position(to.max(from)).min(self.bytes.max(self.position(from)));
        OpenError::Damaged { file: self.path.clone(), from: self.position(from), to: end, what: why.to_string() }
    }
}

/// Which files there are.
struct Scan {
    segments: Vec<SegmentOnDisk>,
    spares: Vec<Spare>,
    next_spare: u64,
    /// What is to be done about others, once it is certain that the store starts: one that is refused stays as it is.
    fixes: Vec<Fix>,
}

/// A file that is not where it should be.
enum Fix {
    Rename(String, String),
    Remove(String),
}

impl Fix {
    fn apply(&self, fs: &dyn Fs) -> Result<(), OpenError> {
        match self {
            Fix::Rename(from, to) => fs.rename(from, to).map_err(io_error("rename", from)),
            Fix::Remove(path) => fs.remove(path).map_err(io_error("remove", path)),
        }
    }
}

impl Scan {
    fn read(fs: &dyn Fs, store_id: &StoreId) -> Result<Self, OpenError> {
        let mut entries = fs.list(WAL_DIR).map_err(io_error("list", WAL_DIR))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut scan = Scan { segments: Vec::new(), spares: Vec::new(), next_spare: 0, fixes: Vec::new() };
        for entry in &entries {
            let Some(spare) = spare_number(&entry.name) else { continue };
            scan.next_spare = scan.next_spare.max(spare.saturating_add(1));
            let path = spare_path(spare);
            let file = fs.open(&path).map_err(io_error("open", &path))?;
            let mut block = vec![0; SEGMENT_HEADER_BYTES.min(entry.bytes) as usize];
            fs::read_exact_at(&*file, &mut block, 0).map_err(io_error("read", &path))?;
            // Until its first group is written, a segment begins with what the spare began with. That must be something that the
            // next start takes for a segment that was not used: one with the header of an older nodata is of no use.
            let is_ours = !matches!(
                SegmentHeader::decode(&block, u64::MAX, store_id),
                SegmentStart::Foreign(_) | SegmentStart::Damaged(_)
            );
            scan.spares.push(Spare { path, bytes: if is_ours { entry.bytes } else { 0 }, file });
        }
        let numbers: Vec<(u64, u64)> =
            entries.iter().filter_map(|entry| Some((segment_number(&entry.name)?, entry.bytes))).collect();
        for (at, &(segment, bytes)) in numbers.iter().enumerate() {
            let path = segment_path(segment);
            let is_last = at + 1 == numbers.len();
            let file = fs.open(&path).map_err(io_error("open", &path))?;
            let mut block = vec![0; SEGMENT_HEADER_BYTES.min(bytes) as usize];
            fs::read_exact_at(&*file, &mut block, 0).map_err(io_error("read", &path))?;
            let damaged = |what: &str| OpenError::Damaged {
                file: path.clone(),
                from: 0,
                to: SEGMENT_HEADER_BYTES,
                what: what.to_owned(),
            };
            let header = match SegmentHeader::decode(&block, segment, store_id) {
                SegmentStart::Header(header) if header.is_reachable() => header,
                SegmentStart::Header(_) => return Err(damaged("its numbers are beyond what a log can come to")),
                // The power went between naming it and writing to it. Nobody was told about anything in it. One that was a
                // segment before still has the header that it had.
                SegmentStart::Unused | SegmentStart::Other if is_last => {
                    let before = scan.segments.last().map_or(0, |last| last.header.segment);
                    if before + 1 != segment {
                        let what = "it is missing, but the one after it was begun".to_owned();
                        return Err(OpenError::Damaged { file: segment_path(before + 1), from: 0, to: bytes, what });
                    }
                    let spare = spare_path(scan.next_spare);
                    scan.next_spare += 1;
                    scan.fixes.push(Fix::Rename(path, spare.clone()));
                    scan.spares.push(Spare { path: spare, bytes, file });
                    continue;
                }
                SegmentStart::Other => return Err(damaged("it was renamed")),
                SegmentStart::Unused => return Err(damaged("it is empty, but there is a later one")),
                // The name of the last one may be durable before its size is.
                SegmentStart::Damaged(_)
                    if is_last && bytes < SEGMENT_HEADER_BYTES && block.iter().all(|&b| b == 0) =>
                {
                    scan.fixes.push(Fix::Remove(path));
                    continue;
                }
                SegmentStart::Foreign(what) | SegmentStart::Damaged(what) => return Err(damaged(what)),
            };
            scan.segments.push(SegmentOnDisk { header, path, bytes });
        }
        if let Some(last) = scan.segments.last().filter(|last| last.bytes < last.header.bytes) {
            let what = format!("the file has {} bytes, it had {}", last.bytes, last.header.bytes);
            let file = last.path.clone();
            return Err(OpenError::Damaged { file, from: last.bytes, to: last.header.bytes, what });
        }
        Ok(scan)
    }

    /// Leaves out the segments before the beginning of the log: they were let go of, and a crash brought some of them back.
    fn drop_before(&mut self, start_lsn: Lsn) {
        let gone = self.segments.partition_point(|segment| segment.header.base_lsn < start_lsn);
        self.fixes.extend(self.segments.drain(..gone).map(|segment| Fix::Remove(segment.path)));
    }

    /// Each segment follows the one before it.
    fn check_order(&self) -> Result<(), OpenError> {
        for pair in self.segments.windows(2) {
            let (previous, next) = (&pair[0], &pair[1]);
            let number = previous.header.segment + 1;
            if number != next.header.segment || previous.header.base_lsn > next.header.prev_end_lsn {
                let what = format!("it does not follow {}", previous.path);
                return Err(OpenError::Damaged { file: segment_path(number), from: 0, to: next.bytes, what });
            }
        }
        Ok(())
    }
}

/// What the log adds up to.
struct Replay {
    mark: Mark,
    state: State,
    dirty: Dirty,
    ids: RecentIds,
    tables: Tables,
    tails: HashMap<Tp, Arc<PartitionTail>>,
    segments: Segments,
    last_wall_us: i64,
    replayed: u64,
}

impl Replay {
    fn add_tails(&mut self, topic: &Topic) {
        for tp in topic.partitions() {
            self.tails.entry(tp).or_insert_with(|| PartitionTail::new(tp, 0));
        }
    }

    fn remember(&mut self, topic: TopicId, id: IdHash, at_us: TimestampUs) {
        let window_us = self.state.topics.get(&topic).and_then(|topic| topic.config.deduplicate_us);
        if let Some(window_us) = window_us {
            self.ids.add(topic, id, at_us, at_us.saturating_sub_unsigned(window_us));
        }
    }

    /// Applies a frame, or says why it cannot be one of this log.
    fn apply(&mut self, frame: Frame, segment: u64, frame_at: u64) -> Result<(), String> {
        let is_new = frame.lsn >= self.mark.applied_lsn;
        self.replayed += u64::from(is_new && !frame.ops.is_empty());
        self.last_wall_us = self.last_wall_us.max(frame.wall_us);
        for (op, span) in frame.ops {
            if is_new {
                if let Some(what) = self.state.contradiction(&op) {
                    return Err(what);
                }
                let ids = ids::timed(&op, frame.wall_us);
                self.dirty.note(&op, &self.state, &ids);
                match &op {
                    Op::Append { tp, .. } => ids.iter().for_each(|(at_us, id)| self.remember(tp.topic, *id, *at_us)),
                    Op::TopicDelete(topic) => self.ids.forget_topic(*topic),
                    _ => {}
                }
                if let Some(forgotten) = self.state.apply(&op) {
                    self.dirty.producers.insert(forgotten);
                }
            }
            match op {
                // Of topics that were deleted later, only what the checkpoint does not know about yet is here.
                Op::Append { tp, base_offset, batch } => {
                    if let Some(tail) = self.tails.get(&tp) {
                        self.segments.note(tp, base_offset + batch.len() as u64);
                        push_recovered(tail, place_of(segment, frame_at, span), base_offset, frame.wall_us, batch);
                    }
                }
                Op::TopicPut(topic) if is_new => self.add_tails(&topic),
                Op::TopicDelete(topic) => self.tails.retain(|tp, _| tp.topic != topic),
                Op::State { task, change } if is_new => self.tables.apply(task, &change),
                Op::TaskReset { task, forget, .. } if is_new => self.tables.forget(task, &forget),
                Op::OwnerForget(owner) if is_new => self.tables.forget_owner(owner),
                _ => {}
            }
        }
        Ok(())
    }
}

struct Frames {
    /// Where the readable part ends.
    end_lsn: Lsn,
    /// What the frames say was durable.
    durable_lsn: Lsn,
    /// Why it ends there.
    stopped: FrameError,
    ends_a_group: bool,
}

/// Reads frames until there is none.
fn read_frames(segment: &SegmentOnDisk, bytes: &Bytes, replay: &mut Replay) -> Result<Frames, OpenError> {
    let mut lsn = segment.header.base_lsn;
    let mut durable_lsn = segment.header.prev_end_lsn;
    let mut ends_a_group = true;
    loop {
        let position = segment.position(lsn);
        let rest = bytes.slice((position as usize).min(bytes.len())..);
        match Frame::decode(&rest, segment.header.context, lsn) {
            Ok(frame) => {
                durable_lsn = durable_lsn.max(frame.durable_lsn);
                ends_a_group = frame.is_group_end;
                let from = lsn;
                lsn += frame.bytes;
                replay.apply(frame, segment.header.segment, position).map_err(|what| OpenError::Damaged {
                    file: segment.path.clone(),
                    from,
                    to: lsn,
                    what: format!("it contradicts what comes before it: {what}"),
                })?;
            }
            Err(error @ FrameError::UnknownOp { .. }) => {
                return Err(OpenError::Newer { file: segment.path.clone(), source: error });
            }
            Err(stopped) => return Ok(Frames { end_lsn: lsn, durable_lsn, stopped, ends_a_group }),
        }
    }
}

/// Any readable frame behind the place where reading stopped. Groups begin at blocks, so only those are tried.
fn find_later_frame(segment: &SegmentOnDisk, bytes: &Bytes, end_lsn: Lsn) -> Option<Frame> {
    let context: FrameContext = segment.header.context;
    let mut position = align(segment.position(end_lsn) + 1, BLOCK_BYTES);
    let mut latest: Option<Frame> = None;
    while position < bytes.len() as u64 {
        let lsn = segment.header.base_lsn + (position - SEGMENT_HEADER_BYTES);
        if let Ok(frame) = Frame::decode(&bytes.slice(position as usize..), context, lsn) {
            position = align(position + frame.bytes, BLOCK_BYTES);
            latest = Some(frame);
        } else {
            position += BLOCK_BYTES;
        }
    }
    latest
}

/// How much of an unfinished group there is, for the report. What an earlier use of the file left behind does not count: only
/// a frame that can be read, or one that says that it belongs here.
fn torn_bytes(segment: &SegmentOnDisk, bytes: &Bytes, found: &Frames, later: Option<&Frame>) -> u64 {
    let from = segment.position(found.end_lsn);
    let begun = match found.stopped {
        FrameError::Magic | FrameError::Foreign => 0,
        _ => bytes
            .get(from as usize + 4..from as usize + 8)
            .map_or(0, |len| u64::from(u32::from_le_bytes([len[0], len[1], len[2], len[3]]))),
    };
    let later = later.map_or(0, |frame| segment.position(frame.lsn) + frame.bytes - from);
    let begun = begun.min((bytes.len() as u64).saturating_sub(from));
    if found.ends_a_group { begun.max(later) } else { begun.max(later).max(1) }
}
