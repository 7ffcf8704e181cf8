//! Bytes as a file that is read.

use nodata_log::fs::{FsFile, SyncSite};
use std::io::{self, IoSlice};
use std::sync::Arc;

struct Disk(Vec<u8>);

/// A file that holds these bytes.
pub(crate) fn file(bytes: &[u8]) -> Arc<dyn FsFile> {
    Arc::new(Disk(bytes.to_vec()))
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl FsFile for Disk {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = self.0.get(at as usize..).unwrap_or_default();
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, _slices: &[IoSlice<'_>], _at: u64) -> io::Result<usize> {
        read_only()
    }

    fn sync_data(&self, _site: SyncSite) -> io::Result<()> {
        read_only()
    }

    fn set_size(&self, _bytes: u64) -> io::Result<()> {
        read_only()
    }

    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        read_only()
    }

    fn fill(&self, _at: u64, _bytes: u64) -> io::Result<()> {
        read_only()
    }
}
