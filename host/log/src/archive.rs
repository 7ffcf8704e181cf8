//! What the log knows of the files that hold its older events, and the seam behind which they are read.
//!
//! The files are made, read and removed elsewhere. Which of them count is decided here, in the order of the log: a file is
//! part of the store from the moment at which its commit is durable.

use crate::codec::{Put as _, Take};
use crate::engine::{BoxFuture, Chunk, ReadLimits};
use crate::error::LogError;
use crate::event::TimestampUs;
use crate::ranges::Ranges;
use crate::topic::{Offset, Topic, Tp};
use std::collections::BTreeMap;

/// A file of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveFile {
    /// The offset of its first event; names the file.
    pub base: Offset,
    /// After its last event.
    pub end: Offset,
    pub rows: u64,
    /// Of the file.
    pub bytes: u64,
    /// Of the events: ids, keys, values and headers.
    pub payload_bytes: u64,
    pub row_groups: u32,
    /// It does not grow any more.
    pub is_sealed: bool,
    pub timestamp_min_us: TimestampUs,
    pub timestamp_max_us: TimestampUs,
    /// When its first event was appended; decides its folder.
    pub append_min_us: TimestampUs,
    pub append_max_us: TimestampUs,
    /// Where the page indexes and the footer begin, and their checksum (CRC-32C).
    pub footer_at: u64,
    pub footer_crc: u32,
}

impl ArchiveFile {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(104);
        for value in [self.base, self.end, self.rows, self.bytes, self.payload_bytes, self.footer_at] {
            out.put_u64(value);
        }
        for time in [self.timestamp_min_us, self.timestamp_max_us, self.append_min_us, self.append_max_us] {
            out.put_u64(time as u64);
        }
        for value in [self.row_groups, u32::from(self.is_sealed), self.footer_crc] {
            out.put_u32(value);
        }
        out
    }

    pub(crate) fn decode(take: &mut Take) -> Option<Self> {
        let [base, end, rows, bytes, payload_bytes, footer_at] = [(); 6].map(|()| take.u64());
        let [timestamp_min_us, timestamp_max_us, append_min_us, append_max_us] = [(); 4].map(|()| take.u64());
        let [row_groups, is_sealed, footer_crc] = [(); 3].map(|()| take.u32());
        Some(Self {
            base: base?,
            end: end?,
            rows: rows?,
            bytes: bytes?,
            payload_bytes: payload_bytes?,
            row_groups: row_groups?,
            is_sealed: is_sealed? != 0,
            timestamp_min_us: timestamp_min_us? as i64,
            timestamp_max_us: timestamp_max_us? as i64,
            append_min_us: append_min_us? as i64,
            append_max_us: append_max_us? as i64,
            footer_at: footer_at?,
            footer_crc: footer_crc?,
        })
    }
}

/// The files of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionArchive {
    /// The earliest offset that is still there: what comes before was removed.
    pub start: Offset,
    /// Everything before this is in a file, or was.
    pub end: Offset,
    /// By their first offset. Only the last one may grow.
    pub files: BTreeMap<Offset, ArchiveFile>,
    /// What a repair of the store could not find any more: reading passes over it.
    pub lost: Ranges,
}

impl PartitionArchive {
    /// The file that grows.
    pub fn open_file(&self) -> Option<&ArchiveFile> {
        self.files.last_key_value().map(|(_, file)| file).filter(|file| !file.is_sealed)
    }

    /// The file that holds the first event from this offset on.
    pub fn file_from(&self, offset: Offset) -> Option<&ArchiveFile> {
        let holds = self.files.range(..=offset).next_back().map(|(_, file)| file).filter(|file| offset < file.end);
        holds.or_else(|| self.files.range(offset..).next().map(|(_, file)| file))
    }

