//! A log that begins anew behind the old one.
//!
//! The events of the old one are in files by then, and a checkpoint holds the rest. One rename makes all of it true: before it,
//! the store is as it was, with a segment more; after it, what is left of the old log is not looked at any more.

use crate::archive::PartitionArchive;
use crate::checkpoint::{CHECKPOINT_FILE, Checkpoint, CheckpointError, Mark};
use crate::error::OpenError;
use crate::event::TimestampUs;
use crate::frame::{BLOCK_BYTES, FrameContext, Group, Stamp, align};
use crate::fs::{self, Fs, SyncSite};
use crate::recovery::io_error;
use crate::salvage::Salvage;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, WAL_DIR, segment_path};
use crate::state::Dirty;
use crate::topic::{Offset, Topic, Tp};
use std::sync::Arc;

impl Salvage {
    /// Begins the log anew behind the old one, with these files and these ends. What the old log holds must be in the files, and
    /// what is damaged must be kept elsewhere. A crash before the one rename leaves everything as it was.
    pub fn go_on(
        mut self,
        fs: &dyn Fs,
        archives: Vec<(Tp, PartitionArchive)>,
        now_us: TimestampUs,
    ) -> Result<(), OpenError> {
        self.state.archives = archives.into_iter().map(|(tp, archive)| (tp, Arc::new(archive))).collect();
        let partitions: Vec<Tp> = self.state.topics.values().flat_map(Topic::partitions).collect();
        self.state.archives.retain(|tp, _| partitions.contains(tp));
        let ends: Vec<(Tp, Offset)> = self.state.archives.iter().map(|(tp, archive)| (*tp, archive.end)).collect();
        ends.into_iter().for_each(|(tp, end)| self.raise_end(tp, end));
        let files = self.state.archives.values().flat_map(|archive| archive.files.values());
        self.wall_us = files.map(|file| file.append_max_us).fold(self.wall_us, TimestampUs::max);

        // Behind the segment there may be what is left of the old log after a crash, so it is a segment of that one too.
        let base_lsn = self.behind_lsn.next_multiple_of(BLOCK_BYTES);
        let salt = xxhash_rust::xxh3::xxh3_64_with_seed(&base_lsn.to_le_bytes(), now_us as u64) as u32;
        let context = FrameContext { epoch: self.epoch, salt };
        let mut group = Group::default();
        group.finish(base_lsn, Stamp { context, durable_lsn: base_lsn, wall_us: self.wall_us.max(0) });
        let bytes = align(group.len(), BLOCK_BYTES) + SEGMENT_HEADER_BYTES;
        let header = SegmentHeader {
            store_id: self.store_id,
            segment: self.next_segment,
            base_lsn,
            // If this is interrupted before the checkpoint has its name, what was damaged must look damaged still.
            prev_end_lsn: if self.has_loose_end { base_lsn } else { self.end_lsn },
            context,
            created_us: now_us,
            bytes,
        };
        let mut segment = header.encode();
        group.slices().iter().for_each(|slice| segment.extend_from_slice(slice));
        let path = segment_path(self.next_segment);
        let name = path.strip_prefix(WAL_DIR).and_then(|name| name.strip_prefix('/')).unwrap_or(&path);
        fs.create_dir(WAL_DIR).map_err(io_error("create", WAL_DIR))?;
        fs::write_unnamed_file(fs, WAL_DIR, name, &segment, SyncSite::Repaired).map_err(io_error("write", &path))?;
        fs.sync_dir(WAL_DIR, SyncSite::RepairedName).map_err(io_error("sync", WAL_DIR))?;
        fs.sync_dir("", SyncSite::RepairedName).map_err(io_error("sync", "the store"))?;

        let end_lsn = base_lsn + group.len();
        let mark = Mark {
            applied_lsn: end_lsn,
            durable_lsn: end_lsn,
            start_lsn: base_lsn,
            epoch: self.epoch,
            next_topic: self.state.next_topic,
            version: self.state.version,
        };
        let flush = self.tables.begin_flush();
        let everything = Dirty::all(&self.state, std::mem::take(&mut self.ids));
        let new = format!("{CHECKPOINT_FILE}.tmp");
        let written =
            Checkpoint::write_anew(fs, &new, mark, (&self.state, &everything), self.checkpoint.as_ref(), &flush);
        written.map_err(|error| match error {
            CheckpointError::Io(source) => OpenError::Io { doing: "write", place: new.clone(), source },
            other => OpenError::Checkpoint { file: new.clone(), what: other.to_string() },
        })?;
        fs.rename(&new, CHECKPOINT_FILE).map_err(io_error("name", CHECKPOINT_FILE))?;
        fs.sync_dir("", SyncSite::RepairedName).map_err(io_error("sync", "the store"))?;

        for path in &self.segments {
            fs::remove_if_there(fs, path).map_err(io_error("remove", path))?;
        }
        fs.sync_dir(WAL_DIR, SyncSite::RepairedName).map_err(io_error("sync", WAL_DIR))
    }
}
