//! At every start: what is on the disk, against what the log says is there.

use crate::decode::OpenFile;
use crate::error::{ArchiveError, io_error};
use crate::flush::{Flusher, describe};
use crate::place::{self, DATA_DIR, STAGE_DIR};
use nodata_log::fs::{Fs, SyncSite};
use nodata_log::{ArchiveFile, EmbeddedLog, Log, LogError, Topic, TopicId, Tp};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

/// What a start found.
#[derive(Debug, Default)]
pub struct Adoption {
    /// Files that were named before the log knew of them: to be committed.
    pub commits: Vec<(Tp, ArchiveFile)>,
    /// Files of topics that were deleted, or of events that were trimmed, which are removed now.
    pub removed: u64,
    /// What is not ours and stays as it is.
    pub foreign: Vec<String>,
}

/// Compares the files with the log. Nothing is changed but what the log says is gone.
pub(crate) fn adopt(fs: &dyn Fs, log: &EmbeddedLog, flusher: &Flusher) -> Result<Adoption, ArchiveError> {
    for dir in [STAGE_DIR, DATA_DIR] {
        fs.create_dir(dir).map_err(io_error("create", dir))?;
    }
    fs.sync_dir("", SyncSite::ArchiveDir).map_err(io_error("sync", "the data directory"))?;
    for entry in fs.list(STAGE_DIR).map_err(io_error("list", STAGE_DIR))? {
        let path = format!("{STAGE_DIR}/{}", entry.name);
        fs.remove(&path).map_err(io_error("remove", &path))?;
    }

    let mut adoption = Adoption::default();
    let mut found = BTreeMap::new();
    list_files(fs, DATA_DIR, &mut found)?;
    let topics: HashMap<TopicId, Topic> = log.topics().into_iter().map(|topic| (topic.id, topic)).collect();
    let mut known = HashSet::new();
    for topic in topics.values() {
        for tp in topic.partitions() {
            for file in log.archive(tp)?.files.values() {
                let path = place::path(topic.name.as_str(), tp.partition, file.append_min_us, file.base);
                let name = topic.name.to_string();
                let Some(&bytes) = found.get(&path) else {
                    let ArchiveFile { base: from, end: to, .. } = *file;
                    return Err(ArchiveError::Missing { path, topic: name, partition: tp.partition, from, to });
                };
                if bytes < file.bytes {
                    return Err(ArchiveError::Cut { path, found: bytes, expected: file.bytes });
                }
                if bytes == file.bytes {
                    known.insert(path);
                }
            }
        }
    }
    for (path, bytes) in found {
        if known.contains(&path) {
            continue;
        }
        let Some(opened) = open(fs, &path, bytes)? else {
            adoption.foreign.push(path);
            continue;
        };
        let origin = opened.origin().clone();
        let tp = Tp { topic: TopicId(origin.topic_id), partition: origin.partition };
        let topic = topics.get(&tp.topic).filter(|topic| topic.name.as_str() == origin.topic);
        let store = flusher.origin_store();
        if origin.store != store {
            adoption.foreign.push(path);
            continue;
        }
        let Some(topic) = topic.filter(|topic| tp.partition < topic.config.partitions) else {
            fs.remove(&path).map_err(io_error("remove", &path))?;
            adoption.removed += 1;
            continue;
        };
        let archive = log.archive(tp)?;
        let offsets = opened.offsets();
        if offsets.end <= archive.start {
            fs.remove(&path).map_err(io_error("remove", &path))?;
            adoption.removed += 1;
            continue;
        }
        let grows = archive.open_file().is_some_and(|open| open.base == offsets.start);
        let (from, to) = (offsets.start, offsets.end);
        if !grows && from < archive.end || to > log.bounds(tp)?.end {
            let (topic, partition) = (topic.name.to_string(), tp.partition);
            return Err(ArchiveError::Overlap { path, topic, partition, from, to });
        }
        let footer_crc = opened.footer_checksum().map_err(io_error("read", &path))?;
        let wrong = |source| ArchiveError::Parquet { path: path.clone(), source };
        opened.check().map_err(wrong)?;
        // How many bytes its events had is known to nobody any more; what they have as columns comes close.
        let described = describe(&opened, footer_crc, opened.raw_bytes()).map_err(wrong)?;
        // Its name may not be durable yet, and nobody may be told about it before it is.
        let dir = path.rsplit_once('/').map_or(DATA_DIR, |(dir, _)| dir);
        sync_parents(fs, dir)?;
        adoption.commits.push((tp, described));
    }
    Ok(adoption)
}

/// Removes the files of topics that are gone, in the folder of this name.
pub(crate) fn sweep(
    fs: &dyn Fs,
    log: &EmbeddedLog,
    flusher: &Flusher,
    name: &str,
) -> Result<Vec<String>, ArchiveError> {
    let mut found = BTreeMap::new();
    list_files(fs, &place::topic_dir(name), &mut found)?;
    let mut removed = Vec::new();
    for (path, bytes) in found {
        let Some(opened) = open(fs, &path, bytes)? else { continue };
        let origin = opened.origin();
        let is_gone = matches!(
            log.topic_by_id(TopicId(origin.topic_id)),
            Err(LogError::UnknownTopicId { .. } | LogError::UnknownTopic { .. })
        );
        if is_gone && origin.store == flusher.origin_store() {
            flusher.remove_if_there(&path)?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// `None`: nothing that nodata wrote.
fn open(fs: &dyn Fs, path: &str, bytes: u64) -> Result<Option<OpenFile>, ArchiveError> {
    if !path.ends_with(".parquet") {
        return Ok(None);
    }
    let file = fs.open(path).map_err(io_error("open", path))?;
    // Nobody knows the checksum of its footer.
    Ok(OpenFile::open_strictly(file, bytes).ok())
}

fn sync_parents(fs: &dyn Fs, dir: &str) -> Result<(), ArchiveError> {
    let mut dir = dir;
    loop {
        fs.sync_dir(dir, SyncSite::ArchiveName).map_err(io_error("sync", dir))?;
        match dir.rsplit_once('/') {
            Some((around, _)) => dir = around,
            None => return Ok(()),
        }
    }
}

/// Every file below a folder, with its size.
pub(crate) fn list_files(fs: &dyn Fs, dir: &str, found: &mut BTreeMap<String, u64>) -> Result<(), ArchiveError> {
    let entries = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io_error("list", dir))?,
    };
    for entry in entries {
        let path = format!("{dir}/{}", entry.name);
        if entry.is_dir {
            list_files(fs, &path, found)?;
        } else {
            found.insert(path, entry.bytes);
        }
    }
    Ok(())
}
