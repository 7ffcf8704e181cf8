//! A disk that forgets, tears and fails, for tests.
//!
//! Every file has what its users see and what the platter holds. A write goes to the first and waits, cut into sectors,
//! for a sync to reach the second. [`SimulatedFs::crash`] keeps an arbitrary part of what waits: any subset of the
//! sectors in any order, so that a later write may survive an earlier one, and any subset of the names that were made,
//! changed or removed since their folder was synced. That is more than any disk does and all that one may do. Three things
//! are taken for granted, as every file system with a page cache and a journal grants them: a sector holds what it held at
//! some moment, a file gets another name at once or not at all, and the names of one file change in order.

use super::{Entry, Fs, FsFile, SyncSite};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A whole disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedFs {
    disk: Arc<Mutex<Disk>>,
}

type Inode = u64;

/// The least that is written whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<Inode, File>,
    /// Names as users see them; folders are names without a file.
    names: BTreeMap<String, Option<Inode>>,
    durable_names: BTreeMap<String, Option<Inode>>,
    /// Changes of names that no sync has covered, in order.
    pending_names: Vec<NameChange>,
    next_inode: Inode,
    locked: bool,
    chance: Chance,
    faults: Faults,
    calls: u64,
    crashed: bool,
    synced: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default, Clone)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

/// A name that is made, changed or removed.
#[derive(Debug, Clone)]
struct NameChange {
    /// What it was called, if it is not any more.
    from: Option<String>,
    /// What it is called, if it has a name.
    to: Option<String>,
    /// `None` for a folder.
    inode: Option<Inode>,
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, Option<Inode>>) {
        if let Some(from) = &self.from {
            names.remove(from);
        }
        if let Some(to) = &self.to {
            names.insert(to.clone(), self.inode);
        }
    }

    fn dir(&self) -> &str {
        self.to.as_ref().or(self.from.as_ref()).map_or("", |path| parent(path))
    }
}

#[derive(Debug, Clone)]
enum Pending {
    Write { at: usize, bytes: Vec<u8> },
    Size(usize),
}

/// What goes wrong, and when. Calls are counted from 0; reading is not counted.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The machine stops in the middle of this call; every later one fails too, until [`SimulatedFs::crash`].
    pub crash_at: Option<u64>,
    /// This call fails with an I/O error and does nothing.
    pub error_at: Option<u64>,
    /// Writes take only a part, now and then.
    pub short_writes: bool,
    /// Bytes that fit the disk.
    pub capacity: Option<u64>,
    /// Syncs of this kind do nothing.
    pub lost_syncs: Option<SyncSite>,
}

/// How writes tear, and what survives a crash.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    pub seed: u64,
    /// Bytes that are written whole or not at all.
    pub sector_bytes: usize,
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Clone, Debug, Default)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    /// True in this many of 100.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

fn power_is_gone() -> io::Error {
    io::Error::other("simulated power loss")
}

