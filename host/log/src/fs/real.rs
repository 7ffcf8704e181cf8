//! The machine's file system.

use super::{Entry, Fs, FsFile, SyncSite};
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of the machine.
#[derive(Clone, Debug)]
pub struct RealFs {
    root: PathBuf,
}

impl RealFs {
    /// Uses this folder, and makes it (for this user only) with its parents if it is not there.
    pub fn new(root: &Path) -> io::Result<Self> {
        let mut missing = Vec::new();
        let mut at = root;
        while !at.as_os_str().is_empty() && !at.try_exists()? {
            missing.push(at);
            let Some(parent) = at.parent() else { break };
            at = parent;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        for made in missing {
            // A new folder is there after a crash only if its parent was synced.
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Where the store lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of the store lies.
    pub fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

impl Fs for RealFs {
    fn lock(&self, path: &str) -> io::Result<Box<dyn Send + Sync>> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(self.path(path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => return Err(error.into()),
        }
        // Who holds it, for a person who looks.
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn FsFile>> {
        let path = self.path(path);
        Ok(Arc::new(RealFile { file: OpenOptions::new().read(true).write(true).open(&path)?, path }))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn FsFile>> {
        let path = self.path(path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Arc::new(RealFile { file, path }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        fs::read_dir(self.path(dir))?
            .map(|entry| {
                let entry = entry?;
                let metadata = entry.metadata()?;
                let name = entry.file_name().to_string_lossy().into_owned();
                Ok(Entry { name, bytes: metadata.len(), is_dir: metadata.is_dir() })
            })
            .collect()
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.path(dir))
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        fs::remove_dir(self.path(dir))
    }

    fn sync_dir(&self, dir: &str, _site: SyncSite) -> io::Result<()> {
        File::open(self.path(dir))?.sync_all()
    }
}

struct RealFile {
    file: File,
    path: PathBuf,
}

/// Bytes of zeros in one write.
const ZEROS_BYTES: usize = 1 << 20;

/// A buffer that begins at a block, as O_DIRECT demands.
#[repr(C, align(4096))]
struct Zeros([u8; ZEROS_BYTES]);
static ZEROS: Zeros = Zeros([0; ZEROS_BYTES]);

impl RealFile {
    fn write_zeros(file: &File, at: u64, bytes: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes {
            let now = (bytes - done).min(ZEROS_BYTES as u64) as usize;
            done += file.write_at(&ZEROS.0[..now], at + done)? as u64;
        }
        Ok(())
    }
}

impl FsFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(out, at)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.file, slices, at)?)
    }

    fn sync_data(&self, _site: SyncSite) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // Where space cannot be taken otherwise, it is taken by writing.
            Err(rustix::io::Errno::OPNOTSUPP) => Self::write_zeros(&self.file, 0, bytes),
            Err(error) => Err(error.into()),
        }
    }

    /// Past the page cache, 64 MiB of zeros cost 4 ms of CPU and not 16.
    fn fill(&self, at: u64, bytes: u64) -> io::Result<()> {
        let direct = rustix::fs::open(&self.path, OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty());
        let written = match direct {
            Ok(direct) => Self::write_zeros(&File::from(direct), at, bytes),
            Err(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        match written {
            Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput) => {
                Self::write_zeros(&self.file, at, bytes)
            }
            other => other,
        }
    }
}
