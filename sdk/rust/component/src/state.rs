//! What a component remembers, durably.
//!
//! A [`Table`] maps byte strings to byte strings, in the order of the keys. It belongs to one deployment and one
//! partition. A call reads what it wrote itself; what it wrote commits together with its output and its position in
//! the input when it returns `Ok`, and is gone when it fails. So a count that is kept in a table is exact.
//!
//! ```
//! use nodata_component::{Result, state::Table};
//!
//! fn visits(user: &str) -> Result<u64> {
//!     let table = Table::open("visits")?;
//!     let before = match table.get(user)? {
//!         Some(bytes) => u64::from_le_bytes(bytes.as_slice().try_into()?),
//!         None => 0,
//!     };
//!     table.put(user, (before + 1).to_le_bytes())?;
//!     Ok(before + 1)
//! }
//! assert_eq!(visits("ada").unwrap(), 1);
//! assert_eq!(visits("ada").unwrap(), 2);
//! ```

use crate::column_builder::BytesColumnBuilder;
use crate::columns::BytesColumn;
use crate::host;
use std::fmt::{self, Display};
use std::ops::{Range, RangeFrom, RangeFull, RangeTo};

/// What functions of tables give back. `?` makes the call fail with the matching [`crate::Error`]: one that may be
/// tried again where the table is unavailable, a permanent one otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a table did not do what was asked.
// Not a `std::error::Error`, for the reason that `crate::Error` is none, and because `?` has to tell its kinds apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is never allowed: a bad table name, an empty or an oversize key, an oversize value.
    Denied(String),
    /// What this call wrote, or all that is kept, would be larger than the deployment allows.
    QuotaExceeded,
    /// The table could not be read. Trying the call again may help.
    Unavailable(String),
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(why) => write!(f, "the host does not allow this for a state table: {why}"),
            Self::QuotaExceeded => f.write_str("the state is larger than the deployment allows"),
            Self::Unavailable(why) => write!(f, "the state cannot be read: {why}"),
        }
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match &error {
            Error::Unavailable(_) => Self::transient(error),
            Error::Denied(_) | Error::QuotaExceeded => Self::permanent(error),
        }
    }
}

/// A key with its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A map from byte strings to byte strings that outlives the component.
#[derive(Debug)]
pub struct Table(host::Table);

impl Table {
    /// Opens the table of this name. It need not exist before. Names are `[a-zA-Z0-9_.-]{1,200}`.
    pub fn open(name: &str) -> Result<Self> {
        host::Table::open(name).map(Self)
    }

    /// The value of a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.0.get(key.as_ref())
    }

    /// Sets the value of a key.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.0.put(key.as_ref(), value.as_ref())
    }

    /// Removes a key. It need not be there.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.0.delete(key.as_ref())
    }

    /// The values of many keys, with as few calls of the host as it allows.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Values> {
        let mut pages = Vec::new();
        let mut page = Page::default();
        for key in keys {
            page.push_key(key.as_ref());
            if page.is_full() {
                pages.push(self.0.get_many(page.keys.as_column())?);
                page = Page::default();
            }
        }
        if page.rows > 0 {
            pages.push(self.0.get_many(page.keys.as_column())?);
        }
        Ok(Values(pages))
    }

    /// Sets the values of many keys, with as few calls of the host as it allows. Of equal keys the last one counts.
    pub fn put_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        self.write_many(entries.into_iter().map(|(key, value)| (key, Some(value))))
    }

    /// Removes many keys, with as few calls of the host as it allows.
    pub fn delete_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        self.write_many(keys.into_iter().map(|key| (key, None::<&[u8]>)))
    }

    fn write_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl Iterator<Item = (K, Option<V>)>) -> Result<()> {
        let mut page = Page::default();
        for (key, value) in entries {
            page.push_value(value.as_ref().map(AsRef::as_ref));
            page.push_key(key.as_ref());
            if page.is_full() {
                self.write_page(page)?;
                page = Page::default();
            }
        }
        if page.rows > 0 { self.write_page(page) } else { Ok(()) }
    }

    fn write_page(&self, mut page: Page) -> Result<()> {
        if !page.values.is_used() {
            page.values.fill_with_nulls(page.rows);
        }
        self.0.put_many(page.keys.as_column(), page.values.as_column())
    }

    /// The entries of a range of keys, in order of key: `table.scan("a".."b")`, `table.scan(last..)`,
    /// `table.scan(..)`. They are fetched page by page while you go on, so what is written meanwhile further on is
    /// seen.
    pub fn scan(&self, range: impl KeyRange) -> Scan<'_> {
        let (start, end) = range.bounds();
        Scan { table: self, start, end, page: Vec::new().into_iter(), is_done: false }
    }

    /// The entries whose keys begin so, in order of key.
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Scan<'_> {
        let start = prefix.as_ref().to_vec();
        let mut end = start.clone();
        // The first key behind all that begin so ends with a byte that is one larger.
        while end.pop_if(|last| *last == u8::MAX).is_some() {}
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let end = (!end.is_empty()).then_some(end);
        Scan { table: self, start, end, page: Vec::new().into_iter(), is_done: false }
    }
}