impl Disk {
    /// Counts a call and lets it go wrong. `Ok(true)` means: do it, and then the power is gone.
    fn enter(&mut self) -> io::Result<bool> {
        if self.crashed {
            return Err(power_is_gone());
        }
        let call = self.calls;
        self.calls += 1;
        if self.faults.error_at == Some(call) {
            return Err(io::Error::other("simulated I/O error"));
        }
        if self.faults.crash_at == Some(call) {
            self.crashed = true;
            return Ok(true);
        }
        Ok(false)
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.seen.len() as u64).sum()
    }

    fn check_space(&self, more: usize) -> io::Result<()> {
        match self.faults.capacity {
            Some(capacity) if self.used() + more as u64 > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn change_name(&mut self, from: Option<&str>, to: Option<&str>, inode: Option<Inode>) {
        let change = NameChange { from: from.map(str::to_owned), to: to.map(str::to_owned), inode };
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn inode(&self, path: &str) -> io::Result<Inode> {
        self.names.get(path).copied().flatten().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn overwrite(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

impl SimulatedFs {
    /// An empty disk.
    pub fn new(faults: Faults) -> Self {
        let disk = Disk { faults, ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, this goes wrong. Calls are counted anew.
    pub fn set_faults(&self, faults: Faults) {
        let mut disk = self.disk();
        disk.faults = faults;
        disk.calls = 0;
    }

    /// Calls since the faults were set.
    pub fn calls(&self) -> u64 {
        self.disk().calls
    }

    /// How often each kind of sync was asked for.
    pub fn syncs(&self, site: SyncSite) -> u64 {
        self.disk().synced.get(site_name(site)).copied().unwrap_or(0)
    }

    /// The power goes and comes back: what no sync covered is partly there. Open files are of no more use.
    pub fn crash(&self, crash: Crash) {
        let mut disk = self.disk();
        let disk = &mut *disk;
        let mut chance = Chance::new(crash.seed);
        // Now and then everything survives, or nothing does.
        let keep_percent = [0, 10, 50, 90, 100][chance.below(5) as usize];
        let mut lost = Vec::new();
        for change in std::mem::take(&mut disk.pending_names) {
            let comes_after_a_lost_one = change.inode.is_some() && lost.contains(&change.inode);
            if !comes_after_a_lost_one && chance.percent(keep_percent) {
                change.apply(&mut disk.durable_names);
            } else {
                lost.push(change.inode);
            }
        }
        disk.names = disk.durable_names.clone();
        for file in disk.files.values_mut() {
            let mut behind = BTreeSet::new();
            for pending in std::mem::take(&mut file.pending) {
                match pending {
                    Pending::Size(size) => {
                        if chance.percent(keep_percent) {
                            file.durable.resize(size, 0);
                        }
                    }
                    Pending::Write { at, bytes } => {
                        let mut from = 0;
                        while from < bytes.len() {
                            let sector_end = (at + from) / crash.sector_bytes * crash.sector_bytes + crash.sector_bytes;
                            let to = (sector_end - at).min(bytes.len());
                            if !behind.contains(&sector_end) && chance.percent(keep_percent) {
                                overwrite(&mut file.durable, at + from, &bytes[from..to]);
                            } else {
                                behind.insert(sector_end);
                            }
                            from = to;
                        }
                    }
                }
            }
            file.seen = file.durable.clone();
        }
        let live: Vec<Inode> = disk.names.values().copied().flatten().collect();
        disk.files.retain(|inode, _| live.contains(inode));
        disk.locked = false;
        disk.crashed = false;
        disk.faults.crash_at = None;
        disk.faults.error_at = None;
    }

    /// The process ends and the machine goes on: everything written is there, and still waits for a sync.
    pub fn kill(&self) {
        let mut disk = self.disk();
        disk.locked = false;
        disk.crashed = false;
        disk.faults.crash_at = None;
        disk.faults.error_at = None;
    }

    /// Turns one bit of a file, on the platter and for everyone who looks.
    pub fn flip_bit(&self, path: &str, at: u64, bit: u32) -> io::Result<()> {
        let mut disk = self.disk();
        let inode = disk.inode(path)?;
        let file = disk.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        for content in [&mut file.seen, &mut file.durable] {
            if let Some(byte) = content.get_mut(at as usize) {
                *byte ^= 1 << bit;
            }
        }
        Ok(())
    }

    /// Cuts a file, on the platter and for everyone who looks.
    pub fn truncate(&self, path: &str, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk();
        let inode = disk.inode(path)?;
        let file = disk.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        file.seen.truncate(bytes as usize);
        file.durable.truncate(bytes as usize);
        file.pending.clear();
        Ok(())
    }

    /// The disk as it is, as one that goes its own way from here.
    pub fn fork(&self) -> Self {
        let disk = self.disk();
        let copy = Disk {
            files: disk.files.clone(),
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            pending_names: disk.pending_names.clone(),
            next_inode: disk.next_inode,
            locked: false,
            chance: disk.chance.clone(),
            faults: Faults::default(),
            calls: 0,
            crashed: false,
            synced: BTreeMap::new(),
        };
        Self { disk: Arc::new(Mutex::new(copy)) }
    }
}

fn site_name(site: SyncSite) -> &'static str {
    match site {
        SyncSite::StoreFile => "store file",
        SyncSite::StoreName => "store name",
        SyncSite::Group => "group",
        SyncSite::Spare => "spare",
        SyncSite::SegmentName => "segment name",
        SyncSite::Found => "found",
        SyncSite::Checkpoint => "checkpoint",
        SyncSite::WholeFile => "whole file",
        SyncSite::WholeFileName => "whole file name",
        SyncSite::ArchiveFile => "archive file",
        SyncSite::ArchiveDir => "archive folder",
        SyncSite::ArchiveName => "archive name",
        SyncSite::ArchiveRemoved => "archive removed",
        SyncSite::Kept => "kept",
        SyncSite::KeptName => "kept name",
        SyncSite::Repaired => "repaired",
        SyncSite::RepairedName => "repaired name",
    }
}

struct Lock(SimulatedFs);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.disk().locked = false;
    }
}

impl Fs for SimulatedFs {
    fn lock(&self, _path: &str) -> io::Result<Box<dyn Send + Sync>> {
        let mut disk = self.disk();
        if disk.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        disk.locked = true;
        Ok(Box::new(Lock(self.clone())))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn FsFile>> {
        let disk = self.disk();
        if disk.crashed {
            return Err(power_is_gone());
        }
        let inode = disk.inode(path)?;
        Ok(Arc::new(SimulatedFile { fs: self.clone(), inode }))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn FsFile>> {
        let mut disk = self.disk();
        disk.enter()?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !parent(path).is_empty() && !disk.names.contains_key(parent(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = disk.next_inode;
        disk.next_inode += 1;
        disk.files.insert(inode, File::default());
        disk.change_name(None, Some(path), Some(inode));
        Ok(Arc::new(SimulatedFile { fs: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.enter()?;
        let inode = disk.inode(from)?;
        disk.change_name(Some(from), Some(to), Some(inode));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.enter()?;
        let inode = disk.inode(path)?;
        disk.change_name(Some(path), None, Some(inode));
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let disk = self.disk();
        if disk.crashed {
            return Err(power_is_gone());
        }
        if !dir.is_empty() && !disk.names.contains_key(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let entries = disk.names.iter().filter_map(|(path, inode)| {
            let name = path.strip_prefix(&prefix)?;
            let bytes = inode.and_then(|inode| disk.files.get(&inode)).map_or(0, |file| file.seen.len() as u64);
            (!name.contains('/')).then(|| Entry { name: name.to_owned(), bytes, is_dir: inode.is_none() })
        });
        Ok(entries.collect())
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.enter()?;
        if !disk.names.contains_key(dir) {
            disk.change_name(None, Some(dir), None);
        }
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let power_goes = disk.enter()?;
        let inside = format!("{dir}/");
        if disk.names.keys().any(|path| path.starts_with(&inside)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if disk.names.get(dir) != Some(&None) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change_name(Some(dir), None, None);
        if power_goes { Err(power_is_gone()) } else { Ok(()) }
    }

    fn sync_dir(&self, dir: &str, site: SyncSite) -> io::Result<()> {
        let mut disk = self.disk();
        let power_goes = disk.enter()?;
        *disk.synced.entry(site_name(site)).or_default() += 1;
        if power_goes {
            return Err(power_is_gone());
        }
        if disk.faults.lost_syncs == Some(site) {
            return Ok(());
        }
        let disk = &mut *disk;
        let (covered, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut disk.pending_names).into_iter().partition(|change| change.dir() == dir);
        disk.pending_names = rest;
        covered.iter().for_each(|change| change.apply(&mut disk.durable_names));
        Ok(())
    }
}

struct SimulatedFile {
    fs: SimulatedFs,
    inode: Inode,
}

impl SimulatedFile {
    fn with<T>(&self, run: impl FnOnce(&mut Disk, Inode) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.fs.disk();
        if disk.crashed {
            return Err(power_is_gone());
        }
        run(&mut disk, self.inode)
    }
}

fn file(disk: &mut Disk, inode: Inode) -> io::Result<&mut File> {
    disk.files.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl FsFile for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|disk, inode| Ok(file(disk, inode)?.seen.len() as u64))
    }

    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        self.with(|disk, inode| {
            let content = &file(disk, inode)?.seen;
            let from = content.get(at as usize..).unwrap_or_default();
            let count = from.len().min(out.len());
            out[..count].copy_from_slice(&from[..count]);
            Ok(count)
        })
    }

    fn write_at(&self, slices: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        self.with(|disk, inode| {
            let power_goes = disk.enter()?;
            let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let at = at as usize;
            if disk.faults.short_writes && disk.chance.percent(30) {
                let stop = at + disk.chance.below(bytes.len() as u64) as usize;
                // The kernel takes whole pages, so a write never ends inside of a sector.
                let keep = (stop / SECTOR_BYTES * SECTOR_BYTES).saturating_sub(at);
                if keep > 0 {
                    bytes.truncate(keep);
                }
            }
            let grows = (at + bytes.len()).saturating_sub(file(disk, inode)?.seen.len());
            disk.check_space(grows)?;
            let file = file(disk, inode)?;
            overwrite(&mut file.seen, at, &bytes);
            let count = bytes.len();
            file.pending.push(Pending::Write { at, bytes });
            if power_goes { Err(power_is_gone()) } else { Ok(count) }
        })
    }

    fn sync_data(&self, site: SyncSite) -> io::Result<()> {
        self.with(|disk, inode| {
            let power_goes = disk.enter()?;
            *disk.synced.entry(site_name(site)).or_default() += 1;
            if power_goes {
                return Err(power_is_gone());
            }
            if disk.faults.lost_syncs == Some(site) {
                return Ok(());
            }
            let file = file(disk, inode)?;
            file.pending.clear();
            file.durable = file.seen.clone();
            Ok(())
        })
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.with(|disk, inode| {
            let power_goes = disk.enter()?;
            let grows = (bytes as usize).saturating_sub(file(disk, inode)?.seen.len());
            disk.check_space(grows)?;
            let file = file(disk, inode)?;
            file.seen.resize(bytes as usize, 0);
            file.pending.push(Pending::Size(bytes as usize));
            if power_goes { Err(power_is_gone()) } else { Ok(()) }
        })
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.set_size(bytes)
    }

    fn fill(&self, _at: u64, _bytes: u64) -> io::Result<()> {
        // What is in the file stays as it is, and so does what a crash may do to it.
        self.with(|disk, _| if disk.enter()? { Err(power_is_gone()) } else { Ok(()) })
    }
}