    /// Why this file cannot be the next version of the archive; `end` is the end of the partition.
    pub(crate) fn check(&self, file: &ArchiveFile, end: Offset) -> Result<(), &'static str> {
        if file.end <= file.base || file.end > end {
            return Err("it ends before it begins, or behind the end of the partition");
        }
        match self.files.get(&file.base) {
            Some(known) if known.is_sealed => Err("a file of this name is there and does not grow any more"),
            Some(known) if file.end < known.end => Err("it ends before the file whose place it takes"),
            Some(_) if self.open_file().is_some_and(|open| open.base == file.base) => Ok(()),
            Some(_) => Err("only the last file grows"),
            None if file.base < self.end => Err("it begins before the end of the last file"),
            None => Ok(()),
        }
    }

    /// A file as it is from now on. What comes before it is sealed.
    pub(crate) fn commit(&mut self, file: ArchiveFile) {
        for (_, earlier) in self.files.range_mut(..file.base) {
            earlier.is_sealed = true;
        }
        self.end = self.end.max(file.end);
        self.files.insert(file.base, file);
    }

    /// Removes what ends before an offset, and answers with it.
    pub(crate) fn trim(&mut self, to: Offset) -> Vec<ArchiveFile> {
        self.start = self.start.max(to);
        self.end = self.end.max(to);
        self.lost.remove(0..to);
        let gone: Vec<Offset> = self.files.values().take_while(|file| file.end <= to).map(|file| file.base).collect();
        gone.iter().filter_map(|base| self.files.remove(base)).collect()
    }
}

/// Events of a partition that are in no file yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unarchived {
    pub tp: Tp,
    /// Bytes in the log.
    pub bytes: u64,
    /// When the first of them was appended.
    pub oldest_us: TimestampUs,
}

/// Reads files.
pub trait ArchiveReader: Send + Sync + 'static {
    /// Events of a file from an offset on, of which the file has at least one.
    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        partition: u32,
        file: &'a ArchiveFile,
        from: Offset,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Chunk, LogError>>;

    /// The first offset, from `from` on, of an event of a file that is not older than a time.
    fn offset_at<'a>(
        &'a self,
        topic: &'a Topic,
        partition: u32,
        file: &'a ArchiveFile,
        from: Offset,
        time_us: TimestampUs,
    ) -> BoxFuture<'a, Result<Option<Offset>, LogError>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn file(base: Offset, end: Offset, is_sealed: bool) -> ArchiveFile {
        ArchiveFile {
            base,
            end,
            rows: end - base,
            bytes: 1000,
            payload_bytes: 2000,
            row_groups: 3,
            is_sealed,
            timestamp_min_us: -4,
            timestamp_max_us: 5,
            append_min_us: 6,
            append_max_us: 7,
            footer_at: 900,
            footer_crc: 0xdead_beef,
        }
    }

    #[test]
    fn a_file_comes_back() {
        let whole = file(3, 9, true);
        let bytes = Bytes::from(whole.encode());
        assert_eq!(ArchiveFile::decode(&mut Take::new(bytes.clone())), Some(whole));
        assert_eq!(ArchiveFile::decode(&mut Take::new(bytes.slice(..bytes.len() - 1))), None);
    }

    #[test]
    fn files_follow_each_other_and_only_the_last_one_grows() {
        let mut archive = PartitionArchive::default();
        let refused = |archive: &PartitionArchive, file: ArchiveFile| archive.check(&file, 100).is_err();
        assert!(refused(&archive, file(5, 5, false)) && refused(&archive, file(5, 101, false)));
        archive.commit(file(0, 10, false));
        assert!(refused(&archive, file(9, 20, false)) && refused(&archive, file(0, 9, false)));
        assert_eq!(archive.check(&file(0, 20, false), 100), Ok(()));
        archive.commit(file(0, 20, false));
        assert_eq!(archive.open_file().map(|file| file.end), Some(20));
        archive.commit(file(22, 30, true));
        assert!(refused(&archive, file(0, 25, false)) && refused(&archive, file(22, 40, true)));
        assert_eq!(archive.open_file(), None);
        let found: Vec<_> = [0, 19, 20, 22, 29, 30].map(|at| archive.file_from(at).map(|file| file.base)).into();
        assert_eq!(found, [Some(0), Some(0), Some(22), Some(22), Some(22), None]);

        assert_eq!(archive.trim(19), []);
        assert_eq!(archive.trim(20).len(), 1);
        assert_eq!((archive.start, archive.end), (20, 30));
        archive.trim(50);
        assert_eq!((archive.start, archive.end, archive.files.len()), (50, 50, 0));
    }
}
