//! What a call is given.

use crate::columns::{BytesColumn, HeadersColumn};
use crate::error::{Error, Result};
use crate::host::{self, Fetched};
use std::cell::OnceCell;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;

/// The events of one call, in order: a slice of one partition of one topic, at least one event long.
///
/// They lie at the host. A column (all values, all keys, …) comes over when the first event is asked for it, once,
/// and not at all when no event is: a component that never looks at headers does not pay for them. Looking at an
/// event allocates nothing.
///
/// It is a small handle: copy it to go through the events twice.
#[derive(Clone, Copy)]
pub struct Events<'a> {
    batch: &'a Batch<'a>,
}

impl<'a> Events<'a> {
    pub(crate) fn new(batch: &'a Batch<'a>) -> Self {
        Self { batch }
    }

    /// The topic they are from.
    pub fn topic(&self) -> &'a str {
        self.batch.topic.get_or_init(|| self.batch.host.topic())
    }

    /// The partition they are from.
    pub fn partition(&self) -> u32 {
        self.batch.host.partition()
    }

    /// 1 when these events are given for the first time, and one more each time they are given again.
    pub fn attempt(&self) -> u32 {
        self.batch.host.attempt()
    }

    /// How many there are, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a batch is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.batch.len as usize
    }

    /// Bytes of ids, keys, values and headers together.
    pub fn byte_size(&self) -> u64 {
        *self.batch.byte_size.get_or_init(|| self.batch.host.byte_size())
    }

    /// The event in this row, counted from 0.
    #[inline]
    pub fn get(&self, row: usize) -> Option<Event<'a>> {
        (row < self.len()).then_some(Event { batch: self.batch, row: row as u32 })
    }

    /// In order.
    #[inline]
    pub fn iter(&self) -> Iter<'a> {
        Iter { batch: self.batch, rows: 0..self.batch.len }
    }
}

impl<'a> IntoIterator for Events<'a> {
    type Item = Event<'a>;
    type IntoIter = Iter<'a>;

    #[inline]
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Events<'a> {
    type Item = Event<'a>;
    type IntoIter = Iter<'a>;

    #[inline]
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Events<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// The events of a call, one after the other.
#[derive(Clone)]
pub struct Iter<'a> {
    batch: &'a Batch<'a>,
    rows: Range<u32>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Event<'a>;

    #[inline]
    fn next(&mut self) -> Option<Event<'a>> {
        self.rows.next().map(|row| Event { batch: self.batch, row })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.rows.next_back().map(|row| Event { batch: self.batch, row })
    }
}

impl ExactSizeIterator for Iter<'_> {}
impl FusedIterator for Iter<'_> {}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// Bytes of an event that is copied in about the time of a call of the host.
const COPY_BYTES_MAX: usize = 1 << 10;

/// One event of the input.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    batch: &'a Batch<'a>,
    row: u32,
}

