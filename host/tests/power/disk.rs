//! A disk with a tree of files on it, which forgets what was not synced when the power goes.
//!
//! The rules, which are no kinder than what Linux promises on any of its file systems:
//!
//! * A write, a size and a name are durable after a sync that began after them, and never before because of luck with the
//!   page cache: nothing is written back by itself.
//! * A sync of a file (`fsync` and `fdatasync` alike, and a write to a file that is open with `O_SYNC` or `O_DSYNC`) makes
//!   its content and its size durable. It says nothing about its name, not even when the file is new: ext4 and xfs would
//!   keep the name too, POSIX promises nothing.
//! * A sync of a folder makes the names in it durable, and nothing else: not the content of the files, not the name of the
//!   folder itself in the one around it. A rename is one step, so either of its two folders makes it durable.
//! * Of the rest, when the power goes: each sector of 512 or of 4096 bytes is there or not on its own, and so is the size
//!   ([`File::lose_power`]). Of the names, either those that changed first are there, as a journal keeps them, or any of
//!   them, in any folder; the names of one file change in order, and a folder goes only after what was in it.
//! * A file that no name leads to after that is gone.

use crate::file::{File, PAGE_BYTES};
use crate::names::{NameChange, PendingNames};
use nodata_log::fs::simulated::Chance;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) type Inode = u64;
pub(crate) const ROOT: Inode = 1;

type Names = BTreeMap<OsString, Inode>;
type Result<T> = std::result::Result<T, Errno>;

pub(crate) struct Disk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// Nothing is answered.
    Off,
    /// Everything fails.
    Gone,
}

/// What is not done any more when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Whatever comes next.
    Change,
    /// The next sync: there is something to lose.
    Sync,
}

struct State {
    nodes: HashMap<Inode, Node>,
    next_inode: Inode,
    pending: PendingNames,
    power: Power,
    /// Changes since the power came.
    changes: u64,
    /// After how many of them it goes.
    cut: Option<(u64, Before)>,
    done: Done,
}

/// What was done since the disk was made, by path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Done {
    /// From, to, and whether it replaced a file.
    pub(crate) renames: Vec<(String, String, bool)>,
    pub(crate) removals: Vec<String>,
    pub(crate) syncs: BTreeMap<String, u64>,
}

struct Node {
    content: NodeContent,
    mode: u16,
    path: String,
}

enum NodeContent {
    File(File),
    Dir { seen: Names, durable: Names },
}

/// What the kernel is told about a file or a folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) inode: Inode,
    pub(crate) is_dir: bool,
    pub(crate) bytes: u64,
    pub(crate) mode: u16,
}

