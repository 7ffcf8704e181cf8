//! Makes a store whole again: what is damaged is kept elsewhere, what can be read is put into files, and the log goes on.
//!
//! The order of the steps is what makes it safe to be killed between any two of them. Whoever runs it again begins anew, and comes
//! to the same end:
//!
//! 1. copy what is damaged into `lost+found/`, and sync it. Nothing was changed yet;
//! 2. write each file anew in `stage/`, sync it, read it back, and give it its name, in the place of the damaged one;
//! 3. remove files of which nothing is left, which the log still knows: they are missing then;
//! 4. begin a new log, with a checkpoint that knows the files as they are now. The old log is needed until here.

use crate::decode::OpenFile;
use crate::encode::new_file;
use crate::error::{ArchiveError, io_error};
use crate::flush::{Flusher, describe};
use crate::inspect::Source;
use crate::limits::FLUSH_BYTES;
use crate::place::{self, DATA_DIR, STAGE_DIR};
use crate::survey::{PartitionPlan, PlannedFile, Survey};
use bytes::Bytes;
use jiff::Timestamp;
use nodata_log::fs::{Fs, SyncSite, copy_around};
use nodata_log::{
    ArchiveFile, BatchBuilder, Event, Offset, Offsets, PartitionArchive, Ranges, StoredBatch, TimestampUs,
};
use parquet::errors::ParquetError;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Where damaged things are kept.
pub const LOST_DIR: &str = "lost+found";

/// The name of the report among them.
const REPORT: &str = "report.txt";

impl Survey {
    /// The folder for what is damaged: named after the moment, and not there yet.
    pub fn folder(&self, fs: &dyn Fs, now_us: TimestampUs) -> Result<String, ArchiveError> {
        let taken: BTreeSet<String> = match fs.list(LOST_DIR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            entries => entries.map_err(io_error("list", LOST_DIR))?.into_iter().map(|entry| entry.name).collect(),
        };
        let second =
            Timestamp::from_microsecond(now_us - now_us.rem_euclid(1_000_000)).unwrap_or(Timestamp::UNIX_EPOCH);
        let name = second.to_string().replace(':', "-");
        let names = (1..).map(|nth| if nth == 1 { name.clone() } else { format!("{name}-{nth}") });
        let free = names.into_iter().find(|name| !taken.contains(name)).unwrap_or(name);
        Ok(format!("{LOST_DIR}/{free}"))
    }

    /// Does what there is to do. `folder` is for what is damaged, and `report` is kept with it.
    pub fn repair(self, fs: Arc<dyn Fs>, folder: &str, report: &str, now_us: TimestampUs) -> Result<(), ArchiveError> {
        keep(&*fs, folder, self.copied.iter().chain(&self.moved), report)?;
        for dir in [STAGE_DIR, DATA_DIR] {
            fs.create_dir(dir).map_err(io_error("create", dir))?;
        }
        fs.sync_dir("", SyncSite::ArchiveDir).map_err(io_error("sync", "the store"))?;
        let writer = Writer { flusher: Flusher::new(fs.clone(), self.salvage.store_id()), fs: &*fs, survey: &self };
        let mut archives = Vec::new();
        for plan in &self.partitions {
            archives.push((plan.tp, writer.partition(plan)?));
        }
        let names = |plan: &PartitionPlan, archive: &PartitionArchive| {
            let path = |file: &ArchiveFile| {
                place::path(plan.topic.name.as_str(), plan.tp.partition, file.append_min_us, file.base)
            };
            archive.files.values().map(path).collect::<Vec<_>>()
        };
        let named: BTreeSet<String> =
            self.partitions.iter().zip(&archives).flat_map(|(plan, (_, archive))| names(plan, archive)).collect();
        for path in self.moved.iter().filter(|path| !named.contains(*path)) {
            writer.flusher.remove_if_there(path)?;
            let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
            fs.sync_dir(dir, SyncSite::RepairedName).map_err(io_error("sync", dir))?;
        }
        Ok(self.salvage.go_on(&*fs, archives, now_us)?)
    }
}

