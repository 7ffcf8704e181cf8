//! One file of the disk: what its users see, what the platter holds, and everything between the two.

use nodata_log::fs::simulated::Chance;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const PAGE_BYTES: usize = 4096;

/// What a page holds; `None` is zeros.
type Page = Option<Arc<[u8; PAGE_BYTES]>>;

const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: u64,
    /// By number; pages of zeros are left out.
    pages: BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>,
}

impl Content {
    fn page(&self, number: u64) -> Page {
        self.pages.get(&number).cloned()
    }

    fn set_page(&mut self, number: u64, page: Page) {
        match page {
            Some(page) => drop(self.pages.insert(number, page)),
            None => drop(self.pages.remove(&number)),
        }
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let end = self.bytes.min(at + len as u64);
        let mut out = vec![0; end.saturating_sub(at) as usize];
        for (number, from, to) in pages(at, out.len()) {
            if let Some(page) = self.pages.get(&number) {
                let start = (number * PAGE_BYTES as u64 + from as u64 - at) as usize;
                out[start..start + to - from].copy_from_slice(&page[from..to]);
            }
        }
        out
    }
}

/// The pages of a range: the number of each, and which of its bytes.
fn pages(at: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (size, end) = (PAGE_BYTES as u64, at + len as u64);
    (at / size..end.div_ceil(size)).map(move |number| {
        let from = at.saturating_sub(number * size).min(size) as usize;
        let to = (end - number * size).min(size) as usize;
        (number, from, to)
    })
}

/// What a page held at one moment since the last sync.
#[derive(Debug)]
struct Version {
    page: Page,
    /// It is so because the file was cut: the position of that in [`File::sizes`].
    cut: Option<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct File {
    seen: Content,
    durable: Content,
    /// For each page that was written since the last sync, what it held, in order.
    versions: BTreeMap<u64, Vec<Version>>,
    /// The sizes since the last sync, in order.
    sizes: Vec<u64>,
}

impl File {
    pub(crate) fn bytes(&self) -> u64 {
        self.seen.bytes
    }

    pub(crate) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        self.seen.read(at, len)
    }

    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (number, from, to) in pages(at, bytes.len()) {
            let (here, behind) = rest.split_at(to - from);
            rest = behind;
            let mut page = self.seen.page(number).map_or(ZEROS, |page| *page);
            page[from..to].copy_from_slice(here);
            self.put(number, (page != ZEROS).then(|| Arc::new(page)), None);
        }
        let end = at + bytes.len() as u64;
        if end > self.seen.bytes {
            self.grow(end);
        }
    }

    /// The file has at least so many bytes.
    pub(crate) fn allocate(&mut self, bytes: u64) {
        if bytes > self.seen.bytes {
            self.grow(bytes);
        }
    }

    fn grow(&mut self, bytes: u64) {
        self.seen.bytes = bytes;
        self.sizes.push(bytes);
    }

    pub(crate) fn set_size(&mut self, bytes: u64) {
        let cut = Some(self.sizes.len());
        let is_shorter = bytes < self.seen.bytes;
        self.grow(bytes);
        if !is_shorter {
            return;
        }
        let (first, kept) = (bytes / PAGE_BYTES as u64, (bytes % PAGE_BYTES as u64) as usize);
        let gone: Vec<u64> = self.seen.pages.range(first..).map(|(number, _)| *number).collect();
        for number in gone {
            let mut page = ZEROS;
            if number == first
                && let Some(before) = self.seen.page(number)
            {
                page[..kept].copy_from_slice(&before[..kept]);
            }
            self.put(number, (page != ZEROS).then(|| Arc::new(page)), cut);
        }
    }

    fn put(&mut self, number: u64, page: Page, cut: Option<usize>) {
        // Zeros over zeros change nothing, whatever becomes of them.
        if page.is_none() && cut.is_none() && !self.seen.pages.contains_key(&number) {
            return;
        }
        self.seen.set_page(number, page.clone());
        self.versions.entry(number).or_default().push(Version { page, cut });
    }

    /// Whether anything waits for a sync.
    pub(crate) fn is_synced(&self) -> bool {
        self.versions.is_empty() && self.sizes.is_empty()
    }

    /// Everything that was written until now is on the platter.
    pub(crate) fn sync(&mut self) {
        for (number, mut versions) in std::mem::take(&mut self.versions) {
            let last = versions.pop().and_then(|version| version.page);
            self.durable.set_page(number, last);
        }
        self.sizes.clear();
        self.durable.bytes = self.seen.bytes;
    }

    /// The power goes. Each sector holds what it held at some moment since the last sync, the size is one that the file had,
    /// and both are chosen on their own: a size that grew says nothing about what was written behind the old end. Only a cut
    /// is there or not as a whole. Answers with the number of sectors that are not as they were last.
    pub(crate) fn lose_power(&mut self, chance: &mut Chance, sector_bytes: usize) -> u64 {
        let keep = keep_percent(chance);
        let sizes = match keep {
            0 => 0,
            100 => self.sizes.len(),
            _ => chance.below(self.sizes.len() as u64 + 1) as usize,
        };
        let mut lost = 0;
        for (number, versions) in std::mem::take(&mut self.versions) {
            // The position 0 is what was durable. A cut that is there is not undone, and nothing that came after one that is
            // not there is kept.
            let least =
                versions.iter().rposition(|version| version.cut.is_some_and(|cut| cut < sizes)).map_or(0, |at| at + 1);
            let lost_cut = versions.iter().position(|version| version.cut.is_some_and(|cut| cut >= sizes));
            let most = lost_cut.unwrap_or(versions.len());
            let mut page = ZEROS;
            for sector in (0..PAGE_BYTES).step_by(sector_bytes) {
                let mut at = least;
                while at < most && chance.percent(keep) {
                    at += 1;
                }
                lost += u64::from(at < versions.len());
                let held = match at {
                    0 => self.durable.page(number),
                    at => versions[at - 1].page.clone(),
                };
                if let Some(held) = held {
                    page[sector..sector + sector_bytes].copy_from_slice(&held[sector..sector + sector_bytes]);
                }
            }
            self.durable.set_page(number, (page != ZEROS).then(|| Arc::new(page)));
        }
        if let Some(bytes) = self.sizes.get(sizes.wrapping_sub(1)) {
            self.durable.bytes = *bytes;
        }
        self.sizes.clear();
        self.drop_behind_end();
        self.seen = self.durable.clone();
        lost
    }

    /// What lies behind the end is not there, and reads as zeros when the file grows.
    fn drop_behind_end(&mut self) {
        let end = self.durable.bytes;
        drop(self.durable.pages.split_off(&end.div_ceil(PAGE_BYTES as u64)));
        let used = (end % PAGE_BYTES as u64) as usize;
        if used > 0
            && let Some(page) = self.durable.pages.get_mut(&(end / PAGE_BYTES as u64))
        {
            Arc::make_mut(page)[used..].fill(0);
        }
    }
}