impl<'a> Event<'a> {
    /// The name that its producer gave it.
    pub fn id(&self) -> Option<&'a str> {
        self.id_bytes().map(|id| text_of(id, "an id"))
    }

    #[inline]
    pub(crate) fn id_bytes(&self) -> Option<&'a [u8]> {
        self.batch.ids()?.get(self.row as usize)
    }

    /// What decides its partition. An empty key is a key, `None` is not.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.batch.keys().get(self.row as usize)
    }

    /// Its content. `None` is a tombstone.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.batch.values().get(self.row as usize)
    }

    /// Its content, where a tombstone is an error.
    #[inline]
    pub fn bytes(&self) -> Result<&'a [u8]> {
        match self.value() {
            Some(value) => Ok(value),
            None => Err(self.unfit("has no value")),
        }
    }

    /// Its content as text, where a tombstone and what is not UTF-8 are errors.
    pub fn text(&self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|error| self.unfit(format_args!("is not text: {error}")))
    }

    /// Its content from JSON, where a tombstone and other content are errors. `T` may borrow from the event.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Deserialize<'a>>(&self) -> Result<T> {
        serde_json::from_slice(self.bytes()?)
            .map_err(|error| self.unfit(format_args!("is not the JSON that was expected: {error}")))
    }

    /// Its headers, in order. No name appears twice.
    #[inline]
    pub fn headers(&self) -> Headers<'a> {
        match self.batch.headers() {
            Some(column) => Headers { column: Some(column), elements: column.range(self.row as usize) },
            None => Headers { column: None, elements: 0..0 },
        }
    }

    /// The value of the header of this name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// When it happened, in microseconds since the Unix epoch.
    #[inline]
    pub fn timestamp_us(&self) -> i64 {
        self.batch.timestamps()[self.row as usize]
    }

    /// Its place in the partition. Offsets increase, and may have gaps.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.batch.offsets()[self.row as usize]
    }

    /// Whether copying it does not cost more than telling the host about it. A batch of large events is not fetched
    /// only to find that out.
    pub(crate) fn is_cheap_to_copy(&self) -> bool {
        let batch_bytes = Events { batch: self.batch }.byte_size();
        batch_bytes <= u64::from(self.batch.len) * COPY_BYTES_MAX as u64
            && self.value().is_none_or(|value| value.len() <= COPY_BYTES_MAX)
    }

    /// Its place in this call, counted from 0.
    #[inline]
    pub fn row(&self) -> u32 {
        self.row
    }

    #[cold]
    fn unfit(&self, what: impl fmt::Display) -> Error {
        Error::permanent(format_args!("the event at offset {} {what}", self.offset()))
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lossy = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        f.debug_struct("Event")
            .field("offset", &self.offset())
            .field("id", &self.id())
            .field("key", &lossy(self.key()))
            .field("value", &lossy(self.value()))
            .field("headers", &self.headers().map(|(name, value)| (name, lossy(Some(value)))).collect::<Vec<_>>())
            .field("timestamp_us", &self.timestamp_us())
            .finish()
    }
}

/// The headers of one event: names and values.
#[derive(Clone)]
pub struct Headers<'a> {
    column: Option<&'a HeadersColumn>,
    elements: Range<usize>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let column = self.column?;
        let at = self.elements.next()?;
        let name = column.names.get(at).unwrap_or_default();
        Some((text_of(name, "a header name"), column.values.get(at).unwrap_or_default()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.elements.size_hint()
    }
}

impl ExactSizeIterator for Headers<'_> {}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.clone()).finish()
    }
}

/// The contract says that the host checked it.
fn text_of<'a>(bytes: &'a [u8], what: &str) -> &'a str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => panic!("the host broke the contract: {what} is not UTF-8: {error}"),
    }
}

/// The columns of a call, each fetched when it is first looked at.
pub(crate) struct Batch<'a> {
    host: host::Batch<'a>,
    len: u32,
    byte_size: OnceCell<u64>,
    topic: OnceCell<String>,
    offsets: OnceCell<Vec<u64>>,
    ids: OnceCell<Option<Fetched<'a, BytesColumn>>>,
    keys: OnceCell<Fetched<'a, BytesColumn>>,
    values: OnceCell<Fetched<'a, BytesColumn>>,
    timestamps: OnceCell<Fetched<'a, Vec<i64>>>,
    headers: OnceCell<Option<Fetched<'a, HeadersColumn>>>,
}

// Each column has its accessor, and the first fetch of each is out of the way of all others.
impl<'a> Batch<'a> {
    pub(crate) fn new(host: host::Batch<'a>) -> Self {
        Self {
            len: host.len(),
            host,
            byte_size: OnceCell::new(),
            topic: OnceCell::new(),
            offsets: OnceCell::new(),
            ids: OnceCell::new(),
            keys: OnceCell::new(),
            values: OnceCell::new(),
            timestamps: OnceCell::new(),
            headers: OnceCell::new(),
        }
    }

    fn offsets(&self) -> &[u64] {
        self.offsets.get_or_init(|| self.host.offsets())
    }

    #[inline]
    fn ids(&self) -> Option<&BytesColumn> {
        self.ids.get_or_init(|| self.host.ids()).as_ref().map(|column| -> &BytesColumn { column })
    }

    #[inline]
    fn keys(&self) -> &BytesColumn {
        self.keys.get_or_init(|| self.host.keys())
    }

