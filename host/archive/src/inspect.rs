//! One file, as it is: what can be read of it, whatever happened to it.

use crate::decode::{OpenFile, footer_checksum};
use crate::error::{ArchiveError, io_error};
use crate::flush::describe;
use crate::schema;
use nodata_log::fs::{Fs, FsFile, read_exact_at};
use nodata_log::{ArchiveFile, Ranges, Salvage, Topic};
use parquet::errors::ParquetError;
use std::sync::Arc;

/// What can be read of a file.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) groups: Vec<usize>,
}

pub(crate) enum Looked {
    Whole { file: ArchiveFile, offsets: Ranges, is_ahead: bool },
    Damaged { what: String, source: Option<Source>, offsets: Ranges },
}

/// A file that the log knows.
pub(crate) fn look_at(
    fs: &dyn Fs,
    path: &str,
    known: &ArchiveFile,
    salvage: &Salvage,
    topic: &Topic,
) -> Result<Looked, ArchiveError> {
    let file = fs.open(path).map_err(io_error("open", path))?;
    let bytes = file.size().map_err(io_error("read", path))?;
    let what = if bytes < known.bytes {
        format!("it has {bytes} bytes, it had {}", known.bytes)
    } else {
        match footer_checksum(&*file, known.footer_at, known.bytes) {
            Ok(found) if found == known.footer_crc => {
                let opened = OpenFile::open(file.clone(), known.bytes);
                let opened = opened.map_err(|source| ArchiveError::Unknown { path: path.to_owned(), source })?;
                let mut whole = look_into(&opened, false);
                if let (None, Err(error)) = (&whole.bad, opened.check_page_indexes()) {
                    let what = format!("its page indexes cannot be read: {error}");
                    whole.bad = Some((0, ParquetError::General(what)));
                }
                // One that grew, and of which the log was not told.
                let ahead = (bytes > known.bytes)
                    .then(|| look_strictly(&file, bytes, known, salvage, topic))
                    .flatten()
                    .filter(|(_, ahead)| ahead.bad.is_none());
                if let Some((opened, ahead)) = ahead {
                    let wrong = |source| ArchiveError::Parquet { path: path.to_owned(), source };
                    let crc = opened.footer_checksum().map_err(io_error("read", path))?;
                    let file = describe(&opened, crc, opened.raw_bytes()).map_err(wrong)?;
                    return Ok(Looked::Whole { file, offsets: ahead.offsets, is_ahead: true });
                }
                if bytes > known.bytes && whole.bad.is_none() {
                    // The server would read it as it was, and everyone else would find no footer at its end.
                    let what = format!("it has {bytes} bytes, and those behind {} cannot be read", known.bytes);
                    whole.bad = Some((0, ParquetError::General(what)));
                }
                return Ok(match whole.bad {
                    None => Looked::Whole { file: known.clone(), offsets: whole.offsets, is_ahead: false },
                    Some((at, error)) => {
                        let source = Source { path: path.to_owned(), bytes: known.bytes, groups: whole.good };
                        let what = format!("row group {at}: {error}");
                        Looked::Damaged { what, source: Some(source), offsets: whole.offsets }
                    }
                });
            }
            Ok(found) => format!("its footer has the checksum {found:08x}, the log says {:08x}", known.footer_crc),
            Err(error) => format!("its footer cannot be read: {error}"),
        }
    };
    // A file that grew has the footers of all that it was.
    let mut sizes = vec![known.bytes, bytes];
    sizes.extend(footers(&*file, bytes).into_iter().rev());
    for size in sizes.into_iter().filter(|size| *size <= bytes) {
        let Some((_, looked)) = look_strictly(&file, size, known, salvage, topic) else { continue };
        if looked.good.is_empty() {
            continue;
        }
        let source = Source { path: path.to_owned(), bytes: size, groups: looked.good };
        return Ok(Looked::Damaged { what, source: Some(source), offsets: looked.offsets });
    }
    Ok(Looked::Damaged { what, source: None, offsets: Ranges::default() })
}

/// What row groups hold.
struct Groups {
    good: Vec<usize>,
    bad: Option<(usize, ParquetError)>,
    offsets: Ranges,
}

fn look_into(opened: &OpenFile, decodes: bool) -> Groups {
    let mut groups = Groups { good: Vec::new(), bad: None, offsets: Ranges::default() };
    for at in 0..opened.row_groups() as usize {
        match opened.group_offsets(at, decodes) {
            Ok(offsets) => {
                groups.good.push(at);
                groups.offsets.extend(&offsets);
            }
            Err(error) => drop(groups.bad.get_or_insert((at, error))),
        }
    }
    groups
}

/// A version of a file whose footer nobody knows.
fn look_strictly(
    file: &Arc<dyn FsFile>,
    bytes: u64,
    known: &ArchiveFile,
    salvage: &Salvage,
    topic: &Topic,
) -> Option<(OpenFile, Groups)> {
    let opened = OpenFile::open_strictly(file.clone(), bytes).ok()?;
    let origin = opened.origin();
    let is_it = origin.store == schema::store_text(&salvage.store_id())
        && origin.topic_id == topic.id.0
        && origin.topic == topic.name.as_str()
        && origin.values == topic.config.values
        && origin.base_offset == known.base;
    let looked = look_into(&opened, true);
    is_it.then_some((opened, looked))
}

/// Where footers may end.
fn footers(file: &dyn FsFile, bytes: u64) -> Vec<u64> {
    let mut all = vec![0; bytes as usize];
    if read_exact_at(file, &mut all, 0).is_err() {
        return Vec::new();
    }
    let ends = all.windows(4).enumerate().filter(|(at, window)| *at > 8 && *window == b"PAR1");
    ends.map(|(at, _)| at as u64 + 4).collect()
}