/// Most keys that are given to the host at once. It takes more, and not without end.
const PAGE_KEYS: usize = 1 << 14;

/// Bytes of keys and values after which they are given to the host.
const PAGE_BYTES: usize = 4 << 20;

/// Keys, and values for them, on their way to the host.
#[derive(Default)]
struct Page {
    rows: usize,
    keys: BytesColumnBuilder,
    values: BytesColumnBuilder,
}

impl Page {
    /// The value comes first: the key ends the row.
    fn push_value(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => {
                self.values.data.extend_from_slice(value);
                self.values.finish_element(self.rows);
            }
            None => self.values.finish_null(self.rows),
        }
    }

    fn push_key(&mut self, key: &[u8]) {
        self.keys.data.extend_from_slice(key);
        self.keys.finish_element(self.rows);
        self.rows += 1;
    }

    fn is_full(&self) -> bool {
        self.rows == PAGE_KEYS || self.keys.data.len() + self.values.data.len() >= PAGE_BYTES
    }
}

/// The values of many keys, in the order of the keys, from [`Table::get_many`].
#[derive(Clone, Debug)]
pub struct Values(Vec<BytesColumn>);

impl Values {
    /// The value of the key number `at`; `None` if there is none.
    pub fn get(&self, mut at: usize) -> Option<&[u8]> {
        for page in &self.0 {
            match at.checked_sub(page.rows()) {
                Some(rest) => at = rest,
                None => return page.get(at),
            }
        }
        None
    }

    /// As many as there were keys.
    pub fn len(&self) -> usize {
        self.0.iter().map(BytesColumn::rows).sum()
    }

    /// Whether there were no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One for each key; `None` where there is no value.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.0.iter().flat_map(|page| (0..page.rows()).map(|row| page.get(row)))
    }
}

/// A range of keys: `..`, `a..b`, `a..` and `..b` of whatever is bytes.
pub trait KeyRange: sealed::Bounds {}

impl<R: sealed::Bounds> KeyRange for R {}

mod sealed {
    use super::*;

    pub trait Bounds {
        /// The first key, and the first one behind the last.
        fn bounds(self) -> (Vec<u8>, Option<Vec<u8>>);
    }

    impl Bounds for RangeFull {
        fn bounds(self) -> (Vec<u8>, Option<Vec<u8>>) {
            (Vec::new(), None)
        }
    }

    impl<K: AsRef<[u8]>> Bounds for Range<K> {
        fn bounds(self) -> (Vec<u8>, Option<Vec<u8>>) {
            (self.start.as_ref().to_vec(), Some(self.end.as_ref().to_vec()))
        }
    }

