//! The one way to the disk: a dozen calls, with the machine behind them or a simulation that forgets.
//!
//! Paths are relative to the root of the store and use `/`.

pub mod read_only;
pub mod real;
pub mod simulated;

use std::io::{self, IoSlice};
use std::sync::Arc;

/// What a sync is for. The simulation can leave out the ones of one kind, to prove that they are needed: see
/// `tests/syncs.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncSite {
    /// The content of the file that names the store.
    StoreFile,
    /// The names in the root of a store, at every start: the process that made them may have been killed before its sync.
    StoreName,
    /// A group of transactions, before anyone is told about it.
    Group,
    /// The size of a file that is ready to become a segment: a segment that is shorter than its header says was cut.
    Spare,
    /// The name of a segment, before the first group in it is acknowledged.
    SegmentName,
    /// What a start found in the last segment: it may be in the page cache only, written by a process that was killed
    /// before its sync.
    Found,
    /// The checkpoint database, which orders its own writes with it.
    Checkpoint,
    /// A file that is written whole and then given its name.
    WholeFile,
    /// The name of a file that was written whole.
    WholeFileName,
    /// A file of the archive, before it is given its name.
    ArchiveFile,
    /// The names of the folders in which a file of the archive lies.
    ArchiveDir,
    /// The name of a file of the archive, before the log is told about it.
    ArchiveName,
    /// That a folder of the archive is empty, before it is removed.
    ArchiveRemoved,
    /// A copy of what is damaged, before a repair changes anything.
    Kept,
    /// The names of such copies.
    KeptName,
    /// A file that a repair writes, before it is given its name.
    Repaired,
    /// The names that a repair gives, before the next of its steps.
    RepairedName,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub bytes: u64,
    pub is_dir: bool,
}

/// Files and folders of one store.
pub trait Fs: Send + Sync + 'static {
    /// Takes the store for this process until the guard is dropped. Fails with [`io::ErrorKind::WouldBlock`] when
    /// another one has it.
    fn lock(&self, path: &str) -> io::Result<Box<dyn Send + Sync>>;

    /// Opens a file that exists, for reading and writing.
    fn open(&self, path: &str) -> io::Result<Arc<dyn FsFile>>;

    /// Makes a file that does not exist, empty.
    fn create(&self, path: &str) -> io::Result<Arc<dyn FsFile>>;

    /// Gives a file another name, replacing what had it. Not durable before the folder is synced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, path: &str) -> io::Result<()>;

    /// The entries of a folder; `""` is the root.
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>>;

    /// Makes a folder, if it is not there yet.
    fn create_dir(&self, dir: &str) -> io::Result<()>;

    /// Removes a folder in which nothing is.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &str, site: SyncSite) -> io::Result<()>;
}

/// An open file. Writes at one place do not move a cursor, so one file can be shared.
pub trait FsFile: Send + Sync + 'static {
    /// Bytes in the file.
    fn size(&self) -> io::Result<u64>;

    /// Reads up to `out.len()` bytes; 0 at the end of the file.
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes the slices one after the other and says how many bytes it took, which may be fewer.
    fn write_at(&self, slices: &[IoSlice<'_>], at: u64) -> io::Result<usize>;

    /// Makes what was written durable, and the size of the file with it. After an error nothing is known about what
    /// was written before; it must not be tried again.
    fn sync_data(&self, site: SyncSite) -> io::Result<()>;

    fn set_size(&self, bytes: u64) -> io::Result<()>;

    /// Takes the space of a new file, so that writing there later cannot run out of it. It reads as zeros.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Writes zeros over space that was allocated and never written. It reads as before; overwriting it later costs the
    /// file system no bookkeeping.
    fn fill(&self, at: u64, bytes: u64) -> io::Result<()>;
}

/// Reads exactly `out.len()` bytes.
pub fn read_exact_at(file: &dyn FsFile, mut out: &mut [u8], mut at: u64) -> io::Result<()> {
    while !out.is_empty() {
        match file.read_at(out, at) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file ends at {at}"))),
            Ok(count) => {
                out = &mut out[count..];
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Slices that one call takes (`IOV_MAX` of Linux).
const SLICES_MAX: usize = 1024;

/// Writes all slices one after the other.
pub fn write_all_at(file: &dyn FsFile, slices: &mut [IoSlice<'_>], mut at: u64) -> io::Result<()> {
    let mut slices = slices;
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let now = slices.len().min(SLICES_MAX);
        match file.write_at(&slices[..now], at) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the file takes no more bytes")),
            Ok(count) => {
                at += count as u64;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a whole file.
pub fn read_file(fs: &dyn Fs, path: &str) -> io::Result<Vec<u8>> {
    let file = fs.open(path)?;
    let mut bytes = vec![0; file.size()? as usize];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Bytes that are read at once, and what is given up where the disk cannot read it.
const READ_BYTES: usize = 1 << 20;
const UNREADABLE_BYTES: usize = 4096;

/// Reads a whole file. What the disk cannot read is zeros, which no checksum takes for something else.
pub(crate) fn read_around(file: &dyn FsFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.size()? as usize];
    for (at, piece) in bytes.chunks_mut(READ_BYTES).enumerate() {
        let at = (at * READ_BYTES) as u64;
        if read_exact_at(file, piece, at).is_ok() {
            continue;
        }
        for (block, piece) in piece.chunks_mut(UNREADABLE_BYTES).enumerate() {
            if read_exact_at(file, piece, at + (block * UNREADABLE_BYTES) as u64).is_err() {
                piece.fill(0);
            }
        }
    }
    Ok(bytes)
}

/// Copies a file under a name that is not taken, as far as it can be read, and syncs the copy. Its name is left to the caller.
pub fn copy_around(fs: &dyn Fs, from: &str, to: &str, site: SyncSite) -> io::Result<()> {
    let bytes = read_around(&*fs.open(from)?)?;
    let file = fs.create(to)?;
    write_all_at(&*file, &mut [IoSlice::new(&bytes)], 0)?;
    file.sync_data(site)
}

/// Removes a file; that it is not there is as good.
pub fn remove_if_there(fs: &dyn Fs, path: &str) -> io::Result<()> {
    match fs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a whole file so that after a crash it is there whole or not at all: under another name first, synced, then
/// renamed, and the folder synced. A file of that name is replaced.
pub fn write_file(fs: &dyn Fs, dir: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_unnamed_file(fs, dir, name, bytes, SyncSite::WholeFile)?;
    fs.sync_dir(dir, SyncSite::WholeFileName)
}

/// As [`write_file`], for someone who syncs the folder later.
pub(crate) fn write_unnamed_file(fs: &dyn Fs, dir: &str, name: &str, bytes: &[u8], site: SyncSite) -> io::Result<()> {
    let path = |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    let unfinished = path(&format!("{name}.tmp"));
    remove_if_there(fs, &unfinished)?;
    let file = fs.create(&unfinished)?;
    let write = || {
        write_all_at(&*file, &mut [IoSlice::new(bytes)], 0)?;
        file.sync_data(site)
    };
    write().inspect_err(|_| drop(fs.remove(&unfinished)))?;
    fs.rename(&unfinished, &path(name))
}