/// How much survives: now and then everything does, or nothing.
pub(crate) fn keep_percent(chance: &mut Chance) -> u64 {
    [0, 10, 50, 90, 100][chance.below(5) as usize]
}

/// All that can become of a file, by trying often.
#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const PAGE: u64 = PAGE_BYTES as u64;

    fn outcomes(sector_bytes: usize, make: impl Fn() -> File) -> BTreeSet<Vec<u8>> {
        (0..400)
            .map(|seed| {
                let mut file = make();
                file.lose_power(&mut Chance::new(seed), sector_bytes);
                assert!(file.is_synced());
                file.read(0, 1 << 20)
            })
            .collect()
    }

    #[test]
    fn what_is_synced_stays() {
        let found = outcomes(512, || {
            let mut file = File::default();
            file.write(PAGE - 10, &[1; 20]);
            file.set_size(PAGE + 5);
            file.sync();
            file
        });
        let expected = [vec![0; PAGE_BYTES - 10], vec![1; 15]].concat();
        assert_eq!(found, BTreeSet::from([expected]));
    }

    #[test]
    fn sectors_tear_and_each_holds_what_it_held_once() {
        let found = outcomes(2048, || {
            let mut file = File::default();
            file.write(0, &[1; PAGE_BYTES]);
            file.sync();
            file.write(0, &[2; PAGE_BYTES]);
            file.write(0, &[3; PAGE_BYTES]);
            file
        });
        let all = (1..=3).flat_map(|a| (1..=3).map(move |b| [vec![a; 2048], vec![b; 2048]].concat()));
        assert_eq!(found, all.collect());
    }

    #[test]
    fn a_file_that_grew_may_be_long_and_empty() {
        let found = outcomes(4096, || {
            let mut file = File::default();
            file.write(0, &[1; 10]);
            file
        });
        assert_eq!(found, BTreeSet::from([vec![], vec![0; 10], vec![1; 10]]));
    }

    #[test]
    fn a_cut_is_there_as_a_whole_or_not_at_all() {
        let found = outcomes(4096, || {
            let mut file = File::default();
            file.write(0, &[1; 2 * PAGE_BYTES]);
            file.sync();
            file.set_size(100);
            file
        });
        assert_eq!(found, BTreeSet::from([vec![1; 100], vec![1; 2 * PAGE_BYTES]]));

        // What was cut off does not come back when the file grows again.
        let found = outcomes(4096, || {
            let mut file = File::default();
            file.write(0, &[1; PAGE_BYTES]);
            file.sync();
            file.set_size(1);
            file.set_size(3);
            file
        });
        assert_eq!(found, BTreeSet::from([vec![1; PAGE_BYTES], vec![1], vec![1, 0, 0]]));
    }
}