    impl<K: AsRef<[u8]>> Bounds for RangeFrom<K> {
        fn bounds(self) -> (Vec<u8>, Option<Vec<u8>>) {
            (self.start.as_ref().to_vec(), None)
        }
    }

    impl<K: AsRef<[u8]>> Bounds for RangeTo<K> {
        fn bounds(self) -> (Vec<u8>, Option<Vec<u8>>) {
            (Vec::new(), Some(self.end.as_ref().to_vec()))
        }
    }
}

/// Most entries that are fetched at once. The host may answer with fewer.
const PAGE_ENTRIES: u32 = 1024;

/// Keys with their values, in order of key, from [`Table::scan`]. An error ends it.
#[derive(Debug)]
pub struct Scan<'t> {
    table: &'t Table,
    /// Of the next page.
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    page: std::vec::IntoIter<Entry>,
    is_done: bool,
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.page.next() {
            return Some(Ok(entry));
        }
        if self.is_done {
            return None;
        }
        let page = match self.table.0.scan(&self.start, self.end.as_deref(), PAGE_ENTRIES) {
            Ok(page) => page,
            Err(error) => {
                self.is_done = true;
                return Some(Err(error));
            }
        };
        match page.last() {
            // A page may be short because the host's answer was full, so only an empty one is the end.
            Some((last, _)) => {
                self.start.clone_from(last);
                self.start.push(0);
            }
            None => self.is_done = true,
        }
        self.page = page.into_iter();
        self.page.next().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;

    /// Runs this with a table `t` that holds a, b and c, and says what it holds then.
    fn check(process: fn(&Table) -> crate::Result<()>) -> Vec<(String, String)> {
        let mut harness = Harness::new(move |_, _| process(&Table::open("t")?));
        for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
            harness = harness.state("t", key, value);
        }
        harness.call(["x"]).ok();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        harness.table("t").into_iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    fn entries(entries: &[(&str, &str)]) -> Vec<(String, String)> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_call_reads_what_it_wrote() {
        let after = check(|table| {
            assert_eq!(table.get("b")?, Some(b"2".to_vec()));
            table.put("b", "two")?;
            table.delete("c")?;
            table.delete("no such key")?;
            assert_eq!((table.get("b")?, table.get("c")?), (Some(b"two".to_vec()), None));
            Ok(())
        });
        assert_eq!(after, entries(&[("a", "1"), ("b", "two")]));
    }

    #[test]
    fn many_keys_go_in_one_call() {
        let after = check(|table| {
            let values = table.get_many(["c", "x", "a"])?;
            assert_eq!(values.iter().collect::<Vec<_>>(), [Some(&b"3"[..]), None, Some(b"1")]);
            assert_eq!((values.get(0), values.get(1), values.get(3)), (Some(&b"3"[..]), None, None));
            assert_eq!(values.len(), 3);

            let none = table.get_many(["x", "y"])?;
            assert_eq!(none.iter().collect::<Vec<_>>(), [None, None]);
            assert!(table.get_many::<&str>([])?.is_empty());

            table.put_many([("a", "one"), ("d", "4"), ("a", "uno")])?;
            table.put_many::<&str, &str>([])?;
            table.delete_many(["b", "x"])?;
            Ok(table.delete_many::<&str>([])?)
        });
        assert_eq!(after, entries(&[("a", "uno"), ("c", "3"), ("d", "4")]));
    }

    #[test]
    fn very_many_keys_go_in_more_calls_and_come_back_in_order() {
        check(|table| {
            let keys = || (0..2 * PAGE_KEYS as u32 + 7).map(u32::to_be_bytes);
            table.put_many(keys().map(|key| (key, key)))?;
            table.delete_many(keys().step_by(2))?;
            let values = table.get_many(keys())?;
            assert_eq!(values.len(), keys().len());
            for (n, (key, value)) in keys().zip(values.iter()).enumerate() {
                let expected = (n % 2 == 1).then_some(&key[..]);
                assert_eq!((value, values.get(n)), (expected, expected));
            }
            assert_eq!(values.get(keys().len()), None);

            let large = vec![b'x'; 1 << 20];
            table.put_many((0..10u8).map(|key| ([key], &large)))?;
            assert_eq!(table.get([9])?.map(|value| value.len()), Some(1 << 20));
            Ok(())
        });
    }

    #[test]
    fn a_scan_is_in_order_and_goes_over_pages() {
        check(|table| {
            let keys = |scan: Scan<'_>| scan.map(|entry| Ok(entry?.0)).collect::<Result<Vec<_>>>();
            assert_eq!(keys(table.scan(..))?, [b"a", b"b", b"c"]);
            assert_eq!(keys(table.scan("b"..))?, [b"b", b"c"]);
            assert_eq!(keys(table.scan(.."b"))?, [b"a"]);
            assert_eq!(keys(table.scan("a".."c"))?, [b"a", b"b"]);

            let many = Table::open("many")?;
            let numbers = 0..3 * PAGE_ENTRIES + 1;
            many.put_many(numbers.clone().map(|n| (n.to_be_bytes(), "")))?;
            let found = keys(many.scan(..))?;
            assert!(found.iter().eq(numbers.map(u32::to_be_bytes).collect::<Vec<_>>().iter()));
            Ok(())
        });
    }

    #[test]
    fn a_scan_of_a_prefix_ends_with_it() {
        check(|table| {
            let keys: [&[u8]; 6] = [b"p", b"p\x00", b"p\xff\xff", b"q", b"\xff", b"\xff\xffz"];
            table.put_many(keys.map(|key| (key, "")))?;
            let with = |prefix: &[u8]| table.scan_prefix(prefix).map(|entry| Ok(entry?.0)).collect::<Result<Vec<_>>>();
            assert_eq!(with(b"p")?, keys[..3]);
            assert_eq!(with(b"p\xff")?, keys[2..3]);
            assert_eq!(with(b"\xff")?, keys[4..]);
            assert_eq!(with(b"")?.len(), 9);
            Ok(())
        });
    }

    #[test]
    fn what_is_not_allowed_says_so() {
        check(|table| {
            let denied = |result: Result<()>| match result {
                Err(Error::Denied(why)) => why,
                other => panic!("{other:?}"),
            };
            assert_eq!(denied(table.put("", "v")), "the key is empty");
            assert_eq!(denied(table.put([0; 4097], "v")), "the key has 4097 bytes, at most 4096 are allowed");
            let large = vec![0; (4 << 20) + 1];
            assert_eq!(denied(table.put("k", large)), "the value has 4194305 bytes, at most 4194304 are allowed");
            assert!(denied(Table::open("a/b").map(drop)).contains("`a/b` is no name of a table"));
            let error = crate::Error::from(table.put("", "v").unwrap_err());
            assert_eq!(error.message(), "the host does not allow this for a state table: the key is empty");
            assert!(!error.is_transient());
            Ok(())
        });
        assert!(crate::Error::from(Error::Unavailable("disk".to_owned())).is_transient());
    }

    #[test]
    fn a_failed_call_and_a_refused_write_leave_nothing() {
        let mut harness = Harness::new(|events, _| {
            let table = Table::open("t")?;
            table.put("k", "12")?;
            assert_eq!(table.put_many([("l", "34"), ("m", "5678")]), Err(Error::QuotaExceeded));
            assert_eq!(table.get("l")?, None);
            table.put("k", "12345")?;
            match events.attempt() {
                1 => Err(crate::Error::transient("later")),
                _ => Ok(()),
            }
        })
        .state_bytes_max(6);
        assert!(harness.call(["x"]).error().is_some());
        assert!(harness.table("t").is_empty());
        harness.call_again().ok();
        assert_eq!(harness.table("t"), [(b"k".to_vec(), b"12345".to_vec())].into());
    }
}
