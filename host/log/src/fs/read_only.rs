//! A disk that is looked at and never changed.
//!
//! What reads a store also tidies it: it begins a segment, removes what is left over, repairs the checkpoint. Over this, all of
//! that happens in memory, so that a store can be checked with the code that starts it.

use super::{Entry, Fs, FsFile, SyncSite, read_file};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shows the files of another disk. Changes are seen by whoever made them, and by nobody else.
pub struct ReadOnlyFs {
    under: Arc<dyn Fs>,
    /// Files that are written to, as they would be.
    written: Mutex<HashMap<String, Arc<MemoryFile>>>,
    /// Files that are copied into memory when they are opened, because whoever opens them writes to them.
    copied: &'static [&'static str],
}

impl ReadOnlyFs {
    pub fn new(under: Arc<dyn Fs>) -> Self {
        Self { under, written: Mutex::default(), copied: &[crate::checkpoint::CHECKPOINT_FILE] }
    }

    fn written(&self) -> MutexGuard<'_, HashMap<String, Arc<MemoryFile>>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fs for ReadOnlyFs {
    fn lock(&self, path: &str) -> io::Result<Box<dyn Send + Sync>> {
        self.under.lock(path)
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn FsFile>> {
        if let Some(file) = self.written().get(path) {
            return Ok(file.clone());
        }
        if self.copied.contains(&path) {
            let file = Arc::new(MemoryFile(Mutex::new(read_file(&*self.under, path)?)));
            self.written().insert(path.to_owned(), file.clone());
            return Ok(file);
        }
        Ok(Arc::new(ReadOnlyFile(self.under.open(path)?)))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn FsFile>> {
        let file = Arc::new(MemoryFile::default());
        self.written().insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut written = self.written();
        if let Some(file) = written.remove(from) {
            written.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.written().remove(path);
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.under.list(dir)
    }

    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &str, _site: SyncSite) -> io::Result<()> {
        Ok(())
    }
}

/// A file of the disk. That it was written to is not believed by anyone who writes here, so writing is an error.
struct ReadOnlyFile(Arc<dyn FsFile>);

impl FsFile for ReadOnlyFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(out, at)
    }

    fn write_at(&self, _slices: &[IoSlice<'_>], _at: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self, _site: SyncSite) -> io::Result<()> {
        Ok(())
    }

    fn set_size(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn fill(&self, _at: u64, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// A file in memory.
#[derive(Default)]
struct MemoryFile(Mutex<Vec<u8>>);

impl MemoryFile {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FsFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = self.bytes();
        let rest = bytes.get(at as usize..).unwrap_or_default();
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let mut bytes = self.bytes();
        let mut at = at as usize;
        for slice in slices {
            if bytes.len() < at + slice.len() {
                bytes.resize(at + slice.len(), 0);
            }
            bytes[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn sync_data(&self, _site: SyncSite) -> io::Result<()> {
        Ok(())
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.bytes().resize(bytes as usize, 0);
        Ok(())
    }

    /// Nothing is taken: what is never written need not be held.
    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn fill(&self, _at: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}
