//! The disk as a file system of the kernel, through FUSE. It is mounted for one life of the machine: what the kernel had
//! cached is gone after that, as it is when a machine starts.
//!
//! Locks and maps of files need nothing from here: the kernel keeps `flock` and `fcntl` locks by itself, and pages that are
//! mapped for reading come through `read`. There is no write-back cache, so whatever a process wrote has come here when its
//! call returns, whether it went past the page cache (`O_DIRECT`) or not.

use crate::disk::{Attributes, Disk, Inode};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How the mounts are called in the table of mounts.
const NAME: &str = "nodata-power";

/// Requests that are worked on at the same time: a sync must not hold up a read.
const THREADS: usize = 4;

/// How long the kernel may believe what it was told. Nobody changes the disk behind its back.
const TTL: Duration = Duration::from_secs(3600);

/// How long a sync takes, so that there is something to wait for.
const SYNC: Duration = Duration::from_micros(500);

/// A mounted disk. It is unmounted when this is dropped.
pub(crate) struct Mount {
    session: Option<BackgroundSession>,
    at: PathBuf,
}

impl Mount {
    pub(crate) fn new(disk: Arc<Disk>, at: &Path) -> io::Result<Self> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName(NAME.to_owned())];
        config.n_threads = Some(THREADS);
        let session =
            fuser::spawn_mount(Kernel { disk, lists: Mutex::default(), next_list: AtomicU64::new(1) }, at, &config)?;
        Ok(Self { session: Some(session), at: at.to_owned() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A thread of the session that was just about to read is told of the end in another way, which is no error.
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
            && mounts().contains(&self.at)
        {
            eprintln!("{} was not unmounted at once: {error}", self.at.display());
            unmount_lazily(&self.at);
        }
    }
}

/// Where disks are mounted, of this test and of others.
fn mounts() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let at = |line: &str| line.strip_prefix(NAME)?.strip_prefix(' ')?.split(' ').next().map(PathBuf::from);
    mounts.lines().filter_map(at).collect()
}

fn unmount_lazily(at: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(at).status();
}

/// Removes the mounts of tests that were killed: nobody answers there any more.
pub(crate) fn sweep() {
    for at in mounts() {
        if std::fs::metadata(&at).is_err_and(|error| error.kind() == io::ErrorKind::NotConnected) {
            unmount_lazily(&at);
        }
    }
}

/// What the kernel talks to.
struct Kernel {
    disk: Arc<Disk>,
    /// What open folders held when they were opened.
    lists: Mutex<HashMap<u64, Vec<(OsString, Attributes)>>>,
    next_list: AtomicU64,
}

