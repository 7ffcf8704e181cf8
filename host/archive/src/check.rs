//! Every file, byte by byte, against what the log says of it.

use crate::adopt::list_files;
use crate::decode::{OpenFile, footer_checksum};
use crate::error::{ArchiveError, io_error};
use crate::place;
use nodata_log::fs::Fs;
use nodata_log::{ArchiveFile, EmbeddedLog, Log, Offset, Topic, Tp};
use std::collections::BTreeMap;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub files: u64,
    pub file_bytes: u64,
    pub events: u64,
    pub problems: Vec<Problem>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the partition.
    pub place: String,
    pub what: String,
    /// Events of this topic and partition that cannot be read, as far as that is known: the first, and behind the last.
    pub lost: Option<(String, u32, Offset, Offset)>,
}

/// Checks all files of a store; `seen` is told after each, with how many there are.
pub fn check(fs: &dyn Fs, log: &EmbeddedLog, mut seen: impl FnMut(u64, u64)) -> Result<Checked, ArchiveError> {
    let mut found = BTreeMap::new();
    list_files(fs, place::DATA_DIR, &mut found)?;
    let mut checked = Checked::default();
    let mut known = 0;
    let mut all: Vec<(Topic, Tp, ArchiveFile)> = Vec::new();
    for topic in log.topics() {
        for tp in topic.partitions() {
            let archive = log.archive(tp)?;
            let mut next = archive.start;
            for file in archive.files.values() {
                // The first may begin before: retention removes whole files only.
                if file.base > next {
                    checked.problems.push(gap(&topic, tp, next, file.base));
                }
                next = next.max(file.end);
                all.push((topic.clone(), tp, file.clone()));
            }
            if next < archive.end {
                checked.problems.push(gap(&topic, tp, next, archive.end));
            }
        }
    }
    let count = all.len() as u64;
    for (topic, tp, file) in all {
        let path = place::path(topic.name.as_str(), tp.partition, file.append_min_us, file.base);
        found.remove(&path);
        known += 1;
        match check_file(fs, &path, &file) {
            Ok(()) => {
                checked.files += 1;
                checked.file_bytes += file.bytes;
                checked.events += file.rows;
            }
            Err(what) => {
                let lost = Some((topic.name.to_string(), tp.partition, file.base, file.end));
                checked.problems.push(Problem { place: path, what, lost });
            }
        }
        seen(known, count);
    }
    for path in found.into_keys() {
        let what = "it is not part of the store; whoever lists the folder reads it too".to_owned();
        checked.problems.push(Problem { place: path, what, lost: None });
    }
    Ok(checked)
}

fn gap(topic: &Topic, tp: Tp, from: Offset, to: Offset) -> Problem {
    let name = topic.name.to_string();
    Problem {
        place: format!("topic `{name}`, partition {}", tp.partition),
        what: format!("offsets {from} to {to} are in no file"),
        lost: Some((name, tp.partition, from, to)),
    }
}

fn check_file(fs: &dyn Fs, path: &str, known: &ArchiveFile) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let file = fs.open(path).map_err(io_error("open", path)).map_err(|error| text(&error))?;
    let bytes = file.size().map_err(|error| text(&error))?;
    if bytes < known.bytes {
        return Err(format!("it has {bytes} bytes, it had {}", known.bytes));
    }
    let found = footer_checksum(&*file, known.footer_at, known.bytes).map_err(|error| text(&error))?;
    if found != known.footer_crc {
        return Err(format!("its footer has the checksum {found:08x}, the log says {:08x}", known.footer_crc));
    }
    let opened = OpenFile::open(file, known.bytes).map_err(|error| text(&error))?;
    opened.check().map_err(|error| text(&error))?;
    if (opened.offsets(), opened.rows()) != (known.base..known.end, known.rows) {
        let (offsets, rows) = (opened.offsets(), opened.rows());
        return Err(format!(
            "it holds {rows} events at {offsets:?}, the log says {} at {:?}",
            known.rows,
            known.base..known.end
        ));
    }
    Ok(())
}