    #[inline]
    fn values(&self) -> &BytesColumn {
        self.values.get_or_init(|| self.host.values())
    }

    #[inline]
    fn timestamps(&self) -> &[i64] {
        self.timestamps.get_or_init(|| self.host.timestamps())
    }

    #[inline]
    fn headers(&self) -> Option<&HeadersColumn> {
        self.headers.get_or_init(|| self.host.headers()).as_ref().map(|column| -> &HeadersColumn { column })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use crate::testing::{self, Harness};

    fn check(process: fn(Events<'_>, &mut Output<'_>) -> Result<()>) {
        let input = [
            testing::Event::new("{\"n\":1}").id("first").key("k").header("a", "1").header("b", "2").timestamp_us(7),
            testing::Event::new([0xff]).key("").header("b", "3").timestamp_us(-8),
            testing::Event::tombstone().timestamp_us(9),
        ];
        Harness::new(process).topic("flights").partition(3).next_offset(40).call(input).ok();
    }

    #[test]
    fn an_event_is_what_it_was_made_of() {
        check(|events, _| {
            let [first, second, third] = [0, 1, 2].map(|row| events.get(row).unwrap());
            assert_eq!((first.id(), second.id(), third.id()), (Some("first"), None, None));
            assert_eq!((first.key(), second.key(), third.key()), (Some(&b"k"[..]), Some(&b""[..]), None));
            assert_eq!((second.value(), third.value()), (Some(&[0xff][..]), None));
            assert_eq!((first.timestamp_us(), second.timestamp_us(), third.timestamp_us()), (7, -8, 9));
            assert_eq!((first.offset(), third.offset(), third.row()), (40, 42, 2));
            assert_eq!(first.headers().collect::<Vec<_>>(), [("a", &b"1"[..]), ("b", b"2")]);
            assert_eq!((second.header("b"), second.header("a"), third.header("b")), (Some(&b"3"[..]), None, None));
            assert_eq!((first.headers().len(), third.headers().len()), (2, 0));
            assert!(events.get(3).is_none());
            Ok(())
        });
    }

    #[test]
    fn a_batch_says_where_it_is_from() {
        check(|events, _| {
            assert_eq!((events.topic(), events.partition(), events.attempt()), ("flights", 3, 1));
            assert_eq!((events.len(), events.byte_size()), (3, 7 + 5 + 1 + 4 + 1 + 2));
            assert_eq!(events.iter().rev().map(|event| event.offset()).collect::<Vec<_>>(), [42, 41, 40]);
            assert_eq!(events.into_iter().len(), 3);
            Ok(())
        });
    }

    #[test]
    fn content_that_does_not_fit_is_said_with_its_offset() {
        check(|events, _| {
            let [first, second, third] = [0, 1, 2].map(|row| events.get(row).unwrap());
            assert_eq!(first.text()?, "{\"n\":1}");
            let text = second.text().unwrap_err();
            assert_eq!(
                text.message(),
                "the event at offset 41 is not text: invalid utf-8 sequence of 1 bytes from index 0"
            );
            assert!(!text.is_transient());
            assert_eq!(third.bytes().unwrap_err().message(), "the event at offset 42 has no value");
            Ok(())
        });
    }

    #[cfg(feature = "json")]
    #[test]
    fn json_may_borrow_from_the_event() {
        check(|events, _| {
            let [first, second] = [0, 1].map(|row| events.get(row).unwrap());
            let parsed: std::collections::BTreeMap<&str, u32> = first.json()?;
            assert_eq!(parsed, [("n", 1)].into());
            assert_eq!(
                second.json::<u32>().unwrap_err().message(),
                "the event at offset 41 is not the JSON that was expected: expected value at line 1 column 1"
            );
            Ok(())
        });
    }

    #[test]
    fn an_event_is_shown_in_words() {
        check(|events, _| {
            let shown = format!("{:?}", events.get(0).unwrap());
            assert_eq!(
                shown,
                r#"Event { offset: 40, id: Some("first"), key: Some("k"), value: Some("{\"n\":1}"), headers: [("a", Some("1")), ("b", Some("2"))], timestamp_us: 7 }"#
            );
            Ok(())
        });
    }
}
