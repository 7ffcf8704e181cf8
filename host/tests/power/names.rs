//! Changes of names that no sync has covered yet, and what becomes of them.

use crate::disk::Inode;
use crate::file::keep_percent;
use nodata_log::fs::simulated::Chance;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;

/// A place for a name: a folder, and the name in it.
pub(crate) type Slot = (Inode, OsString);

/// A name that is made, changed or removed.
#[derive(Debug, Clone)]
pub(crate) struct NameChange {
    pub(crate) inode: Inode,
    /// What it was called, if it was there.
    pub(crate) from: Option<Slot>,
    /// What it is called, if it is there.
    pub(crate) to: Option<Slot>,
}

impl NameChange {
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.from.iter().chain(&self.to)
    }

    fn is_in(&self, dir: Inode) -> bool {
        self.slots().any(|(around, _)| *around == dir)
    }
}

/// In the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct PendingNames(Vec<NameChange>);

impl PendingNames {
    pub(crate) fn push(&mut self, change: NameChange) {
        self.0.push(change);
    }

    /// Takes out what a sync of this folder makes durable: the names in it, and with each what had to come before it, which is
    /// what else became of the same file, or of what had the same name.
    pub(crate) fn take_covered(&mut self, dir: Inode) -> Vec<NameChange> {
        let (mut inodes, mut slots, mut covered) = (HashSet::new(), HashSet::new(), BTreeSet::new());
        for (at, change) in self.0.iter().enumerate().rev() {
            let had_to_come = inodes.contains(&change.inode) || change.slots().any(|slot| slots.contains(slot));
            if change.is_in(dir) || had_to_come {
                inodes.insert(change.inode);
                slots.extend(change.slots().cloned());
                covered.insert(at);
            }
        }
        let mut at = 0..;
        self.0.extract_if(.., |_| at.next().is_some_and(|at| covered.contains(&at))).collect()
    }

    /// The power goes. Gives what survives to `apply`, which says whether it was possible, and answers with the number of
    /// changes that are lost.
    pub(crate) fn lose(&mut self, chance: &mut Chance, mut apply: impl FnMut(&NameChange) -> bool) -> u64 {
        let changes = std::mem::take(&mut self.0);
        // Either the first ones survive, as a journal has them, or any of them.
        let journal_ends = chance.percent(40).then(|| chance.below(changes.len() as u64 + 1) as usize);
        let mut keep_of: HashMap<Inode, u64> = HashMap::new();
        let mut lost = 0;
        let mut behind = HashSet::new();
        for (at, change) in changes.iter().enumerate() {
            let dir = change.slots().last().map(|(dir, _)| *dir).unwrap_or_default();
            let keep = *keep_of.entry(dir).or_insert_with(|| keep_percent(chance));
            let survives = match journal_ends {
                Some(end) => at < end,
                None => !behind.contains(&change.inode) && chance.percent(keep),
            };
            if !survives || !apply(change) {
                behind.insert(change.inode);
                lost += 1;
            }
        }
        lost
    }
}

/// All that can become of names, by trying often.
#[cfg(test)]
mod tests {
    use crate::disk::{Disk, Inode, ROOT};
    use nodata_log::fs::simulated::Chance;
    use std::collections::{BTreeMap, BTreeSet};