/// Copies files into a folder, under the names that they have in the store.
fn keep<'a>(
    fs: &dyn Fs,
    folder: &str,
    paths: impl Iterator<Item = &'a String>,
    report: &str,
) -> Result<(), ArchiveError> {
    let mut dirs: BTreeSet<String> = BTreeSet::new();
    let mut copies: BTreeSet<(&str, String)> = BTreeSet::new();
    for path in paths {
        let to = format!("{folder}/{path}");
        dirs.extend(to.match_indices('/').map(|(at, _)| to[..at].to_owned()));
        copies.insert((path, to));
    }
    dirs.extend([LOST_DIR.to_owned(), folder.to_owned()]);
    // A folder comes before those in it, and nothing is in a folder whose name may be lost.
    for dir in &dirs {
        let around = dir.rsplit_once('/').map_or("", |(around, _)| around);
        fs.create_dir(dir).map_err(io_error("create", dir))?;
        fs.sync_dir(around, SyncSite::KeptName).map_err(io_error("sync", around))?;
    }
    for (path, to) in copies {
        copy_around(fs, path, &to, SyncSite::Kept).map_err(io_error("copy", path))?;
    }
    nodata_log::fs::write_file(fs, folder, REPORT, report.as_bytes()).map_err(io_error("write", folder))?;
    for dir in &dirs {
        fs.sync_dir(dir, SyncSite::KeptName).map_err(io_error("sync", dir))?;
    }
    Ok(())
}

struct Writer<'a> {
    fs: &'a dyn Fs,
    flusher: Flusher,
    survey: &'a Survey,
}

impl Writer<'_> {
    /// The files of a partition, as they are then.
    fn partition(&self, plan: &PartitionPlan) -> Result<PartitionArchive, ArchiveError> {
        let mut archive = PartitionArchive { start: plan.start, end: plan.end, ..PartitionArchive::default() };
        for file in &plan.files {
            let file = match file {
                PlannedFile::As(file) => file.clone(),
                PlannedFile::Again { base, offsets, from_file, source } => {
                    let mut events = Vec::new();
                    if let Some(source) = source {
                        events = self.read_source(source, from_file)?;
                    }
                    let mut from_log = offsets.clone();
                    from_log.remove_all(from_file);
                    for range in from_log.iter() {
                        let read = self.survey.salvage.read(self.fs, plan.tp, range.clone(), u64::MAX)?;
                        events.extend(read.iter().flat_map(|stored| cut(stored, &range.clone().into())));
                    }
                    events.sort_by_key(StoredBatch::first);
                    ArchiveFile { is_sealed: true, ..self.write(plan, *base, &events, offsets)? }
                }
            };
            archive.files.insert(file.base, file);
        }
        for range in plan.from_log.iter() {
            let mut next = range.start;
            while next < range.end {
                let file = self.next_of_log(plan, next, range.end)?;
                next = file.end;
                archive.files.insert(file.base, file);
            }
        }
        // Only the last one grows.
        let last = archive.files.last_key_value().map(|(base, _)| *base);
        for (base, file) in &mut archive.files {
            file.is_sealed |= Some(*base) != last;
        }
        archive.lost = plan.lost.clone();
        Ok(archive)
    }

    /// The next file of what is in the log only: events of one day, and not too many.
    fn next_of_log(&self, plan: &PartitionPlan, from: Offset, to: Offset) -> Result<ArchiveFile, ArchiveError> {
        let mut events: Vec<StoredBatch> = Vec::new();
        let read = self.survey.salvage.read(self.fs, plan.tp, from..to, FLUSH_BYTES)?;
        for stored in read.iter().flat_map(|stored| cut(stored, &(from..to).into())) {
            if events.first().is_some_and(|first| place::date(first.append_us) != place::date(stored.append_us)) {
                break;
            }
            events.push(stored);
        }
        let end = events.last().map_or(to, |last| last.last() + 1);
        self.write(plan, from, &events, &(from..end).into())
    }

    fn read_source(&self, source: &Source, wanted: &Ranges) -> Result<Vec<StoredBatch>, ArchiveError> {
        let Source { path, bytes, groups } = source;
        let wrong = |source| ArchiveError::Parquet { path: path.clone(), source };
        let file = self.fs.open(path).map_err(io_error("open", path))?;
        let opened = OpenFile::open_strictly(file.clone(), *bytes).map_err(wrong)?;
        let mut events = Vec::new();
        for at in groups {
            let read = opened.group_events(*at).map_err(wrong)?;
            events.extend(read.iter().flat_map(|stored| cut(stored, wanted)));
        }
        Ok(events)
    }

    /// Writes a file, and reads it back before it gets its name.
    fn write(
        &self,
        plan: &PartitionPlan,
        base: Offset,
        events: &[StoredBatch],
        offsets: &Ranges,
    ) -> Result<ArchiveFile, ArchiveError> {
        let first_us = events.first().map_or(0, |first| first.append_us);
        let path = place::path(plan.topic.name.as_str(), plan.tp.partition, first_us, base);
        let wrong = |source| ArchiveError::Parquet { path: path.clone(), source };
        let mut found = Ranges::default();
        for stored in events {
            found.insert(stored.first()..stored.last() + 1);
        }
        if found != *offsets {
            let what = format!("events were found at {found:?}, and expected at {offsets:?}");
            return Err(wrong(ParquetError::General(what)));
        }
        let origin = self.flusher.origin(&plan.topic, plan.tp, base);
        let bytes: Bytes = new_file(&origin, events).map_err(wrong)?.into();
        let mut read_back = None;
        self.flusher.name(&plan.topic, plan.tp.partition, first_us, base, &bytes, |file| {
            let opened = OpenFile::open_strictly(file.clone(), bytes.len() as u64).map_err(wrong)?;
            check_events(&opened, events).map_err(wrong)?;
            read_back = Some(opened);
            Ok(())
        })?;
        let opened = read_back.ok_or_else(|| wrong(ParquetError::General("it was not read back".to_owned())))?;
        let payload = events.iter().map(|stored| stored.batch.payload_bytes() as u64).sum();
        describe(&opened, crc32c::crc32c(&bytes[opened.data_bytes() as usize..]), payload).map_err(wrong)
    }
}