fn attr(attributes: Attributes) -> FileAttr {
    let Attributes { inode, is_dir, bytes, mode } = attributes;
    let never = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(inode),
        size: bytes,
        blocks: bytes.div_ceil(512),
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        kind: kind(is_dir),
        perm: mode,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn kind(is_dir: bool) -> FileType {
    if is_dir { FileType::Directory } else { FileType::RegularFile }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn mode(mode: u32, umask: u32) -> u16 {
    (mode & !umask & 0o7777) as u16
}

fn answer_empty(done: rustix::io::Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn answer_entry(found: rustix::io::Result<Attributes>, reply: ReplyEntry) {
    match found {
        Ok(found) => reply.entry(&TTL, &attr(found), Generation(0)),
        Err(error) => reply.error(errno(error)),
    }
}

fn answer_attr(found: rustix::io::Result<Attributes>, reply: ReplyAttr) {
    match found {
        Ok(found) => reply.attr(&TTL, &attr(found)),
        Err(error) => reply.error(errno(error)),
    }
}

impl Kernel {
    fn set(&self, inode: Inode, mode: Option<u32>, size: Option<u64>) -> rustix::io::Result<Attributes> {
        if let Some(mode) = mode {
            self.disk.set_mode(inode, self::mode(mode, 0))?;
        }
        if let Some(size) = size {
            self.disk.set_size(inode, size)?;
        }
        self.disk.attributes(inode)
    }

    fn sync(&self, inode: Inode) -> rustix::io::Result<()> {
        self.disk.sync(inode)?;
        std::thread::sleep(SYNC);
        Ok(())
    }
}

impl Filesystem for Kernel {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(self.disk.look_up(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer_attr(self.disk.attributes(ino.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer_attr(self.set(ino.0, mode, size), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        answer_entry(self.disk.create(parent.0, name, self::mode(mode, umask), true), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(self.disk.remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(self.disk.remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = if flags.is_empty() {
            self.disk.rename((parent.0, name), (newparent.0, newname))
        } else {
            Err(rustix::io::Errno::INVAL)
        };
        answer_empty(renamed, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.disk.create(parent.0, name, self::mode(mode, umask), false) {
            Ok(made) => reply.created(&TTL, &attr(made), Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk.read(ino.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_synced = OFlags::from_bits_retain(flags.0 as u32).intersects(OFlags::DSYNC | OFlags::SYNC);
        let written =
            self.disk.write(ino.0, offset, data).and_then(|()| if is_synced { self.sync(ino.0) } else { Ok(()) });
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer_empty(self.sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer_empty(self.sync(ino.0), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done =
            if mode == 0 { self.disk.allocate(ino.0, offset + length) } else { Err(rustix::io::Errno::OPNOTSUPP) };
        answer_empty(done, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.disk.list(ino.0) {
            Ok(list) => {
                let handle = self.next_list.fetch_add(1, Ordering::Relaxed);
                self.lists.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, list);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let list = lists.get(&fh.0).map(Vec::as_slice).unwrap_or_default();
        let dots = [".", ".."].map(|name| (ino.0, true, OsStr::new(name)));
        let entries = list.iter().map(|(name, found)| (found.inode, found.is_dir, name.as_os_str()));
        for (at, (inode, is_dir, name)) in dots.into_iter().chain(entries).enumerate().skip(offset as usize) {
            if reply.add(INodeNo(inode), at as u64 + 1, kind(is_dir), name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = 64 << 18;
        reply.statfs(blocks, blocks, blocks, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}

/// What the server asks of a file system, through the kernel.
#[cfg(test)]
mod tests {
    use super::*;
    use nodata_log::fs::simulated::Chance;
    use rustix::fs::{FallocateFlags, FlockOperation, Mode, fallocate, flock};
    use std::fs::{self, File, OpenOptions};
    use std::io::Write as _;
    use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

    /// As O_DIRECT wants it.
    #[repr(C, align(4096))]
    struct Block([u8; 4096]);

    fn sync(path: &Path) {
        File::open(path).unwrap().sync_all().unwrap();
    }

    #[test]
    fn the_kernel_finds_an_ordinary_file_system_that_forgets() {
        let disk = Arc::new(Disk::new());
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let mounted = match Mount::new(disk.clone(), root) {
            Ok(mounted) => mounted,
            Err(why) => return crate::say_skipped(&why),
        };
        let open = |name: &str, flags: OFlags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).custom_flags(flags.bits() as i32);
            options.open(root.join(name)).unwrap()
        };

        // Space that was taken reads as zeros, and is written past the page cache and through it.
        let plain = open("plain", OFlags::empty());
        fallocate(&plain, FallocateFlags::empty(), 0, 3 * 4096).unwrap();
        assert_eq!(fs::read(root.join("plain")).unwrap(), [0; 3 * 4096]);
        assert_eq!(open("plain", OFlags::DIRECT).write_at(&Block([7; 4096]).0, 4096).unwrap(), 4096);
        plain.write_all_at(b"end", 3 * 4096 - 1).unwrap();
        plain.sync_data().unwrap();
        let content = [vec![0; 4096], vec![7; 4096], vec![0; 4095], b"end".to_vec()].concat();
        assert_eq!(fs::read(root.join("plain")).unwrap(), content);
        plain.set_len(5000).unwrap();
        assert_eq!(fs::read(root.join("plain")).unwrap(), content[..5000]);
        plain.sync_all().unwrap();
        (&open("at once", OFlags::DSYNC)).write_all(b"there").unwrap();

        // A lock is held against everyone else.
        let locked = open("lock", OFlags::empty());
        flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
        let other = flock(open("lock", OFlags::empty()), FlockOperation::NonBlockingLockExclusive);
        assert_eq!(other, Err(rustix::io::Errno::WOULDBLOCK));
        drop(locked);

        // Folders, with more in them than one answer holds.
        fs::create_dir(root.join("many")).unwrap();
        for number in 0..500 {
            File::create(root.join(format!("many/{number}"))).unwrap();
        }
        assert_eq!(fs::read_dir(root.join("many")).unwrap().count(), 500);
        assert_eq!(fs::remove_dir(root.join("many")).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        fs::rename(root.join("many/7"), root.join("seven")).unwrap();
        fs::remove_file(root.join("many/8")).unwrap();
        assert_eq!(fs::read_dir(root.join("many")).unwrap().count(), 498);
        assert!(!root.join("many/7").exists() && root.join("seven").exists());
        sync(root);
        rustix::fs::open(root.join("many"), OFlags::DIRECTORY, Mode::empty()).unwrap();

        // What is not synced is not there, with some seed.
        drop(plain);
        (&open("at once", OFlags::empty())).write_all(b"THERE").unwrap();
        drop(mounted);
        let found: Vec<_> = (0..20)
            .map(|seed| {
                disk.cut();
                disk.release();
                disk.forget(&mut Chance::new(seed));
                disk.power_on();
                let _mounted = Mount::new(disk.clone(), root).unwrap();
                assert_eq!(fs::read(root.join("plain")).unwrap(), content[..5000]);
                let many = fs::read_dir(root.join("many")).unwrap().count();
                let at_once = fs::read_to_string(root.join("at once")).unwrap();
                fs::write(root.join("unsynced"), "lost").unwrap();
                (many < 498, at_once)
            })
            .collect();
        assert!(found.iter().any(|(is_less, _)| *is_less), "no name was lost");
        assert!(found.iter().all(|(_, text)| text == "there" || text == "THERE"), "{found:?}");
    }
}