/// What was lost with the power.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) sectors: u64,
    pub(crate) names: u64,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let content = NodeContent::Dir { seen: Names::new(), durable: Names::new() };
        let root = Node { content, mode: 0o755, path: String::new() };
        let state = State {
            nodes: HashMap::from([(ROOT, root)]),
            next_inode: ROOT + 1,
            pending: PendingNames::default(),
            power: Power::On,
            changes: 0,
            cut: None,
            done: Done::default(),
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The mains.

    /// The power goes after so many more changes.
    pub(crate) fn cut_after(&self, changes: u64, before: Before) {
        let mut state = self.state();
        state.cut = Some((state.changes + changes, before));
    }

    /// The power goes now. Whoever asks for something waits.
    pub(crate) fn cut(&self) {
        let mut state = self.state();
        if state.power == Power::On {
            state.power = Power::Off;
        }
        self.changed.notify_all();
    }

    pub(crate) fn is_off(&self) -> bool {
        self.state().power != Power::On
    }

    /// Lets those go who wait. They are told that it failed; there should be nobody left to do something about it.
    pub(crate) fn release(&self) {
        self.state().power = Power::Gone;
        self.changed.notify_all();
    }

    /// The power is back, and nothing was lost.
    pub(crate) fn power_on(&self) {
        let mut state = self.state();
        state.power = Power::On;
        state.changes = 0;
        state.cut = None;
        self.changed.notify_all();
    }

    /// While the power was off, what was not synced was lost, or was not.
    pub(crate) fn forget(&self, chance: &mut Chance) -> Lost {
        let mut state = self.state();
        assert_ne!(state.power, Power::On, "a disk forgets only when the power is off");
        state.forget(chance)
    }

    pub(crate) fn done(&self) -> Done {
        self.state().done.clone()
    }

    /// Writes everything as it is seen now into a folder of the machine, for whoever wants to look.
    pub(crate) fn save(&self, to: &Path) -> io::Result<()> {
        let state = self.state();
        let mut dirs = vec![(ROOT, to.to_owned())];
        while let Some((inode, path)) = dirs.pop() {
            let Some(Node { content: NodeContent::Dir { seen, .. }, .. }) = state.nodes.get(&inode) else { continue };
            std::fs::create_dir_all(&path)?;
            for (name, inode) in seen {
                match state.nodes.get(inode).map(|node| &node.content) {
                    Some(NodeContent::File(file)) => {
                        std::fs::write(path.join(name), file.read(0, file.bytes() as usize))?;
                    }
                    _ => dirs.push((*inode, path.join(name))),
                }
            }
        }
        Ok(())
    }

    // What the kernel asks for.

    fn powered(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        let state = self.changed.wait_while(state, |state| state.power == Power::Off);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        if state.power == Power::Gone { Err(Errno::IO) } else { Ok(state) }
    }

    /// As [`powered`](Self::powered), for something that changes the disk.
    fn changing(&self, is_sync: bool) -> Result<MutexGuard<'_, State>> {
        {
            let mut state = self.state();
            if state.power == Power::On {
                let is_next = |(after, before)| state.changes >= after && (is_sync || before == Before::Change);
                if state.cut.is_some_and(is_next) {
                    state.power = Power::Off;
                    self.changed.notify_all();
                } else {
                    state.changes += 1;
                    return Ok(state);
                }
            }
        }
        // After the power came back the process that asked is gone.
        self.powered().and(Err(Errno::IO))
    }

    pub(crate) fn attributes(&self, inode: Inode) -> Result<Attributes> {
        self.powered()?.attributes(inode)
    }

    pub(crate) fn look_up(&self, dir: Inode, name: &OsStr) -> Result<Attributes> {
        let mut state = self.powered()?;
        let inode = *state.names(dir)?.get(name).ok_or(Errno::NOENT)?;
        state.attributes(inode)
    }

    /// The entries of a folder.
    pub(crate) fn list(&self, dir: Inode) -> Result<Vec<(OsString, Attributes)>> {
        let mut state = self.powered()?;
        let names = state.names(dir)?.clone();
        names.into_iter().map(|(name, inode)| Ok((name, state.attributes(inode)?))).collect()
    }

    pub(crate) fn read(&self, inode: Inode, at: u64, len: usize) -> Result<Vec<u8>> {
        Ok(self.powered()?.file(inode)?.read(at, len))
    }

    pub(crate) fn write(&self, inode: Inode, at: u64, bytes: &[u8]) -> Result<()> {
        self.changing(false)?.file(inode)?.write(at, bytes);
        Ok(())
    }

    pub(crate) fn set_size(&self, inode: Inode, bytes: u64) -> Result<()> {
        self.changing(false)?.file(inode)?.set_size(bytes);
        Ok(())
    }

    pub(crate) fn allocate(&self, inode: Inode, bytes: u64) -> Result<()> {
        self.changing(false)?.file(inode)?.allocate(bytes);
        Ok(())
    }

    /// Permissions are durable at once: nothing depends on them.
    pub(crate) fn set_mode(&self, inode: Inode, mode: u16) -> Result<()> {
        self.powered()?.node(inode)?.mode = mode;
        Ok(())
    }

    pub(crate) fn sync(&self, inode: Inode) -> Result<()> {
        let mut state = self.changing(true)?;
        let path = state.node(inode)?.path.clone();
        *state.done.syncs.entry(path).or_default() += 1;
        match &mut state.node(inode)?.content {
            NodeContent::File(file) => file.sync(),
            NodeContent::Dir { .. } => state.sync_dir(inode),
        }
        Ok(())
    }

    pub(crate) fn create(&self, dir: Inode, name: &OsStr, mode: u16, is_dir: bool) -> Result<Attributes> {
        let mut state = self.changing(false)?;
        if state.names(dir)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        let content = if is_dir {
            NodeContent::Dir { seen: Names::new(), durable: Names::new() }
        } else {
            NodeContent::File(File::default())
        };
        let path = state.path(dir, name)?;
        state.nodes.insert(inode, Node { content, mode, path });
        state.change_name(NameChange { inode, from: None, to: Some((dir, name.to_owned())) });
        state.attributes(inode)
    }

    pub(crate) fn remove(&self, dir: Inode, name: &OsStr, is_dir: bool) -> Result<()> {
        let mut state = self.changing(false)?;
        let inode = *state.names(dir)?.get(name).ok_or(Errno::NOENT)?;
        match (&state.node(inode)?.content, is_dir) {
            (NodeContent::File(_), true) => return Err(Errno::NOTDIR),
            (NodeContent::Dir { .. }, false) => return Err(Errno::ISDIR),
            (NodeContent::Dir { seen, .. }, true) if !seen.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        let path = state.path(dir, name)?;
        state.done.removals.push(path);
        state.change_name(NameChange { inode, from: Some((dir, name.to_owned())), to: None });
        Ok(())
    }

    /// Of files only; nobody here renames folders.
    pub(crate) fn rename(&self, from: (Inode, &OsStr), to: (Inode, &OsStr)) -> Result<()> {
        let mut state = self.changing(false)?;
        let inode = *state.names(from.0)?.get(from.1).ok_or(Errno::NOENT)?;
        state.file(inode)?;
        let replaced = state.names(to.0)?.get(to.1).copied();
        if let Some(replaced) = replaced {
            state.file(replaced)?;
        }
        let (before, after) = (state.path(from.0, from.1)?, state.path(to.0, to.1)?);
        state.node(inode)?.path.clone_from(&after);
        state.done.renames.push((before, after, replaced.is_some()));
        let slot = |(dir, name): (Inode, &OsStr)| Some((dir, name.to_owned()));
        state.change_name(NameChange { inode, from: slot(from), to: slot(to) });
        Ok(())
    }
}