    /// Every file with its content, by path, and every folder that is empty.
    fn tree(disk: &Disk) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![(ROOT, String::new())];
        while let Some((dir, path)) = dirs.pop() {
            let list = disk.list(dir).unwrap();
            if list.is_empty() {
                found.insert(format!("{path}/"), String::new());
            }
            for (name, at) in list {
                let path = format!("{path}/{}", name.display());
                if at.is_dir {
                    dirs.push((at.inode, path));
                } else {
                    found.insert(path, String::from_utf8(disk.read(at.inode, 0, 100).unwrap()).unwrap());
                }
            }
        }
        found
    }

    #[track_caller]
    fn assert_outcomes<T>(make: impl Fn(&Disk) -> T, expected: &[&[(&str, &str)]]) {
        let found: BTreeSet<_> = (0..500)
            .map(|seed| {
                let disk = Disk::new();
                let _ = make(&disk);
                disk.cut();
                disk.release();
                disk.forget(&mut Chance::new(seed));
                disk.power_on();
                tree(&disk)
            })
            .collect();
        let text = |(path, content): &(&str, &str)| ((*path).to_owned(), (*content).to_owned());
        let expected: BTreeSet<BTreeMap<_, _>> = expected.iter().map(|tree| tree.iter().map(text).collect()).collect();
        assert_eq!(found, expected);
    }

    /// A file that is synced, in a folder that is not.
    fn file(disk: &Disk, dir: Inode, name: &str, content: &str) -> Inode {
        let made = disk.create(dir, name.as_ref(), 0, false).unwrap().inode;
        disk.write(made, 0, content.as_bytes()).unwrap();
        disk.sync(made).unwrap();
        made
    }

    fn dir(disk: &Disk, around: Inode, name: &str) -> Inode {
        disk.create(around, name.as_ref(), 0, true).unwrap().inode
    }

    fn rename(disk: &Disk, from: (Inode, &str), to: (Inode, &str)) {
        disk.rename((from.0, from.1.as_ref()), (to.0, to.1.as_ref())).unwrap();
    }

    #[test]
    fn a_file_that_is_synced_has_a_name_only_when_its_folder_is_too() {
        let unsynced = |disk: &Disk| file(disk, ROOT, "a", "1");
        assert_outcomes(unsynced, &[&[("/", "")], &[("/a", "1")]]);
        assert_outcomes(
            |disk| {
                unsynced(disk);
                disk.sync(ROOT).unwrap();
            },
            &[&[("/a", "1")]],
        );
    }

    #[test]
    fn a_file_is_gone_with_a_folder_that_nobody_synced() {
        assert_outcomes(
            |disk| {
                let inner = dir(disk, ROOT, "d");
                file(disk, inner, "a", "1");
                disk.sync(inner).unwrap();
            },
            &[&[("/", "")], &[("/d/a", "1")]],
        );
    }

    #[test]
    fn a_file_that_replaces_another_does_so_at_once_and_has_one_name() {
        let replace = |disk: &Disk| {
            let (stage, data) = (dir(disk, ROOT, "stage"), dir(disk, ROOT, "data"));
            file(disk, data, "a", "1");
            disk.sync(ROOT).unwrap();
            disk.sync(data).unwrap();
            file(disk, stage, "tmp", "2");
            rename(disk, (stage, "tmp"), (data, "a"));
            [stage, data]
        };
        let done: &[_] = &[("/data/a", "2"), ("/stage/", "")];
        assert_outcomes(
            replace,
            &[done, &[("/data/a", "1"), ("/stage/", "")], &[("/data/a", "1"), ("/stage/tmp", "2")]],
        );
        for synced in 0..2 {
            assert_outcomes(|disk| disk.sync(replace(disk)[synced]).unwrap(), &[done]);
        }
    }

    #[test]
    fn a_name_that_is_synced_is_not_taken_by_what_had_it_before() {
        assert_outcomes(
            |disk| {
                let stage = dir(disk, ROOT, "stage");
                disk.sync(ROOT).unwrap();
                file(disk, ROOT, "a", "1");
                file(disk, stage, "tmp", "2");
                rename(disk, (stage, "tmp"), (ROOT, "a"));
                disk.sync(stage).unwrap();
            },
            &[&[("/a", "2"), ("/stage/", "")]],
        );
    }

    #[test]
    fn what_is_removed_may_come_back_until_the_folder_is_synced() {
        let remove = |disk: &Disk| {
            let inner = dir(disk, ROOT, "d");
            file(disk, inner, "a", "1");
            disk.sync(ROOT).unwrap();
            disk.sync(inner).unwrap();
            disk.remove(inner, "a".as_ref(), false).unwrap();
            inner
        };
        let removed: &[_] = &[("/d/", "")];
        assert_outcomes(remove, &[&[("/d/a", "1")], removed]);
        assert_outcomes(|disk| disk.sync(remove(disk)).unwrap(), &[removed]);
        // A folder is never gone with something in it.
        assert_outcomes(
            |disk| {
                remove(disk);
                disk.remove(ROOT, "d".as_ref(), true).unwrap();
            },
            &[&[("/d/a", "1")], removed, &[("/", "")]],
        );
    }
}