/// Whether a file holds exactly these events.
fn check_events(opened: &OpenFile, events: &[StoredBatch]) -> Result<(), ParquetError> {
    let mut expected = events.iter().flat_map(rows);
    for at in 0..opened.row_groups() as usize {
        for found in opened.group_events(at)?.iter().flat_map(rows) {
            if Some(&found) != expected.next().as_ref() {
                return Err(ParquetError::General(format!("offset {} reads differently than it was written", found.0)));
            }
        }
    }
    match expected.next() {
        None => Ok(()),
        Some((offset, ..)) => Err(ParquetError::General(format!("offset {offset} was not written"))),
    }
}

/// Each event with its offset, and when it was appended.
fn rows(stored: &StoredBatch) -> impl Iterator<Item = (Offset, TimestampUs, Event)> + '_ {
    let events = stored.batch.events().enumerate();
    events.map(|(row, event)| (stored.offsets.at(row), stored.append_us, event.to_event()))
}

/// The events of a batch at these offsets, as batches without gaps.
fn cut(stored: &StoredBatch, wanted: &Ranges) -> Vec<StoredBatch> {
    let rows = stored.batch.len();
    let is_dense = stored.last() - stored.first() == rows as u64 - 1;
    if is_dense && wanted.missing_from(stored.first()..stored.last() + 1).is_empty() {
        return vec![StoredBatch { offsets: Offsets::From(stored.first()), ..stored.clone() }];
    }
    let mut pieces: Vec<StoredBatch> = Vec::new();
    let mut open: Option<(Offset, BatchBuilder, Offset)> = None;
    let mut end = |open: Option<(Offset, BatchBuilder, Offset)>| {
        let Some((first, builder, _)) = open else { return };
        // What was a batch is one again.
        if let Ok(batch) = builder.finish() {
            pieces.push(StoredBatch { offsets: Offsets::From(first), append_us: stored.append_us, batch });
        }
    };
    for (row, event) in stored.batch.events().enumerate() {
        let offset = stored.offsets.at(row);
        if wanted.around(offset).is_none() {
            continue;
        }
        let follows = open.as_ref().is_some_and(|(_, _, next)| *next == offset);
        if !follows {
            end(open.take());
        }
        let (_, builder, next) = open.get_or_insert_with(|| (offset, BatchBuilder::new(event.timestamp_us), offset));
        builder.push_event(event);
        *next = offset + 1;
    }
    end(open);
    pieces
}