impl State {
    fn node(&mut self, inode: Inode) -> Result<&mut Node> {
        self.nodes.get_mut(&inode).ok_or(Errno::STALE)
    }

    fn file(&mut self, inode: Inode) -> Result<&mut File> {
        match &mut self.node(inode)?.content {
            NodeContent::File(file) => Ok(file),
            NodeContent::Dir { .. } => Err(Errno::ISDIR),
        }
    }

    fn names(&mut self, dir: Inode) -> Result<&mut Names> {
        match &mut self.node(dir)?.content {
            NodeContent::Dir { seen, .. } => Ok(seen),
            NodeContent::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn path(&mut self, dir: Inode, name: &OsStr) -> Result<String> {
        let (around, name) = (&self.node(dir)?.path, name.to_string_lossy());
        Ok(if around.is_empty() { name.into_owned() } else { format!("{around}/{name}") })
    }

    fn attributes(&mut self, inode: Inode) -> Result<Attributes> {
        let node = self.node(inode)?;
        let (is_dir, bytes) = match &node.content {
            NodeContent::File(file) => (false, file.bytes()),
            NodeContent::Dir { .. } => (true, PAGE_BYTES as u64),
        };
        Ok(Attributes { inode, is_dir, bytes, mode: node.mode })
    }

    fn apply(&mut self, change: &NameChange, is_durable: bool) {
        if let Some((dir, name)) = &change.from
            && let Some(names) = self.names_as(*dir, is_durable)
            && names.get(name) == Some(&change.inode)
        {
            names.remove(name);
        }
        if let Some((dir, name)) = &change.to
            && let Some(names) = self.names_as(*dir, is_durable)
        {
            names.insert(name.clone(), change.inode);
        }
    }

    fn names_as(&mut self, dir: Inode, is_durable: bool) -> Option<&mut Names> {
        match &mut self.nodes.get_mut(&dir)?.content {
            NodeContent::Dir { seen, durable } => Some(if is_durable { durable } else { seen }),
            NodeContent::File(_) => None,
        }
    }

    fn change_name(&mut self, change: NameChange) {
        self.apply(&change, false);
        self.pending.push(change);
    }

    fn sync_dir(&mut self, dir: Inode) {
        for change in self.pending.take_covered(dir) {
            self.apply(&change, true);
        }
    }

    fn forget(&mut self, chance: &mut Chance) -> Lost {
        let mut pending = std::mem::take(&mut self.pending);
        let names = pending.lose(chance, |change| {
            let is_dir_with_names = change.to.is_none()
                && self.nodes.get(&change.inode).is_some_and(
                    |node| matches!(&node.content, NodeContent::Dir { durable, .. } if !durable.is_empty()),
                );
            if !is_dir_with_names {
                self.apply(change, true);
            }
            !is_dir_with_names
        });
        let mut lost = Lost { names, sectors: 0 };

        let sector_bytes = [512, 4096][chance.below(2) as usize];
        let mut nodes = std::mem::take(&mut self.nodes);
        let mut dirs = vec![(ROOT, String::new())];
        while let Some((inode, path)) = dirs.pop() {
            let Some(mut node) = nodes.remove(&inode) else { continue };
            match &mut node.content {
                NodeContent::Dir { seen, durable } => {
                    seen.clone_from(durable);
                    let inside = |name: &OsStr| match path.as_str() {
                        "" => name.to_string_lossy().into_owned(),
                        around => format!("{around}/{}", name.to_string_lossy()),
                    };
                    dirs.extend(durable.iter().map(|(name, inode)| (*inode, inside(name))));
                }
                NodeContent::File(file) => lost.sectors += file.lose_power(chance, sector_bytes),
            }
            node.path = path;
            self.nodes.insert(inode, node);
        }
        lost
    }
}
